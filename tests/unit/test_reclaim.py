"""Destroying goes in bounded steps, each its own commit, with its position in the store."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

import cowfs
from cowfs import limits
from cowfs.device import MemoryDevice

from ..conftest import MakeStore
from ..plain import Items, assert_holds, assert_sound, contents, noise, reopened

STEP = 7


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REAP_BLOCKS", STEP)


def items(first: int, last: int) -> Items:
    """A tree of several levels, with values of all kinds: inline, one extent, many records."""
    found = {b"%05d" % n + b"." * 200: noise(n % 5 * 150, n) for n in range(first, last)}
    found[b"extent %d" % first] = noise(60_000, first)
    found[b"records %d" % first] = noise(1_500_000, first)
    return found


def filled(make_store: MakeStore, device: MemoryDevice) -> tuple[cowfs.Store, dict[str, Items]]:
    """Two datasets and snapshots that share a part of their blocks."""
    store = make_store(device, node_size=4096, cache=1 << 20)
    store.create("a").load_sorted(sorted(items(0, 800).items()))
    store.snapshot("a@1")
    with store.transaction() as tx:
        tx["a"].update(items(400, 500))
        tx["a"].delete_range(b"00600", b"00700")
    store.snapshot("a@2")
    store.clone("a@1", "b")
    with store.transaction() as tx:
        tx["b"].update(items(700, 1000))
    return store, contents(store)


def pending(store: cowfs.Store) -> int:
    """Subtrees that are still to be destroyed."""
    with store.pinned("test") as catalog:
        return sum(1 for _ in catalog.drops())


def destroy(store: cowfs.Store, name: str) -> None:
    """Only the first step: the name goes."""
    with store.transaction() as tx:
        tx.destroy(name, recursive=True)


@pytest.mark.parametrize("names", [["a@1"], ["a@2", "a@1"], ["b"], ["a"], ["a", "b"]])
def test_destroying_goes_on_after_a_crash_between_any_two_steps(
    make_store: MakeStore, names: list[str]
) -> None:
    device = MemoryDevice()
    store, expected = filled(make_store, device)
    for name in names:
        destroy(store, name)
        expected = {
            other: found
            for other, found in expected.items()
            if other != name and not other.startswith(name + "@")
        }
    steps = 0
    more = True
    while more:
        store = reopened(device, cache=1 << 20)
        device = store.device  # type: ignore[assignment]
        assert_sound(store)
        if steps % 10 == 0:
            assert_holds(store, expected)
        with store.transaction() as tx:
            more = tx.reclaim()
        steps += 1
    assert pending(store) == 0
    assert_sound(store)
    assert_holds(store, expected)
    if len(names) > 1 and "b" in names:
        assert steps > 20
        space = store.space()
        assert space.live == space.pinned == 0


def test_a_step_is_bounded(make_store: MakeStore) -> None:
    """No commit frees more than its budget of nodes and extents, whatever there is to free."""
    store, _ = filled(make_store, MemoryDevice())
    report = store.check()
    steps = 0
    for name in ("a", "b"):
        destroy(store, name)
        while pending(store):
            steps += 1
            with store.transaction() as tx:
                tx.reclaim()
    assert (steps + 2) * (STEP + 1) >= report.nodes + report.extents - 10


def test_reclaim_finishes_what_a_crash_interrupted(make_store: MakeStore) -> None:
    device = MemoryDevice()
    store, _ = filled(make_store, device)
    destroy(store, "a")
    found = reopened(device)
    assert pending(found) > 0
    assert found.space().reclaimable > 0
    found.reclaim()
    assert pending(found) == 0
    assert_sound(found)
    assert list(found) == ["b"]


class CountingDevice(MemoryDevice):
    """Counts reads and flushes, and calls back at each write."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = self.flushes = 0
        self.at_write: Callable[[], None] = lambda: None

    def read(self, offset: int, length: int) -> bytes:
        self.reads += 1
        return super().read(offset, length)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self.at_write()
        super().write(offset, data)

    def flush(self) -> None:
        self.flushes += 1
        super().flush()


