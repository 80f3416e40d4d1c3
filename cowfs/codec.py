"""Checksums and compression: the only module that knows which algorithms an image uses.

Checksums are XXH3-128 over the bytes as stored. Compression is LZ4 (block format), and a block that
would not shrink by a whole device block is stored raw. Large data is compressed and hashed on all
cores: both libraries release the interpreter's lock for records.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import lz4.block
import xxhash

_CORES = os.cpu_count() or 1

RAW = 0
LZ4 = 1
COMPRESSION_NAMES = {"none": RAW, "lz4": LZ4}

checksum = xxhash.xxh3_128_digest
"""16 bytes of any bytes-like object."""


def compress_lz4(data: bytes | memoryview) -> bytes:
    """LZ4 block without a stored length."""
    packed: bytes = lz4.block.compress(data, store_size=False)
    return packed


def decompress(kind: int, data: bytes, length: int) -> bytes:
    """The `length` original bytes; ValueError where `data` does not hold exactly those."""
    if kind == RAW:
        if len(data) != length:
            raise ValueError(f"{len(data)} bytes stored raw, {length} expected")
        return data
    if kind != LZ4:
        raise ValueError(f"unknown compression {kind}")
    try:
        plain: bytes = lz4.block.decompress(data, uncompressed_size=length)
    except lz4.block.LZ4BlockError as error:
        raise ValueError(f"LZ4: {error}") from None
    if len(plain) != length:
        raise ValueError(f"LZ4: {len(plain)} bytes, {length} expected")
    return plain


Encoded = tuple[int, bytes | memoryview, bytes]
"""Compression, what is to be stored (the record itself where it does not shrink), checksum."""


def encode(data: bytes | memoryview, kind: int, block_size: int) -> Encoded:
    """One record, compressed if that saves a block."""
    if kind == LZ4 and len(data) > block_size:
        packed = compress_lz4(data)
        if -(-len(packed) // block_size) < -(-len(data) // block_size):
            return LZ4, packed, checksum(packed)
    return RAW, data, checksum(data)


class Encoder:
    """Compression and hashing of records for one store, on all cores."""

    def __init__(self, kind: int, block_size: int) -> None:
        self.kind = kind
        self.block_size = block_size
        self._pool: ThreadPoolExecutor | None = None

    def encode(self, data: bytes | memoryview) -> Encoded:
        """`encode` of one record, in the calling thread."""
        return encode(data, self.kind, self.block_size)

    def encode_many(self, records: list[bytes | memoryview]) -> Iterable[Encoded]:
        """`encode` of each record, in order."""
        if len(records) < 2 or _CORES < 2:
            return [self.encode(record) for record in records]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_CORES, thread_name_prefix="cowfs-codec")
        return self._pool.map(self.encode, records)

    def close(self) -> None:
        """End the worker threads."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
