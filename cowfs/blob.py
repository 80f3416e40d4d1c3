"""Large values: random access to bytes of any length that live in one cell of a tree.

A cell holds the bytes themselves while they fit a leaf (INLINE), else a pointer to one extent
(EXTENT) up to a record's size, else the root of a tree of records (TREE) keyed by record number;
records that are missing are holes. Values of a kv dataset, files of an fs dataset and volumes are
all this one thing, which is why sharing it (reflink, snapshot, clone) is one reference, whatever
its size.

Everything is stored at once, compressed and hashed on all cores, so that memory is bounded by what
one call is given.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from itertools import islice

from . import limits
from ._tree import Tree
from ._view import EXTENT, INLINE, TREE
from .blockio import BlockIO
from .errors import CorruptionError, TooLargeError, UsageError
from .format import (
    NO_REF,
    Pointer,
    pack_blob,
    unpack_blob,
    unpack_pointer,
    unpack_summary,
)
from .host import CHUNK, ReadAhead, data_ranges, pwrite_all, write_sparse

_NUMBER = struct.Struct(">Q")
RECORD_KEY_SIZE = _NUMBER.size
_ZEROS = bytes(limits.MAX_RECORD)
_BATCH = 4 * limits.MIB
"""Bytes encoded together: enough to keep all cores busy."""
_SCATTERED = limits.BULK // 2
"""The same for pieces from all over a value, which are not written past the host's page cache:
what is changed here and there is read again soon."""
_STRETCH = 256 * limits.KIB
"""Records that lie side by side in so many bytes are worth writing at once."""
_NOT_READ: Mapping[int, bytes] = {}

Cell = tuple[int, bytes]


def _is_zeros(data: bytes | memoryview) -> bool:
    """Whether there are only zeros in a record; a look at its start mostly tells."""
    return (
        not data[0]
        and data[:16] == _ZEROS[: min(16, len(data))]
        and bytes(data) == _ZEROS[: len(data)]
    )


class Blob:
    """The bytes in the cell `key` of `tree`; a missing cell reads as no bytes.

    Offsets, lengths and `size` are in bytes. Writing needs a tree that belongs to a transaction.
    Raises CorruptionError where the image is damaged, OutOfSpaceError where it is full.

    Who writes again and again has it `deferred`: the tree of records is then stored by `store`, and
    until that nothing but `pwrite` may be done with the blob, and nothing with the cell.
    """

    def __init__(
        self,
        io: BlockIO,
        tree: Tree,
        key: bytes,
        *,
        record_size: int = limits.RECORD_SIZE,
        deferred: bool = False,
    ) -> None:
        self._io = io
        self._tree = tree
        self._key = key
        self._kind = INLINE
        self._raw = b""
        self._reader: Tree | None = None
        self._written: Tree | None = None
        """The tree of records, while the cell does not lead to it yet."""
        self._tail: tuple[int, bytes] | None = None
        """The last record that was written, and its number, while it is not whole: what follows
        will most likely be the rest, and it need not be stored twice."""
        self._deferred = deferred
        self._wanted = record_size
        cell = tree.cell(key)
        if cell is not None:
            self._kind, self._raw = cell
        self.size = cell_size((self._kind, self._raw))

    @cached_property
    def record_size(self) -> int:
        """Bytes of a record: as they are, or as new ones should be. To find that out takes a look
        at free space, which those who only read a small value are spared."""
        if self._kind == TREE:
            return unpack_blob(self._raw)[2]
        return self._wanted if self._tree.ledger is None else self._io.record_size(self._wanted)

    # --- reading --------------------------------------------------------------------------------

    def pread(self, length: int, offset: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer only at the end. Holes read as zeros."""
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        if self._kind != TREE:
            return self._whole()[offset : offset + length]
        check_whole(self._io, self._tree.label, self._raw, length)
        size = self.record_size
        number, skip = divmod(offset, size)
        if skip + length <= size:
            whole = not skip and (length == size or offset + length == self.size)
            found = self._record(self._records(), number, whole=whole)
            found = found[skip : skip + length]
            return found if len(found) == length else found.ljust(length, b"\0")
        if not skip and length <= _BATCH:
            found_whole = self._stretch(number, length)
            if found_whole is not None:
                return found_whole
        parts: list[bytes | memoryview] = []
        at, stop = offset, offset + length
        for record, data in self._records_between(number, -(-stop // size)):
            begin = record * size
            if begin > at:
                parts.append(bytes(begin - at))
                at = begin
            part = data[at - begin : stop - begin]
            parts.append(part)
            at += len(part)
        if at < stop:
            parts.append(bytes(stop - at))
        return _joined(parts)

    def data_ranges(self, start: int = 0) -> Iterator[tuple[int, int]]:
        """(start, stop) of each stretch that holds data, from `start` on; holes lie between."""
        if start >= self.size:
            return
        if self._kind != TREE:
            yield start, self.size
            return
        run: tuple[int, int] | None = None
        first = _NUMBER.pack(start // self.record_size)
        for key in self._records().items_between(first, None, False, 1):
            begin = record_number(key, self._tree.label) * self.record_size
            if begin >= self.size:
                raise CorruptionError(self._tree.label, None, "records that do not fit their value")
            end = min(begin + self.record_size, self.size)
            if run is not None and run[1] == begin:
                run = (run[0], end)
                continue
            if run is not None:
                yield run
            run = (max(begin, start), end)
        if run is not None:
            yield run

    def stored(self) -> int:
        """Bytes that it takes on the device, beside its cell."""
        if self._kind == TREE:
            return unpack_summary(self._raw).stored if self._raw[:8] != NO_REF[:8] else 0
        if self._kind == EXTENT:
            return unpack_pointer(self._raw).blocks(self._io.block_size) * self._io.block_size
        return 0

    # --- writing --------------------------------------------------------------------------------

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        """Write at `offset`; what lies between the old end and `offset` becomes a hole."""
        view = memoryview(data).cast("B")
        if offset < 0 or offset + len(view) > limits.MAX_VALUE:
            raise UsageError(f"offset {offset}: a value has at most {limits.MAX_VALUE} bytes")
        size = max(self.size, offset + len(view))
        if not len(view):
            return
        if self._kind != TREE and size <= self.record_size:
            whole = bytearray(self._whole())
            whole.extend(bytes(size - len(whole)))
            whole[offset : offset + len(view)] = view
            self._put_small(bytes(whole))
            return
        edges = self._edges(offset, offset + len(view))
        with self._changed_records(size) as records:
            self._put_tail(records, offset, offset + len(view))
            self._write_records(records, [(offset, view)], edges=edges)

    def pwritev(self, pieces: Sequence[tuple[int, bytes | memoryview]]) -> None:
        """Write many pieces, (offset, bytes) each, in one pass: they ascend and do not overlap."""
        assert self._tail is None
        if not pieces:
            return
        offset, last = pieces[-1]
        size = max(self.size, offset + len(last))
        if size > limits.MAX_VALUE:
            raise UsageError(f"offset {offset}: a value has at most {limits.MAX_VALUE} bytes")
        with self._changed_records(size) as records:
            self._write_records(records, pieces, _SCATTERED)

    def store(self) -> None:
        """Have the cell lead to what was written."""
        if self._written is None:
            return
        with self._io.as_a_whole():
            self._put_tail(self._written, 0, 0)
            ref = self._written.flush(self._io.writer) or NO_REF
            self._kind, self._raw = TREE, pack_blob(ref, self.size, self.record_size)
            self._tree.put(self._key, self._raw, TREE, release=False)
        self._reader = self._written = None

    def truncate(self, size: int) -> None:
        """Cut to `size` bytes, or grow with a hole."""
        if not 0 <= size <= limits.MAX_VALUE:
            raise UsageError(f"size {size}: a value has 0 to {limits.MAX_VALUE} bytes")
        if size == self.size:
            return
        with self._io.space.removing() if size < self.size else nullcontext():
            self._set_size(size)

    def _set_size(self, size: int) -> None:
        assert self._tail is None
        if size <= self.record_size:
            self._put_small(self.pread(size, 0).ljust(size, b"\0"))
            return
        number, rest = divmod(size, self.record_size)
        old = self._present(number) if size < self.size and rest else b""
        with self._changed_records(size) as records:
            if size < self.size:
                records.delete_range(_NUMBER.pack(number + (1 if rest else 0)), None)
                if len(old) > rest:
                    self._put_records(records, [(number, old[:rest])])

    def punch(self, offset: int, length: int) -> None:
        """Make a range read as zeros; whole records in it are given back."""
        stop = min(offset + length, self.size)
        if offset < 0 or stop <= offset:
            return
        with self._io.space.removing():
            self._punch(offset, stop)

    def _punch(self, offset: int, stop: int) -> None:
        assert self._tail is None
        if self._kind != TREE:
            self.pwrite(bytes(stop - offset), offset)
            return
        first = -(-offset // self.record_size)
        last = stop // self.record_size
        if stop == self.size:
            last = -(-stop // self.record_size)
        edges = [(offset, stop)]
        if last > first:
            edges = [(offset, first * self.record_size), (last * self.record_size, stop)]
        present = self._edges(offset, stop)
        with self._changed_records(self.size) as records:
            records.delete_range(_NUMBER.pack(first), _NUMBER.pack(max(first, last)))
            zeros = [(begin, bytes(end - begin)) for begin, end in edges if end > begin]
            self._write_records(records, zeros, edges=present)

    # --- files on the host ----------------------------------------------------------------------

    def copy_in(self, fd: int, size: int, ahead: ReadAhead, report: Callable[[int], None]) -> None:
        """Become what is in a file of `size` bytes, with its holes; what was there goes.

        `report` gets the bytes done since it was called last.
        """
        self.truncate(0)
        at = 0
        for start, stop in data_ranges(fd, size):
            report(start - at)
            at = start
            for chunk in ahead.chunks(fd, start, stop):
                self.pwrite(chunk, at)
                at += len(chunk)
                report(len(chunk))
        report(size - at)
        self.truncate(size)

    def copy_out(self, fd: int, report: Callable[[int], None], *, sparse: bool) -> None:
        """Write everything but holes to an empty file, at its place; if `sparse`, pages of zeros
        are holes too."""
        at = 0
        for start, stop in self.data_ranges():
            report(start - at)
            at = start
            while at < stop:
                data = self.pread(min(CHUNK, stop - at), at)
                if sparse:
                    write_sparse(fd, data, at)
                else:
                    pwrite_all(fd, memoryview(data), at)
                at += len(data)
                report(len(data))
        report(self.size - at)

    # --- inside ---------------------------------------------------------------------------------

    def _whole(self) -> bytes:
        if self._kind == INLINE:
            return self._raw
        return self._io.read_extent(self._raw, self._tree.label)

    def _records(self) -> Tree:
        """The tree of records, for reading."""
        if self._reader is None:
            ref = unpack_blob(self._raw)[0]
            self._reader = _record_tree(self._io, self._tree, ref, writable=False)
        return self._reader

    def _edges(self, start: int, stop: int) -> dict[int, bytes]:
        """What is in the records of which a write from `start` to `stop` changes a part, by number.

        It is read, and so is the way to all records in between, before anything is changed: where
        that is damaged, the write fails, and nothing else in the transaction.
        """
        size = self.record_size
        records = self._written or (self._records() if self._kind == TREE else None)
        if records is not None:
            between = (_NUMBER.pack(start // size), _NUMBER.pack(-(-stop // size)))
            deque(records.items_between(*between, False, 1), 0)
        edges: dict[int, bytes] = {}
        for at in (start, stop):
            number, skip = divmod(at, size)
            if skip and number not in edges:
                replaced = number * size >= start and stop >= self.size
                edges[number] = b"" if replaced else self._present(number)
        return edges

    def _present(self, number: int) -> bytes:
        """What is in a record before a change."""
        if self._tail is not None and self._tail[0] == number:
            return self._tail[1]
        if self._written is not None:
            return self._record(self._written, number)
        if self._kind == TREE:
            return self._record(self._records(), number)
        return self._whole()[number * self.record_size : (number + 1) * self.record_size]

    def _record(self, records: Tree, number: int, *, whole: bool = False) -> bytes:
        cell = records.cell(_NUMBER.pack(number))
        if cell is None:
            return b""
        kind, raw = cell
        if kind == EXTENT:
            pointer = unpack_pointer(raw)
            self._check_record(kind, pointer.logical, number)
            return self._io.extent(pointer, self._tree.label, whole=whole)
        self._check_record(kind, len(raw), number)
        return raw

    def _check_record(self, kind: int, length: int, number: int) -> None:
        """Refuse a record that does not lie within the value."""
        if kind == TREE:
            raise CorruptionError(self._tree.label, None, "a tree within a tree of records")
        if length > self.record_size or length > self.size - number * self.record_size:
            raise CorruptionError(self._tree.label, None, "records that do not fit their value")

    def _records_between(self, first: int, last: int) -> Iterator[tuple[int, bytes | memoryview]]:
        """(number, bytes) of each record that there is, neighbours on the device read together."""
        cells = self._records().items_between(_NUMBER.pack(first), _NUMBER.pack(last), False, 3)
        together = max(1, _BATCH // self.record_size)
        while stretch := list(islice(cells, together)):
            records: list[tuple[int, bytes | Pointer]] = []
            for key, kind, raw in stretch:
                number = record_number(key, self._tree.label)
                pointer = unpack_pointer(raw) if kind == EXTENT else None
                length = len(raw) if pointer is None else pointer.logical
                self._check_record(kind, length, number)
                records.append((number, raw if pointer is None else pointer))
            pointers = [found for _, found in records if isinstance(found, Pointer)]
            extents = iter(self._io.read_extents(pointers, self._tree.label))
            for number, found in records:
                yield number, found if isinstance(found, bytes) else next(extents)

    def _stretch(self, first: int, length: int) -> bytes | None:
        """`length` bytes from the beginning of a record on, where all their records are extents,
        and whole, as nearly all are; None where some are not."""
        size, count = self.record_size, -(-length // self.record_size)
        between = (_NUMBER.pack(first), _NUMBER.pack(first + count))
        # One more than there can be is enough to know that something is wrong with them.
        cells = list(islice(self._records().items_between(*between, False, 3), count + 1))
        pointers = [unpack_pointer(raw) for key, kind, raw in cells if kind == EXTENT]
        if len(pointers) != count or any(len(key) != _NUMBER.size for key, _, _ in cells):
            return None
        lengths = [pointer.logical for pointer in pointers]
        if sum(lengths) != length or lengths[:-1].count(size) != count - 1:
            return None
        return _joined(self._io.read_extents(pointers, self._tree.label))

    def _put_small(self, whole: bytes) -> None:
        """Store all bytes inline or as one extent; what was there is released."""
        if len(whole) <= self._tree.inline_limit:
            self._kind, self._raw = INLINE, whole
            self._tree.put(self._key, self._raw, self._kind)
        else:
            self._tree.touch(self._key)  # what refuses the change does so before it begins
            with self._io.as_a_whole():
                self._kind, self._raw = EXTENT, self._io.write_extents([whole])[0]
                self._tree.put(self._key, self._raw, self._kind)
        self.size = len(whole)

    @contextmanager
    def _changed_records(self, size: int) -> Iterator[Tree]:
        """The tree of records for writing; afterwards the cell leads to it, and has `size` bytes.

        An error in between breaks the transaction: the ledger knows of what the cell does not.
        """
        if self._written is None:
            self._tree.touch(self._key)
        with self._io.as_a_whole():
            if self._written is None:
                self._written = self._open_records()
            yield self._written
            self.size = size
            if not self._deferred:
                self.store()

    def _open_records(self) -> Tree:
        """The tree of records; made from what is there where it is none yet."""
        if self._kind == TREE:
            ref = unpack_blob(self._raw)[0]
            return _record_tree(self._io, self._tree, ref, writable=True)
        records = _record_tree(self._io, self._tree, NO_REF, writable=True)
        if self.size:
            records.put(_NUMBER.pack(0), self._raw, self._kind)
        if self.size > self.record_size:
            # Free space is in shorter runs than when the extent was written.
            self._write_records(records, [(0, self._whole())])
        return records

    def _write_records(
        self,
        records: Tree,
        pieces: Iterable[tuple[int, bytes | memoryview]],
        batch: int = _BATCH,
        edges: Mapping[int, bytes] = _NOT_READ,
    ) -> None:
        """Store pieces that ascend: whole records as they are, others with what was around, which
        may have been read before."""
        size = self.record_size
        changed: list[tuple[int, bytes | memoryview]] = []
        for offset, data in pieces:
            if len(data) == size and not offset % size and len(changed) * size < batch:
                changed.append((offset // size, data))
                continue
            view = memoryview(data)
            done = 0
            while done < len(view):
                number, skip = divmod(offset + done, size)
                whole = min(len(view) - done, batch) // size * size
                if not skip and whole >= _STRETCH:
                    self._put_records(records, changed)
                    stretch = view[done : done + whole]
                    parts = (stretch[at : at + size] for at in range(0, whole, size))
                    self._put_records(records, list(enumerate(parts, number)), stretch)
                    changed = []
                    done += whole
                    continue
                part: bytes | memoryview = view[done : done + size - skip]
                done += len(part)
                begun = bool(changed) and changed[-1][0] == number
                if len(changed) * size >= batch and not begun:
                    self._put_records(records, changed)
                    changed = []
                if len(part) < size:
                    if begun:
                        old = bytes(changed.pop()[1])
                    elif number in edges:
                        old = edges[number]
                    else:
                        old = self._record(records, number)
                    if skip or len(old) > len(part):
                        part = old[:skip].ljust(skip, b"\0") + part + old[skip + len(part) :]
                changed.append((number, part))
        if self._deferred and changed and len(changed[-1][1]) < size:
            number, part = changed.pop()
            self._tail = number, bytes(part)
        self._put_records(records, changed)

    def _put_tail(self, records: Tree, start: int, stop: int) -> None:
        """Store the record that waits, unless a write from `start` to `stop` goes on with it."""
        tail, self._tail = self._tail, None
        if tail is not None:
            begin = tail[0] * self.record_size
            if not start - self.record_size < begin < stop:
                self._put_records(records, [tail])

    def _put_records(
        self,
        records: Tree,
        changed: list[tuple[int, bytes | memoryview]],
        stretch: memoryview | None = None,
    ) -> None:
        """Store records, which may be the parts of a stretch; those of zeros become holes."""
        kept: list[tuple[int, bytes | memoryview]] = []
        small = self._tree.inline_limit
        for number, data in changed:
            if _is_zeros(data):
                records.delete(_NUMBER.pack(number))
            elif len(data) <= small:
                records.put(_NUMBER.pack(number), bytes(data))
            else:
                kept.append((number, data))
        if not kept:
            return
        whole = stretch if len(kept) == len(changed) else None
        pointers = self._io.write_extents([data for _, data in kept], whole)
        for (number, _), pointer in zip(kept, pointers, strict=True):
            records.put(_NUMBER.pack(number), pointer, EXTENT)


def _joined(parts: list[bytes | memoryview]) -> bytes:
    """Parts that follow each other as one.

    Where they are all that was read in one go (`BlockIO.read_extents`), that is what is returned: a
    copy is as large as what was read, and fresh memory costs more than reading did.
    """
    first = parts[0]
    if isinstance(first, memoryview) and isinstance(first.obj, bytes):
        stretch = first.obj
        if all(isinstance(part, memoryview) and part.obj is stretch for part in parts) and (
            sum(map(len, parts)) == len(stretch)
        ):
            return stretch
    return b"".join(parts)


def _batch(record_size: int) -> int:
    """Bytes of the whole records that are encoded together."""
    return max(1, _BATCH // record_size) * record_size


def _record_tree(io: BlockIO, tree: Tree, ref: bytes, *, writable: bool) -> Tree:
    return Tree(
        io,
        io.cache,
        io.node_size,
        tree.owner,
        ref if ref != NO_REF else None,
        tree.ledger if writable else None,
        tree.label,
    )


def cell_size(cell: Cell) -> int:
    """Bytes of the value in a cell."""
    kind, raw = cell
    if kind == INLINE:
        return len(raw)
    if kind == EXTENT:
        return unpack_pointer(raw).logical
    return unpack_blob(raw)[1]


def check_whole(io: BlockIO, label: str, raw: bytes, length: int) -> None:
    """Raise TooLargeError where `length` bytes of a value are to be had in one piece, and it is not
    as many as what is stored could give: the rest of them are holes."""
    if length <= limits.WHOLE:
        return
    stored = min(unpack_summary(raw).stored, io.total_blocks * io.block_size)
    if length > stored // io.block_size * limits.MAX_RECORD:
        raise TooLargeError(
            f"{label}: {length:,} bytes in one piece, nearly all of them holes; holes make at most "
            f"{limits.WHOLE:,}: open it as a file, and read it piece by piece"
        )


def record_number(key: bytes, label: str) -> int:
    """The number of a record."""
    if len(key) != _NUMBER.size:
        raise CorruptionError(label, None, f"a record with a key of {len(key)} bytes")
    return int(_NUMBER.unpack(key)[0])


def resolver(
    io: BlockIO, label: str, largest: int = limits.MAX_VALUE
) -> Callable[[int, bytes], bytes]:
    """What a tree needs to give the bytes of large values; see Tree.resolve. In a tree that never
    has larger ones than `largest`, such a one is no value."""

    def resolve_record(kind: int, raw: bytes) -> bytes:
        if kind == TREE:
            raise CorruptionError(label, None, "a tree within a tree of records")
        return io.read_extent(raw, label)

    def resolve(kind: int, raw: bytes) -> bytes:
        size = cell_size((kind, raw))
        if size > largest:
            raise CorruptionError(label, None, f"a value of {size} bytes")
        if kind == EXTENT:
            return io.read_extent(raw, label)
        ref, size, record_size = unpack_blob(raw)
        check_whole(io, label, raw, size)
        known = ref if ref != NO_REF else None
        records = Tree(io, io.cache, io.node_size, 0, known, None, label, resolve_record)
        parts: list[bytes] = []
        at = 0
        for key, data in records.items_between():
            begin = record_number(key, label) * record_size
            if begin < at or begin + len(data) > size or len(data) > record_size:
                raise CorruptionError(label, None, "records that do not fit their value")
            parts.append(bytes(begin - at))
            parts.append(data)
            at = begin + len(data)
        parts.append(bytes(size - at))
        return b"".join(parts)

    return resolve


def write_value(io: BlockIO, tree: Tree, key: bytes, value: bytes) -> None:
    """Put a value of any length; what was there is released."""
    if len(value) <= tree.inline_limit:
        tree.put(key, value)
    elif len(value) <= io.record_size(total=len(value)):
        tree.touch(key)  # what refuses the change does so before it begins
        try:  # no `with`, which takes a tenth of the time
            tree.put(key, io.write_extents([value])[0], EXTENT)
        except BaseException as error:
            io.changes.error = error
            raise
    else:
        write_blob(io, tree, key, [value], len(value))


def write_blob(
    io: BlockIO,
    tree: Tree,
    key: bytes,
    chunks: Iterable[bytes | memoryview],
    expected: int | None = None,
) -> int:
    """Put a value that comes in chunks, `expected` bytes of them if that is known; its size. What
    was there is released at the end.

    Where getting a chunk raises, nothing is put.
    """
    records = _record_tree(io, tree, NO_REF, writable=True)
    size = 0
    number = 0
    waiting = bytearray()
    record_size = io.record_size(total=expected)
    batch = _batch(record_size)

    def store(data: bytes | bytearray | memoryview) -> None:
        nonlocal number
        view = memoryview(data)
        parts = [view[i : i + record_size] for i in range(0, len(view), record_size)]
        kept = [
            (_NUMBER.pack(number + i), part) for i, part in enumerate(parts) if not _is_zeros(part)
        ]
        number += len(parts)
        tree.touch(key)
        with io.as_a_whole():
            pointers = io.write_extents([part for _, part in kept])
            for (record, _), pointer in zip(kept, pointers, strict=True):
                records.put(record, pointer, EXTENT)

    try:
        for chunk in chunks:
            size += len(chunk)
            view = memoryview(chunk).cast("B")
            if waiting:
                take = min(len(view), batch - len(waiting))
                waiting += view[:take]
                view = view[take:]
                if len(waiting) == batch:
                    store(waiting)
                    waiting = bytearray()
            while len(view) >= batch:
                store(view[:batch])
                view = view[batch:]
            waiting += view
    except BaseException:
        records.delete_range()
        raise
    if number == 0 and len(waiting) <= record_size:
        write_value(io, tree, key, bytes(waiting))
        return size
    with io.as_a_whole():
        if waiting:
            store(waiting)
        ref = records.flush(io.writer) or NO_REF
        tree.put(key, pack_blob(ref, size, record_size), TREE)
    return size


def share_blob_between(
    io: BlockIO, source: Tree, source_key: bytes, target: Tree, target_key: bytes
) -> None:
    """Give `target_key` the same bytes, sharing everything that is stored (a reflink).

    Both trees belong to the same store, and `target` to a transaction.
    """
    cell = source.cell(source_key)
    if cell is None:
        target.delete(target_key)
        return
    kind, raw = cell
    block = int.from_bytes(raw[:8], "little") if kind != INLINE else 0
    if block:
        target.touch(target_key)
    with io.as_a_whole():
        if block:
            target.ledger.share(block)
        target.put(target_key, raw, kind)


def share_blob(io: BlockIO, tree: Tree, source_key: bytes, target_key: bytes) -> None:
    """`share_blob_between` inside one tree."""
    share_blob_between(io, tree, source_key, tree, target_key)