def test_a_step_reads_a_bounded_number_of_nodes(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where all that it reads holds next to nothing."""
    device = CountingDevice()
    store = make_store(device, node_size=4096, cache=1 << 20)
    keys = [b"%04d" % number + b"." * 1000 for number in range(600)]  # three in a leaf
    with store.transaction() as tx:
        tx.create("a").update((key, noise(3000)) for key in keys)
    monkeypatch.setattr(limits, "REAP_BLOCKS", 64)
    destroy(store, "a")
    most = 0
    while pending(store):
        before = device.reads
        with store.transaction() as tx:
            tx.reclaim()
        most = max(most, device.reads - before)
    assert 0 < most <= 64 // limits.REAP_READ + 8  # and the path that leads to where it goes on


def test_few_steps_are_flushed_and_the_last_is_durable(make_store: MakeStore) -> None:
    device = CountingDevice()
    store, _ = filled(make_store, device)
    destroy(store, "a")
    first, before = store.txid, device.flushes
    store.reclaim()
    steps = store.txid - first
    assert steps > 2 * limits.REAP_FLUSH
    assert device.flushes - before <= steps / limits.REAP_FLUSH + 2
    assert store.durable_txid == store.txid
    assert pending(reopened(device)) == 0


def test_a_writer_that_waits_has_its_turn_before_the_next_step(make_store: MakeStore) -> None:
    device = CountingDevice()
    store, _ = filled(make_store, device)
    destroy(store, "a")
    first = store.txid
    turns: list[int] = []

    def write() -> None:
        with store.transaction() as tx:
            turns.append(tx.txid)

    writer = threading.Thread(target=write)

    def begin_to_wait() -> None:
        """In the midst of the first step: the writer comes, and waits."""
        device.at_write = lambda: None
        writer.start()
        while not store._next.locked():
            pass

    device.at_write = begin_to_wait
    store.reclaim()
    writer.join()
    assert turns == [first + 2]
    assert store.txid > first + 3


def test_writers_get_their_turn_between_the_steps(make_store: MakeStore) -> None:
    """What is left to destroy does not disturb other transactions, nor they it."""
    store, expected = filled(make_store, MemoryDevice())
    destroy(store, "b")
    del expected["b"]
    number = 0
    while pending(store):
        number += 1
        with store.transaction() as tx:
            tx["a"][b"meanwhile %d" % number] = expected["a"][b"meanwhile %d" % number] = noise(500)
            if number % 3 == 0:
                tx.snapshot(f"a@m{number}")
                expected[f"a@m{number}"] = dict(expected["a"])
        with store.transaction() as tx:
            tx.reclaim()
    assert_holds(store, expected)
    assert_sound(store)


def test_deleted_ranges_and_large_values_are_released_in_steps_too(make_store: MakeStore) -> None:
    device = MemoryDevice()
    store, expected = filled(make_store, device)
    with store.transaction() as tx:
        tx["b"].delete_range(b"0", b"1")
        del tx["b"][b"records 700"]
    expected["b"] = {key: value for key, value in expected["b"].items() if key >= b"1"}
    del expected["b"][b"records 700"]
    assert pending(store) > 0
    assert_holds(reopened(device), expected)
    store.reclaim()
    assert pending(store) == 0
    assert_sound(store)
    assert_holds(store, expected)


def test_a_rollback_of_a_large_change_is_released_in_steps(make_store: MakeStore) -> None:
    device = MemoryDevice()
    store, expected = filled(make_store, device)
    with store.transaction() as tx:
        tx.rollback("a@1")
    expected["a"] = expected["a@1"]
    assert_holds(store, expected)
    assert_sound(store)
    store.reclaim()
    assert_sound(store)
    assert_holds(reopened(device), expected)
