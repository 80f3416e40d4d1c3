"""Ordinary files on the host, as far as copying them into and out of an image needs it: reading
ahead, and holes.

Nothing here knows what is copied. Errors are those of the host (OSError).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager

from .errors import Error
from .limits import KIB, MIB

CHUNK = 4 * MIB
"""Bytes that go through memory at a time: enough records to keep every core busy."""

_HOLE = 4 * KIB
"""Bytes of the smallest hole that is made: a page, and a block of most file systems."""
_ZEROS = bytes(_HOLE)


class ReadAhead:
    """Reads files chunk by chunk, one chunk ahead of whoever uses them."""

    def __init__(self) -> None:
        self._buffers: list[memoryview] = []
        self._reader: ThreadPoolExecutor | None = None

    def chunks(self, fd: int, start: int, stop: int) -> Iterator[memoryview]:
        """What is in a file between two offsets; each chunk is good until the next is asked for."""
        if self._reader is None:
            self._reader = ThreadPoolExecutor(1, thread_name_prefix="cowfs-read")
            self._buffers = [memoryview(bytearray(CHUNK)) for _ in range(2)]

        def read(buffer: memoryview, offset: int) -> memoryview:
            view = buffer[: max(stop - offset, 0)]
            return view[: os.preadv(fd, [view], offset)]

        here, ahead = self._buffers
        coming = self._reader.submit(read, here, start)
        try:
            while chunk := coming.result():
                start += len(chunk)
                here, ahead = ahead, here
                coming = self._reader.submit(read, here, start)
                yield chunk
        finally:
            wait([coming])

    def close(self) -> None:
        """End the thread."""
        if self._reader is not None:
            self._reader.shutdown()


def data_ranges(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of each stretch of data in a file."""
    start = 0
    while start < size:
        try:
            start = os.lseek(fd, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        stop = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        if stop > start:
            yield start, stop
        start = max(stop, start + 1)


def identity(path: str | bytes, *, follow: bool = True) -> tuple[int, int] | None:
    """What tells a file from all others of the host; None where there is none at `path`."""
    try:
        status = os.stat(path, follow_symlinks=follow)
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def naming(path: str | bytes) -> Iterator[None]:
    """Errors of reading or writing an open file name it."""
    try:
        yield
    except OSError as error:
        if error.filename is None and not isinstance(error, Error):
            error.filename = os.fsdecode(path)
        raise


def write_all(fd: int, data: bytes) -> None:
    """Write at the file's position."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def pwrite_all(fd: int, view: memoryview, offset: int) -> None:
    """Write at an offset."""
    while view:
        done = os.pwrite(fd, view, offset)
        view = view[done:]
        offset += done


def write_sparse(fd: int, data: bytes, offset: int) -> None:
    """Write but what is zeros: the file is empty there."""
    view = memoryview(data)
    start = 0
    for at in range(0, len(data), _HOLE):
        if data[at : at + _HOLE] == _ZEROS[: len(data) - at]:
            if at > start:
                pwrite_all(fd, view[start:at], offset + start)
            start = at + _HOLE
    if start < len(data):
        pwrite_all(fd, view[start:], offset + start)
