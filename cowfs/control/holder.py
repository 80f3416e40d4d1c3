"""What can be asked of the process that holds an image: the methods of a store, done with care for
the programs that use it meanwhile.

`Holder` as it is serves a store that has nothing else to look after. A mount gathers changes, and a
server has exports: theirs override `settle`, `exclusively` and `check_unused`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager

from cowfs import Change, Entry, Report, SpaceReport, Store, Transaction, Volume
from cowfs.errors import KindError, UsageError
from cowfs.store import Progress


class Holder:
    """A store, and how others may use it while it is in use."""

    def __init__(self, store: Store) -> None:
        self.store = store

    # --- for those that have more to look after ---------------------------------------------------

    def settle(self, datasets: set[str]) -> None:
        """Bring into the store what programs have written to some datasets until now."""

    def exclusively(self) -> AbstractContextManager[None]:
        """While it lasts, the caller may write to the store, and nobody else does."""
        return contextlib.nullcontext()

    def check_unused(self, dataset: str) -> None:
        """Raise BusyError where a dataset is in use, so that it cannot be replaced or go."""

    def mount(self, dataset: str, directory: str, allow_other: bool) -> None:
        """Mount a dataset or snapshot of the image, too."""
        raise UsageError(
            f"{self.store.path}: who holds the image serves it and mounts nothing; end it first"
        )

    def unmount(self, directory: str) -> None:
        """Undo `mount`."""
        raise UsageError(f"{directory}: not mounted by who holds {self.store.path}")

    def wait(self, directory: str) -> None:
        """Return when nothing is mounted at a directory any more."""

    # --- what a store does ------------------------------------------------------------------------

    def names(self) -> list[str]:
        """The datasets."""
        return list(self.store)

    def list(self) -> list[Entry]:
        """As Store.list."""
        self._publish()
        return self.store.list()

    def space(self) -> SpaceReport:
        """As Store.space."""
        self._publish()
        return self.store.space()

    def diff(self, old: str, new: str) -> Iterator[Change]:
        """As Store.diff."""
        self.settle({name for name in (old, new) if "@" not in name})
        self._publish()
        return self.store.diff(old, new)

    def scrub(self, progress: Progress) -> Report:
        """As Store.scrub."""
        self._publish()
        return self.store.scrub(progress)

    def check(self, progress: Progress) -> Report:
        """As Store.check; what uses the store waits meanwhile."""
        with self.exclusively():
            return self.store.check(progress)

    def create(self, name: str, kind: str, size: int | None, record_size: int | None) -> None:
        """As Store.create."""
        with self.exclusively():
            self.store.create(name, kind, size, record_size)

    def resize(self, name: str, size: int) -> None:
        """As Volume.resize."""
        self.check_unused(name)
        with self._changes() as tx:
            volume = tx[name]
            if not isinstance(volume, Volume):
                raise KindError(f"{name} is no volume (kind volume); see 'cowfs list'")
            volume.resize(size)

    def rename(self, old: str, new: str) -> None:
        """As Store.rename."""
        self.check_unused(old)
        with self.exclusively():
            self.store.rename(old, new)

    def snapshot(self, *names: str) -> None:
        """As Store.snapshot, with all that was written before."""
        self.settle({name.partition("@")[0] for name in names})
        with self.exclusively():
            self.store.snapshot(*names)

    def clone(self, snapshot: str, name: str) -> None:
        """As Store.clone."""
        with self.exclusively():
            self.store.clone(snapshot, name)

    def rollback(self, snapshot: str, keep: str | None) -> None:
        """As Store.rollback."""
        self.check_unused(snapshot.partition("@")[0])
        with self._changes() as tx:
            tx.rollback(snapshot, keep)
        self._reclaim()

    def destroy(self, *names: str, recursive: bool) -> None:
        """As Store.destroy."""
        for name in names:
            self.check_unused(name)
        with self._changes() as tx:
            for name in names:
                tx.destroy(name, recursive=recursive)
        self._reclaim()

    # --- inside -----------------------------------------------------------------------------------

    def _publish(self) -> None:
        """Have readers see all that was done."""
        with self.exclusively():
            pass

    @contextlib.contextmanager
    def _changes(self) -> Iterator[Transaction]:
        with self.exclusively(), self.store.transaction() as tx:
            yield tx

    def _reclaim(self) -> None:
        """Release what was destroyed, in steps: whoever uses the store gets a turn in between."""
        more = True
        while more:
            with self._changes() as tx:
                more = tx.reclaim()
