"""Copying files and volumes from one image to another: all that one is, read here, written there.

Within one image `FS.copy` shares the space instead.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from typing import Any

from cowfs.fs import FS, Stat
from cowfs.volume import Volume

from .progress import Progress

CHUNK = 4 << 20
"""Bytes read at a time."""


def copy_across(
    origin: FS,
    source: bytes,
    fs: FS,
    target: bytes,
    progress: Progress | None,
    *,
    follow_symlinks: bool,
) -> None:
    """Copy a file, or a directory with all in it, with everything about it."""
    Copy(origin, fs, progress).run(source, target, follow_symlinks)


def copy_volume(origin: Volume, volume: Volume, progress: Progress | None) -> None:
    """Make a volume a copy of another one: its bytes, its holes, its size."""
    size = origin.size
    volume.discard(0, volume.size)
    volume.resize(size)
    for start, stop in origin.data_ranges():
        while start < stop:
            start += volume.pwrite(origin.pread(min(CHUNK, stop - start), start), start)
            if progress is not None:
                progress(start, size)


class Copy:
    """One copy between two images."""

    def __init__(self, origin: FS, fs: FS, progress: Progress | None) -> None:
        self._origin = origin
        self._fs = fs
        self._links: dict[int, bytes] = {}
        self._progress = progress
        self._done = 0
        self._total = 0

    def run(self, source: bytes, target: bytes, follow_symlinks: bool) -> None:
        """Copy what is at `source`."""
        if self._progress is not None:
            self._total = self._measure(source)
        status = self._origin.stat(source, follow_symlinks=follow_symlinks)
        self._copy(source, target, status)

    def _copy(self, source: bytes, target: bytes, status: Stat) -> None:
        """A stack rather than recursion: trees are as deep as they please."""
        directories: list[tuple[bytes, bytes, Stat]] = []
        todo = [(source, target, status)]
        while todo:
            source, target, status = todo.pop()
            if not stat.S_ISDIR(status.st_mode):
                self._file(source, target, status)
                continue
            if not self._fs.isdir(target) or (directories and self._fs.islink(target)):
                self._fs.mkdir(target)
            directories.append((source, target, status))
            with self._origin.scandir(source) as entries:
                todo += [
                    (
                        entry.path,
                        os.path.join(target, entry.name),
                        entry.stat(follow_symlinks=False),
                    )
                    for entry in entries
                ]
        # From the inside out, when nothing changes their times any more.
        for source, target, status in reversed(directories):
            self._attributes(source, target, status)

    def _file(self, source: bytes, target: bytes, status: Stat) -> None:
        fs, mode = self._fs, status.st_mode
        if fs.lexists(target):
            fs.unlink(target)
        if status.st_nlink > 1:
            if status.st_ino in self._links:
                fs.link(self._links[status.st_ino], target)
                return
            self._links[status.st_ino] = target
        if stat.S_ISREG(mode):
            self._content(source, target, status.st_size)
        elif stat.S_ISLNK(mode):
            fs.symlink(self._origin.readlink(source), target)
        else:
            fs.mknod(target, mode, status.st_rdev)
        self._attributes(source, target, status)

    def _content(self, source: bytes, target: bytes, size: int) -> None:
        with (
            self._origin.open(source, "rb", buffering=0) as old,
            self._fs.open(target, "wb", buffering=0) as new,
        ):
            new.truncate(size)
            for start, stop in _data_ranges(old, size):
                old.seek(start)
                new.seek(start)
                while start < stop:
                    data = old.read(min(CHUNK, stop - start))
                    new.write(data)
                    start += len(data)
                    self._report(len(data))

    def _attributes(self, source: bytes, target: bytes, status: Stat) -> None:
        fs, origin = self._fs, self._origin
        for name in origin.listxattr(source, follow_symlinks=False):
            value = origin.getxattr(source, name, follow_symlinks=False)
            fs.setxattr(target, name, value, follow_symlinks=False)
        fs.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            fs.chmod(target, stat.S_IMODE(status.st_mode))
        fs.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)

    def _measure(self, source: bytes) -> int:
        """Bytes to copy, as far as one look at the source tells."""
        if not self._origin.isdir(source):
            return self._origin.stat(source).st_size if self._origin.exists(source) else 0
        total = 0
        for path, _, files in self._origin.walk(source):
            total += sum(self._origin.lstat(os.path.join(path, name)).st_size for name in files)
        return total

    def _report(self, length: int) -> None:
        if self._progress is not None:
            self._done += length
            self._progress(self._done, max(self._done, self._total))


def _data_ranges(file: Any, size: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of each stretch of an open file that is no hole."""
    start = 0
    while start < size:
        try:
            start = file.seek(start, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        stop = file.seek(start, os.SEEK_HOLE)
        yield start, stop
        start = stop
