"""cowfs dump: structures on the image, for people who debug.

Superblocks and the log are read without opening the store, so that they can be seen where it does
not open. docs/format.md says what the fields mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

import click

import cowfs
from cowfs import limits
from cowfs._view import EXTENT, INLINE, TREE, node_items
from cowfs.device import Device, FileDevice
from cowfs.errors import CorruptionError, NotFoundError, UsageError
from cowfs.format import (
    DATA_LEVEL,
    FLAG_CHECKPOINT,
    FLAG_FLUSHED,
    NO_REF,
    CommitRecord,
    unpack_blob,
    unpack_delta,
    unpack_pointer,
    unpack_summary,
    unpack_superblock,
)
from cowfs.log import follow, read_superblocks

from .arguments import image_argument
from .command import command
from .datasets import need_datasets
from .escapes import show_text
from .output import print_table, show_time

CATALOG, SPACE_MAP = "(catalog)", "(space map)"
"""The store's own trees, under the names that check gives them."""

SHOWN = 60
"""Most characters of a key or value in a line."""


@command(
    "dump",
    "Show structures on the image, for people who debug.\n\n"
    "\b\n"
    "superblocks       every slot of the ring, sound or not\n"
    "log               the commit records since the checkpoint\n"
    "tree DATASET      the nodes of a dataset's or snapshot's tree, or of\n"
    "                  the store's own: '(catalog)' or '(space map)'\n"
    "node BLOCK        what is in the node at a block, or whose data it is",
)
@image_argument
@click.argument("what", type=click.Choice(["superblocks", "log", "tree", "node"]))
@click.argument("which", metavar="[DATASET[@NAME]|BLOCK]", required=False)
def run(image: str, what: str, which: str | None) -> None:
    if (which is not None) != (what in ("tree", "node")):
        raise UsageError(
            "write 'superblocks' or 'log' and no more, 'tree DATASET[@NAME]', or 'node BLOCK'"
        )
    if which is None:
        device = FileDevice(image, writable=False)
        try:
            print_superblocks(device) if what == "superblocks" else print_log(device)
        finally:
            device.close()
        return
    with cowfs.open(image, "r") as store:
        if what == "tree":
            print_tree(store, which)
        elif which.isascii() and which.isdigit():
            print_node(store, int(which))
        else:
            raise UsageError(f"{which!r}: a block is given by its number")


# --- superblocks and log ------------------------------------------------------------------------


def print_superblocks(device: Device) -> None:
    """Identity, then a line for each slot."""
    newest = read_superblocks(device)[0]
    size = newest.block_size
    print(f"uuid {UUID(bytes=newest.uuid)}, label {newest.label!r}")
    print(f"made {show_time(datetime.fromtimestamp(newest.created_ns / 1e9, UTC))}")
    print(f"features {newest.compatible:#x} {newest.read_only:#x} {newest.incompatible:#x}")
    print(f"blocks of {size} bytes, nodes of {newest.node_size}")
    rows = []
    for place in (0, limits.SECOND_PLACE_BLOCK):
        for block in range(place, place + limits.SUPERBLOCK_SLOTS):
            data = device.read(block * size, size)
            found = unpack_superblock(data)
            if found is not None:
                numbers = (found.sequence, found.txid, found.record_block, found.total_blocks)
                state = "newest" if found == newest else "sound"
                rows.append([str(block), *map(str, numbers), state])
            else:
                rows.append([str(block), "", "", "", "", "damaged" if any(data) else "empty"])
    headings = ["BLOCK", "SEQUENCE", "TRANSACTION", "RECORD", "BLOCKS", "STATE"]
    print_table(headings, rows, right="BLOCK SEQUENCE TRANSACTION RECORD BLOCKS")


