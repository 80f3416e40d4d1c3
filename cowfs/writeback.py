"""Volumes with a write cache, for those who serve them as disks.

A disk acknowledges a write when it is in its cache, and promises nothing until it is told to flush.
So writes are gathered in memory, and committed together: a transaction for thousands of them costs
little more than one for a single write, a page that is written again and again is stored once, and
neither a write nor a read ever waits for a commit.

Invariants: a read sees every write that returned before it began. A commit takes all writes that
returned before it began, of all volumes of the store, and is one transaction. What could not be
committed stays in memory, and reads see it; until it could, writes are refused. Memory is bounded
by whoever writes: `pending` says how much waits.

Nothing here waits but `commit`, and `pread` where the disk is needed. Any thread may call anything.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import cast

from . import limits
from .blob import Blob
from .engine import Engine
from .errors import (
    CorruptionError,
    FailedError,
    KindError,
    OutOfSpaceError,
    ReadOnlyError,
    UsageError,
)
from .transaction import Transaction
from .volume import BLOB_KEY

MANY_HOLES = 64
"""Ranges of zeros in one batch; more are worth a commit, as each read goes through them."""


class WriteBack:
    """The write cache of one store, for all of its volumes that are opened here."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._volumes: dict[str, BufferedVolume] = {}
        self._lost: list[CorruptionError] = []
        """Why writes were lost of which nobody was told yet."""
        self._committing = threading.Lock()
        self._opening = threading.Lock()

    def open(self, name: str) -> BufferedVolume:
        """A volume, with writes gathered; or a snapshot, to be read.

        Raises NotFoundError, and KindError where it is no volume.
        A volume that is open here must not be written to, rolled back, renamed or destroyed
        otherwise; `resize` it here, too.
        """
        with self._opening:  # of two, a commit would know of one only
            found = self._volumes.get(name)
            if found is None:
                opened = BufferedVolume(self.engine, name)
                self._volumes = {**self._volumes, name: opened}
                found = opened
            return found

    @property
    def pending(self) -> int:
        """Bytes that wait for a commit."""
        return sum(volume.pending for volume in self._volumes.values())

    @property
    def gathered(self) -> int:
        """Bytes of those that the next commit will take: less, while one is under way."""
        return sum(volume.gathered for volume in self._volumes.values())

    @property
    def due(self) -> bool:
        """Whether anything waits to be committed, or to be made durable."""
        return bool(self.pending) or self.engine.durable_txid < self.engine.txid

    def commit(self, *, durable: bool = True) -> None:
        """Commit what was written before. With `durable`, it is on the disk when this returns.

        Raises OutOfSpaceError, FailedError: everything stays in memory, and may be tried again.
        CorruptionError: a part of a record was written of which the rest cannot be read; that write
        is lost, all others are committed.
        """
        with self._committing:
            taken = [volume for volume in self._volumes.values() if volume.take()]
            try:
                for volume in taken:
                    volume.fill(self._lost)
                try:
                    self._store(taken, durable)
                except OutOfSpaceError:
                    if not any(volume.has_holes for volume in taken):
                        raise
                    # What is discarded makes room for what is written, once it is committed.
                    with self.engine.transaction() as tx:
                        for volume in taken:
                            volume.store_holes(tx)
                    self._store(taken, durable)
            except BaseException as error:
                for volume in taken:
                    volume.put_back(error)
                raise
            for volume in taken:
                volume.renew()
            lost, self._lost = self._lost, []
            if lost:
                raise lost[0]

    def _store(self, taken: list[BufferedVolume], durable: bool) -> None:
        if not taken:
            if durable and not self.engine.readonly:
                self.engine.sync()
            return
        with self.engine.transaction(durable) as tx:
            for volume in taken:
                volume.store_holes(tx)
                volume.store_writes(tx)

    def resize(self, name: str, size: int) -> None:
        """Give a volume another size."""
        self.commit(durable=False)
        with self._committing:
            with self.engine.transaction() as tx:
                tx[name].resize(size)
            if name in self._volumes:
                self._volumes[name].renew()


