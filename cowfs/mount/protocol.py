"""What the kernel says on /dev/fuse, and wants to hear: Linux's `linux/fuse.h`, declared once.

Only what cowfs uses, as of version 7.38 (Linux 6.2), which later kernels speak too and older ones
from 7.36 (Linux 5.17) on. Integers have the byte order of the machine, and all machines that cowfs
runs on are little-endian.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from cowfs.limits import MIB

MAJOR = 7
MINOR = 38
OLDEST_MINOR = 36
"""The first with 64 bits of flags in INIT."""

ROOT_ID = 1

MAX_DATA = MIB
"""Bytes of the largest read or write: the most that kernels take in one piece by default."""


class Op(IntEnum):
    """Kinds of request. One that is not here is answered with ENOSYS, and mostly not sent again."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    TMPFILE = 51


# --- INIT: what both sides can do ---------------------------------------------------------------

ASYNC_READ = 1 << 0
BIG_WRITES = 1 << 5
DO_READDIRPLUS = 1 << 13
READDIRPLUS_AUTO = 1 << 14
ASYNC_DIO = 1 << 15
WRITEBACK_CACHE = 1 << 16
PARALLEL_DIROPS = 1 << 18
ABORT_ERROR = 1 << 21
MAX_PAGES = 1 << 22
CACHE_SYMLINKS = 1 << 23
EXPLICIT_INVAL_DATA = 1 << 25
HANDLE_KILLPRIV_V2 = 1 << 28
INIT_EXT = 1 << 30

WANTED = (
    ASYNC_READ
    | BIG_WRITES
    | DO_READDIRPLUS
    | READDIRPLUS_AUTO
    | ASYNC_DIO
    | WRITEBACK_CACHE
    | PARALLEL_DIROPS
    | ABORT_ERROR
    | MAX_PAGES
    | CACHE_SYMLINKS
    | EXPLICIT_INVAL_DATA
    | HANDLE_KILLPRIV_V2
    | INIT_EXT
)
"""Asked for where the kernel has it. Not POSIX_LOCKS and FLOCK_LOCKS: then the kernel keeps locks
itself, which is right for files that nobody changes but through it."""

# --- flags in requests and answers --------------------------------------------------------------

FATTR_MODE = 1 << 0
FATTR_UID = 1 << 1
FATTR_GID = 1 << 2
FATTR_SIZE = 1 << 3
FATTR_ATIME = 1 << 4
FATTR_MTIME = 1 << 5
FATTR_FH = 1 << 6
FATTR_ATIME_NOW = 1 << 7
FATTR_MTIME_NOW = 1 << 8
FATTR_CTIME = 1 << 10
FATTR_KILL_SUIDGID = 1 << 11

GETATTR_FH = 1 << 0

FOPEN_KEEP_CACHE = 1 << 1

WRITE_KILL_SUIDGID = 1 << 2
OPEN_KILL_SUIDGID = 1 << 0

# --- structures ---------------------------------------------------------------------------------

IN_HEADER = struct.Struct("<IIQQIIIHH")
"""length, opcode, unique, nodeid, uid, gid, pid, length of extensions, padding"""
OUT_HEADER = struct.Struct("<IiQ")
"""length, negative errno, unique"""
INIT_IN = struct.Struct("<IIIII")
"""major, minor, readahead, flags, flags above 32 bits"""
INIT_OUT = struct.Struct("<IIIIHHIIHHI28x")
"""major, minor, readahead, flags, background, congested, max_write, time_gran, max_pages,
map_alignment, flags above 32 bits"""
ATTR = struct.Struct("<QQQqqqIIIIIIIIII")
"""inode, size, blocks, atime, mtime, ctime, their nanoseconds, mode, nlink, uid, gid, rdev,
blksize, flags"""
ENTRY_OUT = struct.Struct("<QQQQII")
"""nodeid, generation, seconds that the name and the attributes hold, their nanoseconds; ATTR"""
ATTR_OUT = struct.Struct("<QII")
"""seconds that the attributes hold, nanoseconds, padding; ATTR"""
GETATTR_IN = struct.Struct("<I12x")
"""GETATTR_ flags, padding and handle"""
SETATTR_IN = struct.Struct("<IIQQQqqqIIIIIIII")
"""valid, padding, handle, size, lock owner, atime, mtime, ctime, their nanoseconds, mode, unused,
uid, gid, unused"""
MKNOD_IN = struct.Struct("<IIII")
"""mode, rdev, umask, padding; name"""
MKDIR_IN = struct.Struct("<II")
"""mode, umask; name"""
RENAME_IN = struct.Struct("<Q")
"""new directory; two names"""
RENAME2_IN = struct.Struct("<QII")
"""new directory, flags, padding; two names"""
LINK_IN = struct.Struct("<Q")
"""node; name"""
OPEN_IN = struct.Struct("<II")
"""flags of open(2), OPEN_ flags"""
CREATE_IN = struct.Struct("<IIII")
"""flags of open(2), mode, umask, OPEN_ flags; name"""
OPEN_OUT = struct.Struct("<QII")
"""handle, FOPEN_ flags, padding"""
READ_IN = struct.Struct("<QQIIQII")
"""handle, offset, length, READ_ flags, lock owner, flags of open(2), padding"""
WRITE_IN = READ_IN
"""handle, offset, length, WRITE_ flags, lock owner, flags of open(2), padding; data"""
WRITE_OUT = struct.Struct("<II")
"""length, padding"""
RELEASE_IN = struct.Struct("<QIIQ")
"""handle, flags of open(2), RELEASE_ flags, lock owner"""
FSYNC_IN = struct.Struct("<QII")
"""handle, flags, padding"""
FALLOCATE_IN = struct.Struct("<QQQII")
"""handle, offset, length, mode, padding"""
LSEEK_IN = struct.Struct("<QQII")
"""handle, offset, whence, padding"""
COPY_FILE_RANGE_IN = struct.Struct("<QQQQQQQ")
"""handle, offset, the other file's node, its handle, offset in it, length, flags"""
LSEEK_OUT = struct.Struct("<Q")
"""offset"""
SETXATTR_IN = struct.Struct("<II")
"""length, flags; name and value"""
GETXATTR_IN = struct.Struct("<II")
"""length of the buffer, padding; name"""
GETXATTR_OUT = struct.Struct("<II")
"""length of the value, padding"""
STATFS_OUT = struct.Struct("<QQQQQIIII24x")
"""blocks, free, available, files, free files, block size, longest name, fragment size, padding"""
FORGET_ONE = struct.Struct("<QQ")
"""nodeid, lookups"""
BATCH_FORGET_IN = struct.Struct("<II")
"""count, padding; FORGET_ONEs"""
DIRENT = struct.Struct("<QQII")
"""inode, offset of the next, length of the name, file type; name, zeros to a multiple of 8"""

