"""Values of any length, as a cell of a tree holds them: written, read and shared as a whole.

A cell holds the bytes themselves while they fit a leaf (INLINE), else a pointer to one extent
(EXTENT) up to a record's size, else the root of a tree of records (TREE) keyed by record number;
records that are missing are holes. Values of a kv dataset, files of an fs dataset and volumes are
all this one thing, which is why sharing it (reflink, snapshot, clone) is one reference, whatever
its size. Random access to the bytes is in `blob.py`.

Everything is stored at once, compressed and hashed on all cores, so that memory is bounded by what
one call is given.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from . import limits
from ._tree import Tree
from ._view import EXTENT, INLINE, TREE
from .blockio import BlockIO
from .errors import CorruptionError, TooLargeError
from .format import NO_REF, pack_blob, unpack_blob, unpack_pointer, unpack_summary

_NUMBER = struct.Struct(">Q")
RECORD_KEY_SIZE = _NUMBER.size
BATCH = 4 * limits.MIB
"""Bytes encoded together: enough to keep all cores busy."""
_ZEROS = bytes(limits.MAX_RECORD)

Cell = tuple[int, bytes]


def is_zeros(data: bytes | memoryview) -> bool:
    """Whether there are only zeros in a record; a look at its start mostly tells."""
    return data[:16] == _ZEROS[: min(16, len(data))] and bytes(data) == _ZEROS[: len(data)]


def _whole_records(record_size: int) -> int:
    """Bytes of the whole records that are encoded together."""
    return max(1, BATCH // record_size) * record_size


def record_tree(io: BlockIO, tree: Tree, ref: bytes, *, writable: bool) -> Tree:
    """The records at `ref`, of a value in `tree`; NO_REF: none yet."""
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


record_key: Callable[[int], bytes] = _NUMBER.pack
"""The key of the record with a number: as many bytes for each, in order."""


def record_number(key: bytes, label: str) -> int:
    """The number of a record."""
    if len(key) != RECORD_KEY_SIZE:
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
    records = record_tree(io, tree, NO_REF, writable=True)
    size = 0
    number = 0
    waiting = bytearray()
    record_size = io.record_size(total=expected)
    batch = _whole_records(record_size)

    def store(data: bytes | bytearray | memoryview) -> None:
        nonlocal number
        view = memoryview(data)
        parts = [view[i : i + record_size] for i in range(0, len(view), record_size)]
        kept = [
            (record_key(number + i), part) for i, part in enumerate(parts) if not is_zeros(part)
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
