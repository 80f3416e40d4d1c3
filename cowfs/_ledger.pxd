# Declarations of the ledger and of the list of operations. See _ledger.pyx.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    OPERATION_TREE = 0
    OPERATION_PUT = 1
    OPERATION_DELETE = 2
    OPERATION_RANGE = 3

cdef class Operations:
    cdef uint8_t* data
    cdef Py_ssize_t size
    cdef Py_ssize_t room
    cdef uint64_t tree
    cdef readonly Py_ssize_t count
    cdef readonly bint whole

    cdef int add(self, uint64_t tree, int op, const uint8_t* key, Py_ssize_t klen,
                 const uint8_t* value, Py_ssize_t vlen) except -1
    cdef void append(self, int op, const uint8_t* key, Py_ssize_t klen,
                     const uint8_t* value, Py_ssize_t vlen) noexcept
    cpdef void give_up(self)

cdef class Ledger:
    cdef readonly Operations operations
    cdef readonly Ledger below
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
    cdef public uint64_t replaced
    cdef public uint64_t removed
    cdef public bint keep_old
    cdef public Py_ssize_t dirty_limit
    cdef public object spill
    cdef public object compress

    cdef uint32_t count_of(self, uint64_t block)
    cdef int raise_count(self, uint64_t block) except -1
    cdef int last_reference(self, uint64_t block) except -1
    cdef int free_blocks(self, uint64_t block, uint32_t stored, uint64_t birth, int32_t twin) except -1
    cdef int note_freed(self, uint64_t run, uint64_t birth) except -1
    cdef int note_all_freed(self, Ledger other) except -1
    cdef bint lower_count(self, const uint8_t* pointer) except -1
