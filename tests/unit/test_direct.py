"""Bulk data that is written behind: it is all there, reads see it, and no error of it is lost."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import cowfs
from cowfs.device import FileDevice
from cowfs.direct import DirectWriter
from cowfs.limits import KIB, MIB

from ..plain import Items, assert_sound, contents, noise

SIZE = 32 * MIB
BIG = noise(21 * MIB + 12_345)
"""A value of several pieces."""
ALL = 1 << 30

MakeImage = Callable[[], cowfs.Store]


@pytest.fixture(params=["direct", "no direct I/O", "other alignment"])
def device(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FileDevice]:
    """A file, on a host that can write past its page cache, cannot, or wants longer blocks."""
    if request.param == "no direct I/O":
        monkeypatch.setattr(os, "O_DIRECT", os.O_DIRECTORY)  # any flag with which it cannot open
    if request.param == "other alignment":
        monkeypatch.setattr(DirectWriter, "_put_direct", lambda *_: 0)
    device = FileDevice(str(tmp_path / "image"), writable=True, create=True)
    device.resize(SIZE)
    yield device
    device.close()


class Faults:
    """Has the writes of all `DirectWriter`s fail, or wait, from one of them on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.good = ALL
        """Writes that succeed before the next ones fail."""
        self.code = errno.EIO
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        put = DirectWriter._put

        def faulty(writer: DirectWriter, piece: Any) -> None:
            assert self.may_go_on.wait(60)
            self.good -= 1
            if self.good < 0:
                raise OSError(self.code, os.strerror(self.code))
            put(writer, piece)

        monkeypatch.setattr(DirectWriter, "_put", faulty)

    def all_but_one(self, make_image: MakeImage) -> range:
        """For each of the writes that storing BIG takes, how many come before it."""
        self.good = ALL
        make_image()["a"][b"big"] = BIG
        return range(ALL - self.good)


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    return Faults(monkeypatch)


@pytest.fixture
def make_image(tmp_path: Path) -> Iterator[MakeImage]:
    """Makes stores in files, each with the item `k` in the dataset `a`."""
    with contextlib.ExitStack() as stack:

        def make() -> cowfs.Store:
            store = stack.enter_context(cowfs.open(tmp_path / "image", "n"))
            os.unlink(tmp_path / "image")
            store.create("a")[b"k"] = b"before"
            return store

        yield make


