"""The chain of commit records, and checkpoints that keep it short."""

from __future__ import annotations

import threading

import pytest

import cowfs
from cowfs import limits
from cowfs.device import MemoryDevice
from crashfuzzer.device import Flush, RecordingDevice, Write

from ..conftest import MakeStore
from ..plain import assert_holds, assert_sound, noise, reopened


@pytest.mark.parametrize("length", [1, 2, 3, 10])
def test_the_log_is_folded_into_checkpoints(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    monkeypatch.setattr(limits, "LOG_RECORDS", length)
    device = MemoryDevice()
    store = make_store(device)
    store.create("a")
    items = {}
    for number in range(40):
        key = b"%d" % (number % 15)
        store["a"][key] = items[key] = noise(number * 100, number)
        if number % 10 == 0:
            store.snapshot(f"a@{number}")
        assert store.log.records <= length
        found = reopened(device)
        assert found.log.records <= length
        assert found.txid == store.txid
        assert dict(found["a"].items()) == items
    assert_sound(found)


def test_an_image_that_was_closed_opens_without_a_log(make_store: MakeStore) -> None:
    device = MemoryDevice()
    store = make_store(device)
    store.create("a")
    for number in range(50):
        store["a"][b"%d" % number] = b"v"
    assert store.log.records > 40
    store.close()
    store = cowfs.open_device(device)
    assert store.log.records == 1
    assert len(store["a"]) == 50


def test_a_small_commit_is_few_writes_and_one_flush(make_store: MakeStore) -> None:
    device = RecordingDevice()
    store = make_store(device)
    store.create("a").update((b"%d" % n, noise(100, n)) for n in range(1000))
    for number in range(20):
        before = len(device.log)
        store["a"][b"key %d" % number] = b"value"
        kinds = [type(op).__name__ for op in device.log[before:]]
        assert kinds in (["Write"] * n + ["Flush"] for n in (1, 2, 3))
        written = sum(len(op.data) for op in device.log[before:] if isinstance(op, Write))
        assert written <= 10 * 4096


def test_commits_that_need_not_be_durable_flush_nothing(make_store: MakeStore) -> None:
    device = RecordingDevice()
    store = make_store(device)
    store.create("a")
    before = len(device.log)
    for number in range(20):
        with store.transaction(durable=False) as tx:
            tx["a"][b"%d" % number] = b"v"
    assert "Flush" not in {type(op).__name__ for op in device.log[before:]}
    assert store.durable_txid < store.txid
    store.sync()
    assert store.durable_txid == store.txid
    assert type(device.log[-1]).__name__ == "Flush"
    store.sync()


def test_a_transaction_without_changes_writes_nothing(make_store: MakeStore) -> None:
    device = RecordingDevice()
    store = make_store(device)
    store.create("a")[b"k"] = b"v"
    before, txid = len(device.log), store.txid
    with store.transaction() as tx:
        assert tx["a"][b"k"] == b"v"
        assert not tx["a"].discard(b"other")
    assert (len(device.log), store.txid) == (before, txid)


def test_transactions_with_thousands_of_counts_are_stored(make_store: MakeStore) -> None:
    """Snapshots and then changes everywhere: more counts than a commit record has room for."""
    device = MemoryDevice()
    store = make_store(device, node_size=4096)
    store.create("a").load_sorted((b"%06d" % n, noise(1000, n)) for n in range(6000))
    store.snapshot("a@x")
    expected = {"a": dict(store["a"].items())}
    expected["a@x"] = dict(expected["a"])
    with store.transaction() as tx:
        for n in range(0, 6000, 2):
            tx["a"][b"%06d" % n] = expected["a"][b"%06d" % n] = b"new"
    found = reopened(device)
    assert_holds(found, expected)
    assert_sound(found)
    found.destroy("a@x")
    assert_sound(found)
    assert_sound(reopened(found.device))  # type: ignore[arg-type]


def test_a_checkpoint_asks_for_no_flush_of_its_own(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOG_RECORDS", 4)
    device = RecordingDevice()
    store = make_store(device)
    kv = store.create("a")
    flushes, superblocks = device.log.count(Flush()), set()
    for number in range(20):
        kv[b"%d" % number] = b"v"
        superblocks.add(store.log.superblock.sequence)
    assert len(superblocks) > 3
    assert device.log.count(Flush()) == flushes + 20
    assert_sound(store)


class Gate(MemoryDevice):
    """A device whose flushes wait while it is shut."""

    waits = True

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.open.set()
        self.waiting = threading.Event()

    def flush(self) -> None:
        if not self.open.is_set():
            self.waiting.set()
            assert self.open.wait(60), "nobody opened the gate"


def test_writers_that_flush_nothing_do_not_wait_for_a_checkpoint(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOG_RECORDS", 10)
    device = Gate()
    store = make_store(device)
    store.create("a")
    in_force = store.log.superblock.sequence
    device.open.clear()
    number, was_due = 0, False
    while not (was_due and store.log.due):  # the second one waits for the first
        was_due = store.log.due
        with store.transaction(durable=False) as tx:
            tx["a"][b"%d" % number] = b"v"
        number += 1
    assert device.waiting.wait(60), "no thread completes the first"
    for _ in range(5):
        with store.transaction(durable=False) as tx:
            tx["a"][b"%d" % number] = b"v"
        number += 1
    assert store.durable_txid < store.txid
    device.open.set()
    store.close()
    again = reopened(device)
    assert len(again["a"]) == number
    assert again.log.superblock.sequence > in_force + 1
    assert_sound(again)
