"""A directory of the host behind the same connection to the kernel as a mounted dataset.

What it costs to go through FUSE and Python without storing anything, for comparison. It does what
the benchmark needs, and no more.
"""

import errno
import os
import stat
import sys
import threading
from typing import NoReturn

from cowfs.mount import protocol
from cowfs.mount.attach import attach
from cowfs.mount.connection import Connection
from cowfs.mount.protocol import Changes, Entry

FOR_LONG_S = 24 * 3600


def refuse(number: int = errno.ENOSYS) -> NoReturn:
    raise OSError(number, os.strerror(number))


class Passthrough:
    """Nodes are paths, open files are descriptors."""

    def __init__(self, root: str) -> None:
        self._paths = {protocol.ROOT_ID: os.fsencode(root)}
        self._listings: dict[int, list[bytes]] = {}

    def lookup(self, parent: int, name: bytes) -> Entry:
        try:
            return self._entry(self._paths[parent] + b"/" + name)
        except FileNotFoundError:
            return Entry(0, protocol.NO_ATTRIBUTES, FOR_LONG_S, 0)

    def forget(self, nodeid: int, lookups: int) -> None:
        self._paths.pop(nodeid, None)

    def getattr(self, nodeid: int, opened: bool) -> tuple[bytes, int]:
        return pack(nodeid, os.lstat(self._paths[nodeid])), FOR_LONG_S

    def setattr(self, nodeid: int, changes: Changes) -> tuple[bytes, int]:
        path = self._paths[nodeid]
        if changes.size is not None:
            os.truncate(path, changes.size)
        if changes.mtime_ns is not None:
            state = os.lstat(path)
            os.utime(path, ns=(changes.atime_ns or state.st_atime_ns, changes.mtime_ns))
        return self.getattr(nodeid, False)

    def readlink(self, nodeid: int) -> bytes:
        return os.readlink(self._paths[nodeid])

    def mknod(
        self, parent: int, name: bytes, mode: int, rdev: int, owner: tuple[int, int]
    ) -> Entry:
        refuse()

    def mkdir(
        self, parent: int, name: bytes, mode: int, owner: tuple[int, int], unique: int
    ) -> Entry:
        path = self._paths[parent] + b"/" + name
        os.mkdir(path, mode)
        return self._entry(path)

    def symlink(self, parent: int, name: bytes, target: bytes, owner: tuple[int, int]) -> Entry:
        refuse()

    def unlink(self, parent: int, name: bytes) -> None:
        os.unlink(self._paths[parent] + b"/" + name)

    def rmdir(self, parent: int, name: bytes, unique: int) -> bool:
        os.rmdir(self._paths[parent] + b"/" + name)
        return True

    def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> None:
        refuse()

    def link(self, nodeid: int, parent: int, name: bytes) -> Entry:
        refuse()

    def open(self, nodeid: int, flags: int, drop_powers: bool) -> tuple[int, int]:
        # The kernel reads what it needs around what is written.
        flags = flags & ~os.O_ACCMODE | os.O_RDWR if flags & os.O_ACCMODE else flags
        return os.open(self._paths[nodeid], flags & ~os.O_APPEND), protocol.FOPEN_KEEP_CACHE

    def create(
        self, parent: int, name: bytes, mode: int, flags: int, owner: tuple[int, int]
    ) -> tuple[Entry, int, int]:
        path = self._paths[parent] + b"/" + name
        fd = os.open(path, flags & ~os.O_ACCMODE | os.O_RDWR | os.O_CREAT, mode)
        return self._entry(path), fd, protocol.FOPEN_KEEP_CACHE

    def tmpfile(
        self, parent: int, mode: int, flags: int, owner: tuple[int, int]
    ) -> tuple[Entry, int, int]:
        refuse()

    def read(self, nodeid: int, handle: int, offset: int, length: int) -> bytes:
        return os.pread(handle, length, offset)

    def write(self, nodeid: int, handle: int, offset: int, data: memoryview, flags: int) -> int:
        return os.pwrite(handle, data, offset)

    def release(self, nodeid: int, handle: int, flags: int) -> None:
        os.close(handle)

    def fsync(self, nodeid: int, handle: int) -> None:
        fd = os.open(self._paths[nodeid], os.O_RDONLY)
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)

    def fallocate(self, nodeid: int, handle: int, offset: int, length: int, mode: int) -> None:
        refuse()

    def lseek(self, nodeid: int, handle: int, offset: int, whence: int, unique: int) -> int:
        return os.lseek(handle, offset, whence)

    def copy(self, nodeid: int, offset: int, to: int, to_offset: int, length: int) -> int:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def opendir(self, nodeid: int) -> tuple[int, int]:
        handle = max(self._listings, default=0) + 1
        self._listings[handle] = sorted(os.listdir(self._paths[nodeid]))
        return handle, 0

    def readdir(self, nodeid: int, handle: int, offset: int, room: int, plus: bool) -> bytes:
        parts = []
        for name in self._listings[handle][offset:]:
            offset += 1
            entry = self.lookup(nodeid, name)
            (mode,) = protocol.ATTR.unpack(entry.attributes)[9:10]
            head = protocol.DIRENT.pack(entry.nodeid, offset, len(name), stat.S_IFMT(mode) >> 12)
            part = (entry.pack() if plus else b"") + head + name
            part += bytes(-len(part) % 8)
            room -= len(part)
            if room < 0:
                break
            parts.append(part)
        return b"".join(parts)

    def releasedir(self, handle: int) -> None:
        del self._listings[handle]

    def statfs(self, nodeid: int) -> os.statvfs_result:
        return os.statvfs(self._paths[protocol.ROOT_ID])

    def getxattr(self, nodeid: int, name: bytes) -> bytes:
        refuse(errno.ENODATA)

    def setxattr(self, nodeid: int, name: bytes, value: bytes, flags: int) -> None:
        refuse()

    def listxattr(self, nodeid: int) -> bytes:
        return b""

    def removexattr(self, nodeid: int, name: bytes) -> None:
        refuse()

    def _entry(self, path: bytes) -> Entry:
        state = os.lstat(path)
        self._paths[state.st_ino] = path
        return Entry(state.st_ino, pack(state.st_ino, state), FOR_LONG_S, FOR_LONG_S)


def pack(nodeid: int, state: os.stat_result) -> bytes:
    times = (state.st_atime_ns, state.st_mtime_ns, state.st_ctime_ns)
    owner = (state.st_uid, state.st_gid)
    return protocol.pack_attributes(
        *(nodeid, state.st_size, state.st_blocks, *times, state.st_mode, state.st_nlink),
        *(*owner, 0, state.st_blksize),
    )


def main() -> None:
    source, directory = sys.argv[1:]
    fd = attach(directory, source, readonly=False, allow_other=False)
    print("mounted", flush=True)
    Connection(fd, Passthrough(source), threading.RLock()).serve()


if __name__ == "__main__":
    main()
