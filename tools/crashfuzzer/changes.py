"""What a transaction of a workload may do: each change knows how it is done to a store and to the
model, and when it can be done. A change that cannot be done is left out, so that a workload still
makes sense when a part of it is taken away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cowfs

from .model import DIRECTORY, FILE, VOLUME, Items, PlainStore, noise, text

KINDS = {"a": "kv", "b": "kv", "c": "kv", "f": "fs", "g": "fs", "v": "volume", "w": "volume"}
"""The datasets that there may be, by name, with their kinds."""
VOLUME_SIZE = 40_000
"""Bytes of a volume."""
RECORD_SIZES = {"w": 4096}
"""Bytes of a record, of those that have other than usual."""


class Change(Protocol):
    """One part of a transaction."""

    def possible(self, model: PlainStore) -> bool:
        """Whether it can be done."""

    def apply(self, tx: cowfs.Transaction, model: PlainStore) -> None:
        """Do it to both."""


def value(size: int, seed: int) -> bytes:
    """Bytes that compress, or not, depending on the seed."""
    return text(size, seed) if seed % 2 else noise(size, seed)


def _parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]


def _room_for(items: Items, path: bytes) -> bool:
    """Whether a file can be put at a path: its directory is there, and it is none."""
    parent = _parent(path)
    return (not parent or items.get(parent) == DIRECTORY) and items.get(path) != DIRECTORY


def _is_file(items: Items, path: bytes) -> bool:
    return items.get(path, DIRECTORY) != DIRECTORY


# --- datasets -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Create:
    """Make a dataset; its kind goes by its name."""

    name: str

    def possible(self, model: PlainStore) -> bool:
        return self.name not in model.heads

    def apply(self, tx: cowfs.Transaction, model: PlainStore) -> None:
        model.create(self.name)
        kind = KINDS[self.name]
        if kind == "volume":
            model.heads[self.name][VOLUME] = bytes(VOLUME_SIZE)
        size = VOLUME_SIZE if kind == "volume" else None
        tx.create(self.name, kind, size, RECORD_SIZES.get(self.name))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Make a snapshot, by its full name."""

    name: str

    def possible(self, model: PlainStore) -> bool:
        return self.name.partition("@")[0] in model.heads and self.name not in model.snapshots

    def apply(self, tx: cowfs.Transaction, model: PlainStore) -> None:
        model.snapshot(self.name)
        tx.snapshot(self.name)


@dataclass(frozen=True, slots=True)
class Clone:
    """A new dataset that starts as a snapshot."""

    source: str
    name: str

    def possible(self, model: PlainStore) -> bool:
        return self.source in model.snapshots and self.name not in model.heads

    def apply(self, tx: cowfs.Transaction, model: PlainStore) -> None:
        model.clone(self.source, self.name)
        tx.clone(self.source, self.name)


@dataclass(frozen=True, slots=True)
class Rename:
    """Another name for a dataset."""

    old: str
    new: str

    def possible(self, model: PlainStore) -> bool:
        return self.old in model.heads and self.new not in model.heads

    def apply(self, tx: cowfs.Transaction, model: PlainStore) -> None:
        model.rename(self.old, self.new)
        tx.rename(self.old, self.new)


@dataclass(frozen=True, slots=True)
class Rollback:
    """Make a dataset what it was at a snapshot."""

    snapshot: str
    keep: str | None = None

    def possible(self, model: PlainStore) -> bool:
        dataset = self.snapshot.partition("@")[0]
        return (
            self.snapshot in model.snapshots
            and dataset in model.heads
            and (self.keep is None or f"{dataset}@{self.keep}" not in model.snapshots)
        )

    def apply(self, tx: cowfs.Transaction, model: PlainStore) -> None:
        model.rollback(self.snapshot, self.keep)
        tx.rollback(self.snapshot, self.keep)


