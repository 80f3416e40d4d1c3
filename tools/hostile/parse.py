"""Coverage-guided fuzzing of everything that takes bytes apart, by atheris (libFuzzer for Python).

One input is tried as everything that it could be. A node page goes through the compiled proof, and
what is proven is walked and searched. A parser gives what it found, or ValueError or FormatError,
which its callers expect. Anything else is a crash, and its input is kept.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cowfs
from cowfs import format as layout
from cowfs import limits
from cowfs._node import Cache
from cowfs._tree import Tree
from cowfs._view import node_items
from cowfs.fs import inode

from .images import make
from .seal import Forgery, seal_block

NODE = 4096
_LEVELS = 3


class _OnePage:
    """Where a tree reads from: one page, whatever its checksum."""

    total_blocks = 1 << 20
    block_size = 4096

    def __init__(self, page: bytes) -> None:
        self.page = page

    def read(self, pointer: bytes, label: str) -> bytes:
        return self.page


def try_page(page: bytes) -> None:
    """Prove a page as a node of each level; use what is proven."""
    for level in range(_LEVELS):
        pointer = layout.pack_pointer(9, 1, NODE, NODE, 0, level, bytes(16))
        try:
            _, items = node_items(_OnePage(page), NODE, pointer + bytes(28), "")
        except cowfs.CorruptionError:
            continue
        keys = [key for key, _, _ in items]
        if keys != sorted(set(keys)):
            raise AssertionError("keys out of order")
        _use(Tree(_OnePage(page), Cache(1 << 20), NODE, 16, pointer + bytes(28)), keys)


def _use(tree: Any, keys: list[bytes]) -> None:
    """Search and scan; the summary in the reference is wrong, and mostly all ends there."""
    tree.resolve = lambda kind, value: value
    for operation in (
        lambda: list(tree.items_between()),
        lambda: list(tree.items_between(reverse=True)),
        lambda: [tree.get(key) for key in keys if key],
        lambda: len(tree),
    ):
        try:
            operation()
        except cowfs.CorruptionError:
            continue


def _sealed(parse: Callable[[bytes], object], data: bytes) -> None:
    """A block of these bytes, and with the checksum that belongs to them."""
    parse(seal_block(data[: 4096 - layout.CHECKSUM_SIZE].ljust(4096 - layout.CHECKSUM_SIZE, b"\0")))


def _group(data: bytes) -> None:
    layout.unpack_group(data, limits.GROUP_BLOCKS // 8)


PARSERS: tuple[Callable[[bytes], object], ...] = (
    layout.unpack_superblock,
    layout.unpack_record,
    partial(_sealed, layout.unpack_superblock),
    partial(_sealed, layout.unpack_record),
    layout.unpack_delta,
    layout.unpack_meta,
    layout.unpack_root,
    layout.unpack_drop,
    layout.group_number,
    _group,
    inode.unpack_inode,
    inode.unpack_entry,
    inode.unpack_counter,
    inode.split_key,
    inode.split_name_key,
)


def try_bytes(data: bytes) -> None:
    """One input, as everything that it could be."""
    try_page(data)
    for parse in PARSERS:
        with contextlib.suppress(ValueError, cowfs.FormatError):
            parse(data)


def seeds() -> list[bytes]:
    """Inputs to begin with: every node of a sample, and its superblock and records."""
    forgery = Forgery(make("plain").data)
    found = [forgery.load(forgery.pointer(block)) for block in forgery.spots]
    found = [data for data in found if len(data) <= NODE]
    return [*found, forgery.superblock.pack(), *(forgery.block(b) for b, _ in forgery.records)]


def main() -> None:
    """`python -m hostile.parse DIRECTORY [options of libFuzzer]`; the directory keeps inputs."""
    import atheris

    corpus = Path(sys.argv[1])
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds()):
        (corpus / f"seed-{number}").write_bytes(data)
    os.chdir(corpus.parent)  # where a crashing input is left
    atheris.instrument_all()
    atheris.Setup([sys.argv[0], str(corpus.name), *sys.argv[2:]], try_bytes)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
