"""The map of space is read when it is first needed, and who only reads never needs it."""

from __future__ import annotations

import contextlib
import errno
import sys
import threading
from collections.abc import Callable

import pytest

import cowfs
from cowfs.device import MemoryDevice
from cowfs.format import unpack_pointer

from ..conftest import MakeStore
from ..devices import copy_device
from ..plain import assert_sound, noise

EXPECTED = {b"%d" % n: noise(100, n) for n in range(500)}


class WatchedReader(MemoryDevice):
    """A device that does something when one block is read, as often as `times` says."""

    block = 0
    times = 0
    act: Callable[[], object] = staticmethod(lambda: None)

    def read(self, offset: int, length: int) -> bytes:
        if self.times and offset // 4096 == self.block:
            self.times -= 1
            self.act()
        return super().read(offset, length)


def interrupt() -> None:
    raise KeyboardInterrupt


def fail() -> None:
    raise cowfs.DeviceError(errno.EIO, "the disk is on fire")


def closed(make_store: MakeStore, device: MemoryDevice) -> int:
    """Make an image with a clone, and close it; the block of the space tree's root."""
    store = make_store(device)
    store.create("a").update(EXPECTED)
    store.snapshot("a@x")
    store.clone("a@x", "b")
    store["b"][b"0"] = b"changed"
    store.close()
    ref = cowfs.open_device(device, readonly=True).space_tree.ref
    assert ref is not None
    return unpack_pointer(ref).block


def damage(device: MemoryDevice, block: int) -> bytes:
    """Make a block something else; all bytes of the device then."""
    device.write(block * 4096, noise(4096, 99))
    return device.read(0, device.size())


@pytest.mark.parametrize("readonly", [True, False])
def test_who_only_reads_needs_no_map(make_store: MakeStore, *, readonly: bool) -> None:
    device = MemoryDevice()
    before = damage(device, closed(make_store, device))
    with cowfs.open_device(device, readonly=readonly) as store:
        assert dict(store["a"].items()) == EXPECTED
        assert len(list(store.diff("a@x", "b"))) == 1
        assert store.at("a@x")[b"7"] == EXPECTED[b"7"]
    assert device.read(0, device.size()) == before


def test_nothing_can_be_written_without_the_map(make_store: MakeStore) -> None:
    device = MemoryDevice()
    block = closed(make_store, device)
    before = damage(device, block)
    changes: list[Callable[[cowfs.Store], object]] = [
        lambda store: store.create("c"),
        lambda store: store["a"].update({b"k": b"v"}),
        lambda store: store.snapshot("a@y"),
        lambda store: store.destroy("b"),
        lambda store: store.rollback("a@x"),
        lambda store: store.space(),
    ]
    with cowfs.open_device(device) as store:
        for change in changes:
            with pytest.raises(cowfs.CorruptionError) as caught:
                change(store)
            assert caught.value.block == block
            assert caught.value.dataset == "(space map)"
        assert dict(store["a"].items()) == EXPECTED
        for report in (store.check(), store.scrub()):
            assert [(fault.dataset, fault.block) for fault in report.faults] == [
                ("(space map)", block)
            ]
    assert device.read(0, device.size()) == before


def test_opening_and_closing_changes_nothing(make_store: MakeStore) -> None:
    device = MemoryDevice()
    closed(make_store, device)
    before = device.read(0, device.size())
    cowfs.open_device(device).close()
    assert device.read(0, device.size()) == before


def test_what_was_not_closed_is_closed_later(make_store: MakeStore) -> None:
    device = MemoryDevice()
    closed(make_store, device)
    store = cowfs.open_device(device)
    with store.transaction() as tx:
        tx["a"].update({b"%d" % n: noise(5000, n) for n in range(900)})
    found = copy_device(device)
    cowfs.open_device(found).close()
    again = cowfs.open_device(found)
    assert again.log.records == 1
    assert len(again["a"]) == 900
    assert_sound(again)


