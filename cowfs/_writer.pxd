from libc.stdint cimport uint8_t, uint32_t, uint64_t
from cowfs._node cimport Cache, Node

cdef class BlockWriter:
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

    cdef uint64_t place(self, const uint8_t* data, Py_ssize_t length) except? 0
    cdef bint has_room(self, Py_ssize_t blocks) except -1
    cdef bint write_node(self, Node node) except -1
