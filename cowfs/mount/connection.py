"""The conversation with the kernel about one mount: requests in, answers out, one at a time.

`Connection` takes requests apart and calls the method of `Operations` that is named as the request;
what that returns, or the errno of what it raises, goes back. It knows nothing of what is stored:
`files.py` implements the operations on a dataset, and `tools/benchmark` on a directory of the host.

One thread, on purpose: nearly all time goes into Python, of which one thread runs at a time, and
passing each request to another thread costs more than the request. An operation that takes long
returns `LATER`, goes on in a thread of its own and answers with `reply`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final, Protocol

from cowfs.errors import BusyError, Error, FileError, NotFoundError, ReadOnlyError, UsageError
from cowfs.limits import KIB

from . import protocol
from .protocol import Changes, Entry, Op

_BACKGROUND = 64
"""Requests that the kernel may have under way of its own accord, as for reading ahead."""

_POLL_S = 100e-6
"""Time within which the next request of a brisk conversation comes."""
_REFUSE_MS = 10
"""How often to look whether who still used the descriptor at the end is done."""
_PROCESSORS = len(os.sched_getaffinity(0))
"""On a single one, waiting without sleep would keep who asks from going on."""

LATER: Final = None
"""Returned by an operation that answers in its own time."""

Answer = bytes | list[bytes] | None

log = logging.getLogger("cowfs.mount")


class Operations(Protocol):
    """What a file system does. Files are known by nodeid, open ones by the handle that `open` gave.

    Errors are raised as OSError or cowfs.Error. `owner` is (uid, gid) of who asks; permissions
    were checked by the kernel. `opened` says that the file is open, not found by its path.
    """

    def lookup(self, parent: int, name: bytes) -> Entry: ...
    def forget(self, nodeid: int, lookups: int) -> None: ...
    def getattr(self, nodeid: int, opened: bool) -> tuple[bytes, int]: ...
    def setattr(self, nodeid: int, changes: Changes) -> tuple[bytes, int]: ...
    def readlink(self, nodeid: int) -> bytes: ...
    def mknod(
        self, parent: int, name: bytes, mode: int, rdev: int, owner: tuple[int, int]
    ) -> Entry: ...
    def mkdir(
        self, parent: int, name: bytes, mode: int, owner: tuple[int, int], unique: int
    ) -> Entry | None: ...
    def symlink(self, parent: int, name: bytes, target: bytes, owner: tuple[int, int]) -> Entry: ...
    def unlink(self, parent: int, name: bytes) -> None: ...
    def rmdir(self, parent: int, name: bytes, unique: int) -> bool: ...
    def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> None: ...
    def link(self, nodeid: int, parent: int, name: bytes) -> Entry: ...
    def open(self, nodeid: int, flags: int, drop_powers: bool) -> tuple[int, int]: ...
    def create(
        self, parent: int, name: bytes, mode: int, flags: int, owner: tuple[int, int]
    ) -> tuple[Entry, int, int]: ...
    def tmpfile(
        self, parent: int, mode: int, flags: int, owner: tuple[int, int]
    ) -> tuple[Entry, int, int]: ...
    def read(self, nodeid: int, handle: int, offset: int, length: int) -> bytes: ...
    def write(self, nodeid: int, handle: int, offset: int, data: memoryview, flags: int) -> int: ...
    def release(self, nodeid: int, handle: int, flags: int) -> None: ...
    def fsync(self, nodeid: int, handle: int) -> None: ...
    def fallocate(self, nodeid: int, handle: int, offset: int, length: int, mode: int) -> None: ...
    def lseek(
        self, nodeid: int, handle: int, offset: int, whence: int, unique: int
    ) -> int | None: ...
    def copy(self, nodeid: int, offset: int, to: int, to_offset: int, length: int) -> int: ...
    def opendir(self, nodeid: int) -> tuple[int, int]: ...
    def readdir(self, nodeid: int, handle: int, offset: int, room: int, plus: bool) -> bytes: ...
    def releasedir(self, handle: int) -> None: ...
    def statfs(self, nodeid: int) -> os.statvfs_result: ...
    def getxattr(self, nodeid: int, name: bytes) -> bytes: ...
    def setxattr(self, nodeid: int, name: bytes, value: bytes, flags: int) -> None: ...
    def listxattr(self, nodeid: int) -> bytes: ...
    def removexattr(self, nodeid: int, name: bytes) -> None: ...


class Connection:
    """One mount's descriptor, and the operations that answer for it.

    Each operation runs within `with request:`, which learns of its errors.
    """

    def __init__(
        self, fd: int, operations: Operations, request: AbstractContextManager[object]
    ) -> None:
        self._fd = fd
        os.set_blocking(fd, False)
        self._waiting = select.poll()
        self._waiting.register(fd, select.POLLIN)
        self._buffer = bytearray(protocol.MAX_DATA + protocol.HEADER_ROOM)
        self._lock = threading.Lock()
        self._telling = 0
        """Threads that are in `_notify`, in which the descriptor stays as it is."""
        self._brisk = False
        """Whether the last request came soon after the one before."""
        self._do = operations
        self._request = request
        self._handlers: dict[int, Callable[[memoryview, int, int, tuple[int, int]], Answer]] = {
            int(op): getattr(self, f"_{op.name.lower()}") for op in Op
        }

    def serve(self) -> None:
        """Answer until the file system is unmounted, or the connection closed."""
        buffer = self._buffer
        whole = memoryview(buffer)
        request, handlers = self._request, self._handlers
        unpack, header_size = protocol.IN_HEADER.unpack_from, protocol.IN_HEADER.size
        while True:
            length = self._receive(buffer)
            if not length:
                return
            _, opcode, unique, nodeid, uid, gid, _, extensions, _ = unpack(buffer)
            handler = handlers.get(opcode)
            if handler is None:
                self.reply(unique, error=errno.ENOSYS)
                continue
            body = whole[header_size : length - 8 * extensions]
            try:
                with request:
                    answer = handler(body, nodeid, unique, (uid, gid))
            except (Error, OSError) as error:
                self.reply(unique, error=error_number(error))
                continue
            except BaseException:
                self.reply(unique, error=errno.EIO)
                raise
            if answer is not None:
                self.reply(unique, answer)

    def _receive(self, buffer: bytearray) -> int:
        """Wait for a request; its length, or 0 at the end.

        One who asks again and again, as a program that makes many files does, is waited for without
        sleep: to be woken by another processor takes longer than an answer.
        """
        idle_since = time.perf_counter()
        patience = _POLL_S if self._brisk else 0.0
        while True:
            try:
                length = os.readv(self._fd, [buffer])
            except BlockingIOError:
                if time.perf_counter() - idle_since >= patience:
                    self._waiting.poll()
            except OSError as error:
                if error.errno in (errno.ENODEV, errno.EBADF, errno.ECONNABORTED):
                    return 0
                if error.errno not in (errno.EINTR, errno.ENOENT):
                    raise
            else:
                self._brisk = time.perf_counter() - idle_since < _POLL_S and _PROCESSORS > 1
                return length

    def reply(self, unique: int, answer: bytes | list[bytes] = b"", *, error: int = 0) -> None:
        """Send one answer."""
        parts = [answer] if isinstance(answer, bytes) else answer
        length = protocol.OUT_HEADER.size + sum(map(len, parts))
        header = protocol.OUT_HEADER.pack(length, -error, unique)
        try:
            os.writev(self._fd, [header, *parts])
        except OSError as failure:
            if failure.errno == errno.EINVAL:
                # The image is damaged such that the kernel refuses what is on it, and says EIO.
                log.error("an answer that the kernel refuses, of %d bytes", length)
            elif failure.errno not in _GONE:
                raise

    def write_out(self, nodeid: int) -> None:
        """Have the kernel send what it holds back of a file, wait for that, and have it forget what
        it knows of the file: not to be called by who serves."""
        self._notify(protocol.NOTIFY_INVAL_INODE, protocol.INVAL_INODE_OUT.pack(nodeid, 0, 0))

    def ask_anew(self, parent: int, name: bytes) -> None:
        """Have the kernel ask when it needs a name for the next time. It waits for who changes the
        directory: not to be called by who serves."""
        head = protocol.INVAL_ENTRY_OUT.pack(parent, len(name), protocol.EXPIRE_ONLY)
        self._notify(protocol.NOTIFY_INVAL_ENTRY, head + name + b"\0")

    def _notify(self, kind: int, body: bytes) -> None:
        length = protocol.OUT_HEADER.size + len(body)
        header = protocol.OUT_HEADER.pack(length, kind, 0)
        with self._lock:
            if self._fd < 0:
                return
            self._telling += 1
        try:
            os.writev(self._fd, [header, body])
        except OSError as failure:
            if failure.errno not in _GONE:
                raise
        finally:
            with self._lock:
                self._telling -= 1

    def close(self) -> None:
        """Let go of the descriptor; a mount that is still there is of no use from now on.

        Who tells the kernel something waits for what it sends, and keeps the mount alive meanwhile,
        with all who ask; so until that is done, what they ask is refused.
        """
        while not self._let_go():
            if self._waiting.poll(_REFUSE_MS):
                with contextlib.suppress(OSError):  # unmounted, or taken back
                    os.readv(self._fd, [self._buffer])
                    _, _, unique, *_ = protocol.IN_HEADER.unpack_from(self._buffer)
                    self.reply(unique, error=errno.EIO)

    def _let_go(self) -> bool:
        """Close the descriptor, unless somebody is using it."""
        with self._lock:
            if self._telling:
                return False
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        return True

    # --- requests: each unpacks its body, asks, and packs the answer ------------------------------

    def _init(self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]) -> Answer:
        major, minor, readahead, low, high = protocol.INIT_IN.unpack_from(body)
        if major != protocol.MAJOR or minor < protocol.OLDEST_MINOR:
            log.error("this kernel speaks FUSE %d.%d; 7.36 (Linux 5.17) is needed", major, minor)
            raise OSError(errno.EPROTO, os.strerror(errno.EPROTO))
        flags = (low | high << 32) & protocol.WANTED
        return protocol.INIT_OUT.pack(
            protocol.MAJOR,
            min(minor, protocol.MINOR),
            max(readahead, protocol.MAX_DATA),
            flags & 0xFFFFFFFF,
            _BACKGROUND,
            _BACKGROUND * 3 // 4,
            protocol.MAX_DATA,
            1,
            protocol.MAX_DATA // (4 * KIB),
            0,
            flags >> 32,
        )

    def _destroy(
        self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]
    ) -> Answer:
        return b""

    def _interrupt(
        self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]
    ) -> Answer:
        return None  # what it is about was answered, or will be

    def _lookup(self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]) -> Answer:
        return self._do.lookup(nodeid, bytes(body[:-1])).pack()

    def _forget(self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]) -> Answer:
        self._do.forget(nodeid, int.from_bytes(body[:8], "little"))
        return None

    def _batch_forget(
        self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]
    ) -> Answer:
        count, _ = protocol.BATCH_FORGET_IN.unpack_from(body)
        start, one = protocol.BATCH_FORGET_IN.size, protocol.FORGET_ONE
        for forgotten, lookups in one.iter_unpack(body[start : start + count * one.size]):
            self._do.forget(forgotten, lookups)
        return None

    def _getattr(
        self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]
    ) -> Answer:
        (flags,) = protocol.GETATTR_IN.unpack_from(body)
        opened = bool(flags & protocol.GETATTR_FH)
        attributes, seconds = self._do.getattr(nodeid, opened)
        return protocol.ATTR_OUT.pack(seconds, 0, 0) + attributes

    def _setattr(
        self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]
    ) -> Answer:
        changes = protocol.unpack_changes(body, time.time_ns())
        attributes, seconds = self._do.setattr(nodeid, changes)
        return protocol.ATTR_OUT.pack(seconds, 0, 0) + attributes

    def _readlink(
        self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]
    ) -> Answer:
        return self._do.readlink(nodeid)

    def _symlink(
        self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]
    ) -> Answer:
        name, target, _ = bytes(body).split(b"\0")
        return self._do.symlink(nodeid, name, target, owner).pack()

    def _mknod(self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]) -> Answer:
        mode, rdev, _, _ = protocol.MKNOD_IN.unpack_from(body)
        name = bytes(body[protocol.MKNOD_IN.size : -1])
        return self._do.mknod(nodeid, name, mode, rdev, owner).pack()

    def _mkdir(self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]) -> Answer:
        mode, _ = protocol.MKDIR_IN.unpack_from(body)
        name = bytes(body[protocol.MKDIR_IN.size : -1])
        entry = self._do.mkdir(nodeid, name, mode, owner, unique)
        return LATER if entry is None else entry.pack()

    def _unlink(self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]) -> Answer:
        self._do.unlink(nodeid, bytes(body[:-1]))
        return b""

    def _rmdir(self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]) -> Answer:
        return b"" if self._do.rmdir(nodeid, bytes(body[:-1]), unique) else LATER

    def _rename(self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]) -> Answer:
        (new_parent,) = protocol.RENAME_IN.unpack_from(body)
        name, new_name, _ = bytes(body[protocol.RENAME_IN.size :]).split(b"\0")
        self._do.rename(nodeid, name, new_parent, new_name, 0)
        return b""

    def _rename2(
        self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]
    ) -> Answer:
        new_parent, flags, _ = protocol.RENAME2_IN.unpack_from(body)
        name, new_name, _ = bytes(body[protocol.RENAME2_IN.size :]).split(b"\0")
        self._do.rename(nodeid, name, new_parent, new_name, flags)
        return b""

    def _link(self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]) -> Answer:
        (number,) = protocol.LINK_IN.unpack_from(body)
        return self._do.link(number, nodeid, bytes(body[protocol.LINK_IN.size : -1])).pack()

    def _open(self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]) -> Answer:
        flags, more = protocol.OPEN_IN.unpack_from(body)
        handle, how = self._do.open(nodeid, flags, bool(more & protocol.OPEN_KILL_SUIDGID))
        return protocol.OPEN_OUT.pack(handle, how, 0)

    def _create(self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]) -> Answer:
        flags, mode, _, _ = protocol.CREATE_IN.unpack_from(body)
        name = bytes(body[protocol.CREATE_IN.size : -1])
        entry, handle, how = self._do.create(nodeid, name, mode, flags, owner)
        return entry.pack() + protocol.OPEN_OUT.pack(handle, how, 0)

    def _tmpfile(
        self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]
    ) -> Answer:
        flags, mode, _, _ = protocol.CREATE_IN.unpack_from(body)
        entry, handle, how = self._do.tmpfile(nodeid, mode, flags, owner)
        return entry.pack() + protocol.OPEN_OUT.pack(handle, how, 0)

    def _read(self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]) -> Answer:
        handle, offset, length, _, _, _, _ = protocol.READ_IN.unpack_from(body)
        return self._do.read(nodeid, handle, offset, length)

    def _write(self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]) -> Answer:
        handle, offset, _, flags, _, _, _ = protocol.WRITE_IN.unpack_from(body)
        data = body[protocol.WRITE_IN.size :]
        return protocol.WRITE_OUT.pack(self._do.write(nodeid, handle, offset, data, flags), 0)

    def _release(
        self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]
    ) -> Answer:
        handle, flags, _, _ = protocol.RELEASE_IN.unpack_from(body)
        self._do.release(nodeid, handle, flags)
        return b""

    def _fsync(self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]) -> Answer:
        self._do.fsync(nodeid, int.from_bytes(body[:8], "little"))
        return b""

    def _fsyncdir(
        self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]
    ) -> Answer:
        self._do.fsync(nodeid, int.from_bytes(body[:8], "little"))
        return b""

    def _fallocate(
        self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]
    ) -> Answer:
        handle, offset, length, mode, _ = protocol.FALLOCATE_IN.unpack_from(body)
        self._do.fallocate(nodeid, handle, offset, length, mode)
        return b""

    def _lseek(self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]) -> Answer:
        handle, offset, whence, _ = protocol.LSEEK_IN.unpack_from(body)
        found = self._do.lseek(nodeid, handle, offset, whence, unique)
        return LATER if found is None else protocol.LSEEK_OUT.pack(found)

    def _copy_file_range(
        self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]
    ) -> Answer:
        _, offset, to, _, to_offset, length, _ = protocol.COPY_FILE_RANGE_IN.unpack_from(body)
        copied = self._do.copy(nodeid, offset, to, to_offset, length)
        return protocol.WRITE_OUT.pack(copied, 0)

    def _opendir(
        self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]
    ) -> Answer:
        handle, how = self._do.opendir(nodeid)
        return protocol.OPEN_OUT.pack(handle, how, 0)

    def _readdir(
        self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]
    ) -> Answer:
        handle, offset, length, _, _, _, _ = protocol.READ_IN.unpack_from(body)
        return self._do.readdir(nodeid, handle, offset, length, False)

    def _readdirplus(
        self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]
    ) -> Answer:
        handle, offset, length, _, _, _, _ = protocol.READ_IN.unpack_from(body)
        return self._do.readdir(nodeid, handle, offset, length, True)

    def _releasedir(
        self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]
    ) -> Answer:
        self._do.releasedir(int.from_bytes(body[:8], "little"))
        return b""

    def _statfs(self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]) -> Answer:
        state = self._do.statfs(nodeid)
        return protocol.STATFS_OUT.pack(
            state.f_blocks,
            state.f_bfree,
            state.f_bavail,
            state.f_files,
            state.f_ffree,
            state.f_bsize,
            state.f_namemax,
            state.f_frsize,
            0,
        )

    def _getxattr(
        self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]
    ) -> Answer:
        room, _ = protocol.GETXATTR_IN.unpack_from(body)
        value = self._do.getxattr(nodeid, bytes(body[protocol.GETXATTR_IN.size : -1]))
        return _fitting(value, room)

    def _listxattr(
        self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]
    ) -> Answer:
        room, _ = protocol.GETXATTR_IN.unpack_from(body)
        return _fitting(self._do.listxattr(nodeid), room)

    def _setxattr(
        self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]
    ) -> Answer:
        size, flags = protocol.SETXATTR_IN.unpack_from(body)
        name, _, rest = bytes(body[protocol.SETXATTR_IN.size :]).partition(b"\0")
        self._do.setxattr(nodeid, name, rest[:size], flags)
        return b""

    def _removexattr(
        self, body: memoryview, nodeid: int, unique: int, owner: tuple[int, int]
    ) -> Answer:
        self._do.removexattr(nodeid, bytes(body[:-1]))
        return b""


_GONE = (errno.ENOENT, errno.ENODEV, errno.EBADF)
"""Errors of an answer when whoever asked is gone, or the mount is."""


def _fitting(value: bytes, room: int) -> bytes:
    """A value, or, where it was only asked for, its length."""
    if not room:
        return protocol.GETXATTR_OUT.pack(len(value), 0)
    if len(value) > room:
        raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
    return value


def error_number(error: Error | OSError) -> int:
    """What a program is told; where that says little, the log says more."""
    if isinstance(error, ReadOnlyError):
        return errno.EROFS
    if isinstance(error, NotFoundError):
        return errno.ENOENT
    if isinstance(error, BusyError):  # a snapshot that is mounted elsewhere
        return errno.EBUSY
    if isinstance(error, UsageError):  # a snapshot's name has fewer letters than a file's
        return errno.EINVAL
    if isinstance(error, OSError) and error.errno:
        if not isinstance(error, FileError) and error.errno not in _ORDINARY:
            log.error("%s", error)
        return error.errno
    log.error("%s", error)
    return errno.EIO


_ORDINARY = frozenset(
    (
        errno.EEXIST,
        errno.EINVAL,
        errno.ENODATA,
        errno.ENOENT,
        errno.ENOSPC,
        errno.ENOTSUP,
        errno.ENXIO,
        errno.EPERM,
        errno.ERANGE,
        errno.EXDEV,
    )
)
"""Errors that a file system gives every day."""
