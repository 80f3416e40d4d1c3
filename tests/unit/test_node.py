"""Pages that are not what was stored: a node is proven sound before anything walks over it."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cowfs
from cowfs import limits
from cowfs._node import Cache
from cowfs._tree import Tree
from cowfs._view import EXTENT, INLINE, TREE, node_items
from cowfs.device import MemoryDevice
from cowfs.format import pack_pointer, unpack_pointer, unpack_summary
from cowfs.values import cell_size

from ..plain import noise

NODE = limits.DEFAULT_NODE_SIZE


class OnePage:
    """Where a tree reads from: one page, without the checksum that would find everything."""

    total_blocks = 1 << 20
    block_size = 4096

    def __init__(self, page: bytes) -> None:
        self.page = page

    def read(self, pointer: bytes, label: str) -> bytes:
        return self.page


def reference(level: int, items: list[tuple[bytes, int, bytes]] | None = None) -> bytes:
    """A reference to a node in block 9; of a leaf, as it must be if these are its items."""
    pointer = pack_pointer(9, 1, NODE, NODE, 0, level, bytes(16))
    logical, stored, outside = 0, NODE, 0
    for key, kind, value in items or ():
        logical += len(key) + cell_size((kind, value))
        outside += kind != INLINE
        if kind == EXTENT:
            stored += unpack_pointer(value).blocks(4096) * 4096
        elif kind == TREE:
            stored += unpack_summary(value).stored
    return pointer + struct.pack("<QQQI", len(items or ()), logical, stored, outside)


def pages() -> dict[int, bytes]:
    """A sound page of each level, as it is stored."""
    store = cowfs.open_device(
        MemoryDevice(), parameters=cowfs.Parameters(compression="none"), cache=1 << 22
    )
    store.create("a").update((b"%d" % n + b"-" * (n % 90), noise(n % 200)) for n in range(20_000))
    store["a"][b"an extent"] = noise(9_000)
    store["a"][b"many records"] = noise(900_000)
    found: dict[int, bytes] = {}
    with store.at("a") as view:
        ref = view._session.tree.ref
    while True:
        level, items = node_items(store.io, NODE, ref, "a")
        found[level] = store.io.read(ref, "a")
        if not level:
            return found
        ref = items[len(items) // 2][2]


PAGES = pages()


def look(page: bytes, level: int) -> None:
    """Everything that can be done with one page: it is refused, or what it gives is in order."""
    source = OnePage(page)
    try:
        found_level, items = node_items(source, NODE, reference(level), "label")
    except cowfs.CorruptionError as error:
        assert (error.dataset, error.block) == ("label", 9)
        assert error.reason
        return
    assert found_level == level
    keys = [key for key, _, _ in items]
    assert keys == sorted(set(keys))
    if level:
        return
    tree: Any = Tree(source, Cache(1 << 20), NODE, 16, reference(0, items), None, "label")
    tree.resolve = lambda kind, value: value
    assert list(tree.items_between(None, None, False, 1)) == keys
    assert list(tree.items_between(None, None, True, 1)) == keys[::-1]
    assert len(tree) == len(keys)
    for key, _, value in items:
        assert tree.get(key) == value
    assert tree.get(b"\0") is None or b"\0" in keys


def test_there_are_pages_of_several_levels() -> None:
    assert set(PAGES) >= {0, 1, 2}
    for level, page in PAGES.items():
        look(page, level)


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_flipped_bits_are_found_or_harmless(level: int, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(300):
        page = bytearray(PAGES[level])
        for _ in range(chance.choice((1, 1, 2, 5))):
            # Mostly where the structure is: the header, and the slots behind it.
            at = chance.randrange(chance.choice((8, 24, 100, len(page))))
            page[at] ^= 1 << chance.randrange(8)
        look(bytes(page), level)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_pages_that_are_cut_or_of_another_level_are_refused(level: int) -> None:
    page = PAGES[level]
    for size in (0, 1, 3, 23, 24, 25, 100, len(page) - 1):
        with pytest.raises(cowfs.CorruptionError):
            node_items(OnePage(page[:size]), NODE, reference(level), "label")
    for other in {0, 1, 2} - {level}:
        with pytest.raises(cowfs.CorruptionError):
            node_items(OnePage(page), NODE, reference(other), "label")
    with pytest.raises(cowfs.CorruptionError):
        node_items(OnePage(page + b"\0"), NODE, reference(level), "label")


@given(st.binary(max_size=300), st.integers(0, 3))
def test_random_pages_are_refused(page: bytes, level: int) -> None:
    for start in (b"", PAGES[0][:4], PAGES[0][:4] + bytes([level]), PAGES[0][:24]):
        look(start + page, level)


@pytest.mark.parametrize("level", [24, 100, 254])
def test_levels_that_no_tree_has_are_refused(level: int) -> None:
    with pytest.raises(cowfs.CorruptionError):
        node_items(OnePage(PAGES[0]), NODE, reference(level), "label")
    tree: Any = Tree(OnePage(PAGES[0]), Cache(1 << 20), NODE, 16, reference(level), None, "label")
    with pytest.raises(cowfs.CorruptionError):
        tree.get(b"k")


def test_a_tree_that_leads_back_to_itself_ends() -> None:
    """Every child has to be one level lower, so no circle of pointers goes on for ever."""
    tree: Any = Tree(OnePage(PAGES[2]), Cache(1 << 20), NODE, 16, reference(2), None, "label")
    with pytest.raises(cowfs.CorruptionError):
        tree.get(b"5")
    with pytest.raises(cowfs.CorruptionError):
        list(tree.items_between())
