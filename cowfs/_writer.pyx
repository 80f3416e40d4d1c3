# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Gives blocks their addresses and writes them in few, long runs.

A writer consumes runs of free blocks from the space layer one after the other, and buffers what it
places, so that a small transaction reaches the device as one write: its commit record first, in the
block that the commit before it reserved, and everything else right behind.

Invariants: only blocks that the space layer handed out are written; every write of a transaction is
listed in `runs` with a checksum over it; nothing is durable before the store flushes the device.
"""

import contextlib

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.bytearray cimport PyByteArray_AS_STRING
from libc.string cimport memcpy, memset

cdef Py_ssize_t BUFFER = 1 << 20  # behind the block of the record: as much as the longest run
cdef int MAX_SKIP = 31


cdef class BlockWriter:
    """Places nodes, records and other bytes; the one way in which a store writes blocks."""

    def __init__(self, device, space, Cache cache, int compression, compress, checksum):
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

    def reserve_record(self):
        """Set the block for the next commit record aside, at the start of what is written next.

        What was written behind arrives first: an error of that fails the transaction and no more.
        """
        self.bulk = False
        self.device.settle()
        self.take(1)
        self.close_segment()
        self.next_record = self.cursor
        self.cursor += 1
        self.segment = self.cursor
        return self.next_record

    def adopt(self, uint64_t record_block):
        """Continue after opening an image: the log goes on in `record_block`."""
        self.record_block = record_block

    def close_segment(self):
        """Put the blocks placed since the last call on the list of segments."""
        if self.cursor > self.segment:
            self.segments.append((self.segment, self.cursor - self.segment))
        self.segment = self.cursor

    def finish_run(self):
        """Give back what is left of the current run."""
        self.drain()
        self.close_segment()
        if self.end > self.cursor:
            self.space.give_back(self.cursor, self.end - self.cursor)
        self.cursor = self.end = self.segment = self.buffered = 0
        self.in_log = False

    def enter_log(self):
        """Go on in a run that the host has allocated, and that is kept for the log."""
        if not self.in_log:
            self.finish_run()
        self.logging = True

    def leave_log(self):
        """Place much: elsewhere, so that the log stays in one piece, unless it is the log."""
        if self.in_log and not self.logging:
            self.drain()
            self.close_segment()
            self.space.keep_for_log(self.cursor, self.end - self.cursor)
            self.cursor = self.end = self.segment = self.buffered = 0
            self.in_log = False

    def take(self, Py_ssize_t blocks):
        """Make the current run hold at least `blocks` more, if need be by starting another."""
        if self.cursor + blocks <= self.end:
            return
        self.finish_run()
        start, length = self.space.take_run(blocks, self.written, log=self.logging)
        self.cursor = self.segment = self.buffered = start
        self.end = start + length
        self.in_log = self.logging

    def drain(self):
        """Write the buffer to the device."""
        self.seal()
        if self.fill > self.block_size:
            write = self.device.write_behind if self.bulk else self.device.write
            write(
                self.buffered * self.block_size,
                memoryview(self.buffer)[self.block_size:self.fill])
        self.buffered = self.cursor
        self.fill = self.block_size

    def seal(self):
        """List what is buffered in `runs`, with its checksum."""
        cdef Py_ssize_t length = self.fill - self.block_size
        if length and self.proving and self.sealed != self.buffered:
            self.sealed = self.buffered
            self.runs.append((
                self.buffered, length // self.block_size,
                self.checksum(memoryview(self.buffer)[self.block_size:self.fill])))

    def write_record(self, bytes record):
        """Write the commit record (one block) and all that is still buffered."""
        cdef Py_ssize_t length
        if self.buffered == self.record_block + 1 and self.fill > self.block_size:
            memcpy(PyByteArray_AS_STRING(self.buffer), PyBytes_AS_STRING(record), self.block_size)
            self.device.write(
                self.record_block * self.block_size, memoryview(self.buffer)[:self.fill])
        else:
            self.drain()
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
            return None
        at = self.block_size + <Py_ssize_t>(block - self.buffered) * self.block_size
        return bytes(self.buffer[at:at + length])

    def abandon(self):
        """Give back everything that was placed since `begin`."""
        self.fill = self.block_size
        self.close_segment()
        if self.next_record:
            self.space.give_back(self.next_record, 1)
            self.next_record = 0
        for start, length in self.segments:
            self.space.give_back(start, length)
        if self.end > self.cursor:
            self.space.give_back(self.cursor, self.end - self.cursor)
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
            self.drain()
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
        return self.cursor + blocks <= self.end or self.space.has_run(blocks)

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
        node.birth = self.txid
        node.stored = <uint32_t>PyBytes_GET_SIZE(payload)
        node.logical = <uint32_t>length
        node.compression = compression
        memcpy(node.checksum, PyBytes_AS_STRING(digest), 16)
        self.cache.admit(node)
        return True
