"""Openings after a stop at the worst moments that were thought of; test_power_cut.py tries others.

The machine stops by taking a copy of the device while a transaction is under way: everything that
was written is there, flushed or not, but the commit record that would make it real.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

import cowfs
from cowfs import limits
from cowfs.device import MemoryDevice
from crashfuzzer.device import RecordingDevice, Write
from crashfuzzer.image import Image

BIG = 100_000
"""Bytes of a value that lives outside of the tree."""


def noise(seed: int, size: int = BIG) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture
def device() -> MemoryDevice:
    return MemoryDevice()


@pytest.fixture
def store(device: MemoryDevice) -> Iterator[cowfs.Store]:
    with cowfs.open_device(device, parameters=cowfs.Parameters()) as store:
        store.create("data")
        yield store


def stop_and_open(device: MemoryDevice) -> cowfs.Store:
    """The store as another machine finds it."""
    copy = MemoryDevice()
    copy.write(0, device.read(0, device.size()))
    return cowfs.open_device(copy)


def stop_while_writing(store: cowfs.Store, device: MemoryDevice) -> cowfs.Store:
    """Stop when the next transaction has filled all space that it may use again, and open."""
    tx = store.transaction()
    for number in range(60):
        tx["data"][b"under way %d" % number] = noise(1000 + number)
    found = stop_and_open(device)
    tx.abort()
    return found


def test_what_a_transaction_replaced_of_its_own_stays_until_the_transaction_is_proven(
    store: cowfs.Store, device: MemoryDevice
) -> None:
    for number in range(20):
        with store.transaction() as tx:
            tx["data"][b"mark"] = b"%d" % number
            tx["data"][b"big"] = noise(number)
            tx["data"][b"big"] = noise(number + 1)
        with stop_while_writing(store, device) as found:
            assert found["data"][b"mark"] == b"%d" % number
            assert found.check().ok


@pytest.mark.parametrize("by", ["commit", "sync"])
def test_a_flush_makes_the_commits_before_it_durable_for_good(
    store: cowfs.Store, device: MemoryDevice, by: str
) -> None:
    for number in range(8):
        with store.transaction(durable=False) as tx:
            tx["data"][b"big"] = noise(number)
    if by == "commit":
        store["data"][b"mark"] = b"acknowledged"
    else:
        store.sync()
    with stop_while_writing(store, device) as found:
        assert found["data"][b"big"] == noise(7)
        assert (b"mark" in found["data"]) == (by == "commit")
        assert found.check().ok


def test_a_durable_transaction_without_changes_makes_those_before_it_durable(
    store: cowfs.Store,
) -> None:
    with store.transaction(durable=False) as tx:
        tx["data"][b"key"] = b"value"
    assert store.durable_txid < store.txid
    with store.transaction():
        pass
    assert store.durable_txid == store.txid


def test_what_was_found_at_an_opening_survives_the_next_stop(
    store: cowfs.Store, device: MemoryDevice
) -> None:
    for number in range(8):
        with store.transaction(durable=False) as tx:
            tx["data"][b"big"] = noise(number)
    store["data"][b"mark"] = b"acknowledged"
    again = stop_and_open(device)
    assert isinstance(again.device, MemoryDevice)
    with stop_while_writing(again, again.device) as found:
        assert found["data"][b"mark"] == b"acknowledged"
        assert found.check().ok


class NoSuperblocks(MemoryDevice):
    """A device that fails when a superblock is written, once it is told to."""

    failing = False

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        block = offset // limits.DEFAULT_BLOCK_SIZE
        slots = limits.SUPERBLOCK_SLOTS
        places = (0, limits.SECOND_PLACE_BLOCK)
        if self.failing and any(place <= block < place + slots for place in places):
            raise OSError("the machine stopped")
        super().write(offset, data)


def test_a_checkpoint_without_its_superblock_is_found_again_and_again() -> None:
    device = NoSuperblocks()
    store = cowfs.open_device(device, parameters=cowfs.Parameters())
    data = store.create("data")
    for number in range(50):
        data[b"before %d" % number] = bytes(100)
    device.failing = True
    with store.transaction() as tx:
        tx["data"][b"mark"] = b"acknowledged"
        tx.checkpoint = True
    found = stop_and_open(device)
    for number in range(100):
        found["data"][b"after %d" % number] = bytes(200)
    assert isinstance(found.device, MemoryDevice)
    with stop_and_open(found.device) as last:
        assert last["data"][b"mark"] == b"acknowledged"
        assert len(last["data"]) == 151
        assert last.check().ok


def test_a_store_that_could_not_write_its_superblock_is_sound_when_opened_anew() -> None:
    device = NoSuperblocks()
    with cowfs.open_device(device, parameters=cowfs.Parameters()) as store:
        data = store.create("data")
        data[b"big"] = noise(1, 4 * BIG)
        del data[b"big"]
        data[b"mark"] = b"acknowledged"
        device.failing = True
    with stop_and_open(device) as found:
        assert found["data"][b"mark"] == b"acknowledged"
        assert found.check().ok


def test_who_needs_room_is_told_that_a_superblock_could_not_be_written() -> None:
    device = NoSuperblocks()
    with cowfs.open_device(device, parameters=cowfs.Parameters()) as store:
        store.create("data")
        store.committer.complete_checkpoint()
        while store.durability.checkpoint is None:
            with store.transaction(durable=False) as tx:
                tx["data"][b"big"] = noise(store.txid, BIG // 4)
        with store.transaction(durable=False) as tx:
            del tx["data"][b"big"]
        device.failing = True
        with pytest.raises(cowfs.FailedError, match="open it anew"):
            store.committer.relieve()


def last_writes(device: RecordingDevice, start: int) -> list[Write]:
    """What was written since operation `start`."""
    return [op for op in device.log[start:] if isinstance(op, Write)]


def image_with(image: Image, writes: list[Write]) -> RecordingDevice:
    """A device after a power cut: of what came after `image`, these writes arrived."""
    image = image.copy()
    for write in writes:
        image.write(write.offset, write.data)
    return RecordingDevice(image)


def test_what_a_torn_record_said_of_others_is_not_relied_on() -> None:
    """The record of a commit in flight says that those before it were flushed. It is wiped when it
    does not count; then only a superblock can say so."""
    device = RecordingDevice()
    store = cowfs.open_device(device, parameters=cowfs.Parameters(size=2 << 20))
    store.create("data")
    with store.transaction(durable=False) as tx:
        tx["data"][b"big"] = noise(1)
    with store.transaction() as tx:
        tx["data"][b"big"] = noise(2)
        tx["data"][b"mark"] = b"acknowledged"
    before, done = device.image.copy(), len(device.log)
    store["data"][b"late"] = noise(3)
    torn = [write for write in last_writes(device, done) if write.data.startswith(b"cowfsLOG")]
    torn = [Write(torn[0].offset, torn[0].data[:4096])]
    device = image_with(before, torn)
    store = cowfs.open_device(device)
    assert b"late" not in store["data"]
    # Use all that is free, blocks of the first transaction as well, and stop before it commits.
    tx = store.transaction()
    with pytest.raises(cowfs.OutOfSpaceError):
        for number in range(1000):
            tx["data"][b"under way %d" % number] = noise(number, 8000)
    with cowfs.open_device(RecordingDevice(device.image.copy())) as found:
        assert found["data"][b"mark"] == b"acknowledged"
        assert found.check().ok


def test_what_followed_a_lost_commit_does_not_follow_it_when_it_is_made_again() -> None:
    """The first of two commits in flight is lost, the second arrives. The program makes the first
    again: it is the newest, though its record is in the same place and says the same."""
    device = RecordingDevice()
    with cowfs.open_device(device, parameters=cowfs.Parameters()) as store:
        store.create("data")
    store = cowfs.open_device(device)
    before = device.image.copy()
    with store.transaction(durable=False) as tx:
        tx["data"][b"key"] = b"first"
    done = len(device.log)
    with store.transaction(durable=False) as tx:
        tx["data"][b"key"] = b"second"
    store = cowfs.open_device(image_with(before, last_writes(device, done)))
    assert b"key" not in store["data"]
    store["data"][b"key"] = b"first"
    assert isinstance(store.device, RecordingDevice)
    with cowfs.open_device(RecordingDevice(store.device.image.copy())) as found:
        assert found["data"][b"key"] == b"first"
