"""From the log to a store in memory: a checkpoint's space map, and what each record changed since.

Nothing here writes. `log.follow` decides which records count, and hands them over in order.
"""

from __future__ import annotations

from . import limits
from ._node import Cache
from ._tree import Tree
from .blob import resolver
from .blockio import BlockIO
from .catalog import SPACE_OWNER
from .codec import Encoder
from .device import Device
from .errors import CorruptionError
from .format import FLAG_CHECKPOINT, NO_REF, CommitRecord, Superblock, unpack_delta
from .log import overflow_span
from .space import Space


class Recovery:
    """What the records of the log say, one after the other: the roots, and the space map (`io`)."""

    def __init__(self, device: Device, superblock: Superblock) -> None:
        self.device = device
        self.superblock = superblock
        self.catalog_ref: bytes | None = None
        self.space_ref: bytes | None = None
        self._start(superblock.total_blocks)

    def _start(self, total: int) -> None:
        superblock = self.superblock
        space = Space(self.device, superblock.block_size, total, superblock.limit_blocks)
        encoder = Encoder(superblock.compression, superblock.block_size)
        self.io = BlockIO(
            self.device, space, Cache(limits.MIN_CACHE), encoder, superblock.node_size
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
            tree.resolve = resolver(self.io, "(space map)")
            for key, value in tree.items_between():
                self.io.space.load_group(int.from_bytes(key, "big"), value)
            self.io.space.reserve_fixed()
            self.io.space.bitmap.clean()
        if record.total_blocks > self.io.space.total:
            self.io.space.bitmap.resize(record.total_blocks)
        packed = record.delta or b"".join(self.io.read(p, label) for p in record.overflow)
        try:
            self.io.space.apply_delta(unpack_delta(packed))
            for pointer in record.overflow:
                self.io.space.bitmap.set(*overflow_span(pointer, self.io.block_size))
            self.io.space.bitmap.set(record.next_block, 1)
        except ValueError as error:
            raise CorruptionError("", None, f"commit record {record.txid}: {error}") from None
        self.catalog_ref = record.catalog if record.catalog != NO_REF else None
