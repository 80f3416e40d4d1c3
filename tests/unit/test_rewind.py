"""Going back to an older superblock of the ring: to what was committed then, or not at all."""

from __future__ import annotations

import pytest

import cowfs
from cowfs.device import MemoryDevice
from cowfs.format import unpack_record
from cowfs.log import follow, lead_back, read_superblocks
from cowfs.rewind import examine, look, rewind_device

from ..devices import copy_device, device_of
from ..plain import Items, assert_sound, contents, noise

BLOCK = 4096
States = dict[int, dict[str, Items]]


@pytest.fixture(scope="module")
def case() -> tuple[bytes, States]:
    """An image with a history, and what it held at each transaction."""
    device = MemoryDevice()
    store = cowfs.open_device(device, parameters=cowfs.Parameters(node_size=4096))
    store.create("a")
    states = {}
    for n in range(6):
        store["a"].update({b"%d" % (n * 10 + i): noise(300, i) for i in range(20)})
        store.snapshot(f"a@{n}")
        with store.transaction() as tx:
            tx["a"][b"round"] = b"%d" % n
            tx.checkpoint = True
        states[store.txid] = contents(store)
        for i in range(3):  # the log goes on behind the checkpoint, and is durable
            store["a"][b"later"] = b"%d" % i
    return device.read(0, device.size()), states


def test_goes_back_to_what_was_committed_or_refuses(case: tuple[bytes, States]) -> None:
    data, states = case
    went_back = 0
    for superblock in read_superblocks(device_of(data)):
        device = device_of(data)
        if examine(device, superblock, look(device)).damage is not None:
            with pytest.raises(cowfs.CorruptionError, match="leads to what is damaged"):
                rewind_device(device, superblock.sequence)
            assert device.read(0, device.size()) == data
            continue
        assert rewind_device(device, superblock.sequence).txid == superblock.txid
        with cowfs.open_device(copy_device(device)) as store:
            assert_sound(store)
            if superblock.txid in states:
                assert contents(store) == states[superblock.txid]
                went_back += 1
        # It opens after each commit, amid the records of what was abandoned.
        for n in range(40):
            store = cowfs.open_device(device)
            if "a" not in store:
                break
            store["a"][b"new"] = b"%d" % n
            device = copy_device(device)
            assert_sound(cowfs.open_device(device, readonly=True))
    assert went_back >= 2


def test_a_checkpoint_with_a_damaged_block_is_refused(case: tuple[bytes, States]) -> None:
    data, _ = case
    newest = read_superblocks(device_of(data))[0]
    assert examine(device_of(data), newest, look(device_of(data))).intact
    tree = cowfs.Store.load_checkpoint(device_of(data), newest).catalog_tree
    assert tree.ref is not None
    block = int.from_bytes(tree.ref[:8], "little")
    device = device_of(data)
    device.write(block * BLOCK + 100, b"damage")
    before = device.read(0, device.size())
    with pytest.raises(cowfs.CorruptionError, match=f"superblock {newest.sequence} leads"):
        rewind_device(device, newest.sequence)
    assert device.read(0, device.size()) == before


def test_an_unknown_superblock_is_named(case: tuple[bytes, States]) -> None:
    with pytest.raises(cowfs.NotFoundError, match="no superblock 99999; there are"):
        rewind_device(device_of(case[0]), 99999)


def test_interrupted_before_its_checkpoint_it_never_leads_to_a_later_record(
    case: tuple[bytes, States],
) -> None:
    newest = read_superblocks(device_of(case[0]))[0]
    device = device_of(case[0])
    log = follow(device, newest, lambda record: None, alone=True)
    lead_back(device, log, newest, newest.total_blocks)
    assert read_superblocks(device)[0].sequence == newest.sequence + 1
    assert unpack_record(device.read(log.next_block * BLOCK, BLOCK)) is None
    assert rewind_device(device, newest.sequence + 1).txid == newest.txid
    with cowfs.open_device(device, readonly=True) as store:
        assert_sound(store)
        assert contents(store) == case[1][newest.txid]


def test_says_what_going_back_loses_and_brings_back() -> None:
    device = MemoryDevice()
    store = cowfs.open_device(device, parameters=cowfs.Parameters())
    store.create("kept")
    with store.transaction() as tx:
        tx.create("old")
        tx.snapshot("kept@old")
        tx.checkpoint = True
    sequence, txid = store.log.superblock.sequence, store.txid
    store.destroy("old", "kept@old")
    store.create("new")
    store.snapshot("kept@new")
    superblock = next(s for s in read_superblocks(device) if s.sequence == sequence)
    found = examine(device, superblock, look(device))
    assert found.intact
    assert (found.txid, found.newest_txid) == (txid, store.txid)
    assert found.loses == ["kept@new", "new"]
    assert found.brings_back == ["kept@old", "old"]
    record = store.log.superblock.record_block
    device.write(record * BLOCK + 20, b"damage")
    found = examine(device, superblock, look(device))
    assert found.loses is found.brings_back is None
