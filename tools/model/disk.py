"""Blocks, and what may be found in them after a power cut.

A block is the tuple of all contents that may be found there, the last written at the end: until a
flush, the new one and all before. What a power cut left is decided when somebody looks: that visits
the same outcomes as deciding it for all blocks at once, and far fewer states.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple

Content = Hashable
NOTHING: Content = "nothing"
"""Zeros, a part of a write, or what nobody will ever ask for: whoever reads it sees that it is no
record, no superblock, and not what a checksum wants."""


class Unknown(Exception):
    """A block was looked at of which several contents may be found."""

    def __init__(self, block: int) -> None:
        self.block = block


class Disk(NamedTuple):
    """What may be where."""

    blocks: tuple[tuple[Content, ...], ...]
    dirty: frozenset[int] = frozenset()
    """Blocks that were written since the last flush."""

    def read(self, block: int) -> Content:
        """What is there; Unknown where a power cut may have left one thing or another."""
        found = set(self.blocks[block])
        if len(found) > 1:
            raise Unknown(block)
        return self.blocks[block][0]

    def decide(self, block: int, content: Content) -> Disk:
        """This is what the power cut left there."""
        blocks = list(self.blocks)
        blocks[block] = (content,)
        return self._replace(blocks=tuple(blocks))

    def write(self, block: int, content: Content, *, tears: bool = False) -> Disk:
        """Write a block; until it is flushed, it may be there or not, or torn."""
        blocks = list(self.blocks)
        torn = (NOTHING,) if tears else ()
        before = [old for old in blocks[block] if old not in (content, *torn)]
        blocks[block] = (*before, *torn, content)
        return Disk(tuple(blocks), self.dirty | {block})

    def asked(self) -> tuple[tuple[int, Content], ...]:
        """What a flush that begins now will make durable: (block, content)."""
        return tuple((block, self.blocks[block][-1]) for block in sorted(self.dirty))

    def flushed(self, asked: tuple[tuple[int, Content], ...]) -> Disk:
        """A flush has ended: what it was asked for is there, or what was written since."""
        blocks = list(self.blocks)
        clean = set()
        for block, content in asked:
            if content in blocks[block]:
                blocks[block] = blocks[block][blocks[block].index(content) :]
            if len(blocks[block]) == 1:
                clean.add(block)
        return Disk(tuple(blocks), self.dirty - clean)

    def dropped(self, asked: tuple[tuple[int, Content], ...]) -> Disk:
        """A flush has failed: the host will not try again, whatever the disk has got."""
        return self._replace(dirty=self.dirty - {block for block, _ in asked})

    def forget(self, block: int, worthless: Callable[[int, Content], bool]) -> Disk:
        """Contents of a free block that make no difference are all the same."""
        old = self.blocks[block]
        new = tuple(
            dict.fromkeys(NOTHING if worthless(block, content) else content for content in old)
        )
        if new == old:
            return self
        blocks = list(self.blocks)
        blocks[block] = new
        return self._replace(
            blocks=tuple(blocks), dirty=self.dirty - ({block} if len(new) == 1 else set())
        )

    def stopped(self) -> Disk:
        """The machine stopped: nothing is under way any more, and order says nothing."""
        blocks = tuple(tuple(sorted(set(found), key=repr)) for found in self.blocks)
        return Disk(blocks)
