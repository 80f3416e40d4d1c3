"""Images of limited size that are full: a clear error, no trace, and deleting always works."""

from __future__ import annotations

import random

import pytest

import cowfs
from cowfs.device import MemoryDevice

from ..conftest import MakeStore
from ..plain import assert_holds, assert_sound, contents, noise, reopened, text

SMALL = 4 << 20


def fill(store: cowfs.Store, name: str, size: int, *, first: int = 0, batch: int = 1) -> int:
    """Put values until the image is full; how many there were room for."""
    number = first
    while True:
        try:
            with store.transaction() as tx:
                for i in range(number, number + batch):
                    tx[name][b"%06d" % i] = noise(size, i)
        except cowfs.OutOfSpaceError:
            if batch == 1:
                return number
            batch = 1
        else:
            number += batch


@pytest.mark.parametrize("size", [10, 500, 3000, 20_000, 300_000])
def test_out_of_space_leaves_no_trace(make_store: MakeStore, size: int) -> None:
    device = MemoryDevice()
    store = make_store(device, size=SMALL)
    store.create("a")
    fill(store, "a", size, batch=max(1, 200_000 // (size + 100)))
    before = contents(store)
    used = store.space()
    with (
        pytest.raises(cowfs.OutOfSpaceError, match=r"full.*delete"),
        store.transaction() as tx,
    ):
        tx["a"].load_sorted((b"zz%06d" % i, noise(size, i)) for i in range(5_000_000 // size))
    assert_holds(store, before)
    assert_sound(store)
    after = store.space()
    assert (after.live, after.pinned) == (used.live, used.pinned)
    assert device.size() <= SMALL
    assert_holds(reopened(device), before)


@pytest.mark.parametrize("size", [10, 1500, 6000, 150_000])
@pytest.mark.parametrize("one_by_one", [True, False])
@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_deleting_empties_a_full_image(
    make_store: MakeStore, size: int, one_by_one: bool, compression: str
) -> None:
    device = MemoryDevice()
    store = make_store(device, size=SMALL, compression=compression)
    store.create("a")
    empty = store.space().free
    count = fill(store, "a", size, batch=max(1, 200_000 // (size + 100)))
    keys = list(store["a"].keys())
    assert len(keys) == count
    if one_by_one:
        random.Random(size).shuffle(keys)
        for key in keys[:1500]:
            del store["a"][key]
        with store.transaction() as tx:
            tx["a"].clear()
    else:
        assert store["a"].delete_range() == count
    store.reclaim()
    assert_sound(store)
    assert len(store["a"]) == 0
    store.close()
    store = cowfs.open_device(device)
    assert store.space().free + store.space().reclaimable >= empty - (64 << 10)
    again = fill(store, "a", size, batch=max(1, 200_000 // (size + 100)))
    assert again >= min(count - 1, count * 0.95)


def test_keys_can_be_deleted_one_by_one_below_a_snapshot_until_the_reserve_is_used(
    make_store: MakeStore,
) -> None:
    """Deleting what a snapshot keeps frees nothing and copies nodes; destroying it still works."""
    store = make_store(size=SMALL)
    store.create("a").load_sorted((b"%06d" % i, noise(300, i)) for i in range(4000))
    store.snapshot("a@x")
    fill(store, "a", 300, first=4000, batch=100)
    with store.at("a@x") as view:
        before = dict(view.items())
    keys = list(before)
    random.Random(1).shuffle(keys)
    deleted = 0
    try:
        for key in keys:
            del store["a"][key]
            deleted += 1
    except cowfs.OutOfSpaceError:
        pass
    assert deleted >= 1
    assert_sound(store)
    with store.at("a@x") as view:
        assert dict(view.items()) == before
    store.destroy("a@x")
    assert_sound(store)
    for key in store["a"]:
        del store["a"][key]
    assert_sound(store)


def test_snapshots_can_be_destroyed_on_a_completely_full_image(make_store: MakeStore) -> None:
    device = MemoryDevice()
    store = make_store(device, size=SMALL)
    store.create("a")
    for number in range(4):
        for key in range(0, 100):
            store["a"][b"%03d" % key] = noise(2000, number)
        store.snapshot(f"a@{number}")
    fill(store, "a", 5000, first=1000, batch=10)
    # Go on until even overwriting, which frees as much as it takes, is refused.
    with pytest.raises(cowfs.OutOfSpaceError):
        for number in range(10_000):
            store["a"][b"%03d" % (number % 100)] = noise(2000, number)
    for number in (1, 3, 0, 2):
        store = reopened(device)
        device = store.device  # type: ignore[assignment]
        store.destroy(f"a@{number}")
        assert_sound(store)
    store["a"][b"there is room again"] = noise(100_000)


def test_a_dataset_can_be_destroyed_on_a_full_image(make_store: MakeStore) -> None:
    store = make_store(size=SMALL)
    for name in ("a", "b"):
        store.create(name)
    fill(store, "a", 100, batch=500)
    fill(store, "b", 100)
    before = dict(store["b"].items())
    store.destroy("a")
    assert_sound(store)
    assert dict(store["b"].items()) == before
    fill(store, "b", 1000, first=100_000, batch=50)
    assert len(store["b"]) > len(before)


def test_filling_and_deleting_over_and_over_leaks_nothing(make_store: MakeStore) -> None:
    device = MemoryDevice()
    store = make_store(device, size=SMALL)
    store.create("a")
    counts = []
    for cycle in range(8):
        counts.append(fill(store, "a", 2000 + cycle % 2 * 30_000, batch=20))
        assert_sound(store)
        store["a"].clear()
        store.reclaim()
        if cycle % 3 == 2:
            store.close()
            store = cowfs.open_device(device)
    assert min(counts[::2]) >= max(counts[::2]) * 0.9
    assert min(counts[1::2]) >= max(counts[1::2]) * 0.9
    assert_sound(store)


@pytest.mark.parametrize("seed", range(4))
def test_a_full_image_that_is_fragmented_still_takes_deletes(
    make_store: MakeStore, seed: int
) -> None:
    """Free space in single blocks, nodes of two: whatever is free must be usable for deleting."""
    chance = random.Random(seed)
    store = make_store(size=SMALL, compression="none", node_size=16384)
    store.create("a")
    number = 0
    for _ in range(6):
        while True:
            try:
                with store.transaction() as tx:
                    for _ in range(chance.randrange(1, 10)):
                        number += 1
                        tx["a"][b"%d" % number] = noise(chance.choice((3900, 8000, 12000)), number)
            except cowfs.OutOfSpaceError:
                break
        keys = list(store["a"].keys())
        for key in chance.sample(keys, len(keys) // 3):
            del store["a"][key]
    assert_sound(store)


def test_out_of_space_breaks_the_whole_transaction_even_if_it_is_caught(
    make_store: MakeStore,
) -> None:
    """A transaction that met the error cannot commit a part of what it did."""
    store = make_store(size=SMALL, cache=1 << 20)
    store.create("a")[b"before"] = b"1"
    before = contents(store)
    for size in (700, 5000, 200_000):
        tx = store.transaction()
        with pytest.raises(cowfs.OutOfSpaceError):
            for number in range(20_000):
                tx["a"][b"%d" % number] = noise(size, number)
        with pytest.raises(cowfs.Error):
            for number in range(20_000):
                tx["a"][b"more %d" % number] = noise(size // 2, number)
            tx.commit()
        tx.abort()
        assert_holds(store, before)
        assert_sound(store)


@pytest.mark.parametrize("size", [30, 700, 5000, 200_000])
@pytest.mark.parametrize("seed", range(5))
def test_going_on_after_out_of_space_commits_all_or_nothing(
    make_store: MakeStore, size: int, seed: int
) -> None:
    """Whether the caught error was the end of the transaction or not: what commits is whole."""
    chance = random.Random(seed)
    store = make_store(size=SMALL, cache=1 << 20, compression=chance.choice(("none", "lz4")))
    store.create("a").update((b"%d" % n, noise(1000, n)) for n in range(chance.randrange(100)))
    store.snapshot("a@x")
    before = contents(store)
    items = dict(before["a"])
    tx = store.transaction()
    try:
        for number in range(100_000):
            value = noise(chance.randrange(size), number)
            tx["a"][b"%d" % (number * 7919 % 100_000)] = value
            items[b"%d" % (number * 7919 % 100_000)] = value
    except cowfs.OutOfSpaceError:
        pass
    try:
        for _ in range(chance.choice((0, 1, 500))):
            key = chance.choice(sorted(items) or [b"none"])
            if tx["a"].discard(key):
                items.pop(key, None)
        start = b"%d" % chance.randrange(10)
        tx["a"].delete_range(start, None)
        items = {key: value for key, value in items.items() if key < start}
        for number in range(100):
            tx["a"][b"0" + b"%d" % number] = items[b"0" + b"%d" % number] = noise(size // 3, number)
        tx.commit()
    except cowfs.Error:
        tx.abort()
        items = before["a"]
    assert_sound(store)
    assert_holds(store, {**before, "a": items})


def test_large_values_that_do_not_fit_leave_no_trace(make_store: MakeStore) -> None:
    store = make_store(size=SMALL)
    store.create("a")[b"big"] = noise(500_000)
    before = contents(store)
    for mode in range(3):
        with pytest.raises(cowfs.OutOfSpaceError), store.transaction() as tx:
            if mode == 0:
                tx["a"][b"big"] = noise(SMALL)
            else:
                with tx["a"].open(b"big" if mode == 1 else b"other", "wb") as file:
                    file.write(noise(SMALL))
        assert_holds(store, before)
        assert_sound(store)


def test_a_full_image_closes_and_opens(make_store: MakeStore) -> None:
    device = MemoryDevice()
    store = make_store(device, size=SMALL)
    store.create("a")
    fill(store, "a", 500, batch=200)
    before = contents(store)
    for _ in range(5):
        store.close()
        assert device.size() <= SMALL
        store = cowfs.open_device(device)
        assert_holds(store, before)
        assert_sound(store)
        store["a"].discard(next(iter(store["a"])))
        before = contents(store)


def test_a_reader_keeps_what_it_sees_and_no_more(make_store: MakeStore) -> None:
    """Model: the reader's version and the newest one fit side by side, however many lie between."""
    store = make_store(size=SMALL)
    store.create("a")
    for number in range(100):
        store["a"][b"%d" % number] = noise(10_000, number)
    with store.at("a") as view:
        before = dict(view.items())
        for number in range(1000):
            store["a"][b"%d" % (number % 100)] = noise(10_000, number + 1)
        assert dict(view.items()) == before
        assert [reader.name for reader in store.readers()] == ["a"]
        held = store.space().free
    store["a"][b"0"] = b""
    store["a"][b"1"] = b""
    assert store.space().free > held + 900_000
    assert_sound(store)


@pytest.mark.parametrize("size", [30, 1500])
def test_what_waits_for_a_flush_only_is_no_reason_to_be_out_of_space(
    make_store: MakeStore, size: int
) -> None:
    """On a full image, overwriting goes on for ever, durable or not."""
    device = MemoryDevice()
    store = make_store(device, size=SMALL)
    store.create("a")
    count = fill(store, "a", size, batch=max(1, 200_000 // (size + 100)))
    expected = dict(store["a"].items())
    for number in range(1000):
        key = b"%06d" % (number * 7919 % count)
        with store.transaction(durable=False) as tx:
            tx["a"][key] = expected[key] = noise(size, count + number)
    assert dict(store["a"].items()) == expected
    assert_sound(store)
    store.sync()
    assert_holds(reopened(device), {"a": expected})


def test_overwriting_leaves_room_for_deleting(make_store: MakeStore) -> None:
    """Values of the same length that compress worse take more space; deleting must go on."""
    store = make_store(size=SMALL)
    store.create("a")
    with pytest.raises(cowfs.OutOfSpaceError):
        for number in range(100_000):
            store["a"][b"%06d" % number] = text(1500, number)
    keys = list(store["a"])
    with pytest.raises(cowfs.OutOfSpaceError):
        for number, key in enumerate(keys):
            store["a"][key] = noise(1500, number)
    random.Random(1).shuffle(keys)
    for key in keys:
        del store["a"][key]
    assert_sound(store)


def test_a_part_of_a_volume_can_be_discarded_on_a_full_image(make_store: MakeStore) -> None:
    store = make_store(size=2 * SMALL, compression="none")
    volume = store.create("v", kind="volume", size=SMALL)
    volume.pwrite(noise(1 << 20), 0)
    store.create("a")
    fill(store, "a", 100_000, batch=10)
    fill(store, "a", 3000, first=1000)
    volume.discard(100_000, 500_000)
    fill(store, "a", 3000, first=5000)
    volume.resize(700_001)
    expected = noise(1 << 20)[:100_000] + bytes(500_000) + noise(1 << 20)[600_000:700_001]
    assert volume.pread(1 << 20, 0) == expected
    assert_sound(store)


def test_a_large_file_fits_where_free_space_is_in_pieces(make_store: MakeStore) -> None:
    """Its records are as small as it takes, although runs for larger ones are there at first."""
    chance = random.Random(5)
    store = make_store(size=32 << 20, compression="none")
    store.create("a")
    keys = [b"%08d" % i for i in range(16_000)]
    with store.transaction() as tx:
        tx["a"].load_sorted((key, chance.randbytes(1000)) for key in keys)
    for _ in range(60):
        with store.transaction() as tx:
            for key in chance.sample(keys, len(keys) // 50):
                tx["a"][key] = chance.randbytes(1000)
    files = store.create("f", kind="fs")
    space = store.space()
    data = chance.randbytes((space.free - space.reserve) // 2)
    files.write_bytes("x", data)
    assert files.read_bytes("x") == data
    assert_sound(store)
