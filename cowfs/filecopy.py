"""Copying one value from and to a file on the host, with its holes."""

from __future__ import annotations

from collections.abc import Callable

from .blob import Blob
from .host import CHUNK, ReadAhead, data_ranges, pwrite_all, write_sparse


def copy_in(
    blob: Blob, fd: int, size: int, ahead: ReadAhead, report: Callable[[int], None]
) -> None:
    """Have a value become what is in a file of `size` bytes; what was there goes.

    `report` gets the bytes done since it was called last.
    """
    blob.truncate(0)
    at = 0
    for start, stop in data_ranges(fd, size):
        report(start - at)
        at = start
        for chunk in ahead.chunks(fd, start, stop):
            blob.pwrite(chunk, at)
            at += len(chunk)
            report(len(chunk))
    report(size - at)
    blob.truncate(size)


def copy_out(blob: Blob, fd: int, report: Callable[[int], None], *, sparse: bool) -> None:
    """Write everything but holes to an empty file, at its place; if `sparse`, pages of zeros are
    holes too."""
    at = 0
    for start, stop in blob.data_ranges():
        report(start - at)
        at = start
        while at < stop:
            data = blob.pread(min(CHUNK, stop - at), at)
            if sparse:
                write_sparse(fd, data, at)
            else:
                pwrite_all(fd, memoryview(data), at)
            at += len(data)
            report(len(data))
    report(blob.size - at)
