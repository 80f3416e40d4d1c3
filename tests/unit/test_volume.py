"""The volume kind against a bytearray: bytes at offsets, zeros where nothing was written."""

from __future__ import annotations

import os
import random
from array import array
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import cowfs
from cowfs.device import MemoryDevice

from ..plain import assert_sound, noise, reopened

SIZE = 3_000_001


def test_diff_of_a_volume_that_was_empty_gives_what_was_written(store: cowfs.Store) -> None:
    volume = store.create("v", "volume", 64 << 20, 16384)
    store.snapshot("v@empty")
    volume.pwrite(noise(5000), 32 << 20)
    volume.pwrite(noise(16384), 48 << 20)
    expected = [(32 << 20, (32 << 20) + 16384), (48 << 20, (48 << 20) + 16384)]
    for names in (("v@empty", "v"), ("v", "v@empty")):
        assert [(change.start, change.stop) for change in store.diff(*names)] == expected


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


def test_what_is_written_counts_in_bytes(store: cowfs.Store) -> None:
    """An array's items have four here; a record of them is four records."""
    numbers = array("I", range(4096))
    volume = store.create("v", "volume", 32_768, 4096)
    assert volume.pwrite(memoryview(numbers), 0) == 16_384
    volume.pwritev([(16_384, memoryview(numbers))])
    assert volume.pread(32_768, 0) == 2 * numbers.tobytes()
    with pytest.raises(cowfs.UsageError):
        volume.pwrite(memoryview(numbers), 20_000)
    for pieces in (
        [(20_000, memoryview(numbers))],
        [(0, memoryview(numbers)), (8000, memoryview(b"x"))],
    ):
        with pytest.raises(cowfs.UsageError):
            volume.pwritev(pieces)
    assert volume.pread(32_768, 0) == 2 * numbers.tobytes()
    assert_sound(store)


@pytest.mark.parametrize("record_size", [4096, 16_384, 131_072])
@pytest.mark.parametrize("compression", ["none", "lz4"])
@pytest.mark.parametrize("before", [0, 100, 150_000])
def test_whole_records_are_written_by_their_numbers(
    record_size: int, compression: str, before: int
) -> None:
    """Those of zeros are holes; others are stored as they are, or compressed."""
    device = MemoryDevice()
    parameters = cowfs.Parameters(compression=compression)
    store = cowfs.open_device(device, parameters=parameters)
    volume = store.create("v", "volume", 40 * record_size, record_size)
    volume.pwrite(noise(before), 0)
    model = bytearray(noise(before).ljust(40 * record_size, b"\0"))
    records = {
        0: bytes(record_size),
        3: noise(record_size, 3),
        4: noise(record_size, 4),
        20: bytes(record_size - 1) + b"x",
        39: bytes(record_size),
    }
    for _ in range(2):
        volume.write_records(list(records.items()))
        for number, data in records.items():
            model[number * record_size : (number + 1) * record_size] = data
        assert volume.pread(40 * record_size, 0) == model
        records[3] = noise(record_size, 7)
        records.pop(20, None)
    assert all(stop <= 39 * record_size for _, stop in volume.data_ranges())
    assert_sound(store)
    again = reopened(device)
    assert again["v"].pread(40 * record_size, 0) == model


