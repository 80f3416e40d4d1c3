"""The definition of a sound store, as a program.

Every block is exactly one of: fixed (superblocks), reachable, part of the log, waiting to be freed,
or free. The count of a reachable block is the number of pointers to it. Every block matches the
checksum in its pointer, every node the bounds and the summary that its parent gives.

`check` proves all of that; `scrub` only the checksums, and lets writers go on. Where
metadata has two copies, both read both; what is wrong with one of them scrub repairs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from . import limits
from ._view import EXTENT, INLINE, TREE, node_items
from .bitmap import Bitmap
from .blockio import MAX_DAMAGED, Damaged
from .catalog import Catalog, Root
from .engine import Engine
from .errors import BusyError, CorruptionError
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
from .spacemap import SpaceMap
from .values import RECORD_KEY_SIZE, cell_size, record_number
from .volume import BLOB_KEY

Progress = Callable[[int, int], None]

MAX_SUM = (1 << 64) - 1
"""Sums of lengths are kept in 64 bits; only holes ever go beyond."""


class _Span(NamedTuple):
    """What lies at and below a node."""

    first: bytes
    last: bytes
    longest: int
    """Bytes of the longest value."""
    length: int
    """Bytes of the last value."""
    records: bool | None
    """Whether it belongs to a large value; None where nobody knows any more."""


def check(engine: Engine, progress: Progress | None = None) -> Report:
    """Verify everything; writers wait meanwhile."""
    with engine.still():
        engine.begin_still()
        walk = _Walk(engine, progress)
        walk.whole_store(engine.catalog_tree.ref, engine.space_tree.ref)
        if walk.map is not None:
            walk.compare_space(walk.map)
        if walk.report.ok:
            walk.files()
        walk.log()
        walk.report_damaged(None)
    return walk.report


def scrub(engine: Engine, progress: Progress | None = None) -> Report:
    """Verify the checksum of every block that the newest version and all snapshots reach, and write
    damaged copies anew, if the engine may."""
    while True:
        space_tree = engine.space_tree
        with engine.pinned("scrub") as catalog:
            if engine.space_tree is not space_tree:
                continue  # a checkpoint came between: this one is not kept in place
            walk = _Walk(engine, progress)
            walk.whole_store(catalog.tree.ref, space_tree.ref)
            engine.check_stays_open()  # else what was found is no damage
            walk.report_damaged(engine.mend)
            break
    if engine.log.superblock.metadata_copies == 2:
        # No version keeps the log in place. Who has a transaction open scrubs all but that.
        with contextlib.suppress(BusyError), engine.still():
            engine.begin_still()
            walk.log()
            walk.report_damaged(engine.mend_still)
    return walk.report


class _Walk:
    """Walks every tree once, whoever shares it, and counts the pointers to each block."""

    def __init__(self, engine: Engine, progress: Progress | None) -> None:
        self.engine = engine
        self.io = engine.io
        self.report = Report()
        self.counts: dict[int, int] = {}
        self.proofs: dict[int, bytes] = {}
        """The first pointer to each shared block, with its summary: all are the same."""
        self.spans: dict[int, _Span] = {}
        """What lies below each shared node, to be held against all that refer to it."""
        self.reached = Bitmap(engine.io.space.total, limits.GROUP_BLOCKS)
        self.damaged: list[Damaged] = []
        """Copies of nodes that are not what was written, while the other one is."""
        self.progress = progress
        self.told = 0
        self.map: SpaceMap | None = None
        self.unread: CorruptionError | None = None
        """Why there is no map."""
        try:
            self.map = engine.io.space.map
        except CorruptionError as error:
            self.unread = error
        self.total = (self.map.bitmap.used if self.map is not None else 0) * self.io.block_size

    def fault(self, dataset: str, block: int | None, reason: str) -> None:
        """Put a fault on the report."""
        self.report.faults.append(Fault(dataset, block, reason))

    def may_be_shared(self, block: int) -> bool:
        """Whether there may be more than one pointer to a block."""
        return self.map is None or block in self.map.shared

    def log(self) -> None:
        """The copies of what only the log holds; nobody may write meanwhile."""
        for pointer in self.engine.log.whole_copies(settled=not self.engine.readonly):
            self.damaged += self.io.damaged_copies(pointer, "(log)")

    def report_damaged(self, mend: Callable[[], object] | None) -> None:
        """Put damaged copies on the report, as what was repaired where `mend` does that."""
        found, self.damaged = self.damaged, []
        for at in range(0, len(found) if mend is not None else 0, MAX_DAMAGED):
            # They are what they were found to be: the walk keeps its version in place.
            batch = found[at : at + MAX_DAMAGED]
            self.io.damaged.update((damaged.block, damaged) for damaged in batch)
            if mend is not None:
                mend()
        for damaged in found:
            place = Fault(damaged.label, damaged.block, damaged.reason)
            if mend is not None and not self.io.is_damaged(damaged):
                self.report.repaired.append(place)
                continue
            reason = (
                f"{place.reason}; the other copy, in block {damaged.good}, is good: "
                "'cowfs scrub' repairs it"
            )
            self.report.faults.append(replace(place, reason=reason, repairable=True))

    def whole_store(self, catalog_ref: bytes | None, space_ref: bytes | None) -> None:
        """Every root there is."""
        if space_ref is not None:
            self.tree(space_ref, "(space map)")
        if self.unread is not None and self.report.ok:
            self.fault("(space map)", self.unread.block, self.unread.reason)
        if catalog_ref is None or not self.tree(catalog_ref, "(catalog)"):
            return
        catalog = Catalog(self.engine.catalog_tree.fork())
        catalog.tree.reset(catalog_ref)
        try:
            for label, root in self.roots(catalog):
                if root.ref is not None:
                    self.tree(root.ref, label)
                if root.kind == "volume":
                    self.volume(catalog, root, label)
            for _, stack in catalog.drops():
                self.drop(stack)
            for reason in catalog.faults():
                self.fault("(catalog)", None, reason)
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

    def volume(self, catalog: Catalog, root: Root, label: str) -> None:
        """A volume is one value, no larger than the volume."""
        tree = self.engine.tree_of(root, label)
        with contextlib.suppress(CorruptionError):  # which is on the report already
            for key, kind, value in tree.items_between(what=3):
                if key != BLOB_KEY or cell_size((kind, value)) > root.size:
                    self.fault(label, None, f"an item {key!r} that does not fit the volume")

    def drop(self, stack: list[tuple[bytes, int]]) -> None:
        """A subtree that is being destroyed: what is done already does not count."""
        for ref, done in stack:
            pointer = unpack_pointer(ref)
            if done == 0:
                self.node(ref, "(being destroyed)", records=None)
            elif self.claim(ref, "(being destroyed)"):
                self.damaged += self.io.damaged_copies(pointer, "(being destroyed)")
                level, items = node_items(self.io, self.io.node_size, ref, "(being destroyed)")
                # The child in work, if any, is the next item of the stack.
                for key, kind, value in items[done:]:
                    self.item(level, key, kind, value, "(being destroyed)", records=None)
            else:
                self.fault("(being destroyed)", pointer.block, "is referenced from elsewhere")

    def claim(self, pointer: bytes, label: str) -> bool:
        """Count a pointer; True where it is the first to its block."""
        fields = unpack_pointer(pointer)
        block = fields.block
        seen = self.counts.get(block, 0)
        self.counts[block] = seen + 1
        if seen:
            if self.proofs.get(block, pointer) != pointer:
                self.fault(label, block, "two pointers to it say different things")
            return False
        if self.may_be_shared(block):
            self.proofs[block] = pointer
        if not 1 <= fields.birth <= self.engine.txid:
            self.fault(label, block, f"is of transaction {fields.birth}, of {self.engine.txid}")
        for start, blocks in fields.spans(self.io.block_size):
            if start <= 0 or start + blocks > self.reached.size:
                self.fault(label, start, "lies beyond the end of the image")
                return False
            if self.reached.set(start, blocks) != blocks:
                self.fault(label, start, "overlaps another block in use")
        if self.progress is not None:
            done = self.report.bytes
            if done - self.told >= limits.MIB:
                self.told = done
                self.progress(min(done, self.total), self.total)
        self.report.bytes += fields.occupied(self.io.block_size)
        return True

    def tree(self, ref: bytes, label: str) -> bool:
        """A whole tree, unless another walk was there; False where it is damaged."""
        before = len(self.report.faults)
        self.node(ref, label)
        return len(self.report.faults) == before

    def node(
        self,
        ref: bytes,
        label: str,
        low: bytes = b"",
        high: bytes | None = None,
        *,
        records: bool | None = False,
    ) -> _Span | None:
        """A node and all below it: keys within bounds, and the summary that `ref` gives. `records`
        says whether it is of the tree of a large value (None: either). What it spans; None where it
        is damaged."""
        block = unpack_pointer(ref).block
        if self.claim(ref, label):
            span = self.new_node(ref, label, low, high, records)
            if span is not None and self.may_be_shared(block):
                self.spans[block] = span
        else:
            span = self.spans.get(block)
        if span is not None and (span.first < low or (high is not None and span.last >= high)):
            self.fault(label, block, "has keys outside the bounds that its parent gives")
        if span is not None and None not in (records, span.records) and span.records != records:
            self.fault(label, block, "is of another kind of tree")
        return span

    def new_node(
        self, ref: bytes, label: str, low: bytes, high: bytes | None, records: bool | None
    ) -> _Span | None:
        """A node that was not seen before."""
        fields = unpack_pointer(ref)
        self.damaged += self.io.damaged_copies(fields, label)
        try:
            level, items = node_items(self.io, self.io.node_size, ref, label)
        except CorruptionError as error:
            self.fault(label, fields.block, error.reason)
            return None
        self.report.nodes += 1
        keys = [key for key, _, _ in items]
        below: list[_Span] = []
        longest = length = 0
        stored = fields.occupied(self.io.block_size)
        count = logical = outside = 0
        for i, (key, kind, value) in enumerate(items):
            if level:
                part = unpack_summary(value)
                count += part.items
                logical += part.logical
                stored += part.stored
                outside += part.outside
                above = keys[i + 1] if i + 1 < len(keys) else high
                span = self.node(value, label, key or low, above, records=records)
                if span is not None:
                    below.append(span)
                continue
            count += 1
            length = cell_size((kind, value))
            longest = max(longest, length)
            logical += len(key) + length
            if records and (kind == TREE or len(key) != RECORD_KEY_SIZE):
                self.fault(label, fields.block, f"an item {key!r} that is no record")
                continue
            if kind == EXTENT:
                stored += unpack_pointer(value).blocks(self.io.block_size) * self.io.block_size
            elif kind != INLINE:
                stored += unpack_summary(value).stored
            outside += kind != INLINE
            self.item(0, key, kind, value, label)
        found = Summary(count, logical & MAX_SUM, stored & MAX_SUM, min(outside, 0xFFFFFFFF))
        if found != unpack_summary(ref):
            self.fault(label, fields.block, f"holds {found}, its parent says {unpack_summary(ref)}")
        if not level:
            return _Span(keys[0], keys[-1], longest, length, records)
        if len(below) < len(items):
            return None
        longest = max(span.longest for span in below)
        return _Span(below[0].first, below[-1].last, longest, below[-1].length, records)

    def item(
        self,
        level: int,
        key: bytes,
        kind: int,
        value: bytes,
        label: str,
        *,
        records: bool | None = False,
    ) -> None:
        """What an item points to."""
        if level:
            self.node(value, label, key, records=records)
        elif kind == EXTENT:
            self.extent(value[:POINTER_SIZE], label)
        elif kind != INLINE and value[:REF_SIZE] != NO_REF:
            ref, size, record_size = unpack_blob(value)
            span = self.node(ref, label, records=True)
            if span is not None and (
                span.longest > record_size
                or len(span.last) != RECORD_KEY_SIZE
                or record_number(span.last, label) * record_size + span.length > size
            ):
                self.fault(label, None, f"the value of {key!r} has records that do not fit it")

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
            if head.kind != "fs":
                continue
            try:
                for reason in faults(self.io, self.engine.tree_of(head, head.name)):
                    self.fault(head.name, None, reason)
            except CorruptionError as error:
                self.fault(head.name, error.block, error.reason)

    def compare_space(self, space: SpaceMap) -> None:
        """Counts and the map of blocks against what was reached."""
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
