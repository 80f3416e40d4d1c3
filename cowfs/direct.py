"""Writing to a file past the host's page cache, while the caller goes on.

For bulk data only: it spares the copy into the page cache, which a large value would sweep clean,
and lets the disk work while the next piece is read, compressed and hashed. What is given is
gathered in aligned buffers, which a thread writes in the order in which they were filled.

The thread's error is never lost: it is kept, and raised from each call, until `settle` raises it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from errno import EINVAL

from .limits import MIB

_PIECE = 4 * MIB
"""Bytes of a buffer: a disk takes 1 MiB at a time a fifth slower, and 16 MiB no faster."""
_BUFFERS = 3
"""One is filled, one waits and one is written: with two, the disk waits for threads to wake up."""


@dataclass(slots=True)
class _Piece:
    """What is gathered or being written, for one place in the file; nothing if `start` is `end`."""

    buffer: mmap.mmap
    start: int = 0
    end: int = 0
    write: Future[None] | None = None


class DirectWriter:
    """Writes to the file `fd`, in pieces of whole blocks as far as `write` is given such.

    One thread may write at a time; any may ask `holds`. Errors are those of the host (OSError).
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        try:
            flags = os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC
            self._direct_fd = os.open(f"/proc/self/fd/{fd}", flags)
        except OSError:  # not on this file system: then behind, but through the page cache
            self._direct_fd = os.dup(fd)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cowfs-write")
        self._pieces = [_Piece(_make_buffer()) for _ in range(_BUFFERS)]
        """In the order in which they were begun, but for the first, which is being gathered."""
        self._error: BaseException | None = None

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Take all of `data`, which is the caller's again at once."""
        view = memoryview(data)
        while view:
            piece = self._pieces[0]
            fill = piece.end - piece.start
            if fill and (offset != piece.end or fill == _PIECE):
                self._begin()
                self._raise()
                continue
            if not fill:
                piece.start = piece.end = offset
            part = view[: _PIECE - fill]
            piece.buffer[fill : fill + len(part)] = part
            piece.end += len(part)
            offset += len(part)
            view = view[len(part) :]

    def holds(self, offset: int, length: int) -> bool:
        """Whether any of a range may not have reached the file yet."""
        return any(
            piece.start < offset + length and offset < piece.end
            for piece in self._pieces
            if piece.start < piece.end
        )

    def arrive(self) -> None:
        """Return when all that was taken is in the file."""
        for _ in self._pieces:
            self._begin()
        self._raise()

    def settle(self) -> None:
        """`arrive`; and if that raises, the error is dealt with."""
        try:
            self.arrive()
        except OSError:
            self._error = None
            raise

    def close(self) -> None:
        """End the thread; what is gathered is lost."""
        self._thread.shutdown()
        os.close(self._direct_fd)

    def _begin(self) -> None:
        """Have the thread write what is gathered; the oldest piece, when written, is the next."""
        piece = self._pieces[0]
        if piece.start < piece.end:
            piece.write = self._thread.submit(self._put, piece)
        self._pieces = [*self._pieces[1:], piece]
        piece = self._pieces[0]
        if piece.write is not None:
            error = piece.write.exception()  # waits, also where an error is known already
            self._error = self._error or error
            piece.start = piece.end = 0
            piece.write = None

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _put(self, piece: _Piece) -> None:
        view = memoryview(piece.buffer)[: piece.end - piece.start]
        done = self._put_direct(view, piece.start)
        while done < len(view):
            done += os.pwrite(self._fd, view[done:], piece.start + done)

    def _put_direct(self, view: memoryview, start: int) -> int:
        """How many bytes were written; none where the host wants them aligned otherwise."""
        try:
            return os.pwrite(self._direct_fd, view, start)
        except OSError as error:
            if error.errno == EINVAL:
                return 0
            raise


def _make_buffer() -> mmap.mmap:
    """Aligned, and in huge pages where the host has them: few pieces for the disk to gather."""
    buffer = mmap.mmap(-1, _PIECE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):
        buffer.madvise(mmap.MADV_HUGEPAGE)
    return buffer
