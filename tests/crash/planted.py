"""Bugs that are switched on one at a time, to see that the crash fuzzer finds each: the checker is
checked. Each is a function that plants its bug for the time of a test; its docstring says what is
wrong then. Nothing of this is in the engine itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import cowfs
from cowfs import catalog, commit, durability, engine, limits, log, recovery, transaction
from cowfs._ledger import Ledger
from cowfs.blockio import BlockIO
from cowfs.commit import Committer
from cowfs.device import Device
from cowfs.durability import Checkpoint, Durability
from cowfs.format import RECORD_MAGIC, CommitRecord, Delta, Pointer, Superblock
from cowfs.secondlog import SecondLog
from cowfs.space import Space
from crashfuzzer.device import RecordingDevice
from crashfuzzer.threads import in_thread

Plant = Callable[[pytest.MonkeyPatch], None]
BUGS: list[Plant] = []
CONDITIONS: dict[Plant, dict[str, Any]] = {}
"""What of a `World` is not drawn, for bugs that few worlds can show."""
SEEDS = (3, 2, 1, 11, *(seed for seed in range(20) if seed not in (1, 2, 3, 11)))
"""Workloads within which each must be found; those come first that find the most, soonest."""


def bug(plant: Plant) -> Plant:
    """Put a bug on the list."""
    BUGS.append(plant)
    return plant


class Meddler:
    """A device that passes everything on, but for what a bug leaves out."""

    def __init__(
        self,
        device: Device,
        *,
        flushes: bool = True,
        writes: Callable[[int], bool] = lambda offset: True,
        resizes: bool = True,
    ) -> None:
        self._device = device
        self._flushes = flushes
        self._writes = writes
        self._resizes = resizes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def flush(self) -> None:
        if self._flushes:
            self._device.flush()

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        if self._writes(offset):
            self._device.write(offset, data)

    def resize(self, size: int) -> None:
        if self._resizes:
            self._device.resize(size)


def during(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, meddle: Callable[[Device], Meddler]
) -> None:
    """While a method runs that makes something durable, it has another device."""
    original = getattr(owner, name)

    def method(self: Durability, *args: Any, **kwargs: Any) -> Any:
        device = self.device
        self.device = meddle(device)
        try:
            return original(self, *args, **kwargs)
        finally:
            self.device = device

    monkeypatch.setattr(owner, name, method)


def at_settling(
    monkeypatch: pytest.MonkeyPatch, meddle: Callable[[Device, log.Log], Meddler]
) -> None:
    """While the log is settled at an opening, the device is another."""

    def settle(device: Device, found: log.Log, *args: Any) -> None:
        log.settle(meddle(device, found), found, *args)

    monkeypatch.setattr(engine, "settle", settle)


def released_early(monkeypatch: pytest.MonkeyPatch, condition: str) -> None:
    """One of the conditions for using blocks again is taken as met: see `Space.release`."""
    release = Space.release

    def hasty(self: Space, durable: int, proven: int, oldest: int) -> None:
        conditions = {"durable": durable, "proven": proven, "oldest": oldest}
        release(self, **conditions | {condition: 1 << 60})

    monkeypatch.setattr(Space, "release", hasty)


# --- flushes ------------------------------------------------------------------------------------


@bug
def a_commit_is_acknowledged_before_its_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """The flush behind the commit record is missing."""
    during(monkeypatch, Durability, "make_durable", lambda device: Meddler(device, flushes=False))


@bug
def a_large_transaction_is_not_flushed_before_its_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its record says that its blocks need no proof, and they may be missing."""
    proven = Committer._proven

    def unflushed(self: Committer, record: CommitRecord) -> bytes:
        device = self.durability.device
        self.durability.device = self.io.device = Meddler(device, flushes=False)
        try:
            return proven(self, record)
        finally:
            self.durability.device = self.io.device = device

    monkeypatch.setattr(Committer, "_proven", unflushed)


@bug
def the_superblock_is_not_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old log is used again while the superblock on the device still leads through it."""
    original = Durability._write_superblock

    def write_superblock(self: Durability, checkpoint: Checkpoint) -> None:
        original(self, checkpoint)
        self._lead_to(checkpoint)

    monkeypatch.setattr(Durability, "_write_superblock", write_superblock)


@bug
def opening_does_not_flush_what_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the host's cache held was shown to a user, and is lost at the next power cut."""
    at_settling(monkeypatch, lambda device, found: Meddler(device, flushes=False))


@bug
def a_thread_flushes_more_than_it_began_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """What others commit while it flushes counts as durable, too."""
    original = Durability.make_durable

    def make_durable(self: Durability, txid: int) -> None:
        original(self, txid)
        if in_thread():
            self.txid = self.versions.newest.txid

    monkeypatch.setattr(Durability, "make_durable", make_durable)


