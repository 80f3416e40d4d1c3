"""Reading and placing blocks: the one path from a pointer to bytes, and back.

No bytes leave `read` that do not match the checksum in the pointer, and nothing a pointer says is
believed before that: addresses and lengths are checked against what is possible.
"""

from __future__ import annotations

import copy

from . import limits
from ._node import Cache
from ._writer import BlockWriter
from .codec import Encoder, checksum, compress_lz4, decompress
from .device import Device
from .errors import CorruptionError
from .format import DATA_LEVEL, Pointer, pack_pointer, unpack_pointer
from .space import Space

_RUN_BYTES = 1 * limits.MIB
"""Bytes read from the device in one go, about."""


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
        self._fetch = device.read
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

    def without_waiting(self) -> BlockIO:
        """The same blocks, by way of the same cache, for one who must not wait for the disk: to
        read what is not in memory raises BlockingIOError."""
        twin = copy.copy(self)
        twin._fetch = self.device.read_now
        return twin

    def read(self, pointer: bytes, label: str) -> bytes:
        """The decompressed bytes that `pointer` (44 bytes or more) names.

        Raises CorruptionError, naming `label` as the dataset, where they are not to be had.
        """
        return self._read(unpack_pointer(pointer), label)

    def _read(self, pointer: Pointer, label: str) -> bytes:
        block, _, stored, logical, compression, level, _, digest = pointer
        limit = limits.MAX_RECORD if level == DATA_LEVEL else self.node_size
        if block == 0 or stored == 0 or stored > logical or logical > limit:
            raise CorruptionError(label, block, f"a pointer to {stored} of {logical} bytes")
        if block + -(-stored // self.block_size) > self.total_blocks:
            raise CorruptionError(label, block, "beyond the end of the image")
        data = self.writer.held(block, stored)
        if data is None:
            data = self._fetch(block * self.block_size, stored)
        return _decode(data, block, stored, logical, compression, digest, label)

    def read_extent(self, pointer: bytes, label: str) -> bytes:
        """The bytes of an extent of data, from the cache where they are there."""
        fields = unpack_pointer(pointer)
        if fields.level != DATA_LEVEL:
            raise CorruptionError(label, fields.block, "a node where data belongs")
        data: bytes | None = self.cache.record(fields.block, fields.checksum)
        if data is None or len(data) != fields.logical:
            data = self._read(fields, label)
            self.cache.add_record(fields.block, fields.checksum, data)
        return data

    def read_extents(self, pointers: list[bytes], label: str) -> list[bytes]:
        """`read_extent` of several: those that lie side by side on the device in one go."""
        found: list[bytes] = []
        run: list[Pointer] = []
        for pointer in pointers:
            fields = unpack_pointer(pointer)
            if not self._continues(run, fields):
                found += self._read_run(run, label)
                run = []
                if not self._continues(run, fields):
                    found.append(self.read_extent(pointer, label))
                    continue
            run.append(fields)
        return found + self._read_run(run, label)

    def _continues(self, run: list[Pointer], fields: Pointer) -> bool:
        """Whether an extent has to be read from the device, and lies right behind a run of others
        (anything does behind an empty one)."""
        if run:
            last = run[-1]
            beside = last.block + last.blocks(self.block_size) == fields.block
            if not beside or fields.block - run[0].block > _RUN_BYTES // self.block_size:
                return False
        return (
            fields.level == DATA_LEVEL
            and 0 < fields.stored <= fields.logical <= limits.MAX_RECORD
            and 0 < fields.block <= self.total_blocks - fields.blocks(self.block_size)
            and self.cache.record(fields.block, fields.checksum) is None
            and self.writer.held(fields.block, fields.stored) is None
        )

    def _read_run(self, run: list[Pointer], label: str) -> list[bytes]:
        """The bytes of extents that lie side by side on the device. Of several, those that are as
        they were stored stay out of the cache: the host has them, and who reads long stretches
        would sweep it clean."""
        if not run:
            return []
        first = run[0].block
        start = first * self.block_size
        data = self._fetch(start, run[-1].block * self.block_size + run[-1].stored - start)
        found = []
        for block, _, stored, logical, compression, _, _, digest in run:
            at = (block - first) * self.block_size
            part = data[at : at + stored]
            plain = _decode(part, block, stored, logical, compression, digest, label)
            if compression or len(run) == 1:
                self.cache.add_record(block, digest, plain)
            found.append(plain)
        return found

    def record_size(self, wanted: int = limits.RECORD_SIZE) -> int:
        """Bytes of the records that a new large value should have: as `wanted`, or less where free
        space is in pieces too small for that."""
        size = wanted
        while size > self.block_size and not self.space.has_run(size // self.block_size):
            size //= 2
        return size

    def write_extents(self, records: list[bytes | memoryview]) -> list[bytes]:
        """Pointers to newly placed extents, one for each record of 1 byte to MAX_RECORD."""
        writer = self.writer
        lengths = [len(record) for record in records]
        encoded = self.encoder.encode_many(records)
        pointers = []
        if sum(lengths) > limits.LOG_SHARE:
            writer.leave_log()
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


def _decode(
    data: bytes, block: int, stored: int, logical: int, compression: int, digest: bytes, label: str
) -> bytes:
    """What was read for a pointer, verified and decompressed."""
    if len(data) != stored:
        raise CorruptionError(label, block, "beyond the end of the image")
    if checksum(data) != digest:
        raise CorruptionError(label, block, "the checksum does not match")
    try:
        return decompress(compression, data, logical)
    except ValueError as error:
        raise CorruptionError(label, block, str(error)) from None