@pytest.mark.parametrize("seed", range(4))
def test_reads_see_what_was_written_last_by_whatever_way(device: FileDevice, seed: int) -> None:
    """The model is the bytes of the file; some places and lengths are no whole blocks."""
    chance = random.Random(seed)
    model = bytearray(SIZE)
    at = 0
    for number in range(150):
        length = chance.choice((4 * KIB, 128 * KIB, MIB - 4 * KIB, 5 * MIB, 1000))
        if chance.random() < 0.3 or at + length > SIZE:
            at = chance.randrange((SIZE - length) // 4096) * 4096 + chance.choice((0, 0, 0, 7))
        data = noise(length, number)
        (device.write if chance.random() < 0.2 else device.write_behind)(at, data)
        model[at : at + length] = data
        at += length
        if chance.random() < 0.1:
            start = max(0, at - chance.randrange(8 * MIB))
            assert device.read(start, 9 * MIB) == model[start : start + 9 * MIB]
        if chance.random() < 0.05:
            device.flush()
    device.settle()
    assert Path(device.name).read_bytes() == model


def test_the_callers_buffer_is_free_at_once(device: FileDevice) -> None:
    data = bytearray(b"x" * 6 * MIB)
    device.write_behind(0, data)
    data[:] = bytes(6 * MIB)
    device.flush()
    assert device.read(0, 6 * MIB) == b"x" * 6 * MIB


def test_only_reads_of_what_is_under_way_wait_for_it(device: FileDevice, faults: Faults) -> None:
    device.write(20 * MIB, b"old")
    faults.may_go_on.clear()
    device.write_behind(0, b"a" * 5 * MIB)
    assert device.read(20 * MIB, 3) == b"old"
    with ThreadPoolExecutor(1) as other:
        under_way = other.submit(device.read, 0, 5 * MIB)
        assert device.read(20 * MIB, 3) == b"old"
        assert not under_way.done()
        faults.may_go_on.set()
        assert under_way.result() == b"a" * 5 * MIB


def test_what_is_under_way_behind_an_error_is_waited_for(
    device: FileDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its place would be forgotten while it is written, and the rest of it go elsewhere."""
    put, gone_on = DirectWriter._put, threading.Event()

    def slow(writer: DirectWriter, piece: Any) -> None:
        if piece.start == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if piece.start == 8 * MIB:
            gone_on.wait(0.3)  # in vain, as whoever settles must wait for this piece
        put(writer, piece)

    monkeypatch.setattr(DirectWriter, "_put", slow)
    for at in (0, 8 * MIB, 16 * MIB):
        device.write_behind(at, b"x" * MIB)
    with pytest.raises(OSError, match="cannot write the image"):
        device.write_behind(24 * MIB, b"x" * MIB)
    with pytest.raises(OSError, match="cannot write the image"):
        device.settle()
    gone_on.set()
    device.settle()
    expected = {0: bytes(MIB), 8 * MIB: b"x" * MIB, 16 * MIB: b"x" * MIB}
    assert {at: device.read(at, MIB) for at in expected} == expected


@pytest.mark.parametrize("before", ["nothing", "read", "write", "write behind"])
def test_an_error_is_raised_until_it_is_settled(
    device: FileDevice, faults: Faults, before: str
) -> None:
    faults.good = 1
    device.write_behind(0, b"a" * 7 * MIB)  # its second piece fails
    if before != "nothing":
        with pytest.raises(OSError, match="cannot write the image"):
            if before == "read":
                device.read(6 * MIB, 10)
            elif before == "write":
                device.write(6 * MIB, b"x")
            else:
                for at in range(8 * MIB, SIZE, MIB):
                    device.write_behind(at, bytes(MIB))
    with pytest.raises(OSError, match="cannot write the image"):
        device.settle()
    faults.good = ALL
    device.settle()
    device.write_behind(0, b"b" * 7 * MIB)
    device.settle()
    assert device.read(0, 7 * MIB) == b"b" * 7 * MIB


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_write_that_fails_later_fails_the_transaction_and_leaves_no_trace(
    make_image: MakeImage, faults: Faults, code: int
) -> None:
    faults.code = code
    for good in faults.all_but_one(make_image):
        store = make_image()
        faults.good = good
        with pytest.raises(cowfs.OutOfSpaceError if code == errno.ENOSPC else OSError) as caught:
            store["a"][b"big"] = BIG
        assert "image" in str(caught.value)
        faults.good = ALL
        assert contents(store) == {"a": {b"k": b"before"}}
        assert_sound(store)
        store["a"][b"big"] = BIG
        assert contents(store) == {"a": {b"k": b"before", b"big": BIG}}
        assert_sound(store)


def test_who_catches_the_error_cannot_commit(make_image: MakeImage, faults: Faults) -> None:
    for good in faults.all_but_one(make_image):
        store = make_image()
        faults.good = good
        with pytest.raises((OSError, cowfs.ClosedError)), store.transaction() as tx:
            with contextlib.suppress(OSError):
                tx["a"][b"big"] = BIG
            with contextlib.suppress(OSError, cowfs.Error):
                tx["a"].get(b"big")
        assert contents(store) == {"a": {b"k": b"before"}}
        assert_sound(store)


def test_an_error_of_a_transaction_that_was_abandoned_does_not_hit_the_next(
    make_image: MakeImage, faults: Faults
) -> None:
    store = make_image()
    with pytest.raises(ZeroDivisionError), store.transaction() as tx:
        tx["a"][b"big"] = BIG
        faults.good = 0  # for the last piece at least, which is still to be written
        raise ZeroDivisionError
    assert faults.good < 0
    faults.good = ALL
    store["a"][b"k"] = b"after"
    assert contents(store) == {"a": {b"k": b"after"}}
    assert_sound(store)


@pytest.mark.parametrize("durable", [True, False])
def test_large_values_are_there_after_a_commit(tmp_path: Path, durable: bool) -> None:
    """Some of noise and some that compress, so that pieces end anywhere; small ones in between."""
    path = tmp_path / "image"
    items: Items = {}
    with cowfs.open(path, "n") as store:
        store.create("a")
        for number in range(4):
            with store.transaction(durable=durable) as tx:
                for key in (b"big", b"%d" % number, b"small %d" % number):
                    size = 100 if key.startswith(b"small") else 5 * MIB + number * 77_777
                    value = noise(size // 2, number) + bytes(size // 4) + noise(size // 4)
                    tx["a"][key] = items[key] = value
                assert tx["a"][b"big"] == items[b"big"]
            assert store["a"][b"big"] == items[b"big"]
        # Others can see it before it is durable.
        assert contents(store) == {"a": items}
    with cowfs.open(path) as store:
        assert contents(store) == {"a": items}
        assert_sound(store)
        assert store.scrub().ok
