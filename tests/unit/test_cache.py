"""The cache of nodes and records: one budget, kept whatever is read and written."""

from __future__ import annotations

import random

import pytest

import cowfs
from cowfs import limits
from cowfs._node import Cache
from cowfs.device import MemoryDevice

from ..conftest import MakeStore
from ..plain import assert_sound, noise

LARGEST = limits.RECORD_SIZE + limits.DEFAULT_NODE_SIZE
"""What may be over the budget for a moment: what was just read, and the node on the way to it."""


def record(block: int, size: int) -> tuple[int, bytes, bytes]:
    return block, noise(16, block), noise(size, block)


def test_records_are_found_until_they_are_evicted() -> None:
    cache = Cache(10_000)
    for block in range(1, 40):
        cache.add_record(*record(block, 900))
        assert cache.used <= 10_000
        assert cache.record(block, noise(16, block)) == noise(900, block)
    found = [block for block in range(1, 40) if cache.record(block, noise(16, block)) is not None]
    assert 5 <= len(found) <= 11
    assert cache.record(39, b"another checksum") is None
    assert cache.record(1000, noise(16, 1000)) is None


def test_what_is_used_stays_and_what_is_not_goes() -> None:
    cache = Cache(10_000)
    for block in range(1, 9):
        cache.add_record(*record(block, 900))
    for block in range(100, 200):
        assert cache.record(3, noise(16, 3)) == noise(900, 3)
        cache.add_record(*record(block, 900))
    assert cache.record(4, noise(16, 4)) is None


def test_a_block_that_was_written_anew_is_another_record() -> None:
    cache = Cache(10_000)
    cache.add_record(7, b"old checksum 16b", b"old")
    cache.add_record(7, b"new checksum 16b", b"new")
    assert cache.record(7, b"new checksum 16b") == b"new"
    assert cache.record(7, b"old checksum 16b") is None


def test_a_record_larger_than_the_budget_is_not_kept() -> None:
    cache = Cache(10_000)
    cache.add_record(*record(1, 50_000))
    assert cache.used <= 10_000


def test_clearing_drops_everything_and_keeps_the_budget() -> None:
    cache = Cache(100_000)
    for block in range(1, 50):
        cache.add_record(*record(block, 900))
    cache.evict(cache.limit)
    assert cache.used == 0
    assert cache.record(49, noise(16, 49)) is None
    assert cache.limit == 100_000


@pytest.mark.parametrize("cache", [1 << 20, 2 << 20])
def test_the_budget_is_kept_whatever_happens(make_store: MakeStore, cache: int) -> None:
    chance = random.Random(cache)
    store = make_store(MemoryDevice(), cache=cache)
    store.create("a").load_sorted((b"%06d" % n, noise(300, n)) for n in range(20_000))
    store["a"].update((b"large %d" % n, noise(60_000, n)) for n in range(50))
    bound = cache + LARGEST

    def look() -> None:
        assert store.io.cache.used <= bound

    for _ in range(5):
        with store.at("a") as view:
            for number, _ in enumerate(view.items(reverse=chance.random() < 0.5)):
                if number % 100 == 0:
                    look()
            for _ in range(2000):
                view.get(b"%06d" % chance.randrange(20_000))
                look()
        with store.transaction() as tx:
            for _ in range(3000):
                tx["a"][b"%06d" % chance.randrange(20_000)] = noise(300)
                assert store.io.cache.used <= bound + cache  # a flush makes its nodes clean at once
        look()
        assert store.check().ok
        look()


def test_reading_through_the_smallest_cache_gives_the_same(make_store: MakeStore) -> None:
    device = MemoryDevice()
    store = make_store(device, cache=1 << 25, node_size=32768)
    items = {b"%06d" % n: noise(n % 3000, n) for n in range(4000)}
    store.create("a").update(items)
    small = cowfs.open_device(device, readonly=True, cache=limits.MIN_CACHE)
    with small.at("a") as view:
        scans = [view.items() for _ in range(20)]
        for pairs in zip(*scans, strict=True):
            assert len(set(pairs)) == 1
            assert items[pairs[0][0]] == pairs[0][1]
    assert_sound(store)


def test_reading_a_large_file_record_by_record_does_not_sweep_the_cache(
    make_store: MakeStore,
) -> None:
    store = make_store(cache=2 * limits.MIB)
    files = store.create("files", "fs")
    size = limits.RECORD_SIZE
    text = b"a text that shrinks " * (size // 20) + bytes(size % 20)
    content = noise(31 * size, 1) + text + noise(size // 2, 2)
    with files.open("large", "wb") as file:
        file.write(content)
    store.io.cache.evict(store.io.cache.limit)
    with files.open("large", "rb", buffering=0) as file:
        assert b"".join(iter(lambda: file.read(size), b"")) == content
        whole = store.io.cache.used
        assert size < whole < 2 * size, "the one record that had to be decompressed, and nodes"
        file.seek(5 * size)
        assert file.read(100) == content[5 * size :][:100]
        assert store.io.cache.used > whole + size, "a part of a record: more of it is to follow"
