"""Trees that are damaged: all items that still verify, and where there are none any more.

`Tree` ends at the first thing that is wrong, as it must: an answer that leaves something out is no
answer. Here a subtree that cannot be read is a gap in what comes, and the walk goes on behind it.
Keys only ascend, so a walk ends, whatever refers to what.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .. import limits
from .._node import Cache
from .._view import EXTENT, INLINE, node_items
from ..blockio import BlockIO
from ..codec import Encoder
from ..device import Device
from ..errors import CorruptionError, DeviceError
from ..format import (
    DATA_LEVEL,
    NO_REF,
    OPERATION_PUT,
    OPERATION_RANGE,
    Pointer,
    Superblock,
    unpack_blob,
    unpack_pointer,
)
from ..space import Space
from ..values import cell_size, record_number

Item = tuple[bytes, int, bytes]
"""Key, kind, value as it is stored."""
Cell = tuple[int, bytes]


class Gap(NamedTuple):
    """Keys of which nobody knows whether they were there."""

    low: bytes
    high: bytes | None
    """The first key behind it; None where there is none."""
    block: int | None
    reason: str


class Piece(NamedTuple):
    """Some bytes of a value."""

    offset: int
    data: bytes


class Hurt(NamedTuple):
    """Bytes of a value that cannot be read."""

    start: int
    stop: int
    block: int | None
    reason: str


class Source:
    """The blocks of an image, read without its map of free space, which may be what is damaged."""

    def __init__(self, device: Device, superblock: Superblock) -> None:
        self.block_size = superblock.block_size
        self.node_size = superblock.node_size
        self.total_blocks = limits.MAX_NUMBER // self.block_size
        """Of an image that was cut short, a node may be there, and lead to what is not."""
        blocks = max(limits.MIN_IMAGE_BLOCKS, -(-device.size() // self.block_size))
        self._io = BlockIO(
            device,
            Space(device, self.block_size, blocks, 0),
            Cache(limits.MIN_CACHE),
            Encoder(superblock.compression, self.block_size),
            self.node_size,
        )
        self.bytes = 0
        """Read so far, as they are stored."""
        self.tell: Callable[[int], None] | None = None
        """Called with that."""

    def read(self, pointer: bytes, label: str) -> bytes:
        """The bytes that a pointer names. Raises CorruptionError: a disk that cannot read them is
        no better than one that gives others."""
        return self.read_copies(unpack_pointer(pointer), label)

    def read_copies(self, pointer: Pointer, label: str) -> bytes:
        """`read`, of a pointer that is taken apart."""
        self.bytes += pointer.stored
        if self.tell is not None:
            self.tell(self.bytes)
        try:
            return self._io.read_copies(pointer, label)
        except DeviceError as error:
            raise CorruptionError(label, pointer.block, str(error)) from error

    def extent(self, pointer: bytes, label: str) -> bytes:
        """The bytes of an extent of data."""
        level = unpack_pointer(pointer).level
        if level != DATA_LEVEL:
            raise CorruptionError(label, unpack_pointer(pointer).block, "a node, not data")
        return self.read(pointer, label)


def walk(
    source: Source, ref: bytes | None, label: str, start: bytes = b"", stop: bytes | None = None
) -> Iterator[Item | Gap]:
    """The items of a tree between two keys, in order, and the gaps between them."""
    stack: list[tuple[bytes, bytes, bytes | None]] = [(ref, b"", None)] if ref is not None else []
    while stack:
        below, low, high = stack.pop()
        try:
            level, items = node_items(source, source.node_size, below, label)
            first, last = items[min(level, 1, len(items) - 1)][0], items[-1][0]
            if (first and first < low) or (high is not None and last >= high):
                raise CorruptionError(
                    label, unpack_pointer(below).block, "keys outside its parent's bounds"
                )
        except CorruptionError as error:
            yield Gap(low, high, error.block, error.reason)
            continue
        if not level:
            for item in items:
                if item[0] >= start and (stop is None or item[0] < stop):
                    yield item
            continue
        bounds = [low, *(key for key, _, _ in items[1:]), high]
        for at in range(len(items) - 1, -1, -1):
            begin, end = bounds[at], bounds[at + 1]
            assert begin is not None
            if (end is None or end > start) and (stop is None or begin < stop):
                stack.append((items[at][2], begin, end))


def pieces(source: Source, kind: int, raw: bytes, label: str) -> Iterator[Piece | Hurt]:
    """The bytes in a cell, but for holes, and what of them cannot be read."""
    if kind == INLINE:
        yield Piece(0, raw)
        return
    if kind == EXTENT:
        yield _extent(source, raw, label, 0, unpack_pointer(raw).logical)
        return
    ref, size, record_size = unpack_blob(raw)
    for found in walk(source, ref if ref != NO_REF else None, label):
        try:
            if isinstance(found, Gap):
                start = record_number(found.low, label) * record_size if found.low else 0
                stop = size
                if found.high is not None:
                    stop = min(size, record_number(found.high, label) * record_size)
                yield Hurt(start, stop, found.block, found.reason)
                continue
            key, part, data = found
            start = record_number(key, label) * record_size
            if part not in (INLINE, EXTENT):
                raise CorruptionError(label, None, "a tree within a tree of records")
            length = len(data) if part == INLINE else unpack_pointer(data).logical
            if length > min(record_size, size - start):
                raise CorruptionError(label, None, "records that do not fit their value")
            yield (
                Piece(start, data)
                if part == INLINE
                else _extent(source, data, label, start, start + length)
            )
        except CorruptionError as error:  # of a forged record, which lies nowhere
            yield Hurt(0, size, error.block, error.reason)
            return


def _extent(source: Source, raw: bytes, label: str, start: int, stop: int) -> Piece | Hurt:
    try:
        return Piece(start, source.extent(raw, label))
    except CorruptionError as error:
        return Hurt(start, stop, error.block, error.reason)


class Later:
    """What operations of the log did to one tree since it was stored: they lie over its items."""

    def __init__(self) -> None:
        self.cells: dict[bytes, bytes | None] = {}
        """None for a key that was deleted."""
        self._ranges: list[tuple[bytes, bytes | None]] = []

    def do(self, operation: int, key: bytes, value: bytes) -> None:
        """One more operation."""
        if operation == OPERATION_RANGE:
            stop = value or None
            for known in [k for k in self.cells if k >= key and (stop is None or k < stop)]:
                del self.cells[known]
            self._ranges = _with_range(self._ranges, key, stop)
        elif not 1 <= len(key) <= limits.MAX_KEY:
            raise ValueError(f"a key of {len(key)} bytes")
        else:
            self.cells[key] = value if operation == OPERATION_PUT else None

    def hides(self, key: bytes) -> bool:
        """Whether what the tree says of a key is not so any more."""
        if key in self.cells:
            return True
        at = bisect_right(self._ranges, key, key=lambda found: found[0]) - 1
        if at < 0:
            return False
        stop = self._ranges[at][1]
        return stop is None or key < stop

    def over(
        self, items: Iterator[Item | Gap], start: bytes, stop: bytes | None
    ) -> Iterator[Item | Gap]:
        """The items of the tree with these in their places."""
        put = sorted(
            (key, value)
            for key, value in self.cells.items()
            if value is not None and key >= start and (stop is None or key < stop)
        )
        done = 0
        for found in items:
            key = found.low if isinstance(found, Gap) else found[0]
            while done < len(put) and put[done][0] < key:
                yield put[done][0], INLINE, put[done][1]
                done += 1
            if isinstance(found, Gap) or not self.hides(key):
                yield found
        yield from ((key, INLINE, value) for key, value in put[done:])


def _with_range(
    ranges: list[tuple[bytes, bytes | None]], start: bytes, stop: bytes | None
) -> list[tuple[bytes, bytes | None]]:
    """Ranges that ascend and do not touch, and one more."""
    before, behind = [], []
    for low, high in ranges:
        if high is not None and high < start:
            before.append((low, high))
        elif stop is not None and low > stop:
            behind.append((low, high))
        else:
            start = min(start, low)
            stop = None if high is None or stop is None else max(high, stop)
    return [*before, (start, stop), *behind]


class Damaged:
    """A tree as it may be: what still verifies of what is stored, and what the log says since."""

    def __init__(
        self, source: Source, ref: bytes | None, label: str, later: Later | None = None
    ) -> None:
        self.source = source
        self.label = label
        self._ref = ref
        self._later = later

    def items(self, start: bytes = b"", stop: bytes | None = None) -> Iterator[Item | Gap]:
        """Items between two keys, in order, and the gaps between them."""
        found = walk(self.source, self._ref, self.label, start, stop)
        return found if self._later is None else self._later.over(found, start, stop)

    def pieces(self, kind: int, raw: bytes) -> Iterator[Piece | Hurt]:
        """The bytes in a cell, but for holes, and what of them cannot be read."""
        return pieces(self.source, kind, raw, self.label)


def whole(tree: Damaged, cell: Cell) -> bytes:
    """All bytes in a cell. Raises CorruptionError where some cannot be read."""
    found = bytearray(cell_size(cell))
    for part in tree.pieces(*cell):
        if isinstance(part, Hurt):
            raise CorruptionError(tree.label, part.block, part.reason)
        found[part.offset : part.offset + len(part.data)] = part.data
    return bytes(found)
