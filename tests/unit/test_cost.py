"""What operations cost in I/O, counted on the device: nothing here measures time."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable

import pytest

import cowfs
from cowfs import limits
from cowfs._node import Entry
from cowfs.device import MemoryDevice
from crashfuzzer.device import RecordingDevice, Write

from ..conftest import MakeStore
from ..plain import assert_sound, noise


def filled(make_store: MakeStore, keys: int) -> tuple[RecordingDevice, cowfs.Store]:
    """A store with so many keys, opened anew so that its log is short and its cache empty."""
    device = RecordingDevice()
    store = make_store(device)
    store.create("a").load_sorted((b"%08d" % n, noise(100, n % 999)) for n in range(keys))
    store.close()
    store = cowfs.open_device(device)
    store["a"][b"%08d" % (keys // 2)] = b"touched"
    return device, store


def blocks(device: RecordingDevice, work: Callable[[], object]) -> tuple[int, int]:
    """(blocks written, blocks read) by something."""
    before, read = len(device.log), device.blocks_read
    work()
    written = sum(len(op.data) // 4096 for op in device.log[before:] if isinstance(op, Write))
    return written, device.blocks_read - read


def test_nodes_are_nothing_to_the_garbage_collector(make_store: MakeStore) -> None:
    store = make_store()
    kv = store.create("a")
    with store.transaction() as tx:
        tx["a"].update((b"%08d" % n, noise(100, n % 999)) for n in range(20_000))
    for n in range(0, 20_000, 50):
        kv[b"%08d" % n] = b"changed"
    assert not [
        found
        for found in gc.get_objects()
        if type(found) is list and any(isinstance(entry, Entry) for entry in found)
    ]


@pytest.mark.parametrize(
    "name",
    ["snapshot", "rollback", "clone", "rename", "destroy", "put after a snapshot"],
)
def test_versions_cost_the_same_whatever_the_size(make_store: MakeStore, name: str) -> None:
    costs = []
    for keys in (1000, 100_000):
        device, store = filled(make_store, keys)
        store.snapshot("a@first")
        store["a"][b"%08d" % 7] = b"changed"
        work: dict[str, Callable[[], object]] = {
            "snapshot": lambda store=store: store.snapshot("a@second"),  # type: ignore[misc]
            "rollback": lambda store=store: store.rollback("a@first"),  # type: ignore[misc]
            "clone": lambda store=store: store.clone("a@first", "b"),  # type: ignore[misc]
            "rename": lambda store=store: store.rename("a", "b"),  # type: ignore[misc]
            "destroy": lambda store=store: store.destroy("a@first"),  # type: ignore[misc]
            "put after a snapshot": lambda store=store: store["a"].update({b"%08d" % 9: b""}),  # type: ignore[misc]
        }
        costs.append(blocks(device, work[name]))
    (small, small_read), (large, large_read) = costs
    assert large <= small + 2 * 2  # one more level of the tree, in nodes of two blocks
    assert large_read <= small_read + 8
    assert large <= 16


def test_a_snapshot_costs_one_small_commit(make_store: MakeStore) -> None:
    device, store = filled(make_store, 100_000)
    store.snapshot("a@first")
    store["a"][b"%08d" % 7] = b"changed"
    written, read = blocks(device, lambda: store.snapshot("a@x"))
    assert written <= 10  # a leaf and what is above it, catalog and record
    assert read == 0


def test_a_range_is_deleted_without_reading_its_leaves(make_store: MakeStore) -> None:
    device, store = filled(make_store, 100_000)
    tree_blocks = store.list()[0].stored // 4096

    def delete() -> None:
        with store.transaction() as tx:
            assert tx["a"].delete_range(b"00010000", b"00090000") == 80_000

    _, read = blocks(device, delete)
    assert read < tree_blocks // 30


def test_len_and_summaries_read_nothing(make_store: MakeStore) -> None:
    device, store = filled(make_store, 100_000)
    store.list()
    _, read = blocks(device, lambda: (len(store["a"]), store.list()))
    assert len(store["a"]) == 100_000
    assert read <= 2


def test_a_point_get_reads_one_path(make_store: MakeStore) -> None:
    device, store = filled(make_store, 100_000)
    store.close()
    store = cowfs.open_device(device)
    _, read = blocks(device, lambda: store["a"][b"%08d" % 77_777])
    assert read <= 2 * 4 + 4


def test_reading_again_reads_nothing_while_the_cache_is_large_enough(
    make_store: MakeStore,
) -> None:
    device, store = filled(make_store, 10_000)
    with store.at("a") as view:
        assert len(list(view.items())) == 10_000
        _, read = blocks(device, lambda: [list(view.items()), list(view.values(reverse=True))])
        assert read == 0
        _, read = blocks(device, lambda: [view[key] for key in view])
        assert read == 0


def test_opening_reads_little(make_store: MakeStore) -> None:
    device, store = filled(make_store, 100_000)
    store.close()
    _, read = blocks(device, lambda: cowfs.open_device(device, readonly=True))
    assert read < 400


def test_overwriting_over_and_over_does_not_grow_the_image(make_store: MakeStore) -> None:
    chance = random.Random(1)
    device = MemoryDevice()
    store = make_store(device)
    keys = [chance.randbytes(16) for _ in range(20_000)]
    store.create("a").load_sorted(sorted((key, noise(100, i)) for i, key in enumerate(keys)))
    sizes = []
    for round_ in range(36):
        value = noise(100, round_)
        chance.shuffle(keys)
        for start in range(0, len(keys), 1000):
            with store.transaction() as tx:
                for key in keys[start : start + 1000]:
                    tx["a"][key] = value
        sizes.append(device.size())
    live = store.list()[0].stored
    # Two logs, of which one waits, what a small image may have beside, and no more than that.
    assert sizes[-1] <= 3 * live + 2 * limits.LOG_BYTES + 8 * limits.MIB
    assert sizes[-1] <= 1.05 * sizes[24]
    assert_sound(store)


def test_a_snapshot_costs_the_same_however_many_there_are(make_store: MakeStore) -> None:
    costs = []
    for count in (3, 3_000):
        device = RecordingDevice()
        store = make_store(device)
        store.create("a")[b"key"] = b"value"
        with store.transaction() as tx:
            for number in range(count):
                tx.snapshot(f"a@{number}")
        store.close()
        store = cowfs.open_device(device)
        costs.append(blocks(device, lambda store=store: store.snapshot("a@new")))  # type: ignore[misc]
    (small, small_read), (large, large_read) = costs
    assert large <= small + 2 * 2  # one more level of the catalog
    assert large_read <= small_read + 2 * 2
