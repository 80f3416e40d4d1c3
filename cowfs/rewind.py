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

    @property
    def intact(self) -> bool:
        """Whether one can go back to it."""
        return self.damage is None


def checkpoints(path: str | os.PathLike[str], progress: Progress | None = None) -> list[Checkpoint]:
    """Those that the superblocks of an image lead to, newest first, each verified whole."""
    device = FileDevice(check_image_path(os.fspath(path)), writable=False)
    try:
        return [examine(device, superblock, progress) for superblock in read_superblocks(device)]
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
    found = examine(device, chosen, progress)
    if found.damage is not None:
        raise CorruptionError(
            "", None, f"superblock {sequence} leads to what is damaged: {found.damage}"
        )
    Store.load_checkpoint(device, chosen, superblocks[0])
    return found


def examine(device: Device, superblock: Superblock, progress: Progress | None) -> Checkpoint:
    """Verify all that a superblock leads to."""
    since = damage = None
    try:
        store = Store.load_checkpoint(device, superblock)
        report = check(store, progress)
        if report.faults:
            damage = str(report.faults[0])
        else:
            since = _newest_creation(store)
    except (CorruptionError, FormatError) as error:
        damage = str(error)
    return Checkpoint(superblock.sequence, superblock.txid, since, damage)


def _newest_creation(store: Store) -> datetime | None:
    catalog = Catalog(store.catalog_tree.fork())
    created = [
        root.created_ns for head in catalog.datasets() for root in (head, *catalog.snapshots(head))
    ]
    return datetime.fromtimestamp(max(created) / 1e9, UTC) if created else None