@pytest.mark.parametrize(
    ("numbers", "lengths"),
    [
        ([0, 1], [4096, 4095]),
        ([0, 1], [4096, 8192]),
        ([-1, 0], [4096] * 2),
        ([9], [4096]),
        ([0, 20, 1], [4096] * 3),
        ([3, 3], [4096] * 2),
    ],
)
def test_records_that_cannot_be_change_nothing(
    store: cowfs.Store, numbers: list[int], lengths: list[int]
) -> None:
    volume = store.create("v", "volume", 40_000, 4096)
    volume.pwrite(noise(40_000), 0)
    records: list[tuple[int, Any]] = [
        (number, noise(length)) for number, length in zip(numbers, lengths, strict=True)
    ]
    with store.transaction() as tx:
        for wrong in (records, [(0, memoryview(array("I", range(1024))))]):
            with pytest.raises(cowfs.UsageError):
                tx["v"].write_records(wrong)
        tx["v"].pwrite(b"more", 0)
    assert volume.pread(40_000, 0) == b"more" + noise(40_000)[4:]
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
    monkeypatch.setattr(type(store.io.space), "has_runs", lambda self, blocks, count=1: blocks <= 2)
    volume.pwrite(noise(512, 1), offset)
    expected = noise(40_000)[:offset] + noise(512, 1) + noise(40_000)[offset + 512 :]
    assert volume.pread(40_000, 0) == expected
    store.destroy("disk@before")
    assert_sound(store)


@pytest.mark.parametrize("record_size", [4096, 65536, 1 << 20])
def test_a_small_write_rewrites_one_record(store: cowfs.Store, record_size: int) -> None:
    volume = store.create("v", "volume", 8 << 20, record_size)
    assert volume.record_size == store["v"].record_size == record_size
    volume.pwrite(noise(8 << 20), 0)
    store.snapshot("v@x")
    with store.transaction() as tx:
        tx["v"].pwrite(b"x", 5_000_000)
        written = store.io.writer.written
    assert record_size <= written <= record_size + 10 * store.io.block_size
    (change,) = store.diff("v@x", "v")
    assert change.start is not None and change.stop is not None
    assert change.stop - change.start == record_size
    clone = store.clone("v@x", "w")
    assert clone.record_size == record_size
    assert clone.pread(8 << 20, 0) == noise(8 << 20)
    assert_sound(store)


@pytest.mark.parametrize("size", [0, 2048, 4097, 12_288, 2 << 20, "4K"])
def test_other_record_sizes_are_refused(store: cowfs.Store, size: Any) -> None:
    with pytest.raises(cowfs.UsageError, match=r"4K, 8K, .* 512K, 1M"):
        store.create("v", "volume", 1000, size)
    with pytest.raises(cowfs.UsageError, match="only a volume"):
        store.create("v", "kv", record_size=4096)
    assert list(store) == []


def test_a_record_is_no_smaller_than_a_block(make_store: Any) -> None:
    store = make_store(block_size=65536)
    with pytest.raises(cowfs.UsageError, match="allowed in this image are 64K"):
        store.create("v", "volume", 1000, 4096)
    assert store.create("v", "volume", 1000).record_size == 65536


def test_a_view_keeps_the_size_of_its_moment(store: cowfs.Store) -> None:
    volume = store.create("v", "volume", 5000)
    with store.at("v") as view:
        volume.resize(9000)
        assert (view.size, volume.size) == (5000, 9000)
        assert view.pread(9000, 0) == bytes(5000)


def test_a_live_volume_has_the_size_of_its_version_and_not_of_the_open_transaction(
    store: cowfs.Store,
) -> None:
    volume = store.create("v", "volume", 5000)
    volume.pwrite(noise(5000), 0)
    store.snapshot("v@x")
    with store.transaction() as tx:
        tx["v"].resize(100)
        assert (tx["v"].size, volume.size) == (100, 5000)
        assert volume.pread(9000, 0) == noise(5000)
        tx.rollback("v@x")
        assert tx["v"].size == 5000
        tx["v"].resize(9000)
        assert tx["v"].pwrite(b"end", 8997) == 3
        assert volume.pread(9000, 0) == noise(5000)
    assert volume.pread(9000, 0) == noise(5000) + bytes(3997) + b"end"


