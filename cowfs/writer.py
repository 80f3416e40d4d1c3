"""The one way in which a store writes blocks, with what not every commit has to do."""

from __future__ import annotations

import contextlib

from ._writer import RunWriter


class BlockWriter(RunWriter):
    """A writer that can leave the runs which it is in, and give up what it placed there."""

    def adopt(self, record_block: int) -> None:
        """Continue after opening an image: the log goes on in `record_block`."""
        self.record_block = record_block

    def begin(self, txid: int) -> None:
        """Start a transaction: nothing is placed yet."""
        self.txid = txid
        self.written = 0
        self.proving = True
        self.bulk = self.logging = False
        self.restart()

    def enter_log(self) -> None:
        """Go on in a run that the host has allocated, and that is kept for the log."""
        if not self.first.in_log:
            self.first.leave_run(self)
        self.logging = True

    def leave_log(self) -> None:
        """Place much: elsewhere, so that the log stays in one piece, unless it is the log."""
        if self.first.in_log and not self.logging:
            self.first.leave_run(self)

    def write_through(self, data: bytes | memoryview, length: int) -> list[int]:
        """`write` of records of `length` bytes, whole blocks, from where they lie, without a copy
        of them in the buffer: for a transaction that needs no proof of what it writes. The first
        block of each."""
        first, size = self.first, self.block_size
        per_record = length // size
        blocks: list[int] = []
        while len(data):
            self.take(per_record)
            first.drain(self)
            start: int = first.cursor
            part = data[: (first.end - start) // per_record * length]
            self.device.write(start * size, part)
            first.cursor = first.buffered = start + len(part) // size
            self.written += len(part)
            blocks += range(start, first.cursor, per_record)
            data = data[len(part) :]
        return blocks

    def reserve_record(self) -> int:
        """Set the block for the next commit record aside, at the start of what is written next.

        What was written behind arrives first: an error of that fails the transaction and no more.
        """
        self.bulk = False
        self.device.settle()
        self.take(1)
        first = self.first
        first.end_segment(self)
        block: int = first.cursor
        self.next_record = block
        first.cursor = first.segment = block + 1
        return block

    def seal(self) -> None:
        """List what is buffered in `runs`, with its checksum."""
        for stream in self.streams:
            stream.seal(self)

    def write_record(self, record: bytes) -> None:
        """Write the commit record (one block), and what is buffered right behind it."""
        first = self.first
        data: bytes | memoryview = record
        if first.buffered == self.record_block + 1 and first.fill > first.head:
            data = memoryview(first.buffer)[: first.fill]
            data[: first.head] = record
        self.device.write(self.record_block * self.block_size, data)
        self.record_block = self.next_record
        self.next_record = 0
        self.restart()  # nothing is left to abandon

    @property
    def unplaced(self) -> list[tuple[int, int]]:
        """(block, blocks) of what is left of the current runs."""
        # Both of a run are of one moment: the interpreter changes threads where it calls or loops.
        return [(run.cursor, run.end - run.cursor) for run in self.streams]

    def close_segment(self) -> None:
        """Put the blocks placed since the last call on the list of segments."""
        for stream in self.streams:
            stream.end_segment(self)

    def drain(self) -> None:
        """Write all that is buffered to the device."""
        for stream in self.streams:
            stream.drain(self)

    def drain_apart(self) -> None:
        """Write what is buffered elsewhere than right behind the record: what the host refuses of
        it fails the transaction, and not the store."""
        for stream in self.streams:
            if stream is not self.first or stream.buffered != self.record_block + 1:
                stream.drain(self)

    def finish_run(self) -> None:
        """Give back what is left of the current runs."""
        for stream in self.streams:
            stream.leave_run(self)

    def abandon(self) -> None:
        """Give back everything that was placed since `begin`. It can be done again, should
        something interrupt."""
        for stream in self.streams:
            stream.fill = stream.head
            stream.in_log = False
            stream.leave_run(self)
        if self.next_record:
            self.space.give_back(self.next_record, 1)
            self.next_record = 0
        for start, length in self.segments:
            self.space.give_back(start, length)
        self.segments, self.runs = [], []
        with contextlib.suppress(OSError):  # nobody needs what was written behind any more
            self.device.settle()
