# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Gives blocks their addresses and writes them in few, long runs. What not every commit has to do
is in `writer.py`.

A writer consumes runs of free blocks from the space layer one after the other, and buffers what it
places, so that a small transaction reaches the device as one write: its commit record first, in the
block that the commit before it reserved, and everything else right behind.

Where an image has two copies of its nodes, the second ones go into runs of their own, far from the
first (`twins`), as a part of the same transaction: in its segments, its runs, its proof.

Invariants: only blocks that the space layer handed out are written; every write of a transaction is
listed in `runs` with a checksum over it; nothing is durable before the store flushes the device.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport llabs
from libc.string cimport memcpy, memset

from cowfs._bytes cimport Slice, slice_of
from cowfs._node cimport Cache, Node

from cowfs import limits

cdef Py_ssize_t BUFFER = 1 << 20  # behind the block of the record
cdef int MAX_SKIP = 31
cdef int64_t APART = limits.GROUP_BLOCKS  # so far apart, two blocks are never of one group
cdef int64_t MAX_DISTANCE = limits.MAX_TWIN


cdef class RunWriter


@cython.final
cdef class Stream:
    """Runs of free blocks, one after the other, and what is buffered of the current one.

    Of that run, the blocks from `cursor` to `end` are free still, those from `segment` on in no
    segment yet, and those from `buffered` on in `buffer` only, up to `fill`, behind `head` bytes
    that are left for a commit record. What begins at block `sealed` is listed among the runs of the
    transaction. `in_log` tells that the run is of those kept for the log.
    """

    cdef public uint64_t cursor
    cdef readonly uint64_t end
    cdef public uint64_t segment
    cdef public uint64_t buffered
    cdef uint64_t sealed
    cdef readonly bytearray buffer
    cdef readonly Py_ssize_t head
    cdef public Py_ssize_t fill
    cdef public bint in_log

    def __init__(self, Py_ssize_t head):
        self.head = self.fill = head
        self.buffer = bytearray(head)  # the rest once it is needed, which readers never do

    cdef void restart(self) noexcept:
        """Have nothing buffered, and no segment under way."""
        self.fill = self.head
        self.buffered = self.segment = self.cursor
        self.sealed = 0

    cdef int enter(self, uint64_t start, uint64_t blocks) except -1:
        """Go on in another run."""
        self.cursor = self.segment = self.buffered = start
        self.end = start + blocks
        return 0

    cpdef int end_segment(self, RunWriter writer) except -1:
        """Put the blocks placed since the last call on the list of segments."""
        if self.cursor > self.segment:
            writer.segments.append((self.segment, self.cursor - self.segment))
        self.segment = self.cursor
        return 0

    cpdef int seal(self, RunWriter writer) except -1:
        """List what is buffered in `runs`, with its checksum."""
        cdef Py_ssize_t length = self.fill - self.head
        if length and writer.proves() and self.sealed != self.buffered:
            writer.runs.append((
                self.buffered, length // writer.block_size,
                writer.checksum(memoryview(self.buffer)[self.head:self.fill])))
            self.sealed = self.buffered
        return 0

    cpdef int drain(self, RunWriter writer) except -1:
        """Write what is buffered to the device."""
        self.seal(writer)
        if self.fill > self.head:
            write = writer.device.write_behind if writer.bulk else writer.device.write
            write(self.buffered * writer.block_size, memoryview(self.buffer)[self.head:self.fill])
        self.buffered = self.cursor
        self.fill = self.head
        return 0

    cpdef int leave_run(self, RunWriter writer) except -1:
        """Give back what is left of the run, or keep it for the log if it is of it."""
        self.drain(writer)
        self.end_segment(writer)
        if self.in_log:
            writer.space.keep_for_log(self.cursor, self.end - self.cursor)
        elif self.end > self.cursor:
            writer.space.give_back(self.cursor, self.end - self.cursor)
        self.enter(0, 0)
        self.in_log = False
        return 0