@dataclass(frozen=True, slots=True)
class Destroy:
    """Destroy a snapshot, or a dataset with its snapshots."""

    name: str

    def possible(self, model: PlainStore) -> bool:
        return self.name in model.heads or self.name in model.snapshots

    def apply(self, tx: cowfs.Transaction, model: PlainStore) -> None:
        model.destroy(self.name)
        tx.destroy(self.name, recursive="@" not in self.name)


# --- maps ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Put:
    """Put one value."""

    name: str
    key: bytes
    size: int
    seed: int = 0

    def possible(self, model: PlainStore) -> bool:
        return self.name in model.heads

    def apply(self, tx: cowfs.Transaction, model: PlainStore) -> None:
        data = value(self.size, self.seed)
        model.heads[self.name][self.key] = data
        tx[self.name][self.key] = data


@dataclass(frozen=True, slots=True)
class Fill:
    """Put many values, under ascending keys."""

    name: str
    first: int
    count: int
    size: int
    seed: int = 0

    def possible(self, model: PlainStore) -> bool:
        return self.name in model.heads

    def apply(self, tx: cowfs.Transaction, model: PlainStore) -> None:
        for number in range(self.first, self.first + self.count):
            Put(self.name, b"%03d" % number, self.size, self.seed + 2 * number).apply(tx, model)


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete one key, if it is there."""

    name: str
    key: bytes

    def possible(self, model: PlainStore) -> bool:
        return self.name in model.heads

    def apply(self, tx: cowfs.Transaction, model: PlainStore) -> None:
        was_there = model.heads[self.name].pop(self.key, None) is not None
        assert tx[self.name].discard(self.key) == was_there


@dataclass(frozen=True, slots=True)
class DeleteRange:
    """Delete start <= key < stop."""

    name: str
    start: bytes
    stop: bytes

    def possible(self, model: PlainStore) -> bool:
        return self.name in model.heads

    def apply(self, tx: cowfs.Transaction, model: PlainStore) -> None:
        items = model.heads[self.name]
        doomed = [key for key in items if self.start <= key < self.stop]
        for key in doomed:
            del items[key]
        assert tx[self.name].delete_range(self.start, self.stop) == len(doomed)


# --- files --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """Make a directory."""

    name: str
    path: bytes

    def possible(self, model: PlainStore) -> bool:
        return self.name in model.heads and (
            self.path not in model.heads[self.name] and _room_for(model.heads[self.name], self.path)
        )

    def apply(self, tx: cowfs.Transaction, model: PlainStore) -> None:
        model.heads[self.name][self.path] = DIRECTORY
        tx[self.name].mkdir(self.path)


@dataclass(frozen=True, slots=True)
class WriteFile:
    """Make a file, or give it another content."""

    name: str
    path: bytes
    size: int
    seed: int = 0

    def possible(self, model: PlainStore) -> bool:
        return self.name in model.heads and _room_for(model.heads[self.name], self.path)

    def apply(self, tx: cowfs.Transaction, model: PlainStore) -> None:
        data = value(self.size, self.seed)
        model.heads[self.name][self.path] = FILE + data
        tx[self.name].write_bytes(self.path, data)


@dataclass(frozen=True, slots=True)
class PatchFile:
    """Write into a file at an offset, perhaps beyond its end."""

    name: str
    path: bytes
    offset: int
    size: int
    seed: int = 0

    def possible(self, model: PlainStore) -> bool:
        return self.name in model.heads and _is_file(model.heads[self.name], self.path)

    def apply(self, tx: cowfs.Transaction, model: PlainStore) -> None:
        data = value(self.size, self.seed)
        old = model.heads[self.name][self.path].removeprefix(FILE)
        before = old[: self.offset].ljust(self.offset, b"\0")
        model.heads[self.name][self.path] = (
            FILE + before + data + old[self.offset + len(data) :] if data else FILE + old
        )
        with tx[self.name].open(self.path, "r+b") as file:
            file.seek(self.offset)
            file.write(data)


@dataclass(frozen=True, slots=True)
class TruncateFile:
    """Cut a file off, or let it grow by a hole."""

    name: str
    path: bytes
    size: int

    def possible(self, model: PlainStore) -> bool:
        return self.name in model.heads and _is_file(model.heads[self.name], self.path)

    def apply(self, tx: cowfs.Transaction, model: PlainStore) -> None:
        old = model.heads[self.name][self.path].removeprefix(FILE)
        model.heads[self.name][self.path] = FILE + old[: self.size].ljust(self.size, b"\0")
        tx[self.name].truncate(self.path, self.size)


@dataclass(frozen=True, slots=True)
class CopyFile:
    """Copy a file; the copy shares its content."""

    name: str
    source: bytes
    target: bytes

    def possible(self, model: PlainStore) -> bool:
        if self.name not in model.heads or self.source == self.target:
            return False
        items = model.heads[self.name]
        return _is_file(items, self.source) and _room_for(items, self.target)

    def apply(self, tx: cowfs.Transaction, model: PlainStore) -> None:
        items = model.heads[self.name]
        items[self.target] = items[self.source]
        tx[self.name].copy(self.source, self.target)


@dataclass(frozen=True, slots=True)
class MoveFile:
    """Give a file another name, in the place of what has that name."""

    name: str
    source: bytes
    target: bytes

    def possible(self, model: PlainStore) -> bool:
        return CopyFile(self.name, self.source, self.target).possible(model)

    def apply(self, tx: cowfs.Transaction, model: PlainStore) -> None:
        items = model.heads[self.name]
        items[self.target] = items.pop(self.source)
        tx[self.name].rename(self.source, self.target)


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove a file, or a directory with everything in it."""

    name: str
    path: bytes

    def possible(self, model: PlainStore) -> bool:
        return self.name in model.heads and self.path in model.heads[self.name]

    def apply(self, tx: cowfs.Transaction, model: PlainStore) -> None:
        items = model.heads[self.name]
        if items[self.path] == DIRECTORY:
            tx[self.name].remove_tree(self.path)
        else:
            tx[self.name].unlink(self.path)
        for path in [path for path in items if (path + b"/").startswith(self.path + b"/")]:
            del items[path]


