"""Transactions larger than memory: what is dirty spills to the image before the commit."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

import cowfs
from cowfs import limits
from cowfs.device import MemoryDevice

from ..conftest import MakeStore
from ..plain import assert_holds, assert_sound, contents, noise, reopened, text

SMALLEST = limits.MIN_CACHE


def start(make_store: MakeStore, device: MemoryDevice) -> cowfs.Store:
    """A store with something in it, some of that shared with a snapshot."""
    store = make_store(device, cache=SMALLEST)
    store.create("a").update((b"%d" % n, noise(900, n)) for n in range(500))
    store.snapshot("a@x")
    with store.transaction() as tx:
        for n in range(0, 500, 3):
            tx["a"][b"%d" % n] = noise(1000, n)
    return store


def change_much(tx: cowfs.Transaction, items: dict[bytes, bytes], seed: int) -> None:
    """Some 15 MB of changes: random puts, deletes, large values, and all of it again."""
    chance = random.Random(seed)
    data = tx["a"]
    for _ in range(2):
        for n in range(5000):
            key = b"%d" % chance.randrange(8000)
            if n % 7 == 0:
                assert data.discard(key) == (items.pop(key, None) is not None)
            elif n % 500 == 0:
                items[key] = data[key] = text(300_000, n)
            else:
                items[key] = data[key] = noise(chance.randrange(1500), n)


def test_a_transaction_that_spills_is_committed_whole(make_store: MakeStore) -> None:
    device = MemoryDevice()
    store = start(make_store, device)
    expected = contents(store)
    with store.transaction() as tx:
        change_much(tx, expected["a"], 1)
        assert store.io.writer.written > 8 * SMALLEST  # it did spill
        assert dict(tx["a"].items()) == expected["a"]
    for found in (store, reopened(device)):
        assert_holds(found, expected)
        assert_sound(found)


def test_aborting_after_spilling_gives_everything_back(make_store: MakeStore) -> None:
    device = MemoryDevice()
    store = start(make_store, device)
    before = contents(store)
    used = store.io.space.used
    sizes = []
    for seed in range(4):
        tx = store.transaction()
        change_much(tx, dict(before["a"]), seed)
        tx.snapshot("a@y")
        tx.create("other").update(dict.fromkeys((b"%d" % n for n in range(99)), b"v"))
        tx.abort()
        assert store.io.space.used <= used
        assert_sound(store)
        assert_holds(store, before)
        sizes.append(device.size())
    assert sizes[-1] <= max(sizes[:2]) * 1.1
    assert_holds(reopened(device), before)


def test_a_crash_after_spilling_leaves_no_trace(make_store: MakeStore) -> None:
    device = MemoryDevice()
    store = start(make_store, device)
    before = contents(store)
    tx = store.transaction()
    change_much(tx, dict(before["a"]), 3)
    found = reopened(device)
    tx.abort()
    assert_holds(found, before)
    assert_sound(found)
    found["a"][b"k"] = b"v"
    assert_sound(found)


def test_overwriting_within_one_transaction_uses_its_own_blocks_again(
    make_store: MakeStore,
) -> None:
    device = MemoryDevice()
    store = make_store(device, cache=SMALLEST)
    store.create("a")
    with store.transaction() as tx:
        for number in range(60):
            for key in range(2000):
                tx["a"][b"%05d" % (key * 7919 % 2000)] = noise(1000, number)
    assert device.size() < 24 << 20  # of 120 MB that were put, 2 MB stay
    assert dict(store["a"].items()) == {b"%05d" % key: noise(1000, 59) for key in range(2000)}
    assert_sound(store)


@pytest.mark.parametrize("durable", [True, False])
def test_one_transaction_may_fill_and_empty_a_dataset(make_store: MakeStore, durable: bool) -> None:
    device = MemoryDevice()
    store = make_store(device, cache=SMALLEST)
    store.create("a")
    for _ in range(3):
        with store.transaction(durable=durable) as tx:
            tx["a"].load_sorted((b"%06d" % n, noise(700, n)) for n in range(6000))
            tx["a"][b"big"] = noise(3 << 20)
            tx["a"].clear()
            tx["a"][b"last"] = b"one"
    store.reclaim()
    assert_holds(store, {"a": {b"last": b"one"}})
    assert_sound(store)
    assert_sound(reopened(device))


CHILD = """
import os
import sys
import cowfs

MIB = 1 << 20


def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024


path, job, cache = sys.argv[1], sys.argv[2], int(sys.argv[3]) * MIB
chunk = os.urandom(MIB)
with cowfs.open(path, "n" if job != "scan" else "w", cache=cache) as store:
    if job != "scan":
        store.create("a")
    if job == "values":
        with store.transaction() as tx:
            for number in range(300):
                tx["a"][b"%d" % number] = number.to_bytes(8, "big") + chunk
    elif job == "small":
        with store.transaction() as tx:
            for number in range(90_000):
                key = (number * 2654435761 % (1 << 32)).to_bytes(8, "big")
                tx["a"][key] = chunk[number : number + 1000]
    elif job == "stream":
        with store.transaction() as tx, tx["a"].open(b"big", "wb") as file:
            for number in range(300):
                file.write(number.to_bytes(8, "big") + chunk)
    else:
        with store.at("a") as view:
            assert sum(len(value) for _, value in view.items()) > 80 * MIB
            for key in view.keys(reverse=True):
                view[key]
print(peak())
"""


def peak(path: Path, job: str, cache: int) -> int:
    """Most resident memory of a child process, in MiB. (getrusage would count this process's.)"""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), job, str(cache)],
        stdout=subprocess.PIPE,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    return int(done.stdout)


@pytest.mark.parametrize("job", ["values", "stream"])
def test_memory_stays_within_the_cache_and_100_mib_while_values_are_loaded(
    tmp_path: Path, job: str
) -> None:
    cache = 8
    assert peak(tmp_path / "m.cow", job, cache) < cache + 100


def test_memory_stays_within_the_cache_and_100_mib_with_small_items(tmp_path: Path) -> None:
    """Random puts in one transaction, then scans of an image ten times the cache."""
    cache = 8
    path = tmp_path / "m.cow"
    assert peak(path, "small", cache) < cache + 100
    assert path.stat().st_size > 10 * cache << 20
    assert peak(path, "scan", cache) < cache + 100
