"""Copies of metadata that rot: what has a sound second copy is no loss, and is repaired; what has
none is an error, and never other data.

It is tried on a copy of the image, so that the run goes on as if nothing had happened.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import cowfs
from cowfs._view import EXTENT, INLINE, node_items
from cowfs.catalog import Catalog
from cowfs.format import NO_REF, REF_SIZE, Pointer, unpack_pointer

from .device import RecordingDevice
from .image import Image
from .judge import Wrong, holds
from .losses import SECTOR, epochs, random_cut
from .model import PlainStore, contents
from .world import World

_MOST = 8
"""Copies that rot at once."""


def rot(world: World, store: cowfs.Store, image: Image, model: PlainStore, seed: int) -> None:
    """Let copies rot of an image that holds `model`. Raises Wrong."""
    chance = random.Random(seed)
    # A commit that has to prove itself is lost with what it proves itself by.
    pointers = [p for p in pairs(store) if p.birth <= store.log.proven_txid]
    for pointer in pointers:
        fixed = pointer.block + pointer.twin < cowfs.limits.RECORD_COPIES_BLOCK + 8
        if world.size is None and not fixed and abs(pointer.twin) < _apart(world):
            raise Wrong(f"two copies side by side: {pointer}")
    # One pair a block: the first copy of a checkpoint record belongs to two.
    single = list({pointer.block: pointer for pointer in pointers}.values())
    chosen = chance.sample(single, min(len(single), _MOST))
    if not chosen:
        return
    rotten = image.copy()
    for pointer in chosen:
        _spoil(rotten, pointer, chance.choice((0, pointer.twin)), chance)
    device = RecordingDevice(rotten.copy())
    opened = world.open(device)
    _survives(opened, model)
    # Not of a checkpoint that another has followed: this one leads on, and is left behind.
    for pointer in set(chosen).intersection(pairs(opened)):
        for start, blocks in pointer.spans(cowfs.limits.DEFAULT_BLOCK_SIZE):
            at, length = start * 4096, blocks * 4096
            if device.read(at, length) != image.read(at, length):
                raise Wrong(f"what was repaired is not what it was: {pointer}")
    for epoch in epochs(device.log, rotten, 1):
        cut = RecordingDevice(epoch.image(random_cut(epoch, chance)))
        if not holds(contents(world.open(cut)), model):
            raise Wrong("a power cut during a repair lost something")
    for twin in (0, chosen[0].twin):
        _spoil(rotten, chosen[0], twin, chance)
    _shows_no_other(world, rotten, model)


def pairs(store: cowfs.Store) -> Iterator[Pointer]:
    """Pointers to all that has two copies."""
    yield from store.log.whole_copies(settled=True)
    catalog = Catalog(store.catalog_tree.fork())
    roots = [root for head in catalog.datasets() for root in (head, *catalog.snapshots(head))]
    todo = [store.catalog_tree.ref, store.space_tree.ref, *(root.ref for root in roots)]
    seen: set[int] = set()
    while todo:
        ref = todo.pop()
        if ref is None or ref == NO_REF or unpack_pointer(ref).block in seen:
            continue
        pointer = unpack_pointer(ref)
        seen.add(pointer.block)
        if pointer.twin:
            yield pointer
        level, items = node_items(store.io, store.io.node_size, ref, "")
        todo += [
            value[:REF_SIZE] for _, kind, value in items if level or kind not in (INLINE, EXTENT)
        ]


def _apart(world: World) -> int:
    """Blocks that two copies are away from each other where the image may grow."""
    return min(world.group_blocks * 3 // 2, world.min_image_blocks // 2) * 2 // 3


def _spoil(image: Image, pointer: Pointer, twin: int, chance: random.Random) -> None:
    sector = chance.randrange(-(-pointer.stored // SECTOR))
    at = (pointer.block + twin) * 4096 + sector * SECTOR
    image.write(at, chance.randbytes(SECTOR))


def _survives(store: cowfs.Store, model: PlainStore) -> None:
    """It holds all that it should, and repairs itself."""
    if not holds(contents(store), model):
        raise Wrong("damage to one of two copies lost something")
    for report in (store.scrub(), store.check()):
        if not report.ok:
            raise Wrong("not repaired: " + "; ".join(map(str, report.faults[:5])))


def _shows_no_other(world: World, image: Image, model: PlainStore) -> None:
    """There is an error, or what should be there."""
    try:
        found = contents(world.open(RecordingDevice(image.copy()), readonly=True))
    except cowfs.CorruptionError:
        return
    if not holds(found, model):
        raise Wrong("with both copies damaged, it holds other data")
