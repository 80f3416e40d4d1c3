"""Which moment of a damaged image is the newest that anything verifies of.

Opening an image wants all of it or nothing: the newest superblock, each record that was
acknowledged, the map of space. Here a superblock that leads nowhere is passed over, a log ends
where it is damaged, and the map is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from .. import limits
from .._view import node_items
from ..device import Device
from ..errors import CorruptionError, DeviceError, FormatError
from ..format import (
    FLAG_OPERATIONS,
    NO_REF,
    CommitRecord,
    Superblock,
    unpack_operations,
    unpack_superblock,
)
from ..log import PLACES, follow, read_superblocks
from .walk import Later, Source

_LABEL = "(log)"
_DAMAGE = (CorruptionError, FormatError, DeviceError)


@dataclass(frozen=True, slots=True)
class Moment:
    """What an image held at the end of one transaction, as far as it verifies."""

    source: Source
    txid: int
    catalog: bytes | None
    """Reference of the catalog's root, which verifies; None where it was empty."""
    later: dict[int, Later]
    """What only the log holds, by the ids of the datasets."""


class _Chain:
    """The records of the log from one checkpoint on: all catalogs, and what came after the last."""

    def __init__(self, device: Device, superblock: Superblock) -> None:
        self.source = Source(device, superblock)
        self.catalogs: list[tuple[int, bytes | None]] = []
        """(transaction, reference of the catalog's root), oldest first."""
        self.later: dict[int, Later] = {}
        self.txid = 0
        self.problem = ""
        self._count = 0

    def visit(self, record: CommitRecord) -> None:
        """Take over what a record says, unless one before it could not be read."""
        if self.problem:
            return
        if not record.flags & FLAG_OPERATIONS:
            self.catalogs.append((record.txid, _known(record.catalog)))
            self.later, self._count = {}, 0
        else:
            try:
                self._note(record)
            except (ValueError, CorruptionError) as error:
                self.problem = f"the operations of transaction {record.txid}: {error}"
                return
        self.txid = record.txid

    def _note(self, record: CommitRecord) -> None:
        packed = record.delta or b"".join(
            self.source.read_copies(p, _LABEL) for p in record.overflows()
        )
        for number, operation, key, value in list(unpack_operations(packed)):
            self._count += 1
            if self._count > limits.UNSTORED_OPERATIONS:
                raise ValueError("more operations than a log may hold")
            self.later.setdefault(number, Later()).do(operation, key, value)


def newest(device: Device) -> Iterator[str | Moment]:
    """The newest moment with a catalog that verifies; before it, lines on what could not be used.

    The last thing that comes is the moment. Raises CorruptionError where there is none, FormatError
    where no superblock of this version is left.
    """
    superblocks = read_superblocks(device)
    for slot in _damaged_slots(device, superblocks[0].block_size):
        yield f"superblock slot {slot}: damaged in both places; it may have been the newest"
    damaged: set[bytes | None] = set()
    for superblock, alone in product(superblocks, (False, True)):
        chain, problem = _chain(device, superblock, alone)
        if not alone:
            if problem:
                yield f"the log behind superblock {superblock.sequence}: {problem}"
            if chain.problem:
                yield chain.problem
        later, txid = chain.later, chain.txid
        for of, catalog in reversed(chain.catalogs):
            damage = _damage(chain.source, catalog)
            if not damage:
                yield Moment(chain.source, txid, catalog, later)
                return
            if catalog not in damaged:  # other chains lead to it as well
                damaged.add(catalog)
                yield f"the catalog of transaction {of}: {damage}"
            later, txid = {}, of - 1
    raise CorruptionError("(catalog)", None, "none that verifies is left; nothing can be found")


def _chain(device: Device, superblock: Superblock, alone: bool) -> tuple[_Chain, str]:
    """The records behind a superblock (only that of its checkpoint, if `alone`), and what is wrong
    with them."""
    problem = ""
    for strict in (True, False):
        chain = _Chain(device, superblock)
        try:
            follow(device, superblock, chain.visit, alone=alone, strict=strict)
            break
        except _DAMAGE as error:
            problem = str(error)
    return chain, problem


def _damaged_slots(device: Device, block_size: int) -> Iterator[int]:
    """Slots of the ring that were written and verify in neither place."""
    for slot in range(limits.SUPERBLOCK_SLOTS):
        copies = [device.read((place + slot) * block_size, block_size) for place in PLACES]
        if any(map(any, copies)) and not any(map(unpack_superblock, copies)):
            yield slot


def _damage(source: Source, catalog: bytes | None) -> str:
    """What is wrong with the root of a catalog."""
    if catalog is not None:
        try:
            node_items(source, source.node_size, catalog, "(catalog)")
        except CorruptionError as error:
            return str(error)
    return ""


def _known(ref: bytes) -> bytes | None:
    return ref if ref != NO_REF else None
