"""The page of a node, in Python: the twin of `_node.pyx` that also writes what no node may be."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

_HEADER = struct.Struct("<IBBHQQ")
_SLOT = struct.Struct("<H")
_CELL = struct.Struct("<HH")
_MAGIC = 0x444F4E43

INLINE, EXTENT, TREE = range(3)


@dataclass(slots=True)
class Cell:
    """An item as it is stored; in an inner node, a child's lower bound and its reference."""

    key: bytes
    kind: int
    value: bytes

    def pack(self) -> bytes:
        """Header, key and value. What does not fit a field is cut."""
        size = _CELL.pack(
            (len(self.key) & 0x3FFF) | (self.kind & 3) << 14, len(self.value) & 0xFFFF
        )
        return size + self.key + self.value


@dataclass(slots=True)
class Page:
    """A node."""

    level: int
    owner: int
    txid: int
    cells: list[Cell] = field(default_factory=list)

    def pack(self) -> bytes:
        """The page as it is stored: slots from the front, cells from the end."""
        packed = [cell.pack() for cell in self.cells]
        slots, distance = [], 0
        for cell in packed:
            distance += len(cell)
            slots.append(_SLOT.pack(distance & 0xFFFF))
        head = _HEADER.pack(
            _MAGIC, self.level & 0xFF, 0, len(packed) & 0xFFFF, self.owner, self.txid
        )
        return head + b"".join(slots) + b"".join(reversed(packed))


def parse(data: bytes) -> Page:
    """A sound page taken apart."""
    _, level, _, count, owner, txid = _HEADER.unpack_from(data)
    page = Page(level, owner, txid)
    for i in range(count):
        (distance,) = _SLOT.unpack_from(data, _HEADER.size + _SLOT.size * i)
        at = len(data) - distance
        sizes, value_size = _CELL.unpack_from(data, at)
        at += _CELL.size
        key_size = sizes & 0x3FFF
        page.cells.append(
            Cell(
                data[at : at + key_size],
                sizes >> 14,
                data[at + key_size : at + key_size + value_size],
            )
        )
    return page