# --- volumes ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WriteVolume:
    """Write at an offset of a volume; whole records as a write cache does it."""

    name: str
    offset: int
    size: int
    seed: int = 0

    def possible(self, model: PlainStore) -> bool:
        return self.name in model.heads and self.offset + self.size <= VOLUME_SIZE

    def apply(self, tx: cowfs.Transaction, model: PlainStore) -> None:
        data = value(self.size, self.seed)
        old = model.heads[self.name][VOLUME]
        new = old[: self.offset] + data + old[self.offset + self.size :]
        model.heads[self.name][VOLUME] = new
        volume, stop = tx[self.name], self.offset + self.size
        record = volume.record_size
        first, last = -(-self.offset // record), stop // record
        if last <= first:
            volume.pwrite(data, self.offset)
            return
        start, end = first * record - self.offset, last * record - self.offset
        whole = range(start, end, record)
        volume.pwrite(data[:start], self.offset)
        volume.write_records([(first + i, data[at : at + record]) for i, at in enumerate(whole)])
        volume.pwrite(data[end:], last * record)


@dataclass(frozen=True, slots=True)
class DiscardVolume:
    """Give a range of a volume back."""

    name: str
    offset: int
    size: int

    def possible(self, model: PlainStore) -> bool:
        return self.name in model.heads and self.offset + self.size <= VOLUME_SIZE

    def apply(self, tx: cowfs.Transaction, model: PlainStore) -> None:
        old = model.heads[self.name][VOLUME]
        new = old[: self.offset] + bytes(self.size) + old[self.offset + self.size :]
        model.heads[self.name][VOLUME] = new
        tx[self.name].discard(self.offset, self.size)
