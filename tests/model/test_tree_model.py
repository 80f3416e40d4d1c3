"""The tree against a dict whose keys are sorted when they are asked for.

Model: one dict is what the transaction sees, another what was committed. Nodes are as small as they
can be and many keys as long, so that a few dozen keys make a tree of several levels, which splits,
merges, and gains and loses levels all the time.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import cowfs
from cowfs.device import MemoryDevice

from ..plain import Items, assert_holds, assert_sound, noise, reopened, text
from .machine import run

NUMBERS = st.integers(0, 120)
SIZES = st.sampled_from([0, 1, 30, 300, 896, 897, 1920, 5_000, 140_000])


def key_of(number: int) -> bytes:
    """Keys that are short, long with a short common prefix, or long with a long one."""
    match number % 4:
        case 0:
            return b"%03d" % number
        case 1:
            return b"%03d" % number + b"\0" * 700
        case 2:
            return b"050" + b"\xff" * 1015 + b"%03d" % number
        case _:
            return b"%03d" % number + b"x" * (number * 5)


KEYS = NUMBERS.map(key_of)
BOUNDS = st.none() | KEYS | st.binary(max_size=3) | KEYS.map(lambda key: key[:5])


def selected(items: Items, start: bytes | None, stop: bytes | None) -> list[bytes]:
    """Keys from `start` to before `stop`, in order."""
    return [
        key
        for key in sorted(items)
        if (start is None or key >= start) and (stop is None or key < stop)
    ]


class TreeMachine(RuleBasedStateMachine):
    """One dataset, changed through transactions that end well or not."""

    def __init__(self) -> None:
        super().__init__()
        self.committed: Items = {}
        self.items: Items = {}
        self.snapshots = 0
        self.expected: dict[str, Items] = {}

    @initialize(
        node_size=st.sampled_from([4096, 8192]),
        compression=st.sampled_from(["none", "lz4"]),
        copies=st.sampled_from([1, 2]),
    )
    def make(self, node_size: int, compression: str, copies: int) -> None:
        self.device = MemoryDevice()
        self.store = cowfs.open_device(
            self.device,
            parameters=cowfs.Parameters(
                node_size=node_size, compression=compression, metadata_copies=copies
            ),
            cache=1 << 20,
        )
        self.store.create("a")
        self.begin()

    def begin(self) -> None:
        self.tx = self.store.transaction()
        self.kv: cowfs.kv.KV = self.tx["a"]

    # --- changes --------------------------------------------------------------------------------

    @rule(key=KEYS, size=SIZES, seed=st.integers(0, 3), compressible=st.booleans())
    def put(self, key: bytes, size: int, seed: int, compressible: bool) -> None:
        self.items[key] = self.kv[key] = (text if compressible else noise)(size, seed)

    @rule(first=NUMBERS, count=st.integers(1, 60), step=st.integers(-3, 3), size=SIZES)
    def put_many(self, first: int, count: int, step: int, size: int) -> None:
        for number in range(count):
            key = key_of((first + number * step) % 121)
            self.items[key] = self.kv[key] = noise(min(size, 1000), number)

    @rule(first=NUMBERS, count=st.integers(0, 60), size=st.integers(0, 2000))
    def load_sorted(self, first: int, count: int, size: int) -> None:
        pairs = {key_of((first + n) % 121): noise(size, n) for n in range(count)}
        assert self.kv.load_sorted(sorted(pairs.items())) == len(pairs)
        self.items.update(pairs)

    @rule(key=KEYS)
    def delete(self, key: bytes) -> None:
        assert self.kv.discard(key) == (self.items.pop(key, None) is not None)

    @rule(first=NUMBERS, count=st.integers(1, 60), step=st.integers(-3, 3))
    def delete_many(self, first: int, count: int, step: int) -> None:
        for number in range(count):
            key = key_of((first + number * step) % 121)
            assert self.kv.discard(key) == (self.items.pop(key, None) is not None)

    @rule(start=BOUNDS, stop=BOUNDS)
    def delete_range(self, start: bytes | None, stop: bytes | None) -> None:
        doomed = selected(self.items, start, stop)
        assert self.kv.delete_range(start, stop) == len(doomed)
        for key in doomed:
            del self.items[key]

    # --- questions ------------------------------------------------------------------------------

    @rule(start=BOUNDS, stop=BOUNDS, reverse=st.booleans())
    def scan(self, start: bytes | None, stop: bytes | None, reverse: bool) -> None:
        keys = selected(self.items, start, stop)
        if reverse:
            keys.reverse()
        assert list(self.kv.keys(start, stop, reverse=reverse)) == keys
        values = [self.items[key] for key in keys]
        assert list(self.kv.values(start, stop, reverse=reverse)) == values
        assert list(self.kv.items(start, stop, reverse=reverse)) == list(
            zip(keys, values, strict=True)
        )

    @rule(prefix=BOUNDS.filter(lambda bound: bound is not None), reverse=st.booleans())
    def scan_prefix(self, prefix: bytes, reverse: bool) -> None:
        keys = [key for key in sorted(self.items, reverse=reverse) if key.startswith(prefix)]
        assert list(self.kv.keys(prefix=prefix, reverse=reverse)) == keys

    @rule(key=st.binary(min_size=1, max_size=4) | KEYS)
    def get(self, key: bytes) -> None:
        assert self.kv.get(key) == self.items.get(key)
        assert (key in self.kv) == (key in self.items)

    @rule(
        start=BOUNDS,
        reverse=st.booleans(),
        changes=st.lists(st.tuples(KEYS, st.none() | SIZES), max_size=6),
        every=st.integers(1, 9),
    )
    def change_while_scanning(
        self,
        start: bytes | None,
        reverse: bool,
        changes: list[tuple[bytes, int | None]],
        every: int,
    ) -> None:
        """What is changed behind a scan does not disturb it, and what is changed ahead shows."""
        bounds = (None, start) if reverse else (start, None)
        scan = self.kv.keys(*bounds, reverse=reverse)
        last: bytes | None = None
        for count in range(1, 1000):
            ahead = selected(self.items, *bounds)
            if last is not None:
                ahead = [key for key in ahead if (key < last if reverse else key > last)]
            found = next(scan, None)
            assert found == (ahead[-1 if reverse else 0] if ahead else None)
            if found is None:
                return
            last = found
            if changes and count % every == 0:
                key, size = changes.pop()
                if size is None:
                    self.kv.discard(key)
                    self.items.pop(key, None)
                else:
                    self.kv[key] = self.items[key] = noise(size)

    # --- what happens to the tree as a whole ----------------------------------------------------

    @rule()
    def commit(self) -> None:
        self.tx.commit()
        self.committed = dict(self.items)
        self.begin()

    @rule()
    def abort(self) -> None:
        self.tx.abort()
        self.items = dict(self.committed)
        self.begin()

    @rule()
    def spill(self) -> None:
        """What is dirty is stored in the middle of the transaction, as when memory runs short."""
        self.tx.ledger.spill()  # type: ignore[misc]

    @rule()
    def forget_cache(self) -> None:
        self.store.io.cache.evict(self.store.io.cache.limit)

    @precondition(lambda self: self.snapshots < 5)
    @rule()
    def snapshot(self) -> None:
        """From here on all nodes are shared, and are copied when they are changed."""
        name = f"a@{self.snapshots}"
        self.snapshots += 1
        self.tx.snapshot(name)
        self.commit()
        self.expected[name] = dict(self.items)

    @rule()
    def crash(self) -> None:
        """The transaction is lost, and everything is read anew."""
        self.tx.abort()
        self.store = reopened(self.device, cache=1 << 20)
        self.device = self.store.device  # type: ignore[assignment]
        self.items = dict(self.committed)
        self.begin()

    @invariant()
    def length(self) -> None:
        if hasattr(self, "kv"):
            assert len(self.kv) == len(self.items)

    def teardown(self) -> None:
        if not hasattr(self, "kv"):
            return
        assert list(self.kv.items()) == sorted(self.items.items())
        self.tx.commit()
        self.expected["a"] = self.items
        for store in (self.store, reopened(self.device)):
            assert_sound(store)
            assert_holds(store, self.expected)
            store.close()


def test_tree_is_a_sorted_dict() -> None:
    """See the machine above."""
    run(TreeMachine)


@pytest.mark.parametrize("node_size", [4096, 8192, 16384, 32768])
@pytest.mark.parametrize("key_size", [4, 100, 1024])
def test_tree_grows_and_shrinks_through_all_heights(node_size: int, key_size: int) -> None:
    """Random puts until the tree is high, random deletes until it is empty, all the time sound."""
    chance = random.Random(node_size + key_size)
    device = MemoryDevice()
    store = cowfs.open_device(device, parameters=cowfs.Parameters(node_size=node_size))
    store.create("a")
    items: Items = {}
    names = [b"%04d" % n + b"." * (key_size - 4) for n in range(600 if key_size > 4 else 3000)]
    for growing in (True, False):
        for _ in range(4):
            with store.transaction() as tx:
                kv = tx["a"]
                for key in chance.sample(names, len(names) // 2):
                    if growing or chance.random() < 0.1:
                        items[key] = kv[key] = chance.randbytes(chance.choice((0, 20, 400)))
                    else:
                        assert kv.discard(key) == (items.pop(key, None) is not None)
            assert_sound(store)
            assert_holds(store, {"a": items})
    with store.transaction() as tx:
        for key in chance.sample(sorted(items), len(items)):
            del tx["a"][key]
    assert_holds(store, {"a": {}})
    assert_sound(reopened(device))