def print_log(device: Device) -> None:
    """A line for each commit record from the checkpoint on."""
    superblock = read_superblocks(device)[0]
    block = superblock.record_block
    rows: list[list[str]] = []

    def visit(record: CommitRecord) -> None:
        nonlocal block
        flags = [
            name
            for flag, name in ((FLAG_CHECKPOINT, "checkpoint"), (FLAG_FLUSHED, "flushed"))
            if record.flags & flag
        ]
        used = freed = counts = "-"
        if not record.overflow:
            delta = unpack_delta(record.delta)
            used = str(sum(blocks for _, blocks in delta.segments))
            freed, counts = str(len(delta.freed) // 8), str(len(delta.counts))
        catalog = unpack_pointer(record.catalog).block if record.catalog != NO_REF else 0
        numbers = (record.txid, record.durable_txid, record.total_blocks, catalog)
        deltas = [used, freed, counts, str(len(record.runs))]
        rows.append([str(block), *map(str, numbers), *deltas, " ".join(flags)])
        block = record.next_block

    follow(device, superblock, visit)
    headings = ["BLOCK", "TRANSACTION", "DURABLE", "BLOCKS", "CATALOG"]
    headings += ["USED", "FREED", "COUNTS", "RUNS"]
    print_table([*headings, "FLAGS"], rows, right=" ".join(headings))


# --- trees and nodes ----------------------------------------------------------------------------


class Node(NamedTuple):
    """A node that a walk came to, or an extent of data."""

    label: str
    depth: int
    ref: bytes
    low: bytes
    """Lower bound of its keys."""
    items: list[tuple[bytes, int, bytes]]
    problem: str
    """Why it cannot be read; empty where it can."""


def walk(store: cowfs.Store, ref: bytes, label: str) -> Iterator[Node]:
    """The nodes of a tree from the root down, those of large values in it too."""
    stack = [(0, ref, b"")]
    while stack:
        depth, ref, low = stack.pop()
        level, problem = unpack_pointer(ref).level, ""
        items: list[tuple[bytes, int, bytes]] = []
        if level != DATA_LEVEL:
            try:
                level, items = node_items(store.io, store.io.node_size, ref, label)
            except CorruptionError as error:
                problem = error.reason
        yield Node(label, depth, ref, low, items, problem)
        for key, kind, value in reversed(items):
            if level or kind == EXTENT:
                stack.append((depth + 1, value, key or low))
            elif kind == TREE and unpack_blob(value)[0] != NO_REF:
                stack.append((depth + 1, unpack_blob(value)[0], key))


def roots(store: cowfs.Store) -> Iterator[tuple[str, bytes | None]]:
    """(name, reference) of every tree."""
    yield CATALOG, store.catalog_tree.ref
    yield SPACE_MAP, store.space_tree.ref
    with store.pinned("dump") as catalog:
        for head in catalog.datasets():
            yield head.name, head.ref
            for snapshot in catalog.snapshots(head):
                yield f"{head.name}@{snapshot.name}", snapshot.ref


def print_tree(store: cowfs.Store, name: str) -> None:
    """A line for each node and extent, indented by depth."""
    if name not in (CATALOG, SPACE_MAP):
        need_datasets(store, name)
    found = dict(roots(store))
    if name not in found:
        with store.pinned("dump") as catalog:
            catalog.resolve(name)
    ref = found[name]
    if ref is None:
        print("empty: no nodes")
        return
    for node in walk(store, ref, name):
        text = show_pointer(node.ref)
        if node.problem:
            text += f", DAMAGED: {node.problem}"
        print(f"{'  ' * node.depth}{text}, from {shorten(node.low)}")


def print_node(store: cowfs.Store, block: int) -> None:
    """All about what is stored at a block."""
    for label, ref in roots(store):
        for node in walk(store, ref, label) if ref is not None else ():
            if unpack_pointer(node.ref).block != block:
                continue
            print(f"{label}: {show_pointer(node.ref)}")
            print(f"checksum {unpack_pointer(node.ref).checksum.hex()}")
            if node.problem:
                print(f"DAMAGED: {node.problem}")
            for key, kind, value in node.items:
                inner = unpack_pointer(node.ref).level > 0
                print(f"{shorten(key)}  {show_value(inner, kind, value)}")
            return
    raise NotFoundError(f"{store.path}: no node or extent of a dataset begins at block {block}")


def show_pointer(ref: bytes) -> str:
    """Where something is, and how it is stored."""
    pointer = unpack_pointer(ref)
    place = f"block {pointer.block}, transaction {pointer.birth}"
    size = f"{pointer.logical} bytes in {pointer.stored}"
    if pointer.level == DATA_LEVEL:
        return f"data at {place}, {size}"
    items = unpack_summary(ref).items
    return f"level {pointer.level} at {place}, {size}, {items} items"


def show_value(inner: bool, kind: int, value: bytes) -> str:
    """What a cell holds."""
    if inner or kind == EXTENT:
        return show_pointer(value)
    if kind == INLINE:
        return f"{len(value)} bytes: {shorten(value)}"
    ref, size, _ = unpack_blob(value)
    return f"{size} bytes: {show_pointer(ref) if ref != NO_REF else 'a hole'}"


def shorten(data: bytes) -> str:
    """The beginning of a key or value."""
    text = show_text(data[:SHOWN])
    return f"'{text}'" if len(data) <= SHOWN and len(text) <= SHOWN else f"'{text[:SHOWN]}…'"
