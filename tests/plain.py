"""The model of a store: plain dicts. What the model tests and the crash tests compare with."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import cowfs
from cowfs.device import MemoryDevice

from .devices import copy_device

Items = dict[bytes, bytes]


@dataclass
class PlainStore:
    """Heads and snapshots of kv datasets by their full name; each is a dict."""

    heads: dict[str, Items] = field(default_factory=dict)
    snapshots: dict[str, Items] = field(default_factory=dict)

    def copy(self) -> PlainStore:
        """The same, with dicts of its own."""
        return PlainStore(
            {name: dict(items) for name, items in self.heads.items()},
            dict(self.snapshots),  # never changed in place
        )

    def of(self, dataset: str) -> list[str]:
        """Full names of a dataset's snapshots."""
        return [name for name in self.snapshots if name.partition("@")[0] == dataset]

    def create(self, name: str) -> None:
        self.heads[name] = {}

    def snapshot(self, *names: str) -> None:
        for name in names:
            self.snapshots[name] = dict(self.heads[name.partition("@")[0]])

    def rollback(self, name: str, keep: str | None = None) -> None:
        dataset = name.partition("@")[0]
        target = dict(self.snapshots[name])
        if keep is not None:
            self.snapshots[f"{dataset}@{keep}"] = dict(self.heads[dataset])
        self.heads[dataset] = target

    def clone(self, source: str, name: str) -> None:
        self.heads[name] = dict(self.snapshots[source] if "@" in source else self.heads[source])

    def rename(self, old: str, new: str) -> None:
        if "@" in old:
            self.snapshots[new] = self.snapshots.pop(old)
            return
        for name in self.of(old):
            self.snapshots[new + name[len(old) :]] = self.snapshots.pop(name)
        self.heads[new] = self.heads.pop(old)

    def destroy(self, name: str) -> None:
        if "@" in name:
            del self.snapshots[name]
            return
        for snapshot in self.of(name):
            del self.snapshots[snapshot]
        del self.heads[name]

    def everything(self) -> dict[str, Items]:
        """All contents by name."""
        return {**self.heads, **self.snapshots}


def contents(store: cowfs.Store) -> dict[str, Items]:
    """All that a store of kv datasets holds, by name."""
    found = {}
    for entry in store.list():
        with store.at(entry.name) as view:
            found[entry.name] = dict(view.items())
            assert len(view) == len(found[entry.name]) == entry.items
    return found


def reopened(device: MemoryDevice, *, cache: int = 1 << 24) -> cowfs.Store:
    """The store as it would be after the machine stopped now, on a device of its own."""
    return cowfs.open_device(copy_device(device), cache=cache)


def assert_sound(store: cowfs.Store) -> None:
    """Every count, every block, every checksum is right."""
    report = store.check()
    assert report.ok, "\n".join(map(str, report.faults[:10]))


def assert_holds(store: cowfs.Store, expected: dict[str, Items]) -> None:
    """The store holds exactly this."""
    found = contents(store)
    assert found.keys() == expected.keys()
    for name, items in expected.items():
        if found[name] != items:
            differing = [
                key
                for key in sorted({*items, *found[name]})
                if items.get(key) != found[name].get(key)
            ]
            raise AssertionError(f"{name}: {len(differing)} keys differ, first {differing[0]!r}")


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that do not compress, the same for the same arguments."""
    return random.Random(size * 1_000_003 + seed).randbytes(size)


def text(size: int, seed: int = 0) -> bytes:
    """Bytes that compress well."""
    word = b"%d, " % (seed * 7919)
    return (word * (size // len(word) + 1))[:size]
