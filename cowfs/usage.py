"""Whose space it is: what a dataset or snapshot refers to, and what destroying it would free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from ._node import Node
from ._tree import Tree
from ._view import EXTENT, INLINE, memory_items, node_items
from .catalog import Catalog, Root
from .engine import Engine
from .errors import CorruptionError
from .format import NO_REF, REF_SIZE, Summary, unpack_pointer, unpack_summary
from .report import Entry, SpaceReport


def entries(engine: Engine) -> list[Entry]:
    """Every dataset by name, each followed by its snapshots from the oldest on."""
    with engine.pinned_version("list") as version:
        catalog = Catalog(version.catalog.fork())
        counts = engine.committer.shared_counts()
        found = []
        for head in catalog.datasets():
            tree = version.heads.get(head.dataset)
            if tree is None:
                tree = engine.tree_of(head, head.name)
            found.append(_entry(engine, head, head.name, tree, counts))
            for snapshot in catalog.snapshots(head):
                name = f"{head.name}@{snapshot.name}"
                tree = engine.tree_of(snapshot, name)
                found.append(_entry(engine, snapshot, name, tree, counts))
        return found


def _entry(engine: Engine, root: Root, name: str, tree: Tree, counts: Mapping[int, int]) -> Entry:
    found = _summary(engine, tree.top)
    return Entry(
        name=name,
        kind=root.kind,
        created=datetime.fromtimestamp(root.created_ns / 1e9, tz=UTC),
        items=found.items,
        referenced=found.stored,
        exclusive=sum(_walk(engine, tree.top, counts)) if counts else found.stored,
        logical=found.logical,
        stored=found.stored,
        size=root.size,
    )


def _summary(engine: Engine, top: bytes | Node | None) -> Summary:
    """What a tree holds; what is in memory only as if it were stored."""
    if isinstance(top, Node):
        return Summary(**top.summarize(engine.io.block_size, engine.io.space.copies))
    return unpack_summary(NO_REF if top is None else top)


def _walk(
    engine: Engine,
    top: bytes | Node | None,
    shared: Mapping[int, int],
    visited: set[int] | None = None,
) -> Iterator[int]:
    """Bytes of each block reached from a root. Those in `shared` are left out, or with `visited`
    taken once. Costs as many reads as there are such inner nodes; leaves are looked into only where
    values lie outside of them."""
    block_size = engine.io.block_size
    stack = [top] if top is not None else []
    reached = 0
    while stack:
        ref = stack.pop()
        if isinstance(ref, Node):
            level, items = memory_items(ref)
            yield -(-ref.used() // block_size) * block_size * engine.io.space.copies
            stack.extend(_pointers(level, items))
            continue
        pointer = unpack_pointer(ref)
        if pointer.block in shared:
            if visited is None or pointer.block in visited:
                continue
            visited.add(pointer.block)
        reached += 1
        if reached > engine.io.total_blocks:
            raise CorruptionError("", pointer.block, "more references than their counts tell")
        yield pointer.occupied(block_size)
        if len(ref) == REF_SIZE and (pointer.level or unpack_summary(ref).outside):
            stack.extend(_below(engine, ref))


def _below(engine: Engine, ref: bytes, done: int = 0) -> Iterator[bytes]:
    """What a stored node points to, from its item number `done` on."""
    level, items = node_items(engine.io, engine.io.node_size, ref, "")
    return _pointers(level, items[done:])


def _pointers(level: int, items: Iterable[tuple[bytes, int, Any]]) -> Iterator[Any]:
    for _, kind, value in items:
        if level or kind == EXTENT:
            yield value
        elif kind != INLINE and value[:REF_SIZE] != NO_REF:
            yield value[:REF_SIZE]


def _rest(engine: Engine, ref: bytes, done: int) -> Iterator[int]:
    """Bytes of each block that is still to be released of a subtree that is being destroyed."""
    shared = engine.io.space.shared
    if done == 0:
        yield from _walk(engine, ref, shared)
        return
    yield unpack_pointer(ref).occupied(engine.io.block_size)
    for below in _below(engine, ref, done):
        yield from _walk(engine, below, shared)


def space_report(engine: Engine) -> SpaceReport:
    """Where every byte of the image is, as it is stored: of what the last few thousand operations
    did, only the log shows."""
    with engine.pinned("df") as catalog:
        space, block_size = engine.io.space, engine.io.block_size
        live = _live(engine, catalog)
        drops = sum(
            size
            for _, stack in catalog.drops()
            for ref, done in stack
            for size in _rest(engine, ref, done)
        )
        own = sum(length for _, length in engine.own_blocks(pending=False))
        trees = sum(
            unpack_summary(ref).stored
            for ref in (engine.catalog_tree.ref, engine.space_tree.ref)
            if ref is not None
        )
        metadata = own * block_size + trees
        pending = space.pending_blocks * block_size
        used = space.used * block_size
        total = (space.limit or space.total) * block_size
        return SpaceReport(
            total=total,
            live=live,
            pinned=max(0, used - live - drops - pending - metadata),
            reclaimable=drops + pending,
            metadata=metadata,
            free=total - used,
            reserve=min(space.reserve * block_size, total - used),
            limit=space.limit * block_size,
            file_bytes=engine.device.allocated(),
        )


def _live(engine: Engine, catalog: Catalog) -> int:
    refs = [head.ref for head in catalog.datasets() if head.ref is not None]
    if not engine.io.space.shared:
        return sum(unpack_summary(ref).stored for ref in refs)
    visited: set[int] = set()
    shared = engine.io.space.shared
    return sum(size for ref in refs for size in _walk(engine, ref, shared, visited))
