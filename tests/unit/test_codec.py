"""Which records are compressed, and that those that are come back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowfs.codec import LZ4, RAW, Encoder, checksum, decompress, encode
from cowfs.limits import KIB, RECORD_SIZE

from ..plain import noise, text

BLOCK = 4096


def partly(length: int, part: float, seed: int) -> bytes:
    """Bytes of which a part shrinks to nearly nothing, all over."""
    unit = 512
    zeros = int(unit * part)
    units = (noise(unit - zeros, seed + i) + bytes(zeros) for i in range(-(-length // unit)))
    return b"".join(units)[:length]


def kinds(records: list[bytes], *, hopeful: bool = True) -> list[int]:
    return [kind for kind, _, _ in encode(records, LZ4, BLOCK, hopeful=hopeful)]


@pytest.mark.parametrize(
    ("length", "part", "kind"),
    [
        (16 * KIB, 0.05, RAW),  # not one block of four
        (16 * KIB, 0.5, LZ4),
        (128 * KIB, 0.06, RAW),  # one or two blocks of 32
        (128 * KIB, 0.3, LZ4),
        (BLOCK, 0.9, RAW),  # one block it is anyway
        (BLOCK + 1, 0.9, LZ4),
    ],
)
@pytest.mark.parametrize("hopeful", [True, False])
def test_a_record_is_compressed_where_that_saves_a_block_and_an_eighth(
    length: int, part: float, kind: int, *, hopeful: bool
) -> None:
    assert kinds([partly(length, part, 1)], hopeful=hopeful) == [kind]


@pytest.mark.parametrize(("length", "most"), [(16 * KIB, 4), (64 * KIB, 1), (128 * KIB, 0)])
def test_behind_what_does_not_shrink_few_records_are_stored_raw_that_would(
    length: int, most: int
) -> None:
    for count in range(50, 60):
        random = [noise(length, seed) for seed in range(count)]
        shrinks = [text(length, seed) for seed in range(20)]
        found = kinds([*random, *shrinks])
        assert found[:count] == [RAW] * count
        at = found.index(LZ4) - count
        assert at <= most
        assert found[count + at :] == [LZ4] * (20 - at)


def test_one_record_that_does_not_shrink_hides_one_at_most() -> None:
    assert kinds([noise(16 * KIB), text(16 * KIB, 1)]) == [RAW, LZ4]
    assert kinds([noise(16 * KIB), noise(16 * KIB, 1), *[text(16 * KIB, 1)] * 2])[-1] == LZ4


@pytest.mark.parametrize("size", [1, 100, 4096, 4097, 8192, 131_072])
def test_records_are_compressed_only_where_it_saves_a_block(size: int) -> None:
    for make in (noise, text, bytes):
        data = make(size)
        [(kind, stored, digest)] = list(encode([data], 1, 4096))
        assert checksum(stored) == digest
        assert decompress(kind, bytes(stored), size) == data
        assert -(-len(stored) // 4096) < -(-size // 4096) if kind else stored == data
        assert list(encode([data], 0, 4096)) == [(0, data, checksum(data))]


def test_compressible_records_are_compressed_whatever_comes_before_them() -> None:
    random_head = noise(8 * KIB) + text(RECORD_SIZE - 8 * KIB)
    random_tail = text(24 * KIB) + noise(RECORD_SIZE - 24 * KIB)
    mixed = [noise(RECORD_SIZE), random_head, noise(5000), text(5000), bytes(9000)]
    mixed += [noise(RECORD_SIZE), noise(RECORD_SIZE), random_tail]
    kinds = [kind for kind, _, _ in encode(mixed, LZ4, 4096)]
    assert kinds == [RAW, LZ4, RAW, LZ4, LZ4, RAW, RAW, LZ4]


@pytest.mark.parametrize("count", [0, 1, 2, 5, 32])
def test_records_come_out_of_the_encoder_in_order(count: int) -> None:
    records: list[bytes | memoryview] = [(noise, text)[i % 2](100_000 + i) for i in range(count)]
    encoder = Encoder(LZ4, 4096)
    encoded = list(encoder.encode_many(records))
    encoder.close()
    assert [
        decompress(kind, bytes(stored), 100_000 + i) for i, (kind, stored, _) in enumerate(encoded)
    ] == records
    assert [kind for kind, _, _ in encoded] == [(RAW, LZ4)[i % 2] for i in range(count)]


@given(st.binary(max_size=300), st.integers(0, 3), st.integers(0, 400))
def test_what_does_not_decompress_is_a_value_error(data: bytes, kind: int, length: int) -> None:
    try:
        plain = decompress(kind, data, length)
    except ValueError:
        return
    assert len(plain) == length


@given(
    st.lists(
        st.tuples(st.sampled_from([noise, text]), st.integers(1, 40 * KIB), st.integers(0, 9)),
        max_size=30,
    ),
    st.sampled_from([RAW, LZ4]),
)
def test_what_is_encoded_comes_back(parts: list[tuple[object, int, int]], kind: int) -> None:
    records = [make(length, seed) for make, length, seed in parts]  # type: ignore[operator]
    encoder = Encoder(kind, BLOCK)
    try:
        for _ in range(2):
            found = list(encoder.encode_many(list(records)))
            assert len(found) == len(records)
            for record, (used, stored, digest) in zip(records, found, strict=True):
                assert decompress(used, bytes(stored), len(record)) == record
                assert checksum(stored) == digest
                assert used in (RAW, kind)
                assert used == RAW or -(-len(stored) // BLOCK) < -(-len(record) // BLOCK)
    finally:
        encoder.close()
