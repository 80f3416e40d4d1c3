"""Devices: what the file promises, and that the one in memory promises the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import cowfs
from cowfs.device import Device, FileDevice, MemoryDevice, _fallocate

Make = Callable[[], Device]


@pytest.fixture(params=["file", "memory"])
def device(request: pytest.FixtureRequest, tmp_path: Path) -> Device:
    if request.param == "memory":
        return MemoryDevice()
    return FileDevice(str(tmp_path / "d"), writable=True, create=True)


def test_what_was_written_is_read(device: Device) -> None:
    device.resize(10_000)
    assert device.size() == 10_000
    assert device.read(0, 10_000) == bytes(10_000)
    for kind in (bytes, bytearray, memoryview):
        device.write(5000, kind(b"hello"))
        assert device.read(4998, 9) == b"\0\0hello\0\0"
        device.write(5000, bytes(5))
    device.flush()


def test_what_is_in_memory_is_read_without_waiting(device: Device) -> None:
    device.write(0, b"x" * 8192)  # in the host's page cache, just now
    assert device.read_now(100, 4096) == b"x" * 4096
    if isinstance(device, FileDevice):
        with pytest.raises(BlockingIOError):
            device.read_now(8000, 4096)


def test_reads_are_short_only_at_the_end(device: Device) -> None:
    device.resize(100)
    assert len(device.read(90, 50)) == 10
    assert device.read(100, 1) == b""
    assert device.read(1000, 1) == b""


def test_growing_gives_zeros_and_shrinking_forgets(device: Device) -> None:
    device.resize(100)
    device.write(0, b"x" * 100)
    device.resize(50)
    assert device.size() == 50
    device.resize(100)
    assert device.read(0, 100) == b"x" * 50 + bytes(50)


def test_writing_behind_the_end_grows(device: Device) -> None:
    device.write(5000, b"x")
    assert device.size() == 5001
    assert device.read(4999, 2) == b"\0x"


def test_discarding_keeps_the_size_and_the_rest(device: Device) -> None:
    device.write(0, b"x" * 100_000)
    device.discard(8192, 40_960)
    assert device.size() == 100_000
    assert device.read(0, 8192) == b"x" * 8192
    assert device.read(49_152, 50_848) == b"x" * 50_848
    assert device.allocated() <= 110_592


def test_discarding_gives_blocks_back_to_the_host(tmp_path: Path) -> None:
    device = FileDevice(str(tmp_path / "d"), writable=True, create=True)
    device.write(0, b"x" * (1 << 20))
    device.flush()
    before = device.allocated()
    device.discard(0, 1 << 19)
    assert device.allocated() <= before - (1 << 18)
    device.close()


def test_a_step_is_allocated_where_writing_comes_to_new_space_and_no_more(tmp_path: Path) -> None:
    with open(tmp_path / "probe", "wb") as probe:
        if not _fallocate(probe.fileno(), 0, 0, 4096):
            pytest.skip("the file system of temporary files cannot allocate ahead")
    device = FileDevice(str(tmp_path / "d"), writable=True, create=True)
    device.resize(1 << 30)
    assert device.size() == 1 << 30 and device.allocated() == 0
    device.write(1 << 20, b"x")
    assert 4 << 20 <= device.allocated() <= 5 << 20
    device.write((4 << 20) + 1, b"x")
    assert device.allocated() <= 5 << 20
    assert device.read(2 << 20, 1 << 20) == bytes(1 << 20)
    device.resize((1 << 30) + (1 << 20))
    assert device.size() == (1 << 30) + (1 << 20)
    device.resize(1 << 20)
    assert device.size() == 1 << 20 and device.allocated() == 0


def test_closing_twice_does_nothing_and_reading_then_is_refused(tmp_path: Path) -> None:
    device = FileDevice(str(tmp_path / "d"), writable=True, create=True)
    device.write(0, b"x")
    device.close()
    device.close()
    with pytest.raises(cowfs.ClosedError):
        device.read(0, 1)


def test_no_thread_reads_a_file_that_is_being_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = FileDevice(str(tmp_path / "d"), writable=True, create=True)
    close = os.close
    said = []

    def close_and_read(fd: int) -> None:
        close(fd)
        with pytest.raises(cowfs.ClosedError) as caught:
            device.read(0, 1)
        said.append(str(caught.value))

    monkeypatch.setattr(os, "close", close_and_read)
    device.close()
    assert said == [f"{tmp_path}/d: the image is closed"]


def test_a_symbolic_link_leads_to_the_image(tmp_path: Path) -> None:
    os.symlink(tmp_path / "real", tmp_path / "link")
    with cowfs.open(tmp_path / "link", "n") as store:
        store.create("a")
    with cowfs.open(tmp_path / "real") as store:
        assert list(store) == ["a"]


def test_a_directory_that_is_missing_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises((OSError, cowfs.Error)) as caught:
        cowfs.open(tmp_path / "missing" / "image", "n")
    assert "missing" in str(caught.value)
