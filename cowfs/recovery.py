"""From the log to a store in memory: a checkpoint's space map, what each record changed since, and
the operations that no stored tree shows yet.

Nothing here writes. `log.follow` decides which records count, and hands them over in order.
"""

from __future__ import annotations

from collections.abc import Callable

from . import limits
from ._ledger import Ledger
from ._node import Cache
from ._tree import Tree
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
from .values import resolver


class Recovery:
    """What the records of the log say, one after the other: the roots, and the space map (`io`)."""

    def __init__(self, device: Device, superblock: Superblock) -> None:
        self.device = device
        self.superblock = superblock
        self.catalog_ref: bytes | None = None
        self.space_ref: bytes | None = None
        self.operations: list[bytes] = []
        """What transactions did since trees were stored last, in order."""
        self._operation_bytes = 0
        self._start(superblock.total_blocks)

    def _start(self, total: int) -> None:
        superblock = self.superblock
        if total < limits.MIN_IMAGE_BLOCKS:
            raise CorruptionError("", None, f"an image of {total} blocks")
        self._check_size(total)
        space = Space(
            self.device,
            superblock.block_size,
            total,
            superblock.limit_blocks,
            superblock.metadata_copies,
        )
        encoder = Encoder(superblock.compression, superblock.block_size)
        self.io = BlockIO(
            self.device, space, Cache(limits.MIN_CACHE), encoder, superblock.node_size
        )

    def _check_size(self, total: int) -> None:
        """The map of blocks takes memory: an image is not much longer than its file."""
        block_size = self.superblock.block_size
        if total > self.device.size() // block_size + limits.MAX_GROWTH:
            raise FormatError(
                f"{self.device.name}: cut short: {self.device.size():,} bytes, of "
                f"{total * block_size:,} that it once had"
            )

    def visit(self, record: CommitRecord) -> None:
        """Take over what a record says."""
        label = "(commit record)"
        if record.flags & FLAG_CHECKPOINT:
            self._start(record.total_blocks)
            self.space_ref = record.space if record.space != NO_REF else None
            tree = Tree(
                self.io, self.io.cache, self.io.node_size, SPACE_OWNER, self.space_ref, None, label
            )
            tree.resolve = resolver(self.io, "(space map)", LARGEST[SPACE_OWNER])
            for key, value in tree.items_between():
                try:
                    group = group_number(key)
                except ValueError as error:
                    raise CorruptionError("", None, f"space map: {error}") from None
                self.io.space.load_group(group, value)
            self.io.space.reserve_fixed()
            self.io.space.bitmap.clean()
        self._check_size(record.total_blocks)
        if record.total_blocks > self.io.space.total:
            self.io.space.bitmap.resize(record.total_blocks)
        overflow = record.overflows() if record.overflow else []
        packed = record.delta or b"".join(self.io.read_copies(p, label) for p in overflow)
        try:
            if record.flags & FLAG_OPERATIONS:
                self._note(packed)
            else:
                self._check_roots(record)
                self.io.space.apply_delta(unpack_delta(packed))
                self.operations, self._operation_bytes = [], 0
                self.catalog_ref = record.catalog if record.catalog != NO_REF else None
            for pointer in overflow:
                first, *second = pointer.spans(self.io.block_size)
                self.io.space.bitmap.set(*first)
                for start, blocks in second:
                    if self.io.space.bitmap.set(start, blocks) < blocks:
                        raise ValueError(f"a second copy is in block {start}, in use")
            self._reserve_record(record.next_block)
            if record.copies:
                self._check_copies(record)
        except ValueError as error:
            raise CorruptionError("", None, f"commit record {record.txid}: {error}") from None

    def _reserve_record(self, block: int) -> None:
        if not self.io.space.bitmap.set(block, 1):
            raise ValueError(f"the next record is to be in block {block}, in use")

    def _check_copies(self, record: CommitRecord) -> None:
        """The copy of a record is in use, of the checkpoint's by what it says itself."""
        if self.io.space.copies == 1:
            raise ValueError("second copies, in an image that has one of everything")
        bitmap = self.io.space.bitmap
        if record.copy and not (record.copy < bitmap.size and bitmap.test(record.copy)):
            raise ValueError(f"a second copy is in block {record.copy}, which is free")
        if record.next_copy:
            self._reserve_record(record.next_copy)

    def _check_roots(self, record: CommitRecord) -> None:
        """No node refers to the roots of these two trees, and so none has proven the references."""
        tree = Tree(
            self.io, self.io.cache, self.io.node_size, CATALOG_OWNER, None, None, "(commit record)"
        )
        for ref in (record.catalog, record.space):
            if ref != NO_REF:
                tree.check_ref(ref)

    def _note(self, packed: bytes) -> None:
        self.operations.append(packed)
        self._operation_bytes += len(packed)
        if self._operation_bytes > limits.UNSTORED_BYTES:
            raise ValueError("more operations than a log may hold")


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
