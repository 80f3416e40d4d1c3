"""Readers in threads, writers that take turns: everybody sees one version, nobody is blocked."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import cowfs
from cowfs import limits
from cowfs.device import MemoryDevice

from ..conftest import MakeStore
from ..plain import assert_sound, contents, noise, reopened


class Runner(threading.Thread):
    """A thread whose exception is raised again by `finish`."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__()
        self._work = work
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._error = error

    def finish(self) -> None:
        self.join()
        if self._error is not None:
            raise self._error


def fill(data: cowfs.kv.KV, number: int) -> None:
    """A state that shows by itself whether it is whole: every value is made from its number."""
    for key in range(40):
        data[b"%02d" % key] = noise(50 + key * 60, number)


def number_of(view: cowfs.kv.KV) -> int:
    """Which state a view shows, every byte of it."""
    items = dict(view.items())
    number = int(items.pop(b"number"))
    assert items == {b"%02d" % key: noise(50 + key * 60, number) for key in range(40)}
    return number


def commit(store: cowfs.Store, number: int, *, durable: bool = True) -> None:
    with store.transaction(durable=durable) as tx:
        fill(tx["a"], number)
        tx["a"][b"number"] = b"%d" % number


def test_readers_in_threads_see_whole_versions_while_blocks_are_reused(
    make_store: MakeStore,
) -> None:
    store = make_store(size=16 << 20, cache=1 << 20)
    store.create("a")
    commit(store, 0)
    stop = threading.Event()
    seen: list[set[int]] = [set(), set(), set()]

    def read(found: set[int]) -> None:
        while not stop.is_set():
            with store.at("a") as view:
                number = number_of(view)
                store.io.cache.evict(store.io.cache.limit)
                assert number_of(view) == number
                with store.at("a") as later:
                    assert number_of(later) >= number
            found.add(number)

    readers = [Runner(partial(read, found)) for found in seen]
    number = 0
    while number < 300 or not all(len(found) > 5 for found in seen):
        number += 1
        commit(store, number, durable=number % 3 > 0)
        if not all(reader.is_alive() for reader in readers):
            break
    stop.set()
    for reader in readers:
        reader.finish()
    assert store.readers() == []
    assert_sound(store)


def test_a_view_keeps_its_content_while_thousands_of_commits_go_by(make_store: MakeStore) -> None:
    device = MemoryDevice()
    store = make_store(device, cache=1 << 20)
    data = store.create("a")
    commit(store, 0)
    with store.at("a") as view:
        for number in range(3000):
            data[b"%02d" % (number % 40)] = noise(500, number)
            if number % 1000 == 0:
                store.io.cache.evict(store.io.cache.limit)
                assert number_of(view) == 0
        store.io.cache.evict(store.io.cache.limit)
        assert number_of(view) == 0
        assert [(reader.name, reader.txid < store.txid) for reader in store.readers()] == [
            ("a", True)
        ]
        pinned = device.size()
    for number in range(3000):
        data[b"%02d" % (number % 40)] = noise(500, number)
    assert device.size() <= pinned + limits.LOG_BYTES  # what the view kept is used again
    assert store.space().reclaimable < 1 << 20
    assert_sound(store)


def test_a_second_writer_waits_for_the_first(store: cowfs.Store) -> None:
    store.create("a")
    order: list[str] = []
    started = threading.Event()

    def second() -> None:
        started.set()
        with store.transaction() as tx:
            order.append(f"second sees {dict(tx['a'].items())}")
            tx["a"][b"k"] = b"2"

    with store.transaction() as tx:
        writer = Runner(second)
        started.wait()
        tx["a"][b"k"] = b"1"
        order.append("first ends")
    writer.finish()
    assert order == ["first ends", "second sees {b'k': b'1'}"]
    assert dict(store["a"].items()) == {b"k": b"2"}


def test_many_writers_take_turns_and_lose_nothing(store: cowfs.Store) -> None:
    store.create("a")[b"count"] = b"0"

    def write() -> None:
        for _ in range(50):
            with store.transaction(durable=False) as tx:
                tx["a"][b"count"] = b"%d" % (int(tx["a"][b"count"]) + 1)

    for writer in [Runner(write) for _ in range(6)]:
        writer.finish()
    assert store["a"][b"count"] == b"300"
    assert_sound(store)


def test_a_second_transaction_in_the_same_thread_is_refused(store: cowfs.Store) -> None:
    data = store.create("a")
    with store.transaction() as tx:
        tx["a"][b"k"] = b"1"
        with pytest.raises(cowfs.BusyError, match="this thread has a transaction open"):
            store.transaction()
        with pytest.raises(cowfs.BusyError):
            data[b"k"] = b"2"
        with pytest.raises(cowfs.BusyError):
            store.check()
    assert data[b"k"] == b"1"


