"""Adding whole trees of files: what `nodes.py` does, with each directory's inode written once.

Whoever copies a tree opens a directory here, adds what belongs into it, and closes it. Entries are
looked up only in directories that were there before. An error in the midst of it leaves what was
added so far; the transaction around it is to be abandoned then.

Items of a new file are put in the order of their keys, so that leaves fill up and are left behind:
`claim`, `put_inode`, attributes, content, `put_name`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from ..errors import (
    PathIsADirectoryError,
    PathNotADirectoryError,
    PathNotFoundError,
)
from .inode import (
    DATA,
    DIRECTORY,
    ENTRY,
    NAME,
    NO_INODE,
    XATTR,
    Inode,
    make_key,
    make_name_key,
    pack_entry,
)
from .nodes import Inodes, Keep
from .paths import Place

_NUMBERS = 1024
"""Inode numbers reserved at a time, at most: ones that are not used are lost, of 2**64."""


@dataclass(slots=True)
class Directory:
    """A directory that is being added to."""

    number: int
    inode: Inode
    """As it will be, once the directory is closed."""
    fresh: bool
    """Whether it is new, so that no entry can be in the way."""


class Bulk:
    """Adds files to a tree, directory by directory."""

    def __init__(self, nodes: Inodes, keep: Keep) -> None:
        self.nodes = nodes
        self.tree = nodes.tree
        self.now = time.time_ns()
        self._keep = keep
        self._next = self._end = 0
        self._reserve = 8

    # --- directories ----------------------------------------------------------------------------

    def open_parent(self, place: Place) -> Directory:
        """The directory that a file is to be added to, as it is."""
        inode = self.nodes.get(place.parent)
        if not inode.is_directory:
            raise PathNotADirectoryError
        return Directory(place.parent, inode, fresh=False)

    def close_parent(self, directory: Directory) -> None:
        """Write a directory to which something was added now."""
        directory.inode.mtime_ns = directory.inode.ctime_ns = self.now
        self.close(directory)

    def close(self, directory: Directory) -> None:
        """Write a directory's inode: nothing more will be added."""
        self.nodes.put(directory.number, directory.inode)

    def open_at(self, place: Place, inode: Inode) -> Directory:
        """A directory at a place: a new one, or one that is there and becomes as `inode` says."""
        if place.number == NO_INODE:
            parent = self.open_parent(place)
            directory = self.open_in(parent, place.name, inode)
            self.close_parent(parent)
            return directory
        if place.kind != DIRECTORY:
            raise PathNotADirectoryError
        return self._open_old(place.number, inode)

    def open_in(self, parent: Directory, name: bytes, inode: Inode) -> Directory:
        """A directory in another: a new one, or one that is there and becomes as `inode` says."""
        if not parent.fresh:
            found = self.nodes.lookup(parent.number, name)
            if found is not None:
                if found[1] != DIRECTORY:
                    raise PathNotADirectoryError(self.nodes.path(parent.number, name))
                return self._open_old(found[0], inode)
        number = self._add_entry(parent, name, DIRECTORY)
        parent.inode.nlink += 1
        inode.nlink, inode.size = 2, 0
        self.nodes.put(number, inode)
        self.put_name(number, parent, name)
        return Directory(number, inode, fresh=True)

    def _open_old(self, number: int, inode: Inode) -> Directory:
        old = self.nodes.get(number)
        inode.nlink, inode.size, inode.btime_ns = old.nlink, old.size, old.btime_ns
        self.tree.delete_range(make_key(number, XATTR), make_key(number, XATTR + 1))
        return Directory(number, inode, fresh=False)

    # --- everything else ------------------------------------------------------------------------

    def claim(self, parent: Directory, name: bytes, inode: Inode) -> int:
        """The number for a file that is to be `name`, of the type that `inode` says.

        A file of that type and of one name keeps its number, and loses what is in it; what else is
        in the way goes. Sets `nlink`, and the time of birth of an old file.
        """
        kind = inode.type
        inode.nlink = 1
        if not parent.fresh:
            found = self.nodes.lookup(parent.number, name)
            if found is not None:
                number, old_kind = found
                if old_kind == DIRECTORY:
                    raise PathIsADirectoryError(self.nodes.path(parent.number, name))
                old = self.nodes.get(number)
                if old_kind == kind and old.nlink == 1:
                    inode.btime_ns = old.btime_ns
                    self.tree.delete_range(make_key(number, XATTR), make_key(number, XATTR + 1))
                    self.tree.delete(make_key(number, DATA))
                    return number
                self._drop(number, parent, name)
        return self._add_entry(parent, name, kind)

    def put_inode(self, number: int, inode: Inode) -> None:
        """Store the inode of a claimed number."""
        self.nodes.put(number, inode)

    def put_name(self, number: int, parent: Directory, name: bytes) -> None:
        """Store the way back from a claimed number."""
        self.tree.put(make_name_key(number, NAME, parent.number) + name, b"")

    def link(self, parent: Directory, name: bytes, number: int) -> None:
        """Another name for a file that was added before."""
        if not parent.fresh:
            found = self.nodes.lookup(parent.number, name)
            if found is not None:
                if found[0] == number:
                    return
                if found[1] == DIRECTORY:
                    raise PathIsADirectoryError(self.nodes.path(parent.number, name))
                self._drop(found[0], parent, name)
        inode = self.nodes.get(number)
        inode.nlink += 1
        self.put_inode(number, inode)
        self.tree.put(make_key(parent.number, ENTRY) + name, pack_entry(number, inode.type))
        parent.inode.size += 1
        self.put_name(number, parent, name)

    # --- inside ---------------------------------------------------------------------------------

    def _drop(self, number: int, parent: Directory, name: bytes) -> None:
        self.nodes.drop_name(number, parent.number, name, self._keep)
        parent.inode.size -= 1

    def _add_entry(self, parent: Directory, name: bytes, kind: int) -> int:
        if self._next == self._end:
            self._next = self.nodes.reserve(self._reserve)
            self._end = self._next + self._reserve
            self._reserve = min(2 * self._reserve, _NUMBERS)
        number = self._next
        self._next += 1
        self.tree.put(make_key(parent.number, ENTRY) + name, pack_entry(number, kind))
        parent.inode.size += 1
        return number


def check_file_place(place: Place) -> None:
    """Raise where a place cannot be that of something else than a directory."""
    if place.kind == DIRECTORY:
        raise PathIsADirectoryError
    if place.slash:
        raise PathNotADirectoryError if place.number else PathNotFoundError
