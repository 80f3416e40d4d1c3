"""Checksums and compression: the only module that knows which algorithms an image uses.

Checksums are XXH3-128 over the bytes as stored. Compression is LZ4 (block format), and a record
that would not shrink by a whole device block, and by an eighth, is stored raw: to read it takes
less. Large data that shrinks is compressed and hashed on all cores: both libraries release the
interpreter's lock for records.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TypeVar

import lz4.block
import xxhash

_CORES = os.cpu_count() or 1

_SAMPLE = 2048
"""Bytes of each of the three samples by which a record is judged."""

_UNTRIED = 64 * 1024
"""Bytes of records, at most, that are stored raw without a sample between two that promise nothing:
of small records a sample takes several times as long as their checksum."""

_LARGE = 64 * 1024
"""Bytes of a first record from which on a sample takes much less than to try it."""

_STRETCH = 512 * 1024
"""Bytes of the records that a core takes at a time, about: less is not worth the way to it."""

RAW = 0
LZ4 = 1
COMPRESSION_NAMES = {"none": RAW, "lz4": LZ4}

checksum = xxhash.xxh3_128_digest
"""16 bytes of any bytes-like object."""


def compress_lz4(data: bytes | memoryview) -> bytes:
    """LZ4 block without a stored length."""
    packed: bytes = lz4.block.compress(data, store_size=False)
    return packed


Stored = TypeVar("Stored", bytes, memoryview)


def decompress(kind: int, data: Stored, length: int) -> Stored | bytes:
    """The `length` original bytes; ValueError where `data` does not hold exactly those.

    What is stored raw is returned itself.
    """
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


def encode(
    records: Iterable[bytes | memoryview], kind: int, block_size: int, *, hopeful: bool = True
) -> Iterator[Encoded]:
    """Records that follow each other, each compressed where that is worth it.

    Behind one that was not (or the first, if not `hopeful`), the next is tried only if a sample of
    it promises that it is, and of small records the fewer samples are taken the more of them did
    not: incompressible data rarely comes alone, and trying it costs more than anything else that is
    done to it.
    """
    misses = skip = 0
    for data in records:
        stored, used = data, RAW
        if kind == LZ4 and len(data) > block_size:
            if skip:
                skip -= 1
            elif hopeful or _promises(data, block_size):
                misses = 0
                packed = compress_lz4(data)
                hopeful = _is_worth_it(len(packed), len(data), block_size)
                if hopeful:
                    stored, used = packed, LZ4
            else:
                misses += 1
                skip = min(misses, _UNTRIED // len(data))
        yield used, stored, checksum(stored)


def _is_worth_it(packed: int, plain: int, block_size: int) -> bool:
    """Whether to store so many bytes instead of the `plain` ones."""
    blocks = -(-plain // block_size)
    return -(-packed // block_size) <= blocks - max(1, blocks // 8)


def _promises(data: bytes | memoryview, block_size: int) -> bool:
    """Whether a record would be worth compressing if all of it were like a sample."""
    last = max(len(data) - _SAMPLE, 0)
    sample = b"".join(data[at : at + _SAMPLE] for at in (0, last // 2, last))
    likely = len(compress_lz4(sample)) * len(data) // len(sample)
    return _is_worth_it(likely, len(data), block_size)


class Encoder:
    """Compression and hashing of records for one store, on all cores."""

    def __init__(self, kind: int, block_size: int) -> None:
        self.kind = kind
        self.block_size = block_size
        self._pool: ThreadPoolExecutor | None = None
        self._hopeful = True
        """Whether the last record shrank, of those that `encode_many` was given."""

    def encode(self, records: Iterable[bytes | memoryview]) -> list[Encoded]:
        """`encode` in the calling thread."""
        return list(encode(records, self.kind, self.block_size))

    def encode_many(self, records: list[bytes | memoryview]) -> Iterator[Encoded]:
        """Each record encoded, in order. From the first one on that shrinks, every core takes a
        stretch when it is free; hashing alone takes less time than the way to another core, and
        what was just hashed is still near when it is placed."""
        if max(map(len, records), default=0) <= self.block_size:  # none can save a block
            yield from [(RAW, record, checksum(record)) for record in records]
            return
        done = 0
        hopeful = self._hopeful or not records or len(records[0]) < _LARGE
        for one in encode(records, self.kind, self.block_size, hopeful=hopeful):
            yield one
            done += 1
            self._hopeful = one[0] != RAW
            if self._hopeful:
                break
        yield from self._encode_together(records[done:])

    def _encode_together(self, records: list[bytes | memoryview]) -> Iterable[Encoded]:
        step = max(1, _STRETCH // max(map(len, records), default=1))
        stretches = [records[at : at + step] for at in range(0, len(records), step)]
        if len(stretches) < 2 or _CORES < 2:
            return self.encode(records)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_CORES - 1, thread_name_prefix="cowfs-codec")
        encoded: list[list[Encoded]] = [[] for _ in stretches]
        todo = iter(enumerate(stretches))

        def work() -> None:
            for at, stretch in todo:
                encoded[at] = self.encode(stretch)

        helpers = [self._pool.submit(work) for _ in range(_CORES - 1)]
        work()
        for helper in helpers:
            if not helper.cancel():
                helper.result()
        return chain.from_iterable(encoded)

    def close(self) -> None:
        """End the worker threads."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
