"""The store as its users see it, and `open`: datasets by name over the engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from . import limits
from .catalog import Root
from .check import check, scrub
from .device import Device, FileDevice, check_image_path
from .diff import diff
from .engine import Engine
from .errors import UsageError
from .fs import FS
from .kv import KV
from .parameters import Parameters
from .report import Change, Entry, Report, SpaceReport
from .session import LiveSession, Session
from .usage import entries, space_report
from .volume import Volume

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""


class Store(Engine):
    """One image. `cowfs.open` gives it; `close` it, or use it in a `with` statement.

    Each method that changes something is one durable transaction; `transaction()` makes several
    changes real together.
    """

    def make_object(self, root: Root, session: Session) -> Any:
        """The KV, FS or Volume for a session."""
        if root.kind == "kv":
            return KV(session)
        if root.kind == "fs":
            return FS(session, created_ns=root.created_ns)
        return Volume(session, lambda size: self.change_size(session.name, size), root.record_size)

    # --- datasets -------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Any:
        """A dataset, live: reads see the newest version, each write is a durable transaction."""
        with self.pinned("lookup") as catalog:
            root = catalog.dataset(name)
        return self.make_object(root, LiveSession(name, self))

    def __contains__(self, name: object) -> bool:
        with self.pinned("lookup") as catalog:
            return isinstance(name, str) and catalog.find(name) is not None

    def __iter__(self) -> Iterator[str]:
        with self.pinned("lookup") as catalog:
            return iter(list(catalog.names()))

    def at(self, name: str) -> Any:
        """A read-only view of a snapshot, or of a dataset as it is now. Raises NotFoundError.

        It does not change while writers go on. Close it: it keeps its version's blocks in place.
        """
        return self.make_object(*self.view_root(name))

    def create(
        self,
        name: str,
        kind: str = "kv",
        size: int | None = None,
        record_size: int | None = None,
    ) -> Any:
        """Make an empty dataset and return it, live. A volume has a `size`, and a `record_size`
        (4 KiB to 1 MiB, a power of two): what a small write rewrites. Both are in bytes."""
        with self.transaction() as tx:
            tx.create(name, kind, size, record_size)
        return self[name]

    def rename(self, old: str, new: str) -> None:
        """Rename a dataset (its snapshots go with it) or a snapshot."""
        with self.transaction() as tx:
            tx.rename(old, new)

    def destroy(self, *names: str, recursive: bool = False) -> None:
        """Destroy snapshots, or datasets (with their snapshots, if `recursive`), all or none.

        The names are gone at once; what they held is then released in steps, each its own commit. A
        crash in between loses nothing: `reclaim` goes on where it stopped.
        """
        with self.transaction() as tx:
            for name in names:
                tx.destroy(name, recursive=recursive)
        self.reclaim()

    # --- snapshots ------------------------------------------------------------------------------

    def snapshot(self, *names: str) -> None:
        """Make snapshots `dataset@name`, all of one moment."""
        with self.transaction() as tx:
            tx.snapshot(*names)

    def clone(self, snapshot: str, name: str) -> Any:
        """A new dataset that starts as the snapshot, tied to nothing; returned live."""
        with self.transaction() as tx:
            tx.clone(snapshot, name)
        return self[name]

    def rollback(self, snapshot: str, keep: str | None = None) -> None:
        """Make the dataset what it was at `snapshot`; later snapshots stay.

        With `keep`, the abandoned state stays as snapshot `dataset@keep`.
        """
        with self.transaction() as tx:
            tx.rollback(snapshot, keep)
        self.reclaim()

    def diff(self, old: str, new: str) -> Iterator[Change]:
        """What differs between two versions (snapshots, or datasets as they are) of one kind."""
        return diff(self, old, new)

    # --- what there is --------------------------------------------------------------------------

    def list(self) -> list[Entry]:
        """Every dataset, each followed by its snapshots from the oldest on."""
        return entries(self)

    def space(self) -> SpaceReport:
        """Where the image's space is, by reason."""
        return space_report(self)

    def check(self, progress: Progress | None = None) -> Report:
        """Verify every structure, count and checksum. Writers wait meanwhile."""
        return check(self, progress)

    def scrub(self, progress: Progress | None = None) -> Report:
        """Verify every checksum of what can be reached, and repair what has a second copy, if the
        store is open for writing. Writers go on."""
        return scrub(self, progress)


def open(
    path: str | os.PathLike[str],
    flag: str = "r",
    *,
    cache: int = limits.DEFAULT_CACHE,
    size: int | None = None,
    block_size: int = limits.DEFAULT_BLOCK_SIZE,
    node_size: int = limits.DEFAULT_NODE_SIZE,
    compression: str = "lz4",
    label: str = "",
    metadata_copies: int = 1,
    punch: bool = True,
) -> Store:
    """Open an image. `flag` is as in the standard library's dbm.

    "r": for reading (any number of processes), "w": for writing (one process, alone), "c": for
    writing, made if it is not there or empty, "n": always a new, empty image.

    `cache` is the budget in bytes for clean nodes and data in memory. `size` (bytes; None: grows as
    needed), `block_size`, `node_size`, `compression` ("lz4" or "none"), `label` and
    `metadata_copies` (2 keeps a second copy of each node, from which it is repaired) describe a new
    image. `punch` gives long free runs back to the host file system.

    Raises NotFoundError, FormatError (no image, or one of a newer version), BusyError (naming the
    process that holds the image), CorruptionError, UsageError.
    """
    if flag not in ("r", "w", "c", "n"):
        raise UsageError(f"flag {flag!r}: allowed are 'r', 'w', 'c' and 'n'")
    if not isinstance(cache, int) or cache < limits.MIN_CACHE:
        raise UsageError(f"cache {cache!r}: at least {limits.MIN_CACHE} bytes")
    parameters = Parameters(size, block_size, node_size, compression, label, metadata_copies)
    parameters.check()
    name = check_image_path(os.fspath(path))
    device = FileDevice(name, writable=flag != "r", create=flag in "cn")
    try:
        if flag == "n" or (flag == "c" and device.size() == 0):
            return Store.make(device, parameters, cache_size=cache, punch=punch)
        return Store.load(device, readonly=flag == "r", cache_size=cache, punch=punch)
    except BaseException:
        device.close()
        raise


def open_device(
    device: Device,
    *,
    parameters: Parameters | None = None,
    readonly: bool = False,
    cache: int = limits.DEFAULT_CACHE,
) -> Store:
    """Open the store on any device; with `parameters`, make a new one there."""
    if parameters is not None:
        return Store.make(device, parameters, cache_size=cache)
    return Store.load(device, readonly=readonly, cache_size=cache)
