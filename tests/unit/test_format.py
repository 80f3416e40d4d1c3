"""Structures on the device: what is packed is unpacked, and what is damaged is refused."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cowfs
from cowfs import format as layout
from cowfs import limits
from cowfs.codec import checksum
from cowfs.device import MemoryDevice
from cowfs.log import read_superblocks

U32 = st.integers(0, (1 << 32) - 1)
U64 = st.integers(0, (1 << 64) - 1)
NUMBER = st.integers(0, limits.MAX_NUMBER)
COUNT = st.integers(0, limits.MAX_COUNT)
DIGEST = st.binary(min_size=16, max_size=16)
REF = st.binary(min_size=layout.REF_SIZE, max_size=layout.REF_SIZE)

SUPERBLOCK = layout.Superblock(
    uuid=bytes(range(16)),
    label="label äöü",
    block_size=4096,
    node_size=8192,
    compression=1,
    limit_blocks=1 << 40,
    created_ns=1_700_000_000_000_000_000,
    sequence=77,
    txid=1 << 50,
    durable_txid=1 << 50,
    record_block=123_456,
    total_blocks=999_999,
    record_previous=bytes(16),
)


@given(U64, U64, U32, U32, st.integers(0, 255), DIGEST)
def test_pointers(
    block: int, birth: int, stored: int, logical: int, compression: int, digest: bytes
) -> None:
    level = layout.DATA_LEVEL
    data = layout.pack_pointer(block, birth, stored, logical, compression, level, digest)
    assert len(data) == layout.POINTER_SIZE
    pointer = layout.unpack_pointer(data + b"what follows")
    assert pointer[:6] == (block, birth, stored, logical, compression, level)
    assert pointer.checksum == digest
    assert pointer.blocks(4096) == -(-stored // 4096)


@given(
    st.integers(0, 0xFFFF),
    st.integers(0, layout.DATA_LEVEL - 1),
    st.integers(-limits.MAX_TWIN, limits.MAX_TWIN),
    DIGEST,
)
def test_pointers_to_nodes_with_a_second_copy(
    logical: int, level: int, twin: int, digest: bytes
) -> None:
    block = 1 << 40
    data = layout.pack_pointer(block, 9, 4097, logical, 1, level, digest, twin)
    pointer = layout.unpack_pointer(data)
    assert (pointer.logical, pointer.twin, pointer.checksum) == (logical, twin, digest)
    assert pointer.spans(4096) == [(block, 2), (block + twin, 2)][: 2 if twin else 1]
    assert pointer.occupied(4096) == 8192 * (2 if twin else 1)


@pytest.mark.parametrize("block_size", limits.BLOCK_SIZES)
def test_superblocks(block_size: int) -> None:
    superblock = replace(SUPERBLOCK, block_size=block_size)
    data = superblock.pack()
    assert len(data) == block_size
    assert layout.unpack_superblock(data) == superblock
    assert layout.unpack_superblock(data + b"more") == superblock
    for size in (0, 1, 100, block_size - 1):
        assert layout.unpack_superblock(data[:size]) is None


def test_a_superblock_with_any_flipped_bit_is_none() -> None:
    data = bytearray(SUPERBLOCK.pack())
    for at in (*range(300), *range(300, 4096, 37), *range(4080, 4096)):
        data[at] ^= 4
        assert layout.unpack_superblock(bytes(data)) is None
        data[at] ^= 4


def changed(offset: int, value: bytes) -> bytes:
    """A superblock with other bytes at a place, and a checksum that fits."""
    data = bytearray(SUPERBLOCK.pack()[:-16])
    data[offset : offset + len(value)] = value
    return bytes(data) + checksum(bytes(data))


def test_newer_formats_and_unknown_features_are_named() -> None:
    with pytest.raises(cowfs.FormatError, match=r"version 3.*update"):
        layout.unpack_superblock(changed(8, b"\3"))
    with pytest.raises(cowfs.FormatError, match="version 0"):
        layout.unpack_superblock(changed(8, b"\0"))
    with pytest.raises(cowfs.FormatError, match="features 0x80"):
        layout.unpack_superblock(replace(SUPERBLOCK, incompatible=0x80).pack())
    for ignored in (replace(SUPERBLOCK, compatible=5), replace(SUPERBLOCK, read_only=5)):
        assert layout.unpack_superblock(ignored.pack()) == ignored


def test_features_that_allow_only_reading_are_honoured() -> None:
    device = MemoryDevice()
    with cowfs.open_device(device, parameters=cowfs.Parameters()) as store:
        store.create("a")[b"k"] = b"v"
    newest = read_superblocks(device)[0]
    flagged = replace(newest, sequence=newest.sequence + 1, read_only=0x40).pack()
    device.write((newest.sequence + 1) % limits.SUPERBLOCK_SLOTS * 4096, flagged)
    with pytest.raises(cowfs.ReadOnlyError, match="0x40"):
        cowfs.open_device(device)
    with cowfs.open_device(device, readonly=True) as store:
        assert store["a"][b"k"] == b"v"


RUNS = st.lists(st.builds(layout.Run, U64, U32, DIGEST), max_size=10)
DELTAS = st.builds(
    layout.Delta,
    st.lists(st.tuples(NUMBER, U32), max_size=20),
    st.lists(st.binary(min_size=8, max_size=8), max_size=20).map(b"".join),
    st.dictionaries(U64, COUNT, max_size=20),
)


@given(DELTAS)
def test_deltas(delta: layout.Delta) -> None:
    data = delta.pack()
    assert layout.unpack_delta(data) == delta
    for damaged in (data[:-1], data + b"x", b"", data[:11]):
        with pytest.raises(ValueError, match=r"."):
            layout.unpack_delta(damaged)


@given(st.binary(max_size=200))
def test_random_operations_are_refused_or_taken(data: bytes) -> None:
    try:
        found = list(layout.unpack_operations(data))
    except ValueError:
        return
    assert sum(6 + len(key) + len(value) for _, _, key, value in found) <= len(data)


@given(st.binary(max_size=200))
def test_random_deltas_are_refused_or_taken(data: bytes) -> None:
    try:
        delta = layout.unpack_delta(data)
    except ValueError:
        return
    assert delta.pack()[:12] == data[:12] and len(delta.pack()) <= len(data)


ANY_RECORD = {
    "uuid": DIGEST,
    "txid": NUMBER,
    "previous": DIGEST,
    "next_block": NUMBER,
    "total_blocks": U64,
    "durable_txid": NUMBER,
    "catalog": REF,
}
RECORDS = st.builds(
    layout.CommitRecord,
    **ANY_RECORD,
    flags=st.integers(0, 3),
    space=REF,
    runs=RUNS,
    overflow=st.lists(st.binary(min_size=44, max_size=44), max_size=5),
    delta=st.binary(max_size=1000),
) | st.builds(
    layout.CommitRecord,
    **ANY_RECORD,
    flags=st.just(layout.FLAG_COPIES),
    overflow=st.lists(st.binary(min_size=44, max_size=44), min_size=3, max_size=3),
    copies=st.lists(NUMBER, min_size=5, max_size=5),
)


@given(RECORDS, st.randoms(use_true_random=False))
def test_commit_records(record: layout.CommitRecord, chance: random.Random) -> None:
    data = record.pack(4096)
    assert data is not None and len(data) == 4096
    assert layout.unpack_record(data) == record
    assert layout.unproven_next_block(data) == record.next_block
    for _ in range(10):
        damaged = bytearray(data)
        damaged[chance.randrange(4096)] ^= 1 << chance.randrange(8)
        assert layout.unpack_record(bytes(damaged)) is None


def test_a_record_that_does_not_fit_is_none() -> None:
    record = layout.CommitRecord(
        bytes(16), 1, bytes(16), 1, 1, 1, 0, layout.NO_REF, delta=bytes(4096)
    )
    assert record.pack(4096) is None
    assert record.pack(8192) is not None


BITS = st.binary(min_size=16, max_size=16) | st.just(bytes(16)) | st.just(b"\xff" * 16)


@given(BITS, BITS, st.dictionaries(st.integers(0, 127), U32, max_size=9))
def test_groups(bitmap: bytes, shared: bytes, counts: dict[int, int]) -> None:
    items = sorted(counts.items())
    for bits in (bitmap, bytes(16), b"\xff" * 16):
        data = layout.pack_group(bits, shared, items)
        assert layout.unpack_group(data, 16) == (bits, shared, items)
        for damaged in (data[:-1], data + b"x", b"\7" + data[1:], b""):
            with pytest.raises(ValueError, match=r"."):
                layout.unpack_group(damaged, 16)


@given(
    st.integers(0, 255),
    U64,
    NUMBER,
    st.integers(0, limits.MAX_VALUE),
    st.integers(0, limits.RECORD_SIZE),
    st.text("abc/@-", max_size=200),
    st.none() | REF,
)
def test_roots(
    kind: int, created: int, txid: int, size: int, record: int, name: str, ref: bytes | None
) -> None:
    data = layout.pack_root(kind, created, txid, size, record, name, ref)
    assert layout.unpack_root(data) == (kind, created, txid, size, record, name, ref)
    for damaged in (data[:10], data + b"x"):
        with pytest.raises(ValueError, match=r"."):
            layout.unpack_root(damaged)


@given(st.lists(st.tuples(REF, U32), min_size=1, max_size=5))
def test_drops(stack: list[tuple[bytes, int]]) -> None:
    data = layout.pack_drop(stack)
    assert layout.unpack_drop(data) == stack
    for damaged in (data[:-1], b""):
        with pytest.raises(ValueError, match="drop list"):
            layout.unpack_drop(damaged)
