"""Files by inode number: every operation of the file system, without paths and without locks.

`Inodes` is a thin view of one tree, made anew for each operation; it holds no state of its own.
Paths are `paths.py`'s business, sessions and open files that of `dataset.py`; a mount calls what is
here.

Each method that changes something checks everything first, so that what it refuses leaves no trace.
Numbers that lead nowhere are stale (`StaleFileError`): whoever holds one has outlived its file.
Errors name no path; whoever knows it adds it.
"""

from __future__ import annotations

import os
import stat
import struct
import time
from collections.abc import Callable, Iterator

from .._tree import Tree
from .._view import INLINE
from ..blob import Blob
from ..blockio import BlockIO
from ..errors import (
    AttributeExistsError,
    AttributeNotFoundError,
    CorruptionError,
    DirectoryNotEmptyError,
    FileTooBigError,
    PathExistsError,
    PathInvalidError,
    PathIsADirectoryError,
    PathNameTooLongError,
    PathNotADirectoryError,
    PathNotFoundError,
    PathPermissionError,
    StaleFileError,
    TooManyLinksError,
)
from ..values import cell_size, share_blob_between, write_blob
from .inode import (
    COUNTER,
    DATA,
    DIRECTORY,
    ENTRY,
    FIRST_INODE,
    ID_MAX,
    INODE,
    INODE_MAX,
    KEY_SIZE,
    LINK_MAX,
    NAME,
    NAME_MAX,
    NO_INODE,
    ORPHAN,
    ROOT,
    SIZE_MAX,
    SYMLINK,
    SYMLINK_MAX,
    XATTR,
    XATTR_MAX,
    Inode,
    clamp_time,
    make_key,
    make_name_key,
    pack_counter,
    pack_entry,
    sound_name,
    split_name_key,
    unpack_counter,
    unpack_entry,
    unpack_inode,
)

_ACCESS_DAY_NS = 24 * 3600 * 1_000_000_000
"""How long a time of access may be too old."""

_CAPABILITY = b"security.capability"

_COUNTER_KEY = make_key(NO_INODE, COUNTER)
_DOOMED = 4096
"""Inodes gathered before they are deleted, neighbours in one step."""

Entry = tuple[bytes, int, int]
"""Name, inode number, file type."""


Keep = Callable[[int], bool]
"""Asked when a file loses its last name: whether it is to stay, nameless, until `forget`."""


def _keep_nothing(_: int) -> bool:
    return False