class BufferedVolume:
    """A volume as it is with all that was written; made by `WriteBack.open`.

    Offsets, lengths and sizes are in bytes.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._quick_io = engine.io.without_waiting()
        self._lock = threading.Lock()
        """Held while a batch is changed or changes hands, for microseconds."""
        self._taken: _Batch | None = None
        """What is being committed."""
        self._failure: BaseException | None = None
        """Why the last commit failed."""
        self.name = name
        self.readonly = engine.readonly or "@" in name
        self.renew()
        self._batch = _Batch(self.record_size)

    # --- reading --------------------------------------------------------------------------------

    def pread(self, length: int, offset: int) -> bytes:
        """`length` bytes from `offset`. May wait for the disk."""
        with self._lock:
            newer, blob = self._newer(offset, offset + length), self._blob
        return _lay_over(blob, newer, length, offset)

    def pread_now(self, length: int, offset: int) -> bytes:
        """`pread` of what is in memory; BlockingIOError where it would wait for the disk."""
        with self._lock:
            newer, blob = self._newer(offset, offset + length), self._quick_blob
        return _lay_over(blob, newer, length, offset)

    def data_ranges(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """(start, stop) of each stretch in a range that is no hole, as of the last commit."""
        for begin, end in self._blob.data_ranges(start):
            if begin >= stop:
                return
            yield begin, min(end, stop)

    # --- writing --------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """Bytes of memory that writes take until they are committed; not 0 where there are any."""
        taken = self._taken
        return self._batch.size + (taken.size if taken is not None else 0)

    @property
    def gathered(self) -> int:
        """Bytes of those that no commit has taken yet."""
        return self._batch.size

    @property
    def crowded(self) -> bool:
        """Whether there are so many ranges of zeros that reads become slow."""
        return len(self._batch.holes) > MANY_HOLES

    def pwrite(self, data: bytes | memoryview, offset: int) -> None:
        """Write all of `data`; in memory only."""
        self._check(offset, len(data))
        with self._lock:
            self._batch.write(data, offset)

    def discard(self, offset: int, length: int) -> None:
        """Make a range zeros, and give its space back; in memory only."""
        self._check(offset, length, may_fail=True)
        with self._lock:
            self._batch.clear(offset, offset + length)

    # --- committing, for WriteBack --------------------------------------------------------------

    def take(self) -> bool:
        """Set apart what is to be committed; whether there is anything."""
        with self._lock:
            if self._taken is not None:  # the last commit ended before `renew` or `put_back` did
                self._taken.add(self._batch)
            elif self._batch.size:
                self._taken = self._batch
            else:
                return False
            self._batch = _Batch(self.record_size)
            return True

    @property
    def has_holes(self) -> bool:
        """Whether ranges of zeros are among what was set apart."""
        return self._taken is not None and bool(self._taken.holes)

    def fill(self, lost: list[CorruptionError]) -> None:
        """Make records whole of which a part was written. Where the rest cannot be read, forget the
        write, and note in `lost` why: it can never be committed."""
        assert self._taken is not None
        size = self.record_size
        for number, part in self._taken.parts():
            try:
                old = self._blob.pread(size, number * size).ljust(size, b"\0")
            except CorruptionError as error:
                lost.append(error)
                with self._lock:
                    del self._taken.records[number]
            else:
                with self._lock:
                    self._taken.records[number] = part.over(old)

    def store_holes(self, tx: Transaction) -> None:
        """Have a transaction do the discards."""
        assert self._taken is not None
        size = tx[self.name].size
        for start, stop in self._taken.holes:
            if start < size:
                tx[self.name].discard(start, min(stop, size) - start)

    def store_writes(self, tx: Transaction) -> None:
        """Have a transaction do the writes."""
        assert self._taken is not None
        volume, size = tx[self.name], self.record_size
        records = self._taken.whole()
        if records and (records[-1][0] + 1) * size > volume.size:  # the last one of the volume
            volume.pwritev(list(self._taken.pieces(volume.size)))
        else:
            volume.write_records(records)

    def renew(self) -> None:
        """What was set apart is committed: read it from there."""
        root, session = self._engine.view_root(self.name)
        if root.kind != "volume":
            session.close()
            raise KindError(f"{self.name} is of kind {root.kind}, and no volume")
        blobs = [
            Blob(io, session.tree, BLOB_KEY, record_size=root.record_size)
            for io in (session.io, self._quick_io)
        ]
        with self._lock:
            # The version before stays in place as long as a read under way refers to it.
            self._blob, self._quick_blob = blobs
            self.size, self.record_size = root.size, root.record_size
            self._taken, self._failure = None, None

    def put_back(self, error: BaseException) -> None:
        """What was set apart could not be committed: it is to be tried again."""
        with self._lock:
            assert self._taken is not None
            self._taken.add(self._batch)
            self._batch, self._taken = self._taken, None
            self._failure = error

    # --- inside ---------------------------------------------------------------------------------

    def _newer(self, start: int, stop: int) -> list[tuple[int, bytes | memoryview]]:
        """What in a range is newer than the last commit, oldest first."""
        if not 0 <= start <= stop <= self.size:
            raise UsageError(f"bytes {start} to {stop} of a volume of {self.size} bytes")
        newer: list[tuple[int, bytes | memoryview]] = []
        if self._taken is not None:
            newer += self._taken.between(start, stop)
        if self._batch.size:
            newer += self._batch.between(start, stop)
        return newer

    def _check(self, offset: int, length: int, *, may_fail: bool = False) -> None:
        if self.readonly:
            raise ReadOnlyError(f"{self.name} is open for reading only")
        if not 0 <= offset <= offset + length <= self.size:
            raise UsageError(
                f"bytes {offset} to {offset + length} of a volume of {self.size} bytes"
            )
        failure = self._failure
        if failure is not None and not may_fail:
            if isinstance(failure, OutOfSpaceError):
                raise OutOfSpaceError(str(failure))
            raise FailedError(
                f"{self.name}: what was written before could not be stored: {failure}"
            )


def _lay_over(
    blob: Blob, newer: list[tuple[int, bytes | memoryview]], length: int, offset: int
) -> bytes:
    """A range of what was committed, with what is newer on top."""
    if len(newer) == 1 and newer[0][0] == offset and len(newer[0][1]) == length:
        return bytes(newer[0][1])
    data = blob.pread(length, offset)
    if not newer:
        return data if len(data) == length else data.ljust(length, b"\0")
    whole = bytearray(data.ljust(length, b"\0"))
    for at, part in newer:
        whole[at - offset : at - offset + len(part)] = part
    return bytes(whole)


class _Part:
    """A record of which only some `spans`, (start, stop) in order, were written."""

    __slots__ = ("data", "spans")

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)
        self.spans: list[tuple[int, int]] = []

    def write(self, part: bytes | memoryview, start: int) -> None:
        """Write into it, and join spans that touch."""
        stop = start + len(part)
        self.data[start:stop] = part
        kept = []
        for begin, end in self.spans:
            if end < start or begin > stop:
                kept.append((begin, end))
            else:
                start, stop = min(start, begin), max(stop, end)
        self.spans = sorted([*kept, (start, stop)])

    def over(self, old: bytes) -> bytes:
        """All of a record that was `old` before."""
        whole = bytearray(old)
        for start, stop in self.spans:
            whole[start:stop] = self.data[start:stop]
        return bytes(whole)


class _Batch:
    """Writes between two commits: first `holes` became zeros, then `records` were written."""

    def __init__(self, record_size: int) -> None:
        self.record_size = record_size
        self.records: dict[int, bytes | _Part] = {}
        """By number: all of it, or parts. Each has its own bytes: a part of what a client sent
        would keep the rest of that in memory, too."""
        self.holes: list[tuple[int, int]] = []
        """(start, stop) in bytes, whole records each."""

    @property
    def size(self) -> int:
        """Bytes that it takes, about; 0 where nothing was written."""
        return (len(self.records) + len(self.holes)) * self.record_size

    def write(self, data: bytes | memoryview, offset: int) -> None:
        """Write at `offset`."""
        size = self.record_size
        number, skip = divmod(offset, size)
        if not skip and len(data) == size:
            self.records[number] = bytes(data)
            return
        view = memoryview(data)
        done = 0
        if skip:
            done = min(size - skip, len(view))
            self._write_part(number, view[:done], skip)
            number += 1
        whole = len(view) - (len(view) - done) % size
        for at in range(done, whole, size):
            self.records[number] = bytes(view[at : at + size])
            number += 1
        if whole < len(view):
            self._write_part(number, view[whole:], 0)

    def clear(self, start: int, stop: int) -> None:
        """Make a range zeros."""
        size = self.record_size
        first, last = -(-start // size), stop // size
        if last <= first:
            self.write(bytes(stop - start), start)
            return
        if last - first < len(self.records):
            for number in range(first, last):
                self.records.pop(number, None)
        else:
            for number in [n for n in self.records if first <= n < last]:
                del self.records[number]
        self._add_hole(first * size, last * size)
        for begin, end in ((start, first * size), (last * size, stop)):
            self.write(bytes(end - begin), begin)

    def between(self, start: int, stop: int) -> Iterator[tuple[int, bytes | memoryview]]:
        """(offset, bytes) of what was written in a range, oldest first."""
        for begin, end in self.holes:
            if begin < stop and end > start:
                begin, end = max(begin, start), min(end, stop)
                yield begin, bytes(end - begin)
        size = self.record_size
        for number in range(start // size, -(-stop // size)):
            record = self.records.get(number)
            if record is None:
                continue
            base = number * size
            spans = record.spans if isinstance(record, _Part) else ((0, size),)
            data = record.data if isinstance(record, _Part) else record
            for begin, end in spans:
                begin, end = max(begin, start - base), min(end, stop - base)
                if end > begin:
                    yield base + begin, bytes(data[begin:end])

    def parts(self) -> list[tuple[int, _Part]]:
        """(number, part) of each record of which not all was written."""
        records = self.records
        if _Part not in set(map(type, records.values())):  # as mostly
            return []
        return [(number, part) for number, part in records.items() if isinstance(part, _Part)]

    def whole(self) -> list[tuple[int, bytes]]:
        """(number, bytes) of each record, in order, once there are no parts."""
        return cast("list[tuple[int, bytes]]", sorted(self.records.items()))

    def pieces(self, limit: int) -> Iterator[tuple[int, bytes]]:
        """(offset, bytes) of all that was written below `limit`, in order."""
        for number in sorted(self.records):
            record = self.records[number]
            base = number * self.record_size
            if isinstance(record, _Part):
                for begin, end in record.spans:
                    if base + begin < limit:
                        yield base + begin, bytes(record.data[begin : min(end, limit - base)])
            elif base + self.record_size <= limit:
                yield base, record
            elif base < limit:
                yield base, record[: limit - base]

    def add(self, newer: _Batch) -> None:
        """Do all of another batch behind this one."""
        for start, stop in newer.holes:
            self.clear(start, stop)
        for offset, data in newer.pieces(limits.MAX_VALUE):
            self.write(data, offset)

    def _write_part(self, number: int, part: bytes | memoryview, start: int) -> None:
        known = self.records.get(number)
        if not isinstance(known, _Part):
            record = _Part(self.record_size)
            if known is not None:
                record.write(known, 0)
            elif self._is_hole(number * self.record_size):
                record.spans = [(0, self.record_size)]
            known = record
        known.write(part, start)
        if known.spans == [(0, self.record_size)]:
            self.records[number] = bytes(known.data)
        else:
            self.records[number] = known

    def _is_hole(self, at: int) -> bool:
        return any(start <= at < stop for start, stop in self.holes)

    def _add_hole(self, start: int, stop: int) -> None:
        kept = []
        for begin, end in self.holes:
            if end < start or begin > stop:
                kept.append((begin, end))
            else:
                start, stop = min(start, begin), max(stop, end)
        self.holes = [*kept, (start, stop)]
