"""Power cuts while an image goes back to an older checkpoint.

Whatever is left of the writes, the image is as it was, or as of the checkpoint, or can go back to
it by the same command; also where it did not open any more before, which is when one goes back.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

import cowfs
from cowfs.format import Superblock
from cowfs.limits import SUPERBLOCK_SLOTS
from cowfs.log import PLACES, read_superblocks, write_superblock
from cowfs.rewind import examine, look, rewind_device
from crashfuzzer.device import RecordingDevice
from crashfuzzer.image import Image
from crashfuzzer.losses import epochs, power_cuts

from ..plain import Items, assert_sound, contents, noise

Contents = dict[str, Items]


def history(damage: bool) -> Image:
    """An image that went through many checkpoints; with `damage`, the newest is unreadable."""
    device = RecordingDevice()
    store = cowfs.open_device(device, parameters=cowfs.Parameters(node_size=4096))
    store.create("a")
    for number in range(60):  # a long log, which the short ones to come go round in
        store["a"].update({b"%d" % i: noise(300, number) for i in range(50)})
    view = store.at("a")  # which keeps freed blocks as they are
    for number in range(9):
        store["a"].update({b"%d" % (number * 10 + i): noise(300, i) for i in range(20)})
        store.snapshot(f"a@{number}")
        with store.transaction() as tx:
            tx["a"][b"round"] = b"%d" % number
            tx.checkpoint = True
        for i in range(3):  # the log goes on behind the checkpoint
            store["a"][b"later"] = b"%d" % i
    view.close()
    # One of them is led to by the oldest slot of the ring only, which is the next to be written.
    newest, _, moved = read_superblocks(device)[:3]
    moved_to = replace(moved, sequence=newest.sequence - SUPERBLOCK_SLOTS + 1)
    write_superblock(device, moved_to, b"")
    for place in PLACES:
        device.write((place + moved.sequence % SUPERBLOCK_SLOTS) * 4096, bytes(4096))
    if damage:
        device.image.write(store.log.superblock.record_block * 4096 + 100, b"damage")
    return device.image


def opened(image: Image) -> Contents | None:
    """What an image holds, where it opens and is sound."""
    try:
        with cowfs.open_device(RecordingDevice(image.copy()), readonly=True) as store:
            return contents(store) if store.check().ok else None
    except (cowfs.CorruptionError, cowfs.FormatError):
        return None


def intact(image: Image) -> Iterator[Superblock]:
    """What one can go back to."""
    device = RecordingDevice(image)
    for superblock in read_superblocks(device):
        if examine(device, superblock, look(device)).intact:
            yield superblock


@pytest.mark.parametrize("damage", [False, True], ids=["sound", "damaged"])
def test_a_power_cut_while_going_back_leaves_a_way_back(damage: bool) -> None:
    image = history(damage)
    before = opened(image)
    assert (before is None) == damage
    chance = random.Random(1)
    seen = set()
    kinds = {"before": 0, "after": 0, "again": 0}
    choices = list(intact(image))
    assert len(choices) >= 3
    for chosen in choices:
        device = RecordingDevice(image.copy())
        rewind_device(device, chosen.sequence)
        after = opened(device.image)
        assert after is not None
        for epoch in epochs(device.log, image, 1):
            for losses in power_cuts(epoch, chance, 20):
                left = epoch.image(losses)
                if left.fingerprint in seen:
                    continue
                seen.add(left.fingerprint)
                found = opened(left)
                kinds["before" if found == before else "after" if found == after else "again"] += 1
                go_back_again(left, chosen, after)
    assert kinds["after"] and kinds["before"]
    assert len(seen) > 100


def go_back_again(left: Image, chosen: Superblock, after: Contents) -> None:
    """The same once more leads where it was to lead; by the superblock that was written first,
    where that one took the slot of the one that was chosen."""
    device = RecordingDevice(left.copy())
    there = chosen.record_block, chosen.txid
    ways = [s for s in read_superblocks(device) if (s.record_block, s.txid) == there]
    if not ways:  # it had come as far as the checkpoint that it ends with
        assert opened(left) == after
        return
    rewind_device(device, ways[-1].sequence)
    with cowfs.open_device(device) as store:
        assert contents(store) == after
        assert_sound(store)
        store.create("goes-on")
        assert_sound(store)
