"""Copying from a dataset to the host: files, directories, and everything about them.

Files that are there already are replaced, not written through, so that neither a hard link nor a
symbolic link on the host leads the copy elsewhere; only the very target may be a link, or a
device to write to. The one file that is never replaced is the image itself. Directories get their
mode and times once everything is in them.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Callable
from typing import TypeVar

from ..blob import Blob
from ..errors import UsageError
from ..filecopy import copy_out
from ..host import CHUNK, identity, naming, write_all
from .inode import FLAG_SPARSE, SYMLINK, Inode
from .nodes import Inodes

_log = logging.getLogger("cowfs")
_T = TypeVar("_T")

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Export:
    """One copy to the host."""

    def __init__(self, nodes: Inodes, progress: Callable[[int, int], None] | None) -> None:
        self._nodes = nodes
        self._progress = progress
        self._links: dict[int, bytes] = {}
        self._is_root = os.geteuid() == 0
        self._image = nodes.io.device.identity
        self._done = 0
        self._total = 0

    def run(self, number: int, target: bytes) -> None:
        """Copy a file, or a directory with everything in it, to the host."""
        inode = self._nodes.get(number)
        if self._progress is not None:
            self._total = measure(self._nodes, number)
            self._progress(0, self._total)
        if inode.is_directory:
            self._walk(number, inode, target)
        elif inode.is_regular and os.path.exists(target):
            self._spare_image(target, follow=True)
            fd = os.open(target, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
            try:
                regular = stat.S_ISREG(os.fstat(fd).st_mode)
                with naming(target):
                    self._content(fd, number, inode, seekable=regular)
                    if regular:
                        self._finish(fd, number, inode)
            finally:
                os.close(fd)
        else:
            self._file(number, inode, target)

    def _walk(self, number: int, inode: Inode, target: bytes) -> None:
        # A directory stands on the stack twice: to be gone through, and to be finished.
        todo = [(number, inode, target, False)]
        while todo:
            number, inode, path, entered = todo.pop()
            if entered:
                self._finish(path, number, inode)
                continue
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                if not os.path.isdir(path) or (os.path.islink(path) and path != target):
                    raise
            todo.append((number, inode, path, True))
            for name, child, child_inode in self._nodes.children(number):
                child_path = os.path.join(path, name)
                if child_inode.is_directory:
                    todo.append((child, child_inode, child_path, False))
                else:
                    self._file(child, child_inode, child_path)

    def _file(self, number: int, inode: Inode, path: bytes) -> None:
        """Anything but a directory; what was there before goes."""
        if inode.nlink > 1:
            known = self._links.setdefault(number, path)
            if known is not path:
                self._replacing(path, lambda: os.link(known, path, follow_symlinks=False))
                if inode.is_regular:
                    self._report(inode.size)
                return
        kind = inode.mode >> 12
        if inode.is_regular:
            fd = self._replacing(path, lambda: os.open(path, _CREATE, 0o600))
            try:
                with naming(path):
                    self._content(fd, number, inode, seekable=True)
                    self._finish(fd, number, inode)
            finally:
                os.close(fd)
            return
        if kind == SYMLINK:
            target = self._nodes.target(number)
            self._replacing(path, lambda: os.symlink(target, path))
        elif stat.S_ISSOCK(inode.mode):
            _log.warning("%s: a socket, left out", os.fsdecode(path))
            return
        else:
            try:
                mode = inode.mode & ~0o7777 | 0o600
                self._replacing(path, lambda: os.mknod(path, mode, inode.rdev))
            except PermissionError:
                if self._is_root or stat.S_ISFIFO(inode.mode):
                    raise
                _log.warning("%s: a device, which only root can make; left out", os.fsdecode(path))
                return
        self._finish(path, number, inode)

    def _content(self, fd: int, number: int, inode: Inode, *, seekable: bool) -> None:
        """Write what is in a file; holes stay holes where the target can have them."""
        if inode.size <= CHUNK and not inode.flags:
            write_all(fd, self._nodes.content(number))
            self._report(inode.size)
            return
        blob = self._nodes.blob(number)
        if not seekable:
            self._stream(fd, blob)
            return
        copy_out(blob, fd, self._report, sparse=bool(inode.flags & FLAG_SPARSE))
        os.ftruncate(fd, inode.size)

    def _stream(self, fd: int, blob: Blob) -> None:
        for start in range(0, blob.size, CHUNK):
            data = blob.pread(CHUNK, start)
            write_all(fd, data)
            self._report(len(data))

    def _finish(self, file: int | bytes, number: int, inode: Inode) -> None:
        """Owner, attributes, mode, times: each may undo what comes after it."""
        follow = not isinstance(file, bytes) or inode.is_directory
        if self._is_root:
            os.chown(file, inode.uid, inode.gid, follow_symlinks=follow)
        for name in self._nodes.attributes(number):
            value = self._nodes.get_attribute(number, name)
            try:
                os.setxattr(file, name, value, follow_symlinks=follow)
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EACCES):
                    raise
                _log.warning("attribute %s left out: %s", os.fsdecode(name), error.strerror)
        if inode.mode >> 12 != SYMLINK:
            os.chmod(file, inode.mode & 0o7777)
        os.utime(file, ns=(inode.atime_ns, inode.mtime_ns), follow_symlinks=follow)

    def _replacing(self, path: bytes, make: Callable[[], _T]) -> _T:
        """Make something at `path`; a file that is there goes."""
        try:
            return make()
        except FileExistsError:
            if os.path.isdir(path) and not os.path.islink(path):
                raise IsADirectoryError(
                    errno.EISDIR, os.strerror(errno.EISDIR), os.fsdecode(path)
                ) from None
            self._spare_image(path, follow=False)
            os.unlink(path)
            return make()

    def _spare_image(self, path: bytes, *, follow: bool) -> None:
        """Refuse to replace the image that is copied from."""
        if self._image is not None and identity(path, follow=follow) == self._image:
            raise UsageError(f"{os.fsdecode(path)}: is the image itself; copy to another place")

    def _report(self, length: int) -> None:
        if self._progress is not None:
            self._done += length
            self._progress(self._done, max(self._done, self._total))


def measure(nodes: Inodes, number: int) -> int:
    """Bytes in the regular files at and below an inode."""
    total = 0
    todo = [(number, nodes.get(number))]
    while todo:
        number, inode = todo.pop()
        if inode.is_directory:
            todo.extend((child, below) for _, child, below in nodes.children(number))
        elif inode.is_regular:
            total += inode.size
    return total
