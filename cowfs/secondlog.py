"""Second copies of commit records, and of what does not fit in them, where metadata has two copies.

A commit is one write, from the block that the commit before it reserved; and so is the second copy
of it, elsewhere: `record` is reserved for the copy of the next record, and what overflows has its
copy right behind. Both are flushed with the commit: of one that was acknowledged both are there.

The copies lie far from the first ones (`Space.take_twin_run`) and belong to the log like these.
Where there is no room, as something is deleted, there is no second copy.
"""

from __future__ import annotations

from collections.abc import Iterator

from . import limits
from .codec import checksum
from .device import Device
from .format import Run
from .space import Space


class SecondLog:
    """Places and writes the second copies of one transaction after the other."""

    def __init__(self, device: Device, space: Space, record: int) -> None:
        self.device = device
        self.space = space
        self.record = record
        """Where the copy of the next record goes; 0: it has none."""
        self.copies: list[int] = []
        """Blocks of the copies of what overflows, in order; 0 for one that has none."""
        self._next = 0
        self._run = (0, 0)
        """(first block, blocks) of what is left of a run."""
        self._least = 0
        """Blocks that a copy in this run has to be away from the first, at least."""
        self._taken: list[tuple[int, int]] = []
        """(block, blocks) that this transaction has taken."""
        self._unwritten: list[tuple[int, bytes]] = []

    def place(self, data: bytes, first: int) -> None:
        """Copy what overflows, the first copy of which is at block `first`."""
        block_size = self.space.block_size
        blocks = -(-len(data) // block_size)
        block = self._take(blocks, first)
        self.copies.append(block)
        if block:
            self._unwritten.append((block, data.ljust(blocks * block_size, b"\0")))

    def reserve_record(self, first: int) -> int:
        """Set a block aside for the copy of the next record, which will be at block `first`."""
        self._next = self._take(1, first)
        return self._next

    def runs(self) -> Iterator[Run]:
        """What has to be there for the transaction to count."""
        for block, data in self._unwritten:
            yield Run(block, len(data) // self.space.block_size, checksum(data))

    def drain(self) -> None:
        """Write what overflows."""
        self._write(self._unwritten)
        self._unwritten = []

    def write_record(self, record: bytes) -> None:
        """Write the copy of the record, and all that is not written yet. Its blocks are the log's
        from here on."""
        self._write([*([(self.record, record)] if self.record else []), *self._unwritten])
        self.record, self._next = self._next, 0
        self._taken, self._unwritten, self.copies = [], [], []

    def finish_run(self) -> None:
        """Give back what is left of the current run."""
        self.space.give_back(*self._run)
        self._run = (0, 0)

    def abandon(self) -> None:
        """Give back all that was taken since the last record."""
        for start, blocks in self._taken:
            self.space.give_back(start, blocks)
        self.finish_run()
        self._next = 0
        self._taken, self._unwritten, self.copies = [], [], []

    def unplaced(self) -> Iterator[tuple[int, int]]:
        """(block, blocks) of what is held, and not the log's yet."""
        if self._run[1]:
            yield self._run

    def _take(self, blocks: int, first: int) -> int:
        """The first of so many blocks far from `first`; 0 where there is no room."""
        if blocks > self._run[1] or abs(self._run[0] - first) < self._least:
            self.finish_run()
            self._run = self.space.take_twin_run(blocks, 0, first, log=True)
            if not self._run[1]:
                return 0
            # As the log goes on it may come nearer by a part (see `RunWriter.take_twin`).
            self._least = min(limits.GROUP_BLOCKS, abs(self._run[0] - first) * 2 // 3)
        start, left = self._run
        self._taken.append((start, blocks))
        self._run = start + blocks, left - blocks
        return start

    def _write(self, pieces: list[tuple[int, bytes]]) -> None:
        """Write what lies side by side in one go."""
        block_size = self.space.block_size
        at, together = 0, b""
        for block, data in pieces:
            if together and block * block_size != at + len(together):
                self.device.write(at, together)
                together = b""
            if not together:
                at = block * block_size
            together += data
        if together:
            self.device.write(at, together)
