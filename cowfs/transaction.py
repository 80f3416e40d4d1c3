"""A transaction: any number of changes to datasets and snapshots that become real together.

It works on copies: of the catalog, and of each tree that it touches. What it does to space stays in
its ledger. So abandoning it means forgetting it, and committing it is `Engine.commit`.
"""

from __future__ import annotations

import time
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import limits
from ._ledger import Ledger
from ._tree import Tree
from .catalog import Catalog, Root, check_dataset_name, split_snapshot
from .codec import compress_lz4
from .errors import ClosedError, ExistsError, UsageError
from .reaper import Stack, release
from .session import FixedSession
from .space import DELETING, DESTROYING, NORMAL

if TYPE_CHECKING:
    from .engine import Engine


class Transaction:
    """Changes that commit as a whole at the end of the `with` block, or not at all.

    Made by `Store.transaction`. `tx[name]` is the dataset as this transaction sees it. An exception
    that leaves the block abandons the transaction and leaves no trace.
    """

    def __init__(self, store: Engine, durable: bool) -> None:
        self.store = store
        self.durable = durable
        self.io = store.io
        self.txid = store.begin(self)
        self.ledger = Ledger(
            self.txid, store.durable_txid, store.io.space.shared, store.io.block_size
        )
        self.ledger.dirty_limit = max(limits.MIN_CACHE // 2, store.cache_size // 2)
        self.ledger.spill = self._spill
        self.ledger.compress = compress_lz4 if self.io.encoder.kind else None
        self.ledger.keep_old = bool(store.readers())
        self.catalog = Catalog(store.catalog_tree.fork(self.ledger))
        self.large = False
        """Whether it wrote so much that its blocks are flushed before its commit record."""
        self.checkpoint = False
        """Whether to store the whole space map with it."""
        self._destroys = False
        self._open: dict[int, tuple[Root, Tree]] = {}
        self._objects: dict[str, Any] = {}
        self._ended = False

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
        found = self._objects.get(name)
        if found is None or self._ended:
            root, tree = self._open_root(name)
            session = FixedSession(name, self.io, tree, readonly=False)
            found = self._objects[name] = self.store.make_object(root, session)
        return found

    def tree(self, name: str) -> Tree:
        """The tree of a dataset, for the layers that work on it."""
        return self._open_root(name)[1]

    def create(self, name: str, kind: str = "kv", size: int | None = None) -> Any:
        """Make an empty dataset. `size` is the number of bytes of a volume."""
        self._check()
        if (kind == "volume") != (size is not None):
            raise UsageError("a volume needs a size, and only a volume has one")
        if size is not None and not (isinstance(size, int) and 0 < size <= limits.MAX_VALUE):
            raise UsageError(f"size {size!r}: a volume has 1 to {limits.MAX_VALUE} bytes")
        self.ledger.grows = True
        self.catalog.add_dataset(
            name,
            kind,
            created_ns=time.time_ns(),
            txid=self.txid,
            size=size or 0,
            record_size=limits.RECORD_SIZE,
        )
        return self[name]

    def resize(self, name: str, size: int) -> None:
        """Note the new size of a volume."""
        root, tree = self._open_root(name)
        root = replace(root, size=size)
        self._open[root.dataset] = (root, tree)
        self.catalog.put_dataset(root)

    def rename(self, old: str, new: str) -> None:
        """Rename a dataset (its snapshots go with it), or a snapshot within its dataset."""
        self._check()
        self.ledger.grows = True
        if "@" in old:
            dataset, snapshot = split_snapshot(old)
            new_dataset, new_snapshot = split_snapshot(new if "@" in new else f"{dataset}@{new}")
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

    def snapshot(self, *names: str) -> None:
        """Make snapshots `dataset@name`, all of this one moment."""
        self._check()
        if not names:
            raise UsageError("name at least one snapshot, as DATASET@NAME")
        parts = [split_snapshot(name) for name in names]
        for dataset, snapshot in parts:
            root = self.catalog.dataset(dataset)
            if any(s.name == snapshot for s in self.catalog.snapshots(root)):
                raise ExistsError(f"{dataset}@{snapshot}: this snapshot exists already")
        if len(set(parts)) != len(parts):
            raise UsageError("a snapshot is named twice")
        self.ledger.grows = True
        for dataset, snapshot in parts:
            root = self._stored_root(dataset)
            if root.ref is not None:
                self.ledger.share(int.from_bytes(root.ref[:8], "little"))
            self.catalog.add_snapshot(
                replace(root, name=snapshot, created_ns=time.time_ns(), txid=self.txid)
            )

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

    def rollback(self, snapshot: str, keep: str | None = None) -> None:
        """Make the dataset what it was at `snapshot`. Other snapshots stay, later ones too.

        With `keep`, the abandoned state stays as snapshot `dataset@keep`, so that the rollback can
        itself be undone.
        """
        self._check()
        dataset, name = split_snapshot(snapshot)
        target = self.catalog.snapshot(self.catalog.dataset(dataset), name)
        if keep is not None:
            self.snapshot(keep if "@" in keep else f"{dataset}@{keep}")
        head = self._stored_root(dataset)
        if target.ref is not None:
            self.ledger.share(int.from_bytes(target.ref[:8], "little"))
        if head.ref is not None:
            self.ledger.dropped.append(head.ref)
        self._destroys = True
        _, tree = self._open[head.dataset]
        head = replace(head, ref=target.ref, size=target.size)
        tree.reset(target.ref)
        self._open[head.dataset] = (head, tree)
        self.catalog.put_dataset(head)

    def destroy(self, name: str, *, recursive: bool = False) -> None:
        """Destroy a snapshot, or a dataset (with its snapshots, if `recursive`)."""
        self._check()
        if "@" in name:
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
            self._objects.pop(name, None)
            doomed.append(head)
        self._destroys = True
        self.ledger.dropped.extend(root.ref for root in doomed if root.ref is not None)

    # --- the end --------------------------------------------------------------------------------

    def commit(self) -> None:
        """Make everything real, durably unless asked otherwise. The transaction is over."""
        self._check()
        try:
            if self.io.space.refused and self.io.broken is None:
                raise ClosedError("this transaction ran out of space earlier; begin another")
            if self.io.broken is not None:
                raise ClosedError(
                    f"an earlier error broke this transaction ({self.io.broken}); begin another"
                )
            self._store_trees()
            self._release_dropped()
            self.store.commit(self)
        except BaseException:
            self.abort()
            raise
        self._finish()

    def abort(self) -> None:
        """Forget everything. The transaction is over."""
        if not self._ended:
            self.store.abandon(self)
            self._finish()

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

    def prepare_space(self) -> None:
        """Tell the allocator what this transaction is about, before it stores something: how far
        into the reserve it may go, and what it gives back."""
        space = self.io.space
        space.freeing = self.ledger.freed_blocks
        if self.ledger.grows:
            space.purpose = NORMAL
        else:
            space.purpose = DESTROYING if self._destroys else DELETING

    # --- inside ---------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._ended:
            raise ClosedError("this transaction has ended; begin another")

    def _finish(self) -> None:
        self._ended = True
        for _, tree in self._open.values():
            tree.close()
        self.catalog.tree.close()
        self.ledger.spill = None
        self._objects.clear()
        self.store.end(self)

    def _open_root(self, name: str) -> tuple[Root, Tree]:
        self._check()
        root = self.catalog.dataset(name)
        found = self._open.get(root.dataset)
        if found is None:
            found = (root, self.store.tree_of(root, name, self.ledger))
            self._open[root.dataset] = found
        return found

    def _stored_root(self, name: str) -> Root:
        """A head or snapshot, with everything that this transaction changed in it stored."""
        if "@" in name:
            return self.catalog.resolve(name)
        root, tree = self._open_root(name)
        self.prepare_space()
        ref = tree.flush(self.io.writer)
        if ref != root.ref:
            root = replace(root, ref=ref)
            self._open[root.dataset] = (root, tree)
            self.catalog.put_dataset(root)
        return root

    def _store_trees(self) -> None:
        for root, _ in list(self._open.values()):
            self._stored_root(root.name)

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
        self.prepare_space()
        for _, tree in self._open.values():
            tree.flush(self.io.writer)
        self.note_size()

    def note_size(self) -> None:
        """Past a few MiB, go over to flushing first, and use own blocks again at once."""
        if not self.large and self.io.writer.written > limits.ONE_FLUSH_LIMIT:
            self.large = self.ledger.reuse_own = True
            self.io.writer.proving, self.io.writer.runs = False, []
        if self.ledger.own_freed:
            freed, self.ledger.own_freed = self.ledger.own_freed, []
            for word in freed:
                self.io.space.give_back(word >> 16, word & 0xFFFF)

    def __repr__(self) -> str:
        state = "ended" if self._ended else "open"
        return f"<cowfs transaction {self.txid} ({state})>"
