"""Whose space it is: what `list` and `space` say is what destroying really gives back."""

from __future__ import annotations

import random

import pytest

import cowfs

from ..conftest import MakeStore
from ..plain import assert_sound, noise


def settled(store: cowfs.Store) -> cowfs.SpaceReport:
    """The report when nothing waits for a next commit any more."""
    for _ in range(3):
        with store.transaction() as tx:
            tx.create("settle")
            tx.destroy("settle")
    space = store.space()
    parts = space.live + space.pinned + space.reclaimable + space.metadata + space.free
    assert parts == space.total
    assert space.reserve <= space.free
    return space


def test_an_empty_store_has_nothing_live(store: cowfs.Store) -> None:
    space = settled(store)
    assert space.live == space.pinned == 0
    assert space.metadata < 1 << 19
    assert space.limit == space.reserve == 0


@pytest.mark.parametrize("seed", range(6))
def test_exclusive_is_what_destroying_frees(make_store: MakeStore, seed: int) -> None:
    chance = random.Random(seed)
    store = make_store(node_size=chance.choice((4096, 8192)))
    store.create("a")
    for number in range(5):
        with store.transaction() as tx:
            for _ in range(chance.choice((10, 300))):
                size = chance.choice((10, 500, 5000, 200_000)) if number else 100
                tx["a"][b"%d" % chance.randrange(600)] = noise(size, number)
            if chance.random() < 0.5:
                tx["a"].delete_range(b"%d" % chance.randrange(9), b"%d" % chance.randrange(9))
            tx.snapshot(f"a@{number}")
    store.clone("a@2", "b")
    store["b"].update((b"b%d" % n, noise(300, n)) for n in range(100))
    while store.list():
        for entry in store.list():
            assert entry.exclusive <= entry.referenced == entry.stored
            assert entry.logical == sum(
                len(key) + len(value)
                for key, value in (
                    store.at(entry.name) if entry.is_snapshot else store[entry.dataset]
                ).items()
            )
        doomed = chance.choice(
            [e for e in store.list() if e.is_snapshot]
            or [e for e in store.list() if not e.is_snapshot]
        )
        before = settled(store)
        store.destroy(doomed.name)
        after = settled(store)
        assert before.live + before.pinned - after.live - after.pinned == doomed.exclusive
        assert_sound(store)


def test_live_and_pinned_tell_heads_from_snapshots(store: cowfs.Store) -> None:
    data = store.create("a")
    data.update((b"%d" % n, noise(3000, n)) for n in range(200))
    first = settled(store)
    assert first.pinned == 0
    assert first.live == store.list()[0].referenced > 200 * 3000
    store.snapshot("a@x")
    same = settled(store)
    assert (same.live, same.pinned) == (first.live, 0)
    data.update((b"%d" % n, noise(3000, n + 1)) for n in range(200))
    both = settled(store)
    assert both.pinned == next(e for e in store.list() if e.is_snapshot).exclusive
    assert 0.9 * first.live < both.pinned < 1.1 * first.live
    assert 0.9 * first.live < both.live < 1.1 * first.live


def test_what_a_reader_keeps_is_reclaimable_and_the_reader_is_named(store: cowfs.Store) -> None:
    data = store.create("a")
    data.update((b"%d" % n, noise(3000, n)) for n in range(100))
    with store.at("a"):
        data.update((b"%d" % n, noise(3000, n + 1)) for n in range(100))
        assert store.space().reclaimable > 100 * 3000
        assert [reader.name for reader in store.readers()] == ["a"]
        assert store.readers()[0].since > 0
    assert settled(store).reclaimable < 1 << 18


def test_logical_counts_what_was_put_in_and_stored_what_it_takes(make_store: MakeStore) -> None:
    store = make_store(compression="lz4")
    store.create("a")[b"zeros"] = b"x" * 1_000_000
    entry = store.list()[0]
    assert entry.logical == 1_000_005
    assert entry.stored < 100_000
    assert entry.items == 1


def test_a_limited_image_tells_its_limit_and_its_reserve(make_store: MakeStore) -> None:
    store = make_store(size=16 << 20)
    space = settled(store)
    assert space.total == space.limit == 16 << 20
    assert 0 < space.reserve < space.total // 8
