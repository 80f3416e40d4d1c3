"""Images of several allocation groups (32 MiB each): what is far apart stays right together."""

from __future__ import annotations

import pytest

import cowfs
from cowfs.blockio import BlockIO
from cowfs.device import MemoryDevice

from ..conftest import MakeStore
from ..plain import assert_sound, noise, reopened

MIB = 1 << 20


def test_counts_of_groups_that_a_checkpoint_did_not_write_to_are_kept() -> None:
    device = MemoryDevice()
    store = cowfs.open_device(device, parameters=cowfs.Parameters())
    store.create("a")
    for step in (b"c", "a@1", b"b", b"a", "a@2", b"b"):
        if isinstance(step, str):
            store.snapshot(step)
        else:
            store["a"][step] = noise(20 * MIB, step[0])
        store.close()
        store = reopened(device)
        device = store.device  # type: ignore[assignment]
        assert_sound(store)


def test_an_image_that_lost_whole_groups_at_its_end_closes_and_opens() -> None:
    device = MemoryDevice()
    store = cowfs.open_device(device, parameters=cowfs.Parameters())
    store.create("keep")[b"k"] = noise(MIB, 1)
    store.create("gone")
    for number in range(5):
        store["gone"][b"%d" % number] = noise(20 * MIB, number)
    store.destroy("gone")
    for _ in range(3):  # what the store itself keeps at the end moves forward as it is written anew
        store["keep"][b"n"] = noise(100)
        store.close()
        store = reopened(device)
        device = store.device  # type: ignore[assignment]
        assert_sound(store)
    assert device.size() < 40 * MIB
    assert store["keep"][b"k"] == noise(MIB, 1)


def test_holes_are_made_in_free_space_only() -> None:
    device = MemoryDevice()
    store = cowfs.open_device(device, parameters=cowfs.Parameters())
    store.create("a")
    for number in range(20):
        store["a"][b"%02d" % number] = noise(3 * MIB, number)
    for number in range(0, 20, 2):
        del store["a"][b"%02d" % number]
    store.close()
    store = reopened(device)
    assert_sound(store)
    for number in range(1, 20, 2):
        assert store["a"][b"%02d" % number] == noise(3 * MIB, number)


def test_groups_with_many_counts_are_replaced_where_free_space_is_in_pieces(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their items are trees of records then, and each checkpoint gives back those before."""
    monkeypatch.setattr(BlockIO, "record_size", lambda self, wanted=0, total=None: self.block_size)
    store = make_store(node_size=4096, compression="none")
    store.create("a").load_sorted((b"%05d" % n, noise(1000, n)) for n in range(3000))
    store.snapshot("a@x")
    store["a"].update((b"%05d" % n, noise(1000, n)) for n in range(0, 3000, 100))
    assert len(store.io.space.shared) > 512
    for number in range(4):
        with store.transaction() as tx:
            tx["a"][b"%d" % number] = b"v"
            tx.checkpoint = True
        assert_sound(store)
