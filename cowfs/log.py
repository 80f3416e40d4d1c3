"""The superblock ring and the chain of commit records: what is on the image as of when.

A superblock (ring of slots, each written in two places) leads to a checkpoint record, and each
record leads to the next one. Finding the newest commit means following the chain until it ends.

Records that are known to have been flushed need no proof; a record that was perhaps in flight when
the machine stopped counts only if every run of blocks that it lists is there. What does not hold
never happened. So the store opens as of the last acknowledged commit, or the one in flight, whole.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from . import limits
from .codec import checksum
from .device import Device
from .errors import CorruptionError, DeviceError, FormatError
from .format import (
    CHECKSUM_SIZE,
    DATA_LEVEL,
    FLAG_CHECKPOINT,
    FLAG_FLUSHED,
    RECORD_MAGIC,
    CommitRecord,
    Pointer,
    Superblock,
    unpack_record,
    unpack_superblock,
    unproven_next_block,
)

_log = logging.getLogger("cowfs")

_SECTOR = 512
"""Bytes that a disk writes whole or not at all."""
_LONGEST = 64 * limits.LOG_RECORDS
"""Records after which a chain is none: checkpoints keep it far shorter."""
_LONGEST_RUN = 2 * limits.MIB
"""Bytes that no run written in one piece exceeds: the writer has a buffer for half of it."""
_NEARBY = 256
"""Blocks behind a record that does not verify where the next one is looked for."""


@dataclass(slots=True)
class Log:
    """Where the chain stands: the superblock in force, and the last record."""

    superblock: Superblock
    txid: int
    """Of the last record."""
    checksum: bytes
    """Of the last record; the next one names it as `previous`."""
    next_block: int
    """Where the next record will be."""
    next_copy: int = 0
    """Where its second copy will be, if it has one."""
    blocks: list[tuple[int, int]] = field(default_factory=list)
    """(block, blocks) of records and overflow since the checkpoint, with second copies: free after
    the next one."""
    copies: list[Pointer] = field(default_factory=list)
    """What of that has a second copy."""
    unsettled: list[tuple[int, bytes]] = field(default_factory=list)
    """(block, record) of copies of which opening does not know whether they are there."""
    records: int = 0
    length_bytes: int = 0
    checkpoint: bytes = b""
    """The record that `superblock` leads to."""
    proven_txid: int = 0
    """Transactions up to this one need no proof after a crash: something durable says that they
    are. Blocks that a later one wrote must not be used again even if they are free."""

    def note_record(self, block: int, record: CommitRecord, data: bytes) -> None:
        """One more record at the end of the chain."""
        block_size = self.superblock.block_size
        self.records += 1
        self.blocks.append((block, 1))
        blocks = 1
        for pointer in record.overflows() if record.overflow else ():
            self.blocks += pointer.spans(block_size)
            blocks += pointer.blocks(block_size)
            if pointer.twin:
                self.copies.append(pointer)
        self.length_bytes += blocks * block_size
        if record.copies and record.copy:
            self.blocks.append((record.copy, 1))
            self.copies.append(record.proof(block, data))

    def whole_copies(self, *, settled: bool) -> list[Pointer]:
        """What openers begin with, and what they follow from there, where both copies must be
        there: unless the log was `settled`, a power cut may have taken one of what came last."""
        copy = _checkpoint_copy(self.superblock)
        if not settled or not copy:
            return [pointer for pointer in self.copies if pointer.birth <= self.proven_txid]
        block, size = self.superblock.record_block, len(self.checkpoint)
        digest = checksum(self.checkpoint)
        txid, twin = self.superblock.txid, copy - block
        return [Pointer(block, txid, size, size, 0, DATA_LEVEL, twin, digest), *self.copies]

    def restart(self) -> None:
        """The chain begins anew, with a checkpoint."""
        self.blocks, self.copies = [], []
        self.records = self.length_bytes = 0

    @property
    def due(self) -> bool:
        """Whether a checkpoint should be made, to keep the chain short."""
        return self.records >= limits.LOG_RECORDS or self.length_bytes >= limits.LOG_BYTES

    @property
    def overdue(self) -> bool:
        """Whether it must not wait any longer."""
        return self.records >= 4 * limits.LOG_RECORDS or self.length_bytes >= 4 * limits.LOG_BYTES


PLACES = (0, limits.SECOND_PLACE_BLOCK)
"""First blocks of the two places that the ring of superblocks has."""


def write_superblock(
    device: Device, superblock: Superblock, record: bytes, places: tuple[int, ...] = PLACES
) -> None:
    """Write both copies to the slot of its sequence number; they count once it is flushed. With
    them goes a copy of the record that it leads to, where metadata has copies."""
    data = superblock.pack()
    slot = superblock.sequence % limits.SUPERBLOCK_SLOTS
    if superblock.metadata_copies == 2:
        device.write((limits.RECORD_COPIES_BLOCK + slot) * superblock.block_size, record)
    for place in places:
        device.write((place + slot) * superblock.block_size, data)


def read_superblocks(device: Device) -> list[Superblock]:
    """All that verify, newest first. FormatError where there is none: not an image."""
    size = device.size()
    name = device.name
    if size == 0:
        raise FormatError(f"{name}: is empty, not a cowfs image; make one with 'cowfs mkfs'")
    found: dict[int, Superblock] = {}
    seen_magic = False
    for block_size in limits.BLOCK_SIZES:
        for place in PLACES:
            span = limits.SUPERBLOCK_SLOTS * block_size
            data = device.read(place * block_size, span)
            for at in range(0, len(data), block_size):
                seen_magic = seen_magic or data[at : at + 6] == b"\x89cowfs"
                superblock = unpack_superblock(data[at : at + block_size])
                if superblock is not None and superblock.block_size == block_size:
                    found[superblock.sequence] = superblock
        if found:
            break
    if not found:
        if seen_magic:
            raise FormatError(f"{name}: no superblock of this cowfs image is intact")
        raise FormatError(f"{name}: not a cowfs image")
    return [found[sequence] for sequence in sorted(found, reverse=True)]


def follow(
    device: Device,
    superblock: Superblock,
    visit: Callable[[CommitRecord], None],
    *,
    alone: bool = False,
    strict: bool = True,
) -> Log:
    """Walk the chain from the superblock's checkpoint to its end, and `visit` each record; with
    `alone` the checkpoint only, and an image that was made shorter since is none cut short. Unless
    `strict`, a chain that is damaged ends there, and the image may be cut short.

    Raises FormatError where the image is cut short, CorruptionError where the checkpoint is gone
    or a record in the middle of the chain.
    """
    block_size = superblock.block_size
    chain: list[tuple[int, CommitRecord, bytes]] = []
    block, previous, txid = superblock.record_block, superblock.record_previous, superblock.txid
    seen: set[int] = set()
    copy = _checkpoint_copy(superblock)
    torn: set[int] = set()
    image_blocks = device.size() // block_size
    while 0 < block < image_blocks and block not in seen:
        if len(chain) == _LONGEST:
            raise CorruptionError("", block, f"a log of more than {_LONGEST} records")
        seen.add(block)
        found, reason = None, "it does not verify"
        try:
            found = _record_at(device, superblock, block, previous)
        except DeviceError as error:
            if not copy:
                raise
            reason = str(error)
        if found is None and 0 < copy < image_blocks:
            torn.add(block)
            found = _second_record(device, superblock, block, copy, previous, reason)
        if found is None:
            break
        record, data = found
        if record.txid != txid if not chain else record.txid <= chain[-1][1].txid:
            break
        if chain and copy != record.copy:
            break
        chain.append((block, record, data))
        if alone:
            break
        block, copy, previous = record.next_block, record.next_copy, data[-CHECKSUM_SIZE:]
    if not chain or not chain[0][1].flags & FLAG_CHECKPOINT:
        if device.size() < superblock.total_blocks * block_size:
            raise FormatError(
                f"{device.name}: cut short: {device.size():,} bytes, of "
                f"{superblock.total_blocks * block_size:,} at the last checkpoint"
            )
        raise CorruptionError("", superblock.record_block, "the checkpoint record is damaged")
    if strict and not alone:
        _check_end(device, superblock, chain[-1][1])
    durable = max(superblock.durable_txid, *(record.durable_txid for _, record, _ in chain))
    log = Log(superblock, 0, b"", 0)
    log.proven_txid = superblock.durable_txid
    counted = 0
    for _, record, _ in chain:
        if record.txid > durable and not _landed(device, record, block_size):
            break
        short = device.size() < record.total_blocks * block_size
        if record.txid <= durable and short and strict and not alone:
            raise FormatError(
                f"{device.name}: cut short: {device.size():,} bytes, "
                f"{record.total_blocks * block_size:,} expected"
            )
        counted += 1
        # What a record that does not count says of others goes when it is wiped.
        log.proven_txid = max(log.proven_txid, record.durable_txid)
    if not counted:
        raise CorruptionError("", superblock.record_block, "the checkpoint is not there as a whole")
    # What an older checkpoint leads to may have been overwritten since.
    first = max(i for i in range(counted) if chain[i][1].flags & FLAG_CHECKPOINT)
    block, record, log.checkpoint = chain[first]
    log.superblock = replace(
        superblock,
        txid=record.txid,
        record_block=block,
        record_previous=record.previous,
        total_blocks=record.total_blocks,
    )
    for block, record, data in chain[first:counted]:
        visit(record)
        log.txid = record.txid
        log.checksum = data[-CHECKSUM_SIZE:]
        log.next_block, log.next_copy = record.next_block, record.next_copy
        log.note_record(block, record, data)
        if block in torn:
            log.unsettled.append((block, data))
        elif record.txid > durable and record.copy:
            log.unsettled.append((record.copy, data))
    return log


def _record_at(
    device: Device, superblock: Superblock, block: int, previous: bytes
) -> tuple[CommitRecord, bytes] | None:
    """The record in a block, and its bytes, if it is one of this image that follows `previous`."""
    data = device.read(block * superblock.block_size, superblock.block_size)
    record = unpack_record(data) if len(data) == superblock.block_size else None
    if record is None or record.uuid != superblock.uuid or record.previous != previous:
        return None
    return record, data


def _checkpoint_copy(superblock: Superblock) -> int:
    """Where the copy of the record is that a superblock leads to; 0: nowhere."""
    if superblock.metadata_copies < 2:
        return 0
    return limits.RECORD_COPIES_BLOCK + superblock.sequence % limits.SUPERBLOCK_SLOTS


def _second_record(
    device: Device, superblock: Superblock, block: int, copy: int, previous: bytes, reason: str
) -> tuple[CommitRecord, bytes] | None:
    """`_record_at`, of the copy of what should be in a block and is not."""
    found = _record_at(device, superblock, copy, previous)
    if found is not None:
        _log.warning(
            "%s: block %d: a commit record is damaged (%s); the copy in block %d is good",
            device.name,
            block,
            reason,
            copy,
        )
    return found


def _check_end(device: Device, superblock: Superblock, last: CommitRecord) -> None:
    """CorruptionError where the chain does not end because nothing followed.

    A record that does not verify was in flight, unless one that was written later says that it had
    arrived. That one is looked for where the damaged one leads to, and close behind.
    """
    block_size = superblock.block_size
    damaged = last.txid < superblock.durable_txid
    data = _read_blocks(device, block_size, last.next_block, _NEARBY)
    data += _read_blocks(device, block_size, unproven_next_block(data), 1)
    for at in range(0, len(data), block_size):
        beyond = unpack_record(data[at : at + block_size])
        if beyond is not None and beyond.uuid == superblock.uuid:
            damaged = damaged or beyond.durable_txid > last.txid
    if damaged:
        raise CorruptionError(
            "", last.next_block, f"the record of commit {last.txid + 1} is damaged"
        )


def _read_blocks(device: Device, block_size: int, block: int, blocks: int) -> bytes:
    """Whole blocks, as many of them as there are."""
    blocks = min(blocks, device.size() // block_size - block)
    return device.read(block * block_size, blocks * block_size) if blocks > 0 else b""


def settle(device: Device, log: Log, found: Superblock, total_blocks: int) -> None:
    """Before the first write to an image that was not closed: what was found becomes durable for
    good, and what was in flight and did not arrive whole is wiped, lest later writes complete it.
    The file gets its size, if its growth was all that did not arrive.

    Without this, the first transactions could overwrite blocks by which the newest commit proves
    itself, or through which the superblock leads to it.
    """
    block_size = log.superblock.block_size
    _wipe_next(device, log)
    if device.size() < total_blocks * block_size:
        device.resize(total_blocks * block_size)
    for block, data in log.unsettled:
        _mend_block(device, block, data)
    if log.superblock == found:  # else that one's copy may be all that is left of its record
        _mend_superblock(device, found)
        _mend_checkpoint(device, log)
    device.flush()
    if log.superblock != found or log.proven_txid < log.txid:
        log.superblock = replace(log.superblock, sequence=found.sequence + 1, durable_txid=log.txid)
        write_superblock(device, log.superblock, log.checkpoint)
        device.flush()
        log.proven_txid = log.txid


def lead_back(device: Device, log: Log, newest: Superblock, total_blocks: int) -> None:
    """Make openers find the checkpoint where `log` ends, and nothing after it.

    The superblock comes first: as long as the next record is there, it leads to the newest commit.
    It may take the slot of the one that led here, which has to be there until this one is.
    """
    if device.size() < total_blocks * log.superblock.block_size:
        device.resize(total_blocks * log.superblock.block_size)
    log.superblock = replace(log.superblock, sequence=newest.sequence + 1)
    for place in PLACES:
        write_superblock(device, log.superblock, log.checkpoint, (place,))
        device.flush()
    _wipe_next(device, log)
    _mend_checkpoint(device, log)
    device.flush()


def beyond_all(newest: Superblock) -> int:
    """A transaction number that no record on the image has reached, whatever is damaged."""
    return max(newest.txid, newest.durable_txid) + _LONGEST


def _wipe_next(device: Device, log: Log) -> None:
    """See to it that no record follows the last one. Its other sectors stay as they are: where it
    has zeros itself, some of those of a torn wipe could complete it."""
    for block in _following(device, log):
        device.write(block * log.superblock.block_size, bytes(_SECTOR))


def _following(device: Device, log: Log) -> list[int]:
    """Which of the blocks for the next record, and its copy, hold what looks like a record."""
    block_size, length = log.superblock.block_size, len(RECORD_MAGIC)
    return [
        block
        for block in {log.next_block, log.next_copy or log.next_block}
        if device.read(block * block_size, length) == RECORD_MAGIC
    ]


def is_followed(device: Device, log: Log) -> bool:
    """Whether `settle` will wipe something that did not count."""
    return bool(_following(device, log))


def _mend_superblock(device: Device, superblock: Superblock) -> None:
    """Write the superblock in force anew where it is damaged in one of its places."""
    size = superblock.block_size
    slot = superblock.sequence % limits.SUPERBLOCK_SLOTS
    copies = {(place + slot) * size: device.read((place + slot) * size, size) for place in PLACES}
    sound = [data for data in copies.values() if unpack_superblock(data) == superblock]
    for at, data in copies.items():
        if sound and unpack_superblock(data) != superblock:
            _log.warning("%s: the superblock in block %d is written anew", device.name, at // size)
            device.write(at, sound[0])


def _mend_checkpoint(device: Device, log: Log) -> None:
    """Write the checkpoint record and its copy anew, where one of them is damaged."""
    copy = _checkpoint_copy(log.superblock)
    if copy:
        for block in (log.superblock.record_block, copy):
            _mend_block(device, block, log.checkpoint)


def _mend_block(device: Device, block: int, data: bytes) -> None:
    """See to it that a block, of which there is another copy, holds what it should."""
    with suppress(DeviceError):  # what cannot be read or written has its other copy
        if device.read(block * len(data), len(data)) != data:
            device.write(block * len(data), data)


def _landed(device: Device, record: CommitRecord, block_size: int) -> bool:
    """Whether all that a transaction wrote is on the device."""
    if record.flags & FLAG_FLUSHED:
        return True
    for run in record.runs:
        if run.blocks * block_size > _LONGEST_RUN or run.block > limits.MAX_NUMBER // block_size:
            return False
        data = device.read(run.block * block_size, run.blocks * block_size)
        if len(data) != run.blocks * block_size or checksum(data) != run.checksum:
            return False
    return True
