"""A transaction: any number of changes to datasets and snapshots that become real together.

It works on copies: of the catalog, and of each tree that it touches. What it does to space stays in
its ledger. So abandoning it means forgetting it, and committing it is `Committer.commit`.
"""

from __future__ import annotations

import functools
import time
import weakref
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from . import limits
from ._tree import Tree
from .catalog import (
    Catalog,
    Root,
    check_dataset_name,
    check_record_size,
    check_volume_size,
    is_snapshot_name,
    split_snapshot,
)
from .errors import ClosedError, ExistsError, KindError, NotFoundError, UsageError
from .ledger import settle
from .reaper import Stack, release
from .session import FixedSession
from .space import DELETING, DESTROYING, NORMAL, REPLACING, packed_runs

if TYPE_CHECKING:
    from .engine import Engine


_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_REFUSALS = (UsageError, ExistsError, NotFoundError, KindError, ClosedError)
"""Errors that come before anything is changed; a tree that was stored meanwhile is whole."""


def _as_a_whole(
    change: Callable[Concatenate[Transaction, _Arguments], _Result],
) -> Callable[Concatenate[Transaction, _Arguments], _Result]:
    """A method that makes one change: an error in its middle breaks the transaction."""

    @functools.wraps(change)
    def method(
        self: Transaction, /, *arguments: _Arguments.args, **named: _Arguments.kwargs
    ) -> _Result:
        try:
            return change(self, *arguments, **named)
        except _REFUSALS:
            raise
        except BaseException as error:
            self.io.changes.error = error
            raise

    return method


