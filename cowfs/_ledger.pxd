# Declarations of the ledger and of the list of operations. See _ledger.pyx.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    OPERATION_TREE = 0
    OPERATION_PUT = 1
    OPERATION_DELETE = 2
    OPERATION_RANGE = 3

cdef class Operations:
    cdef readonly bytearray data
    cdef readonly Py_ssize_t size
    cdef uint64_t tree
    cdef readonly Py_ssize_t count
    cdef readonly bint whole

    cdef int add(self, uint64_t tree, int operation, bytes key, bytes value) except -1
    cdef int append(self, int operation, bytes key, bytes value) except -1
    cpdef void give_up(self)

cdef class Ledger:
    cdef readonly Operations operations
    cdef public Ledger below
    cdef readonly uint64_t txid
    cdef readonly uint32_t block_size
    cdef readonly dict shared
    cdef public dict counts
    cdef readonly uint64_t durable
    cdef public bytearray freed
    cdef public uint64_t freed_blocks
    cdef public bint reuse_own
    cdef public bytearray own_freed
    cdef public list dropped
    cdef public bint grows
    cdef public uint64_t replaced
    cdef public uint64_t removed
    cdef public bint keep_old
    cdef public Py_ssize_t dirty_limit
    cdef public object spill
    cdef public object compress
    cdef public int unfinished

    cpdef uint32_t count(self, uint64_t block) except 0
    cpdef share(self, uint64_t block)
    cpdef bint release(self, bytes pointer) except -1
    cpdef bytes freed_between(self, uint64_t above, uint64_t upto)
    cdef int free_blocks(self, uint64_t block, uint32_t stored, uint64_t birth) except -1
