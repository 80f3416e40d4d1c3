"""Everybody at once: readers, a writer, a destroyer, a scrubber and a checker, in threads.

The model of each version is plain dicts, kept by its number. Each transaction writes its number
into every dataset, so a view says itself which version it must equal, whole; a snapshot's name
says it. Views are read twice, before and after a while in which blocks were freed and used again.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

import cowfs
from cowfs import limits
from crashfuzzer.model import FILE, VOLUME, Items, noise, text, view_items

from ..conftest import MakeStore
from ..plain import assert_sound, contents, reopened

DISK = 1 << 18
VERSIONS = 300
"""Transactions of the writer."""
ROUNDS = 20
"""Times that each of the others must have had a go."""

Version = dict[str, Items]


class Play:
    """The store, the models of all versions, and the threads that use the one and the other."""

    def __init__(self, store: cowfs.Store, seed: int) -> None:
        self.store = store
        self.chance = random.Random(seed)
        self.versions: list[Version] = []
        self.snapshots: list[str] = []
        self.ended = threading.Event()
        self.rounds: dict[str, int] = {}
        self.errors: list[BaseException] = []

    # --- the writer -----------------------------------------------------------------------------

    def write(self) -> None:
        """All transactions, one after the other, and then on until everybody had enough."""
        while len(self.versions) < VERSIONS or min(self.rounds.values()) < ROUNDS:
            if self.errors:
                break
            self.commit()
        self.ended.set()

    def commit(self) -> None:
        """The next version: its model is there before anybody can see it."""
        number = len(self.versions)
        old = self.versions[-1] if self.versions else {"keys": {}, "files": {}, "disk": {}}
        new = {name: dict(items) for name, items in old.items()}
        durable = self.chance.random() < 0.7
        with self.store.transaction(durable=durable) as tx:
            self._change_keys(tx["keys"], new["keys"], number)
            self._change_files(tx["files"], new["files"], number)
            self._change_disk(tx["disk"], new["disk"], number)
            if number % 3 == 0:
                tx.snapshot(*(f"{name}@{number}" for name in new))
            if number % 20 == 19:
                tx.checkpoint = True
            self.versions.append(new)
        if number % 3 == 0:
            self.snapshots += [f"{name}@{number}" for name in new]

    def _change_keys(self, keys: Any, model: Items, number: int) -> None:
        chance = self.chance
        for _ in range(chance.randrange(1, 12)):
            key = b"%02d" % chance.randrange(100)
            value = noise(chance.choice((5, 300, 3000, 20_000)), number)
            keys[key] = model[key] = value
        if chance.random() < 0.3:
            start = b"%02d" % chance.randrange(100)
            keys.delete_range(start, start + b"\xff")
            model.pop(start, None)
        if chance.random() < 0.1:
            keys[b"large"] = model[b"large"] = noise(200_000, number)
        keys[b"number"] = model[b"number"] = b"%d" % number

    def _change_files(self, files: Any, model: Items, number: int) -> None:
        path = b"/%d" % self.chance.randrange(10)
        data = text(self.chance.choice((0, 100, 9_000)), number)
        files.write_bytes(path, data)
        model[path] = FILE + data
        files.write_bytes(b"/number", b"%d" % number)
        model[b"/number"] = FILE + b"%d" % number

    def _change_disk(self, disk: Any, model: Items, number: int) -> None:
        content = bytearray(model.get(VOLUME, bytes(DISK)))
        data = noise(self.chance.choice((10, 5000, 50_000)), number)
        at = self.chance.randrange(8, DISK - len(data))
        for offset, part in ((at, data), (0, b"%08d" % number)):
            disk.pwrite(part, offset)
            content[offset : offset + len(part)] = part
        model[VOLUME] = bytes(content)

    # --- everybody else -------------------------------------------------------------------------

    def read_heads(self, chance: random.Random) -> None:
        """A view of a head is one version, and stays so."""
        name = chance.choice(("keys", "files", "disk"))
        with self.store.at(name) as view:
            items = view_items(view)
            assert items == self.versions[number_of(items)][name]
            if chance.random() < 0.3:
                self.store.io.cache.evict(self.store.io.cache.limit)
            with self.store.at(name) as later:
                assert number_of(view_items(later)) >= number_of(items)
            assert view_items(view) == items

    def read_snapshots(self, chance: random.Random) -> None:
        """A snapshot is the version of its name, also while it is being destroyed."""
        if not self.snapshots:
            return
        full_name = chance.choice(list(self.snapshots))
        name, _, number = full_name.partition("@")
        try:
            view = self.store.at(full_name)
        except cowfs.NotFoundError:
            return
        with view:
            for _ in range(2):
                assert view_items(view) == self.versions[int(number)][name]

    def destroy(self, chance: random.Random) -> None:
        """Snapshots go, in any order; few are left."""
        if len(self.snapshots) > 6:
            name = self.snapshots.pop(chance.randrange(len(self.snapshots)))
            self.store.destroy(name)

    def diff(self, chance: random.Random) -> None:
        """A diff of a snapshot and a head names the keys that differ, and no others."""
        for full_name in list(self.snapshots)[-1:]:
            name, _, number = full_name.partition("@")
            try:
                changes = {change.path for change in self.store.diff(full_name, name)}
            except cowfs.NotFoundError:
                return
            if name == "keys":
                assert changes == set() or b"number" in changes, number

    def scrub(self, chance: random.Random) -> None:
        """Nothing that can be reached is ever overwritten."""
        report = self.store.scrub()
        assert report.ok, report.faults[:3]
        if chance.random() < 0.3:
            assert_sound(self.store)

    def run(self, seed: int) -> None:
        """All threads, to their end; the first error of any of them."""
        threads = [threading.Thread(target=self._guard, args=("writer", self.write))]
        roles = (self.read_heads, self.read_heads, self.read_snapshots, self.destroy, self.diff)
        for number, role in enumerate((*roles, self.scrub)):
            name = f"{role.__name__} {number}"
            self.rounds[name] = 0
            again = self._again(name, role, random.Random(seed + number))
            threads.append(threading.Thread(target=self._guard, args=(name, again)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def _again(
        self, name: str, role: Callable[[random.Random], None], chance: random.Random
    ) -> Callable[[], None]:
        def again() -> None:
            while not self.ended.is_set():
                role(chance)
                self.rounds[name] += 1

        return again

    def _guard(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            error.add_note(f"in {name}, at version {len(self.versions)}")
            self.errors.append(error)
            self.ended.set()


def number_of(items: Items) -> int:
    """The version that the content of a dataset says that it is."""
    if VOLUME in items:
        return int(items[VOLUME][:8])
    return int(items.get(b"number") or items[b"/number"].removeprefix(FILE))


@pytest.mark.parametrize("seed", [0, 1000])
def test_readers_writer_destroyer_and_scrubber_at_once(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(limits, "REAP_BLOCKS", 20)
    monkeypatch.setattr(limits, "ONE_FLUSH_LIMIT", 64 << 10)
    store = make_store(size=64 << 20, cache=1 << 20, node_size=4096)
    store.create("keys")
    store.create("files", kind="fs")
    store.create("disk", kind="volume", size=DISK)
    play = Play(store, seed)
    play.commit()
    play.run(seed)
    assert store.readers() == []
    store.reclaim()
    expected = {name: play.versions[-1][name] for name in ("keys", "files", "disk")}
    for full_name in play.snapshots:
        name, _, number = full_name.partition("@")
        expected[full_name] = play.versions[int(number)][name]
    assert contents(store) == expected
    assert_sound(store)
    store.sync()
    device: Any = store.device
    with reopened(device) as again:
        assert contents(again) == expected
        assert_sound(again)
