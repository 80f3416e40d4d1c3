"""Diff of two versions: exactly what differs, at the cost of what differs."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cowfs
from cowfs.device import MemoryDevice
from cowfs.treediff import diff_items

from ..conftest import MakeStore
from ..plain import Items, noise


def expected(old: Items, new: Items) -> list[tuple[str, bytes]]:
    """What the difference of two dicts is."""
    return [
        ("+" if key not in old else "-" if key not in new else "M", key)
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]


def found(store: cowfs.Store, old: str, new: str) -> list[tuple[str, bytes]]:
    return [(change.op, change.path) for change in store.diff(old, new)]


def nodes_read(store: cowfs.Store, old: str, new: str) -> int:
    """Nodes that a diff reads."""
    visited: list[int] = []
    with store.at(old) as before, store.at(new) as after:
        trees = before._session.tree, after._session.tree
        for _ in diff_items(store.io, *trees, visited):
            pass
    return visited[0]


def test_diff_of_ten_changes_in_100_000_keys_reads_few_nodes(make_store: MakeStore) -> None:
    store = make_store()
    store.create("a").load_sorted((b"%08d" % n, noise(100, n)) for n in range(100_000))
    store.snapshot("a@1")
    with store.transaction() as tx:
        for n in range(10):
            tx["a"][b"%08d" % (n * 9973)] = b"changed"
    store.snapshot("a@2")
    changed = [("M", b"%08d" % (n * 9973)) for n in range(10)]
    assert found(store, "a@1", "a@2") == changed
    assert (
        nodes_read(store, "a@1", "a@2") <= 10 * 2 * 3 + 2
    )  # both sides: leaf and two above; the roots
    assert nodes_read(store, "a@1", "a@1") == 0
    with store.transaction() as tx:  # the same ten next to each other, added and removed
        for n in range(5):
            tx["a"][b"00050000-%d" % n] = b"added"
            del tx["a"][b"%08d" % (60_000 + n)]
    assert len(found(store, "a@2", "a")) == 10
    assert nodes_read(store, "a@2", "a") <= 24


def test_diff_of_trees_of_different_height(make_store: MakeStore) -> None:
    store = make_store(node_size=4096)
    data = store.create("a")
    versions: list[Items] = [{}]
    store.snapshot("a@0")
    for number, count in enumerate((1, 10, 300, 6000, 300, 3), 1):
        with store.transaction() as tx:
            tx["a"].delete_range(b"%05d" % count, None)
            for n in range(0, count, 3):
                tx["a"][b"%05d" % n] = noise(200, n)
        versions.append(dict(data.items()))
        store.snapshot(f"a@{number}")
    for one, old in enumerate(versions):
        for other, new in enumerate(versions):
            assert found(store, f"a@{one}", f"a@{other}") == expected(old, new)


@pytest.mark.parametrize("seed", range(6))
def test_diff_after_any_changes(make_store: MakeStore, seed: int) -> None:
    chance = random.Random(seed)
    store = make_store(node_size=4096)
    store.create("a").load_sorted((b"%05d" % n, noise(150, n)) for n in range(0, 8000, 2))
    states = [dict(store["a"].items())]
    store.snapshot("a@0")
    for number in range(1, 6):
        items = dict(states[-1])
        with store.transaction() as tx:
            for _ in range(chance.choice((1, 20, 400))):
                key = b"%05d" % chance.randrange(9000)
                if chance.random() < 0.4:
                    tx["a"].discard(key)
                    items.pop(key, None)
                else:
                    size = chance.choice((0, 10, 900, 1500, 4000))
                    tx["a"][key] = items[key] = noise(size, number)
            if chance.random() < 0.5:
                start, stop = sorted(b"%05d" % chance.randrange(9000) for _ in range(2))
                tx["a"].delete_range(start, stop)
                items = {key: value for key, value in items.items() if not start <= key < stop}
            tx.snapshot(f"a@{number}")
        states.append(items)
    for (one, old), (other, new) in pairwise(enumerate(states)):
        assert found(store, f"a@{one}", f"a@{other}") == expected(old, new)
        assert found(store, f"a@{other}", f"a@{one}") == expected(new, old)
    assert found(store, "a@0", "a") == expected(states[0], states[-1])


@given(
    st.dictionaries(st.binary(min_size=1, max_size=3), st.binary(max_size=3), max_size=30),
    st.dictionaries(st.binary(min_size=1, max_size=3), st.binary(max_size=3), max_size=30),
)
def test_diff_of_datasets_that_share_nothing(old: Items, new: Items) -> None:
    store = cowfs.open_device(MemoryDevice(), parameters=cowfs.Parameters())
    store.create("a").update(old)
    store.create("b").update(new)
    assert found(store, "a", "b") == expected(old, new)
    assert found(store, "b", "a") == expected(new, old)


def test_a_value_that_was_written_again_is_no_change(store: cowfs.Store) -> None:
    data = store.create("a")
    values = {b"small": noise(10), b"extent": noise(9000), b"records": noise(900_000)}
    data.update(values)
    store.snapshot("a@x")
    data.update({key: noise(50) for key in values})
    data.update(values)
    assert found(store, "a@x", "a") == []
    data[b"extent"] = noise(9000, 1)
    assert found(store, "a@x", "a") == [("M", b"extent")]


def test_a_diff_keeps_its_versions_while_it_goes_on(store: cowfs.Store) -> None:
    data = store.create("a")
    data.update((b"%03d" % n, noise(900, n)) for n in range(300))
    store.snapshot("a@x")
    data.update((b"%03d" % n, b"new") for n in range(0, 300, 2))
    changes = store.diff("a@x", "a")
    first = next(changes)
    store.destroy("a@x")
    for round_ in range(5):
        data.update((b"%03d" % n, noise(900, round_)) for n in range(0, 300, 3))
        store.io.cache.evict(store.io.cache.limit)
    rest = [change.path for change in changes]
    assert [first.path, *rest] == [b"%03d" % n for n in range(0, 300, 2)]
    assert store.readers() == []


def test_a_diff_that_is_not_finished_holds_nothing(store: cowfs.Store) -> None:
    store.create("a")[b"k"] = b"v"
    store.snapshot("a@x")
    store["a"][b"k"] = b"w"
    changes = store.diff("a@x", "a")
    next(changes)
    del changes
    store.diff("a@x", "a")  # never begun
    assert store.readers() == []
