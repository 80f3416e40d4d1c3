"""Volumes behind a write cache, against a bytearray.

Model: a bytearray for what was written, and a copy of it for each commit. Reads see the first;
after a crash there is the last durable commit, or one of those behind it.
"""

from __future__ import annotations

import errno
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import cowfs
from cowfs.writeback import WriteBack

from ..devices import FailingDevice, copy_device
from ..plain import assert_sound, noise
from .machine import run

RECORD = 4096
SIZE = 40 * RECORD + 1000
OFFSETS = st.integers(0, SIZE) | st.integers(0, 40).map(lambda n: n * RECORD)
LENGTHS = st.integers(0, 3000) | st.sampled_from([RECORD, 3 * RECORD, 20 * RECORD, SIZE])


class WriteBackMachine(RuleBasedStateMachine):
    """Two volumes of one store."""

    def __init__(self) -> None:
        super().__init__()
        self.device = FailingDevice()

    @initialize(
        copies=st.sampled_from([1, 2]),
        record_size=st.sampled_from([RECORD, 4 * RECORD]),
        compression=st.sampled_from(["lz4", "none"]),
    )
    def first(self, copies: int, record_size: int, compression: str) -> None:
        parameters = cowfs.Parameters(metadata_copies=copies, compression=compression)
        self.store = cowfs.open_device(self.device, parameters=parameters, cache=1 << 20)
        self.sizes = {"a": SIZE, "b": SIZE}
        for name in self.sizes:
            self.store.create(name, "volume", SIZE, record_size)
        self.cache = WriteBack(self.store)
        self.volumes = {name: self.cache.open(name) for name in self.sizes}
        self.model = {name: bytearray(SIZE) for name in self.sizes}
        self.commits = [self.now()]
        """What a crash may leave, from the last durable one on."""
        self.snapshots: dict[str, bytes] = {}
        self.step = 0

    def now(self) -> dict[str, bytes]:
        return {name: bytes(value) for name, value in self.model.items()}

    @rule(
        name=st.sampled_from("ab"),
        offset=OFFSETS,
        length=LENGTHS,
        zeros=st.booleans(),
        shrinks=st.booleans(),
    )
    def write(
        self, name: str, offset: int, length: int, zeros: bool = False, shrinks: bool = False
    ) -> None:
        self.step += 1
        data = noise(max(0, min(length, len(self.model[name]) - offset)), self.step)
        if shrinks:
            data = (data[:50] * (len(data) // 50 + 1))[: len(data)]
        if zeros:  # the first records are, others are not
            data = bytes(min(len(data), 2 * RECORD)) + data[2 * RECORD :]
        offset = min(offset, len(self.model[name]))
        self.volumes[name].pwrite(data, offset)
        self.model[name][offset : offset + len(data)] = data

    @rule(name=st.sampled_from("ab"), offset=OFFSETS, length=LENGTHS)
    def discard(self, name: str, offset: int, length: int) -> None:
        offset = min(offset, len(self.model[name]))
        length = min(length, len(self.model[name]) - offset)
        self.volumes[name].discard(offset, length)
        self.model[name][offset : offset + length] = bytes(length)

    @rule(name=st.sampled_from("ab"), offset=OFFSETS, length=LENGTHS)
    def read(self, name: str, offset: int, length: int) -> None:
        offset = min(offset, len(self.model[name]))
        length = min(length, len(self.model[name]) - offset)
        expected = self.model[name][offset : offset + length]
        assert self.volumes[name].pread(length, offset) == expected
        assert self.volumes[name].pread_now(length, offset) == expected

    @rule(durable=st.booleans())
    def commit(self, durable: bool) -> None:
        self.cache.commit(durable=durable)
        self.commits = [self.now()] if durable else [*self.commits, self.now()]
        assert self.cache.pending == 0
        assert not (durable and self.cache.due)

    @rule(name=st.sampled_from("ab"), size=st.sampled_from([5000, SIZE // 2, SIZE, 2 * SIZE]))
    def resize(self, name: str, size: int) -> None:
        self.cache.resize(name, size)
        del self.model[name][size:]
        self.model[name].extend(bytes(size - len(self.model[name])))
        assert self.volumes[name].size == size
        self.commits = [self.now()]

    @rule(name=st.sampled_from("ab"))
    def snapshot(self, name: str) -> None:
        self.cache.commit(durable=False)
        self.step += 1
        snapshot = f"{name}@{self.step}"
        self.store.snapshot(snapshot)
        self.snapshots[snapshot] = bytes(self.model[name])
        self.commits = [self.now()]

    @rule(name=st.sampled_from("ab"), offset=OFFSETS, length=LENGTHS)
    def holes(self, name: str, offset: int, length: int) -> None:
        """What a commit left outside of the ranges is zeros."""
        self.commit(False)
        stop = min(offset + length, len(self.model[name]))
        at = offset
        for begin, end in self.volumes[name].data_ranges(offset, stop):
            assert at <= begin < end <= stop
            assert not any(self.model[name][at:begin])
            at = end
        assert not any(self.model[name][at:stop])

    @rule(countdown=st.integers(0, 3))
    def fail(self, countdown: int) -> None:
        """A commit fails: nothing is lost but with the store, which must be opened anew."""
        self.write("a", 0, 100)
        self.device.countdown = countdown
        try:
            self.cache.commit()
        except (OSError, cowfs.FailedError):
            assert self.volumes["a"].pread(100, 0) == self.model["a"][:100]
            with pytest.raises(cowfs.FailedError):
                self.volumes["a"].pwrite(b"x", 0)
            self.device.countdown = None
            self.commits.append(self.now())
            self.crash()
        else:
            self.commits = [self.now()]
        self.device.countdown = None

    @rule()
    def crash(self) -> None:
        device = FailingDevice()
        device.write(0, copy_device(self.device).read(0, self.device.size()))
        self.device = device
        self.store = cowfs.open_device(device, cache=1 << 20)
        found = {name: self.store[name].pread(4 * SIZE, 0) for name in self.model}
        assert found in self.commits
        self.model = {name: bytearray(value) for name, value in found.items()}
        self.commits = [self.now()]
        self.cache = WriteBack(self.store)
        self.volumes = {name: self.cache.open(name) for name in self.model}

    @invariant()
    def what_is_pending_is_known(self) -> None:
        assert self.cache.pending == sum(volume.pending for volume in self.volumes.values())

    def teardown(self) -> None:
        self.cache.commit()
        for name, value in self.model.items():
            assert self.store[name].pread(len(value), 0) == value
        for name, expected in self.snapshots.items():
            with self.store.at(name) as view:
                assert view.pread(4 * SIZE, 0) == expected
        assert_sound(self.store)


def test_a_volume_behind_a_write_cache_is_a_bytearray() -> None:
    run(WriteBackMachine)


def test_reads_see_what_is_being_committed(store: cowfs.Store) -> None:
    store.create("v", "volume", 64 * RECORD, RECORD)
    volume = WriteBack(store).open("v")
    volume.pwrite(noise(2 * RECORD), 100)
    assert volume.take()
    volume.pwrite(b"newer", 200)
    expected = bytearray(100) + noise(2 * RECORD)
    expected[200:205] = b"newer"
    assert volume.pread(len(expected), 0) == expected
    volume.discard(0, 150)
    expected[:150] = bytes(150)
    assert volume.pread(len(expected), 0) == expected
    volume.put_back(OSError())
    assert volume.pread(len(expected), 0) == expected


@pytest.mark.parametrize("record_size", [RECORD, 4 * RECORD])
def test_parts_of_a_record_are_committed_over_what_it_was(
    store: cowfs.Store, record_size: int
) -> None:
    expected = bytearray(noise(2 * record_size + 100))
    store.create("v", "volume", len(expected), record_size).pwrite(bytes(expected), 0)
    cache = WriteBack(store)
    volume = cache.open("v")
    for at in (10, 3000, record_size + 500, 2 * record_size, 2 * record_size + 90):
        volume.pwrite(noise(10, at), at)
        expected[at : at + 10] = noise(10, at)
        assert volume.pread(len(expected), 0) == expected
    cache.commit()
    assert store["v"].pread(len(expected), 0) == expected
    volume.pwrite(b"more", 0)
    volume.discard(record_size, record_size)
    volume.pwrite(b"again", record_size + 7)
    expected[:4] = b"more"
    expected[record_size : 2 * record_size] = bytes(record_size)
    expected[record_size + 7 : record_size + 12] = b"again"
    cache.commit()
    assert store["v"].pread(len(expected), 0) == volume.pread(len(expected), 0) == expected


def test_what_finds_no_room_stays_and_is_stored_once_there_is_room(make_store: Any) -> None:
    store = make_store(size=4 << 20)
    store.create("v", "volume", 64 << 20, RECORD)
    store.create("ballast", "volume", 64 << 20, RECORD).pwrite(noise(1 << 20), 0)
    cache = WriteBack(store)
    volume = cache.open("v")
    volume.pwrite(noise(1 << 20), 0)
    cache.commit()
    volume.pwrite(noise(4 << 20, 1), 8 << 20)
    with pytest.raises(cowfs.OutOfSpaceError):
        cache.commit()
    with pytest.raises(cowfs.OutOfSpaceError):
        volume.pwrite(b"x", 0)
    assert volume.pread(4 << 20, 8 << 20) == noise(4 << 20, 1)
    assert store["v"].pread(1 << 20, 0) == noise(1 << 20)
    volume.discard(8 << 20, 3 << 20)
    volume.discard(0, 1 << 20)
    store.destroy("ballast")
    cache.commit()
    assert volume.pread(4 << 20, 8 << 20) == bytes(3 << 20) + noise(4 << 20, 1)[3 << 20 :]
    volume.pwrite(b"x", 0)
    cache.commit()
    assert store["v"].pread(2, 0) == b"x\0"
    assert_sound(store)


def damage_third_record(store: cowfs.Store) -> None:
    """Of what begins with noise(64 * RECORD)."""
    at = store.device.read(0, store.device.size()).index(noise(64 * RECORD)[8192:8292])
    store.io.cache.evict(store.io.cache.limit)
    store.device.write(at, b"damage")


def test_a_part_of_a_damaged_record_is_lost_alone(store: cowfs.Store) -> None:
    volume = store.create("v", "volume", 64 * RECORD, RECORD)
    volume.pwrite(noise(64 * RECORD), 0)
    damage_third_record(store)
    cache = WriteBack(store)
    cached = cache.open("v")
    cached.pwrite(b"part", 8200)
    cached.pwrite(b"other", 20_000)
    with pytest.raises(cowfs.CorruptionError):
        cache.commit()
    assert store["v"].pread(5, 20_000) == b"other"
    cached.pwrite(noise(RECORD, 5), 8192)
    cache.commit()
    assert store["v"].pread(RECORD, 8192) == noise(RECORD, 5)


def test_what_was_lost_is_told_when_the_rest_is_stored(make_store: Any) -> None:
    store = make_store(size=4 << 20)
    volume = store.create("v", "volume", 64 << 20, RECORD)
    volume.pwrite(noise(64 * RECORD), 0)
    store.create("ballast", "volume", 64 << 20, RECORD).pwrite(noise(1 << 20), 0)
    damage_third_record(store)
    cache = WriteBack(store)
    cached = cache.open("v")
    cached.pwrite(b"part", 8200)
    cached.pwrite(noise(4 << 20, 1), 8 << 20)
    with pytest.raises(cowfs.OutOfSpaceError):
        cache.commit()
    cached.discard(8 << 20, 3 << 20)
    store.destroy("ballast")
    with pytest.raises(cowfs.CorruptionError):
        cache.commit()
    assert store["v"].pread(1 << 20, 11 << 20) == noise(4 << 20, 1)[3 << 20 :]
    cache.commit()


class OnceUnreadable(FailingDevice):
    """A device of which a read of one block fails once."""

    block = -1

    def read(self, offset: int, length: int) -> bytes:
        if offset // RECORD == self.block:
            self.block = -1
            raise cowfs.DeviceError(errno.EIO, "the disk is on fire")
        return super().read(offset, length)


def test_what_was_lost_is_told_where_another_volume_could_not_be_read(make_store: Any) -> None:
    device = OnceUnreadable()
    store = make_store(device)
    store.create("a", "volume", 64 * RECORD, RECORD).pwrite(noise(64 * RECORD), 0)
    store.create("b", "volume", 64 * RECORD, RECORD).pwrite(noise(64 * RECORD, 1), 0)
    damage_third_record(store)
    device.block = device.read(0, device.size()).index(noise(64 * RECORD, 1)[:100]) // RECORD
    cache = WriteBack(store)
    for name in "ab":
        cache.open(name).pwrite(b"part", 8200 if name == "a" else 10)
    with pytest.raises(cowfs.DeviceError):
        cache.commit()
    with pytest.raises(cowfs.CorruptionError):
        cache.commit()
    assert store["b"].pread(4, 10) == b"part"


def test_a_snapshot_is_opened_for_reading_only(store: cowfs.Store) -> None:
    store.create("v", "volume", 10_000, RECORD).pwrite(b"old", 5)
    store.snapshot("v@x")
    store["v"].pwrite(b"new", 5)
    cache = WriteBack(store)
    view = cache.open("v@x")
    assert view.readonly
    assert view.pread(3, 5) == b"old"
    with pytest.raises(cowfs.ReadOnlyError):
        view.pwrite(b"x", 0)
    with pytest.raises(cowfs.ReadOnlyError):
        view.discard(0, 5)
    assert cache.pending == 0


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (10_000, 1), (9_999, 2), (0, 10_001)])
def test_what_lies_outside_is_refused(store: cowfs.Store, offset: int, length: int) -> None:
    store.create("v", "volume", 10_000, RECORD)
    volume = WriteBack(store).open("v")
    for use in (
        lambda: volume.pwrite(bytes(length), offset),
        lambda: volume.discard(offset, length),
        lambda: volume.pread(length, offset),
        lambda: volume.pread_now(length, offset),
    ):
        with pytest.raises(cowfs.UsageError, match="of a volume of 10000 bytes"):
            use()


def test_only_volumes_have_a_write_cache(store: cowfs.Store) -> None:
    store.create("files", "fs")
    with pytest.raises(cowfs.KindError, match="files is of kind fs"):
        WriteBack(store).open("files")
    with pytest.raises(cowfs.NotFoundError):
        WriteBack(store).open("nothing")
    assert store.readers() == []
