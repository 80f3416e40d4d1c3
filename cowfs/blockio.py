"""Reading and placing blocks: the one path from a pointer to bytes, and back.

No bytes leave `read` that do not match the checksum in the pointer, and nothing a pointer says is
believed before that: addresses and lengths are checked against what is possible.
"""

from __future__ import annotations

from . import limits
from ._node import Cache
from ._writer import BlockWriter
from .codec import Encoder, checksum, compress_lz4, decompress
from .device import Device
from .errors import CorruptionError
from .format import DATA_LEVEL, pack_pointer, unpack_pointer
from .space import Space


class BlockIO:
    """A store's blocks: verified reads through the cache, encoded writes through the writer."""

    def __init__(
        self,
        device: Device,
        space: Space,
        cache: Cache,
        encoder: Encoder,
        node_size: int,
    ) -> None:
        self.device = device
        self.space = space
        self.cache = cache
        self.encoder = encoder
        self.block_size = space.block_size
        self.node_size = node_size
        space.node_blocks = -(-node_size // space.block_size)
        self.writer = BlockWriter(device, space, cache, encoder.kind, compress_lz4, checksum)
        self.broken: BaseException | None = None
        """Why the transaction in progress cannot commit: nothing refers to blocks it placed."""

    @property
    def total_blocks(self) -> int:
        """Blocks of the image as it is: what a pointer leads to lies within."""
        return self.space.bitmap.size

    def read(self, pointer: bytes, label: str) -> bytes:
        """The decompressed bytes that `pointer` (44 bytes or more) names.

        Raises CorruptionError, naming `label` as the dataset, where they are not to be had.
        """
        block, _, stored, logical, compression, level, _, digest = unpack_pointer(pointer)
        limit = limits.RECORD_SIZE if level == DATA_LEVEL else self.node_size
        if block == 0 or stored == 0 or stored > logical or logical > limit:
            raise CorruptionError(label, block, f"a pointer to {stored} of {logical} bytes")
        if block + -(-stored // self.block_size) > self.total_blocks:
            raise CorruptionError(label, block, "beyond the end of the image")
        data = self.writer.held(block, stored)
        if data is None:
            data = self.device.read(block * self.block_size, stored)
        if len(data) != stored:
            raise CorruptionError(label, block, "beyond the end of the image")
        if checksum(data) != digest:
            raise CorruptionError(label, block, "the checksum does not match")
        try:
            return decompress(compression, data, logical)
        except ValueError as error:
            raise CorruptionError(label, block, str(error)) from None

    def read_extent(self, pointer: bytes, label: str) -> bytes:
        """The bytes of an extent of data, from the cache where they are there."""
        fields = unpack_pointer(pointer)
        if fields.level != DATA_LEVEL:
            raise CorruptionError(label, fields.block, "a node where data belongs")
        data: bytes | None = self.cache.record(fields.block, fields.checksum)
        if data is None or len(data) != fields.logical:
            data = self.read(pointer, label)
            self.cache.add_record(fields.block, fields.checksum, data)
        return data

    def record_size(self) -> int:
        """Bytes of the records that a new large value should have: RECORD_SIZE, or less where free
        space is in pieces too small for that."""
        size = limits.RECORD_SIZE
        while size > self.block_size and not self.space.has_run(size // self.block_size):
            size //= 2
        return size

    def write_extents(self, records: list[bytes | memoryview]) -> list[bytes]:
        """Pointers to newly placed extents, one for each record of 1 byte to RECORD_SIZE."""
        writer = self.writer
        lengths = [len(record) for record in records]
        encoded = self.encoder.encode_many(records)
        pointers = []
        writer.bulk = sum(lengths) >= limits.BULK
        try:
            for length, (compression, stored, digest) in zip(lengths, encoded, strict=True):
                block = writer.write(stored)
                pointers.append(
                    pack_pointer(
                        block, writer.txid, len(stored), length, compression, DATA_LEVEL, digest
                    )
                )
        except BaseException as error:
            self.broken = error
            raise
        return pointers
