"""The volume kind against a bytearray: bytes at offsets, zeros where nothing was written."""

from __future__ import annotations

import random
from typing import Any

import pytest

import cowfs
from cowfs.device import MemoryDevice

from ..plain import assert_sound, noise, reopened

SIZE = 3_000_001


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("how", ["live", "transaction"])
def test_a_volume_is_a_bytearray(seed: int, how: str) -> None:
    chance = random.Random(seed)
    device = MemoryDevice()
    store = cowfs.open_device(device, parameters=cowfs.Parameters(), cache=1 << 20)
    store.create("v", kind="volume", size=SIZE)
    model = bytearray(SIZE)
    snapshots: dict[str, bytes] = {}
    tx = None
    for step in range(60):
        if how == "transaction" and tx is None:
            tx = store.transaction()
        volume = tx["v"] if tx else store["v"]
        assert volume.size == len(model)
        offset = chance.randrange(len(model) + 1)
        length = min(chance.choice((0, 1, 512, 4096, 300_000)), len(model) - offset)
        match chance.randrange(8):
            case 0 | 1 | 2:
                data = noise(length, step)
                assert volume.pwrite(data, offset) == length
                model[offset : offset + length] = data
            case 3:
                volume.discard(offset, length)
                model[offset : offset + length] = bytes(length)
            case 4:
                size = chance.choice((1, 100, 131_072, 1_000_000, SIZE, 2 * SIZE))
                volume.resize(size)
                del model[size:]
                model.extend(bytes(size - len(model)))
            case 5 if len(snapshots) < 5:
                name = f"v@{step}"
                (tx or store).snapshot(name)
                snapshots[name] = bytes(model)
            case 6 if snapshots and chance.random() < 0.3:
                name = chance.choice(sorted(snapshots))
                (tx or store).rollback(name)
                model = bytearray(snapshots[name])
            case _:
                pass
        offset = min(offset, len(model))
        assert volume.pread(length + 10, offset) == model[offset : offset + length + 10]
        at = 0
        for start, stop in volume.data_ranges():
            assert not any(model[at:start])
            at = stop
        assert not any(model[at:])
        if tx and chance.random() < 0.3:
            tx.commit()
            tx = None
    if tx:
        tx.commit()
    for found in (store, reopened(device)):
        assert found["v"].pread(1 << 40, 0) == model
        for name, data in snapshots.items():
            with found.at(name) as view:
                assert (view.size, view.pread(1 << 40, 0)) == (len(data), data)
        assert_sound(found)


def test_reads_end_where_the_volume_ends(store: cowfs.Store) -> None:
    volume = store.create("v", kind="volume", size=1000)
    volume.pwrite(b"end", 997)
    assert volume.pread(10, 995) == b"\0\0end"
    assert volume.pread(10, 1000) == b""
    assert volume.pread(0, 0) == b""
    assert volume.pread(2000, 0) == bytes(997) + b"end"


@pytest.mark.parametrize(
    "use",
    [
        lambda volume: volume.pwrite(b"x", 1000),
        lambda volume: volume.pwrite(b"xx", 999),
        lambda volume: volume.pwrite(b"x", -1),
        lambda volume: volume.pread(1, 1001),
        lambda volume: volume.pread(1, -1),
        lambda volume: volume.discard(0, 1001),
        lambda volume: volume.discard(-1, 1),
        lambda volume: volume.discard(5, -1),
        lambda volume: volume.resize(0),
        lambda volume: volume.resize(-5),
        lambda volume: volume.resize(1 << 63),
    ],
)
@pytest.mark.parametrize("how", ["live", "transaction"])
def test_what_lies_outside_is_refused_and_changes_nothing(
    store: cowfs.Store, use: Any, how: str
) -> None:
    volume = store.create("v", kind="volume", size=1000)
    volume.pwrite(noise(1000), 0)
    if how == "live":
        with pytest.raises(cowfs.UsageError):
            use(volume)
    else:
        with store.transaction() as tx, pytest.raises(cowfs.UsageError):
            use(tx["v"])
    assert volume.size == 1000
    assert volume.pread(1000, 0) == noise(1000)
    assert_sound(store)


def test_views_of_volumes_cannot_be_changed(store: cowfs.Store) -> None:
    store.create("v", kind="volume", size=1000).pwrite(b"old", 0)
    store.snapshot("v@x")
    for name in ("v", "v@x"):
        with store.at(name) as view:
            with pytest.raises(cowfs.ReadOnlyError):
                view.pwrite(b"new", 0)
            with pytest.raises(cowfs.ReadOnlyError):
                view.discard(0, 10)
            with pytest.raises(cowfs.ReadOnlyError):
                view.resize(10)
            assert view.pread(3, 0) == b"old"


def test_a_discarded_range_gives_its_space_back(store: cowfs.Store) -> None:
    volume = store.create("v", kind="volume", size=16 << 20)
    volume.pwrite(noise(16 << 20), 0)
    assert store.list()[0].stored > 16 << 20
    volume.discard(0, 16 << 20)
    assert store.list()[0].stored <= 1 << 16
    assert volume.data_ranges() == []
    assert_sound(store)


def test_diff_of_volumes_gives_the_ranges_that_differ(store: cowfs.Store) -> None:
    volume = store.create("v", kind="volume", size=64 << 20)
    volume.pwrite(noise(8 << 20), 0)
    store.snapshot("v@x")
    assert list(store.diff("v@x", "v")) == []
    places = [3 << 20, (3 << 20) + 5, 7 << 20, 40 << 20]
    for place in places:
        volume.pwrite(b"changed", place)
    changes = list(store.diff("v@x", "v"))
    assert all(change.op == "M" and change.path == b"" for change in changes)
    for place in places:
        assert any(change.start <= place and place + 7 <= change.stop for change in changes)
    assert sum(change.stop - change.start for change in changes) <= 4 * 131_072
    assert [change.start for change in changes] == sorted(change.start for change in changes)


@pytest.mark.parametrize("offset", [0, 15_000, 39_488])
def test_a_volume_keeps_its_bytes_when_free_runs_have_become_shorter(
    store: cowfs.Store, offset: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written as one extent is cut into records for which there is room."""
    volume = store.create("disk", "volume", 40_000)
    volume.pwrite(noise(40_000), 0)
    store.snapshot("disk@before")
    monkeypatch.setattr(type(store.io.space), "has_run", lambda self, blocks: blocks <= 2)
    volume.pwrite(noise(512, 1), offset)
    expected = noise(40_000)[:offset] + noise(512, 1) + noise(40_000)[offset + 512 :]
    assert volume.pread(40_000, 0) == expected
    store.destroy("disk@before")
    assert_sound(store)
