"""What a store should hold, as plain dicts, and what it does hold in the same form.

A map is its items. Files are items, too: path to content, which for directories is `DIRECTORY`. A
volume is one item.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import cowfs

Items = dict[bytes, bytes]

DIRECTORY = b"a directory"
FILE = b"a file: "
VOLUME = b"volume"


@dataclass
class PlainStore:
    """Heads and snapshots of datasets by their full name; each is a dict."""

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
    """All that a store holds, by name."""
    found = {}
    for entry in store.list():
        with store.at(entry.name) as view:
            found[entry.name] = items = view_items(view)
            if entry.kind == "kv":
                assert len(view) == len(items) == entry.items
    return found


def view_items(view: Any) -> Items:
    """All that a version of a dataset holds."""
    if view.kind == "kv":
        return dict(view.items())
    if view.kind == "volume":
        return {VOLUME: view.pread(view.size, 0)}
    found: Items = {}
    todo = [b"/"]
    while todo:
        directory = todo.pop()
        with view.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir():
                    found[entry.path] = DIRECTORY
                    todo.append(entry.path)
                else:
                    found[entry.path] = FILE + view.read_bytes(entry.path)
    return found


def difference(found: dict[str, Items], expected: dict[str, Items]) -> str:
    """The first of what differs, in words; empty where nothing does."""
    for name in sorted({*found, *expected}):
        if name not in found:
            return f"{name} is missing"
        if name not in expected:
            return f"{name} should not be there"
        one, other = found[name], expected[name]
        keys = [key for key in sorted({*one, *other}) if one.get(key) != other.get(key)]
        if keys:
            return f"{name}: {len(keys)} items differ, first {keys[0]!r}"
    return ""


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that do not compress, the same for the same arguments."""
    return random.Random(size * 1_000_003 + seed).randbytes(size)


def text(size: int, seed: int = 0) -> bytes:
    """Bytes that compress well."""
    word = b"%d, " % (seed * 7919)
    return (word * (size // len(word) + 1))[:size]
