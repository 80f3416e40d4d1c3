"""What differs between two versions: by key for kv, by path for fs, by byte range for volumes."""

from __future__ import annotations

from collections.abc import Iterator

from ._tree import Tree
from ._view import INLINE, TREE
from .blockio import BlockIO
from .engine import Engine
from .errors import KindError
from .format import NO_REF, unpack_blob
from .report import Change
from .treediff import diff_items
from .values import cell_size, record_number

_EMPTY: tuple[int, bytes] = (INLINE, b"")


def diff(engine: Engine, old: str, new: str) -> Iterator[Change]:
    """Changes that lead from `old` to `new` (each DATASET or DATASET@NAME, of one kind), in order.

    Costs what differs: equal subtrees are never read. Raises NotFoundError, KindError.
    """
    old_root, old_session = engine.view_root(old)
    try:
        new_root, new_session = engine.view_root(new)
    except BaseException:
        old_session.close()
        raise
    if old_root.kind != new_root.kind:
        old_session.close()
        new_session.close()
        raise KindError(
            f"{old} is of kind {old_root.kind} and {new} of kind {new_root.kind}; "
            "a diff needs two of one kind"
        )
    from .fs.diff import diff_fs

    walk = {"kv": diff_kv, "fs": diff_fs, "volume": diff_volume}[old_root.kind]

    def changes() -> Iterator[Change]:
        with old_session.reading() as before, new_session.reading() as after:
            try:
                yield from walk(engine.io, before, after)
            finally:
                old_session.close()
                new_session.close()

    return changes()


def diff_kv(io: BlockIO, old: Tree, new: Tree) -> Iterator[Change]:
    """Keys added, removed and modified."""
    for key, before, after in diff_items(io, old, new):
        if before is None:
            yield Change("+", key)
        elif after is None:
            yield Change("-", key)
        elif before[0] == after[0] == INLINE or _value(old, before) != _value(new, after):
            yield Change("M", key)


def _value(tree: Tree, cell: tuple[int, bytes]) -> bytes:
    value: bytes = cell[1] if cell[0] == INLINE else tree.resolve(*cell)
    return value


def diff_volume(io: BlockIO, old: Tree, new: Tree) -> Iterator[Change]:
    """Byte ranges that differ, in whole records, neighbours joined."""
    for _, before, after in diff_items(io, old, new):
        start = stop = -1
        for begin, end in _ranges(io, old, before or _EMPTY, after or _EMPTY):
            if begin > stop:
                if stop > start:
                    yield Change("M", b"", None, start, stop)
                start = begin
            stop = max(stop, end)
        if stop > start:
            yield Change("M", b"", None, start, stop)


def _ranges(
    io: BlockIO, tree: Tree, before: tuple[int, bytes], after: tuple[int, bytes]
) -> Iterator[tuple[int, int]]:
    """Ranges that may differ, by where they begin; what is no tree of records counts as a whole."""
    trees, record_size = [], 0
    for kind, value in (before, after):
        ref = NO_REF
        if kind == TREE:
            ref, _, record_size = unpack_blob(value)
        else:
            yield 0, cell_size((kind, value))
        known = ref if ref != NO_REF else None
        trees.append(Tree(io, io.cache, io.node_size, tree.owner, known, None, tree.label))
    for key, _, _ in diff_items(io, trees[0], trees[1]):
        number = record_number(key, tree.label)
        yield number * record_size, (number + 1) * record_size