@bug
def a_thread_writes_the_superblock_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """It leads to a checkpoint whose record nobody has flushed yet."""
    original = Durability._complete

    def complete(self: Durability, checkpoint: Checkpoint) -> None:
        if in_thread():
            self._write_superblock(checkpoint)
        original(self, checkpoint)

    monkeypatch.setattr(Durability, "_complete", complete)


# --- the log ------------------------------------------------------------------------------------


@bug
def the_superblock_is_written_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """It leads to a checkpoint that has not been written yet."""
    original = Committer._proven

    def proven(self: Committer, record: CommitRecord) -> bytes:
        log.write_superblock(
            self.io.device,
            replace(
                self.log.superblock,
                txid=self.log.txid + 1,
                sequence=self.log.superblock.sequence + 1,
                durable_txid=self.log.txid,
                record_block=self.io.writer.record_block,
                total_blocks=self.io.space.total,
                record_previous=self.log.checksum,
            ),
            b"",
        )
        return original(self, record)

    monkeypatch.setattr(Committer, "_proven", proven)


@bug
def superblocks_have_one_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """The only superblock is overwritten in both places at once."""

    def write_superblock(device: Device, superblock: Superblock, record: bytes) -> None:
        for place in (0, limits.SECOND_PLACE_BLOCK):
            device.write(place * superblock.block_size, superblock.pack())

    for module in (durability, log):
        monkeypatch.setattr(module, "write_superblock", write_superblock)


@bug
def the_newest_commit_is_not_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record counts though its blocks did not arrive."""
    monkeypatch.setattr(log, "_landed", lambda *args: True)


@bug
def only_the_first_run_is_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit of several runs counts though some of them did not arrive."""
    landed = log._landed

    def first_only(device: Device, record: CommitRecord, block_size: int) -> bool:
        return landed(device, replace(record, runs=record.runs[:1]), block_size)

    monkeypatch.setattr(log, "_landed", first_only)


@bug
def records_call_themselves_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record in flight says that it need not be proven."""

    def record(**fields: Any) -> CommitRecord:
        return CommitRecord(**{**fields, "durable_txid": fields["txid"]})

    monkeypatch.setattr(commit, "CommitRecord", record)


@bug
def a_torn_tail_is_not_wiped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record in flight that did not count stays, and later writes may complete it."""

    def spare_the_tail(device: Device, found: log.Log) -> Meddler:
        tail = found.next_block * found.superblock.block_size
        return Meddler(device, writes=lambda offset: offset != tail)

    at_settling(monkeypatch, spare_the_tail)


@bug
def no_superblock_at_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found is not written down before its proof, or the way to it, is overwritten."""
    monkeypatch.setattr(log, "write_superblock", lambda *args: None)


@bug
def the_old_log_is_free_before_the_superblock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of the old log are used again though no superblock leads past them."""
    original = Committer._store_space

    def store_space(self: Committer, *args: Any) -> Any:
        for start, length in self.log.blocks:
            self.io.space.give_back(start, length)
        return original(self, *args)

    monkeypatch.setattr(Committer, "_store_space", store_space)


@bug
def settle_does_not_size_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The growth of the file was lost, and is not made up for."""
    at_settling(monkeypatch, lambda device, found: Meddler(device, resizes=False))


@bug
def repeated_transactions_have_the_same_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """What followed a lost commit, and arrived, follows it when the program makes it again."""
    monkeypatch.setattr(
        commit, "CommitRecord", lambda **fields: CommitRecord(**fields | {"opening": 0})
    )


@bug
def what_was_found_is_taken_as_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a record that is wiped said that others were flushed; no superblock does."""

    def follow(*args: Any) -> log.Log:
        found = log.follow(*args)
        found.proven_txid = found.txid
        return found

    monkeypatch.setattr(engine, "follow", follow)


@bug
def operations_are_not_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An opening shows the trees as they were stored last."""
    monkeypatch.setattr(engine, "replay", lambda packed, ledger, open_tree: {})


@bug
def trees_in_memory_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that stores trees leaves out those that only transactions before it changed."""
    monkeypatch.setattr(transaction.Transaction, "_open_heads", lambda self: None)


@bug
def what_operations_did_to_space_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """When trees are stored, what was freed and counted before that transaction is left out."""

    monkeypatch.setattr(transaction, "settle", lambda ledger: None)


# --- second copies ------------------------------------------------------------------------------


@bug
def second_copies_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The space for the second copy of a node is taken, and stays as it was."""
    take, write = Space.take_twin_run, RecordingDevice.write
    blocks: set[int] = set()

    def take_twin_run(self: Space, minimum: int, written: int, block: int) -> tuple[int, int]:
        start, length = take(self, minimum, written, block)
        blocks.update(range(start, start + length))
        return start, length

    def skip(self: RecordingDevice, offset: int, data: bytes | bytearray | memoryview) -> None:
        if offset // 4096 not in blocks or bytes(data[:8]) == RECORD_MAGIC:
            write(self, offset, data)

    monkeypatch.setattr(Space, "take_twin_run", take_twin_run)
    monkeypatch.setattr(RecordingDevice, "write", skip)


@bug
def second_records_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log has one copy."""
    monkeypatch.setattr(SecondLog, "_write", lambda self, pieces: None)