def test_threads_that_need_the_map_at_once_get_the_same_one(make_store: MakeStore) -> None:
    device = MemoryDevice()
    closed(make_store, device)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            store = cowfs.open_device(copy_device(device))
            together = threading.Barrier(4)

            def use(
                number: int, store: cowfs.Store = store, together: threading.Barrier = together
            ) -> None:
                together.wait()
                store.space()
                store["a"][b"new %d" % number] = b"value"

            threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(store["a"]) == len(EXPECTED) + 4
            assert_sound(store)
            store.close()
    finally:
        sys.setswitchinterval(interval)


def test_a_map_whose_reading_was_interrupted_is_read_again(make_store: MakeStore) -> None:
    device = WatchedReader()
    device.block = closed(make_store, device)
    store = cowfs.open_device(device)
    device.times, device.act = 2, interrupt
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            store["a"][b"k"] = b"v"
    store["a"][b"k"] = b"v"
    assert len(store["a"]) == len(EXPECTED) + 1
    assert_sound(store)
    store.close()


def in_thread(work: Callable[[], object]) -> BaseException | None:
    """What something raises in another thread, which must come to an end."""
    found: list[BaseException | None] = []

    def run() -> None:
        try:
            work()
            found.append(None)
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    assert found, "it waits for ever"
    return found[0]


def test_who_keeps_the_error_of_a_map_keeps_nobody_waiting(make_store: MakeStore) -> None:
    device = WatchedReader()
    device.block = closed(make_store, device)
    store = cowfs.open_device(device)
    device.times, device.act = 3, fail
    kept: list[BaseException | None] = []
    for _ in range(2):
        try:
            store["a"][b"k"] = b"v"
        except cowfs.DeviceError as error:
            kept.append(error)
    kept.append(in_thread(lambda: store.create("c")))
    assert list(map(type, kept)) == [cowfs.DeviceError] * 3
    assert in_thread(lambda: store["a"].update({b"k": b"v"})) is None
    store["a"][b"more"] = b"v"
    assert in_thread(store.close) is None
    assert len(cowfs.open_device(device, readonly=True)["a"]) == len(EXPECTED) + 2


@pytest.mark.parametrize("act", ["close", "space", "put"])
@pytest.mark.parametrize("first", ["space", "put"])
def test_a_signal_may_come_while_the_map_is_read(
    make_store: MakeStore, act: str, first: str
) -> None:
    device = WatchedReader()
    store = make_store(device)
    store.create("a").update(EXPECTED)
    store.close()
    again = cowfs.open_device(device)
    ref = again.space_tree.ref
    assert ref is not None
    device.block = unpack_pointer(ref).block
    again["a"].update({b"%d" % n: noise(200, n) for n in range(900)})
    again.snapshot("a@x")
    device._bytes[:] = copy_device(device).read(0, device.size())  # it is not closed
    store = cowfs.open_device(device)
    uses: dict[str, Callable[[], object]] = {
        "close": store.close,
        "space": store.space,
        "put": lambda: store["a"].update({b"new": b"value"}),
    }
    device.times, device.act = 1, uses[act]
    with contextlib.suppress(cowfs.ClosedError, cowfs.BusyError):
        uses[first]()
    assert device.times == 0
    store.close()
    found = cowfs.open_device(device)
    assert len(found["a"]) in (900, 901)
    assert_sound(found)


def test_what_was_only_read_is_closed_though_its_map_is_damaged(
    make_store: MakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    device = MemoryDevice()
    block = closed(make_store, device)
    store = cowfs.open_device(device)
    store["a"].update({b"%d" % n: noise(200, n) for n in range(900)})
    store.snapshot("a@y")
    crashed = copy_device(device)
    damage(crashed, block)
    with cowfs.open_device(crashed) as store:
        assert store.log.records > 1
        assert len(store["a"]) == 900
    assert "closed without a checkpoint" in caplog.text
    assert len(cowfs.open_device(crashed, readonly=True)["a"]) == 900
