"""The kv kind: a MutableMapping with ordered ranges, the same on views, transactions and live."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import cowfs
from cowfs import limits
from cowfs.kv import KV

from ..conftest import MakeStore
from ..plain import assert_sound, contents, noise, text

ITEMS = {b"%d" % n + b"\xff" * (n % 3): noise(n * 40, n) for n in range(60)}


@pytest.fixture
def data(store: cowfs.Store) -> KV:
    """A live dataset with something in it."""
    data: KV = store.create("a")
    with store.transaction() as tx:
        tx["a"].update(ITEMS)
    return data


@contextmanager
def opened(store: cowfs.Store, how: str) -> Iterator[KV]:
    if how == "live":
        yield store["a"]
    elif how == "view":
        with store.at("a") as view:
            yield view
    else:
        with store.transaction() as tx:
            yield tx["a"]


HOW = pytest.mark.parametrize("how", ["live", "view", "transaction"])
WRITABLE = pytest.mark.parametrize("how", ["live", "transaction"])


@HOW
def test_reads_like_a_dict_in_key_order(store: cowfs.Store, data: KV, how: str) -> None:
    with opened(store, how) as kv:
        assert list(kv) == list(kv.keys()) == sorted(ITEMS)
        assert list(kv.values()) == [ITEMS[key] for key in sorted(ITEMS)]
        assert dict(kv.items()) == dict(kv) == ITEMS
        assert kv == ITEMS and len(kv) == len(ITEMS) and kv
        assert b"7\xff" in kv and b"7" not in kv
        assert kv[b"7\xff"] == kv.get(b"7\xff") == ITEMS[b"7\xff"]
        assert kv.get(b"7") is None and kv.get(b"7", b"d") == b"d"
        with pytest.raises(KeyError):
            kv[b"7"]
        assert kv.get_many([b"0", b"none", b"0"]) == [ITEMS[b"0"], None, ITEMS[b"0"]]
        assert kv.get_many([b"none"], b"x") == [b"x"]
        assert (kv.kind, kv.name) == ("kv", "a")


@HOW
def test_ranges_are_half_open_and_go_both_ways(store: cowfs.Store, data: KV, how: str) -> None:
    keys = sorted(ITEMS)
    with opened(store, how) as kv:
        for start, stop in [(b"2", b"4"), (None, b"3"), (b"5", None), (b"9", b"1"), (b"3", b"3")]:
            expected = [k for k in keys if (not start or k >= start) and (not stop or k < stop)]
            assert list(kv.keys(start, stop)) == expected
            assert list(kv.keys(start, stop, reverse=True)) == expected[::-1]
            assert list(kv.values(start, stop)) == [ITEMS[key] for key in expected]
            assert list(kv.items(start, stop)) == [(key, ITEMS[key]) for key in expected]
        for prefix in (b"", b"1", b"1\xff", b"\xff", b"59\xff\xff", b"59\xff\xff\xff"):
            expected = [key for key in keys if key.startswith(prefix)]
            assert list(kv.keys(prefix=prefix)) == expected
            assert list(kv.keys(prefix=prefix, reverse=True)) == expected[::-1]
        assert list(kv.keys(b"", b"")) == []


def test_lengths_are_those_of_the_values(store: cowfs.Store) -> None:
    map = store.create("lengths")
    sizes = [0, 1, 100, 5000, 200_000]
    with store.transaction() as tx:
        for number, size in enumerate(sizes):
            tx["lengths"][b"%d" % number] = bytes(size)
        assert [length for _, length in tx["lengths"].lengths()] == sizes
    assert list(map.lengths(b"1", b"4", reverse=True)) == [(b"3", 5000), (b"2", 100), (b"1", 1)]


def test_prefixes_of_the_highest_bytes_end_at_the_end(store: cowfs.Store) -> None:
    kv = store.create("b")
    kv.update({b"\xff": b"1", b"\xff\xff": b"2", b"\xfe\xff": b"3", b"\xff\xff\x00": b"4"})
    assert list(kv.keys(prefix=b"\xff\xff")) == [b"\xff\xff", b"\xff\xff\x00"]
    assert list(kv.keys(prefix=b"\xfe\xff")) == [b"\xfe\xff"]


@WRITABLE
def test_changes_like_a_dict(store: cowfs.Store, data: KV, how: str) -> None:
    model = dict(ITEMS)
    with opened(store, how) as kv:
        for mapping in (kv, model):
            mapping[b"new"] = b"value"
            mapping[b"0"] = b"other"
            mapping.update({b"x": b"1", b"y": b""})
            del mapping[b"1\xff"]
            assert mapping.pop(b"2\xff\xff") == ITEMS[b"2\xff\xff"]
            assert mapping.pop(b"2\xff\xff", b"d") == b"d"
            assert mapping.setdefault(b"x", b"2") == b"1"
            assert mapping.setdefault(b"z", b"2") == b"2"
            with pytest.raises(KeyError):
                del mapping[b"1\xff"]
            with pytest.raises(KeyError):
                mapping.pop(b"1\xff")
        first = min(model)
        assert kv.popitem() == (first, model.pop(first))
        assert dict(kv) == model
        assert kv.discard(b"y") and not kv.discard(b"y")
        del model[b"y"]
        assert kv.delete_range(b"3", b"5") == len([key for key in model if b"3" <= key < b"5"])
        model = {key: value for key, value in model.items() if not b"3" <= key < b"5"}
        assert dict(kv) == model
    assert dict(store["a"]) == model
    with opened(store, how) as kv:
        kv.clear()
        assert len(kv) == 0 and not kv and list(kv) == []
    assert_sound(store)


WRONG: list[tuple[str, type[Exception], Callable[[Any], Any]]] = [
    ("str key", TypeError, lambda kv: kv.__setitem__("k", b"v")),
    ("bytearray key", TypeError, lambda kv: kv.__setitem__(bytearray(b"k"), b"v")),
    ("None key", TypeError, lambda kv: kv.__setitem__(None, b"v")),
    ("str value", TypeError, lambda kv: kv.__setitem__(b"k", "v")),
    ("None value", TypeError, lambda kv: kv.__setitem__(b"k", None)),
    ("memoryview value", TypeError, lambda kv: kv.__setitem__(b"k", memoryview(b"v"))),
    ("large bytearray", TypeError, lambda kv: kv.__setitem__(b"k", bytearray(99_999))),
    ("empty key", ValueError, lambda kv: kv.__setitem__(b"", b"v")),
    ("long key", ValueError, lambda kv: kv.__setitem__(b"k" * 1025, b"v")),
    ("long key, large value", ValueError, lambda kv: kv.__setitem__(b"k" * 1025, noise(99_999))),
    ("empty key, huge value", ValueError, lambda kv: kv.__setitem__(b"", noise(999_999))),
    ("update with a str", TypeError, lambda kv: kv.update({"k": b"v"})),
    ("delete str", TypeError, lambda kv: kv.__delitem__("k")),
    ("delete empty", ValueError, lambda kv: kv.__delitem__(b"")),
    ("discard int", TypeError, lambda kv: kv.discard(1)),
    ("get str", TypeError, lambda kv: kv.get("k")),
    ("get long", ValueError, lambda kv: kv.get(b"k" * 1025)),
    ("item int", TypeError, lambda kv: kv[1]),
    ("str in", TypeError, lambda kv: "k" in kv),
    ("get_many", TypeError, lambda kv: kv.get_many([b"0", "k"])),
    ("range of str", TypeError, lambda kv: list(kv.keys("a"))),
    ("range to int", TypeError, lambda kv: list(kv.items(b"a", 1))),
    ("prefix str", TypeError, lambda kv: list(kv.values(prefix="a"))),
    ("prefix and start", ValueError, lambda kv: list(kv.keys(b"a", prefix=b"a"))),
    ("delete_range str", TypeError, lambda kv: kv.delete_range("a", b"b")),
    ("delete_range int", TypeError, lambda kv: kv.delete_range(None, 3)),
    ("open for append", ValueError, lambda kv: kv.open(b"0", "ab")),
    ("open text", ValueError, lambda kv: kv.open(b"0", "r")),
    ("open str", TypeError, lambda kv: kv.open("k", "wb")),
    ("open empty", ValueError, lambda kv: kv.open(b"", "wb")),
    ("open what is not there", KeyError, lambda kv: kv.open(b"none", "rb")),
    ("load str key", TypeError, lambda kv: kv.load_sorted([("k", b"v")])),
    ("load str value", TypeError, lambda kv: kv.load_sorted([(b"k", "v")])),
    ("load empty key", ValueError, lambda kv: kv.load_sorted([(b"", b"v")])),
    ("load long key", ValueError, lambda kv: kv.load_sorted([(b"k" * 1025, b"v")])),
]


@pytest.mark.parametrize(("error", "use"), [row[1:] for row in WRONG], ids=[r[0] for r in WRONG])
@WRITABLE
def test_wrong_types_and_sizes_raise_at_the_call_and_change_nothing(
    store: cowfs.Store, data: KV, how: str, error: type[Exception], use: Callable[[Any], Any]
) -> None:
    before = contents(store)
    with opened(store, how) as kv:
        with pytest.raises(error) as caught:
            use(kv)
        assert isinstance(caught.value, cowfs.Error)
        assert str(caught.value) and "\n" not in str(caught.value)
        assert dict(kv) == ITEMS
    assert contents(store) == before
    assert_sound(store)


@pytest.mark.parametrize("pairs", [[(b"b", b"1"), (b"a", b"2")], [(b"a", b"1"), (b"a", b"2")]])
def test_load_sorted_refuses_keys_that_do_not_ascend(
    store: cowfs.Store, data: KV, pairs: list[tuple[bytes, bytes]]
) -> None:
    with pytest.raises(cowfs.UsageError, match="ascending"):
        data.load_sorted(pairs)
    assert dict(data) == ITEMS


def test_load_sorted_goes_between_and_over_what_is_there(store: cowfs.Store, data: KV) -> None:
    pairs = {b"%d" % n: noise(n * 300, n) for n in range(100)}
    assert data.load_sorted(sorted(pairs.items())) == 100
    assert dict(data) == ITEMS | pairs
    assert data.load_sorted(iter([])) == 0
    assert_sound(store)


def test_load_sorted_in_front_of_what_is_not_in_memory(store: cowfs.Store) -> None:
    data = store.create("deep")
    keys = [b"%04d" % number + b"-" * 1000 for number in range(1, 400)]
    data.update((key, b"") for key in keys)
    store.snapshot("deep@stored")
    del data[keys.pop(0)]  # the way to it is in memory only, and leads to what can be dropped
    store.io.cache.evict(store.io.cache.limit)
    assert data.load_sorted([(b"0000", b"")]) == 1
    assert list(data) == [b"0000", *keys]


def test_load_sorted_leaves_full_nodes(store: cowfs.Store) -> None:
    data = store.create("b")
    data.load_sorted((b"%08d" % n, noise(100, n)) for n in range(10_000))
    entry = next(entry for entry in store.list() if entry.name == "b")
    assert entry.logical == 10_000 * 108
    assert entry.stored < 1.15 * entry.logical
    assert_sound(store)


def test_an_error_while_loading_on_a_live_dataset_changes_nothing(
    store: cowfs.Store, data: KV
) -> None:
    def pairs() -> Iterator[tuple[bytes, bytes]]:
        for n in range(500):
            yield b"k%03d" % n, noise(3000, n)
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        data.load_sorted(pairs())
    assert dict(data) == ITEMS
    assert_sound(store)


@pytest.mark.parametrize(
    "change",
    [
        lambda kv: kv.__setitem__(b"k", b"v"),
        lambda kv: kv.__delitem__(b"0"),
        lambda kv: kv.discard(b"0"),
        lambda kv: kv.update({b"k": b"v"}),
        lambda kv: kv.delete_range(),
        lambda kv: kv.clear(),
        lambda kv: kv.load_sorted([(b"k", b"v")]),
        lambda kv: kv.open(b"k", "wb"),
        lambda kv: kv.pop(b"0"),
        lambda kv: kv.setdefault(b"k", b"v"),
    ],
)
@pytest.mark.parametrize("name", ["a", "a@x"])
def test_views_cannot_be_changed(
    store: cowfs.Store, data: KV, name: str, change: Callable[[Any], Any]
) -> None:
    store.snapshot("a@x")
    with store.at(name) as view:
        with pytest.raises(cowfs.ReadOnlyError, match=name):
            change(view)
        assert dict(view) == ITEMS
    assert dict(data) == ITEMS


SIZES = [0, 1, 1919, 1920, 1921, 4096, limits.RECORD_SIZE - 1, limits.RECORD_SIZE]
SIZES += [limits.RECORD_SIZE + 1, 5 * limits.RECORD_SIZE, 40 * limits.RECORD_SIZE + 7]


@pytest.mark.parametrize("size", SIZES)
def test_values_of_any_length_come_back(store: cowfs.Store, size: int) -> None:
    data = store.create("b")
    for make in (noise, text, bytes):
        value = make(size)
        data[b"value"] = value
        assert data[b"value"] == value
        store.io.cache.evict(store.io.cache.limit)
        assert data[b"value"] == value
        with data.open(b"value") as file:
            assert file.read() == value
            assert file.seek(size // 3) == size // 3
            assert file.read(1000) == value[size // 3 : size // 3 + 1000]
            assert file.seek(0, io.SEEK_END) == size
            assert file.read() == b""
        assert_sound(store)
    del data[b"value"]
    store.reclaim()
    assert_sound(store)
    assert store.list()[0].referenced == 0


@pytest.mark.parametrize("pieces", [[], [b""], [b"x"], [b"x" * 5000] * 9, [noise(700_000)] * 3])
@WRITABLE
def test_values_can_be_written_as_streams(
    store: cowfs.Store, data: KV, pieces: list[bytes], how: str
) -> None:
    with opened(store, how) as kv:
        for key in (b"0", b"new"):
            with kv.open(key, "wb") as file:
                for piece in pieces:
                    assert file.write(piece) == len(piece)
            assert kv[key] == b"".join(pieces)
    assert store["a"][b"new"] == b"".join(pieces)
    assert_sound(store)


def test_a_stream_in_an_abandoned_transaction_leaves_no_trace(store: cowfs.Store, data: KV) -> None:
    tx = store.transaction()
    with tx["a"].open(b"0", "wb") as file:
        file.write(noise(2_000_000))
    tx.abort()
    assert dict(data) == ITEMS
    assert_sound(store)


def test_closing_a_dataset_of_a_transaction_does_not_lose_its_changes(
    store: cowfs.Store, data: KV
) -> None:
    with store.transaction() as tx:
        with tx["a"] as kv:
            kv[b"new"] = b"value"
        assert tx["a"][b"new"] == b"value"
    assert dict(store["a"]) == ITEMS | {b"new": b"value"}


def test_get_many_finds_what_get_finds_with_a_cache_that_is_too_small(
    make_store: MakeStore,
) -> None:
    store = make_store(cache=1 << 20)
    source = random.Random(0)
    keys = [source.randbytes(12) for _ in range(20_000)]
    with store.transaction() as tx:
        kv = tx.create("a")
        kv.update((key, key * 10) for key in keys)
        kv.update((key, noise(5_000)) for key in keys[:50])
    asked = [*keys, *(source.randbytes(12) for _ in range(2_000))]
    source.shuffle(asked)
    with store.at("a") as view:
        assert view.get_many(asked, b"none") == [view.get(key, b"none") for key in asked]
    with store.transaction() as tx:  # in nodes that are not stored, too
        kv = tx["a"]
        kv.update((key, b"new") for key in keys[:3_000])
        assert kv.get_many(asked) == [kv.get(key) for key in asked]
    empty = store.create("empty")
    assert empty.get_many(asked[:3], b"none") == [b"none"] * 3
    assert empty.get_many([]) == []


@pytest.mark.parametrize("length", range(12))
def test_keys_beside_the_prefix_that_all_others_share_are_not_found(
    store: cowfs.Store, length: int
) -> None:
    prefix = bytes(range(200, 200 + length))
    keys = [prefix + b"%06d" % number for number in range(0, 3_000, 2)]
    with store.transaction() as tx:
        tx.create("a").load_sorted((key, key) for key in keys)
    present = set(keys)
    beside = [prefix, prefix + b"\xff" * 9, prefix + b"000001", b"\xff" * 20, b"\0" * 20]
    for at in range(length):
        for step in (-1, 1):
            changed = prefix[:at] + bytes([prefix[at] + step]) + prefix[at + 1 :]
            beside += [changed, changed + b"000000", changed[: at + 1] + b"0" * 9]
    asked = [key for key in beside if key] + keys
    with store.at("a") as view:
        expected = [key if key in present else None for key in asked]
        assert view.get_many(asked) == expected
        assert [view.get(key) for key in asked] == expected
        for key in asked[: len(beside)]:
            after = next((other for other in keys if other >= key), None)
            assert next(view.keys(key), None) == after
