"""Reading and placing blocks: the one path from a pointer to bytes, and back.

No bytes leave `read` that do not match the checksum in the pointer, and nothing a pointer says is
believed before that: addresses and lengths are checked against what is possible.

What has a second copy, as its pointer says, is read from there where the first is damaged, and the
damaged copy is noted. `mend` writes it anew from the good one. It is the one place where a block in
use is written over: one that was read and is not what it should be, with bytes that are, by who has
the right to write, and before anything that was in use when it was read may be used again.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from . import limits
from ._node import Cache
from ._tree import Tree
from .codec import RAW, Encoded, Encoder, Stored, checksum, compress_lz4, decompress
from .device import Device
from .errors import CorruptionError, DeviceError
from .format import DATA_LEVEL, Pointer, pack_pointer, unpack_pointer
from .space import Space
from .writer import BlockWriter

_RUN_BYTES = 1 * limits.MIB
"""Bytes read from the device in one go, about."""
MAX_DAMAGED = 1024
"""Damaged copies that are noted; what is beyond that is found again once these are mended."""

_log = logging.getLogger("cowfs")


class Damaged(NamedTuple):
    """A copy that is not what was written, while the other one is."""

    pointer: Pointer
    block: int
    """Of the damaged copy."""
    good: int
    """Block of the other."""
    label: str
    reason: str


class Changes:
    """How the changes of one transaction went that take more than one step. It cannot commit where
    an `error` ended one in its middle, or one is `unfinished`."""

    __slots__ = ("error", "unfinished")

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.unfinished = 0


class BlockIO:
    """A store's blocks: verified reads through the cache, encoded writes through the writer."""

    def __init__(
        self,
        device: Device,
        space: Space,
        cache: Cache,
        encoder: Encoder,
        node_size: int,
    ) -> None:
        self.device = device
        self._fetch = device.read
        self.space = space
        self.cache = cache
        self.encoder = encoder
        self.block_size = space.block_size
        self.node_size = node_size
        space.node_blocks = -(-node_size // space.block_size)
        self.writer = BlockWriter(
            device, space, cache, encoder.kind, compress_lz4, checksum, space.copies
        )
        self.damaged: dict[int, Damaged] = {}
        """What reads found, and `mend` has not written anew yet, by block."""
        self.building = 0
        """The transaction in progress, of whose own blocks none is noted: it may use them again."""
        self.changes = Changes()
        """Of the transaction in progress."""

    @property
    def total_blocks(self) -> int:
        """Blocks of the image as it is: what a pointer leads to lies within."""
        return self.space.total

    def without_waiting(self) -> BlockIO:
        """The same blocks, by way of the same cache, for one who must not wait for the disk: to
        read what is not in memory raises BlockingIOError."""
        twin = copy.copy(self)
        twin._fetch = self.device.read_now
        return twin

    def read(self, pointer: bytes, label: str) -> bytes:
        """The decompressed bytes that `pointer` (44 bytes or more) names.

        Raises CorruptionError, naming `label` as the dataset, where they are not to be had.
        """
        return self.read_copies(unpack_pointer(pointer), label)

    def read_copies(self, pointer: Pointer, label: str) -> bytes:
        """`read`, of a pointer that is taken apart."""
        try:
            return self._read_copy(pointer, pointer.block, label)
        except (CorruptionError, DeviceError) as error:
            if not pointer.twin:
                raise
            return self._read_twin(pointer, label, error)

    def _read_twin(
        self, pointer: Pointer, label: str, first: CorruptionError | DeviceError
    ) -> bytes:
        """The second copy, as the first cannot be had."""
        second = pointer.block + pointer.twin
        try:
            data = self._read_copy(pointer, second, label)
        except (CorruptionError, DeviceError) as error:
            if isinstance(first, DeviceError) and isinstance(error, DeviceError):
                raise first from error
            reason = f"{_reason(first)}; its second copy, in block {second}: {_reason(error)}"
            raise CorruptionError(label, pointer.block, reason) from error
        self._note(Damaged(pointer, pointer.block, second, label, _reason(first)))
        return data

    def _note(self, damaged: Damaged) -> None:
        _log.warning(
            "%s: dataset %r, block %d: %s; the copy in block %d is good",
            self.device.name,
            damaged.label,
            damaged.block,
            damaged.reason,
            damaged.good,
        )
        if damaged.pointer.birth != self.building and len(self.damaged) < MAX_DAMAGED:
            self.damaged[damaged.block] = damaged

    def damaged_copies(self, fields: Pointer, label: str) -> list[Damaged]:
        """Which of two copies is damaged, noted for `mend`; nothing where both are, which is for
        `read` to tell."""
        blocks = fields.block, fields.block + fields.twin
        found = []
        for block, other in (blocks, blocks[::-1]) if fields.twin else ():
            try:
                self._read_copy(fields, block, label)
            except (CorruptionError, DeviceError) as error:
                found.append(Damaged(fields, block, other, label, _reason(error)))
        if len(found) == 2:
            return []
        for damaged in found:
            self._note(damaged)
        return found

    def is_damaged(self, damaged: Damaged) -> bool:
        """Whether a copy is still not what it should be."""
        try:
            self._read_copy(damaged.pointer, damaged.block, damaged.label)
        except (CorruptionError, DeviceError):
            return True
        return False

    def mend(self) -> None:
        """Write the damaged copies anew that were noted. One that cannot be written stays as it is:
        the other copy is there, and who reads it next notes the damage again.

        To be called by who has the right to write, before what was in use may be used again.
        """
        while self.damaged:
            _, damaged = self.damaged.popitem()
            pointer, block, good, label, _ = damaged
            if not self.is_damaged(damaged):
                continue
            try:
                data = self._stored_copy(pointer, good, label)
                room = pointer.blocks(self.block_size) * self.block_size
                self.device.write(block * self.block_size, data.ljust(room, b"\0"))
            except (CorruptionError, OSError) as error:
                _log.warning("%s: block %d was not mended: %s", self.device.name, block, error)
            else:
                _log.warning("%s: block %d was mended", self.device.name, block)

    def _read_copy(self, pointer: Pointer, block: int, label: str) -> bytes:
        return _unpacked(self._stored_copy(pointer, block, label), pointer, label)

    def stored(self, pointer: Pointer, label: str) -> bytes:
        """The bytes that `pointer` names, as they are stored."""
        return self._stored_copy(pointer, pointer.block, label)

    def _stored_copy(self, pointer: Pointer, block: int, label: str) -> bytes:
        """The bytes in a block, verified: what the pointer proves, or CorruptionError."""
        _, _, stored, logical, _, level, _, digest = pointer
        limit = limits.MAX_RECORD if level == DATA_LEVEL else self.node_size
        if block <= 0 or stored == 0 or stored > logical or logical > limit:
            raise CorruptionError(label, block, f"a pointer to {stored} of {logical} bytes")
        if block + -(-stored // self.block_size) > self.total_blocks:
            raise CorruptionError(label, block, "beyond the end of the image")
        data: bytes | None = self.writer.held(block, stored)
        if data is None:
            data = self._fetch(block * self.block_size, stored)
        _verify(data, block, stored, digest, label)
        return data

    def read_extent(self, pointer: bytes, label: str) -> bytes:
        """`extent`, of a pointer as it is stored."""
        return self.extent(unpack_pointer(pointer), label)

    def extent(self, fields: Pointer, label: str, *, whole: bool = False) -> bytes:
        """The bytes of an extent of data, from the cache where they are there.

        What was read is kept there, unless `whole` says that all of it is wanted, and it is as it
        was stored: then the host has it, and to read it again takes little more than its checksum.
        Who reads long stretches would sweep the cache clean, and work in ever new memory.
        """
        if fields.level != DATA_LEVEL:
            raise CorruptionError(label, fields.block, "a node where data belongs")
        data: bytes | None = self.cache.record(fields.block, fields.checksum)
        if data is None or len(data) != fields.logical:
            data = self.read_copies(fields, label)
            if fields.compression or not whole:
                self.cache.add_record(fields.block, fields.checksum, data)
        return data

    def read_extents(self, pointers: list[Pointer], label: str) -> list[bytes | memoryview]:
        """`extent` of several: those that lie side by side on the device in one go."""
        found: list[bytes | memoryview] = []
        while len(found) < len(pointers):
            run = self._run(pointers, len(found))
            if len(run) > 1:
                found += self._read_run(run, label)
            else:
                found.append(self.extent(pointers[len(found)], label))
        return found

    def _run(self, pointers: list[Pointer], start: int) -> list[Pointer]:
        """The extents from `start` on that have to be read from the device, and lie there side by
        side."""
        size, total = self.block_size, self.total_blocks
        record, held = self.cache.record, self.writer.held
        following = pointers[start].block
        last = following + _RUN_BYTES // size
        stop = start
        for block, _, stored, logical, _, level, _, digest in islice(pointers, start, None):
            blocks = -(-stored // size)
            if not (
                block == following <= last
                and level == DATA_LEVEL
                and 0 < stored <= logical <= limits.MAX_RECORD
                and 0 < block <= total - blocks
                and record(block, digest) is None
                and held(block, stored) is None
            ):
                break
            following += blocks
            stop += 1
        return pointers[start:stop]

    def _read_run(self, run: list[Pointer], label: str) -> list[bytes | memoryview]:
        """The bytes of extents that lie side by side on the device. Those that are as they were
        stored are parts of what was read, and stay out of the cache."""
        first = run[0].block
        whole = (run[-1].block - first) * self.block_size + run[-1].stored
        stretch = memoryview(self._fetch(first * self.block_size, whole))
        found: list[bytes | memoryview] = []
        for pointer in run:
            block, _, stored, logical, compression, _, _, digest = pointer
            at = (block - first) * self.block_size
            part = stretch[at : at + stored]
            _verify(part, block, stored, digest, label)
            if compression == RAW and stored == logical:
                found.append(part)
                continue
            plain = _unpacked(part, pointer, label)
            if isinstance(plain, bytes):
                self.cache.add_record(block, digest, plain)
            found.append(plain)
        return found

    def record_size(self, wanted: int = limits.RECORD_SIZE, total: int | None = None) -> int:
        """Bytes of the records that a new large value, of `total` bytes if that is known, should
        have: as `wanted`, or less where free space is in pieces too small for that."""
        size = wanted
        while size > self.block_size:
            blocks = size // self.block_size
            runs = self.space.likely_runs(blocks) if total is None else max(1, -(-total // size))
            if self.space.has_runs(blocks, runs):
                break
            size //= 2
        return size

    def write_extents(
        self, records: list[bytes | memoryview], stretch: memoryview | None = None
    ) -> list[bytes]:
        """Pointers to newly placed extents, one for each record of 1 byte to MAX_RECORD.

        Records of one length that lie side by side may be given as a `stretch` besides, to be
        written in one go where they are stored as they are: the host takes a mebibyte in half the
        time that eight pieces of it take.
        """
        total = sum(map(len, records))
        encoded = self.encoder.encode_many(records)
        try:
            if total > limits.LOG_SHARE:
                self.writer.leave_log()
            self.writer.bulk = total >= limits.BULK
            txid = self.writer.txid
            placed = self._place(encoded, stretch)
            pointers = [
                pack_pointer(block, txid, len(stored), len(record), kind, DATA_LEVEL, digest)
                for record, (block, (kind, stored, digest)) in zip(records, placed, strict=True)
            ]
        except BaseException as error:
            self.changes.error = error
            raise
        return pointers

    def stores_raw(self, record_size: int) -> bool:
        """Whether records of that size are stored as they are, and `put_records` may be used."""
        return record_size <= self.block_size or self.encoder.kind == RAW

    def put_records(self, records: Tree, changed: list[tuple[int, bytes]], size: int) -> None:
        """Store records of `size` bytes, (number, bytes) each, as they are, and put them into a
        tree of records."""
        try:
            if len(changed) * size > limits.LOG_SHARE:
                self.writer.leave_log()
            self.writer.bulk = False
            records.put_records(changed, self.writer)
        except BaseException as error:
            self.changes.error = error
            raise

    def _place(
        self, encoded: Iterator[Encoded], stretch: memoryview | None
    ) -> Iterable[tuple[int, Encoded]]:
        """Write records; each with its first block."""
        writer, size = self.writer, self.block_size
        if writer.bulk or writer.proves():
            write = writer.write
            return [(write(one[1]), one) for one in encoded]
        known = list(encoded)
        length = len(stretch) // len(known) if stretch is not None else 0
        if length and length % size == 0 and all(kind == RAW for kind, _, _ in known):
            assert stretch is not None
            return zip(writer.write_through(stretch, length), known, strict=True)
        return [(self._write_alone(one[1]), one) for one in known]

    def _write_alone(self, stored: bytes | memoryview) -> int:
        """Write a record in a transaction that needs no proof of it; its first block."""
        if len(stored) >= limits.THROUGH and len(stored) % self.block_size == 0:
            return self.writer.write_through(stored, len(stored))[0]
        block: int = self.writer.write(stored)
        return block

    def break_if_changed(self, tree: Tree, version: int, error: BaseException) -> None:
        """An error ended a change of a tree, which was in that `version` before: where some of the
        change is done, the transaction is broken."""
        if tree.version != version:
            self.changes.error = error

    @contextlib.contextmanager
    def as_a_whole(self) -> Iterator[None]:
        """For a `with` block that is one change: an error in its middle breaks the transaction.

        It counts, as an interrupt at the end of the block leaves this generator as it is, until
        nobody refers to the interrupt any more. By then there may be another transaction.
        """
        changes = self.changes
        changes.unfinished += 1
        try:
            yield
        except BaseException as error:
            changes.error = error
            raise
        changes.unfinished -= 1


def _reason(error: CorruptionError | DeviceError) -> str:
    return error.reason if isinstance(error, CorruptionError) else str(error)


def _verify(data: bytes | memoryview, block: int, stored: int, digest: bytes, label: str) -> None:
    """Raise CorruptionError where what was read is not what is stored."""
    if len(data) != stored:
        raise CorruptionError(label, block, "beyond the end of the image")
    if checksum(data) != digest:
        raise CorruptionError(label, block, "the checksum does not match")


def _unpacked(data: Stored, pointer: Pointer, label: str) -> Stored | bytes:
    try:
        return decompress(pointer.compression, data, pointer.logical)
    except ValueError as error:
        raise CorruptionError(label, pointer.block, str(error)) from None
