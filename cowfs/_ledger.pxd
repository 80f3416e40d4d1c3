# Declarations of the ledger and the block writer. See _ledger.pyx and _writer.pyx.
from libc.stdint cimport uint8_t, uint32_t, uint64_t, int64_t

cdef class Ledger:
    cdef readonly uint64_t txid
    cdef readonly uint32_t block_size
    cdef readonly dict shared
    cdef readonly dict counts
    cdef readonly uint64_t durable
    cdef uint64_t* freed
    cdef uint64_t* births
    cdef Py_ssize_t freed_n
    cdef Py_ssize_t freed_room
    cdef readonly uint64_t freed_blocks
    cdef public bint reuse_own
    cdef public list own_freed
    cdef public list dropped
    cdef public bint grows
    cdef public bint keep_old
    cdef public Py_ssize_t dirty
    cdef public Py_ssize_t dirty_limit
    cdef public object spill
    cdef public object compress

    cdef uint32_t count_of(self, uint64_t block)
    cdef int raise_count(self, uint64_t block) except -1
    cdef int last_reference(self, uint64_t block) except -1
    cdef int free_blocks(self, uint64_t block, uint32_t stored, uint64_t birth) except -1
    cdef bint lower_count(self, const uint8_t* pointer) except -1
