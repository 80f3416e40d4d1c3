# Declarations of the node layer, for the tree. See _node.pyx.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

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
    cdef void evict(self, Py_ssize_t room)
    cdef void forget(self, Entry entry)

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
    cdef uint32_t stored
    cdef uint32_t logical
    cdef int compression
    cdef int32_t twin
    cdef uint8_t checksum[16]

    cdef inline uint8_t* cell(self, int i) noexcept
    cdef bint find(self, const uint8_t* key, int klen, int* at) noexcept
    cdef inline int first_head(self, uint32_t head, int lo) noexcept
    cdef void prefetch_cell(self, const uint8_t* key, int klen) noexcept
    cdef int route(self, const uint8_t* key, int klen) noexcept
    cdef int build_heads(self) except -1
    cdef object attach(self, bytes page, uint64_t blocks, uint32_t block_size, uint32_t node_size)
    cdef Node copy(self, int capacity, uint64_t txid, Meter meter)
    cdef int used(self) noexcept
    cdef bint insert(self, int i, const uint8_t* key, int klen, int kind,
                     const uint8_t* value, int vlen) except -1
    cdef bint replace(self, int i, int kind, const uint8_t* value, int vlen) except -1
    cdef void remove(self, int i, int count) noexcept
    cdef int compact(self) except -1
    cdef int repage(self, int capacity) except -1
    cdef Node split(self, int at, int small, int capacity)
    cdef Node packed(self, uint64_t owner, uint64_t txid)
    cdef int copy_heads(self, Node source) except -1
    cdef void set_pointer(self, const uint8_t* pointer) noexcept
    cdef void write_pointer(self, uint8_t* to) noexcept
    cdef void summarize(self, uint64_t* out, uint32_t block_size, int copies)

cdef Node new_node(int level, int capacity, uint64_t txid, Meter meter)
cdef bint sound_pointer(const uint8_t* pointer, int level, uint32_t most, uint64_t blocks,
                        uint32_t block_size) noexcept
cdef bint sound_ref(const uint8_t* ref, int level, uint32_t node_size, uint64_t blocks,
                    uint32_t block_size) noexcept
