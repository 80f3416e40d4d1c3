"""A dataset as the kernel sees it: each request, translated to `cowfs.fs` by inode number.

Nothing but this process changes what is mounted, so the kernel may keep what it was told for as
long as it likes; only names of snapshots come and go behind its back.

Where changes were lost (`gathering.py`) that is wrong, and of the size and times of files the
kernel would go by its own all the same. So such a file gets another nodeid. Requests for the one
before are refused as stale, on which Linux looks the path up again and finds the file anew; and
with EIO where they come from a file that is open since then, whose reader or writer knows what is
no more.

The kernel holds back what is written (its writeback cache). It sends it when a file is closed or
synced, and after half a minute; who needs it sooner asks for it (`Connection.write_out`, or `sync`
of the whole mount), in another thread than the one that takes it.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from cowfs.errors import Error, StaleFileError
from cowfs.fs.dataset import stored_sectors
from cowfs.fs.file import open_files
from cowfs.fs.inode import DIRECTORY, ROOT, Inode
from cowfs.fs.nodes import Inodes, access_is_due
from cowfs.limits import RECORD_SIZE

from . import protocol
from .connection import Connection, error_number
from .gathering import Gathering
from .protocol import Changes, Entry
from .snapshots import (
    HIDDEN,
    HIDDEN_NAME,
    NUMBER_BITS,
    SNAPSHOTS,
    SNAPSHOTS_NAME,
    Snapshots,
    decode_name,
    in_dataset,
    nodeid_anew,
    number_of,
)
from .told import LostChangesError, Subject

FOR_LONG_S = 24 * 3600
"""How long the kernel may rely on what it was told."""

_ABSENT = Entry(0, protocol.NO_ATTRIBUTES, FOR_LONG_S, 0)
_UNKNOWN = Entry(0, protocol.NO_ATTRIBUTES, 0, 0)

_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 0x01, 0x02, 0x10
"""Modes of fallocate(2)."""
_NOREPLACE, _EXCHANGE = 1, 2
"""Flags of renameat2(2)."""

_DOTS = 2
"""Offset behind `.` and `..` in a directory; each entry is one more."""


class Files:
    """The operations of one mount; see `connection.Operations`."""

    def __init__(
        self,
        gathering: Gathering,
        name: str,
        sync: Callable[[], None],
        snapshot: Callable[[str], None],
        destroy: Callable[[str], None],
    ) -> None:
        self.connection: Connection
        """To be set before the first request."""
        self._gathering = gathering
        self._name = name
        self._sync = sync
        self._snapshot = snapshot
        self._destroy = destroy
        self._directories: dict[int, dict[int, bytes]] = {}
        """For each open directory: the name before each offset at which reading may go on."""
        self._writers: dict[int, int] = {}
        """How many have a file open for writing: only then the kernel may hold something back."""
        self._removed: dict[int, Inode] = {}
        """What directories were that are gone, as long as the kernel knows them: a program may have
        one open, or be in it."""
        self._snapshots = Snapshots(gathering.store, name) if "@" not in name else None
        with gathering:
            if self._snapshots is not None and not gathering.store.readonly:
                self._adopt()
            nodes = gathering.read(name)
            self._open = open_files(nodes)
        self._since = time.time_ns()

    def _adopt(self) -> None:
        """Tidy up after a crash; a dataset into which nothing was put yet is of who mounts it."""
        name, store = self._name, self._gathering.store
        empty = not any(True for _ in self._gathering.read(name).entries(ROOT))
        with self._gathering.exclusively(), store[name].writing() as nodes:
            if empty and nodes.get(ROOT).mtime_ns == nodes.created_ns:
                nodes.set_attributes(ROOT, uid=os.getuid(), gid=os.getgid())

    @property
    def may_be_behind(self) -> bool:
        """Whether the kernel may hold something back."""
        return bool(self._writers)

    def write_out(self) -> None:
        """Wait for all that the kernel holds back of files that are open for writing: syncfs(2)
        begins to send it, and does not wait. Of others it holds nothing back."""
        for number in list(self._writers):
            self.connection.write_out(self._nodeid(number))

    def ask_anew(self, subject: Subject) -> None:
        """Have the kernel forget what it knows of a file, and what a directory has under a name:
        not to be called by who serves."""
        _, number, name, losses = subject
        if name:
            self.connection.ask_anew(number, name)
        self.connection.write_out(nodeid_anew(number, losses))

    # --- names ----------------------------------------------------------------------------------

    def lookup(self, parent: int, name: bytes) -> Entry:
        if parent == ROOT and name == HIDDEN_NAME and self._snapshots is not None:
            return self._hidden_entry(HIDDEN)
        if parent == HIDDEN:
            return self._hidden_entry(SNAPSHOTS) if name == SNAPSHOTS_NAME else _ABSENT
        if parent == SNAPSHOTS:
            assert self._snapshots is not None
            nodeid = self._snapshots.find(name)
            return _UNKNOWN if nodeid is None else self._entry(nodeid, name_seconds=0)
        dataset, number = self._where(parent)
        found = self._gathering.read(dataset).lookup(number, name)
        if found is None:
            return _ABSENT
        return self._entry(parent - number + found[0])

    def forget(self, nodeid: int, lookups: int) -> None:
        self._removed.pop(nodeid, None)  # of others, there is only a number to remember

    def mknod(
        self, parent: int, name: bytes, mode: int, rdev: int, owner: tuple[int, int]
    ) -> Entry:
        device = protocol.device_number(rdev) if stat.S_IFMT(mode) in _DEVICES else 0
        nodes = self._write(parent, name)
        return self._made(nodes.create(parent, name, mode, *owner, rdev=device))

    def mkdir(
        self, parent: int, name: bytes, mode: int, owner: tuple[int, int], unique: int
    ) -> Entry | None:
        if parent == SNAPSHOTS:
            self._later(unique, lambda: self._make_snapshot(name))
            return None
        nodes = self._write(parent, name)
        return self._made(nodes.create(parent, name, stat.S_IFDIR | mode & 0o7777, *owner))

    def symlink(self, parent: int, name: bytes, target: bytes, owner: tuple[int, int]) -> Entry:
        nodes = self._write(parent, name)
        mode = stat.S_IFLNK | 0o777
        return self._made(nodes.create(parent, name, mode, *owner, target=target))

    def create(
        self, parent: int, name: bytes, mode: int, flags: int, owner: tuple[int, int]
    ) -> tuple[Entry, int, int]:
        nodes = self._write(parent, name)
        number = nodes.create(parent, name, stat.S_IFREG | mode & 0o7777, *owner)
        self._hold(number, flags)
        return self._made(number), self._gathering.told.handle(), protocol.FOPEN_KEEP_CACHE

    def tmpfile(
        self, parent: int, mode: int, flags: int, owner: tuple[int, int]
    ) -> tuple[Entry, int, int]:
        nodes = self._write(parent)
        number = nodes.create_nameless(parent, mode & 0o7777, *owner)
        self._hold(number, flags)
        self._open.keep(number)
        return self._made(number), self._gathering.told.handle(), protocol.FOPEN_KEEP_CACHE

    def link(self, nodeid: int, parent: int, name: bytes) -> Entry:
        number = self._head(nodeid)
        self._write(parent, name)
        self._write(nodeid).link(number, parent, name)
        return self._entry(number)

    def unlink(self, parent: int, name: bytes) -> None:
        self._write(parent, name).unlink(parent, name, self._open.keep)

    def rmdir(self, parent: int, name: bytes, unique: int) -> bool:
        if parent == SNAPSHOTS:
            self._later(unique, lambda: self._destroy_snapshot(name))
            return False
        nodes = self._write(parent, name)
        self._note_removed(nodes, parent, name)
        nodes.rmdir(parent, name)
        return True

    def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> None:
        self._write(parent, name)
        nodes = self._write(new_parent, new_name)
        if flags == _EXCHANGE:
            nodes.exchange(parent, name, new_parent, new_name)
        elif flags in (0, _NOREPLACE):
            over = flags == 0
            if over:
                self._note_removed(nodes, new_parent, new_name)
            nodes.rename(parent, name, new_parent, new_name, self._open.keep, replace=over)
        else:
            raise _refusal(errno.EINVAL)

    def readlink(self, nodeid: int) -> bytes:
        dataset, number = self._where(nodeid)
        return self._gathering.read(dataset).content(number)

    # --- state ----------------------------------------------------------------------------------

    def getattr(self, nodeid: int, opened: bool) -> tuple[bytes, int]:
        if nodeid >= HIDDEN:
            return self._pack_hidden(nodeid), 0
        dataset, number = self._where(nodeid, opened=opened)
        nodes = self._gathering.read(dataset)
        if dataset != self._name:
            return _pack(nodes, nodeid, number, nodes.get(number)), FOR_LONG_S
        inode = nodes.find(number) or self._removed.get(number)
        if inode is None:
            raise StaleFileError
        return _pack(nodes, number, number, inode), FOR_LONG_S

    def setattr(self, nodeid: int, changes: Changes) -> tuple[bytes, int]:
        mode, uid, gid, size, atime_ns, mtime_ns, ctime_ns, drop_powers, opened = changes
        number = self._head(nodeid, opened=opened)
        if ctime_ns is not None and self._gathering.read(self._name).find(number) is None:
            # Of a file that was just removed, the kernel still sends when that was.
            return protocol.NO_ATTRIBUTES, 0
        nodes = self._write(nodeid)
        if size is not None:
            nodes.truncate(number, size)
        if drop_powers:
            nodes.drop_powers(number)
        if not (mode is uid is gid is atime_ns is mtime_ns is ctime_ns is None):
            nodes.set_attributes(
                number,
                mode=mode,
                uid=uid,
                gid=gid,
                atime_ns=atime_ns,
                mtime_ns=mtime_ns,
                ctime_ns=ctime_ns,
            )
        inode = nodes.get(number)
        if inode.is_regular and (size, mtime_ns) != (None, None):
            self._gathering.told.altered(self._name, number)
        return _pack(nodes, number, number, inode), FOR_LONG_S

    def statfs(self, nodeid: int) -> os.statvfs_result:
        return self._gathering.dataset(self._name).statvfs()

    def getxattr(self, nodeid: int, name: bytes) -> bytes:
        _check_namespace(name)
        if nodeid >= HIDDEN:
            raise _refusal(errno.ENODATA)
        dataset, number = self._where(nodeid)
        return self._gathering.read(dataset).get_attribute(number, name)

    def setxattr(self, nodeid: int, name: bytes, value: bytes, flags: int) -> None:
        number = self._head(nodeid)
        _check_namespace(name)
        self._write(number).set_attribute(number, name, value, flags)

    def listxattr(self, nodeid: int) -> bytes:
        if nodeid >= HIDDEN:
            return b""
        dataset, number = self._where(nodeid)
        return b"".join(name + b"\0" for name in self._gathering.read(dataset).attributes(number))

    def removexattr(self, nodeid: int, name: bytes) -> None:
        number = self._head(nodeid)
        _check_namespace(name)
        self._write(number).remove_attribute(number, name)

    # --- content --------------------------------------------------------------------------------

    def open(self, nodeid: int, flags: int, drop_powers: bool) -> tuple[int, int]:
        dataset, number = self._where(nodeid)
        if dataset == self._name:
            self._gathering.read(dataset).get(number)
            if drop_powers:
                self._write(nodeid).drop_powers(number)
            self._hold(number, flags)
        elif flags & os.O_ACCMODE != os.O_RDONLY:
            raise _refusal(errno.EROFS)
        return self._gathering.told.handle(), protocol.FOPEN_KEEP_CACHE

    def release(self, nodeid: int, handle: int, flags: int) -> None:
        if not in_dataset(nodeid):
            return
        number = number_of(nodeid)
        if flags & os.O_ACCMODE != os.O_RDONLY:
            left = self._writers.pop(number) - 1
            if left:
                self._writers[number] = left
        if self._open.let_go(number):
            self._gathering.write(self._name, number).forget(number)

    def read(self, nodeid: int, handle: int, offset: int, length: int) -> bytes:
        dataset, number = self._where(nodeid, opened=True)
        data = self._gathering.content(dataset, number).pread(length, offset)
        if dataset == self._name and self._snapshots is not None:
            inode = self._gathering.read(dataset).get(number)
            if access_is_due(inode, time.time_ns()) and not self._gathering.store.readonly:
                self._write(nodeid).note_access(number)
        return data

    def write(self, nodeid: int, handle: int, offset: int, data: memoryview, flags: int) -> int:
        number = self._head(nodeid, opened=True)
        try:
            written = self._gathering.write_content(self._name, number, data, offset)
        except StaleFileError:
            self._gathering.told.check_kept(handle)  # it was made in what was lost
            raise
        if flags & protocol.WRITE_KILL_SUIDGID:
            self._write(nodeid).drop_powers(number)
        return written

    def fsync(self, nodeid: int, handle: int) -> None:
        self._gathering.commit()
        self._gathering.told.check_kept(handle)

    def fallocate(self, nodeid: int, handle: int, offset: int, length: int, mode: int) -> None:
        if mode & ~(_KEEP_SIZE | _PUNCH_HOLE | _ZERO_RANGE):
            raise _refusal(errno.EOPNOTSUPP)
        number = self._head(nodeid, opened=True)
        nodes = self._write(nodeid)
        if mode & (_PUNCH_HOLE | _ZERO_RANGE):
            nodes.punch(number, offset, length)
        if not mode & _KEEP_SIZE and offset + length > nodes.get(number).size:
            nodes.truncate(number, offset + length)
        self._gathering.told.altered(self._name, number)

    def copy(self, nodeid: int, offset: int, to: int, to_offset: int, length: int) -> int:
        """Whole files share what is stored; for anything else the kernel reads and writes."""
        target = self._head(to, opened=True)
        dataset, number = self._where(nodeid, opened=True)  # it may be in a snapshot
        nodes = self._write(to)
        source = self._gathering.read(dataset)
        size = source.get(number).size
        if offset or to_offset or length < size or nodes.get(target).size or nodeid == to:
            raise _refusal(errno.EOPNOTSUPP)
        nodes.share(source, number, target)
        self._gathering.told.altered(self._name, target)
        return size

    def lseek(self, nodeid: int, handle: int, offset: int, whence: int, unique: int) -> int | None:
        if in_dataset(nodeid) and number_of(nodeid) in self._writers:
            self._later(unique, lambda: self._seek_behind_kernel(nodeid, offset, whence))
            return None
        return self._seek(nodeid, offset, whence)

    def _seek_behind_kernel(self, nodeid: int, offset: int, whence: int) -> bytes:
        """What is a hole is not known before the kernel has sent what it holds back."""
        self.connection.write_out(nodeid)
        with self._gathering:
            return protocol.LSEEK_OUT.pack(self._seek(nodeid, offset, whence))

    def _seek(self, nodeid: int, offset: int, whence: int) -> int:
        dataset, number = self._where(nodeid, opened=True)
        nodes = self._gathering.read(dataset)
        found: int | None = None
        if offset < nodes.get(number).size:
            found = (nodes.next_data if whence == os.SEEK_DATA else nodes.next_hole)(number, offset)
        if found is None:
            raise _refusal(errno.ENXIO)
        return found

    # --- directories ----------------------------------------------------------------------------

    def opendir(self, nodeid: int) -> tuple[int, int]:
        handle = self._gathering.told.handle()
        self._directories[handle] = {_DOTS: b""}
        return handle, 0

    def releasedir(self, handle: int) -> None:
        self._directories.pop(handle, None)

    def readdir(self, nodeid: int, handle: int, offset: int, room: int, plus: bool) -> bytes:
        """Entries from an offset on. Offsets count; a name is remembered where an answer ends, so
        that reading goes on behind it whatever came or went meanwhile."""
        marks = self._directories[handle]
        if offset == 0:
            marks.clear()
            marks[_DOTS] = b""
        parts: list[bytes] = []
        for name in (b".", b"..")[offset:]:
            offset += 1
            parts.append(_dirent(nodeid, offset, DIRECTORY, name, _UNKNOWN if plus else None))
            room -= len(parts[-1])
        start = offset if offset in marks else max(mark for mark in marks if mark <= offset)
        skip = offset - start
        offset, last = start, marks[start]
        for name, child, kind in self._entries(nodeid, last):
            if skip:
                skip -= 1
                offset, last = offset + 1, name
                continue
            entry = None
            if plus:
                snapshot = nodeid == SNAPSHOTS
                entry = self._entry(child, name_seconds=0 if snapshot else FOR_LONG_S)
            part = _dirent(child, offset + 1, kind, name, entry)
            room -= len(part)
            if room < 0:
                break
            offset, last = offset + 1, name
            parts.append(part)
        marks[offset] = last
        return b"".join(parts)

    def _entries(self, nodeid: int, after: bytes) -> Iterator[tuple[bytes, int, int]]:
        """(name, nodeid, file type) of the entries behind a name."""
        if nodeid == HIDDEN:
            if not after:
                yield SNAPSHOTS_NAME, SNAPSHOTS, DIRECTORY
            return
        if nodeid == SNAPSHOTS:
            assert self._snapshots is not None
            for name in self._snapshots.names():
                found = self._snapshots.find(name)
                if name > after and found is not None:
                    yield name, found, DIRECTORY
            return
        dataset, number = self._where(nodeid)
        for name, child, kind in self._gathering.read(dataset).entries(number, after):
            yield name, nodeid - number + child, kind

    # --- what takes long, or needs the kernel to go on --------------------------------------------

    def _later(self, unique: int, action: Callable[[], bytes]) -> None:
        """Answer a request from a thread of its own."""

        def run() -> None:
            try:
                answer = action()
            except (Error, OSError) as error:
                self.connection.reply(unique, error=error_number(error))
            else:
                self.connection.reply(unique, answer)

        threading.Thread(target=run, name="later", daemon=True).start()

    def _make_snapshot(self, name: bytes) -> bytes:
        self._sync()
        self._snapshot(f"{self._name}@{decode_name(name)}")
        with self._gathering:
            return self.lookup(SNAPSHOTS, name).pack()

    def _destroy_snapshot(self, name: bytes) -> bytes:
        self._destroy(f"{self._name}@{decode_name(name)}")
        return b""

    # --- inside ---------------------------------------------------------------------------------

    def _where(self, nodeid: int, *, opened: bool = False) -> tuple[str, int]:
        """(dataset or snapshot, inode number) of a node. Raises StaleFileError, or, for an open
        file, LostChangesError."""
        if nodeid < 1 << NUMBER_BITS and not self._gathering.told.losses:  # nearly always
            return self._name, nodeid
        if in_dataset(nodeid):
            number = number_of(nodeid)
            if nodeid != self._nodeid(number):
                raise LostChangesError if opened else StaleFileError
            return self._name, number
        if self._snapshots is None or nodeid >= HIDDEN:
            raise StaleFileError
        return self._snapshots.where(nodeid)

    def _head(self, nodeid: int, *, opened: bool = False) -> int:
        """The inode number of a node that can be changed."""
        if not in_dataset(nodeid):
            raise _refusal(errno.EPERM if nodeid >= HIDDEN else errno.EROFS)
        return self._where(nodeid, opened=opened)[1]

    def _nodeid(self, number: int) -> int:
        """By which the kernel knows a file of the dataset since changes of it were lost."""
        return nodeid_anew(number, self._gathering.told.losses[self._name, number])

    def _write(self, nodeid: int, name: bytes = b"") -> Inodes:
        """The files, to change one of them, or what a directory has under a name."""
        if name == HIDDEN_NAME and nodeid == ROOT and self._snapshots is not None:
            raise _refusal(errno.EPERM)  # nobody would find it there
        return self._gathering.write(self._name, self._head(nodeid), name)

    def _made(self, number: int) -> Entry:
        self._gathering.told.made(self._name, number)
        return self._entry(number)

    def _note_removed(self, nodes: Inodes, parent: int, name: bytes) -> None:
        """A name is about to go; keep what it leads to where that is a directory."""
        found = nodes.lookup(parent, name)
        if found is not None and found[1] == DIRECTORY:
            self._removed[found[0]] = replace(nodes.get(found[0]), nlink=0, size=0)

    def _hold(self, number: int, flags: int) -> None:
        self._open.hold(number)
        if flags & os.O_ACCMODE != os.O_RDONLY:
            self._writers[number] = self._writers.get(number, 0) + 1

    def _entry(self, nodeid: int, *, name_seconds: int = FOR_LONG_S) -> Entry:
        """What the kernel is told of a file, which it knows by another nodeid after losses."""
        if nodeid >= HIDDEN:
            return self._hidden_entry(nodeid)
        dataset, number = (self._name, nodeid) if in_dataset(nodeid) else self._where(nodeid)
        nodes = self._gathering.read(dataset)
        attributes = _pack(nodes, nodeid, number, nodes.get(number))
        if dataset == self._name:
            nodeid = self._nodeid(number)
        return Entry(nodeid, attributes, name_seconds, FOR_LONG_S)

    def _hidden_entry(self, nodeid: int) -> Entry:
        return Entry(nodeid, self._pack_hidden(nodeid), FOR_LONG_S, 0)

    def _pack_hidden(self, nodeid: int) -> bytes:
        root = self._gathering.read(self._name).get(ROOT)
        times = (self._since, self._since, self._since)
        return protocol.pack_attributes(
            nodeid, 0, 0, *times, stat.S_IFDIR | 0o755, 2, root.uid, root.gid, 0, RECORD_SIZE
        )


_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)


def _pack(nodes: Inodes, nodeid: int, number: int, inode: Inode) -> bytes:
    """The state of a file for the kernel."""
    return protocol.pack_attributes(
        nodeid,
        inode.size,
        stored_sectors(nodes, number) if inode.size and inode.is_regular else 0,
        inode.atime_ns,
        inode.mtime_ns,
        inode.ctime_ns,
        inode.mode,
        min(inode.nlink, 0xFFFFFFFF),
        inode.uid,
        inode.gid,
        protocol.kernel_device_number(inode.rdev) if inode.rdev else 0,
        RECORD_SIZE,
    )


def _dirent(nodeid: int, offset: int, kind: int, name: bytes, entry: Entry | None) -> bytes:
    """An entry of a directory; for READDIRPLUS with what a lookup of it would give."""
    size = protocol.DIRENT.size + len(name)
    dirent = protocol.DIRENT.pack(nodeid, offset, len(name), kind) + name + bytes(-size % 8)
    return dirent if entry is None else entry.pack() + dirent


def _check_namespace(name: bytes) -> None:
    """Access control lists are no attributes: they would say what nobody holds to."""
    if name.startswith(b"system."):
        raise _refusal(errno.EOPNOTSUPP)


def _refusal(number: int) -> OSError:
    return OSError(number, os.strerror(number))
