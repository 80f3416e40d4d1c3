"""The commit protocol: how transactions reach the device, and when freed blocks may be used again.

A commit is one record at the end of the log. It says what the transaction did in one of two ways:

- as *operations* (puts and deletes), in the record and a few blocks behind it. The trees stay in
  memory. This is what a small commit is: one write, one flush.
- by its *trees*: everything that memory holds and the device does not is stored, these operations
  of before as well, and the record names the new root of the catalog and what became of space. So
  it goes with all that is no put or delete, and now and then, to bound memory and the log.

The steps of each stand in `Committer.commit_operations` and `Committer.commit_trees`. A commit is
visible once its record is written, and acknowledged after a flush (`durability.py`).
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from . import limits
from ._ledger import Ledger
from ._tree import Tree
from .blockio import BlockIO, Changes
from .codec import compress_lz4
from .durability import Checkpoint, Durability
from .errors import FailedError
from .format import (
    CHECKSUM_SIZE,
    FLAG_CHECKPOINT,
    FLAG_COPIES,
    FLAG_FLUSHED,
    FLAG_OPERATIONS,
    NO_REF,
    CommitRecord,
    Delta,
    Run,
    group_key,
    unpack_pointer,
)
from .ledger import freed_bytes, gather
from .log import Log
from .reaper import release
from .secondlog import SecondLog
from .space import pack_runs
from .values import write_value
from .version import Version, Versions

if TYPE_CHECKING:
    from .transaction import Transaction

_RECORD_REST = 1024
"""Bytes of a record's block that are left to other things than operations."""
_INLINE_DELTA = 2048
_OVERFLOW_EXTENT = 64 * limits.KIB
_OVERFLOW_EXTENTS = 32
"""As many as a record has room for, about. They are short where free space lies in pieces."""
_SEGMENT_BYTES = 16
"""Of a delta for each run that was placed, at most."""
_GROUP_COST = 4096
"""More than releasing the largest item of the space map takes (see `reaper.release`)."""
_MANY_COUNTS = 20_000
"""Changed counts beyond which a checkpoint is smaller than a delta."""


