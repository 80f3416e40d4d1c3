"""Kinds of damage. Each takes a forgery and a source of chance, and leaves hooks or bytes behind.

Most know nothing of what they hit: any integer, at any place, becomes one that is likely to be
mishandled. The others build what chance would never come upon: subtrees that are referred to again
and again, values within values, values larger than any memory.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from cowfs import limits
from cowfs.catalog import CATALOG_OWNER, FIRST_DATASET
from cowfs.codec import LZ4
from cowfs.format import (
    DATA_LEVEL,
    FLAG_COPIES,
    FLAG_OPERATIONS,
    NO_REF,
    POINTER_SIZE,
    REF_SIZE,
    pack_blob,
)
from cowfs.fs.inode import DIRECTORY, ENTRY, pack_entry

from .page import EXTENT, INLINE, TREE, Cell, Page
from .seal import Forgery, Spot, seal_block

Damage = Callable[[Forgery, random.Random], None]

EDGES = (
    *(0, 1, 2, 3, 4, 7, 8, 16, 22, 23, 24, 25, 127, 128, 254, 255, 256, 511, 512, 4095, 4096),
    *(4097, 8191, 8192, 16383, 16384, 32767, 32768, 65535, 65536, 131071, 131072, 131073),
    *((1 << bits) + step for bits in (24, 31, 32, 48, 52, 60, 62, 63, 64) for step in (-1, 0, 1)),
)
"""Numbers at which something ends: of types, blocks, nodes, records, depths."""


def scribble(data: bytes, chance: random.Random) -> bytes:
    """Bytes in which one integer, or a few bytes, are others."""
    if not data:
        return b"\xff"
    width = chance.choice((1, 1, 2, 4, 8))
    at = chance.randrange(len(data))
    if chance.random() < 0.7:
        at -= at % width
    if chance.random() < 0.3:
        at %= 96  # headers
    at = max(0, min(at, len(data) - width))
    old = int.from_bytes(data[at : at + width], "little")
    new = chance.choice(
        (
            chance.choice(EDGES),
            chance.choice(EDGES),
            old + chance.choice((-1, 1)),
            old ^ 1 << chance.randrange(8 * width),
            chance.getrandbits(8 * width),
        )
    )
    new &= (1 << 8 * width) - 1
    packed = new.to_bytes(width, "big" if chance.random() < 0.2 else "little")
    return data[:at] + packed + data[at + width :]


def resize(data: bytes, chance: random.Random) -> bytes:
    """Bytes that are cut off, or go on."""
    if chance.random() < 0.5:
        return data[: chance.randrange(len(data) + 1)]
    return data + chance.randbytes(chance.choice((1, 2, 8, 100)))


def _node(forgery: Forgery, chance: random.Random, *, level: int | None = None) -> Spot:
    nodes = [s for s in forgery.spots.values() if s.is_node and (level is None or s.level == level)]
    return chance.choice(nodes)


def _leaf_of(forgery: Forgery, chance: random.Random, owner: Callable[[int], bool]) -> Spot:
    return chance.choice(
        [s for s in forgery.spots.values() if s.is_node and not s.level and owner(s.owner)]
    )


# --- bytes of structures ------------------------------------------------------------------------


def node_bytes(forgery: Forgery, chance: random.Random) -> None:
    """The page of a node."""
    change = chance.choice((scribble, scribble, scribble, resize))
    forgery.bytes[_node(forgery, chance).block] = [lambda data: change(data, chance)]


def extent_bytes(forgery: Forgery, chance: random.Random) -> None:
    """The data of an extent: what was put there, as far as anybody can tell."""
    extents = [spot.block for spot in forgery.spots.values() if not spot.is_node]
    change = chance.choice((scribble, resize))
    forgery.bytes[chance.choice(extents)] = [lambda data: change(data, chance)]


def reference(forgery: Forgery, chance: random.Random) -> None:
    """A pointer or its summary: wild addresses, absurd lengths, wrong levels, unknown codecs."""
    block = chance.choice(list(forgery.spots))

    def forge(ref: bytes) -> bytes:
        head = 28 if chance.random() < 0.6 else len(ref)
        return scribble(ref[:head], chance) + ref[head:]

    forgery.refs[block] = [forge]


def record(forgery: Forgery, chance: random.Random) -> None:
    """A commit record."""
    at = chance.randrange(len(forgery.records))
    forgery.bodies[forgery.records[at][0]] = partial(_scribble_used, chance=chance)


def operations(forgery: Forgery, chance: random.Random) -> None:
    """What a record says that was done since trees were stored; where there is one."""
    logged = [record for _, record in forgery.records if record.flags & FLAG_OPERATIONS]
    if not logged:
        record(forgery, chance)
        return
    found = chance.choice(logged)
    found.delta = chance.choice((scribble, scribble, resize))(found.delta, chance)


def superblock(forgery: Forgery, chance: random.Random) -> None:
    """The superblock in force."""
    body = forgery.superblock.pack()[:-16]
    forgery.put_superblock(seal_block(_scribble_used(body, chance)))


def _scribble_used(body: bytes, chance: random.Random) -> bytes:
    used = len(body.rstrip(b"\0"))
    for _ in range(chance.choice((1, 1, 2))):
        body = scribble(body[:used], chance) + body[used:]
    return body


# --- items --------------------------------------------------------------------------------------


def values(forgery: Forgery, chance: random.Random) -> None:
    """The value of an item: of an inode, an entry, a dataset, a group of the space map."""
    spot = _leaf_of(forgery, chance, lambda owner: chance.random() < 0.5 or owner < FIRST_DATASET)

    def edit(page: Page) -> None:
        cell = chance.choice(page.cells)
        cell.value = chance.choice((scribble, scribble, scribble, resize))(cell.value, chance)

    forgery.pages[spot.block] = [edit]


def keys(forgery: Forgery, chance: random.Random) -> None:
    """The key of an item; keys stay in order, or do not."""
    spot = _node(forgery, chance)

    def edit(page: Page) -> None:
        cell = chance.choice(page.cells)
        cell.key = chance.choice((scribble, scribble, resize))(cell.key or b"\0", chance)
        if chance.random() < 0.7:
            page.cells.sort(key=lambda cell: cell.key)

    forgery.pages[spot.block] = [edit]


def order(forgery: Forgery, chance: random.Random) -> None:
    """Items that change places, come twice, are left out, or are of another kind."""
    spot = _node(forgery, chance)

    def edit(page: Page) -> None:
        one, other = chance.choices(range(len(page.cells)), k=2)
        what = chance.randrange(6)
        if what == 0:
            page.cells[one], page.cells[other] = page.cells[other], page.cells[one]
        elif what == 1:
            page.cells.insert(one, page.cells[other])
        elif what == 2 and len(page.cells) > 1:
            del page.cells[one]
        elif what == 3:
            page.cells[one].kind = chance.randrange(4)
        elif what == 4:
            page.cells[one].value = page.cells[other].value
        else:
            page.level = chance.choice((page.level + 1, page.level ^ 1, 255, 22, 0))

    forgery.pages[spot.block] = [edit]


def graft(forgery: Forgery, chance: random.Random) -> None:
    """A sound reference in the place of another: of another tree, another level, an ancestor's
    sister, an extent for a node."""
    inner = [s for s in forgery.spots.values() if s.is_node and (s.level or s.owner >= 16)]
    spot, other = chance.choice(inner), chance.choice(list(forgery.spots.values()))
    if other.is_node and other.level >= spot.level and spot.block != other.block:
        spot, other = other, spot
    place = chance.random()

    def edit(page: Page) -> None:
        pointers = [cell for cell in page.cells if page.level or cell.kind != INLINE]
        if not pointers or other.block == spot.block:
            return
        cell = pointers[int(place * len(pointers))]
        size = POINTER_SIZE if cell.kind == EXTENT and not page.level else REF_SIZE
        donor = forgery.sealed(other.block)
        cell.value = donor[:size].ljust(size, b"\0") + cell.value[size:]

    forgery.pages[spot.block] = [edit]


# --- what chance does not build -----------------------------------------------------------------


def ladder(forgery: Forgery, chance: random.Random) -> None:
    """A tree whose inner nodes refer to one child many times: few blocks, items without number."""
    leaf = Page(0, FIRST_DATASET, 1, [Cell(b"k%03d" % n, INLINE, b"v" * 20) for n in range(20)])
    ref = forgery.add_node(leaf)
    wide, honest = chance.random() < 0.7, chance.random() < 0.5
    for level in range(1, chance.choice((2, 3, 6, 9, 12, 22, 23, 30))):
        cells = [Cell(b"", INLINE, ref)]
        if wide:
            cells += [Cell(b"k%03d" % n, INLINE, ref) for n in range(1, 20)]
        forgery.count(ref, len(cells) if honest else 1)
        ref = forgery.add_node(Page(level, FIRST_DATASET, 1, cells))
        if chance.random() < 0.5:
            page = Page(level + 1, FIRST_DATASET, 1, [Cell(b"", INLINE, ref)])
            ref = forgery.add_node(page)
    _replace_root(forgery, chance, ref)


def nesting(forgery: Forgery, chance: random.Random) -> None:
    """A value whose records are values whose records are values, and so on, far down."""
    ref = NO_REF
    for _ in range(chance.choice((2, 40, 1500))):
        cell = Cell((0).to_bytes(8, "big"), TREE, pack_blob(ref, 100_000, limits.RECORD_SIZE))
        ref = forgery.add_node(Page(0, FIRST_DATASET, 1, [cell]))
    _replace_value(forgery, chance, pack_blob(ref, 100_000, limits.RECORD_SIZE))


def bomb(forgery: Forgery, chance: random.Random) -> None:
    """Few bytes that claim to be many: a hole without end, one extent in many places, LZ4 that
    unpacks to more than its pointer says."""
    what = chance.randrange(3)
    size = chance.choice((1 << 30, 1 << 40, limits.MAX_VALUE, limits.MAX_VALUE + 1, (1 << 64) - 1))
    if what == 0:
        _replace_value(forgery, chance, pack_blob(NO_REF, size, chance.choice((1, 512, 131072))))
        return
    plain = bytes(limits.RECORD_SIZE)
    logical = limits.RECORD_SIZE if what == 1 else chance.choice((100, 130_000, 1 << 20, 1 << 31))
    pointer = forgery.add(plain, DATA_LEVEL, compression=LZ4, logical=logical)
    cells = [Cell(n.to_bytes(8, "big"), EXTENT, pointer) for n in range(50)]
    forgery.count(pointer, len(cells))
    ref = forgery.add_node(Page(0, FIRST_DATASET, 1, cells))
    whole = chance.choice((50 * limits.RECORD_SIZE, size))
    _replace_value(forgery, chance, pack_blob(ref, whole, limits.RECORD_SIZE))


def directories(forgery: Forgery, chance: random.Random) -> None:
    """Directories in themselves, in each other, or in many places at once."""
    files = [
        spot
        for spot in forgery.spots.values()
        if spot.is_node and spot.owner >= FIRST_DATASET and not spot.level
    ]
    child = chance.choice((1, 2, 3, 4))

    def edit(page: Page) -> None:
        for cell in page.cells:
            entry = len(cell.value) == 9 and len(cell.key) > 9 and cell.key[8] == ENTRY
            if entry and chance.random() < 0.5:
                cell.value = pack_entry(child, DIRECTORY)

    for spot in files:
        forgery.pages[spot.block] = [edit]


def log_loop(forgery: Forgery, chance: random.Random) -> None:
    """A record that leads to another, or to what is no place for a record."""
    i = chance.randrange(len(forgery.records))
    block, found = forgery.records[i]
    found.next_block = chance.choice(
        (block, forgery.superblock.record_block, 0, 3, 300, 511, 1 << 40, *forgery.spots)
    )


def copies(forgery: Forgery, chance: random.Random) -> None:
    """Second copies that are said to be where something else is, or nothing can be."""
    places = (0, 1, 8, 256, 264, 511, 1 << 31, *forgery.spots, forgery.superblock.record_block)
    if chance.random() < 0.5:
        _, found = chance.choice(forgery.records)
        found.flags |= FLAG_COPIES
        found.copies = found.copies or [0] * (2 + len(found.overflow))
        found.copies[chance.randrange(len(found.copies))] = chance.choice(places)
        return
    block = _node(forgery, chance).block
    twin = chance.choice(places) - block & 0xFFFFFFFF
    upper, lower = (twin >> 16).to_bytes(2, "little"), (twin & 0xFFFF).to_bytes(2, "little")
    forgery.refs[block] = [lambda ref: ref[:22] + upper + ref[24:26] + lower + ref[28:]]
    if chance.random() < 0.5:  # the first copy is damaged, so that the other one is looked for
        at = block * forgery.block_size
        forgery.spoiled.append(at)


def _replace_root(forgery: Forgery, chance: random.Random, ref: bytes) -> None:
    """Make `ref` the root of a dataset, or of a value."""
    if chance.random() < 0.3:
        _replace_value(forgery, chance, pack_blob(ref, 1 << 20, limits.RECORD_SIZE))
        return
    leaves = [s for s in forgery.spots.values() if s.is_node and s.owner == CATALOG_OWNER]

    def edit(page: Page) -> None:
        roots = [cell for cell in page.cells if cell.key[:1] in (b"D", b"S")]
        if not page.level and roots:
            cell = chance.choice(roots)
            cell.value = cell.value[:-REF_SIZE] + ref

    for spot in leaves:
        forgery.pages[spot.block] = [edit]


def _replace_value(forgery: Forgery, chance: random.Random, value: bytes) -> None:
    """Give some item of some dataset this large value."""
    spot = _leaf_of(forgery, chance, lambda owner: owner != CATALOG_OWNER)

    def edit(page: Page) -> None:
        cell = chance.choice(page.cells)
        cell.kind, cell.value = TREE, value

    forgery.pages[spot.block] = [edit]


KINDS: tuple[Damage, ...] = (
    node_bytes,
    extent_bytes,
    reference,
    record,
    operations,
    superblock,
    values,
    keys,
    order,
    graft,
    ladder,
    nesting,
    bomb,
    directories,
    log_loop,
    copies,
)
