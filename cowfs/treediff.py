"""Walking two versions of a tree together and skipping what they share.

Equal pointers lead to equal contents, so the cost is that of the differences. The walk keeps, for
each side, a stack of subtrees still to come, and opens one only where its keys could meet something
of the other side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ._node import Node
from ._tree import Tree
from ._view import memory_items, node_items
from .blockio import BlockIO
from .errors import CorruptionError
from .format import POINTER_SIZE, unpack_pointer

Cell = tuple[int, bytes]
_Item = tuple[bytes, int, Any]
_Entry = tuple[bytes, int, Any, bool]
"""(key or lower bound, kind, value or reference, whether it is a subtree). A subtree that is in
memory only has its root in place of a reference."""


class _Side:
    """What is left of one tree, in key order: subtrees by their lower bound, and single items."""

    def __init__(self, io: BlockIO, tree: Tree) -> None:
        self._io = io
        self._label = tree.label
        self._stack: list[_Entry] = []
        self.nodes = 0
        if tree.top is not None:
            self._stack.append((b"", 0, tree.top, True))

    def __bool__(self) -> bool:
        return bool(self._stack)

    @property
    def top(self) -> _Entry:
        """What comes next."""
        return self._stack[-1]

    def pop(self) -> tuple[bytes, Cell]:
        """Take the item on top."""
        key, kind, value, _ = self._stack.pop()
        return key, (kind, value)

    def skip(self) -> None:
        """Pass over what is on top."""
        self._stack.pop()

    def open(self) -> None:
        """Replace the subtree on top by its children or items."""
        self._push(*self._opened())

    def open_with(self, other: _Side) -> None:
        """Open the subtrees on top of both sides, and leave out at once what both of them hold:
        after a small change that is nearly all, so it is compared without a step for each."""
        bound, subtree, mine = self._opened()
        other_bound, other_subtree, theirs = other._opened()
        if len(mine) == len(theirs):
            changed = [pair for pair in zip(mine, theirs, strict=True) if pair[0] != pair[1]]
            mine, theirs = [pair[0] for pair in changed], [pair[1] for pair in changed]
        else:
            both = set(mine).intersection(theirs)
            mine = [item for item in mine if item not in both]
            theirs = [item for item in theirs if item not in both]
        self._push(bound, subtree, mine)
        other._push(other_bound, other_subtree, theirs)

    def _opened(self) -> tuple[bytes, bool, Sequence[_Item]]:
        """Lower bound of the subtree on top, whether more subtrees are in it, and what is in it."""
        bound, _, root, _ = self._stack.pop()
        items: Sequence[_Item]
        if isinstance(root, Node):
            level, items = memory_items(root)
        else:
            level, items = node_items(self._io, self._io.node_size, root, self._label)
            self.nodes += 1
        subtree = level > 0
        first, last = items[min(subtree, len(items) - 1)][0], items[-1][0]
        # What is sound is walked once: keys go up, whoever refers to a node from how many places.
        if (first and first < bound) or (self._stack and last >= self._stack[-1][0]):
            block = root.block if isinstance(root, Node) else unpack_pointer(root).block
            raise CorruptionError(self._label, block, "keys outside its parent's bounds")
        return bound, subtree, items

    def _push(self, bound: bytes, subtree: bool, items: Sequence[_Item]) -> None:
        self._stack.extend(
            (key or bound, kind, value, subtree) for key, kind, value in reversed(items)
        )


def _same(a: bytes | Node, b: bytes | Node) -> bool:
    """Whether two subtrees are one and the same."""
    if isinstance(a, Node) or isinstance(b, Node):
        return a is b
    return a[:POINTER_SIZE] == b[:POINTER_SIZE]


def _level(subtree: bytes | Node) -> int:
    return subtree.level if isinstance(subtree, Node) else unpack_pointer(subtree).level


def diff_items(
    io: BlockIO, old: Tree, new: Tree, visited: list[int] | None = None
) -> Iterator[tuple[bytes, Cell | None, Cell | None]]:
    """(key, old cell or None, new cell or None) of every key that differs, in key order.

    Cells are (kind, value as stored); those of large values are compared by what they point to.
    The number of nodes read is added to `visited`, where it is given.
    """
    left, right = _Side(io, old), _Side(io, new)
    while left or right:
        if not left or not right:
            side = left or right
            if side.top[3]:
                side.open()
            else:
                key, cell = side.pop()
                yield (key, cell, None) if side is left else (key, None, cell)
            continue
        a, b = left.top, right.top
        if a[3] and b[3]:
            if _same(a[2], b[2]):
                left.skip()
                right.skip()
                continue
            level_a, level_b = _level(a[2]), _level(b[2])
            if level_a == level_b:
                left.open_with(right)
            elif level_a > level_b:
                left.open()
            else:
                right.open()
        elif a[3]:
            # An item of the right side: the subtree matters only if it may hold smaller keys.
            if b[0] < a[0]:
                key, cell = right.pop()
                yield key, None, cell
            else:
                left.open()
        elif b[3]:
            if a[0] < b[0]:
                key, cell = left.pop()
                yield key, cell, None
            else:
                right.open()
        elif a[0] < b[0]:
            key, cell = left.pop()
            yield key, cell, None
        elif b[0] < a[0]:
            key, cell = right.pop()
            yield key, None, cell
        else:
            key, before = left.pop()
            _, after = right.pop()
            if before != after:
                yield key, before, after
    if visited is not None:
        visited.append(left.nodes + right.nodes)
