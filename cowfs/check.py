"""The definition of a sound store, as a program.

Every block is exactly one of: fixed (superblocks), reachable, part of the log, waiting to be freed,
or free. The count of a reachable block is the number of pointers to it. Every block matches the
checksum in its pointer, every node the bounds and the summary that its parent gives.

`check` proves all of that; `scrub` only the checksums, and lets writers go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from . import limits
from ._bitmap import Bitmap
from ._tree import EXTENT, INLINE, node_items
from .blob import cell_size
from .catalog import Catalog, Root
from .engine import Engine
from .errors import CorruptionError
from .format import (
    DATA_LEVEL,
    NO_REF,
    POINTER_SIZE,
    REF_SIZE,
    Summary,
    unpack_blob,
    unpack_pointer,
    unpack_summary,
)
from .fs.verify import faults
from .report import Fault, Report

Progress = Callable[[int, int], None]


def check(engine: Engine, progress: Progress | None = None) -> Report:
    """Verify everything; writers wait meanwhile."""
    with engine.still():
        walk = _Walk(engine, progress)
        walk.whole_store(engine.catalog_tree.ref, engine.space_tree.ref)
        walk.compare_space()
        if walk.report.ok:
            walk.files()
    return walk.report


def scrub(engine: Engine, progress: Progress | None = None) -> Report:
    """Verify the checksum of every block that the newest version and all snapshots reach."""
    with engine.pinned("scrub") as catalog:
        walk = _Walk(engine, progress)
        walk.whole_store(catalog.tree.ref, None)
    return walk.report


class _Walk:
    """Walks every tree once, whoever shares it, and counts the pointers to each block."""

    def __init__(self, engine: Engine, progress: Progress | None) -> None:
        self.engine = engine
        self.io = engine.io
        self.report = Report()
        self.counts: dict[int, int] = {}
        self.reached = Bitmap(engine.io.space.total, limits.GROUP_BLOCKS)
        self.progress = progress
        self.total = engine.io.space.used * self.io.block_size
        self.told = 0

    def fault(self, dataset: str, block: int | None, reason: str) -> None:
        """Put a fault on the report."""
        self.report.faults.append(Fault(dataset, block, reason))

    def whole_store(self, catalog_ref: bytes | None, space_ref: bytes | None) -> None:
        """Every root there is."""
        if space_ref is not None:
            self.tree(space_ref, "(space map)")
        if catalog_ref is None or not self.tree(catalog_ref, "(catalog)"):
            return
        catalog = Catalog(self.engine.catalog_tree.fork())
        catalog.tree.reset(catalog_ref)
        try:
            for label, root in self.roots(catalog):
                if root.ref is not None:
                    self.tree(root.ref, label)
            for _, stack in catalog.drops():
                self.drop(stack)
        except CorruptionError as error:
            self.fault("(catalog)", error.block, error.reason)
        if self.progress is not None:
            self.progress(self.total, self.total)

    @staticmethod
    def roots(catalog: Catalog) -> Iterator[tuple[str, Root]]:
        """(name, root) of each head and snapshot."""
        for head in catalog.datasets():
            yield head.name, head
            for snapshot in catalog.snapshots(head):
                yield f"{head.name}@{snapshot.name}", snapshot

    def drop(self, stack: list[tuple[bytes, int]]) -> None:
        """A subtree that is being destroyed: what is done already does not count."""
        for ref, done in stack:
            pointer = unpack_pointer(ref)
            if done == 0:
                self.tree(ref, "(being destroyed)")
            elif self.claim(ref, "(being destroyed)"):
                level, items = node_items(self.io, self.io.node_size, ref, "(being destroyed)")
                # The child in work, if any, is the next item of the stack.
                for key, kind, value in items[done:]:
                    self.item(level, key, kind, value, "(being destroyed)")
            else:
                self.fault("(being destroyed)", pointer.block, "is referenced from elsewhere")

    def claim(self, pointer: bytes, label: str) -> bool:
        """Count a pointer; True where it is the first to its block."""
        fields = unpack_pointer(pointer)
        block = fields.block
        seen = self.counts.get(block, 0)
        self.counts[block] = seen + 1
        if seen:
            return False
        blocks = fields.blocks(self.io.block_size)
        if block == 0 or block + blocks > self.reached.size:
            self.fault(label, block, "lies beyond the end of the image")
            return False
        if self.reached.set(block, blocks) != blocks:
            self.fault(label, block, "overlaps another block in use")
        if self.progress is not None:
            done = self.report.bytes
            if done - self.told >= limits.MIB:
                self.told = done
                self.progress(min(done, self.total), self.total)
        self.report.bytes += blocks * self.io.block_size
        return True

    def tree(self, ref: bytes, label: str) -> bool:
        """A whole tree, unless another walk was there; False where it is damaged."""
        before = len(self.report.faults)
        self.node(ref, label, b"", None)
        return len(self.report.faults) == before

    def node(self, ref: bytes, label: str, low: bytes, high: bytes | None) -> None:
        """A node and all below it: keys within bounds, and the summary that `ref` gives."""
        if not self.claim(ref, label):
            return
        fields = unpack_pointer(ref)
        try:
            level, items = node_items(self.io, self.io.node_size, ref, label)
        except CorruptionError as error:
            self.fault(label, fields.block, error.reason)
            return
        self.report.nodes += 1
        keys = [key for key, _, _ in items]
        first = keys[1:] if level else keys
        if first and (first[0] < low or (high is not None and first[-1] >= high)):
            self.fault(label, fields.block, "has keys outside the bounds that its parent gives")
        stored = fields.blocks(self.io.block_size) * self.io.block_size
        count = logical = outside = 0
        for i, (key, kind, value) in enumerate(items):
            if level:
                part = unpack_summary(value)
                count += part.items
                logical += part.logical
                stored += part.stored
                outside += part.outside
                above = keys[i + 1] if i + 1 < len(keys) else high
                self.node(value, label, key or low, above)
                continue
            count += 1
            logical += len(key) + cell_size((kind, value))
            if kind == EXTENT:
                stored += unpack_pointer(value).blocks(self.io.block_size) * self.io.block_size
            elif kind != INLINE:
                stored += unpack_summary(value).stored
            outside += kind != INLINE
            self.item(0, key, kind, value, label)
        found = Summary(count, logical, stored, min(outside, 0xFFFFFFFF))
        if found != unpack_summary(ref):
            self.fault(label, fields.block, f"holds {found}, its parent says {unpack_summary(ref)}")

    def item(self, level: int, key: bytes, kind: int, value: bytes, label: str) -> None:
        """What an item points to."""
        if level:
            self.node(value, label, key, None)
        elif kind == EXTENT:
            self.extent(value[:POINTER_SIZE], label)
        elif kind != INLINE and value[:REF_SIZE] != NO_REF:
            self.node(value[:REF_SIZE], label, b"", None)
            if not unpack_blob(value)[2]:
                self.fault(label, None, f"the value of {key!r} has records of no size")

    def extent(self, pointer: bytes, label: str) -> None:
        """An extent of data."""
        if not self.claim(pointer, label):
            return
        fields = unpack_pointer(pointer)
        if fields.level != DATA_LEVEL:
            self.fault(label, fields.block, "a node where data belongs")
            return
        try:
            self.io.read(pointer, label)
        except CorruptionError as error:
            self.fault(label, fields.block, error.reason)
            return
        self.report.extents += 1

    def files(self) -> None:
        """The fs datasets as they are now: names, links and sizes fit each other."""
        for head in Catalog(self.engine.catalog_tree.fork()).datasets():
            if head.kind == "fs":
                for reason in faults(self.io, self.engine.tree_of(head, head.name)):
                    self.fault(head.name, None, reason)

    def compare_space(self) -> None:
        """Counts and the map of blocks against what was reached."""
        space = self.engine.io.space
        for block, count in self.counts.items():
            if space.shared.get(block, 1) != count:
                self.fault(
                    "(space map)",
                    block,
                    f"has a count of {space.shared.get(block, 1)}, and {count} pointers",
                )
        for block in space.shared:
            if block not in self.counts:
                self.fault("(space map)", block, "has a count, and no pointer to it")
        expected = self.reached.copy()
        for start, length in self.engine.own_blocks():
            if expected.set(start, length) != length:
                self.fault("(space map)", start, "is in use twice")
        for start, length in _runs(expected):
            for at in range(start, start + length):
                if not space.bitmap.test(at):
                    self.fault("(space map)", at, "is in use and marked free")
        for start, length in _runs(space.bitmap):
            missing = length - expected.count(start, start + length)
            if missing:
                leaked = [b for b in range(start, start + length) if not expected.test(b)]
                self.fault(
                    "(space map)", leaked[0], f"{missing} blocks are marked in use, and lost"
                )


def _runs(bitmap: Bitmap) -> Iterator[tuple[int, int]]:
    """(start, length) of each run of set bits."""
    at = bitmap.next_set(0)
    while at < bitmap.size:
        stop = bitmap.next_clear(at)
        yield at, stop - at
        at = bitmap.next_set(stop)