INVAL_INODE_OUT = struct.Struct("<Qqq")
"""nodeid, offset, length (0: all); sent unasked, with NOTIFY_INVAL_INODE in place of an errno"""
INVAL_ENTRY_OUT = struct.Struct("<QII")
"""directory, length of the name, EXPIRE_ONLY; name; sent with NOTIFY_INVAL_ENTRY"""

NOTIFY_INVAL_INODE = 2
NOTIFY_INVAL_ENTRY = 3
EXPIRE_ONLY = 1 << 0
"""What is at the name stays known, and mounted, until the answer says something else."""

HEADER_ROOM = 4096
"""Bytes of a buffer for requests, beside the data of the longest write."""

_NS = 1_000_000_000


class Entry(NamedTuple):
    """A name that was looked up or made; nodeid 0 stands for one that is not there."""

    nodeid: int
    attributes: bytes
    name_seconds: int
    """How long the kernel may rely on the name leading here."""
    seconds: int
    """How long the kernel may rely on the attributes."""

    def pack(self) -> bytes:
        """As the kernel wants it."""
        nodeid, attributes, name_seconds, seconds = self
        return ENTRY_OUT.pack(nodeid, 0, name_seconds, seconds, 0, 0) + attributes


NO_ATTRIBUTES = bytes(ATTR.size)


def pack_attributes(
    nodeid: int,
    size: int,
    blocks: int,
    atime_ns: int,
    mtime_ns: int,
    ctime_ns: int,
    mode: int,
    nlink: int,
    uid: int,
    gid: int,
    rdev: int,
    blksize: int,
) -> bytes:
    """The state of a file; a nodeid is its inode number for users, too."""
    atime, atime_ns = divmod(atime_ns, _NS)
    mtime, mtime_ns = divmod(mtime_ns, _NS)
    ctime, ctime_ns = divmod(ctime_ns, _NS)
    return ATTR.pack(
        nodeid,
        size,
        blocks,
        atime,
        mtime,
        ctime,
        atime_ns,
        mtime_ns,
        ctime_ns,
        mode,
        nlink,
        uid,
        gid,
        rdev,
        blksize,
        0,
    )


class Changes(NamedTuple):
    """What SETATTR is to change; None leaves a thing as it is. Times are nanoseconds."""

    mode: int | None
    uid: int | None
    gid: int | None
    size: int | None
    atime_ns: int | None
    mtime_ns: int | None
    ctime_ns: int | None
    drop_powers: bool
    """Whether setuid and setgid bits and capabilities go."""
    opened: bool
    """Whether this is about an open file, not one that was found by its path."""


def unpack_changes(body: memoryview, now_ns: int) -> Changes:
    """The body of SETATTR."""
    valid, _, _, size, _, *times, mode, _, uid, gid, _ = SETATTR_IN.unpack_from(body)
    atime, mtime, ctime, atime_ns, mtime_ns, ctime_ns = times
    access = modified = None
    if valid & FATTR_ATIME:
        access = now_ns if valid & FATTR_ATIME_NOW else atime * _NS + atime_ns
    if valid & FATTR_MTIME:
        modified = now_ns if valid & FATTR_MTIME_NOW else mtime * _NS + mtime_ns
    return Changes(
        mode & 0o7777 if valid & FATTR_MODE else None,
        uid if valid & FATTR_UID else None,
        gid if valid & FATTR_GID else None,
        size if valid & FATTR_SIZE else None,
        access,
        modified,
        ctime * _NS + ctime_ns if valid & FATTR_CTIME else None,
        bool(valid & FATTR_KILL_SUIDGID),
        bool(valid & FATTR_FH),
    )


def device_number(rdev: int) -> int:
    """A device number as the kernel packs it into 32 bits, as `os.makedev` would give it."""
    import os

    major = (rdev & 0xFFF00) >> 8
    minor = (rdev & 0xFF) | ((rdev >> 12) & 0xFFF00)
    return os.makedev(major, minor)


def kernel_device_number(rdev: int) -> int:
    """The inverse of `device_number`."""
    import os

    major, minor = os.major(rdev), os.minor(rdev)
    return (minor & 0xFF) | ((major & 0xFFF) << 8) | ((minor & 0xFFF00) << 12)