class Inodes:
    """The files in a tree, by number."""

    __slots__ = ("created_ns", "io", "tree")

    def __init__(self, io: BlockIO, tree: Tree, created_ns: int = 0) -> None:
        self.io = io
        self.tree = tree
        self.created_ns = created_ns
        """Time of the root directory as long as nothing was ever put into it."""

    # --- finding --------------------------------------------------------------------------------

    def find(self, number: int) -> Inode | None:
        """The inode, or None where there is none of that number."""
        data = self._inline(make_key(number, INODE))
        if data is None:
            if number != ROOT:
                return None
            born = self.created_ns
            return Inode(stat.S_IFDIR | 0o755, 0, 0, 2, 0, born, born, born, born)
        try:
            return unpack_inode(data)
        except ValueError as error:
            raise self._corrupt(str(error)) from None

    def get(self, number: int) -> Inode:
        """The inode. Raises StaleFileError."""
        inode = self.find(number)
        if inode is None:
            raise StaleFileError
        return inode

    def put(self, number: int, inode: Inode) -> None:
        """Store an inode."""
        try:
            data = inode.pack()
        except struct.error:  # a count of entries or links that was wrong left its range
            raise self._corrupt(
                f"inode {number} has {inode.nlink} links, size {inode.size}"
            ) from None
        self.tree.put(make_key(number, INODE), data)

    def lookup(self, parent: int, name: bytes) -> tuple[int, int] | None:
        """(inode number, file type) of a directory's entry, or None."""
        data = self._inline(make_key(parent, ENTRY) + name)
        if data is None:
            return None
        try:
            return unpack_entry(data)
        except ValueError as error:
            raise self._corrupt(str(error)) from None

    def entries(self, parent: int, after: bytes = b"") -> Iterator[Entry]:
        """The entries of a directory that come after a name, sorted by name."""
        start = make_key(parent, ENTRY) + after + b"\0" if after else make_key(parent, ENTRY)
        stop = make_key(parent, ENTRY + 1)
        for key, kind, data in self.tree.items_between(start, stop, what=3):
            name = key[KEY_SIZE:]
            if not sound_name(name) or kind != INLINE:
                raise self._corrupt(f"a directory entry named {name!r}")
            try:
                number, kind = unpack_entry(data)
            except ValueError as error:
                raise self._corrupt(str(error)) from None
            if kind == DIRECTORY:
                self.check_directory(number, parent, name)
            yield name, number, kind

    def children(self, parent: int) -> Iterator[tuple[bytes, int, Inode]]:
        """(name, inode number, inode) of each entry of a directory: for whoever walks down."""
        for name, number, kind in self.entries(parent):
            inode = self.find(number)
            if inode is None or inode.type != kind:
                raise self._corrupt(f"entry {name!r} for inode {number} of another type")
            yield name, number, inode

    def regular(self, number: int) -> Inode:
        """The inode of what a directory's entry says is a regular file."""
        inode = self.get(number)
        if not inode.is_regular:
            raise self._corrupt(f"inode {number} is of another type than its entry")
        return inode

    def check_directory(self, number: int, parent: int, name: bytes) -> None:
        """CorruptionError unless this entry is a directory's only way to be reached: then whoever
        walks down comes to an end."""
        if next(self.names(number), None) != (parent, name):
            raise self._corrupt(f"directory {number} is in {parent} as {name!r}, and knows it not")

    def names(self, number: int) -> Iterator[tuple[int, bytes]]:
        """(parent, name) of each of the file's links."""
        start, stop = make_key(number, NAME), make_key(number, NAME + 1)
        for key in self.tree.items_between(start, stop, what=1):
            try:
                yield split_name_key(key)
            except ValueError as error:
                raise self._corrupt(str(error)) from None

    def parent(self, number: int) -> int:
        """The directory that a directory is in; the root is in itself."""
        if number == ROOT:
            return ROOT
        for parent, _ in self.names(number):
            return parent
        raise StaleFileError

    def ancestors(self, number: int) -> Iterator[int]:
        """A directory and all those above it, up to the root."""
        seen = set()
        while number != ROOT:
            if number in seen:
                raise self._corrupt(f"directory {number} is in itself")
            seen.add(number)
            yield number
            number = self.parent(number)
        yield ROOT

    def path(self, parent: int, name: bytes) -> bytes:
        """The path of a directory's entry, from the root."""
        parts = [name]
        for directory in self.ancestors(parent):
            if directory == ROOT:
                break
            parts.append(next(self.names(directory))[1])
        return b"/" + b"/".join(reversed(parts))

    # --- making and removing --------------------------------------------------------------------

    def create(
        self,
        parent: int,
        name: bytes,
        mode: int,
        uid: int,
        gid: int,
        *,
        rdev: int = 0,
        target: bytes = b"",
    ) -> int:
        """A new file of any type, empty but for a symbolic link's target; its number."""
        directory = self._directory(parent)
        check_name(name)
        kind = mode >> 12
        if kind == SYMLINK:
            _check_target(target)
        if self.lookup(parent, name) is not None:
            raise PathExistsError
        now = time.time_ns()
        links = 2 if kind == DIRECTORY else 1
        number = self._new(directory, mode, uid, gid, links, len(target), now, rdev)
        if target:
            self._put_value(make_key(number, DATA), target)
        self._put_name(parent, name, number, kind)
        directory.nlink += kind == DIRECTORY
        self._put_directory(parent, directory, now, 1)
        return number

    def create_nameless(self, parent: int, mode: int, uid: int, gid: int) -> int:
        """A new regular file that no directory has, as O_TMPFILE makes it: it is there until
        `forget`, or gets its first name by `link`. Who calls this holds it open."""
        directory = self._directory(parent)
        number = self._new(directory, stat.S_IFREG | mode, uid, gid, 0, 0, time.time_ns(), 0)
        self.tree.put(make_key(NO_INODE, ORPHAN) + number.to_bytes(8, "big"), b"")
        return number

    def link(self, number: int, parent: int, name: bytes) -> None:
        """Another name for a file; or the first one, for a file without."""
        inode = self.get(number)
        directory = self._directory(parent)
        check_name(name)
        if self.lookup(parent, name) is not None:
            raise PathExistsError
        if inode.is_directory:
            raise PathPermissionError(reason="a directory has one name")
        if inode.nlink == LINK_MAX:
            raise TooManyLinksError
        now = time.time_ns()
        if not inode.nlink:
            self.tree.delete(make_key(NO_INODE, ORPHAN) + number.to_bytes(8, "big"))
        inode.nlink += 1
        inode.ctime_ns = now
        self.put(number, inode)
        self._put_name(parent, name, number, inode.type)
        self._put_directory(parent, directory, now, 1)

    def unlink(self, parent: int, name: bytes, keep: Keep = _keep_nothing) -> None:
        """Remove a name, and with the last one the file; unless it is kept."""
        number, kind = self._entry(parent, name)
        if kind == DIRECTORY:
            raise PathIsADirectoryError
        now = time.time_ns()
        directory = self._directory(parent)
        self.drop_name(number, parent, name, keep)
        self.tree.delete(make_key(parent, ENTRY) + name)
        self._put_directory(parent, directory, now, -1)

    def rmdir(self, parent: int, name: bytes) -> None:
        """Remove an empty directory."""
        number, kind = self._entry(parent, name)
        if kind != DIRECTORY:
            raise PathNotADirectoryError
        if self._directory(number).size:
            raise DirectoryNotEmptyError
        self._remove_directory(parent, name, [number])

    def remove_tree(self, parent: int, name: bytes, keep: Keep = _keep_nothing) -> None:
        """Remove a directory with everything in it."""
        number, kind = self._entry(parent, name)
        if kind != DIRECTORY:
            raise PathNotADirectoryError
        self.check_directory(number, parent, name)
        doomed: list[int] = []
        todo = [number]
        while todo:
            directory = todo.pop()
            for entry, child, kind in self.entries(directory):
                if kind == DIRECTORY:
                    todo.append(child)
                elif self.get(child).nlink > 1 or keep(child):
                    self.drop_name(child, directory, entry, keep)
                else:
                    doomed.append(child)
            doomed.append(directory)
            if len(doomed) > _DOOMED:
                self._delete(doomed)
                doomed.clear()
        self._remove_directory(parent, name, doomed)

    def rename(
        self,
        parent: int,
        name: bytes,
        new_parent: int,
        new_name: bytes,
        keep: Keep = _keep_nothing,
        *,
        replace: bool = True,
    ) -> None:
        """Move a file to another name, in the place of what has that name."""
        number, kind = self._entry(parent, name)
        source = self._directory(parent)
        target = source if new_parent == parent else self._directory(new_parent)
        check_name(new_name)
        if kind == DIRECTORY and target is not source and number in self.ancestors(new_parent):
            raise PathInvalidError(reason="a directory cannot be moved into itself")
        other = self.lookup(new_parent, new_name)
        if other is not None:
            if other[0] == number:
                return
            if not replace:
                raise PathExistsError
            self._check_replace(parent, kind, *other)
        now = time.time_ns()
        inode = self.get(number)
        if other is not None:
            if other[1] == DIRECTORY:
                self._delete([other[0]])
                target.nlink -= 1
            else:
                self.drop_name(other[0], new_parent, new_name, keep)
            target.size -= 1
        self.tree.delete(make_key(parent, ENTRY) + name)
        self.tree.delete(make_name_key(number, NAME, parent) + name)
        self._put_name(new_parent, new_name, number, kind)
        source.nlink -= kind == DIRECTORY
        target.nlink += kind == DIRECTORY
        source.size -= 1
        target.size += 1
        if target is not source:
            self._put_directory(parent, source, now, 0)
        self._put_directory(new_parent, target, now, 0)
        inode.ctime_ns = now
        self.put(number, inode)

    def exchange(self, parent: int, name: bytes, other_parent: int, other_name: bytes) -> None:
        """Let two names change places, whatever files they are (RENAME_EXCHANGE of rename(2))."""
        number, kind = self._entry(parent, name)
        other, other_kind = self._entry(other_parent, other_name)
        if number == other:
            return
        directory = self._directory(parent)
        same = other_parent == parent
        other_directory = directory if same else self._directory(other_parent)
        if (kind == DIRECTORY and number in self.ancestors(other_parent)) or (
            other_kind == DIRECTORY and other in self.ancestors(parent)
        ):
            raise PathInvalidError(reason="a directory cannot be moved into itself")
        now = time.time_ns()
        for moved in (number, other):
            inode = self.get(moved)
            inode.ctime_ns = now
            self.put(moved, inode)
        self.tree.delete(make_name_key(number, NAME, parent) + name)
        self.tree.delete(make_name_key(other, NAME, other_parent) + other_name)
        self._put_name(other_parent, other_name, number, kind)
        self._put_name(parent, name, other, other_kind)
        come = (other_kind == DIRECTORY) - (kind == DIRECTORY)
        directory.nlink += come
        other_directory.nlink -= come
        self._put_directory(parent, directory, now, 0)
        if not same:
            self._put_directory(other_parent, other_directory, now, 0)

    def forget(self, number: int) -> None:
        """Delete a file that was removed while it was open."""
        if self.tree.delete(make_key(NO_INODE, ORPHAN) + number.to_bytes(8, "big")):
            self._delete([number])

    def orphans(self) -> Iterator[int]:
        """Files that were removed while they were open, and not forgotten since."""
        start, stop = make_key(NO_INODE, ORPHAN), make_key(NO_INODE, ORPHAN + 1)
        for key in self.tree.items_between(start, stop, what=1):
            number = int.from_bytes(key[KEY_SIZE:], "big")
            if len(key) != KEY_SIZE + 8 or number > INODE_MAX:
                raise self._corrupt(f"an item {key!r}")
            yield number

    def drop_name(self, number: int, parent: int, name: bytes, keep: Keep = _keep_nothing) -> None:
        """Take a name from a file, and delete it with the last one; the entry is the caller's."""
        inode = self.get(number)
        if inode.nlink <= 1 and not keep(number):
            self._delete([number])
            return
        inode.nlink -= 1
        inode.ctime_ns = time.time_ns()
        self.tree.delete(make_name_key(number, NAME, parent) + name)
        self.put(number, inode)
        if not inode.nlink:
            self.tree.put(make_key(NO_INODE, ORPHAN) + number.to_bytes(8, "big"), b"")

    def reserve(self, count: int) -> int:
        """The first of `count` inode numbers that nobody else gets."""
        number = self._next_number()
        self.tree.put(_COUNTER_KEY, pack_counter(number + count))
        return number

    def pass_over(self, number: int) -> None:
        """Have nobody get numbers up to this one."""
        first = self._next_number()
        if first <= number:
            self.reserve(number + 1 - first)

    # --- attributes -----------------------------------------------------------------------------

    def set_attributes(
        self,
        number: int,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        atime_ns: int | None = None,
        mtime_ns: int | None = None,
        ctime_ns: int | None = None,
    ) -> None:
        """Change what is given; of `mode`, the permission bits. The time of change is now, but for
        a kernel that keeps times itself while it holds back what was written."""
        inode = self.get(number)
        for owner in (uid, gid):
            if owner is not None and not 0 <= owner <= ID_MAX:
                raise PathInvalidError(reason=f"id {owner}; allowed are 0 to {ID_MAX}")
        if mode is not None:
            if not 0 <= mode <= 0o7777:
                raise PathInvalidError(reason=f"mode {mode:#o}; allowed are 0 to 0o7777")
            if inode.type == SYMLINK:
                raise PathPermissionError(reason="a symbolic link has no mode of its own")
            inode.mode = stat.S_IFMT(inode.mode) | mode
        if uid is not None or gid is not None:
            inode.uid = inode.uid if uid is None else uid
            inode.gid = inode.gid if gid is None else gid
            if inode.is_regular and mode is None:
                # As Linux does: a program does not keep its powers under another owner.
                inode.mode &= ~_powers(inode.mode)
        if atime_ns is not None:
            inode.atime_ns = clamp_time(atime_ns)
        if mtime_ns is not None:
            inode.mtime_ns = clamp_time(mtime_ns)
        inode.ctime_ns = time.time_ns() if ctime_ns is None else clamp_time(ctime_ns)
        self.put(number, inode)

    def drop_powers(self, number: int) -> None:
        """Take from a file what lets it run as another user: its content was changed by one who
        may not give that (setuid, setgid, capabilities)."""
        inode = self.get(number)
        powers = _powers(inode.mode) if inode.is_regular else 0
        if self.tree.delete(make_key(number, XATTR) + _CAPABILITY) or inode.mode & powers:
            inode.mode &= ~powers
            inode.ctime_ns = time.time_ns()
            self.put(number, inode)

    def note_access(self, number: int) -> None:
        """A file was read: set its time of access, where `access_is_due`."""
        inode = self.get(number)
        now = time.time_ns()
        if access_is_due(inode, now):
            inode.atime_ns = now
            self.put(number, inode)

    def attributes(self, number: int) -> Iterator[bytes]:
        """The names of the extended attributes, sorted."""
        start, stop = make_key(number, XATTR), make_key(number, XATTR + 1)
        for key in self.tree.items_between(start, stop, what=1):
            name = key[KEY_SIZE:]
            if not sound_attribute(name):
                raise self._corrupt(f"inode {number} has an attribute named {name!r}")
            yield name

    def get_attribute(self, number: int, name: bytes) -> bytes:
        """The value of an extended attribute. Raises AttributeNotFoundError."""
        _check_attribute_name(name)
        key = make_key(number, XATTR) + name
        cell = self.tree.cell(key)
        if cell is None:
            raise AttributeNotFoundError
        if cell_size(cell) > XATTR_MAX:
            raise self._corrupt(f"attribute {name!r} of {cell_size(cell)} bytes")
        value: bytes = self.tree.get(key)
        return value

    def set_attribute(self, number: int, name: bytes, value: bytes, flags: int = 0) -> None:
        """Set an extended attribute; `flags` as in setxattr(2)."""
        inode = self.get(number)
        _check_attribute_name(name)
        if len(value) > XATTR_MAX:
            raise PathInvalidError(
                reason=f"an attribute of {len(value)} bytes; allowed are up to {XATTR_MAX}"
            )
        key = make_key(number, XATTR) + name
        if flags:
            there = key in self.tree
            if there and flags & os.XATTR_CREATE:
                raise AttributeExistsError
            if not there and flags & os.XATTR_REPLACE:
                raise AttributeNotFoundError
        self._put_value(key, value)
        inode.ctime_ns = time.time_ns()
        self.put(number, inode)

    def remove_attribute(self, number: int, name: bytes) -> None:
        """Remove an extended attribute. Raises AttributeNotFoundError."""
        inode = self.get(number)
        _check_attribute_name(name)
        if not self.tree.delete(make_key(number, XATTR) + name):
            raise AttributeNotFoundError
        inode.ctime_ns = time.time_ns()
        self.put(number, inode)

    # --- content --------------------------------------------------------------------------------

    def blob(self, number: int, *, deferred: bool = False) -> Blob:
        """The content of a file; what changes it has to see to the inode."""
        return Blob(self.io, self.tree, make_key(number, DATA), deferred=deferred)

    def target(self, number: int) -> bytes:
        """The target of a symbolic link."""
        cell = self.tree.cell(make_key(number, DATA))
        size = 0 if cell is None else cell_size(cell)
        target = self.content(number) if size <= SYMLINK_MAX else b""
        if not target or b"\0" in target:
            raise self._corrupt(f"inode {number}: a symbolic link with a target of {size} bytes")
        return target

    def content(self, number: int) -> bytes:
        """The whole content of a file."""
        data: bytes = self.tree.get(make_key(number, DATA), b"")
        return data

    def read(self, number: int, length: int, offset: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer at the end."""
        if not self.get(number).is_regular:
            raise PathInvalidError(reason="not a regular file")
        return self.blob(number).pread(length, offset)

    def write(
        self, number: int, data: bytes | memoryview, offset: int, blob: Blob | None = None
    ) -> int:
        """Write all of `data` at `offset`, growing the file where need be; the bytes written. Who
        has the file's `blob` open may say so."""
        inode = self._regular(number)
        stop = offset + len(data)
        if offset < 0 or stop > SIZE_MAX:
            raise FileTooBigError
        if data:
            (self.blob(number) if blob is None else blob).pwrite(data, offset)
            inode.size = max(inode.size, stop)
            self._put_written(number, inode)
        return len(data)

    def append(self, number: int, data: bytes | memoryview) -> int:
        """Write at the end; the offset behind what was written."""
        offset = self._regular(number).size
        return offset + self.write(number, data, offset)

    def truncate(self, number: int, size: int) -> None:
        """Cut a file off, or let it grow by a hole."""
        inode = self._regular(number)
        if size < 0:
            raise PathInvalidError(reason=f"size {size}; a size is not negative")
        if size > SIZE_MAX:
            raise FileTooBigError
        if size == 0:
            self.tree.delete(make_key(number, DATA))
        elif size != inode.size:
            self.blob(number).truncate(size)
        inode.size = size
        self._put_written(number, inode)

    def replace(self, number: int, data: bytes | memoryview) -> None:
        """Make `data` the whole content of a file."""
        inode = self._regular(number)
        self._put_value(make_key(number, DATA), data)
        inode.size = len(data)
        self._put_written(number, inode)

    def share(self, source: Inodes, source_number: int, number: int) -> None:
        """Give a file the content of another one of the store, sharing what is stored."""
        inode, known = self._regular(number), source.get(source_number)
        key, source_key = make_key(number, DATA), make_key(source_number, DATA)
        share_blob_between(self.io, source.tree, source_key, self.tree, key)
        inode.size = known.size
        self._put_written(number, inode)

    def punch(self, number: int, offset: int, length: int) -> None:
        """Make a range read as zeros and give back its space; the size stays."""
        inode = self._regular(number)
        if offset < 0 or length <= 0:
            raise PathInvalidError(reason=f"a range of {length} bytes at {offset}")
        self.blob(number).punch(offset, length)
        self._put_written(number, inode)

    def next_data(self, number: int, offset: int) -> int | None:
        """Where data begins, at `offset` or behind it; None where there is only a hole."""
        for start, _ in self.blob(number).data_ranges(offset):
            return max(start, offset)
        return None

    def next_hole(self, number: int, offset: int) -> int:
        """Where a hole begins, at `offset` or behind it: at the latest, at the end of the file."""
        for start, stop in self.blob(number).data_ranges(offset):
            if start > offset:
                break
            offset = stop
        return min(offset, self.get(number).size)

    # --- inside ---------------------------------------------------------------------------------

    def _next_number(self) -> int:
        """The smallest inode number that was never used."""
        data = self._inline(_COUNTER_KEY)
        try:
            return FIRST_INODE if data is None else unpack_counter(data)
        except ValueError as error:
            raise self._corrupt(str(error)) from None

    def _corrupt(self, reason: str) -> CorruptionError:
        return CorruptionError(self.tree.label, None, reason)

    def _inline(self, key: bytes) -> bytes | None:
        """A value that is small by its nature, or None."""
        cell = self.tree.cell(key)
        if cell is not None and cell[0] != INLINE:
            raise self._corrupt(f"item {key.hex()} of {cell_size(cell)} bytes")
        return None if cell is None else cell[1]

    def _directory(self, number: int) -> Inode:
        inode = self.get(number)
        if not inode.is_directory:
            raise PathNotADirectoryError
        return inode

    def _regular(self, number: int) -> Inode:
        inode = self.get(number)
        if not inode.is_regular:
            raise PathInvalidError(reason="not a regular file")
        return inode

    def _entry(self, parent: int, name: bytes) -> tuple[int, int]:
        found = self.lookup(parent, name)
        if found is None:
            raise PathNotFoundError
        return found

    def _check_replace(self, parent: int, kind: int, other: int, other_kind: int) -> None:
        """Raise where a file of type `kind` in `parent` may not take the place of `other`."""
        if other_kind != DIRECTORY:
            if kind == DIRECTORY:
                raise PathNotADirectoryError
            return
        if other in self.ancestors(parent):
            raise DirectoryNotEmptyError
        if kind != DIRECTORY:
            raise PathIsADirectoryError
        if self._directory(other).size:
            raise DirectoryNotEmptyError

    def _new(
        self,
        directory: Inode,
        mode: int,
        uid: int,
        gid: int,
        links: int,
        size: int,
        now: int,
        rdev: int,
    ) -> int:
        """A new inode that is to be in `directory`; its number."""
        if directory.mode & stat.S_ISGID:
            gid = directory.gid
            if mode >> 12 == DIRECTORY:
                mode |= stat.S_ISGID
        number = self.reserve(1)
        self.put(number, Inode(mode, uid, gid, links, size, now, now, now, now, rdev))
        return number

    def _put_name(self, parent: int, name: bytes, number: int, kind: int) -> None:
        self.tree.put(make_key(parent, ENTRY) + name, pack_entry(number, kind))
        self.tree.put(make_name_key(number, NAME, parent) + name, b"")

    def _put_directory(self, number: int, directory: Inode, now: int, entries: int) -> None:
        directory.size += entries
        directory.mtime_ns = directory.ctime_ns = now
        self.put(number, directory)

    def _put_written(self, number: int, inode: Inode) -> None:
        inode.mtime_ns = inode.ctime_ns = time.time_ns()
        self.put(number, inode)

    def _put_value(self, key: bytes, value: bytes | memoryview) -> None:
        if len(value) <= self.tree.inline_limit:
            self.tree.put(key, bytes(value))
        else:
            write_blob(self.io, self.tree, key, [value])

    def _remove_directory(self, parent: int, name: bytes, numbers: list[int]) -> None:
        directory = self._directory(parent)
        self._delete(numbers)
        self.tree.delete(make_key(parent, ENTRY) + name)
        directory.nlink -= 1
        self._put_directory(parent, directory, time.time_ns(), -1)

    def _delete(self, numbers: list[int]) -> None:
        """Delete all items of some inodes; neighbours go together."""
        numbers.sort()
        first = 0
        for at, number in enumerate(numbers, 1):
            first = first or number
            if at == len(numbers) or numbers[at] != number + 1:
                self.tree.delete_range(make_key(first, 0), make_key(number + 1, 0))
                first = 0


def access_is_due(inode: Inode, now_ns: int) -> bool:
    """Whether reading a file at `now_ns` changes its time of access: as mounts have it by default
    (relatime), once after each change and once a day, so that reading is not writing."""
    return (
        inode.atime_ns <= inode.mtime_ns
        or inode.atime_ns <= inode.ctime_ns
        or now_ns - inode.atime_ns >= _ACCESS_DAY_NS
    )


def _powers(mode: int) -> int:
    """The bits of a regular file's mode that let it run as another user or group."""
    return stat.S_ISUID | (stat.S_ISGID if mode & stat.S_IXGRP else 0)


def check_name(name: bytes) -> None:
    """Raise where `name` cannot be that of a directory entry."""
    if len(name) > NAME_MAX:
        raise PathNameTooLongError(reason=f"a name of {len(name)} bytes; allowed are {NAME_MAX}")
    if not sound_name(name):
        raise PathInvalidError(reason=f"{name!r} is not a name")


def _check_target(target: bytes) -> None:
    if not target:
        raise PathNotFoundError(reason="a symbolic link to nowhere")
    if len(target) > SYMLINK_MAX:
        raise PathNameTooLongError(
            reason=f"a target of {len(target)} bytes; allowed are {SYMLINK_MAX}"
        )
    if b"\0" in target:
        raise PathInvalidError(reason="a target with a NUL")


def sound_attribute(name: bytes) -> bool:
    """Whether an attribute can be named so."""
    return 1 <= len(name) <= NAME_MAX and b"\0" not in name


def _check_attribute_name(name: bytes) -> None:
    if not sound_attribute(name):
        raise PathInvalidError(
            reason=f"attribute name {name!r}; allowed are 1 to {NAME_MAX} bytes without NUL"
        )
