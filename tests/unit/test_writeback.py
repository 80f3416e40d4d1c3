"""What threads, and errors at the wrong moment, do to a write cache."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

import cowfs
from cowfs.device import MemoryDevice
from cowfs.writeback import BufferedVolume, WriteBack

SIZE = 1 << 20


@pytest.fixture
def store() -> Iterator[cowfs.Store]:
    with cowfs.open_device(MemoryDevice(), parameters=cowfs.Parameters()) as store:
        for name in "abc":
            store.create(name, "volume", SIZE)
        yield store


def test_threads_that_open_a_volume_at_once_get_the_same_one(store: cowfs.Store) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            cache = WriteBack(store)
            together = threading.Barrier(4)
            found: list[BufferedVolume] = []

            def open_it(
                cache: WriteBack = cache,
                together: threading.Barrier = together,
                found: list[BufferedVolume] = found,
            ) -> None:
                together.wait()
                found.append(cache.open("a"))

            threads = [threading.Thread(target=open_it) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(found) == 4
            assert len(set(map(id, found))) == 1
    finally:
        sys.setswitchinterval(interval)


def test_what_was_committed_is_read_where_the_newest_version_could_not_be_looked_at(
    store: cowfs.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = WriteBack(store)
    volumes = [cache.open(name) for name in "abc"]
    for volume in volumes:
        volume.pwrite(b"old" * 100, 0)

    def fail(name: str) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(store, "view_root", fail)
        with pytest.raises(MemoryError):
            cache.commit()
    for volume in volumes:
        assert volume.pread(300, 0) == b"old" * 100
        volume.pwrite(b"new", 1000)
        assert volume.take()  # as a commit does that is under way
        assert volume.pread(300, 0) == b"old" * 100
        assert volume.pread(3, 1000) == b"new"
    cache.commit()
    assert cache.pending == 0
    for name, volume in zip("abc", volumes, strict=True):
        assert volume.pread(300, 0) == store[name].pread(300, 0) == b"old" * 100
        assert volume.pread(3, 1000) == store[name].pread(3, 1000) == b"new"


def test_what_a_client_sent_is_not_kept(store: cowfs.Store) -> None:
    """A record that is left of a long write would keep all of it in memory."""
    volume = WriteBack(store).open("a")
    sent = bytearray(b"sent" * 100_000)
    volume.pwrite(memoryview(sent), 0)
    volume.pwrite(memoryview(sent)[: volume.record_size], volume.record_size)
    sent.clear()  # it could not be, while anything refers to a part of it
    assert volume.pread(8, volume.record_size) == b"sentsent"
