"""What readers open: one moment of a store each, and who has which one open.

A version is never changed; a commit puts another in its place. A reader notes which one it has in
the same short critical section, so that the writer knows what must stay in place for it.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from ._tree import Tree
from .catalog import Catalog, Root, is_snapshot_name


@dataclass(frozen=True, slots=True)
class Version:
    """All datasets and snapshots as one transaction left them."""

    txid: int
    catalog: Tree
    heads: Mapping[int, Tree]
    """Trees, by the ids of their datasets, that are newer than the catalog says: what operations in
    the log made of them is in memory only."""
    flushed_txid: int
    """The newest transaction that its commit record says was flushed before."""
    roots: dict[str, Root]
    """Datasets by name, as far as they were looked up; versions with one catalog share it."""

    def dataset(self, name: str) -> Root:
        """The head of a dataset. Raises NotFoundError."""
        root = self.roots.get(name) if isinstance(name, str) else None
        if root is None:
            root = self.roots[name] = Catalog(self.catalog.fork()).dataset(name)
        return root

    def resolve(self, name: str) -> Root:
        """A head or a snapshot by its full name. Raises NotFoundError."""
        if not is_snapshot_name(name):
            return self.dataset(name)
        return Catalog(self.catalog.fork()).resolve(name)


@dataclass(frozen=True, slots=True)
class Reader:
    """An open view: it keeps the blocks of its version from being used again."""

    name: str
    txid: int
    since: float
    """Seconds since the epoch."""


class Versions:
    """The newest version, and the readers of all that are still open."""

    def __init__(self, first: Version) -> None:
        self.newest = first
        self.lock = threading.Lock()
        """Held while a reader opens, or a version becomes the newest: both in a few steps."""
        self._readers: dict[int, Reader] = {}
        self.close = self._readers.pop
        """Lets go of the version of a reader, given None as well; a second time does nothing. It is
        the dict's own method: an interrupt can come at the beginning of any other."""
        self.numbers = itertools.count()
        """Of readers. Who opens draws one first, to close it whatever interrupts the opening."""

    def open(self, number: int, name: str) -> Version:
        """The newest version, kept in place until reader `number` is closed."""
        with self.lock:
            version = self.newest
            self._readers[number] = Reader(name, version.txid, time.time())
        return version

    def readers(self) -> list[Reader]:
        """Open views, oldest first."""
        readers = list(self._readers.values())
        return sorted(readers, key=lambda reader: (reader.txid, reader.since))

    def oldest_txid(self) -> int:
        """Of the oldest version that is open, or the newest there is."""
        if not self._readers:
            return self.newest.txid
        return min(reader.txid for reader in list(self._readers.values()))

    def newest_read_txid(self) -> int:
        """The newest version that a reader has open; 0 where there is none."""
        if not self._readers:
            return 0
        return max(reader.txid for reader in list(self._readers.values()))

    @property
    def read(self) -> bool:
        """Whether there are readers."""
        return bool(self._readers)

    def forget_readers(self) -> None:
        """Keep nothing in place any more, as nobody reads once the store is closed."""
        self._readers.clear()
