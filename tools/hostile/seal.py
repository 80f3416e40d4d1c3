"""Changing what an image means, with every checksum above the change computed anew.

`Forgery` takes an image apart along its pointers, from the newest commit record down, lets hooks
change single nodes, extents and references on the way back up, and stores everything again in its
place: the parent's pointer proves the changed child, and so on, up to the record and superblock.
All but the node page goes through the functions of `cowfs.format`, so that this follows the format.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cowfs
from cowfs import limits
from cowfs.codec import LZ4, RAW, checksum, compress_lz4, decompress
from cowfs.format import (
    CATALOG_META,
    CHECKSUM_SIZE,
    DATA_LEVEL,
    FLAG_OPERATIONS,
    NO_REF,
    POINTER_SIZE,
    REF_SIZE,
    CommitRecord,
    Delta,
    Pointer,
    Run,
    Superblock,
    pack_drop,
    pack_pointer,
    pack_root,
    unpack_blob,
    unpack_delta,
    unpack_drop,
    unpack_pointer,
    unpack_record,
    unpack_root,
    unpack_summary,
)

from .images import memory_device
from .page import EXTENT, INLINE, TREE, Page, parse

PageHook = Callable[[Page], None]
BytesHook = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Spot:
    """A node or extent that can be damaged."""

    block: int
    level: int
    owner: int
    """Of the tree, as the node says; 0 for an extent."""
    cells: int

    @property
    def is_node(self) -> bool:
        """Whether it is a node, rather than data."""
        return self.level != DATA_LEVEL


class Forgery:
    """An image in the hands of somebody who can compute checksums."""

    def __init__(self, image: bytes) -> None:
        self.data = bytearray(image)
        self.superblock = self._newest_superblock()
        self.block_size = self.superblock.block_size
        self.records = self._chain()
        self._copies = {block: record.copy for block, record in self.records}
        store = cowfs.open_device(memory_device(image), readonly=True)
        self.bitmap = store.io.space.bitmap.copy()
        self.pages: dict[int, list[PageHook]] = {}
        """By block: what to do to the items of a node, whose children are sealed already."""
        self.bytes: dict[int, list[BytesHook]] = {}
        """By block: what to do to the decompressed bytes of a node or extent."""
        self.refs: dict[int, list[BytesHook]] = {}
        """By block: what to do to the reference (or pointer, of an extent) that leads to it."""
        self.bodies: dict[int, BytesHook] = {}
        """By block: what to do to a commit record, but for its checksum."""
        self.spoiled: list[int] = []
        """Offsets of bytes that do not match their checksum in the end."""
        self._found: dict[int, bytes] = {}
        self._sealed: dict[int, bytes] = {}
        self._open: set[int] = set()
        """Blocks whose sealing has begun."""
        self._added: list[tuple[int, int]] = []
        self.counts: dict[int, int] = {}
        """Counts to be noted beside those that are there."""
        self.spots = self._survey()

    # --- taking apart ---------------------------------------------------------------------------

    def _newest_superblock(self) -> Superblock:
        found = [
            superblock
            for slot in range(limits.SUPERBLOCK_SLOTS)
            if (superblock := cowfs.format.unpack_superblock(bytes(self.data[slot * 4096 :])))
        ]
        return max(found, key=lambda superblock: superblock.sequence)

    def _chain(self) -> list[tuple[int, CommitRecord]]:
        chain = []
        block = self.superblock.record_block
        while (record := unpack_record(self.block(block))) is not None:
            chain.append((block, record))
            block = record.next_block
        return chain

    def block(self, number: int, blocks: int = 1) -> bytes:
        """The bytes of some blocks."""
        start = number * self.block_size
        return bytes(self.data[start : start + blocks * self.block_size])

    def load(self, pointer: bytes) -> bytes:
        """What a sound pointer leads to, decompressed."""
        fields = unpack_pointer(pointer)
        start = fields.block * self.block_size
        return decompress(
            fields.compression, bytes(self.data[start : start + fields.stored]), fields.logical
        )

    def page(self, ref: bytes) -> Page:
        """The node that a sound reference leads to."""
        return parse(self.load(ref))

    def _survey(self) -> dict[int, Spot]:
        """Every node and extent, by block."""
        spots: dict[int, Spot] = {}
        todo = [ref for ref in (self.catalog, self.space) if ref != NO_REF]
        while todo:
            pointer = todo.pop()
            fields = unpack_pointer(pointer)
            if fields.block in spots:
                continue
            self._found[fields.block] = pointer
            if fields.level == DATA_LEVEL:
                spots[fields.block] = Spot(fields.block, DATA_LEVEL, 0, 0)
                continue
            page = self.page(pointer)
            spots[fields.block] = Spot(fields.block, page.level, page.owner, len(page.cells))
            for cell in page.cells:
                if page.level or cell.kind == EXTENT:
                    todo.append(cell.value)
                elif cell.kind == TREE and cell.value[:REF_SIZE] != NO_REF:
                    todo.append(cell.value[:REF_SIZE])
                elif page.owner == cowfs.catalog.CATALOG_OWNER and cell.kind == INLINE:
                    todo += _embedded(cell.key, cell.value)
        return spots

    @property
    def catalog(self) -> bytes:
        """Reference of the newest catalog that is stored."""
        return self.records[self._rooted][1].catalog

    @property
    def _rooted(self) -> int:
        """Which record is the last that names trees; those behind it hold operations."""
        with_trees = (not r.flags & FLAG_OPERATIONS for _, r in self.records)
        return max(i for i, names_trees in enumerate(with_trees) if names_trees)

    @property
    def space(self) -> bytes:
        """Reference of the newest space tree."""
        return next(r.space for _, r in reversed(self.records) if r.space != NO_REF)

    # --- adding ---------------------------------------------------------------------------------

    def add(
        self, plain: bytes, level: int, *, compression: int = RAW, logical: int | None = None
    ) -> bytes:
        """Store bytes in free blocks that the newest record calls in use; their pointer."""
        stored = compress_lz4(plain) if compression == LZ4 else plain
        blocks = -(-len(stored) // self.block_size) or 1
        start, length = self.bitmap.search(300, blocks)
        if not length:
            start, length = self.bitmap.size, blocks
            self.bitmap.resize(start + length)
            self.data.extend(bytes(length * self.block_size))
        self.bitmap.set(start, blocks)
        self._added.append((start, blocks))
        at = start * self.block_size
        self.data[at : at + len(stored)] = stored
        size = len(plain) if logical is None else logical
        return pack_pointer(
            start, self.records[-1][1].txid, len(stored), size, compression, level, checksum(stored)
        )

    def add_node(self, page: Page) -> bytes:
        """Store a node; its reference."""
        return self.add(page.pack(), page.level) + self.summary(page, self.block_size)

    def summary(self, page: Page, stored: int) -> bytes:
        """What a reference says of a node that takes `stored` bytes."""
        items = logical = outside = 0
        for cell in page.cells:
            if page.level:
                below = unpack_summary(cell.value.ljust(REF_SIZE, b"\0"))
                items, logical = items + below.items, logical + below.logical
                stored, outside = stored + below.stored, outside + below.outside
                continue
            items += 1
            logical += len(cell.key)
            outside += cell.kind != INLINE
            if cell.kind == INLINE:
                logical += len(cell.value)
            elif cell.kind == EXTENT:
                pointer = unpack_pointer(cell.value.ljust(POINTER_SIZE, b"\0"))
                logical += pointer.logical
                stored += pointer.blocks(self.block_size) * self.block_size
            elif len(cell.value) >= cowfs.format.TREE_CELL_SIZE:
                logical += unpack_blob(cell.value)[1]
                stored += unpack_summary(cell.value).stored
        numbers = (items, logical, stored)
        return b"".join((n & (1 << 64) - 1).to_bytes(8, "little") for n in numbers) + min(
            outside, (1 << 32) - 1
        ).to_bytes(4, "little")

    def count(self, ref: bytes, count: int) -> None:
        """Note how many references there are to a block."""
        if count > 1:
            self.counts[unpack_pointer(ref).block] = count

    # --- putting together -----------------------------------------------------------------------

    def seal(self) -> bytes:
        """The image, with all hooks applied and every checksum right."""
        catalog, space = self._seal(self.catalog), self._seal(self.space)
        for i, (block, record) in enumerate(self.records):
            last = i == self._rooted
            record = replace(
                record,
                space=space if record.space != NO_REF else NO_REF,
                catalog=catalog if last else record.catalog,
            )
            if last and (self._added or self.counts):
                record.delta = self._account(record)
                record.total_blocks = max(record.total_blocks, self.bitmap.size)
            self.records[i] = block, record
        self._chain_up()
        for at in self.spoiled:
            self.data[at] ^= 0xFF
        return bytes(self.data)

    def pointer(self, block: int) -> bytes:
        """The reference or pointer to what is at a block, as it was found."""
        return self._found[block]

    def sealed(self, block: int) -> bytes:
        """The sealed reference or pointer to what is at a block; as it was before, if that is an
        ancestor of what is being sealed (a circle of checksums nobody can compute)."""
        found = self._found[block]
        return found if block in self._open else self._seal(found)

    def _account(self, record: CommitRecord) -> bytes:
        """The delta of the newest record, with what was added."""
        delta = unpack_delta(record.delta)
        segments = list(delta.segments)
        for start, blocks in self._added:
            if segments and sum(segments[-1]) == start:
                segments[-1] = (segments[-1][0], segments[-1][1] + blocks)
            else:
                segments.append((start, blocks))
        return Delta(segments, delta.freed, {**delta.counts, **self.counts}).pack()

    def _chain_up(self) -> None:
        """Write all records, each naming the one before it."""
        previous = self.records[0][1].previous
        for block, record in self.records:
            record = replace(record, previous=previous, runs=[self._run(r) for r in record.runs])
            data = record.pack(self.block_size)
            assert data is not None, "a forged record that does not fit its block"
            if block in self.bodies:
                data = seal_block(self.bodies[block](data[:-CHECKSUM_SIZE]))
            places = {block, self._copies[block]}
            if block == self.superblock.record_block and self.superblock.metadata_copies == 2:
                slot = self.superblock.sequence % limits.SUPERBLOCK_SLOTS
                places.add(limits.RECORD_COPIES_BLOCK + slot)
            for place in places - {0}:
                self.data[place * self.block_size : (place + 1) * self.block_size] = data
            previous = data[-CHECKSUM_SIZE:]

    def _run(self, run: Run) -> Run:
        return run._replace(checksum=checksum(self.block(run.block, run.blocks)))

    def put_superblock(self, data: bytes) -> None:
        """Write both copies of the newest superblock."""
        slot = self.superblock.sequence % limits.SUPERBLOCK_SLOTS
        for place in (0, limits.SECOND_PLACE_BLOCK):
            at = (place + slot) * self.block_size
            self.data[at : at + len(data)] = data

    def _seal(self, ref: bytes) -> bytes:
        """The reference (or pointer) as it is once everything below it is changed and proven."""
        if ref[:POINTER_SIZE] == NO_REF[:POINTER_SIZE]:
            return ref
        fields = unpack_pointer(ref)
        if fields.block in self._sealed:
            return self._sealed[fields.block]
        data = self.load(ref)
        self._open.add(fields.block)
        tail = b""
        if fields.level != DATA_LEVEL:
            page = parse(data)
            for cell in page.cells:
                cell.value = self._seal_value(page, cell.key, cell.kind, cell.value)
            for edit in self.pages.get(fields.block, ()):
                edit(page)
            data = page.pack()
            tail = self.summary(page, fields.occupied(self.block_size))
        for change in self.bytes.get(fields.block, ()):
            data = change(data)
        sealed = self._store(fields, data) + tail
        for change in self.refs.get(fields.block, ()):
            sealed = change(sealed)
        self._sealed[fields.block] = sealed
        return sealed

    def _seal_value(self, page: Page, key: bytes, kind: int, value: bytes) -> bytes:
        if page.level or kind == EXTENT:
            return self._seal(value)
        if kind == TREE:
            return self._seal(value[:REF_SIZE]) + value[REF_SIZE:]
        if page.owner != cowfs.catalog.CATALOG_OWNER or key == CATALOG_META:
            return value
        if key[:1] in (b"D", b"S"):
            kind, created, txid, size, record_size, name, ref = unpack_root(value)
            sealed = self._seal(ref) if ref is not None else None
            return pack_root(kind, created, txid, size, record_size, name, sealed)
        if key[:1] == b"R":
            # Of a node that is destroyed in part, what is done is free, and may be anything.
            stack = unpack_drop(value)
            return pack_drop([(ref if done else self._seal(ref), done) for ref, done in stack])
        return value

    def _store(self, fields: Pointer, data: bytes) -> bytes:
        """Store in the old place what fits there, elsewhere what does not; its pointer."""
        stored = compress_lz4(data) if fields.compression == LZ4 else data
        if len(stored) > fields.blocks(self.block_size) * self.block_size or not stored:
            return self.add(data, fields.level, compression=fields.compression)
        for start, _ in fields.spans(self.block_size):
            at = start * self.block_size
            self.data[at : at + len(stored)] = stored
        return pack_pointer(
            fields.block,
            fields.birth,
            len(stored),
            len(data),
            fields.compression,
            fields.level,
            checksum(stored),
            fields.twin,
        )


def seal_block(body: bytes) -> bytes:
    """A superblock's or record's block, with its checksum."""
    return body + checksum(body)


def _embedded(key: bytes, value: bytes) -> list[bytes]:
    """References in an item of the catalog."""
    if key[:1] in (b"D", b"S"):
        ref = unpack_root(value)[-1]
        return [ref] if ref is not None else []
    if key[:1] == b"R":
        return [ref for ref, done in unpack_drop(value) if not done]
    return []