@bug
def second_copies_lie_beside_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever takes one takes the other as well."""

    def take_twin_run(self: Space, minimum: int, written: int, block: int) -> tuple[int, int]:
        start, length = self.bitmap.search(block, minimum)
        self.bitmap.set(start, minimum if length else 0)
        return start, minimum if length else 0

    monkeypatch.setattr(Space, "take_twin_run", take_twin_run)


@bug
def second_copies_are_not_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first copy is damaged, anything is taken for the second."""
    original = BlockIO._stored_copy

    def stored_copy(self: BlockIO, pointer: Pointer, block: int, label: str) -> bytes:
        if block == pointer.block:
            return original(self, pointer, block, label)
        return self.device.read(block * self.block_size, pointer.stored)

    monkeypatch.setattr(BlockIO, "_stored_copy", stored_copy)


@bug
def repair_goes_the_wrong_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The damaged copy is written over the good one."""

    def mend(self: BlockIO) -> None:
        while self.damaged:
            _, damaged = self.damaged.popitem()
            bad = self.device.read(damaged.block * self.block_size, damaged.pointer.stored)
            self.device.write(damaged.good * self.block_size, bad)

    monkeypatch.setattr(BlockIO, "mend", mend)


@bug
def a_torn_second_tail_is_not_wiped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a record in flight that did not count the second copy stays."""

    def spare_the_tail(device: Device, found: log.Log) -> Meddler:
        tail = (found.next_copy or -1) * found.superblock.block_size
        return Meddler(device, writes=lambda offset: offset != tail)

    at_settling(monkeypatch, spare_the_tail)


@bug
def copies_of_what_overflows_are_not_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit counts though of what did not fit in its record only the first copies arrived."""
    monkeypatch.setattr(SecondLog, "runs", lambda self: iter(()))


# Many operations to a commit that is not large, two copies of them, and few checkpoints.
CONDITIONS[copies_of_what_overflows_are_not_proven] = {
    "metadata_copies": 2,
    "size": None,
    "waits": False,
    "log_records": 12,
    "unstored_records": 100,
    "one_flush_limit": 4 << 20,
    "cache": 1 << 20,
}


@bug
def what_arrived_in_one_copy_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that counts as one of its copies has arrived is not written to the other."""

    def follow(*args: Any) -> log.Log:
        found = log.follow(*args)
        found.unsettled.clear()
        return found

    monkeypatch.setattr(engine, "follow", follow)


# --- space --------------------------------------------------------------------------------------


@bug
def blocks_are_reused_one_transaction_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a transaction freed is used again before that transaction is durable."""
    released_early(monkeypatch, "durable")


@bug
def young_blocks_are_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks by which a commit would have to prove itself are overwritten."""
    released_early(monkeypatch, "proven")


@bug
def own_blocks_are_reused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction overwrites blocks that it wrote itself, and proves itself by."""

    class Hasty(Ledger):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.reuse_own = True

    monkeypatch.setattr(commit, "Ledger", Hasty)


@bug
def readers_keep_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that an open view reads are used again."""
    released_early(monkeypatch, "oldest")


@bug
def a_snapshot_raises_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot's root is overwritten when the head moves on."""

    class Careless(Ledger):
        def share(self, block: int) -> None:
            pass

    monkeypatch.setattr(commit, "Ledger", Careless)


@bug
def counts_are_not_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts that were changed since the checkpoint are lost at an opening."""
    monkeypatch.setattr(commit, "Delta", lambda segments, freed, counts: Delta(segments, freed, {}))


@bug
def freed_blocks_are_not_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that were freed since the checkpoint are lost at an opening."""
    monkeypatch.setattr(
        commit, "Delta", lambda segments, freed, counts: Delta(segments, b"", counts)
    )


@bug
def a_checkpoint_forgets_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits to be freed at a checkpoint is never free again."""
    monkeypatch.setattr(Space, "settled", lambda self: self.bitmap.copy())


@bug
def an_abandoned_head_is_not_released(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a rollback, or destroying, lets go of stays in use for ever."""
    original = transaction.Transaction._release_dropped

    def release_dropped(self: cowfs.Transaction) -> None:
        self.ledger.dropped = []
        original(self)

    monkeypatch.setattr(transaction.Transaction, "_release_dropped", release_dropped)


@bug
def destroying_forgets_its_position(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a step of destroying did not come to is lost."""
    monkeypatch.setattr(catalog.Catalog, "add_drop", lambda self, stack: None)


@bug
def growth_is_not_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """An opening does not know of the blocks by which the image grew."""
    original = recovery.Recovery.visit
    monkeypatch.setattr(
        recovery.Recovery,
        "visit",
        lambda self, record: original(
            self, replace(record, total_blocks=self.superblock.total_blocks)
        ),
    )
