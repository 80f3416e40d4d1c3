"""Copying from the host into a dataset: files, directories, and everything about them.

The walk goes by directory descriptors and inode numbers, so that no path is resolved twice. What
the host refuses (OSError) ends the copy, and with it the transaction.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Callable, Iterator
from itertools import islice

from ..blob import Blob
from ..errors import Error, UsageError
from ..filecopy import copy_in
from ..host import ReadAhead
from ..limits import KIB
from ..values import write_blob, write_value
from .bulk import Bulk, Directory, check_file_place
from .inode import (
    DATA,
    FLAG_SPARSE,
    NO_INODE,
    SIZE_MAX,
    SYMLINK,
    XATTR,
    Inode,
    clamp_time,
    make_key,
)
from .nodes import Inodes, Keep
from .paths import locate

_log = logging.getLogger("cowfs")

_BATCH = 4096
"""Entries of a directory that are sorted together: bounds memory where there are millions."""
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_MEDIUM = 128 * KIB


class Import:
    """One copy from the host."""

    def __init__(
        self, nodes: Inodes, keep: Keep, progress: Callable[[int, int], None] | None
    ) -> None:
        self._nodes = nodes
        self._tree = nodes.tree
        self._limit = nodes.tree.inline_limit
        self._bulk = Bulk(nodes, keep)
        self._links: dict[tuple[int, int], int] = {}
        self._progress = progress
        self._done = 0
        self._total = 0
        self._ahead = ReadAhead()
        self._image = nodes.io.device.identity

    def run(self, source: bytes, target: bytes, follow: bool) -> None:
        """Copy `source` on the host to the path `target`."""
        try:
            self._run(source, target, follow)
        finally:
            self._ahead.close()

    def _run(self, source: bytes, target: bytes, follow: bool) -> None:
        info = os.stat(source, follow_symlinks=follow)
        if (info.st_dev, info.st_ino) == self._image:
            raise UsageError(f"{os.fsdecode(source)}: is the image itself, which changes meanwhile")
        is_directory = stat.S_ISDIR(info.st_mode)
        place = locate(self._nodes, target, follow=not stat.S_ISLNK(info.st_mode))
        if not is_directory:
            check_file_place(place)
        if self._progress is not None:
            self._total = measure(source, follow)
            self._progress(0, self._total)
        if is_directory:
            inode = self._inode(info)
            fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
            try:
                names = _attribute_names(fd)
                top = self._bulk.open_at(place, inode)
                self._attributes(fd, names, top.number)
            finally:
                os.close(fd)
            self._walk(source, top)
            return
        parent = self._bulk.open_parent(place)
        if follow:
            source = os.path.realpath(source)
        directory, name = os.path.split(source)
        fd = os.open(directory or b".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            if stat.S_ISREG(info.st_mode):
                self._regular(fd, os.fsdecode(name), parent, place.name)
            else:
                self._other(source, info, parent, place.name)
        except OSError as error:
            _complete_name(error, directory)
            raise
        finally:
            os.close(fd)
        if place.number == NO_INODE:
            self._bulk.close_parent(parent)
        else:
            self._bulk.close(parent)

    def _walk(self, source: bytes, top: Directory) -> None:
        todo = [(source, top)]
        while todo:
            path, directory = todo.pop()
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                inner = self._directory(path, fd, directory)
            except OSError as error:
                _complete_name(error, path)
                raise
            finally:
                os.close(fd)
            self._bulk.close(directory)
            inner.reverse()
            todo += inner

    def _directory(
        self, path: bytes, fd: int, directory: Directory
    ) -> list[tuple[bytes, Directory]]:
        """Copy what is in one directory; the directories in it are left to be walked."""
        inner = []
        for name, entry in _sorted_entries(fd):
            if entry.is_file(follow_symlinks=False):
                self._regular(fd, entry.name, directory, name)
            elif entry.is_dir(follow_symlinks=False):
                own = os.open(entry.name, _READ | os.O_DIRECTORY, dir_fd=fd)
                try:
                    names = _attribute_names(own)
                    child = self._bulk.open_in(directory, name, self._inode(os.fstat(own)))
                    self._attributes(own, names, child.number)
                finally:
                    os.close(own)
                inner.append((os.path.join(path, name), child))
            else:
                info = os.stat(entry.name, dir_fd=fd, follow_symlinks=False)
                self._other(os.path.join(path, name), info, directory, name)
        return inner

    def _regular(self, directory_fd: int, own: str, parent: Directory, name: bytes) -> None:
        fd = os.open(own, _READ, dir_fd=directory_fd)
        try:
            info = os.fstat(fd)
            if (info.st_dev, info.st_ino) == self._image:
                _log.warning("%s: the image itself, left out", own)
                return
            links = info.st_nlink
            if links > 1:
                known = self._links.get((info.st_dev, info.st_ino))
                if known is not None:
                    self._bulk.link(parent, name, known)
                    self._report(info.st_size)
                    return
            bulk, tree, limit = self._bulk, self._tree, self._limit
            size = info.st_size
            # A read that comes back short has met the end of the file.
            data = os.read(fd, limit + 1) if size <= limit else None
            names = _attribute_names(fd)
            inode = self._inode(info)
            number = bulk.claim(parent, name, inode)
            if links > 1:
                self._links[info.st_dev, info.st_ino] = number
            sparse = data is None and info.st_blocks * 512 < size
            if sparse and _has_hole(fd, size):
                inode.flags = FLAG_SPARSE
            if data is not None:
                inode.size = len(data)
            bulk.put_inode(number, inode)
            if names:
                self._attributes(fd, names, number)
            if data is None or len(data) > limit:
                size = self._content(fd, number, inode)
                if size != inode.size:
                    inode.size = size
                    bulk.put_inode(number, inode)
            elif data:
                tree.put(make_key(number, DATA), data)
                self._report(len(data))
            bulk.put_name(number, parent, name)
        except OSError as error:
            if error.filename is None and not isinstance(error, Error):
                error.filename = own  # of what the host refuses while the file is read
            raise
        finally:
            os.close(fd)

    def _other(self, path: bytes, info: os.stat_result, parent: Directory, name: bytes) -> None:
        """A symbolic link, fifo or device."""
        if stat.S_ISSOCK(info.st_mode):
            _log.warning("%s: a socket, left out", os.fsdecode(path))
            return
        if info.st_nlink > 1:
            known = self._links.get((info.st_dev, info.st_ino))
            if known is not None:
                self._bulk.link(parent, name, known)
                return
        inode = self._inode(info)
        target = b""
        if inode.type == SYMLINK:
            target = os.readlink(path)
            inode.size = len(target)
        else:
            inode.rdev = info.st_rdev
            inode.size = 0
        names = _attribute_names(path)
        number = self._bulk.claim(parent, name, inode)
        if info.st_nlink > 1:
            self._links[info.st_dev, info.st_ino] = number
        self._bulk.put_inode(number, inode)
        self._attributes(path, names, number)
        if target:
            write_blob(self._nodes.io, self._tree, make_key(number, DATA), [target])
        self._bulk.put_name(number, parent, name)

    def _content(self, fd: int, number: int, inode: Inode) -> int:
        """Copy what is in a file; its size."""
        key = make_key(number, DATA)
        if inode.size <= _MEDIUM and not inode.flags:
            data = os.pread(fd, _MEDIUM + 1, 0)
            if len(data) <= _MEDIUM:
                write_value(self._nodes.io, self._tree, key, data)
                self._report(len(data))
                return len(data)
        if not inode.flags:
            chunks = self._chunks(fd, 0, SIZE_MAX)
            return write_blob(self._nodes.io, self._tree, key, chunks, inode.size)
        blob = Blob(self._nodes.io, self._tree, key)
        copy_in(blob, fd, os.fstat(fd).st_size, self._ahead, self._report)
        return blob.size

    def _chunks(self, fd: int, start: int, stop: int) -> Iterator[memoryview]:
        for chunk in self._ahead.chunks(fd, start, stop):
            yield chunk
            self._report(len(chunk))

    def _attributes(self, file: int | bytes, names: list[str], number: int) -> None:
        for own in sorted(os.fsencode(name) for name in names):
            value = os.getxattr(file, own, follow_symlinks=not isinstance(file, bytes))
            key = make_key(number, XATTR) + own
            write_blob(self._nodes.io, self._tree, key, [value])

    def _inode(self, info: os.stat_result) -> Inode:
        now = self._bulk.now
        return Inode(
            info.st_mode,
            info.st_uid,
            info.st_gid,
            1,
            info.st_size,
            clamp_time(info.st_atime_ns),
            clamp_time(info.st_mtime_ns),
            now,
            now,
        )

    def _report(self, length: int) -> None:
        if self._progress is not None:
            self._done += length
            self._progress(self._done, max(self._done, self._total))


def measure(path: bytes, follow: bool = False) -> int:
    """Bytes in the regular files at and below a path on the host."""
    info = os.stat(path, follow_symlinks=follow)
    if stat.S_ISREG(info.st_mode):
        return info.st_size
    total = 0
    todo = [path] if stat.S_ISDIR(info.st_mode) else []
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
    return total


def _sorted_entries(fd: int) -> Iterator[tuple[bytes, os.DirEntry[str]]]:
    """The entries of a directory, sorted as far as memory allows."""
    with os.scandir(fd) as entries:
        while batch := [(os.fsencode(e.name), e) for e in islice(entries, _BATCH)]:
            batch.sort(key=lambda pair: pair[0])
            yield from batch


def _attribute_names(file: int | bytes) -> list[str]:
    try:
        return os.listxattr(file, follow_symlinks=not isinstance(file, bytes))
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENOSYS):
            return []
        raise


def _has_hole(fd: int, size: int) -> bool:
    try:
        return os.lseek(fd, 0, os.SEEK_HOLE) < size
    except OSError:
        return False


def _complete_name(error: OSError, directory: bytes) -> None:
    """Put the directory before the name that an error gives."""
    if isinstance(error.filename, str) and not os.path.isabs(error.filename):
        error.filename = os.path.join(os.fsdecode(directory), error.filename)