def test_reading_never_waits_for_a_transaction(store: cowfs.Store) -> None:
    store.create("a")[b"k"] = b"old"
    with store.transaction() as tx:
        tx["a"][b"k"] = b"new"
        found: list[bytes] = []
        Runner(lambda: found.append(store["a"][b"k"])).finish()
        assert found == [b"old"]
        assert store["a"][b"k"] == b"old"
        assert store.scrub().ok
        assert [entry.items for entry in store.list()] == [1]


def test_iterating_over_a_live_dataset_shows_one_version(store: cowfs.Store) -> None:
    data = store.create("a")
    with store.transaction() as tx:
        for number in range(3000):
            tx["a"][b"%04d" % number] = noise(100, number)
    before = contents(store)["a"]
    one, other = data.items(), data.items(reverse=True)
    found = [next(one)], [next(other)]
    data[b"new"] = b"value"
    assert data[b"new"] == b"value"
    found[0].extend(one)  # the end of the first does not end what the second stands on
    for round_ in range(20):
        with store.transaction() as tx:
            for number in range(0, 3000, 3):
                tx["a"][b"%04d" % number] = noise(100, round_)
        store.io.cache.evict(store.io.cache.limit)
    found[1].extend(other)
    assert found[0] == sorted(before.items())
    assert found[1] == sorted(before.items(), reverse=True)
    assert store.readers() == []


def test_closing_the_store_ends_all_use_of_it(tmp_path: Path) -> None:
    store = cowfs.open(tmp_path / "c.cow", "n")
    store.create("a").update((b"%d" % n, noise(500, n)) for n in range(200))
    store.snapshot("a@stored")
    view = store.at("a")
    live = store["a"]
    store.close()
    store.close()
    store.io.cache.evict(store.io.cache.limit)
    with pytest.raises(cowfs.ClosedError):
        live[b"1"]
    with pytest.raises(cowfs.ClosedError):
        live[b"1"] = b"2"
    with pytest.raises(cowfs.ClosedError):
        store.list()
    with pytest.raises(cowfs.ClosedError):
        store.transaction()
    with pytest.raises(cowfs.ClosedError):
        dict(view.items())
    view.close()


def test_closing_the_store_abandons_the_open_transaction(make_store: MakeStore) -> None:
    device = MemoryDevice()
    store = make_store(device)
    store.create("a")[b"k"] = b"1"
    tx = store.transaction()
    tx["a"][b"k"] = b"2"
    store.close()
    with pytest.raises(cowfs.ClosedError):
        tx.commit()
    with cowfs.open_device(device) as store:
        assert store["a"][b"k"] == b"1"
        assert_sound(store)


def test_a_scrub_during_which_the_store_is_closed_reports_no_damage(
    make_store: MakeStore,
) -> None:
    store = make_store(MemoryDevice())
    store.create("a").update({b"%04d" % i: noise(100, i) for i in range(1000)})
    with pytest.raises(cowfs.ClosedError):
        store.scrub(progress=lambda done, total: store.close())


def test_a_view_ends_when_it_is_closed(store: cowfs.Store) -> None:
    store.create("a")[b"k"] = b"1"
    with store.at("a") as view:
        scan = view.items()
    for use in (lambda: view[b"k"], lambda: len(view), lambda: next(scan), lambda: b"k" in view):
        with pytest.raises(cowfs.ClosedError):
            use()
    view.close()
    assert store.readers() == []


def test_a_forgotten_view_is_no_reader_any_more(store: cowfs.Store) -> None:
    store.create("a")[b"k"] = b"1"
    view = store.at("a")
    assert len(store.readers()) == 1
    del view
    assert store.readers() == []


def test_a_scan_keeps_its_view(make_store: MakeStore) -> None:
    store = make_store(cache=1 << 20)
    data = store.create("a")
    data.update((b"%03d" % n, noise(900, n)) for n in range(500))
    before = contents(store)["a"]
    scan = store.at("a").items()
    assert len(store.readers()) == 1
    for round_ in range(5):
        data.update((b"%03d" % n, noise(900, round_)) for n in range(0, 500, 9))
        store.io.cache.evict(store.io.cache.limit)
    assert dict(scan) == before
    del scan
    assert store.readers() == []


def test_closing_waits_for_the_transaction_of_another_thread(make_store: MakeStore) -> None:
    device = MemoryDevice()
    store = make_store(device)
    store.create("a")
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        with store.transaction() as tx:
            tx["a"][b"k"] = b"v"
            begun.set()
            assert go_on.wait(60)

    writer, closer = threading.Thread(target=work), threading.Thread(target=store.close)
    writer.start()
    assert begun.wait(60)
    closer.start()
    go_on.set()
    writer.join()
    closer.join()
    assert reopened(device)["a"][b"k"] == b"v"
