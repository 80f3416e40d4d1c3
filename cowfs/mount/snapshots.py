"""`.cowfs/snapshots/NAME` in a mounted dataset: the snapshots, by numbers for the kernel.

A file in a snapshot has the same inode number as in the dataset, and the kernel knows both at
once. So a nodeid is the inode number with the number of a snapshot above it, 0 for the dataset; or,
where changes of a file in the dataset were lost, with `ANEW` and how often.
"""

from __future__ import annotations

import os

from cowfs import Store
from cowfs.errors import NotFoundError, StaleFileError, UsageError
from cowfs.fs.inode import ROOT

HIDDEN_NAME = b".cowfs"
SNAPSHOTS_NAME = b"snapshots"

HIDDEN = 1 << 63
"""Nodeid of `.cowfs`."""
SNAPSHOTS = HIDDEN + 1
"""Nodeid of `.cowfs/snapshots`."""

NUMBER_BITS = 44
"""Bits of an inode number in a nodeid: 17 million million files in the history of a dataset."""
ANEW = 1 << 62
"""Bit of the nodeid of a file that the kernel is to know anew, as it relies on what was lost."""
_MOST = 1 << (62 - NUMBER_BITS)


def nodeid_anew(number: int, losses: int) -> int:
    """The nodeid of a file in the dataset. The count goes round, far beyond what the kernel keeps
    of one file."""
    return number | ANEW | losses % _MOST << NUMBER_BITS if losses else number


def number_of(nodeid: int) -> int:
    """The inode number of a file in the dataset or in a snapshot."""
    return nodeid & ((1 << NUMBER_BITS) - 1)


def in_dataset(nodeid: int) -> bool:
    """Whether a node is of the dataset itself, not of a snapshot, nor hidden."""
    return bool(nodeid & ANEW) or nodeid < 1 << NUMBER_BITS


def decode_name(name: bytes) -> str:
    """The name of a snapshot; UsageError for what cannot be one."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise UsageError(f"the name of a snapshot is UTF-8, and {name!r} is not") from None


class Snapshots:
    """The snapshots of a dataset, and the numbers that they were given."""

    def __init__(self, store: Store, dataset: str) -> None:
        self._store = store
        self._dataset = dataset
        self._numbers: dict[tuple[str, int], int] = {}
        """By name and transaction: one that is made anew under an old name is another."""
        self._names: dict[int, tuple[str, int]] = {}
        self._next = 1
        self._present: set[int] = set()
        """Those that were seen to be there, as of the transaction `_as_of`."""
        self._as_of = 0

    def names(self) -> list[bytes]:
        """All that there are now, sorted."""
        with self._store.pinned("mount") as catalog:
            roots = catalog.snapshots(catalog.dataset(self._dataset))
            return sorted(os.fsencode(root.name) for root in roots)

    def find(self, name: bytes) -> int | None:
        """The nodeid of a snapshot's root directory; None where there is none of that name."""
        try:
            text = decode_name(name)
        except UsageError:
            return None
        txid = self._txid(text)
        if txid is None:
            return None
        number = self._numbers.get((text, txid))
        if number is None:
            number = self._next
            if number == _MOST:
                raise StaleFileError(reason="too many snapshots were looked at; mount anew")
            self._next += 1
            self._numbers[text, txid] = number
            self._names[number] = text, txid
        return number << NUMBER_BITS | ROOT

    def where(self, nodeid: int) -> tuple[str, int]:
        """(`dataset@snapshot`, inode number) of a file in a snapshot. Raises StaleFileError where
        that snapshot is gone, be there a new one of its name."""
        number = nodeid >> NUMBER_BITS
        name, txid = self._names.get(number, ("", 0))
        if self._as_of != self._store.txid:
            self._as_of = self._store.txid
            self._present.clear()
        if number not in self._present:
            if not name or self._txid(name) != txid:
                raise StaleFileError
            self._present.add(number)
        return f"{self._dataset}@{name}", number_of(nodeid)

    def _txid(self, name: str) -> int | None:
        """The transaction of a snapshot, by which it differs from others of its name."""
        try:
            with self._store.pinned("mount") as catalog:
                return catalog.snapshot(catalog.dataset(self._dataset), name).txid
        except NotFoundError:
            return None
