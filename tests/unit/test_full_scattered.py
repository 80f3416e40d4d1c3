"""Images of limited size whose free blocks lie one by one: deleting goes on, whatever a node needs.

Other datasets can leave free space so, and no policy of the allocator could rule it out. Here the
test itself holds every second free block, anew in each transaction, so that there is never a run
of two.
"""

from __future__ import annotations

import random

import pytest

import cowfs
from cowfs.device import MemoryDevice

from ..conftest import MakeStore
from ..plain import assert_sound, noise, text

GEOMETRIES = [
    (block, node)
    for block in cowfs.limits.BLOCK_SIZES[:3]
    for node in cowfs.limits.NODE_SIZES
    if node > block
]


class Scattered:
    """Holds free blocks of a store, so that no two of the others lie side by side."""

    def __init__(self, store: cowfs.Store) -> None:
        self.store = store
        self.held: list[int] = []

    def hold(self) -> None:
        """Hold every second block of each free run."""
        space = self.store.io.space
        self.release()
        self.store.io.writer.finish_run()
        space.release_log()
        self.store.device.resize(space.limit * space.block_size)
        space.bitmap.resize(space.limit)
        at = space.bitmap.next_clear(0)
        while at < space.total:
            stop = space.bitmap.next_set(at)
            self.held += range(at + 1, stop, 2)
            at = space.bitmap.next_clear(stop)
        for block in self.held:
            space.bitmap.set(block, 1)
        assert not space.has_runs(2)

    def leave_run(self, blocks: int) -> None:
        """Let go of what parts one run of so many free blocks."""
        parting = next(
            range(first, first + blocks, 2)
            for first, last in zip(self.held, self.held[blocks // 2 - 1 :], strict=False)
            if last - first == blocks - 2
        )
        for block in parting:
            self.held.remove(block)
            self.store.io.space.bitmap.clear(block, 1)

    def release(self) -> None:
        """Hold nothing."""
        while self.held:
            self.store.io.space.bitmap.clear(self.held.pop(), 1)


def filled(store: cowfs.Store, chance: random.Random) -> None:
    """Fill kv `a` with items of all sizes, half of which compress; leave a quarter free."""
    with store.transaction() as tx:
        limit = tx.tree("a").inline_limit
    number = 0
    try:
        while True:
            with store.transaction() as tx:
                for _ in range(20):
                    number += 1
                    key = b"%06d" % number + noise(chance.choice((1, 10, 1000)), number)
                    size = chance.choice((0, 10, limit // 4, limit // 2, limit))
                    tx["a"][key] = chance.choice((noise, text))(size, number)
    except cowfs.OutOfSpaceError:
        store["a"].delete_range(b"%06d" % (number * 3 // 4))
        store.reclaim()


@pytest.mark.parametrize(("block_size", "node_size"), GEOMETRIES)
@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_keys_are_deleted_one_by_one_where_free_blocks_lie_one_by_one(
    make_store: MakeStore, block_size: int, node_size: int, compression: str
) -> None:
    chance = random.Random(block_size + node_size)
    store = make_store(
        size=cowfs.limits.MIN_IMAGE_BLOCKS * block_size,
        block_size=block_size,
        node_size=node_size,
        compression=compression,
    )
    store.create("a")
    filled(store, chance)
    items = dict(store["a"].items())
    keys = list(items)
    chance.shuffle(keys)
    scattered = Scattered(store)
    for number, key in enumerate(keys):
        with store.transaction() as tx:
            scattered.hold()
            del tx["a"][key]
        del items[key]
        if number % 100 == 0:
            assert dict(store["a"].items()) == items
            scattered.release()
            assert_sound(store)
    scattered.release()
    assert not store["a"]
    assert_sound(store)


def test_files_are_removed_one_by_one_where_free_blocks_lie_one_by_one(
    make_store: MakeStore,
) -> None:
    chance = random.Random(1)
    device = MemoryDevice()
    store = make_store(device, size=2 << 20, compression="none")
    fs = store.create("f", kind="fs")
    names: list[str] = []
    try:
        while True:
            with store.transaction() as tx:
                for _ in range(20):
                    name = f"/{len(names):05}" + "n" * chance.choice((1, 20, 249))
                    tx["f"].write_bytes(name, noise(chance.choice((0, 500, 1500)), len(names)))
                    names.append(name)
    except cowfs.OutOfSpaceError:
        names = ["/" + name for name in fs.listdir("/")]
    chance.shuffle(names)
    for name in names[: len(names) // 4]:
        fs.unlink(name)
    store.close()  # this stores the trees; below, each transaction has to
    store = cowfs.open_device(device)
    fs = store["f"]
    scattered = Scattered(store)
    for name in names[len(names) // 4 :]:
        with store.transaction() as tx:
            scattered.hold()
            tx["f"].unlink(name)
    scattered.release()
    assert not fs.listdir("/")
    assert_sound(store)


def test_transactions_of_many_puts_commit_where_free_blocks_lie_one_by_one(
    make_store: MakeStore,
) -> None:
    """What they do, and what becomes of space, is more than the record has room for; and the first
    piece of it takes the only run that there is."""
    chance = random.Random(7)
    store = make_store(size=48 << 20, compression="none")
    items = {b"%06d" % n: noise(1000, n) for n in range(16_000)}
    store.create("a").load_sorted(items.items())
    scattered = Scattered(store)
    keys = list(items)
    for number in range(12):
        changes = {key: noise(1000, number) for key in chance.sample(keys, 40 << number % 5)}
        with store.transaction() as tx:
            scattered.hold()
            scattered.leave_run(16)
            tx["a"].update(changes)
        items.update(changes)
    scattered.release()
    assert dict(store["a"].items()) == items
    assert_sound(store)
