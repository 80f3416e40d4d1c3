"""Going back to an older superblock of the ring, for the day when the newest commit is of no use.

What a superblock leads to may have been overwritten since, for nothing but the newest one promises
it. So every checkpoint is verified whole before it is called intact, and none that is not is ever
made the newest.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from .catalog import Catalog
from .check import check
from .device import Device, FileDevice, check_image_path
from .errors import CorruptionError, FormatError, NotFoundError
from .format import KNOWN_READ_ONLY, Superblock
from .log import read_superblocks
from .store import Store

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a superblock leads to."""

    sequence: int
    """Of the superblock."""
    txid: int
    """Number of the newest transaction in it."""
    since: datetime | None
    """When the newest dataset or snapshot in it was made: it is no older than that."""
    damage: str | None
    """The first thing that is wrong with it; None where everything verifies."""
    newest_txid: int
    """Number of the newest transaction on the image: those after `txid` are what going back loses,
    but for a gap in the numbers that an earlier way back left."""
    loses: list[str] | None
    """Datasets and snapshots that are there now, and not in it; None where nobody can tell."""
    brings_back: list[str] | None
    """Those that are in it, and not there now."""

    @property
    def intact(self) -> bool:
        """Whether one can go back to it."""
        return self.damage is None


@dataclass(frozen=True, slots=True)
class Present:
    """The newest that can be seen of an image."""

    txid: int
    names: set[str] | None
    """Of datasets and snapshots; None where they cannot be read."""


def checkpoints(path: str | os.PathLike[str], progress: Progress | None = None) -> list[Checkpoint]:
    """Those that the superblocks of an image lead to, newest first, each verified whole."""
    device = FileDevice(check_image_path(os.fspath(path)), writable=False)
    try:
        present = look(device)
        return [
            examine(device, superblock, present, progress)
            for superblock in read_superblocks(device)
        ]
    finally:
        device.close()


def rewind(
    path: str | os.PathLike[str], sequence: int, progress: Progress | None = None
) -> Checkpoint:
    """Go back to the checkpoint of a superblock, for good: all transactions after it are lost.

    Raises NotFoundError where the ring has no such superblock, CorruptionError where not everything
    that it leads to verifies. Nothing is changed then. Interrupted, it can be done again.
    """
    device = FileDevice(check_image_path(os.fspath(path)), writable=True)
    try:
        return rewind_device(device, sequence, progress)
    finally:
        device.close()


def rewind_device(device: Device, sequence: int, progress: Progress | None = None) -> Checkpoint:
    """`rewind`, on any device."""
    superblocks = read_superblocks(device)
    chosen = next((found for found in superblocks if found.sequence == sequence), None)
    if chosen is None:
        known = ", ".join(str(found.sequence) for found in superblocks)
        raise NotFoundError(f"{device.name}: no superblock {sequence}; there are {known}")
    if chosen.read_only & ~KNOWN_READ_ONLY:
        raise FormatError(f"{device.name}: has features that this cowfs can only read")
    found = examine(device, chosen, look(device), progress)
    if found.damage is not None:
        raise CorruptionError(
            "", None, f"superblock {sequence} leads to what is damaged: {found.damage}"
        )
    Store.load_checkpoint(device, chosen, superblocks[0])
    return found


def examine(
    device: Device, superblock: Superblock, present: Present, progress: Progress | None = None
) -> Checkpoint:
    """Verify all that a superblock leads to, and compare with what is there now."""
    since = damage = loses = brings_back = None
    try:
        store = Store.load_checkpoint(device, superblock)
        # What has a sound second copy is no damage.
        faults = [fault for fault in check(store, progress).faults if not fault.repairable]
        if faults:
            damage = str(faults[0])
        else:
            since, names = _contents(store)
            if present.names is not None:
                loses = sorted(present.names - names)
                brings_back = sorted(names - present.names)
    except (CorruptionError, FormatError) as error:
        damage = str(error)
    return Checkpoint(
        superblock.sequence,
        superblock.txid,
        since,
        damage,
        present.txid,
        loses,
        brings_back,
    )


def look(device: Device) -> Present:
    """What an image holds now, as who opens it sees it."""
    try:
        store = Store.load(device, readonly=True)
        return Present(store.txid, _contents(store)[1])
    except (CorruptionError, FormatError):
        return Present(read_superblocks(device)[0].txid, None)


def _contents(store: Store) -> tuple[datetime | None, set[str]]:
    """When the newest dataset or snapshot was made, and the names of all of them."""
    catalog = Catalog(store.catalog_tree.fork())
    created, names = 0, set()
    for head in catalog.datasets():
        created = max(created, head.created_ns)
        names.add(head.name)
        for snapshot in catalog.snapshots(head):
            created = max(created, snapshot.created_ns)
            names.add(f"{head.name}@{snapshot.name}")
    return datetime.fromtimestamp(created / 1e9, UTC) if names else None, names
