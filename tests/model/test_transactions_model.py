"""Transactions over several datasets against copies of dicts.

Model: `committed` is what everybody sees, `working` what the open transaction sees: a copy, which
takes the place of `committed` when the transaction commits and is forgotten when it does not. A
view is a copy that never changes.
"""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import cowfs
from cowfs import limits
from cowfs.device import MemoryDevice

from ..plain import Items, PlainStore, assert_holds, assert_sound, noise, reopened
from .machine import run

NAMES = st.sampled_from(["a", "b", "c/d"])
KEYS = st.integers(0, 300).map(lambda number: b"%d" % number + b"." * (number % 7 * 100))
VALUES = st.builds(noise, st.sampled_from([0, 5, 100, 800, 3_000, 40_000]), st.integers(0, 5))


class Cancelled(Exception):
    """What the user of a transaction raises."""


class TransactionMachine(RuleBasedStateMachine):
    """One store, at most one open transaction, any number of views."""

    def __init__(self) -> None:
        super().__init__()
        self.device = MemoryDevice()
        self.committed = PlainStore()
        self.working: PlainStore | None = None
        self.tx: cowfs.Transaction | None = None
        self.views: list[tuple[cowfs.kv.KV, Items]] = []

    @initialize(copies=st.sampled_from([1, 2]))
    def first(self, copies: int) -> None:
        self.store = cowfs.open_device(
            self.device,
            parameters=cowfs.Parameters(node_size=4096, metadata_copies=copies),
            cache=1 << 20,
        )
        self.store.create("a")
        self.committed.create("a")

    # --- a transaction, step by step ------------------------------------------------------------

    @precondition(lambda self: self.tx is None)
    @rule(durable=st.booleans())
    def begin(self, durable: bool) -> None:
        self.tx = self.store.transaction(durable=durable)
        self.working = self.committed.copy()

    @precondition(lambda self: self.tx is not None)
    @rule(name=NAMES, pairs=st.dictionaries(KEYS, VALUES, max_size=20))
    def put(self, name: str, pairs: Items) -> None:
        assert self.tx is not None and self.working is not None
        if name not in self.working.heads:
            with pytest.raises(cowfs.NotFoundError):
                self.tx[name]
            self.tx.create(name)
            self.working.create(name)
        self.tx[name].update(pairs)
        self.working.heads[name].update(pairs)

    @precondition(lambda self: self.tx is not None)
    @rule(name=NAMES, start=KEYS, stop=KEYS)
    def delete(self, name: str, start: bytes, stop: bytes) -> None:
        assert self.tx is not None and self.working is not None
        if name in self.working.heads:
            items = self.working.heads[name]
            doomed = [key for key in items if start <= key < stop]
            assert self.tx[name].delete_range(start, stop) == len(doomed)
            for key in doomed:
                del items[key]

    @precondition(lambda self: self.tx is not None)
    @rule(name=NAMES)
    def destroy(self, name: str) -> None:
        assert self.tx is not None and self.working is not None
        if name in self.working.heads:
            self.tx.destroy(name)
            self.working.destroy(name)
        else:
            with pytest.raises(cowfs.NotFoundError):
                self.tx.destroy(name)

    @precondition(lambda self: self.tx is not None)
    @rule(old=NAMES, new=NAMES)
    def rename(self, old: str, new: str) -> None:
        assert self.tx is not None and self.working is not None
        if old in self.working.heads and new not in self.working.heads:
            self.tx.rename(old, new)
            self.working.rename(old, new)

    @precondition(lambda self: self.tx is not None)
    @rule()
    def look_inside(self) -> None:
        """The transaction sees its own changes, and nobody else does."""
        assert self.tx is not None and self.working is not None
        for name, items in self.working.heads.items():
            assert dict(self.tx[name].items()) == items
        assert_holds(self.store, self.committed.everything())

    @precondition(lambda self: self.tx is not None)
    @rule()
    def commit(self) -> None:
        assert self.tx is not None and self.working is not None
        self.tx.commit()
        self.committed, self.tx, self.working = self.working, None, None

    @precondition(lambda self: self.tx is not None)
    @rule(raising=st.booleans())
    def abandon(self, raising: bool) -> None:
        assert self.tx is not None
        if raising:
            with pytest.raises(Cancelled), self.tx:
                raise Cancelled
        else:
            self.tx.abort()
        with pytest.raises(cowfs.ClosedError):
            self.tx.commit()
        self.tx, self.working = None, None

    # --- without a transaction ------------------------------------------------------------------

    @precondition(lambda self: self.tx is None)
    @rule(name=NAMES, key=KEYS, value=st.none() | VALUES)
    def change_directly(self, name: str, key: bytes, value: bytes | None) -> None:
        """Each write on a live handle is a transaction."""
        if name not in self.committed.heads:
            return
        if value is None:
            assert self.store[name].discard(key) == (key in self.committed.heads[name])
            self.committed.heads[name].pop(key, None)
        else:
            self.committed.heads[name][key] = self.store[name][key] = value

    @rule()
    def read_directly(self) -> None:
        assert list(self.store) == sorted(self.committed.heads)
        for name, items in self.committed.heads.items():
            assert dict(self.store[name].items()) == items

    # --- views ----------------------------------------------------------------------------------

    @rule(name=NAMES)
    def open_view(self, name: str) -> None:
        if name in self.committed.heads and len(self.views) < 4:
            self.views.append((self.store.at(name), dict(self.committed.heads[name])))

    @precondition(lambda self: self.views)
    @rule(index=st.integers(0, 3), close=st.booleans())
    def read_view(self, index: int, close: bool) -> None:
        """A view shows what was there when it was opened, even if the dataset is gone by now."""
        view, items = self.views[index % len(self.views)]
        assert len(view) == len(items)
        assert dict(view.items()) == items
        with pytest.raises(cowfs.ReadOnlyError):
            view[b"x"] = b"y"
        if close:
            view.close()
            del self.views[index % len(self.views)]
        assert len(self.store.readers()) == len(self.views)

    @rule()
    def forget_cache(self) -> None:
        self.store.io.cache.evict(self.store.io.cache.limit)

    # --- the end --------------------------------------------------------------------------------

    def check(self) -> None:
        if self.tx is None:
            assert_sound(self.store)

    check_rule = rule()(check)

    @rule(closing=st.booleans())
    def open_anew(self, closing: bool) -> None:
        """After a crash, or after closing: what was committed is there, and nothing else."""
        if closing:
            self.store.close()
            self.store = cowfs.open_device(self.device, cache=1 << 20)
        else:
            self.store = reopened(self.device, cache=1 << 20)
            assert isinstance(self.store.device, MemoryDevice)
            self.device = self.store.device
        self.tx, self.working, self.views = None, None, []
        self.check()
        assert_holds(self.store, self.committed.everything())

    def teardown(self) -> None:
        if self.tx is not None:
            self.tx.abort()
            self.tx = None
        for view, items in self.views:
            assert dict(view.items()) == items
        for closing in (False, True):
            self.open_anew(closing)
        self.store.close()


def test_transactions_are_whole_and_isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    """See the machine above; the log is folded into a checkpoint every few commits."""
    monkeypatch.setattr(limits, "LOG_RECORDS", 7)
    run(TransactionMachine)
