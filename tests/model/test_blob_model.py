"""Large values against a bytearray.

Model: a bytearray for each key, copied for a snapshot and for a reflink. Records are small in one
of the machines, so that values move between their three forms (in the leaf, one extent, a tree of
records) all the time.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

import cowfs
from cowfs import limits
from cowfs.blob import Blob
from cowfs.device import MemoryDevice
from cowfs.values import share_blob_between, write_blob

from ..plain import assert_holds, assert_sound, noise, reopened, text
from .machine import run

KEYS = st.sampled_from([b"a", b"b", b"c"])
Place = tuple[int, int]
"""So many records, and so many bytes."""
PLACES = st.tuples(st.integers(0, 12), st.integers(-3, 3) | st.sampled_from([100, 895, 897, 3000]))
KINDS = st.sampled_from([noise, text, bytes])


class BlobMachine(RuleBasedStateMachine):
    """Values of one dataset, changed at random places."""

    record = 8192

    def __init__(self) -> None:
        super().__init__()
        self.device = MemoryDevice()
        self.store = cowfs.open_device(
            self.device,
            parameters=cowfs.Parameters(node_size=4096, metadata_copies=2),
            cache=1 << 20,
        )
        self.store.create("d")
        self.model: dict[bytes, bytearray] = {}
        self.snapshots: dict[str, dict[bytes, bytes]] = {}
        self.begin()

    def begin(self) -> None:
        self.tx = self.store.transaction()
        self.tree = self.tx.tree("d")

    def bytes_of(self, place: Place) -> int:
        return max(0, place[0] * self.record + place[1])

    def blob(self, key: bytes, *, deferred: bool = False) -> Blob:
        return Blob(self.tx.io, self.tree, key, record_size=self.record, deferred=deferred)

    @rule(key=KEYS, to=PLACES, many=PLACES, kind=KINDS)
    def pwrite(self, key: bytes, to: Place, many: Place, kind: type[bytes]) -> None:
        self.write(self.blob(key), key, to, many, kind)

    @rule(key=KEYS, writes=st.lists(st.tuples(PLACES, PLACES), min_size=2, max_size=4), kind=KINDS)
    def pwrite_deferred(
        self, key: bytes, writes: list[tuple[Place, Place]], kind: type[bytes]
    ) -> None:
        """Several writes, while what is beside the value in its leaf changes, and is stored."""
        blob = self.blob(key, deferred=True)
        for to, many in writes:
            self.write(blob, key, to, many, kind)
            self.tree.put(b"beside", noise(100, 1))
            self.tx._spill()
            self.tree.delete(b"beside")
        blob.store()

    def write(self, blob: Blob, key: bytes, to: Place, many: Place, kind: type[bytes]) -> None:
        offset, length = self.bytes_of(to), self.bytes_of(many)
        data = kind(length)
        blob.pwrite(memoryview(data), offset)
        if data:
            value = self.model.setdefault(key, bytearray())
            value.extend(bytes(max(0, offset + length - len(value))))
            value[offset : offset + length] = data
        assert blob.size == len(self.model.get(key, b""))

    @rule(key=KEYS, to=PLACES)
    def truncate(self, key: bytes, to: Place) -> None:
        size = self.bytes_of(to)
        blob = self.blob(key)
        blob.truncate(size)
        value = self.model.get(key, bytearray())
        del value[size:]
        value.extend(bytes(size - len(value)))
        if size or key in self.model:
            self.model[key] = value
        assert blob.size == size

    @rule(key=KEYS, to=PLACES, many=PLACES)
    def punch(self, key: bytes, to: Place, many: Place) -> None:
        offset, length = self.bytes_of(to), self.bytes_of(many)
        self.blob(key).punch(offset, length)
        value = self.model.get(key, bytearray())
        stop = min(offset + length, len(value))
        if stop > offset:
            value[offset:stop] = bytes(stop - offset)

    @rule(key=KEYS, to=PLACES, many=PLACES)
    def pread(self, key: bytes, to: Place, many: Place) -> None:
        offset, length = self.bytes_of(to), self.bytes_of(many)
        expected = bytes(self.model.get(key, b"")[offset : offset + length])
        assert self.blob(key).pread(length, offset) == expected

    @rule(key=KEYS, to=PLACES)
    def data_ranges(self, key: bytes, to: Place) -> None:
        """What lies outside of the ranges is zeros, and they are in order and do not touch."""
        value = self.model.get(key, bytearray())
        at = start = self.bytes_of(to)
        for begin, end in self.blob(key).data_ranges(start):
            assert start <= begin < end <= len(value) and (begin > at or at == start)
            assert not any(value[at:begin])
            at = end
        assert not any(value[at:])

    @rule(source=KEYS, copy=KEYS)
    def share(self, source: bytes, copy: bytes) -> None:
        if source == copy:
            return
        share_blob_between(self.tx.io, self.tree, source, self.tree, copy)
        self.copied(self.model.get(source), copy)

    @precondition(lambda self: self.snapshots)
    @rule(source=KEYS, copy=KEYS)
    def share_from_a_snapshot(self, source: bytes, copy: bytes) -> None:
        name = max(self.snapshots)
        with self.store.at(name) as view, view._session.reading() as tree:
            share_blob_between(self.tx.io, tree, source, self.tree, copy)
        self.copied(self.snapshots[name].get(source), copy)

    def copied(self, value: bytes | bytearray | None, copy: bytes) -> None:
        if value is None:
            self.model.pop(copy, None)
        else:
            self.model[copy] = bytearray(value)

    @rule(key=KEYS)
    def delete(self, key: bytes) -> None:
        assert self.tree.delete(key) == (self.model.pop(key, None) is not None)

    @rule(snapshot=st.booleans())
    def commit(self, snapshot: bool) -> None:
        name = f"d@{len(self.snapshots)}"
        if snapshot and len(self.snapshots) < 5:
            self.tx.snapshot(name)
            self.snapshots[name] = {key: bytes(value) for key, value in self.model.items()}
        self.tx.commit()
        assert_sound(self.store)
        self.begin()

    @rule()
    def forget_cache(self) -> None:
        self.store.io.cache.evict(self.store.io.cache.limit)

    def teardown(self) -> None:
        self.tx.commit()
        expected = {"d": {key: bytes(value) for key, value in self.model.items()}}
        for store in (self.store, reopened(self.device)):
            assert_holds(store, expected | self.snapshots)
            assert_sound(store)
            store.destroy("d", recursive=True)
            store.reclaim()
            assert_sound(store)


class LargeBlobMachine(BlobMachine):
    """The same with records as large as they are, and values that come in chunks."""

    record = limits.RECORD_SIZE

    @rule(key=KEYS, chunks=st.lists(PLACES, max_size=3))
    def write_blob(self, key: bytes, chunks: list[Place]) -> None:
        pieces = [noise(self.bytes_of(place), i) for i, place in enumerate(chunks)]
        assert write_blob(self.tx.io, self.tree, key, pieces) == sum(map(len, pieces))
        self.model[key] = bytearray(b"".join(pieces))


@pytest.mark.parametrize("machine", [BlobMachine, LargeBlobMachine])
def test_large_values_are_bytearrays(machine: type[BlobMachine]) -> None:
    """See the machines above."""
    run(machine)


def test_reading_chunks_that_fails_stores_nothing() -> None:
    """A file that cannot be read on, while it is copied in, is left out of the transaction."""
    store = cowfs.open_device(MemoryDevice(), parameters=cowfs.Parameters())
    store.create("d")[b"a"] = b"old"

    def chunks() -> Iterator[bytes]:
        yield noise(9_000_000)
        raise OSError("input/output error")

    with store.transaction() as tx:
        with pytest.raises(OSError, match="input/output error"):
            write_blob(tx.io, tx.tree("d"), b"a", chunks())
        tx["d"][b"b"] = b"new"
    assert_holds(store, {"d": {b"a": b"old", b"b": b"new"}})
    assert_sound(store)


def test_sparse_values_take_no_space() -> None:
    store = cowfs.open_device(MemoryDevice(), parameters=cowfs.Parameters())
    store.create("d")
    with store.transaction() as tx:
        blob = Blob(tx.io, tx.tree("d"), b"sparse")
        blob.truncate(1 << 50)
        blob.pwrite(b"end", (1 << 50) - 3)
        blob.pwrite(b"middle", 1 << 40)
        assert list(blob.data_ranges()) == [
            (1 << 40, (1 << 40) + 131072),
            ((1 << 50) - 131072, 1 << 50),
        ]
        assert blob.pread(10, (1 << 40) - 2) == b"\0\0middle\0\0"
        assert blob.stored() <= 4 * 4096
    entry = store.list()[0]
    assert (entry.logical, entry.stored <= 6 * 4096) == ((1 << 50) + 6, True)
    with store.at("d") as view, view.open(b"sparse") as file:
        file.seek(-3, 2)
        assert file.read() == b"end"
    assert_sound(store)


def test_a_changed_record_copies_only_itself() -> None:
    """One byte in the middle of 12 MiB that a snapshot keeps costs about one record."""
    store = cowfs.open_device(MemoryDevice(), parameters=cowfs.Parameters(compression="none"))
    store.create("d")[b"big"] = noise(12 << 20)
    store.snapshot("d@x")
    with store.transaction() as tx:
        Blob(tx.io, tx.tree("d"), b"big").pwrite(b"!", 5 << 20)
    entries = {entry.name: entry for entry in store.list()}
    for name in ("d", "d@x"):
        assert entries[name].referenced > 12 << 20
        assert entries[name].exclusive < 200_000
    assert_sound(store)
