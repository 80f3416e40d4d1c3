"""Second copies of the log: what is damaged in one copy of a record is no loss, and is mended."""

from __future__ import annotations

import pytest

import cowfs
from cowfs import limits
from cowfs.device import MemoryDevice
from cowfs.format import FLAG_OPERATIONS, CommitRecord, Pointer
from cowfs.log import follow, read_superblocks
from crashfuzzer.model import Items, contents, noise

from ..devices import copy_device, device_of

BLOCK = limits.DEFAULT_BLOCK_SIZE
Image = tuple[bytes, dict[str, Items], list[Pointer]]


@pytest.fixture(scope="module")
def image() -> Image:
    """An image whose program was killed behind a log of all that there is: its bytes, what is in
    it, and the pointers to what of its log has two copies."""
    device = MemoryDevice()
    parameters = cowfs.Parameters(node_size=4096, metadata_copies=2, compression="none")
    store = cowfs.open_device(device, parameters=parameters)
    store.create("keys")
    store["keys"].update((b"%04d" % n, noise(60, n)) for n in range(9000))
    store.snapshot("keys@x")
    store["keys"].update((b"%04d" % n, noise(61, n)) for n in range(0, 9000, 20))
    store["keys"][b"large"] = noise(400_000)
    store.destroy("keys@x")
    for number in range(5):
        store["keys"][b"small"] = noise(90, number)
    store["keys"].update((b"%04d" % n, noise(62, n)) for n in range(300))
    store["keys"][b"small"] = b"last"
    items, data = contents(store), device.read(0, device.size())
    with cowfs.open_device(device_of(data), readonly=True) as reader:
        return data, items, reader.log.copies


def records(data: bytes) -> list[CommitRecord]:
    device = device_of(data)
    found: list[CommitRecord] = []
    follow(device, read_superblocks(device)[0], found.append)
    return found


def damaged(data: bytes, *blocks: int) -> MemoryDevice:
    device = device_of(data)
    for block in blocks:
        device.write(block * BLOCK + 40, bytes([data[block * BLOCK + 40] ^ 0xFF]))
    return device


def test_the_image_has_records_of_all_kinds(image: Image) -> None:
    kinds = {
        (bool(record.flags & FLAG_OPERATIONS), bool(record.overflow))
        for record in records(image[0])
    }
    assert kinds == {(False, False), (False, True), (True, False), (True, True)}
    assert len(image[2]) >= len(records(image[0])) + 3


def test_the_copies_are_far_from_each_other(image: Image) -> None:
    assert all(abs(pointer.twin) > 100 for pointer in image[2])


@pytest.mark.parametrize("which", [0, 1], ids=["first", "second"])
def test_a_damaged_copy_is_no_loss_and_is_repaired(image: Image, which: int) -> None:
    data, items, pointers = image
    newest = max(pointer.birth for pointer in pointers)
    for pointer in pointers:
        block = (pointer.block, pointer.block + pointer.twin)[which]
        if pointer.birth == newest and pointer.stored < BLOCK:
            continue  # by what overflows the newest commit is told from one in flight
        device = damaged(data, block)
        with cowfs.open_device(device, readonly=True) as store:
            assert contents(store) == items
            report = store.check()
            expected = [] if pointer.birth == newest else [block]  # else nobody knows: see settle
            assert [fault.block for fault in report.faults] == expected
            assert all(fault.repairable for fault in report.faults)
        with cowfs.open_device(device) as store:
            assert contents(store) == items
            assert store.scrub().ok
            stored = [
                device.read(at * BLOCK, pointer.stored)
                for at in (pointer.block, pointer.block + pointer.twin)
            ]
            assert stored[0] == stored[1] == data[block * BLOCK :][: pointer.stored]
            assert store.check().ok


def test_scrub_repairs_a_copy_that_was_damaged_while_the_store_is_open(image: Image) -> None:
    data, items, pointers = image
    device = device_of(data)
    with cowfs.open_device(device) as store:
        for pointer in store.log.whole_copies(settled=True):
            for block in (pointer.block, pointer.block + pointer.twin):
                good = device.read(block * BLOCK, BLOCK)
                device.write(block * BLOCK, b"damage")
                report = store.scrub()
                assert report.ok and [fault.block for fault in report.repaired] == [block]
                assert report.repaired[0].dataset == "(log)"
                assert device.read(block * BLOCK, BLOCK) == good
        assert len(store.log.whole_copies(settled=True)) == len(pointers) + 1
        assert contents(store) == items


def test_a_record_without_a_sound_copy_is_damage(image: Image) -> None:
    data, _, pointers = image
    newest = max(pointer.birth for pointer in pointers)
    for pointer in pointers:
        if pointer.birth < newest:
            device = damaged(data, pointer.block, pointer.block + pointer.twin)
            with pytest.raises(cowfs.CorruptionError):
                cowfs.open_device(device)


def test_a_record_in_flight_that_did_not_count_is_wiped_in_both_copies(image: Image) -> None:
    device = device_of(image[0])
    with cowfs.open_device(copy_device(device)) as store:
        store["keys"].update((b"%04d" % n, noise(63, n)) for n in range(300))
        after = store.device
        record = records(after.read(0, after.size()))[-1]
        first, second = store.log.copies[-1].spans(BLOCK)
        torn = damaged(after.read(0, after.size()), record.runs[0].block)
    with cowfs.open_device(torn) as store:
        assert contents(store) == image[1]
        for block, _ in (first, second):
            assert not any(torn.read(block * BLOCK, 512))


def test_a_store_with_one_copy_has_none_of_this() -> None:
    with cowfs.open_device(MemoryDevice(), parameters=cowfs.Parameters()) as store:
        store.create("keys").update((b"%04d" % n, noise(60, n)) for n in range(3000))
        assert not store.log.copies and not store.log.next_copy
        assert all(not r.copies for r in records(store.device.read(0, store.device.size())))
