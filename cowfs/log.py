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
    FLAG_CHECKPOINT,
    FLAG_FLUSHED,
    RECORD_MAGIC,
    CommitRecord,
    Superblock,
    unpack_pointer,
    unpack_record,
    unpack_superblock,
    unproven_next_block,
)

_log = logging.getLogger("cowfs")

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
    blocks: list[tuple[int, int]] = field(default_factory=list)
    """(block, blocks) of records and overflow since the checkpoint: free after the next one."""
    records: int = 0
    length_bytes: int = 0
    checkpoint: bytes = b""
    """The record that `superblock` leads to."""
    proven_txid: int = 0
    """Transactions up to this one need no proof after a crash: something durable says that they
    are. Blocks that a later one wrote must not be used again even if they are free."""

    def note_record(self, block: int, overflow: list[bytes]) -> None:
        """One more record at the end of the chain."""
        block_size = self.superblock.block_size
        spans = [(block, 1), *(overflow_span(pointer, block_size) for pointer in overflow)]
        self.blocks.extend(spans)
        self.records += 1
        self.length_bytes += block_size * sum(blocks for _, blocks in spans)

    def restart(self) -> None:
        """The chain begins anew, with a checkpoint."""
        self.blocks = []
        self.records = self.length_bytes = 0

    @property
    def due(self) -> bool:
        """Whether a checkpoint should be made, to keep the chain short."""
        return self.records >= limits.LOG_RECORDS or self.length_bytes >= limits.LOG_BYTES

    @property
    def overdue(self) -> bool:
        """Whether it must not wait any longer."""
        return self.records >= 4 * limits.LOG_RECORDS or self.length_bytes >= 4 * limits.LOG_BYTES


def overflow_span(pointer: bytes, block_size: int) -> tuple[int, int]:
    """(block, blocks) of an overflow extent."""
    fields = unpack_pointer(pointer)
    return fields.block, fields.blocks(block_size)


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
    image_blocks = device.size() // block_size
    while 0 < block < image_blocks and block not in seen:
        if len(chain) == _LONGEST:
            raise CorruptionError("", block, f"a log of more than {_LONGEST} records")
        seen.add(block)
        if chain or superblock.metadata_copies < 2:
            found = _record_at(device, superblock, block, previous)
        else:
            found = _checkpoint_or_copy(device, superblock)
        if found is None:
            break
        record, data = found
        if record.txid != txid if not chain else record.txid <= chain[-1][1].txid:
            break
        chain.append((block, record, data))
        if alone:
            break
        block, previous = record.next_block, data[-CHECKSUM_SIZE:]
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
        log.next_block = record.next_block
        log.note_record(block, record.overflow)
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


def _checkpoint_or_copy(
    device: Device, superblock: Superblock
) -> tuple[CommitRecord, bytes] | None:
    """The record that a superblock leads to, where there are two copies of it."""
    copy = limits.RECORD_COPIES_BLOCK + superblock.sequence % limits.SUPERBLOCK_SLOTS
    reason: object = "it does not verify"
    try:
        found = _record_at(device, superblock, superblock.record_block, superblock.record_previous)
        if found is not None:
            return found
    except DeviceError as error:
        reason = error
    _log.warning(
        "%s: block %d: the checkpoint record is damaged (%s); there is a copy in block %d",
        device.name,
        superblock.record_block,
        reason,
        copy,
    )
    return _record_at(device, superblock, copy, superblock.record_previous)


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
    if log.superblock == found:  # else that one's copy may be all that is left of its record
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
    """See to it that no record follows the last one."""
    block_size = log.superblock.block_size
    tail = device.read(log.next_block * block_size, block_size)
    if tail[: len(RECORD_MAGIC)] == RECORD_MAGIC:
        device.write(log.next_block * block_size, bytes(block_size))


def _mend_checkpoint(device: Device, log: Log) -> None:
    """Write the checkpoint record and its copy anew, where one of them is damaged."""
    superblock = log.superblock
    if superblock.metadata_copies < 2:
        return
    copy = limits.RECORD_COPIES_BLOCK + superblock.sequence % limits.SUPERBLOCK_SLOTS
    for block in (superblock.record_block, copy):
        at = block * superblock.block_size
        with suppress(DeviceError):  # what cannot be read or written has its other copy
            if device.read(at, superblock.block_size) != log.checkpoint:
                device.write(at, log.checkpoint)


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