def test_records_that_lie_side_by_side_are_read_together(make_store: Any) -> None:
    device = CountingDevice()
    store = make_store(device)
    volume = store.create("v", "volume", 4 << 20, 4096)
    volume.pwrite(noise(1 << 20), 0)
    volume.pwrite(noise(4096, 7), 500_000 // 4096 * 4096)
    store.io.cache.evict(store.io.cache.limit)
    device.reads = 0
    expected = bytearray(noise(1 << 20))
    expected[499_712 : 499_712 + 4096] = noise(4096, 7)
    assert volume.pread(1 << 20, 0) == expected
    assert device.reads < 20


def test_a_damaged_record_among_sound_ones_is_found(store: cowfs.Store) -> None:
    volume = store.create("v", "volume", 1 << 20, 4096)
    volume.pwrite(noise(1 << 20), 0)
    at = store.device.read(0, store.device.size()).index(noise(1 << 20)[409_600:409_700])
    store.io.cache.evict(store.io.cache.limit)
    store.device.write(at, b"damage")
    with pytest.raises(cowfs.CorruptionError, match="checksum"):
        volume.pread(1 << 20, 0)
    assert volume.pread(409_600, 0) == noise(1 << 20)[:409_600]


class CountingDevice(MemoryDevice):
    """Counts reads."""

    reads = 0

    def read(self, offset: int, length: int) -> bytes:
        self.reads += 1
        return super().read(offset, length)


# --- files on the host --------------------------------------------------------------------------


def sparse_file(path: Path, size: int, *data: tuple[int, bytes]) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, part in data:
            file.seek(offset)
            file.write(part)
    return path


def test_copies_to_and_from_files_keep_bytes_holes_and_size(
    store: cowfs.Store, tmp_path: Path
) -> None:
    data = (10 << 20, noise(1 << 20)), (100 << 20, b"x"), ((1 << 30) + 1, b"end")
    raw = sparse_file(tmp_path / "raw", (1 << 30) + 5000, *data)
    volume = store.create("v", "volume", 2 << 30)
    volume.pwrite(noise(5000), 900 << 20)
    steps: list[tuple[int, int]] = []
    volume.copy_in(raw, progress=lambda done, total: steps.append((done, total)))
    assert volume.size == raw.stat().st_size
    assert steps[-1] == (volume.size, volume.size)
    assert steps == sorted(steps)
    assert volume.pread(5000, 900 << 20) == bytes(5000)
    assert store.list()[0].stored < 2 << 20
    copy = tmp_path / "copy"
    copy.write_bytes(noise(3 << 20))
    with store.at("v") as view:
        view.copy_out(copy)
    assert copy.stat().st_size == raw.stat().st_size
    assert copy.stat().st_blocks * 512 < 2 << 20
    with raw.open("rb") as one, copy.open("rb") as other:
        for start, length in ((0, 11 << 20), (100 << 20, 4096), (900 << 20, 5000), (1 << 30, 5000)):
            one.seek(start)
            other.seek(start)
            assert one.read(length) == other.read(length)
    assert_sound(store)


def test_a_copy_to_what_cannot_have_holes_has_every_byte(
    store: cowfs.Store, tmp_path: Path
) -> None:
    volume = store.create("v", "volume", 50_000)
    volume.pwrite(b"middle", 25_000)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(fifo.read_bytes)
        volume.copy_out(fifo)
        assert reader.result() == bytes(25_000) + b"middle" + bytes(24_994)


def test_what_no_volume_can_be_a_copy_of_is_refused(store: cowfs.Store, tmp_path: Path) -> None:
    volume = store.create("v", "volume", 1000)
    volume.pwrite(b"old", 0)
    (tmp_path / "empty").touch()
    with pytest.raises(cowfs.UsageError, match="is empty"):
        volume.copy_in(tmp_path / "empty")
    with pytest.raises(cowfs.UsageError, match="from a file or a disk"):
        volume.copy_in("/dev/null")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(cowfs.UsageError, match="a file or a disk"):
        volume.copy_in(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError):
        volume.copy_in(tmp_path)
    with pytest.raises(FileNotFoundError):
        volume.copy_in(tmp_path / "nothing")
    assert (volume.size, volume.pread(3, 0)) == (1000, b"old")
