"""Names of datasets and snapshots: which are allowed, and what exists where."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import cowfs

from ..plain import assert_sound, contents

GOOD = [
    "a",
    "A",
    "0",
    "_",
    "a.b",
    "a-b",
    "a:b",
    "a_b",
    "a/b",
    "a/b/c",
    "a/0",
    "2024-01-01T00:00:00",
]
GOOD += ["a" * 200, "a..b", "a.", "a-", "a:", "vm/disk.img"]
BAD = [
    "",
    ".",
    ".a",
    "-a",
    ":a",
    "/a",
    "a/",
    "a//b",
    "a/.b",
    "a/-b",
    "a b",
    "a\n",
    "a\0",
    "ä",
    "a@",
]
BAD += ["a\udcff", "\ud800", "a" * 5000]
BAD += ["@a", "a@b@c", "a*", "a\\b", "a" * 201, "../a", "a/../b", "a/..", "a+b", "~a", "a,b"]


@pytest.mark.parametrize("name", GOOD)
def test_good_names_are_taken_everywhere(store: cowfs.Store, name: str) -> None:
    store.create(name)[b"k"] = b"v"
    snapshot = "a" * 200 if len(name) == 200 else name.replace("/", ".")
    store.snapshot(f"{name}@{snapshot}")
    store.clone(f"{name}@{snapshot}", "clone")
    store.rename("clone", "z" + name[1:])
    assert list(store) == sorted([name, "z" + name[1:]])
    assert name in store and "clone" not in store
    assert contents(store).keys() == {name, f"{name}@{snapshot}", "z" + name[1:]}


@pytest.mark.parametrize("name", BAD)
def test_bad_names_are_refused_with_what_is_allowed(store: cowfs.Store, name: str) -> None:
    store.create("a")
    store.snapshot("a@x")
    before = store.list()
    uses: list[Callable[[], Any]] = [
        lambda: store.create(name),
        lambda: store.rename("a", name),
        lambda: store.clone("a@x", name),
        lambda: store.snapshot(f"a@{name}"),
        lambda: store.rename("a@x", f"a@{name}"),
        lambda: store.rollback("a@x", keep=f"a@{name}"),
        lambda: store.snapshot(f"{name}@y"),
        lambda: store.destroy(name),
        lambda: store[name],
        lambda: store.at(name),
    ]
    for use in uses:
        with pytest.raises(cowfs.UsageError, match=r"allowed are|named DATASET@NAME"):
            use()
    assert name not in store
    assert store.list() == before
    assert_sound(store)


@pytest.mark.parametrize("name", ["a/b", "x/y/z"])
def test_snapshot_names_have_no_slash(store: cowfs.Store, name: str) -> None:
    store.create("a")
    with pytest.raises(cowfs.UsageError, match="allowed are"):
        store.snapshot(f"a@{name}")


@pytest.mark.parametrize("name", [None, 1, b"a", ["a"]])
def test_names_are_text(store: cowfs.Store, name: Any) -> None:
    store.create("kv")
    store.snapshot("kv@s")
    uses: list[Callable[[Any], Any]] = [
        store.create,
        store.destroy,
        store.snapshot,
        store.rollback,
        store.at,
        store.__getitem__,
        lambda name: store.rename(name, "b"),
        lambda name: store.rename("kv", name),
        lambda name: store.clone(name, "b"),
        lambda name: store.clone("kv", name),
    ]
    for use in uses:
        with pytest.raises(cowfs.UsageError):
            use(name)
    with store.transaction() as tx, pytest.raises(cowfs.UsageError):
        tx[name]
    if name is not None:
        with pytest.raises(cowfs.UsageError):
            store.rollback("kv@s", keep=name)
    assert list(store) == ["kv"]
    assert_sound(store)
    assert name not in store


def test_names_that_are_taken_are_refused(store: cowfs.Store) -> None:
    for name in ("a", "b"):
        store.create(name)[b"k"] = name.encode()
    store.snapshot("a@x", "a@y")
    uses: list[Callable[[], Any]] = [
        lambda: store.create("a"),
        lambda: store.rename("a", "b"),
        lambda: store.rename("a", "a"),
        lambda: store.clone("a@x", "b"),
        lambda: store.snapshot("a@x"),
        lambda: store.snapshot("b@x", "a@x"),
        lambda: store.rename("a@x", "a@y"),
        lambda: store.rollback("a@x", keep="y"),
    ]
    before = store.list()
    for use in uses:
        with pytest.raises(cowfs.ExistsError, match="exists already"):
            use()
    assert store.list() == before


def test_a_snapshot_named_twice_is_refused(store: cowfs.Store) -> None:
    store.create("a")
    with pytest.raises(cowfs.Error):
        store.snapshot("a@x", "a@x")
    assert [entry.name for entry in store.list()] == ["a"]


def test_names_that_do_not_exist_are_named_and_others_suggested(store: cowfs.Store) -> None:
    store.create("users")
    store.snapshot("users@monday")
    for name, hint in (("user", "users"), ("users@tuesday", "monday"), ("user@monday", "users")):
        uses: list[Callable[[], Any]] = [
            lambda name=name: store.destroy(name),  # type: ignore[misc]
            lambda name=name: store.at(name),  # type: ignore[misc]
            lambda name=name: store.diff(name, "users"),  # type: ignore[misc]
            lambda name=name: store.diff("users", name),  # type: ignore[misc]
            lambda name=name: store.clone(name, "other"),  # type: ignore[misc]
        ]
        for use in uses:
            with pytest.raises(cowfs.NotFoundError, match=hint) as caught:
                use()
            assert isinstance(caught.value, KeyError)
    assert list(store) == ["users"]


def test_a_snapshot_does_not_move_to_another_dataset(store: cowfs.Store) -> None:
    store.create("a")
    store.create("b")
    store.snapshot("a@x")
    with pytest.raises(cowfs.UsageError, match="clone"):
        store.rename("a@x", "b@x")
    store.rename("a@x", "y")
    assert [entry.name for entry in store.list()] == ["a", "a@y", "b"]


def test_renaming_takes_the_snapshots_along(store: cowfs.Store) -> None:
    store.create("a")[b"k"] = b"1"
    store.snapshot("a@x")
    store["a"][b"k"] = b"2"
    store.rename("a", "b/c")
    assert contents(store) == {"b/c": {b"k": b"2"}, "b/c@x": {b"k": b"1"}}
    store.rollback("b/c@x")
    assert store["b/c"][b"k"] == b"1"


def test_names_can_be_swapped_in_one_transaction(store: cowfs.Store) -> None:
    for name in ("a", "b"):
        store.create(name)[b"k"] = name.encode()
    with store.transaction() as tx:
        tx["a"][b"new"] = b"in a"
        tx.rename("a", "tmp")
        tx.rename("b", "a")
        tx.rename("tmp", "b")
        tx["a"][b"later"] = b"in what was b"
    assert contents(store) == {
        "a": {b"k": b"b", b"later": b"in what was b"},
        "b": {b"k": b"a", b"new": b"in a"},
    }
    assert_sound(store)


def test_a_name_can_be_used_again_in_the_same_transaction(store: cowfs.Store) -> None:
    store.create("a")[b"k"] = b"old"
    with store.transaction() as tx:
        old = tx["a"]
        tx.destroy("a")
        tx.create("a")[b"k"] = b"new"
        assert dict(tx["a"].items()) == {b"k": b"new"}
        with pytest.raises(cowfs.ClosedError):
            old[b"k"]
    assert contents(store) == {"a": {b"k": b"new"}}
    assert_sound(store)


def test_a_dataset_with_snapshots_is_destroyed_only_as_a_whole(store: cowfs.Store) -> None:
    store.create("a")
    store.snapshot("a@x")
    with pytest.raises(cowfs.UsageError, match="a@x"):
        store.destroy("a")
    store.destroy("a", recursive=True)
    assert store.list() == []
    assert_sound(store)


def test_list_tells_kind_time_and_size(store: cowfs.Store) -> None:
    before = datetime.now(UTC)
    store.create("k")[b"key"] = b"value"
    store.create("v", kind="volume", size=1 << 30)
    store.create("f", kind="fs")
    store.snapshot("k@2", "v@1")
    store.snapshot("k@1")
    after = datetime.now(UTC)
    entries = store.list()
    assert [entry.name for entry in entries] == ["f", "k", "k@2", "k@1", "v", "v@1"]
    assert [entry.kind for entry in entries] == ["fs", "kv", "kv", "kv", "volume", "volume"]
    assert [entry.is_snapshot for entry in entries] == [False, False, True, True, False, True]
    assert {entry.dataset for entry in entries} == {"f", "k", "v"}
    assert [entry.size for entry in entries if entry.kind == "volume"] == [1 << 30, 1 << 30]
    for entry in entries:
        assert before - timedelta(milliseconds=1) <= entry.created <= after
    assert entries[1].items == 1 and entries[1].logical == 8


@pytest.mark.parametrize(
    ("kind", "size", "error"),
    [
        ("tree", None, cowfs.KindError),
        ("", None, cowfs.KindError),
        (None, None, cowfs.KindError),
        ("kv", 100, cowfs.UsageError),
        ("fs", 100, cowfs.UsageError),
        ("volume", None, cowfs.UsageError),
        ("volume", 0, cowfs.UsageError),
        ("volume", -1, cowfs.UsageError),
        ("volume", 1 << 63, cowfs.UsageError),
        ("volume", "8G", cowfs.UsageError),
        ("volume", 1.5, cowfs.UsageError),
    ],
)
def test_wrong_kinds_and_sizes_are_refused(
    store: cowfs.Store, kind: Any, size: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        store.create("a", kind, size)
    assert list(store) == []
    assert_sound(store)


def test_diff_needs_two_of_one_kind(store: cowfs.Store) -> None:
    store.create("k")
    store.create("v", kind="volume", size=4096)
    with pytest.raises(cowfs.KindError, match="of one kind"):
        store.diff("k", "v")
    assert store.readers() == []
