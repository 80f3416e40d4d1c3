"""Transactions that are committed as operations, while their trees stay in memory."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

import cowfs
from cowfs import limits
from cowfs.device import MemoryDevice
from cowfs.space import Space
from faultfuzzer.bytecodes import Stepper

from ..conftest import MakeStore
from ..devices import FailingDevice
from ..plain import assert_sound, noise, reopened


def test_what_empties_a_tree_in_memory_is_kept(make_store: MakeStore) -> None:
    """Neither the tree that is stored nor the catalog shows that anything was done."""
    device = MemoryDevice()
    store = make_store(device)
    data = store.create("a")
    for number in range(limits.UNSTORED_RECORDS):
        data[b"k"] = b"%d" % number
    del data[b"k"]  # too many operations by now: this one stores trees
    assert dict(data.items()) == {}
    assert dict(reopened(device)["a"].items()) == {}


def test_a_run_that_was_kept_for_the_log_changes_its_group_when_it_is_used() -> None:
    """It was free at the last checkpoint, and trees may come to lie in it."""
    space = Space(MemoryDevice(), 4096, 3 * limits.GROUP_BLOCKS, 0)
    start, length = limits.GROUP_BLOCKS + 100, 64
    space.bitmap.set(start, length)
    space.keep_for_log(start, length)
    space.bitmap.clean()
    assert space.take_run(1, 0, log=True) == (start, length)
    assert list(space.bitmap.clean()) == [1]


def kept_and_retired() -> Space:
    """Runs are kept for the log, and others wait to be."""
    space = Space(MemoryDevice(), 4096, 3 * limits.GROUP_BLOCKS, 0)
    for start, length in ((100, 64), (200, 8), (300, 4), (400, 32)):
        space.bitmap.set(start, length)
    space.keep_for_log(100, 64)
    space.keep_for_log(200, 8)
    space.retire(1, [(300, 4), (400, 32)])
    return space


@pytest.mark.parametrize(
    "act",
    [
        lambda space: space.take_run(1, 0),
        lambda space: space.take_run(1, 0, log=True),
        lambda space: space.take_run(100, 0, log=True),
        lambda space: space.take_twin_run(1, 0, 300),
        lambda space: space.release_log(),
        lambda space: space.release(1, 1, 1),
    ],
    ids=["take", "take kept", "take for the log", "take for copies", "release log", "release"],
)
def test_an_interrupt_leaves_no_run_both_free_and_kept_for_the_log_and_loses_none(
    act: Callable[[Space], object],
) -> None:
    """Where a call returns, the interpreter looks for signals, in the midst of a line, too."""
    every, space = Stepper(), kept_and_retired()
    with every.watching():
        act(space)
    fixed = Space(MemoryDevice(), 4096, 3 * limits.GROUP_BLOCKS, 0).used
    points = [(point, passes) for point, n in every.reached.items() for passes in range(n)]
    assert len(points) > 5
    for point, passes in points:
        space, stepper = kept_and_retired(), Stepper(point, passes)
        with pytest.raises(point.error), stepper.watching():
            act(space)
        space.release(1, 1, 1)  # as each transaction begins
        kept = space.kept
        assert space.used == fixed + sum(length for _, length in kept), str(stepper)
        assert all(space.bitmap.count(at, at + length) == length for at, length in kept)


def test_a_load_whose_input_writes_elsewhere_loses_nothing(make_store: MakeStore) -> None:
    """What is dirty is stored meanwhile: the leaf at hand is no part of the tree any more."""
    store = make_store(cache=1 << 20)
    store.create("a")
    store.create("index")
    count = 20_000
    with store.transaction() as tx:
        index = tx["index"]

        def pairs() -> Iterator[tuple[bytes, bytes]]:
            for number in range(count):
                index[b"%08d" % (number * 7919 % count)] = b"x" * 40
                yield b"%08d" % number, b"v" * 40

        tx["a"].load_sorted(pairs())
    assert len(store["a"]) == sum(1 for _ in store["a"].items()) == count
    assert_sound(store)


def test_a_flush_that_failed_is_final_for_an_open_transaction(make_store: MakeStore) -> None:
    """Else its record would say that what was lost is there, and no opening would believe it."""
    device = FailingDevice()
    store = make_store(device)
    store.create("a")
    with store.transaction(durable=False) as tx:
        tx["a"][b"k"] = b"v"
    tx = store.transaction()
    tx["a"][b"much"] = noise(limits.ONE_FLUSH_LIMIT + 1)
    device.countdown = 0
    with pytest.raises(cowfs.FailedError):
        store.sync()
    device.countdown = None
    record = device.read(store.log.next_block * 4096, 4096)
    with pytest.raises(cowfs.FailedError, match="open it anew"):
        tx.commit()
    assert device.read(store.log.next_block * 4096, 4096) == record
    assert_sound(reopened(device))


def test_what_is_acknowledged_can_be_stored_where_blocks_are_larger_than_nodes(
    make_store: MakeStore,
) -> None:
    chance = random.Random(1)
    store = make_store(
        size=40_000_000, block_size=65536, node_size=4096, compression="none", cache=1 << 26
    )
    store.create("a")
    keys: list[bytes] = []
    space = store.io.space
    while space.free - space.reserve >= 60:
        with store.transaction() as tx:
            for number in range(len(keys), len(keys) + 100):
                keys.append(b"%08d" % number)
                tx["a"][keys[-1]] = chance.randbytes(500)
    for _ in range(100):
        with store.transaction() as tx:
            for _ in range(20):
                tx["a"][chance.choice(keys)] = chance.randbytes(500)
    for key in keys:
        del store["a"][key]
    assert_sound(store)


def test_threads_share_a_flush(make_store: MakeStore) -> None:
    """What was written when a flush began is durable, whoever waits for it."""
    store = make_store()
    store.create("a")
    for number in range(3):
        with store.transaction(durable=False) as tx:
            tx["a"][b"%d" % number] = b"v"
    newest = store.txid
    store.durability.make_durable(newest - 2)
    assert store.durable_txid == newest
