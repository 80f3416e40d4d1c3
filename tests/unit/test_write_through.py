"""Records that go to the device from where they lie: in one go, where there is room for that."""

from __future__ import annotations

import pytest

import cowfs
from cowfs import limits
from cowfs.blob import Blob
from cowfs.device import MemoryDevice
from cowfs.limits import KIB, MIB

from ..conftest import MakeStore
from ..plain import assert_sound, noise, reopened, text
from .test_full_scattered import Scattered

RECORD = limits.RECORD_SIZE
KEY = b"large"


class Listing(MemoryDevice):
    """A device that lists the lengths of writes."""

    def __init__(self) -> None:
        super().__init__()
        self.lengths: list[int] = []

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self.lengths.append(len(data))
        super().write(offset, data)


def begin(store: cowfs.Store, *, deferred: bool = False) -> tuple[cowfs.Transaction, Blob]:
    """A transaction that has written so much that nobody needs proof of it, and a large value."""
    tx = store.transaction()
    tree = tx.tree("d")
    Blob(tx.io, tree, b"before").pwrite(noise(limits.ONE_FLUSH_LIMIT + MIB, 1), 0)
    return tx, Blob(tx.io, tree, KEY, deferred=deferred)


@pytest.fixture
def device() -> Listing:
    return Listing()


@pytest.fixture
def store(make_store: MakeStore, device: Listing) -> cowfs.Store:
    store = make_store(device)
    store.create("d")
    return store


def finish(store: cowfs.Store, tx: cowfs.Transaction, blob: Blob, expected: bytes) -> None:
    blob.store()
    tx.commit()
    assert isinstance(store.device, MemoryDevice)
    for found in (store, reopened(store.device)):
        assert found["d"][KEY] == expected
        assert_sound(found)


def test_records_that_lie_side_by_side_are_one_write(store: cowfs.Store, device: Listing) -> None:
    tx, blob = begin(store)
    data = noise(MIB, 2)
    device.lengths.clear()
    blob.pwrite(data, 0)
    assert len([length for length in device.lengths if length >= RECORD]) <= 2  # a run may end
    finish(store, tx, blob, data)


def test_what_shrinks_or_is_empty_parts_a_stretch(store: cowfs.Store) -> None:
    tx, blob = begin(store)
    parts = [noise(RECORD, 3), text(RECORD, 4), bytes(RECORD), noise(3 * RECORD, 5)]
    data = b"".join(parts)
    blob.pwrite(data, 0)
    finish(store, tx, blob, data)


def test_a_stretch_is_parted_where_no_run_is_long_enough(make_store: MakeStore) -> None:
    device = Listing()
    store = make_store(device, size=24 * MIB)
    store.create("d")
    tx, blob = begin(store)
    data = noise(10 * RECORD, 6)
    blob.pwrite(data[: 2 * RECORD], 0)
    scattered = Scattered(store)
    scattered.hold()
    for _ in range(3):
        scattered.leave_run(3 * RECORD // store.io.block_size)
    device.lengths.clear()
    blob.pwrite(data[2 * RECORD :], 2 * RECORD)
    lengths = [length for length in device.lengths if length >= RECORD]
    assert lengths == [3 * RECORD, 3 * RECORD, 2 * RECORD]
    scattered.release()
    finish(store, tx, blob, data)


@pytest.mark.parametrize("step", [100 * KIB, 300 * KIB, MIB - 4 * KIB])
def test_a_record_that_is_not_whole_waits_for_the_rest(
    store: cowfs.Store, device: Listing, step: int
) -> None:
    tx, blob = begin(store, deferred=True)
    data = noise(20 * step, 7)
    device.lengths.clear()
    for start in range(0, len(data), step):
        blob.pwrite(memoryview(data)[start : start + step], start)
    blob.store()
    written = sum(length for length in device.lengths if length >= RECORD)
    assert len(data) - RECORD <= written <= len(data)  # the beginning of a value is no record yet
    finish(store, tx, blob, data)


def test_what_waits_is_stored_before_something_else_is_written(store: cowfs.Store) -> None:
    tx, blob = begin(store, deferred=True)
    data = bytearray(noise(5 * RECORD, 8))
    blob.pwrite(bytes(data[: 3 * RECORD + 100]), 0)
    blob.pwrite(bytes(data[5 * RECORD - 7 :]), 5 * RECORD - 7)
    data[3 * RECORD + 100 : 5 * RECORD - 7] = bytes(2 * RECORD - 107)
    blob.pwrite(b"in its middle", 3 * RECORD + 50)
    data[3 * RECORD + 50 : 3 * RECORD + 63] = b"in its middle"
    finish(store, tx, blob, bytes(data))


@pytest.mark.parametrize("other", [2, 4])
def test_what_waits_is_stored_before_its_neighbour_is_written(
    store: cowfs.Store, other: int
) -> None:
    tx, blob = begin(store, deferred=True)
    data = noise(5 * RECORD, 9)
    blob.pwrite(data[: 3 * RECORD + 100], 0)
    start = other * RECORD
    blob.pwrite(data[start : start + RECORD], start)
    expected = data[: 3 * RECORD + 100]
    if other == 4:
        expected = expected.ljust(start, b"\0") + data[start:]
    finish(store, tx, blob, expected)
