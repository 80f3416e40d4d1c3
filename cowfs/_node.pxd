# Declarations of the node layer, for the tree. See _node.pyx.
cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from cowfs._bytes cimport Slice, u16
from cowfs._pointer cimport Pointer

cdef enum:
    HEADER = 24
    CELL_HEADER = 4
    POINTER = 44
    REF = 72
    TREE_CELL = 84
    MAX_DEPTH = 24
    KIND_INLINE = 0
    KIND_EXTENT = 1
    KIND_TREE = 2
    MAX_KEY_LEN = 1024
    NODE_MAGIC = 0x444F4E43

cdef packed struct Summary:
    # What a reference says, behind its pointer, of a node and everything below it.
    uint64_t items
    uint64_t logical
    uint64_t stored
    uint32_t outside  # cells that point elsewhere

cdef class Entry:
    cdef readonly Py_ssize_t cost
    cdef readonly uint64_t block
    cdef bint referenced
    cdef bint cached
    cdef Py_ssize_t place
    cdef void drop(self)

cdef class Record(Entry):
    cdef readonly bytes data
    cdef readonly bytes checksum

cdef class Meter:
    cdef readonly Py_ssize_t bytes

cdef class Cache:
    cdef readonly Meter dirty
    cdef readonly Py_ssize_t limit
    cdef readonly Py_ssize_t used
    cdef list ring
    cdef Py_ssize_t hand
    cdef dict by_block
    cdef void admit(self, Entry entry)
    cpdef void evict(self, Py_ssize_t room)
    cdef void forget(self, Entry entry)

@cython.final
cdef class Node(Entry):
    cdef bytes page
    cdef uint8_t* p
    cdef int size
    cdef readonly int n
    cdef readonly int level
    cdef int low
    cdef int garbage
    cdef int last
    cdef uint32_t* heads
    cdef int heads_room
    cdef int prefix
    cdef uint64_t shared
    cdef list kids
    cdef bint dirty
    cdef Meter meter
    cdef readonly uint64_t birth
    cdef Pointer at

    cdef inline uint8_t* cell(self, int i) noexcept
    cdef bint find(self, Slice key, int* at) noexcept
    cdef inline int first_head(self, uint32_t head, int lo) noexcept
    cdef void prefetch_cell(self, Slice key) noexcept
    cdef int route(self, Slice key) noexcept
    cdef int reserve_heads(self, int n) except -1
    cdef int build_heads(self) except -1
    cdef object attach(self, bytes page, uint64_t blocks, uint32_t block_size, uint32_t node_size)
    cdef void take_page(self, bytes page, int low) noexcept
    cdef int copy_items(self, Node source, int first, bytes page) except -1
    cdef void own(self, uint64_t txid, Meter meter) noexcept
    cdef Node copy(self, int first, int capacity, uint64_t txid, Meter meter)
    cpdef int used(self) noexcept
    cdef bint insert(self, int i, Slice key, int kind, Slice value, Node kid) except -1
    cdef bint overwrite(self, int i, int kind, Slice value) noexcept
    cdef int remove(self, int i, int count) except -1
    cdef int repage(self, int capacity) except -1
    cdef int fit(self, int small, int capacity) except -1
    cdef Node split(self, int at, int small, int capacity)
    cdef Node packed(self, uint64_t owner, uint64_t txid)
    cdef int lay_out(self, int first, bytes page) noexcept
    cdef void set_pointer(self, const uint8_t* pointer) noexcept
    cdef bytes pointer(self)
    cdef bytes reference(self, uint32_t block_size)
    cpdef Summary summarize(self, uint32_t block_size, int copies)

cdef Node new_node(int level, int capacity, uint64_t txid, Meter meter)
cdef bint sound_ref(const uint8_t* ref, int level, uint32_t node_size, uint64_t blocks,
                    uint32_t block_size) noexcept


cdef inline void keep_budget(Cache cache):
    """Make the cache drop what is too much, beside the dirty nodes."""
    if cache.used + cache.dirty.bytes > cache.limit:
        cache.evict(cache.dirty.bytes)


# A cell: lengths of key and value, the kind of value in the upper bits of the first, key, value.

cdef inline Slice key_of(const uint8_t* cell) noexcept:
    return Slice(cell + CELL_HEADER, u16(cell) & 0x3FFF)


cdef inline Slice value_of(const uint8_t* cell) noexcept:
    return Slice(cell + CELL_HEADER + (u16(cell) & 0x3FFF), u16(cell + 2))


cdef inline int kind_of(const uint8_t* cell) noexcept:
    return u16(cell) >> 14


cdef inline int length_of(const uint8_t* cell) noexcept:
    return CELL_HEADER + (u16(cell) & 0x3FFF) + u16(cell + 2)
