# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Gives blocks their addresses and writes them in few, long runs.

A writer consumes runs of free blocks from the space layer one after the other, and buffers what it
places, so that a small transaction reaches the device as one write: its commit record first, in the
block that the commit before it reserved, and everything else right behind.

Invariants: only blocks that the space layer handed out are written; every write of a transaction is
listed in `runs` with a checksum over it; nothing is durable before the store flushes the device.

Where an image has two copies of its nodes, the second ones go into runs of their own, far from the
first (`Twins`), as a part of the same transaction: in its segments, its runs, its proof.
"""

import contextlib

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.bytearray cimport PyByteArray_AS_STRING
from libc.string cimport memcpy, memset

from cowfs import limits

cdef Py_ssize_t BUFFER = 1 << 20  # behind the block of the record: as much as the longest run
cdef int MAX_SKIP = 31
cdef int64_t APART = limits.GROUP_BLOCKS  # so far apart, two blocks are never of one group
cdef int64_t MAX_DISTANCE = limits.MAX_TWIN


cdef class Twins:
    """Places second copies of nodes, behind one another as long as they are far from the first."""

    def __init__(self, BlockWriter writer):
        self.device = writer.device
        self.space = writer.space
        self.checksum = writer.checksum
        self.block_size = writer.block_size
        self.buffer = bytearray(BUFFER)

    cdef int begin(self) except -1:
        self.sealed = 0
        self.fill = 0
        self.buffered = self.segment = self.cursor
        return 0

    cdef int32_t place(self, BlockWriter writer, uint64_t block, bytes data) except? -1:
        """Blocks from the first copy at `block` to the second; 0 where there is no room for one."""
        cdef Py_ssize_t length = PyBytes_GET_SIZE(data)
        cdef Py_ssize_t blocks = (length + self.block_size - 1) // self.block_size
        cdef Py_ssize_t padded = blocks * self.block_size
        cdef int64_t distance = <int64_t>self.cursor - <int64_t>block
        cdef char* to
        if self.cursor + blocks > self.end or not (
                self.least <= (distance if distance > 0 else -distance) < MAX_DISTANCE):
            self.finish_run(writer)
            start, found = self.space.take_twin_run(blocks, writer.written, block)
            if not found:
                return 0
            self.cursor = self.segment = self.buffered = start
            self.end = start + <uint64_t>found
            distance = <int64_t>self.cursor - <int64_t>block
            # What follows may come nearer by a part, so that not each small step needs another run.
            self.least = min(APART, (distance if distance > 0 else -distance) * 2 // 3)
        if self.fill + padded > BUFFER:
            self.drain(writer)
        to = PyByteArray_AS_STRING(self.buffer) + self.fill
        memcpy(to, PyBytes_AS_STRING(data), length)
        memset(to + length, 0, padded - length)
        self.fill += padded
        self.cursor += blocks
        writer.written += padded
        return <int32_t>distance

    cdef int close_segment(self, BlockWriter writer) except -1:
        if self.cursor > self.segment:
            writer.segments.append((self.segment, self.cursor - self.segment))
        self.segment = self.cursor
        return 0

    cdef int seal(self, BlockWriter writer) except -1:
        """List what is buffered among the runs of the transaction, as `BlockWriter.seal` does."""
        if self.fill and writer.proving and self.sealed != self.buffered:
            self.sealed = self.buffered
            writer.runs.append((
                self.buffered, self.fill // self.block_size,
                self.checksum(memoryview(self.buffer)[:self.fill])))
        return 0

    cdef int drain(self, BlockWriter writer) except -1:
        """Write the buffer to the device."""
        self.seal(writer)
        if self.fill:
            self.device.write(self.buffered * self.block_size, memoryview(self.buffer)[:self.fill])
        self.buffered = self.cursor
        self.fill = 0
        return 0

    cdef int finish_run(self, BlockWriter writer) except -1:
        """Give back what is left of the current run."""
        self.drain(writer)
        self.close_segment(writer)
        self.give_back()
        return 0

    cdef int give_back(self) except -1:
        if self.end > self.cursor:
            self.space.give_back(self.cursor, self.end - self.cursor)
        self.cursor = self.end = self.segment = self.buffered = 0
        return 0

    cdef bytes held(self, uint64_t block, Py_ssize_t length):
        cdef Py_ssize_t at
        if self.fill == 0 or not self.buffered <= block < self.cursor:
            return None
        at = <Py_ssize_t>(block - self.buffered) * self.block_size
        return bytes(self.buffer[at:at + length])


cdef class BlockWriter:
    """Places nodes, records and other bytes; the one way in which a store writes blocks."""

    def __init__(self, device, space, Cache cache, int compression, compress, checksum,
                 int copies=1):
        self.device = device
        self.space = space
        self.cache = cache
        self.block_size = space.block_size
        self.compression = compression
        self.compress = compress
        self.checksum = checksum
        self.room = BUFFER + self.block_size
        self.buffer = bytearray(self.room)
        self.segments = []
        self.runs = []
        self.twins = Twins(self) if copies == 2 else None

    def begin(self, uint64_t txid):
        """Start a transaction: nothing is placed yet."""
        self.txid = txid
        self.written = 0
        self.sealed = 0
        self.proving = True
        self.bulk = False
        self.logging = False
        self.segments = []
        self.runs = []
        self.fill = self.block_size
        self.buffered = self.cursor
        self.segment = self.cursor
        if self.twins is not None:
            self.twins.begin()

    def reserve_record(self):
        """Set the block for the next commit record aside, at the start of what is written next.

        What was written behind arrives first: an error of that fails the transaction and no more.
        """
        self.bulk = False
        self.device.settle()
        self.take(1)
        self.end_segment()
        self.next_record = self.cursor
        self.cursor += 1
        self.segment = self.cursor
        return self.next_record

    def adopt(self, uint64_t record_block):
        """Continue after opening an image: the log goes on in `record_block`."""
        self.record_block = record_block

    def close_segment(self):
        """Put the blocks placed since the last call on the list of segments."""
        self.end_segment()
        if self.twins is not None:
            self.twins.close_segment(self)

    cdef int end_segment(self) except -1:
        if self.cursor > self.segment:
            self.segments.append((self.segment, self.cursor - self.segment))
        self.segment = self.cursor
        return 0

    def finish_run(self):
        """Give back what is left of the current runs."""
        self.leave_run()
        if self.twins is not None:
            self.twins.finish_run(self)

    cdef int leave_run(self) except -1:
        """Give back what is left of the current run, or keep it for the log if it is of it."""
        self.empty()
        self.end_segment()
        if self.in_log:
            self.space.keep_for_log(self.cursor, self.end - self.cursor)
        elif self.end > self.cursor:
            self.space.give_back(self.cursor, self.end - self.cursor)
        self.cursor = self.end = self.segment = self.buffered = 0
        self.in_log = False
        return 0

    def enter_log(self):
        """Go on in a run that the host has allocated, and that is kept for the log."""
        if not self.in_log:
            self.leave_run()
        self.logging = True

    def leave_log(self):
        """Place much: elsewhere, so that the log stays in one piece, unless it is the log."""
        if self.in_log and not self.logging:
            self.leave_run()

    def take(self, Py_ssize_t blocks):
        """Make the current run hold at least `blocks` more, if need be by starting another."""
        if self.cursor + blocks <= self.end:
            return
        self.leave_run()
        start, length = self.space.take_run(blocks, self.written, log=self.logging)
        self.cursor = self.segment = self.buffered = start
        self.end = start + length
        self.in_log = self.logging

    def drain(self):
        """Write all that is buffered to the device."""
        self.empty()
        if self.twins is not None:
            self.twins.drain(self)

    cdef int empty(self) except -1:
        """Write what is buffered of the current run."""
        self.seal_run()
        if self.fill > self.block_size:
            write = self.device.write_behind if self.bulk else self.device.write
            write(
                self.buffered * self.block_size,
                memoryview(self.buffer)[self.block_size:self.fill])
        self.buffered = self.cursor
        self.fill = self.block_size
        return 0

    def seal(self):
        """List what is buffered in `runs`, with its checksum."""
        self.seal_run()
        if self.twins is not None:
            self.twins.seal(self)

    cdef int seal_run(self) except -1:
        cdef Py_ssize_t length = self.fill - self.block_size
        if length and self.proving and self.sealed != self.buffered:
            self.sealed = self.buffered
            self.runs.append((
                self.buffered, length // self.block_size,
                self.checksum(memoryview(self.buffer)[self.block_size:self.fill])))
        return 0

    def write_record(self, bytes record):
        """Write the commit record (one block) and all that is still buffered."""
        if self.twins is not None:
            self.twins.drain(self)
            self.twins.segment = self.twins.cursor
        if self.buffered == self.record_block + 1 and self.fill > self.block_size:
            memcpy(PyByteArray_AS_STRING(self.buffer), PyBytes_AS_STRING(record), self.block_size)
            self.device.write(
                self.record_block * self.block_size, memoryview(self.buffer)[:self.fill])
        else:
            self.empty()
            self.device.write(self.record_block * self.block_size, record)
        self.fill = self.block_size
        self.buffered = self.cursor
        self.record_block = self.next_record
        self.next_record = 0
        self.segments = []  # nothing is left to abandon
        self.segment = self.cursor

    def held(self, uint64_t block, Py_ssize_t length):
        """Bytes that were placed at `block` and are not on the device yet; None for others."""
        cdef Py_ssize_t at
        if self.fill == self.block_size or not self.buffered <= block < self.cursor:
            return None if self.twins is None else self.twins.held(block, length)
        at = self.block_size + <Py_ssize_t>(block - self.buffered) * self.block_size
        return bytes(self.buffer[at:at + length])

    @property
    def unplaced(self):
        """(block, blocks) of what is left of the current runs."""
        runs = [(self.cursor, self.end - self.cursor)]
        if self.twins is not None:
            runs.append((self.twins.cursor, self.twins.end - self.twins.cursor))
        return [run for run in runs if run[1]]

    def abandon(self):
        """Give back everything that was placed since `begin`."""
        self.fill = self.block_size
        if self.twins is not None:
            self.twins.fill = 0
        self.close_segment()
        if self.next_record:
            self.space.give_back(self.next_record, 1)
            self.next_record = 0
        for start, length in self.segments:
            self.space.give_back(start, length)
        if self.end > self.cursor:
            self.space.give_back(self.cursor, self.end - self.cursor)
        if self.twins is not None:
            self.twins.give_back()
        self.in_log = False
        self.cursor = self.end = self.segment = self.buffered = 0
        self.segments = []
        self.runs = []
        with contextlib.suppress(OSError):  # nobody needs what was written behind any more
            self.device.settle()

    cdef uint64_t place(self, const uint8_t* data, Py_ssize_t length) except? 0:
        cdef Py_ssize_t blocks = (length + self.block_size - 1) // self.block_size
        cdef Py_ssize_t padded = blocks * self.block_size
        cdef uint64_t block
        cdef char* to
        if self.cursor + blocks > self.end:
            self.take(blocks)
        if self.fill + padded > self.room:
            self.empty()
        block = self.cursor
        if self.block_size + padded > self.room:
            self.room = self.block_size + padded
            self.buffer = bytearray(self.room)
        to = PyByteArray_AS_STRING(self.buffer) + self.fill
        memcpy(to, data, length)
        memset(to + length, 0, padded - length)
        self.fill += padded
        self.cursor += blocks
        self.written += padded
        return block

    def write(self, const uint8_t[::1] data):
        """Place bytes of any length in one run; returns their first block."""
        return self.place(&data[0], data.shape[0])

    def limited(self):
        """Whether the image has a limit of size, so that `write_node` may find no run."""
        return self.space.limit > 0

    cdef bint has_room(self, Py_ssize_t blocks) except -1:
        """Whether so many blocks are to be had in one run."""
        return self.cursor + blocks <= self.end or self.space.has_runs(blocks)

    cdef bint write_node(self, Node node) except -1:
        """Store a packed node whose children are stored; False, and nothing done, where it takes a
        run of blocks that is not to be had, and could be split.

        Compression is tried only where it can save a block, and less often while it does not.
        """
        cdef bytes page = node.page
        cdef bytes payload = page, digest
        cdef Py_ssize_t length = PyBytes_GET_SIZE(page), blocks
        cdef int compression = 0
        blocks = (length + self.block_size - 1) // self.block_size
        if self.compression and blocks > 1:
            if self.skip > 0 and self.has_room(blocks):
                self.skip -= 1
            else:
                payload = self.compress(page)
                if (PyBytes_GET_SIZE(payload) + self.block_size - 1) // self.block_size < blocks:
                    compression = self.compression
                    self.incompressible = 0
                else:
                    payload = page
                    if self.incompressible < MAX_SKIP:
                        self.incompressible += 1
                    self.skip = self.incompressible
        blocks = (PyBytes_GET_SIZE(payload) + self.block_size - 1) // self.block_size
        if blocks > 1 and node.n > 1 and not self.has_room(blocks):
            return False
        digest = self.checksum(payload)
        node.block = self.place(
            <const uint8_t*>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))
        node.twin = 0 if self.twins is None else self.twins.place(self, node.block, payload)
        node.birth = self.txid
        node.stored = <uint32_t>PyBytes_GET_SIZE(payload)
        node.logical = <uint32_t>length
        node.compression = compression
        memcpy(node.checksum, PyBytes_AS_STRING(digest), 16)
        self.cache.admit(node)
        return True
