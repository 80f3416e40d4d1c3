"""What differs between two versions of a file system, by path.

The tree diff gives the items that differ, in the order of inode numbers, so everything about one
file comes together. A number on both sides, born at the same time, is the same file: where its name
differs it was renamed, and nothing is guessed. (The time of birth tells apart what a rollback or a
clone let have the same number.) Costs, in time and memory, what differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import starmap

from .._tree import Tree
from .._view import INLINE, TREE
from ..blockio import BlockIO
from ..errors import CorruptionError, StaleFileError
from ..format import NO_REF, REF_SIZE, unpack_blob, unpack_pointer
from ..report import Change
from ..treediff import Cell, diff_items
from .inode import (
    DATA,
    ENTRY,
    INODE,
    NAME,
    NO_INODE,
    ROOT,
    XATTR,
    Inode,
    split_key,
    split_name_key,
    unpack_inode,
)
from .nodes import Inodes

Name = tuple[int, bytes]
"""Parent directory and name of a link."""


@dataclass(slots=True)
class _File:
    """What differs about one inode number."""

    inodes: tuple[Cell | None, Cell | None] | None = None
    gone: list[Name] = field(default_factory=list)
    come: list[Name] = field(default_factory=list)
    values: list[tuple[Cell | None, Cell | None]] = field(default_factory=list)
    """Content and attributes that are stored differently."""
    entries: bool = False
    """Whether entries differ."""


_ORDER = "-R+M"
"""Of changes at one path."""


class _Paths:
    """Paths in one version; those of directories are kept, since many changes share them."""

    def __init__(self, nodes: Inodes) -> None:
        self.nodes = nodes
        self._known: dict[int, bytes] = {ROOT: b""}

    def path(self, name: Name) -> bytes:
        """The path of a link."""
        missing = []
        for parent in self.nodes.ancestors(name[0]):
            if parent in self._known:
                break
            missing.append(parent)
        for directory in reversed(missing):
            parent, own = next(self.nodes.names(directory))
            self._known[directory] = self._known[parent] + b"/" + own
        return self._known[name[0]] + b"/" + name[1]


class _Walk:
    """Gathers the changes, file by file."""

    def __init__(self, io: BlockIO, old: Tree, new: Tree) -> None:
        self.io = io
        self.before = _Paths(Inodes(io, old))
        self.after = _Paths(Inodes(io, new))
        self.changes: list[Change] = []
        self.removed: dict[bytes, int] = {}
        self.added: dict[bytes, int] = {}

    def file(self, number: int, file: _File) -> None:
        """Note what became of one file."""
        old, new = self._inodes(number, file)
        if old is not None and new is not None:
            if number == ROOT or old.btime_ns == new.btime_ns:
                self._same(number, file, old, new)
                return
            file.gone = list(self.before.nodes.names(number))
            file.come = list(self.after.nodes.names(number))
        if old is not None:
            self.removed.update((self.before.path(name), old.type) for name in file.gone)
        if new is not None:
            self.added.update((self.after.path(name), new.type) for name in file.come)

    def _inodes(self, number: int, file: _File) -> tuple[Inode | None, Inode | None]:
        if file.inodes is None:
            inode = self.after.nodes.find(number)
            return inode, inode
        old, new = (None if cell is None else unpack_inode(cell[1]) for cell in file.inodes)
        if number == ROOT:
            return old or self.before.nodes.find(ROOT), new or self.after.nodes.find(ROOT)
        return old, new

    def _same(self, number: int, file: _File, old: Inode, new: Inode) -> None:
        """A file of both sides: its names, and whether it was modified."""
        renamed = min(len(file.gone), len(file.come))
        for before, after in zip(file.gone, file.come, strict=False):
            self.changes.append(Change("R", self.before.path(before), self.after.path(after)))
        self.removed.update((self.before.path(name), old.type) for name in file.gone[renamed:])
        self.added.update((self.after.path(name), new.type) for name in file.come[renamed:])
        if (
            not file.entries
            and _state(old) == _state(new)
            and not any(starmap(self._differ, file.values))
        ):
            return
        if number == ROOT:
            self.changes.append(Change("M", b"/"))
            return
        fresh = set(file.come[renamed:])
        for name in self.after.nodes.names(number):
            if name not in fresh:
                self.changes.append(Change("M", self.after.path(name)))

    def _differ(self, old: Cell | None, new: Cell | None) -> bool:
        """Whether two values differ, not only the places where they are stored."""
        if old is None or new is None or old[0] != new[0]:
            return True
        if old[0] == TREE:
            return self._records(old[1], new[1])
        return _proof(old) != _proof(new)

    def _records(self, old: bytes, new: bytes) -> bool:
        if old[REF_SIZE:] != new[REF_SIZE:]:
            return True
        return any(
            before is None or after is None or _proof(before) != _proof(after)
            for _, before, after in diff_items(
                self.io, self._record_tree(self.before, old), self._record_tree(self.after, new)
            )
        )

    def _record_tree(self, side: _Paths, cell: bytes) -> Tree:
        ref = unpack_blob(cell)[0]
        tree = side.nodes.tree
        known = ref if ref != NO_REF else None
        return Tree(self.io, self.io.cache, self.io.node_size, tree.owner, known, None, tree.label)

    def result(self) -> list[Change]:
        """All changes, sorted by path."""
        for path, kind in self.added.items():
            if self.removed.get(path) == kind:
                del self.removed[path]
                self.changes.append(Change("M", path))
            else:
                self.changes.append(Change("+", path))
        self.changes += [Change("-", path) for path in self.removed]
        self.changes.sort(key=lambda change: (change.path, _ORDER.index(change.op)))
        return self.changes


def diff_fs(
    io: BlockIO, old: Tree, new: Tree, visited: list[int] | None = None
) -> Iterator[Change]:
    """Changes that lead from `old` to `new`, sorted by path (of a rename: the old one).

    "+" and "-" are names that came and went, of new, old and lasting files; "R" a file with another
    name instead of an old one; "M" other content, mode, owner, time of change or attributes, and of
    a directory other entries, for each name. A name that another file of the same type took over
    is "M" too. Times of access do not count. `visited` is as for diff_items.
    """
    walk = _Walk(io, old, new)
    number, file = NO_INODE, _File()
    try:
        for key, before, after in diff_items(io, old, new, visited):
            owner, kind, _ = split_key(key)
            if owner != number:
                if number != NO_INODE:
                    walk.file(number, file)
                number, file = owner, _File()
            if kind == INODE:
                file.inodes = before, after
            elif kind in (DATA, XATTR):
                file.values.append((before, after))
            elif kind == NAME:
                (file.come if before is None else file.gone).append(split_name_key(key))
            elif kind == ENTRY:
                file.entries = True
        if number != NO_INODE:
            walk.file(number, file)
    except StaleFileError:
        raise CorruptionError(new.label, None, "a directory without a name") from None
    except ValueError as error:
        raise CorruptionError(new.label, None, str(error)) from None
    yield from walk.result()


def _state(inode: Inode) -> tuple[int, ...]:
    """What makes a file a modified one. Links and renames change `nlink` and `ctime`, too."""
    return inode.mode, inode.uid, inode.gid, inode.size, inode.mtime_ns, inode.rdev, inode.flags


def _proof(cell: Cell) -> bytes | tuple[int, int, bytes]:
    """What is equal for equal content: the bytes, or their lengths and checksum."""
    kind, raw = cell
    if kind == INLINE:
        return raw
    pointer = unpack_pointer(raw)
    return pointer.compression, pointer.logical, pointer.checksum
