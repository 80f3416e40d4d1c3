"""The bottom layer: bytes at offsets. All I/O of a store goes through a `Device`.

The interface is a handful of methods so that a test can put a recording, failing or reordering
device in the place of the file. A device knows nothing of blocks, checksums or locks on records;
it promises only that what `write` took before a successful `flush` is there after a power cut.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import stat
from dataclasses import dataclass
from typing import Protocol

from .direct import DirectWriter
from .errors import (
    BusyError,
    ClosedError,
    DeviceError,
    FormatError,
    NotFoundError,
    OutOfSpaceError,
    UsageError,
)
from .limits import MIB

_FALLOC_KEEP_SIZE = 1
_FALLOC_PUNCH_HOLE = 2
_SYNC_FILE_RANGE_WRITE = 2
_MUCH = MIB
"""Bytes after which the host is told to write what it was given, so that it does so while more is
packed, and a flush has less to wait for."""
_STEP = 4 * MIB
"""So much of the new space of a growing image is allocated at once, when writing comes to it."""


UNLIMITED = 1 << 50
"""Bytes of room, where nothing tells how many there are."""


class Device(Protocol):
    """What a store needs of the thing that it lives on. Offsets and lengths are in bytes."""

    name: str
    waits: bool
    """Whether a flush takes long, and lets other threads go on."""
    patient: bool
    """Whether the host is left to write what it is given when it likes, or is told by
    `begin_writing`; else it is told as soon as it holds much."""
    identity: tuple[int, int] | None
    """As `host.identity` tells it from other files; None for what is none. A name does not do: the
    program may have changed its directory since."""

    @property
    def forked(self) -> bool:
        """Whether this process is a fork of the one that opened the device for writing: it is that
        one's, and so are the threads, and whoever holds a lock."""

    def size(self) -> int:
        """Bytes that can be read."""

    def allocated(self) -> int:
        """Bytes that the device occupies on its host."""

    def host_room(self) -> int:
        """Bytes that are free on its host."""

    def resize(self, size: int) -> None:
        """Grow or shrink; new space reads as zeros."""

    def sparse(self, offset: int, length: int) -> bool:
        """Whether the host has yet to allocate some of a range within `size`: a first write to it
        makes the next flush cost the host a change of its own metadata."""

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes; fewer only at the end of the device."""

    def read_now(self, offset: int, length: int) -> bytes:
        """`read` of what the host has in memory; BlockingIOError where it would have to wait."""

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data`; durable after the next `flush`."""

    def begin_writing(self) -> None:
        """Have the host begin to write what it was given, without waiting for that."""

    def write_behind(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """`write` of bulk data within `size`, which may go on after the call. Reads see it. An
        error may come from any call until `settle`, and from there at the latest."""

    def settle(self) -> None:
        """Return when all that was written behind is written, or raise, once, why it is not."""

    def flush(self) -> None:
        """Make everything written so far durable, or raise. Other threads may write meanwhile; what
        was written behind has to be settled before."""

    def discard(self, offset: int, length: int) -> None:
        """Give the range back to the host; it may read as anything afterwards."""

    def close(self) -> None:
        """Release the device; no implied flush."""


class MemoryDevice:
    """A device in memory, for tests and scratch stores."""

    waits = False
    patient = False
    forked = False
    identity: tuple[int, int] | None = None

    def __init__(self, size: int = 0, name: str = "<memory>") -> None:
        self.name = name
        self._bytes = bytearray(size)

    def size(self) -> int:
        return len(self._bytes)

    def allocated(self) -> int:
        return len(self._bytes)

    def host_room(self) -> int:
        return UNLIMITED

    def resize(self, size: int) -> None:
        if size < len(self._bytes):
            del self._bytes[size:]
        else:
            self._bytes.extend(bytes(size - len(self._bytes)))

    def sparse(self, offset: int, length: int) -> bool:
        return False

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._bytes[offset : offset + length])

    def read_now(self, offset: int, length: int) -> bytes:
        return self.read(offset, length)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        end = offset + len(data)
        if end > len(self._bytes):
            self.resize(end)
        self._bytes[offset:end] = data

    def begin_writing(self) -> None:
        pass

    def write_behind(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self.write(offset, data)

    def settle(self) -> None:
        pass

    def flush(self) -> None:
        pass

    def discard(self, offset: int, length: int) -> None:
        self._bytes[offset : offset + length] = bytes(length)

    def close(self) -> None:
        pass


class FileDevice:
    """An ordinary file, locked against other users of the image while it is open.

    A writer takes the lock alone; any number of readers share it.
    """

    waits = True

    def __init__(self, path: str, *, writable: bool, create: bool = False, reset: bool = False):
        self.name = path
        self.writable = writable
        self._process = os.getpid()
        self._behind: DirectWriter | None = None
        self._given = _Given()
        self.patient = False
        self._allocated = 1 << 63
        """Offset from which on nothing is allocated, where the image grew since it was opened."""
        flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK
        if create:
            flags |= os.O_CREAT
        try:
            self._fd = os.open(path, flags, 0o666)
        except FileNotFoundError:
            if create:
                raise NotFoundError(f"{path}: the directory does not exist") from None
            raise NotFoundError(f"{path}: no such image; make one with 'cowfs mkfs'") from None
        except IsADirectoryError:
            raise FormatError(f"{path}: is a directory, not a cowfs image") from None
        try:
            status = os.fstat(self._fd)
            mode = status.st_mode
            self.identity: tuple[int, int] | None = (status.st_dev, status.st_ino)
            if stat.S_ISDIR(mode):
                raise FormatError(f"{path}: is a directory, not a cowfs image")
            if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
                raise FormatError(f"{path}: not an ordinary file, so not a cowfs image")
            self._lock()
            if reset:
                os.ftruncate(self._fd, 0)
        except BaseException:
            self.close()
            raise
        self._can_punch = True

    def _lock(self) -> None:
        kind = fcntl.LOCK_EX if self.writable else fcntl.LOCK_SH
        try:
            fcntl.flock(self._fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            pids = lock_holders(os.fstat(self._fd))
            who = "another process" if not pids else " and ".join(f"process {p}" for p in pids)
            if str(os.getpid()) in pids:
                who += " (this one)"
            verb = "hold" if len(pids) > 1 else "holds"
            raise BusyError(f"{self.name}: {who} {verb} the image; wait or end it first") from None

    @property
    def forked(self) -> bool:
        return self.writable and os.getpid() != self._process

    def size(self) -> int:
        return os.lseek(self._fd, 0, os.SEEK_END)

    def allocated(self) -> int:
        return os.fstat(self._fd).st_blocks * 512

    def host_room(self) -> int:
        # Not by the path: that may lead through a link, or by now to what this store is mounted at.
        host = os.statvfs(self._fd)
        return host.f_bavail * host.f_frsize

    def resize(self, size: int) -> None:
        old = self.size()
        self._arrive(size, max(old - size, 0))
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:
            raise _explain(error, self.name, "grow") from error
        self._allocated = min(self._allocated, old, size)

    def sparse(self, offset: int, length: int) -> bool:
        return os.lseek(self._fd, offset, os.SEEK_HOLE) < offset + length

    def read(self, offset: int, length: int) -> bytes:
        if self._fd < 0:
            raise ClosedError(f"{self.name}: the image is closed")
        self._arrive(offset, length)
        try:
            data = os.pread(self._fd, length, offset)
            while len(data) < length:
                more = os.pread(self._fd, length - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            if self._fd < 0:  # closed since
                raise ClosedError(f"{self.name}: the image is closed") from None
            raise _explain(error, self.name, "read") from error
        return data

    def read_now(self, offset: int, length: int) -> bytes:
        if self._fd < 0:
            raise ClosedError(f"{self.name}: the image is closed")
        if self._behind is not None and self._behind.holds(offset, length):
            raise BlockingIOError(errno.EAGAIN, "still being written")
        buffer = bytearray(length)
        try:
            done = os.preadv(self._fd, [buffer], offset, os.RWF_NOWAIT)
        except OSError:  # it would wait, or cannot be asked; of anything worse `read` will tell
            done = 0
        if done < length:
            raise BlockingIOError(errno.EAGAIN, "not in memory")
        return bytes(buffer)

    def _allocate(self, offset: int, end: int) -> None:
        """Have the host allocate in one go what will be written next; block by block, as it is
        written, takes longer. What lies before `offset` is left to who writes it."""
        self._allocated = min(end + _STEP, self.size())
        _fallocate(self._fd, _FALLOC_KEEP_SIZE, offset, self._allocated - offset)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self._arrive(offset, len(data))
        if offset + len(data) > self._allocated:
            self._allocate(offset, offset + len(data))
        try:
            done = os.pwrite(self._fd, data, offset)
            if done < len(data):
                view = memoryview(data)
                while done < len(view):
                    done += os.pwrite(self._fd, view[done:], offset + done)
        except OSError as error:
            raise _explain(error, self.name, "write") from error
        self._given.note(offset, done)
        if self._given.bytes >= _MUCH and not self.patient:
            self.begin_writing()

    def begin_writing(self) -> None:
        given, self._given = self._given, _Given()
        if given.bytes:
            _begin_writing(self._fd, given.low, given.high - given.low)

    def write_behind(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        if self._behind is None:
            self._behind = DirectWriter(self._fd)
        try:
            self._behind.write(offset, data)
        except OSError as error:
            raise _explain(error, self.name, "write") from error

    def settle(self) -> None:
        if self._behind is not None:
            try:
                self._behind.settle()
            except OSError as error:
                raise _explain(error, self.name, "write") from error

    def _arrive(self, offset: int, length: int) -> None:
        """Wait for what is written behind into a range, before anything else is done with it."""
        if self._behind is not None and self._behind.holds(offset, length):
            try:
                self._behind.arrive()
            except OSError as error:
                raise _explain(error, self.name, "write") from error

    def flush(self) -> None:
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise _explain(error, self.name, "flush") from error

    def discard(self, offset: int, length: int) -> None:
        self._arrive(offset, length)
        if self._can_punch:
            mode = _FALLOC_PUNCH_HOLE | _FALLOC_KEEP_SIZE
            self._can_punch = _fallocate(self._fd, mode, offset, length)

    def close(self) -> None:
        if self._behind is not None and not self.forked:  # which has no threads to wait for
            self._behind.close()
            self._behind = None
        # First it is gone for all threads: its number may soon be that of another file.
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        # An interrupt can come between opening the file and whoever would close it.
        if getattr(self, "_fd", -1) >= 0:
            self.close()


@functools.cache
class _Libc:
    """What the os module has no function for; None where this host has none either."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        span = (ctypes.c_int64, ctypes.c_int64)
        self.fallocate = getattr(library, "fallocate64", getattr(library, "fallocate", None))
        if self.fallocate is not None:
            self.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, *span)
        self.begin_writing = getattr(library, "sync_file_range", None)
        if self.begin_writing is not None:
            self.begin_writing.argtypes = (ctypes.c_int, *span, ctypes.c_uint)


@dataclass(slots=True)
class _Given:
    """What the host was given to write since it was last told to begin."""

    low: int = 0
    high: int = 0
    bytes: int = 0

    def note(self, offset: int, length: int) -> None:
        self.low = min(self.low, offset) if self.bytes else offset
        self.high = max(self.high, offset + length)
        self.bytes += length


def check_image_path(path: str) -> str:
    """The path as text, or UsageError where no file can have it."""
    text = os.fspath(path)
    if isinstance(text, bytes):
        text = os.fsdecode(text)
    if not isinstance(text, str) or not text or "\0" in text:
        raise UsageError(f"{path!r}: an image is named by a path of at least one character")
    return text


def lock_holders(status: os.stat_result) -> list[str]:
    """Pids that hold a flock on the file, from the kernel's table; empty where there is none."""
    inode = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    pids: list[str] = []
    with contextlib.suppress(OSError), open("/proc/locks", encoding="ascii") as table:
        for line in table:
            words = line.split()
            if "FLOCK" in words and inode in words and "->" not in words:
                pids.append(words[words.index(inode) - 1])
    return pids


def _explain(error: OSError, name: str, verb: str) -> OSError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutOfSpaceError(
            f"{name}: the disk under the image is full ({error.strerror}); free space on it, "
            "or delete data in the store"
        )
    return DeviceError(error.errno, f"{name}: cannot {verb} the image: {error.strerror}")


def _begin_writing(fd: int, offset: int, length: int) -> None:
    """Have the host begin to write what it holds of a range, without waiting. A hint, no more: what
    goes wrong, the next flush tells."""
    begin_writing = _Libc().begin_writing
    if begin_writing is not None:
        begin_writing(fd, offset, length, _SYNC_FILE_RANGE_WRITE)


def _fallocate(fd: int, mode: int, offset: int, length: int) -> bool:
    """fallocate(2), of which os has no modes; False where the file system cannot do it."""
    fallocate = _Libc().fallocate
    if fallocate is None:
        return False
    while fallocate(fd, mode, offset, length) != 0:
        if ctypes.get_errno() != errno.EINTR:
            return False
    return True
