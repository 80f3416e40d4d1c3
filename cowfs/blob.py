"""Random access to the bytes of a value, of any length (`values.py` tells how a cell holds them).

Everything is stored at once, compressed and hashed on all cores, so that memory is bounded by what
one call is given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from itertools import islice

from . import limits
from ._tree import Tree
from ._view import EXTENT, INLINE, TREE
from .blockio import BlockIO
from .errors import CorruptionError, UsageError
from .format import NO_REF, Pointer, pack_blob, unpack_blob, unpack_pointer, unpack_summary
from .values import (
    BATCH,
    RECORD_KEY_SIZE,
    cell_size,
    check_whole,
    is_zeros,
    record_key,
    record_number,
    record_tree,
)

_SCATTERED = limits.BULK // 2
"""Bytes encoded together of pieces from all over a value, which are not written past the host's
page cache: what is changed here and there is read again soon."""
_STRETCH = 256 * limits.KIB
"""Records that lie side by side in so many bytes are worth writing at once."""
_NOT_READ: Mapping[int, bytes] = {}


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
        if not skip and length <= BATCH:
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
        first = record_key(start // self.record_size)
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

    def write_records(self, changed: list[tuple[int, bytes]], size: int) -> None:
        """Write records of `size` bytes, (number, bytes) each, that ascend."""
        assert self._tail is None
        if self._kind != TREE or size != self.record_size:
            self.pwritev([(number * size, data) for number, data in changed])
            return
        with self._changed_records(max(self.size, (changed[-1][0] + 1) * size)) as records:
            if not self._io.stores_raw(size):
                most = _SCATTERED // size
                for at in range(0, len(changed), most):
                    self._put_records(records, changed[at : at + most])
                return
            zeros = {number for number, data in changed if not data[0] and is_zeros(data)}
            for number in zeros:
                records.delete(record_key(number))
            if zeros:
                changed = [(number, data) for number, data in changed if number not in zeros]
            self._io.put_records(records, changed, size)

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
                records.delete_range(record_key(number + (1 if rest else 0)), None)
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
            records.delete_range(record_key(first), record_key(max(first, last)))
            zeros = [(begin, bytes(end - begin)) for begin, end in edges if end > begin]
            self._write_records(records, zeros, edges=present)

    # --- inside ---------------------------------------------------------------------------------

    def _whole(self) -> bytes:
        if self._kind == INLINE:
            return self._raw
        return self._io.read_extent(self._raw, self._tree.label)

    def _records(self) -> Tree:
        """The tree of records, for reading."""
        if self._reader is None:
            ref = unpack_blob(self._raw)[0]
            self._reader = record_tree(self._io, self._tree, ref, writable=False)
        return self._reader

    def _edges(self, start: int, stop: int) -> dict[int, bytes]:
        """What is in the records of which a write from `start` to `stop` changes a part, by number.

        It is read, and so is the way to all records in between, before anything is changed: where
        that is damaged, the write fails, and nothing else in the transaction.
        """
        size = self.record_size
        records = self._written or (self._records() if self._kind == TREE else None)
        if records is not None:
            between = (record_key(start // size), record_key(-(-stop // size)))
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
        cell = records.cell(record_key(number))
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
        cells = self._records().items_between(record_key(first), record_key(last), False, 3)
        together = max(1, BATCH // self.record_size)
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
        between = (record_key(first), record_key(first + count))
        # One more than there can be is enough to know that something is wrong with them.
        cells = list(islice(self._records().items_between(*between, False, 3), count + 1))
        pointers = [unpack_pointer(raw) for key, kind, raw in cells if kind == EXTENT]
        if len(pointers) != count or any(len(key) != RECORD_KEY_SIZE for key, _, _ in cells):
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
            return record_tree(self._io, self._tree, ref, writable=True)
        records = record_tree(self._io, self._tree, NO_REF, writable=True)
        if self.size:
            records.put(record_key(0), self._raw, self._kind)
        if self.size > self.record_size:
            # Free space is in shorter runs than when the extent was written.
            self._write_records(records, [(0, self._whole())])
        return records

    def _write_records(
        self,
        records: Tree,
        pieces: Iterable[tuple[int, bytes | memoryview]],
        batch: int = BATCH,
        edges: Mapping[int, bytes] = _NOT_READ,
    ) -> None:
        """Store pieces that ascend: whole records as they are, others with what was around, which
        may have been read before."""
        size = self.record_size
        changed: list[tuple[int, bytes | memoryview]] = []
        most = batch // size
        for offset, data in pieces:
            if len(data) == size and not offset % size and len(changed) < most:
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
        changed: Sequence[tuple[int, bytes | memoryview]],
        stretch: memoryview | None = None,
    ) -> None:
        """Store records, which may be the parts of a stretch; those of zeros become holes."""
        kept: list[tuple[int, bytes | memoryview]] = []
        small = self._tree.inline_limit
        for number, data in changed:
            if not data[0] and is_zeros(data):
                records.delete(record_key(number))
            elif len(data) <= small:
                records.put(record_key(number), bytes(data))
            else:
                kept.append((number, data))
        if not kept:
            return
        whole = stretch if len(kept) == len(changed) else None
        pointers = self._io.write_extents([data for _, data in kept], whole)
        put = records.put
        for (number, _), pointer in zip(kept, pointers, strict=True):
            put(record_key(number), pointer, EXTENT)


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
