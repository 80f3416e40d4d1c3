from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from cowfs._node cimport Cache, Node

cdef class BlockWriter

cdef class Twins:
    cdef object device
    cdef object space
    cdef object checksum
    cdef uint32_t block_size
    cdef uint64_t cursor
    cdef uint64_t end
    cdef uint64_t segment
    cdef uint64_t buffered
    cdef uint64_t sealed
    cdef int64_t least
    cdef bytearray buffer
    cdef Py_ssize_t fill

    cdef int begin(self) except -1
    cdef int32_t place(self, BlockWriter writer, uint64_t block, bytes data) except? -1
    cdef int close_segment(self, BlockWriter writer) except -1
    cdef int seal(self, BlockWriter writer) except -1
    cdef int drain(self, BlockWriter writer) except -1
    cdef int finish_run(self, BlockWriter writer) except -1
    cdef int give_back(self) except -1
    cdef bytes held(self, uint64_t block, Py_ssize_t length)

cdef class BlockWriter:
    cdef Twins twins
    cdef object device
    cdef object space
    cdef object compress
    cdef object checksum
    cdef Cache cache
    cdef readonly uint32_t block_size
    cdef readonly int compression
    cdef public uint64_t txid
    cdef readonly uint64_t cursor
    cdef readonly uint64_t end
    cdef uint64_t segment
    cdef uint64_t buffered
    cdef uint64_t sealed
    cdef bytearray buffer
    cdef Py_ssize_t fill
    cdef Py_ssize_t room
    cdef readonly uint64_t record_block
    cdef readonly uint64_t next_record
    cdef public list segments
    cdef public list runs
    cdef public uint64_t written
    cdef public bint proving
    cdef public bint bulk
    cdef bint logging
    cdef bint in_log
    cdef int incompressible
    cdef int skip

    cdef int end_segment(self) except -1
    cdef int leave_run(self) except -1
    cdef int empty(self) except -1
    cdef int seal_run(self) except -1
    cdef uint64_t place(self, const uint8_t* data, Py_ssize_t length) except? 0
    cdef bint has_room(self, Py_ssize_t blocks) except -1
    cdef bint write_node(self, Node node) except -1
