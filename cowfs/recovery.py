"""From the log to a store in memory: the roots, the operations that no stored tree shows yet, and
the space map, which is a checkpoint's and what each record changed since.

Nothing here writes. `log.follow` decides which records count, and hands them over in order.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

from . import limits
from ._ledger import Ledger
from ._node import Cache
from ._tree import Tree
from .bitmap import Bitmap
from .blockio import BlockIO
from .catalog import CATALOG_OWNER, LARGEST, SPACE_OWNER
from .codec import Encoder
from .device import Device
from .errors import CorruptionError, FormatError
from .format import (
    FLAG_CHECKPOINT,
    FLAG_OPERATIONS,
    NO_REF,
    OPERATION_PUT,
    OPERATION_RANGE,
    CommitRecord,
    Superblock,
    group_number,
    unpack_delta,
    unpack_operations,
)
from .space import Space
from .spacemap import SpaceMap
from .values import resolver

_LABEL = "(commit record)"


class StoredMap:
    """The space map, to be read when it is needed: as a checkpoint stored it in the space tree with
    root `ref`, for an image of `total` blocks, and what the records since say."""

    def __init__(self, ref: bytes | None, total: int) -> None:
        self.ref = ref
        self.total = total
        self._records: list[CommitRecord] = []

    def add(self, record: CommitRecord) -> None:
        """The next record."""
        self._records.append(record)

    def reader(self, io: BlockIO) -> Callable[[], SpaceMap]:
        """What reads the map, by way of `io`, whose space it is for: which must not keep what is
        above it alive."""
        known = weakref.ref(io)

        def read() -> SpaceMap:
            found = known()
            assert found is not None
            return self._read(found)

        return read

    def _read(self, io: BlockIO) -> SpaceMap:
        """The map as of the last record; CorruptionError where it is damaged."""
        found = SpaceMap(self.total)
        tree = Tree(io, io.cache, io.node_size, SPACE_OWNER, self.ref, None, "(space map)")
        tree.resolve = resolver(io, "(space map)", LARGEST[SPACE_OWNER])
        for key, value in tree.items_between():
            try:
                group = group_number(key)
            except ValueError as error:
                raise CorruptionError("", None, f"space map: {error}") from None
            found.load_group(group, value)
        for start, length in io.space.fixed():
            found.bitmap.set(start, length)
        found.bitmap.clean()
        for record in self._records:
            try:
                _apply(found, record, io)
            except ValueError as error:
                raise _damaged(record, str(error)) from None
        return found


def _packed(record: CommitRecord, io: BlockIO) -> bytes:
    """What a record says of its transaction: a delta, or operations."""
    overflow = record.overflows() if record.overflow else ()
    return record.delta or b"".join(io.read_copies(pointer, _LABEL) for pointer in overflow)


def _apply(found: SpaceMap, record: CommitRecord, io: BlockIO) -> None:
    """Do to the map what a record did; ValueError where it cannot be."""
    bitmap = found.bitmap
    if record.total_blocks > bitmap.size:
        bitmap.resize(record.total_blocks)
    if not record.flags & FLAG_OPERATIONS:
        found.apply_delta(unpack_delta(_packed(record, io)))
    for pointer in record.overflows() if record.overflow else ():
        first, *second = pointer.spans(io.block_size)
        bitmap.set(*first)
        for start, blocks in second:
            if bitmap.set(start, blocks) < blocks:
                raise ValueError(f"a second copy is in block {start}, in use")
    _reserve(bitmap, record.next_block)
    if record.copies:
        # In use is the copy of a record, that of the checkpoint's by what it says itself.
        if record.copy and not bitmap.test(record.copy):
            raise ValueError(f"a second copy is in block {record.copy}, which is free")
        if record.next_copy:
            _reserve(bitmap, record.next_copy)


def _reserve(bitmap: Bitmap, block: int) -> None:
    if not bitmap.set(block, 1):
        raise ValueError(f"the next record is to be in block {block}, in use")


class Recovery:
    """What the records of the log say: the roots, and how to read the space map."""

    def __init__(self, device: Device, superblock: Superblock) -> None:
        self.device = device
        self.superblock = superblock
        self.catalog_ref: bytes | None = None
        self.stored_map = StoredMap(None, superblock.total_blocks)
        self.operations: list[bytes] = []
        """What transactions did since trees were stored last, in order."""
        self._operation_bytes = 0
        self._check_size(superblock.total_blocks)
        self.space = Space(
            device,
            superblock.block_size,
            superblock.total_blocks,
            superblock.limit_blocks,
            superblock.metadata_copies,
        )
        encoder = Encoder(superblock.compression, superblock.block_size)
        self.io = BlockIO(
            device, self.space, Cache(limits.MIN_CACHE), encoder, superblock.node_size
        )

    def _check_size(self, total: int) -> None:
        """What is not much longer than its file may be told of; the map of blocks takes memory."""
        if total < limits.MIN_IMAGE_BLOCKS:
            raise CorruptionError("", None, f"an image of {total} blocks")
        block_size = self.superblock.block_size
        if total > self.device.size() // block_size + limits.MAX_GROWTH:
            raise FormatError(
                f"{self.device.name}: cut short: {self.device.size():,} bytes, of "
                f"{total * block_size:,} that it once had"
            )

    def visit(self, record: CommitRecord) -> None:
        """Take over what a record says."""
        total = record.total_blocks
        self._check_size(total)
        if record.flags & FLAG_CHECKPOINT:
            self.stored_map = StoredMap(record.space if record.space != NO_REF else None, total)
        else:
            total = max(total, self.space.total)
        self.space.read_later(total, self.stored_map.reader(self.io))
        self.stored_map.add(record)
        self._check_places(record)
        if record.flags & FLAG_OPERATIONS:
            self._note(record)
        else:
            self._check_roots(record)
            self.operations, self._operation_bytes = [], 0
            self.catalog_ref = record.catalog if record.catalog != NO_REF else None

    def _check_places(self, record: CommitRecord) -> None:
        """What is written next goes to blocks that may be free; whether they are, the map tells."""
        reserved, places = [record.next_block], [record.next_block]
        if record.copies:
            if self.space.copies == 1:
                raise _damaged(record, "second copies, in an image that has one of everything")
            reserved += [record.next_copy] if record.next_copy else []
            places += [record.next_copy, record.copy]
        for block in places:
            if block >= self.space.total:
                raise _damaged(record, f"block {block} is beyond the end of the image")
        for block in reserved:
            if any(start <= block < start + length for start, length in self.space.fixed()):
                raise _damaged(record, f"the next record is to be in block {block}, in use")

    def _check_roots(self, record: CommitRecord) -> None:
        """No node refers to the roots of these two trees, and so none has proven the references."""
        io = self.io
        tree = Tree(io, io.cache, io.node_size, CATALOG_OWNER, None, None, _LABEL)
        for ref in (record.catalog, record.space):
            if ref != NO_REF:
                tree.check_ref(ref)

    def _note(self, record: CommitRecord) -> None:
        packed = _packed(record, self.io)
        self.operations.append(packed)
        self._operation_bytes += len(packed)
        if self._operation_bytes > limits.UNSTORED_BYTES:
            raise _damaged(record, "more operations than a log may hold")


def _damaged(record: CommitRecord, reason: str) -> CorruptionError:
    return CorruptionError("", None, f"commit record {record.txid}: {reason}")


def replay(
    packed: list[bytes], ledger: Ledger, open_tree: Callable[[int, Ledger], Tree]
) -> dict[int, Tree]:
    """Do again, in memory, what only the log holds; the trees as they are then, by their ids.

    What becomes of counts and free space is in `ledger`. Raises CorruptionError.
    """
    trees: dict[int, Tree] = {}
    try:
        for part in packed:
            for number, operation, key, value in unpack_operations(part):
                tree = trees.get(number)
                if tree is None:
                    tree = trees[number] = open_tree(number, ledger)
                if operation == OPERATION_RANGE:
                    tree.delete_range(key or None, value or None)
                elif not 1 <= len(key) <= limits.MAX_KEY or len(value) > tree.inline_limit:
                    raise ValueError("a key or value of an impossible length")
                elif operation == OPERATION_PUT:
                    tree.put(key, value)
                else:
                    tree.delete(key)
    except ValueError as error:
        raise CorruptionError("", None, f"operations in the log: {error}") from None
    return trees
