"""Snapshots, rollback, clones, renames and destroying against dicts that are copied.

Model: a snapshot, a clone and a rollback are copies of a dict. Nothing is shared in the model, and
everything in the store, so the counts of what is shared are what is tested here: after each of
these sequences every block has exactly the count that the pointers to it give.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import cowfs
from cowfs import limits
from cowfs.device import MemoryDevice

from ..plain import Items, PlainStore, assert_holds, assert_sound, noise, reopened, text
from .machine import run

DATASETS = st.sampled_from(["a", "b", "c"])
SNAPSHOTS = st.sampled_from(["1", "2", "3", "4"])
NUMBERS = st.integers(0, 200)
SIZES = st.sampled_from([0, 20, 700, 2_500, 130_000, 131_073, 400_000])


def key_of(number: int) -> bytes:
    """Some keys are long, so that trees are high."""
    return b"%03d" % number + b"-" * (900 if number % 3 == 0 else 20)


class SnapshotMachine(RuleBasedStateMachine):
    """Each change is a transaction of its own, or several are one, which may be abandoned."""

    def __init__(self) -> None:
        super().__init__()
        self.device = MemoryDevice()
        self.committed = PlainStore()
        self.working = self.committed
        self.tx: cowfs.Transaction | None = None

    @initialize(compression=st.sampled_from(["none", "lz4"]), copies=st.sampled_from([1, 2]))
    def make(self, compression: str, copies: int) -> None:
        self.store = cowfs.open_device(
            self.device,
            parameters=cowfs.Parameters(
                node_size=4096, compression=compression, metadata_copies=copies
            ),
            cache=1 << 20,
        )
        self.store.create("a")
        self.committed.create("a")

    @property
    def target(self) -> cowfs.Store | cowfs.Transaction:
        """What takes the next change: both have the same methods for it."""
        return self.tx if self.tx is not None else self.store

    # --- transactions of several changes --------------------------------------------------------

    @precondition(lambda self: self.tx is None)
    @rule()
    def begin(self) -> None:
        self.tx = self.store.transaction()
        self.working = self.committed.copy()

    @precondition(lambda self: self.tx is not None)
    @rule(keep=st.booleans())
    def end(self, keep: bool) -> None:
        assert self.tx is not None
        if keep:
            self.tx.commit()
            self.committed = self.working
        else:
            self.tx.abort()
        self.tx, self.working = None, self.committed

    # --- contents -------------------------------------------------------------------------------

    @contextmanager
    def dataset(self, name: str) -> Iterator[tuple[cowfs.kv.KV, Items] | None]:
        """The dataset to be changed, in the store and in the model."""
        if name not in self.working.heads:
            yield None
        elif self.tx is not None:
            yield self.tx[name], self.working.heads[name]
        else:
            with self.store.transaction() as tx:
                yield tx[name], self.working.heads[name]

    @rule(name=DATASETS, first=NUMBERS, count=st.integers(1, 50), size=SIZES, seed=NUMBERS)
    def put(self, name: str, first: int, count: int, size: int, seed: int) -> None:
        with self.dataset(name) as found:
            if found is None:
                return
            kv, items = found
            for number in range(first, first + (count if size < 1000 else 3)):
                items[key_of(number)] = kv[key_of(number)] = noise(size, seed)

    @rule(name=DATASETS, number=NUMBERS, sizes=st.lists(SIZES, max_size=4))
    def write_stream(self, name: str, number: int, sizes: list[int]) -> None:
        """A large value that is written piece by piece."""
        with self.dataset(name) as found:
            if found is None:
                return
            kv, items = found
            pieces = [text(size, i) for i, size in enumerate(sizes)]
            with kv.open(key_of(number), "wb") as file:
                for piece in pieces:
                    file.write(piece)
            items[key_of(number)] = b"".join(pieces)
            with kv.open(key_of(number)) as file:
                file.seek(len(items[key_of(number)]) // 2)
                assert file.read() == items[key_of(number)][len(items[key_of(number)]) // 2 :]

    @rule(name=DATASETS, first=NUMBERS, count=st.integers(0, 200), whole=st.booleans())
    def delete(self, name: str, first: int, count: int, whole: bool) -> None:
        with self.dataset(name) as found:
            if found is None:
                return
            kv, items = found
            keys = [key_of(n) for n in range(first, first + count) if key_of(n) in items]
            if whole:
                assert kv.delete_range(b"%03d" % first, b"%03d" % (first + count)) == len(keys)
            for key in keys:
                del items[key]
                assert kv.discard(key) != whole

    # --- versions -------------------------------------------------------------------------------

    @rule(names=st.lists(st.tuples(DATASETS, SNAPSHOTS), min_size=1, max_size=3, unique=True))
    def snapshot(self, names: list[tuple[str, str]]) -> None:
        full = [f"{dataset}@{name}" for dataset, name in names]
        if all(dataset in self.working.heads for dataset, _ in names) and not any(
            name in self.working.snapshots for name in full
        ):
            self.target.snapshot(*full)
            self.working.snapshot(*full)
        else:
            with pytest.raises((cowfs.NotFoundError, cowfs.ExistsError)):
                self.target.snapshot(*full)

    @rule(name=DATASETS, snapshot=SNAPSHOTS, keep=st.none() | SNAPSHOTS)
    def rollback(self, name: str, snapshot: str, keep: str | None) -> None:
        full = f"{name}@{snapshot}"
        if full not in self.working.snapshots:
            with pytest.raises(cowfs.NotFoundError):
                self.target.rollback(full, keep)
        elif keep is not None and f"{name}@{keep}" in self.working.snapshots:
            with pytest.raises(cowfs.ExistsError):
                self.target.rollback(full, keep)
        else:
            self.target.rollback(full, keep)
            self.working.rollback(full, keep)

    @rule(source=DATASETS, snapshot=st.none() | SNAPSHOTS, name=DATASETS)
    def clone(self, source: str, snapshot: str | None, name: str) -> None:
        full = source if snapshot is None else f"{source}@{snapshot}"
        if full not in self.working.everything():
            with pytest.raises(cowfs.NotFoundError):
                self.target.clone(full, name)
        elif name in self.working.heads:
            with pytest.raises(cowfs.ExistsError):
                self.target.clone(full, name)
        else:
            self.target.clone(full, name)
            self.working.clone(full, name)

    @rule(name=DATASETS)
    def create(self, name: str) -> None:
        if name not in self.working.heads:
            self.target.create(name)
            self.working.create(name)

    @rule(old=DATASETS, new=DATASETS)
    def rename(self, old: str, new: str) -> None:
        if old in self.working.heads and new not in self.working.heads:
            self.target.rename(old, new)
            self.working.rename(old, new)

    @rule(name=DATASETS, old=SNAPSHOTS, new=SNAPSHOTS)
    def rename_snapshot(self, name: str, old: str, new: str) -> None:
        old, new = f"{name}@{old}", f"{name}@{new}"
        if old in self.working.snapshots and new not in self.working.snapshots:
            self.target.rename(old, new)
            self.working.rename(old, new)

    @rule(name=DATASETS, snapshot=st.none() | SNAPSHOTS, recursive=st.booleans())
    def destroy(self, name: str, snapshot: str | None, recursive: bool) -> None:
        full = name if snapshot is None else f"{name}@{snapshot}"
        if full not in self.working.everything():
            with pytest.raises(cowfs.NotFoundError):
                self.target.destroy(full, recursive=recursive)
        elif snapshot is None and self.working.of(name) and not recursive:
            with pytest.raises(cowfs.UsageError):
                self.target.destroy(full)
        else:
            self.target.destroy(full, recursive=recursive)
            self.working.destroy(full)

    # --- questions ------------------------------------------------------------------------------

    @precondition(lambda self: self.committed.snapshots)
    @rule(data=st.data())
    def diff(self, data: st.DataObject) -> None:
        everything = self.committed.everything()
        names = st.sampled_from(sorted(everything))
        old, new = data.draw(names), data.draw(names)
        before, after = everything[old], everything[new]
        expected = [
            ("+" if key not in before else "-" if key not in after else "M", key)
            for key in sorted({*before, *after})
            if before.get(key) != after.get(key)
        ]
        assert [(change.op, change.path) for change in self.store.diff(old, new)] == expected

    @precondition(lambda self: self.tx is not None)
    @rule()
    def look_inside(self) -> None:
        assert self.tx is not None
        for name, items in self.working.heads.items():
            assert dict(self.tx[name].items()) == items

    @precondition(lambda self: self.tx is None)
    @rule()
    def check(self) -> None:
        assert_sound(self.store)
        assert_holds(self.store, self.committed.everything())

    @precondition(lambda self: self.tx is None)
    @rule()
    def reclaim(self) -> None:
        self.store.reclaim()

    @rule()
    def forget_cache(self) -> None:
        self.store.io.cache.evict(self.store.io.cache.limit)

    @rule()
    def crash(self) -> None:
        self.store = reopened(self.device, cache=1 << 20)
        assert isinstance(self.store.device, MemoryDevice)
        self.device = self.store.device
        self.tx, self.working = None, self.committed

    @invariant()
    def names(self) -> None:
        if hasattr(self, "store"):
            assert list(self.store) == sorted(self.committed.heads)

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        if self.tx is not None:
            self.end(True)
        self.check()
        self.crash()
        self.check()
        self.store.close()
        self.store = cowfs.open_device(self.device)
        self.check()
        for name in sorted(self.committed.heads):
            self.store.destroy(name, recursive=True)
        assert_sound(self.store)
        space = self.store.space()
        assert space.live == space.pinned == 0
        self.store.reclaim()
        self.store.create("last")  # what was freed waits for one more commit
        assert self.store.space().reclaimable <= 1 << 16


@pytest.mark.parametrize("step", [3, 4096])
def test_versions_are_copies(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """See the machine above; destroying goes in steps of so many blocks."""
    monkeypatch.setattr(limits, "REAP_BLOCKS", step)
    monkeypatch.setattr(limits, "LOG_RECORDS", 5)
    run(SnapshotMachine)