class Transaction:
    """Changes that commit as a whole at the end of the `with` block, or not at all.

    Made by `Store.transaction`. `tx[name]` is the dataset as this transaction sees it. An exception
    that leaves the block abandons the transaction and leaves no trace.
    """

    turn: Generator[None, None, None] | None = None
    """The right to write, from `Engine.begin` to `Engine.end`."""
    committed: int | None = None
    """Number of the version that it became, or of the one before, where it changed nothing. None as
    long as nothing of its record can be on the device."""
    _ended = True

    def __init__(self, store: Engine, durable: bool) -> None:
        self._open: dict[int, tuple[Root, Tree]] = {}
        self._objects: dict[str, Any] = {}
        self.store = store
        self.durable = durable
        self.io = store.io
        self.txid = store.begin(self)
        self._ended = False
        committer = store.committer
        self.ledger = committer.new_ledger(self.txid)
        self.ledger.dirty_limit = committer.dirty_limit
        self.ledger.spill = _spiller(weakref.ref(self))
        self._base = store.versions.newest
        self.catalog = Catalog(self._base.catalog.fork(self.ledger))
        self.checkpoint = False
        """Whether to store the whole space map with it."""
        self._destroys = False
        self._destroyed: set[int] = set()

    def __enter__(self) -> Transaction:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._ended:
            return
        if kind is None:
            self.commit()
        else:
            self.abort()

    # --- datasets -------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Any:
        """The dataset as this transaction sees and changes it. Raises NotFoundError."""
        found = self._objects.get(name) if isinstance(name, str) else None
        if found is None or self._ended:
            root, tree = self._open_root(name)
            session = FixedSession(name, self.io, tree, readonly=False)
            found = self._objects[name] = self.store.make_object(root, session)
        return found

    def tree(self, name: str) -> Tree:
        """The tree of a dataset, for the layers that work on it."""
        return self._open_root(name)[1]

    @_as_a_whole
    def create(
        self,
        name: str,
        kind: str = "kv",
        size: int | None = None,
        record_size: int | None = None,
    ) -> Any:
        """Make an empty dataset. A volume has a `size` and a `record_size`, both in bytes."""
        self._check()
        if (kind == "volume") != (size is not None):
            raise UsageError("a volume needs a size, and only a volume has one")
        if kind != "volume" and record_size is not None:
            raise UsageError("only a volume has a record size")
        if size is None:
            record_size = limits.RECORD_SIZE
        else:
            check_volume_size(size)
            record_size = check_record_size(record_size, self.io.block_size)
        self.ledger.grows = True
        self.catalog.add_dataset(
            name,
            kind,
            created_ns=time.time_ns(),
            txid=self.txid,
            size=size or 0,
            record_size=record_size,
        )
        return self[name]

    @_as_a_whole
    def note_volume_size(self, name: str, size: int) -> None:
        """Note the new size of a volume in the catalog, for `Volume.resize`, which cuts off what
        lies beyond: alone this would leave a volume that cannot be read."""
        root, tree = self._open_root(name)
        root = replace(root, size=size)
        tree.volume_size = size
        self._open[root.dataset] = (root, tree)
        self.catalog.put_dataset(root)

    @_as_a_whole
    def rename(self, old: str, new: str) -> None:
        """Rename a dataset (its snapshots go with it), or a snapshot within its dataset."""
        self._check()
        self.ledger.grows = True
        if is_snapshot_name(old):
            dataset, snapshot = split_snapshot(old)
            new_dataset, new_snapshot = split_snapshot(
                new if is_snapshot_name(new) else f"{dataset}@{new}"
            )
            if new_dataset != dataset:
                raise UsageError(f"{old} cannot move to another dataset; clone it instead")
            found = self.catalog.snapshot(self.catalog.dataset(dataset), snapshot)
            self.catalog.rename_snapshot(found, new_snapshot)
            return
        root, tree = self._open_root(old)
        check_dataset_name(new)
        self._open[root.dataset] = (self.catalog.rename_dataset(root, new), tree)
        tree.label = new
        self._objects.pop(old, None)

    @_as_a_whole
    def snapshot(self, *names: str) -> None:
        """Make snapshots `dataset@name`, all of this one moment."""
        self._check()
        if not names:
            raise UsageError("name at least one snapshot, as DATASET@NAME")
        parts = [split_snapshot(name) for name in names]
        for dataset, snapshot in parts:
            root = self.catalog.dataset(dataset)
            if self.catalog.has_snapshot(root, snapshot):
                raise ExistsError(f"{dataset}@{snapshot}: this snapshot exists already")
        twice = [name for name, times in Counter(names).items() if times > 1]
        if twice:
            raise UsageError(f"{twice[0]}: this snapshot is named twice")
        self.ledger.grows = True
        for dataset, snapshot in parts:
            root = self._stored_root(dataset)
            if root.ref is not None:
                self.ledger.share(int.from_bytes(root.ref[:8], "little"))
            self.catalog.add_snapshot(
                replace(root, name=snapshot, created_ns=time.time_ns(), txid=self.txid)
            )

    @_as_a_whole
    def clone(self, snapshot: str, name: str) -> Any:
        """A new dataset that starts as `snapshot` (or as a dataset is now), tied to nothing."""
        self._check()
        source = self._stored_root(snapshot)
        self.catalog.add_dataset(
            name,
            source.kind,
            created_ns=time.time_ns(),
            txid=self.txid,
            size=source.size,
            record_size=source.record_size,
            ref=source.ref,
        )
        self.ledger.grows = True
        if source.ref is not None:
            self.ledger.share(int.from_bytes(source.ref[:8], "little"))
        return self[name]

    @_as_a_whole
    def rollback(self, snapshot: str, keep: str | None = None) -> None:
        """Make the dataset what it was at `snapshot`. Other snapshots stay, later ones too.

        With `keep`, the abandoned state stays as snapshot `dataset@keep`, so that the rollback can
        itself be undone.
        """
        self._check()
        dataset, name = split_snapshot(snapshot)
        target = self.catalog.snapshot(self.catalog.dataset(dataset), name)
        if keep is not None:
            self.snapshot(keep if is_snapshot_name(keep) else f"{dataset}@{keep}")
        head = self._stored_root(dataset)
        if target.ref is not None:
            self.ledger.share(int.from_bytes(target.ref[:8], "little"))
        if head.ref is not None:
            self.ledger.dropped.append(head.ref)
        self._destroys = True
        _, tree = self._open[head.dataset]
        head = replace(head, ref=target.ref, size=target.size)
        tree.reset(target.ref)
        tree.volume_size = target.size
        self._open[head.dataset] = (head, tree)
        self.catalog.put_dataset(head)

    @_as_a_whole
    def destroy(self, name: str, *, recursive: bool = False) -> None:
        """Destroy a snapshot, or a dataset (with its snapshots, if `recursive`)."""
        self._check()
        if is_snapshot_name(name):
            root = self.catalog.resolve(name)
            self.catalog.remove_snapshot(root)
            doomed = [root]
        else:
            head = self.catalog.dataset(name)
            doomed = self.catalog.snapshots(head)
            if doomed and not recursive:
                raise UsageError(
                    f"dataset {name!r} has {len(doomed)} snapshots (the newest is "
                    f"{name}@{doomed[-1].name}); destroy them first, or all of it recursively"
                )
            head = self._stored_root(name)
            for snapshot in doomed:
                self.catalog.remove_snapshot(snapshot)
            self.catalog.remove_dataset(head)
            self._open.pop(head.dataset)[1].close()
            self._destroyed.add(head.dataset)
            self._objects.pop(name, None)
            doomed.append(head)
        self._destroys = True
        self.ledger.dropped.extend(root.ref for root in doomed if root.ref is not None)

    # --- the end --------------------------------------------------------------------------------

    def commit(self) -> None:
        """Make everything real, durably unless asked otherwise. The transaction is over."""
        self._check()
        try:
            if self.io.space.refused and self.io.changes.error is None:
                raise ClosedError("this transaction ran out of space earlier; begin another")
            if self.broken:
                raise ClosedError(
                    f"an earlier error broke this transaction ({self.broken}); begin another"
                )
            self.committed = self.store.committer.commit(self)
        except BaseException:
            self.abort()
            raise
        self._finish()
        if self.durable:
            self.store.durability.make_durable(self.committed)

    def abort(self) -> None:
        """Forget everything. The transaction is over."""
        if not self._ended:
            try:
                self.store.abandon(self)
            except BaseException:
                self.store.abandon(self)  # an interrupt; doing it twice does no harm
                raise
            finally:
                self._finish()

    __del__ = abort
    """An interrupt can come between its beginning and the `with` block, or while it is given up."""

    @_as_a_whole
    def reclaim(self, budget: int | None = None) -> bool:
        """Go on destroying what earlier transactions left; True while something remains."""
        self._destroys = True
        budget = limits.REAP_BLOCKS if budget is None else budget
        for number, stack in list(self.catalog.drops()):
            budget = release(self.io, self.ledger, stack, budget)
            self.catalog.put_drop(number, stack)
            if budget <= 0:
                break
        return any(True for _ in self.catalog.drops())

    @property
    def broken(self) -> str:
        """Why it cannot commit: what ended a change in its middle; empty where nothing did."""
        changes = self.io.changes
        if changes.error is not None:
            return str(changes.error) or type(changes.error).__name__
        unfinished = changes.unfinished or self.ledger.unfinished
        return "it ended a change in its middle" if unfinished else ""

    @property
    def changed_otherwise(self) -> bool:
        """Whether it did, or is to do, anything that is no operation on a tree."""
        return bool(self.checkpoint or self.catalog.tree.version or self.io.writer.written)

    @property
    def changed(self) -> bool:
        """Whether there is anything to commit."""
        operations = self.ledger.operations
        return bool(operations.count or not operations.whole or self.changed_otherwise)

    def changed_trees(self) -> dict[int, Tree]:
        """What its operations made of the trees that it opened, by their datasets' ids."""
        return {dataset: tree.fork() for dataset, (_, tree) in self._open.items() if tree.version}

    def store_trees(self) -> None:
        """Store all that memory holds and the device does not, and what became of space."""
        settle(self.ledger)
        self._open_heads()
        if self.io.cache.dirty.bytes > limits.LOG_SHARE:
            self.io.writer.leave_log()
        for root, _ in list(self._open.values()):
            self._stored_root(root.name)
        self._release_dropped()

    def prepare_space(self) -> None:
        """Tell the allocator what this transaction is about, before it stores something: how far
        into the reserve it may go, and what it gives back."""
        space = self.io.space
        space.freeing = self.ledger.freed_blocks
        if self.ledger.grows:
            space.purpose = NORMAL
        elif self._destroys:
            space.purpose = DESTROYING
        else:
            removes = self.ledger.removed and self.ledger.removed >= self.ledger.replaced
            space.purpose = DELETING if removes else REPLACING

    # --- inside ---------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._ended:
            raise ClosedError("this transaction has ended; begin another")

    def _finish(self) -> None:
        for _, tree in self._open.values():
            tree.close()
        self._objects.clear()
        self.store.end(self)
        self._ended = True

    def _open_root(self, name: str) -> tuple[Root, Tree]:
        self._check()
        unchanged = not self.catalog.tree.version
        root = self._base.dataset(name) if unchanged else self.catalog.dataset(name)
        found = self._open.get(root.dataset)
        if found is None:
            head = self._base.heads.get(root.dataset)
            if head is not None:
                tree = head.fork(self.ledger, name)
            else:
                tree = self.store.tree_of(root, name, self.ledger)
            tree.volume_size = root.size
            found = self._open[root.dataset] = (root, tree)
        return found

    def _open_heads(self) -> None:
        """Open every tree that transactions before this one left in memory."""
        for dataset in self._base.heads:
            if dataset not in self._open and dataset not in self._destroyed:
                self._open_root(self.catalog.by_id(dataset).name)

    def _stored_root(self, name: str) -> Root:
        """A head or snapshot, with everything that this transaction changed in it stored."""
        if is_snapshot_name(name):
            return self.catalog.resolve(name)
        root, tree = self._open_root(name)
        self.prepare_space()
        ref = tree.flush(self.io.writer)
        if ref != root.ref:
            root = replace(root, ref=ref)
            self._open[root.dataset] = (root, tree)
            self.catalog.put_dataset(root)
        return root

    def _release_dropped(self) -> None:
        """Release the subtrees that were let go of: small ones now, the rest in later steps."""
        budget = limits.REAP_BLOCKS
        dropped, self.ledger.dropped = self.ledger.dropped, []
        for ref in dropped:
            stack: Stack = [(ref, 0)]
            budget = release(self.io, self.ledger, stack, budget)
            if stack:
                self.catalog.add_drop(stack)

    def _spill(self) -> None:
        """Store what is dirty now, to keep memory bounded. Called by a tree that is written to."""
        self.ledger.operations.give_up()
        with self.io.as_a_whole():
            self.prepare_space()
            self._open_heads()
            self.io.writer.leave_log()
            for _, tree in self._open.values():
                tree.flush(self.io.writer)
            self.note_size()
        # What views hold of versions that were never stored stays; it must not make each put spill.
        limit = self.store.committer.dirty_limit
        self.ledger.dirty_limit = max(limit, self.io.cache.dirty.bytes + limit // 2)

    def note_size(self) -> None:
        """Past a few MiB, go over to flushing first, and use own blocks again at once."""
        if not self.io.writer.proves():
            self.ledger.reuse_own = True
        if self.ledger.own_freed:
            freed, self.ledger.own_freed = bytes(self.ledger.own_freed), bytearray()
            for run in packed_runs(freed):
                self.io.space.give_back(*run)

    def __repr__(self) -> str:
        state = "ended" if self._ended else "open"
        return f"<cowfs transaction {self.txid} ({state})>"


def _spiller(tx: weakref.ref[Transaction]) -> Callable[[], None]:
    """`_spill`, for a ledger, which must not keep its transaction alive."""

    def spill() -> None:
        found = tx()
        if found is not None:
            found._spill()

    return spill
