"""Writes and flushes that fail: nothing acknowledged is lost, and a failed flush is final."""

from __future__ import annotations

import contextlib
import random

import pytest

import cowfs
from cowfs import limits
from cowfs.device import MemoryDevice

from ..devices import FailingDevice, ThinDevice
from ..plain import Items, assert_sound, contents, noise, reopened


def change(store: cowfs.Store, chance: random.Random, model: dict[str, Items]) -> None:
    """One transaction; `model` is what there is after it."""
    with store.transaction(durable=chance.random() < 0.8) as tx:
        for _ in range(chance.choice((1, 5, 30))):
            key = b"%d" % chance.randrange(60)
            value = noise(chance.choice((10, 500, 5000, 60_000)), chance.randrange(99))
            tx["a"][key] = model["a"][key] = value
        if chance.random() < 0.2:
            name = f"a@{chance.randrange(3)}"
            if name in model:
                tx.destroy(name)
                del model[name]
            else:
                tx.snapshot(name)
                model[name] = dict(model["a"])


@pytest.mark.parametrize("seed", range(25))
def test_a_failing_device_loses_nothing_that_was_acknowledged(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(limits, "LOG_RECORDS", 6)
    monkeypatch.setattr(limits, "ONE_FLUSH_LIMIT", 300_000)
    chance = random.Random(seed)
    device = FailingDevice()
    store = cowfs.open_device(device, parameters=cowfs.Parameters(), cache=1 << 20)
    store.create("a")
    acknowledged: dict[str, Items] = {"a": {}}
    for _ in range(12):
        device.countdown = chance.randrange(12)
        while True:
            after = {name: dict(items) for name, items in acknowledged.items()}
            try:
                change(store, chance, after)
            except (OSError, cowfs.FailedError) as error:
                assert str(error)
                break
            acknowledged = after
        # Reading goes on, and shows what was acknowledged (or all of the one that failed).
        assert contents(store) in (acknowledged, after)
        if store.failure is not None:
            with pytest.raises(cowfs.FailedError, match="open it anew"):
                store["a"][b"k"] = b"v"
            with pytest.raises(cowfs.FailedError, match="open it anew"):
                store.create("b")
        device.countdown = None
        if store.failure is None:
            assert contents(store) == acknowledged
            assert_sound(store)
            if chance.random() < 0.5:
                continue
        store = reopened(device, cache=1 << 20)
        found = contents(store)
        assert found in (acknowledged, after)
        assert_sound(store)
        acknowledged = found
        device = FailingDevice()
        source = store.device
        device.resize(source.size())
        device.write(0, source.read(0, source.size()))
        store = cowfs.open_device(device, cache=1 << 20)


def test_a_failed_flush_is_final_even_if_the_next_one_would_succeed() -> None:
    device = FailingDevice()
    store = cowfs.open_device(device, parameters=cowfs.Parameters())
    data = store.create("a")
    data[b"k"] = b"before"
    with store.at("a") as view:
        device.countdown = 1  # the write succeeds, the flush fails
        with pytest.raises((cowfs.FailedError, OSError)):
            data[b"k"] = b"after"
        device.countdown = None
        for _ in range(2):
            with pytest.raises(cowfs.FailedError, match="open it anew"):
                data[b"k"] = b"again"
            with pytest.raises(cowfs.FailedError):
                store.transaction()
        assert view[b"k"] == b"before"
    store.close()
    found = reopened(device)
    assert found["a"][b"k"] in (b"before", b"after")
    found["a"][b"k"] = b"works"
    assert_sound(found)


def test_a_failed_flush_takes_nothing_back_that_was_visible() -> None:
    """Memory may be the last place that has it: it can be read, and saved, as long as the store is
    open. None of it counts as durable."""
    device = FailingDevice()
    store = cowfs.open_device(device, parameters=cowfs.Parameters())
    data = store.create("a")
    durable = store.durable_txid
    with store.transaction(durable=False) as tx:
        tx["a"][b"first"] = b"not durable"
    device.countdown = 1  # the write succeeds, the flush fails
    with pytest.raises(cowfs.FailedError, match="whether this transaction was kept will be seen"):
        data[b"second"] = b"durable"
    device.countdown = None
    expected = {b"first": b"not durable", b"second": b"durable"}
    assert dict(data.items()) == expected
    with store.at("a") as view:
        assert dict(view.items()) == expected
    assert_sound(store)
    assert store.durable_txid == durable
    with pytest.raises(cowfs.FailedError, match="open it anew"):
        store.sync()


def test_sync_that_fails_says_so() -> None:
    device = FailingDevice()
    store = cowfs.open_device(device, parameters=cowfs.Parameters())
    store.create("a")
    with store.transaction(durable=False) as tx:
        tx["a"][b"k"] = b"v"
    device.countdown = 0
    with pytest.raises(cowfs.FailedError):
        store.sync()
    device.countdown = None
    with pytest.raises(cowfs.FailedError):
        store.sync()
    with pytest.raises(cowfs.FailedError):
        store["a"][b"k"] = b"w"


def test_a_store_that_cannot_be_settled_still_closes() -> None:
    """Closing leaves a checkpoint behind; where that fails, nothing that was committed is lost."""
    for countdown in range(6):
        device = FailingDevice()
        store = cowfs.open_device(device, parameters=cowfs.Parameters())
        store.create("a")
        for number in range(20):
            store["a"][b"%d" % number] = noise(500, number)
        device.countdown = countdown
        with contextlib.suppress(OSError, cowfs.Error):
            store.close()
        with pytest.raises(cowfs.ClosedError):
            store["a"][b"k"]
        device.countdown = None
        found = reopened(device)
        assert len(found["a"]) == 20
        assert_sound(found)


def test_an_image_that_is_closed_while_its_disk_is_full_can_be_opened() -> None:
    """The file keeps its free end, as no checkpoint could say that it is shorter now."""

    class FullDevice(MemoryDevice):
        full = False

        def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
            if self.full:
                raise cowfs.OutOfSpaceError("the disk under the image is full")
            super().write(offset, data)

    device = FullDevice()
    store = cowfs.open_device(device, parameters=cowfs.Parameters())
    data = store.create("a")
    data[b"large"] = noise(8_000_000)
    data[b"small"] = b"v"
    del data[b"large"]
    data[b"small"] = b"w"
    size = device.size()
    device.full = True
    store.close()
    assert device.size() == size
    found = reopened(device)
    assert dict(found["a"].items()) == {b"small": b"w"}
    assert_sound(found)


@pytest.mark.parametrize("at", range(40))
def test_an_interrupt_anywhere_in_a_commit_leaves_the_store_usable_or_failed(at: int) -> None:
    """Ctrl-C at any I/O: what was acknowledged stays, and whatever the store does then is sound."""

    class Interrupted(FailingDevice):
        def _count(self) -> None:
            if self.countdown == 0:
                self.countdown = None
                raise KeyboardInterrupt
            if self.countdown is not None:
                self.countdown -= 1

    device = Interrupted()
    store = cowfs.open_device(device, parameters=cowfs.Parameters())
    store.create("a")
    device.countdown = at
    count = 0
    try:
        for number in range(30):
            with store.transaction() as tx:
                tx["a"][b"%d" % number] = noise(3000, number)
                tx.checkpoint = number % 5 == 4
            count += 1
    except KeyboardInterrupt:
        pass
    found = len(store["a"])
    assert found in (count, count + 1)
    try:
        for number in range(10):
            store["a"][b"more %d" % number] = noise(3000)
    except cowfs.FailedError:
        pass
    else:
        assert_sound(store)
        found = len(store["a"])
    store.close()
    again = reopened(device)
    assert len(again["a"]) in (found, found + 1)
    assert_sound(again)


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("room", range(40, 400, 30))
def test_a_disk_under_the_image_that_is_full_fails_one_transaction_and_not_the_store(
    room: int, copies: int
) -> None:
    device = ThinDevice(room + 200 * (copies - 1))
    parameters = cowfs.Parameters(metadata_copies=copies)
    store = cowfs.open_device(device, parameters=parameters)
    values = store.create("a")
    kept = []
    with pytest.raises(cowfs.OutOfSpaceError):
        for number in range(2000):
            values[b"%d" % number] = noise(500, number)
            kept.append(b"%d" % number)
    assert store.failure is None
    assert sorted(values) == sorted(kept)
    device.room *= 3
    values[b"more"] = b"value"
    assert_sound(store)
    assert sorted(contents(reopened(device))["a"]) == sorted([*kept, b"more"])


@pytest.mark.parametrize("copies", [1, 2])
def test_an_image_opens_for_writing_where_the_host_was_full_when_it_was_killed(copies: int) -> None:
    device = ThinDevice(1 << 20)
    parameters = cowfs.Parameters(metadata_copies=copies)
    store = cowfs.open_device(device, parameters=parameters)
    store.create("a")
    kept = {}
    device.room = device.allocated() // 4096 + 4
    with pytest.raises(cowfs.OutOfSpaceError):
        for i in range(1000):
            store["a"][b"%d" % i] = b"v"
            kept[b"%d" % i] = b"v"
    for _ in range(2 * limits.SUPERBLOCK_SLOTS):
        store = cowfs.open_device(device)
        assert dict(store["a"].items()) == kept
    device.room += 600
    store["a"][b"more"] = b"v"
