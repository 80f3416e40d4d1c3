"""What a dataset of kind fs keeps in its tree: the keys, the packed inode, the directory entry.

A key starts with an inode number (big-endian, so that keys sort by number) and a type byte; what
belongs to one file is together. Inode 1 is the root; number 0 holds what belongs to no file.

    key                                  value
    0       | COUNTER                    the next inode number, u64
    0       | ORPHAN | inode u64         empty: removed while open, deleted with the last close
    inode   | INODE                      the packed inode
    inode   | XATTR  | name              value of an extended attribute
    inode   | ENTRY  | name              directory entry: inode u64, file type u8
    inode   | DATA                       content of a file, target of a symbolic link
    inode   | NAME   | parent u64 | name empty: one for each hard link, the way back to the root

Invariants: every ENTRY has its NAME and the other way round; `nlink` of what is no directory is
the number of its NAMEs, that of a directory 2 and one for each directory in it; `size` of a
directory is the number of its ENTRYs, of all else the length of its DATA. A number is used once in
the history of a tree; a rollback or a clone starts another history, and the time of birth tells the
files apart. A tree without a root inode is an empty file system.

docs/format.md describes the bytes.
"""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass

from ..limits import KIB, MAX_VALUE

INODE, XATTR, ENTRY, DATA, NAME, ORPHAN = range(6)
COUNTER = INODE
"""Type bytes. The order is that of use: one leaf mostly answers stat and read."""

NO_INODE = 0
ROOT = 1
FIRST_INODE = 2

INODE_MAX = (1 << 62) - 1
"""Largest inode number; none is used twice, and no tree comes near."""

NAME_MAX = 255
"""Bytes of a name in a directory or of an attribute: what Linux allows."""
SYMLINK_MAX = 4095
"""Bytes of a symbolic link's target: PATH_MAX of Linux, less its NUL."""
XATTR_MAX = 64 * KIB
"""Bytes of an attribute's value: XATTR_SIZE_MAX of Linux."""
LINK_MAX = (1 << 32) - 1
ID_MAX = (1 << 32) - 2
"""Largest user or group id; the one above stands for `leave as it is` in chown(2)."""
SIZE_MAX = MAX_VALUE
"""Bytes of a file."""
TIME_MIN, TIME_MAX = -(1 << 63), (1 << 63) - 1
"""Nanoseconds since 1970: years 1677 to 2262."""

FLAG_SPARSE = 1
"""The file had holes on the host: copied out again, its blocks of zeros become holes."""

_KEY = struct.Struct(">QB")
_LINK = struct.Struct(">QBQ")
_INODE = struct.Struct("<IIIIQqqqqQII")
_ENTRY = struct.Struct("<QB")
_COUNTER = struct.Struct("<Q")

make_key = _KEY.pack
"""The key (inode number, type); a name goes behind it."""
make_name_key = _LINK.pack
"""The key (inode number, NAME, parent) of a way back; the name goes behind it."""
pack_entry = _ENTRY.pack
"""A directory entry: inode number and file type."""
pack_counter = _COUNTER.pack
"""A count, as the value of an item."""

INODE_SIZE = _INODE.size
KEY_SIZE = _KEY.size
NAME_KEY_SIZE = _LINK.size

DIRECTORY, REGULAR, SYMLINK = (
    stat.S_IFMT(mode) >> 12 for mode in (stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK)
)
"""File types as directory entries give them: the type bits of the mode, as in dirent(3)."""
FILE_TYPES = frozenset(
    kind >> 12
    for kind in (
        stat.S_IFDIR,
        stat.S_IFREG,
        stat.S_IFLNK,
        stat.S_IFIFO,
        stat.S_IFSOCK,
        stat.S_IFCHR,
        stat.S_IFBLK,
    )
)


@dataclass(slots=True)
class Inode:
    """All about a file but its names, attributes and content. Times are nanoseconds since 1970."""

    mode: int
    uid: int
    gid: int
    nlink: int
    size: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int
    rdev: int = 0
    flags: int = 0

    def pack(self) -> bytes:
        """The inode as it is stored."""
        return _INODE.pack(
            self.mode,
            self.uid,
            self.gid,
            self.nlink,
            self.size,
            self.atime_ns,
            self.mtime_ns,
            self.ctime_ns,
            self.btime_ns,
            self.rdev,
            self.flags,
            0,
        )

    @property
    def type(self) -> int:
        """The file type, as directory entries give it."""
        return self.mode >> 12

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return self.mode >> 12 == DIRECTORY

    @property
    def is_regular(self) -> bool:
        """Whether it is a regular file."""
        return self.mode >> 12 == REGULAR


def unpack_inode(data: bytes) -> Inode:
    """The inverse of `Inode.pack`; ValueError where it is none."""
    if len(data) != INODE_SIZE:
        raise ValueError(f"an inode of {len(data)} bytes")
    *fields, reserved = _INODE.unpack(data)
    inode = Inode(*fields)
    if (
        inode.mode >> 12 not in FILE_TYPES
        or inode.size > SIZE_MAX
        or reserved
        or (inode.is_directory and inode.nlink < 2)
    ):
        raise ValueError(f"an inode of mode {inode.mode:#o} and {inode.size} bytes")
    return inode


def unpack_entry(data: bytes) -> tuple[int, int]:
    """(inode number, file type) of a directory entry; ValueError where it is none."""
    if len(data) != _ENTRY.size:
        raise ValueError(f"a directory entry of {len(data)} bytes")
    number, kind = _ENTRY.unpack(data)
    if not ROOT < number <= INODE_MAX or kind not in FILE_TYPES:
        raise ValueError(f"a directory entry for inode {number} of type {kind}")
    return number, kind


def unpack_counter(data: bytes) -> int:
    """The inverse of `pack_counter`; ValueError where it is none."""
    if len(data) != _COUNTER.size:
        raise ValueError(f"a counter of {len(data)} bytes")
    (count,) = _COUNTER.unpack(data)
    if not FIRST_INODE <= count <= INODE_MAX:
        raise ValueError(f"inode numbers go on with {count}")
    return int(count)


def split_key(key: bytes) -> tuple[int, int, bytes]:
    """(inode number, type, rest) of a key; ValueError where it is none."""
    if len(key) < KEY_SIZE:
        raise ValueError(f"a key of {len(key)} bytes")
    number, kind = _KEY.unpack_from(key)
    if number > INODE_MAX:
        raise ValueError(f"inode {number}")
    return number, kind, key[KEY_SIZE:]


def split_name_key(key: bytes) -> tuple[int, bytes]:
    """(parent, name) of a way back; ValueError where it is none."""
    if len(key) <= NAME_KEY_SIZE:
        raise ValueError(f"a key of {len(key)} bytes for a way back")
    _, _, parent = _LINK.unpack_from(key)
    return int(parent), key[NAME_KEY_SIZE:]


def sound_name(name: bytes) -> bool:
    """Whether `name` can be that of a directory entry."""
    return (
        0 < len(name) <= NAME_MAX
        and b"/" not in name
        and b"\0" not in name
        and name not in (b".", b"..")
    )


def clamp_time(time_ns: int) -> int:
    """The nearest time that an inode can hold."""
    if TIME_MIN <= time_ns <= TIME_MAX:
        return time_ns
    return TIME_MIN if time_ns < 0 else TIME_MAX