cdef class RunWriter:
    """Places bytes and nodes in runs of free blocks, and writes them."""

    cdef readonly Stream first
    cdef Stream twins
    cdef readonly list streams
    cdef readonly object device
    cdef readonly object space
    cdef object compress
    cdef readonly object checksum
    cdef Cache cache
    cdef readonly uint32_t block_size
    cdef readonly int compression
    cdef public uint64_t txid
    cdef public uint64_t record_block
    cdef public uint64_t next_record
    cdef public list segments
    cdef public list runs
    cdef public uint64_t written
    cdef public bint proving
    cdef public bint bulk
    cdef public bint logging
    cdef int64_t least
    cdef int incompressible
    cdef int skip

    def __init__(self, device, space, Cache cache, int compression, compress, checksum,
                 int copies=1):
        self.device = device
        self.space = space
        self.cache = cache
        self.block_size = space.block_size
        self.compression = compression
        self.compress = compress
        self.checksum = checksum
        self.segments = []
        self.runs = []
        self.first = Stream(self.block_size)
        self.twins = Stream(0) if copies == 2 else None
        self.streams = [self.first] if copies == 1 else [self.first, self.twins]

    cpdef int restart(self) except -1:
        """Have nothing placed, and nothing buffered."""
        cdef Stream stream
        self.segments, self.runs = [], []
        for stream in self.streams:
            stream.restart()
        return 0

    cpdef bint proves(self) except -1:
        """Whether `runs` lists what was written: not where it is much, which is flushed first."""
        if self.proving and self.written > limits.ONE_FLUSH_LIMIT:
            self.proving, self.runs = False, []
        return self.proving

    cpdef int take(self, Py_ssize_t blocks) except -1:
        """Make the current run hold at least `blocks` more, if need be by starting another."""
        if self.first.cursor + blocks > self.first.end:
            self.first.leave_run(self)
            start, found = self.space.take_run(blocks, self.written, log=self.logging)
            self.first.enter(start, found)
            self.first.in_log = self.logging
        return 0

    cdef int32_t take_twin(self, Py_ssize_t blocks, uint64_t block) except? -1:
        """The same for the second copy of what is placed at `block`, of which it has to be far
        away: how many blocks; 0 where there is no room for one."""
        cdef Stream twins = self.twins
        cdef int64_t distance = <int64_t>twins.cursor - <int64_t>block
        if twins.cursor + blocks > twins.end or not self.least <= llabs(distance) < MAX_DISTANCE:
            twins.leave_run(self)
            start, found = self.space.take_twin_run(blocks, self.written, block)
            if not found:
                return 0
            twins.enter(start, found)
            distance = <int64_t>twins.cursor - <int64_t>block
            # What follows may come nearer by a part, so that not each small step needs another run.
            self.least = min(APART, llabs(distance) * 2 // 3)
        return <int32_t>distance

    def held(self, uint64_t block, Py_ssize_t length):
        """Bytes that were placed at `block` and are not on the device yet; None for others."""
        cdef Stream stream
        cdef Py_ssize_t at
        for stream in self.streams:
            if stream.fill > stream.head and stream.buffered <= block < stream.cursor:
                at = stream.head + <Py_ssize_t>(block - stream.buffered) * self.block_size
                return bytes(stream.buffer[at:at + length])
        return None

    cdef inline Py_ssize_t blocks_of(self, Py_ssize_t length) noexcept:
        return (length + self.block_size - 1) // self.block_size

    cdef uint64_t place(self, Stream stream, Slice data) except? 0:
        """Put bytes where the run, which has room for them, goes on; their first block."""
        cdef Py_ssize_t blocks = self.blocks_of(data.length)
        cdef Py_ssize_t padded = blocks * self.block_size
        cdef char* to
        if stream.fill + padded > PyByteArray_GET_SIZE(stream.buffer):
            stream.drain(self)
            if stream.head + padded > PyByteArray_GET_SIZE(stream.buffer):
                stream.buffer = bytearray(stream.head + max(BUFFER, padded))
        to = PyByteArray_AS_STRING(stream.buffer) + stream.fill
        memcpy(to, data.at, data.length)
        memset(to + data.length, 0, padded - data.length)
        stream.fill += padded
        stream.cursor += blocks
        self.written += padded
        return stream.cursor - blocks

    def write(self, data):
        """Place the bytes of a record in one run; returns their first block."""
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.take(self.blocks_of(view.len))
            return self.place(self.first, Slice(<const uint8_t*>view.buf, <int>view.len))
        finally:
            PyBuffer_Release(&view)

    cdef bint has_room(self, Py_ssize_t blocks) except -1:
        """Whether so many blocks are to be had in one run."""
        return self.first.cursor + blocks <= self.first.end or self.space.has_runs(blocks)

    def write_node(self, Node node):
        """Store a packed node whose children are stored; False, and nothing done, where it takes a
        run of blocks that is not to be had, and could be split.

        Compression is tried only where it can save a block, and less often while it does not.
        """
        cdef bytes page = node.page
        cdef bytes payload = page, digest
        cdef Py_ssize_t blocks = self.blocks_of(PyBytes_GET_SIZE(page))
        cdef uint8_t compression = 0
        cdef int32_t twin = 0
        if self.compression and blocks > 1:
            if self.skip > 0 and self.has_room(blocks):
                self.skip -= 1
            else:
                payload = self.compress(page)
                if self.blocks_of(PyBytes_GET_SIZE(payload)) < blocks:
                    compression = self.compression
                    self.incompressible = 0
                else:
                    payload = page
                    if self.incompressible < MAX_SKIP:
                        self.incompressible += 1
                    self.skip = self.incompressible
        blocks = self.blocks_of(PyBytes_GET_SIZE(payload))
        if blocks > 1 and node.n > 1 and not self.has_room(blocks):
            return False
        digest = self.checksum(payload)
        self.take(blocks)
        node.block = self.place(self.first, slice_of(payload))
        if self.twins is not None:
            twin = self.take_twin(blocks, node.block)
            if twin:
                self.place(self.twins, slice_of(payload))
        node.birth = self.txid
        node.at.block = node.block
        node.at.birth = self.txid
        node.at.stored = <uint32_t>PyBytes_GET_SIZE(payload)
        node.at.logical = <uint16_t>PyBytes_GET_SIZE(page)
        node.at.twin_above, node.at.twin_below = <uint16_t>(<uint32_t>twin >> 16), <uint16_t>twin
        node.at.compression = compression
        node.at.level = <uint8_t>node.level
        memcpy(node.at.checksum, slice_of(digest).at, 16)
        self.cache.admit(node)
        return True