class Committer:
    """Takes transactions to the device, one after the other. Owns the log and the space tree."""

    def __init__(
        self,
        io: BlockIO,
        log: Log,
        versions: Versions,
        space_tree: Tree,
        dirty_limit: int,
        *,
        mending: bool,
    ) -> None:
        self.io = io
        self.log = log
        self.versions = versions
        self.space_tree = space_tree
        self.dirty_limit = dirty_limit
        """Bytes of dirty nodes beyond which they are stored."""
        self.durability = Durability(io.device, log, versions)
        self.mending = mending
        """Whether damaged copies are written anew: not where the image is open for reading."""
        self.unstored: Ledger | None = None
        """What the operations since trees were stored last do to counts and free space."""
        self._unstored_records = 0
        self._unstored_count = 0
        self._unstored_bytes = 0
        self._opening = int.from_bytes(os.urandom(2), "little")
        self._second = (
            SecondLog(io.device, io.space, log.next_copy)
            if log.superblock.metadata_copies == 2
            else None
        )
        io.writer.adopt(log.next_block)
        io.space.relieve = _reliever(weakref.ref(self))

    def begin(self) -> int:
        """Number of the transaction that begins. The caller sees to it that it is the only one."""
        self.durability.check_sound()
        self.io.changes = Changes()
        self.io.space.begin()
        self.release_freed()
        txid = self.log.txid + 1
        self.io.writer.begin(txid)
        self.io.building = txid
        return txid

    def new_ledger(self, txid: int) -> Ledger:
        """For what transaction `txid` does, on top of what was done and is not stored."""
        ledger = Ledger(
            txid, self.durability.txid, self.io.space.shared, self.io.block_size, self.unstored
        )
        ledger.compress = compress_lz4 if self.io.encoder.kind else None
        ledger.keep_old = self.versions.read
        return ledger

    def shared_counts(self) -> Mapping[int, int]:
        """Counts of two and more, as the newest version has them."""
        if self.unstored is None or not self.unstored.counts:
            return self.io.space.shared
        counts = {**self.io.space.shared, **self.unstored.counts}
        return {block: count for block, count in counts.items() if count > 1}

    def adopt(self, ledger: Ledger, packed: list[bytes]) -> None:
        """Continue after opening an image whose log holds operations, which were done again."""
        self.unstored = ledger
        self._unstored_records = len(packed)
        self._unstored_count = ledger.operations.count
        self._unstored_bytes = sum(map(len, packed))

    def commit(self, tx: Transaction) -> int:
        """Make a transaction the newest version; its number, or that of the version before, where
        there was nothing to commit. It is durable after `make_durable`."""
        if tx.changed:
            checkpoint = tx.checkpoint or self._wants_checkpoint()
            if not checkpoint and self._fits_operations(tx):
                self.commit_operations(tx)
            else:
                self.commit_trees(tx, checkpoint=checkpoint)
        return self.log.txid

    # --- as operations --------------------------------------------------------------------------

    def _fits_operations(self, tx: Transaction) -> bool:
        """Whether the log may take a transaction as operations."""
        operations = tx.ledger.operations
        return (
            operations.whole
            and not tx.ledger.dropped  # what goes as whole subtrees is to be given back soon
            and not tx.changed_otherwise
            and self._unstored_records < limits.UNSTORED_RECORDS
            and self._unstored_count + operations.count <= limits.UNSTORED_OPERATIONS
            and self._unstored_bytes + operations.size <= limits.UNSTORED_BYTES
            and operations.size <= _OVERFLOW_EXTENTS * self.io.record_size(total=1)
            and self.io.cache.dirty.bytes <= self.dirty_limit
            and self._can_be_stored()
        )

    def _can_be_stored(self) -> bool:
        """Whether there is room to store the trees later, as there must be once this is real."""
        space = self.io.space
        if not space.limit:
            return True
        blocks = 2 * (self.io.cache.dirty.bytes // min(self.io.block_size, 4096)) + 64
        return space.free - space.reserve > space.copies * blocks

    def commit_operations(self, tx: Transaction) -> None:
        """The small commit: the record, and what does not fit in it right behind."""
        tx.prepare_space()
        operations = tx.ledger.operations
        packed, overflow = bytes(operations.data[: operations.size]), []
        if len(packed) > self.io.block_size - _RECORD_REST:
            self.io.writer.enter_log()  # what overflows is of the log, as the record is
            packed, overflow = b"", self._write_overflow(packed, limits.RECORD_SIZE)
        record = self._record(tx, FLAG_OPERATIONS, packed, overflow)
        data = self._proven(record)
        heads = {**self.versions.newest.heads, **tx.changed_trees()}
        self._unstored_records += 1
        self._unstored_count += operations.count
        self._unstored_bytes += operations.size
        self._write(tx, record, data, heads, self.space_tree)

    # --- by its trees ---------------------------------------------------------------------------

    def commit_trees(self, tx: Transaction, *, checkpoint: bool) -> None:
        """The commit that stores everything."""
        ledger, writer, log, space = tx.ledger, self.io.writer, self.log, self.io.space
        tx.store_trees()
        if not (checkpoint or self.unstored or tx.catalog.tree.version or writer.written):
            return
        tx.prepare_space()
        catalog_ref = tx.catalog.tree.flush(writer) or NO_REF
        tx.note_size()

        # 1. Now and then the whole space map is stored, and the log starts anew.
        # Then it says nothing of what came before: a record has no room for a very long delta.
        checkpoint = (
            checkpoint
            or not writer.proves()
            or len(ledger.counts) > _MANY_COUNTS
            or len(freed_bytes(ledger)) + _SEGMENT_BYTES * len(writer.segments)
            > _OVERFLOW_EXTENTS * self.io.record_size(_OVERFLOW_EXTENT, total=1)
        )
        if checkpoint:
            self.complete_checkpoint()  # the one before, should it still be under way
            self.durability.check_sound()
        space_tree, space_ref = self.space_tree, NO_REF
        segments_before = freed_before = 0
        counts = ledger.counts
        try:
            if checkpoint:
                self.finish_run()
                ledger.reuse_own = False
                segments_before, freed = len(writer.segments), freed_bytes(ledger)
                freed_before, counts = len(freed), {}
                space_tree = self._store_space(ledger, [freed, pack_runs(log.blocks)])
                space_ref = space_tree.ref or NO_REF
            writer.close_segment()

            # 2. What this transaction does to space goes into its commit record.
            delta = Delta(
                writer.segments[segments_before:], freed_bytes(ledger, freed_before), counts
            ).pack()
            overflow: list[bytes] = []
            if len(delta) > _INLINE_DELTA:
                delta, overflow = b"", self._write_overflow(delta, _OVERFLOW_EXTENT)
            flags = FLAG_CHECKPOINT if checkpoint else 0
            record = self._record(tx, flags, delta, overflow, catalog_ref, space_ref)

            # 3. Blocks of a large transaction are flushed before the record that leads to them.
            data = self._proven(record)
            self._write(tx, record, data, {}, space_tree)
        except BaseException:
            if checkpoint:
                space.bitmap.mark_all()
            raise
        if tx.checkpoint:
            self.complete_checkpoint()

    def _store_space(self, ledger: Ledger, freed: list[bytes]) -> Tree:
        """Store the space map as it is without what this writes; the new space tree."""
        tree = self.space_tree.fork(ledger)
        freed = [*freed, bytes(ledger.own_freed)]
        changed = self.io.space.bitmap.clean()
        groups = self.io.space.checkpoint_groups(changed, freed, ledger.counts)
        beyond = -(-self.io.space.total // limits.GROUP_BLOCKS)
        for group, value in list(groups):
            write_value(self.io, tree, group_key(group), value)
        # Also if the image has grown again meanwhile: what is there now was stored before a shrink.
        tree.delete_range(group_key(beyond))
        # A group with many counts may have been a tree of records, where free space was in pieces.
        dropped, ledger.dropped = ledger.dropped, []
        for ref in dropped:
            if release(self.io, ledger, [(ref, 0)], _GROUP_COST) <= 0:
                raise AssertionError("an item of the space map that takes more than one step")
        tree.flush(self.io.writer)
        return tree.fork()

    # --- what both have -------------------------------------------------------------------------

    def _write_overflow(self, packed: bytes, size: int) -> list[bytes]:
        """Pointers to extents with what does not fit in a record's block."""
        pointers: list[bytes] = []
        at = 0
        while at < len(packed):
            # Each takes a run, perhaps the last of its length.
            step = self.io.record_size(size, total=1)
            pointers += self.io.write_extents([packed[at : at + step]])
            at += step
            if self._second is not None:
                pointer = unpack_pointer(pointers[-1])
                self._second.place(self.io.stored(pointer, "(log)"), pointer.block)
        return pointers

    def _record(
        self,
        tx: Transaction,
        flags: int,
        delta: bytes,
        overflow: list[bytes],
        catalog: bytes = NO_REF,
        space: bytes = NO_REF,
    ) -> CommitRecord:
        # Records lie close together: one that is damaged is told from one that was never written by
        # those behind it (log._check_end).
        self.io.writer.enter_log()
        next_block, copies = self.io.writer.reserve_record(), []
        if self._second is not None:
            next_copy = self._second.reserve_record(next_block)
            copies = [self._second.record, next_copy, *self._second.copies]
            flags |= FLAG_COPIES
        return CommitRecord(
            uuid=self.log.superblock.uuid,
            txid=tx.txid,
            previous=self.log.checksum,
            next_block=next_block,
            total_blocks=self.io.space.total,
            durable_txid=self.durability.txid,
            flags=flags,
            catalog=catalog,
            space=space,
            overflow=overflow,
            delta=delta,
            copies=copies,
            opening=self._opening,
        )

    def _proven(self, record: CommitRecord) -> bytes:
        """The record as it is written: it lists what was written with it, with checksums, or all of
        that is flushed before."""
        writer = self.io.writer
        writer.seal()
        if writer.proves():
            record.runs = [Run._make(run) for run in writer.runs]
            if self._second is not None:
                record.runs += self._second.runs()
            data = record.pack(self.io.block_size)
            if data is not None:
                writer.drain_apart()
                return data
        writer.drain()
        if self._second is not None:
            self._second.drain()
        self.durability.flush("nothing of this transaction was kept")
        record.runs, record.durable_txid = [], self.log.txid
        record.flags |= FLAG_FLUSHED
        data = record.pack(self.io.block_size)
        if data is None:
            raise AssertionError("a commit record that does not fit its block")
        return data

    def _write(
        self,
        tx: Transaction,
        record: CommitRecord,
        data: bytes,
        heads: Mapping[int, Tree],
        space_tree: Tree,
    ) -> None:
        """Write the record, which makes it real, and make it visible. Should anything go wrong from
        here on, nobody can tell what reached the device, and the store takes no more writes until
        it is opened anew."""
        block = self.io.writer.record_block
        self.durability.check_sound()
        try:
            tx.committed = tx.txid
            if self._second is not None:
                self._second.write_record(data)
            self.io.writer.write_record(data)
            self._publish(tx, record, heads, space_tree, data[-CHECKSUM_SIZE:])
            if record.flags & FLAG_CHECKPOINT:
                self._begin_checkpoint(record, block, data)
            self.log.note_record(block, record, data)
        except OSError as error:
            self.durability.failure = error
            raise FailedError(
                f"{self.io.device.name}: writing the commit failed ({error}); whether it was kept "
                "shows when the store is opened again, and it takes no more writes before: open "
                "it anew"
            ) from error
        except BaseException as error:
            self.durability.failure = error
            raise

    def _publish(
        self,
        tx: Transaction,
        record: CommitRecord,
        heads: Mapping[int, Tree],
        space_tree: Tree,
        digest: bytes,
    ) -> None:
        """Make a commit the newest version. What it freed waits until nobody needs it."""
        ledger, log, space, versions = tx.ledger, self.log, self.io.space, self.versions
        with versions.lock:
            if not record.flags & FLAG_OPERATIONS:
                space.map.apply_counts(ledger.counts)
                newest = min(versions.newest_read_txid(), ledger.durable)
                space.defer(
                    tx.txid,
                    unseen=ledger.freed_between(newest, ledger.durable) + ledger.own_freed,
                    seen=ledger.freed_between(0, newest),
                    young=ledger.freed_between(ledger.durable, tx.txid),
                )
                self.unstored = None
                self._unstored_records = self._unstored_count = self._unstored_bytes = 0
                catalog, roots = tx.catalog.tree.fork(), {}
            else:
                catalog, roots = versions.newest.catalog, versions.newest.roots
                if self.unstored is None:
                    self.unstored = ledger
                else:
                    gather(self.unstored, ledger)
            self.space_tree = space_tree
            log.txid = tx.txid
            log.checksum = digest
            log.next_block, log.next_copy = record.next_block, record.next_copy
            self.io.building = 0
            versions.newest = Version(tx.txid, catalog, heads, record.durable_txid, roots)

    def finish_run(self) -> None:
        """Give back what is left of the runs in which blocks are placed."""
        self.io.writer.finish_run()
        if self._second is not None:
            self._second.finish_run()

    def abandon(self) -> None:
        """Give back what the transaction in progress has placed."""
        if self._second is not None:
            self._second.abandon()
        self.io.writer.abandon()

    def unplaced(self) -> Iterator[tuple[int, int]]:
        """(block, blocks) of what is left of the runs in which blocks are placed."""
        yield from self.io.writer.unplaced
        if self._second is not None:
            yield from self._second.unplaced()

    def _log_crowds(self) -> bool:
        """Whether the log takes too much of an image of limited size."""
        return 0 < self.io.space.reserve < 8 * self.log.length_bytes // self.io.block_size

    def _wants_checkpoint(self) -> bool:
        """Whether the log should start anew now. While the checkpoint before is under way it waits,
        up to a point: a writer need not wait for flushes that nobody asked for."""
        if self.log.txid == 0 or self._log_crowds():
            return True
        return self.log.due and (self.log.overdue or self.durability.prepare_checkpoint())

    def _begin_checkpoint(self, record: CommitRecord, block: int, data: bytes) -> None:
        """The log starts anew with a record that was just written to `block`, as `data`."""
        space = self.io.space
        superblock = replace(
            self.log.superblock,
            txid=record.txid,
            sequence=self.log.superblock.sequence + 1,
            durable_txid=record.txid,
            record_block=block,
            total_blocks=space.total,
            record_previous=record.previous,
        )
        older_log = [*self.log.blocks, *space.log_ends]
        self.durability.checkpoint = Checkpoint(superblock, data, older_log)
        space.log_ends = []
        self.log.restart()

    def complete_checkpoint(self) -> None:
        """Have openers begin at the newest checkpoint, and give back what only waited for that. To
        be called by who has the right to write."""
        self.durability.finish_checkpoint()
        self.release_freed()

    # --- blocks that were freed -----------------------------------------------------------------

    def release_freed(self) -> None:
        """Let go of what nobody can need any more: no reader, and no opening after a crash."""
        durability = self.durability
        checkpoint = durability.checkpoint
        if checkpoint is not None and checkpoint.durable:
            self.io.space.retire(checkpoint.superblock.txid, checkpoint.older_log)
            durability.checkpoint = None
        # Who reads from here on opens the newest version, and sees nothing that is released below.
        oldest = self.versions.oldest_txid()
        if self.mending and durability.failure is None and self.io.damaged:
            with durability.flushing:  # superblocks come with a copy of the record they lead to
                self.io.mend()
        self.io.space.release(durability.txid, self.log.proven_txid, oldest)

    def flush_mended(self) -> None:
        """Make durable what was written anew."""
        self.durability.flush("what was mended may still be damaged")

    def relieve(self) -> None:
        """Let go at once of what only waits to be durable, or until something durable says that it
        is. For a transaction that finds no space otherwise."""
        self.durability.make_durable(self.log.txid)
        self.complete_checkpoint()
        if self.io.space.young and self.log.proven_txid < self.log.txid:
            self.durability.declare_durable()
            self.release_freed()


def _reliever(committer: weakref.ref[Committer]) -> Callable[[], None]:
    """`relieve`, for the space layer, which must not keep the one above it alive."""

    def relieve() -> None:
        found = committer()
        if found is not None:
            found.relieve()

    return relieve
