"""What makes a tree a sound file system: the invariants of `inode.py`, checked one by one.

The items come in the order of inode numbers, so one file is looked at a time; what its names say
about other files is looked up. Memory does not grow with the tree.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import groupby

from .._tree import Tree
from ..blockio import BlockIO
from ..errors import CorruptionError, StaleFileError
from ..values import cell_size
from .inode import (
    COUNTER,
    DATA,
    DIRECTORY,
    ENTRY,
    FIRST_INODE,
    INODE,
    NAME,
    NO_INODE,
    ORPHAN,
    ROOT,
    SYMLINK,
    XATTR,
    Inode,
    make_key,
    make_name_key,
    sound_name,
    split_key,
    split_name_key,
    unpack_counter,
    unpack_entry,
    unpack_inode,
)
from .nodes import Inodes, sound_attribute

_Item = tuple[bytes, int, bytes]


def faults(io: BlockIO, tree: Tree) -> Iterator[str]:
    """What is wrong with the files in a tree, a line each."""
    nodes = Inodes(io, tree)
    highest = FIRST_INODE - 1
    try:
        items: Iterator[_Item] = tree.items_between(what=3)
        for number, own in groupby(items, lambda item: split_key(item[0])[0]):
            if number == NO_INODE:
                highest = yield from _common(nodes, own)
                continue
            if number > highest:
                yield f"inode {number}: above the counter of numbers"
            try:
                for fault in _file(nodes, number, own):
                    yield f"inode {number}: {fault}"
            except ValueError as error:
                yield f"inode {number}: {error}"
            except CorruptionError as error:
                if error.block is not None:
                    raise
                yield f"inode {number}: {error.reason}"
    except ValueError as error:
        yield str(error)


def _common(nodes: Inodes, items: Iterator[_Item]) -> Generator[str, None, int]:
    """What belongs to no file. Returns the highest inode number given so far."""
    highest = FIRST_INODE - 1
    for key, _, value in items:
        _, kind, rest = split_key(key)
        if kind == COUNTER and not rest:
            highest = unpack_counter(value) - 1
        elif kind == ORPHAN and len(rest) == 8:
            number = int.from_bytes(rest, "big")
            inode = nodes.find(number)
            if inode is None or inode.nlink:
                yield f"inode {number}: listed as removed while open, and not so"
        else:
            yield f"unknown item {key.hex()}"
    return highest


def _file(nodes: Inodes, number: int, items: Iterator[_Item]) -> Iterator[str]:
    tree = nodes.tree
    inode: Inode | None = nodes.find(number) if number == ROOT else None
    entries = directories = names = content = 0
    for key, stored, value in items:
        _, kind, rest = split_key(key)
        if kind == INODE and not rest:
            inode = unpack_inode(value)
        elif kind == ENTRY:
            child, child_kind = unpack_entry(value)
            entries += 1
            directories += child_kind == DIRECTORY
            yield from _entry(nodes, number, rest, child, child_kind)
        elif kind == NAME:
            names += 1
            parent, name = split_name_key(key)
            if nodes.lookup(parent, name) != (number, inode.type if inode else None):
                yield f"named {name!r} in directory {parent}, which has no such entry"
        elif kind == DATA and not rest:
            content = cell_size((stored, value))
        elif kind == XATTR and rest:
            if not sound_attribute(rest):
                yield f"an attribute named {rest!r}"
        else:
            yield f"unknown item {key.hex()}"
    if inode is None:
        yield "items without an inode"
        return
    if inode.is_directory:
        if inode.nlink != 2 + directories:
            yield f"a directory of {directories} directories with {inode.nlink} links"
        if inode.size != entries:
            yield f"a directory of {entries} entries with size {inode.size}"
        if names != (number != ROOT):
            yield f"a directory of {names} names"
        elif number != ROOT:
            try:
                for _ in nodes.ancestors(number):
                    pass
            except StaleFileError:
                yield "a directory that does not lead to the root"
        return
    if entries:
        yield "no directory, but with entries"
    if inode.nlink != names:
        yield f"{names} names with {inode.nlink} links"
    orphan = make_key(NO_INODE, ORPHAN) + number.to_bytes(8, "big")
    if not inode.nlink and orphan not in tree:
        yield "no names"
    if inode.size != content:
        yield f"size {inode.size} with {content} bytes of content"
    if inode.type == SYMLINK and not content:
        yield "a symbolic link to nowhere"


def _entry(nodes: Inodes, number: int, name: bytes, child: int, kind: int) -> Iterator[str]:
    if not sound_name(name):
        yield f"an entry named {name!r}"
    inode = nodes.find(child)
    if inode is None or inode.type != kind:
        yield f"entry {name!r} for inode {child} of type {kind}, which there is not"
    if make_name_key(child, NAME, number) + name not in nodes.tree:
        yield f"entry {name!r} for inode {child}, which knows no such name"
