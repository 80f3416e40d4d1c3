"""What one transaction does: to reference counts, to free space, and as a list of operations.

A block's count is the number of pointers to it from reachable nodes and roots. Only counts of two
and more are kept (`shared`, owned by the space layer, never written here); an allocated block that
is not among them has one. Changes stay in this ledger until the transaction commits, so that
abandoning it means dropping the ledger. Transactions that were committed as operations, and whose
trees are not stored yet, have theirs gathered in one ledger, which that of the next lies on top of.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy

from cowfs._bytes cimport put16, u32, u64
from cowfs._pointer cimport twin_of

cdef enum:
    OP_SIZE = 6
    MAX_OPERATIONS = 1 << 20


cdef class Operations:
    """What a transaction did, as puts and deletes that can be done again; `format.unpack_operations`
    is the way back from the first `size` bytes of `data`.

    `whole` is False from the moment on when it did something that is not among them, or more than
    `MAX_OPERATIONS` bytes of it: then only its trees tell what it did.
    """

    def __cinit__(self):
        self.whole = True
        self.data = bytearray()

    cdef int add(self, uint64_t tree, int operation, bytes key, bytes value) except -1:
        """Note an operation that was done on the tree with that id."""
        if not self.whole:
            return 0
        try:
            if tree != self.tree:
                self.tree = tree
                self.append(OPERATION_TREE, (<char*>&tree)[:8], b"")
            self.append(operation, key, value)
        except MemoryError:
            self.give_up()  # the tree has it all the same
            return 0
        self.count += 1
        if self.size > MAX_OPERATIONS:
            self.give_up()
        return 0

    cdef int append(self, int operation, bytes key, bytes value) except -1:
        cdef Py_ssize_t klen = PyBytes_GET_SIZE(key), vlen = PyBytes_GET_SIZE(value)
        cdef Py_ssize_t start = self.size
        cdef uint8_t* to
        self.size += OP_SIZE + klen + vlen
        if self.size > PyByteArray_GET_SIZE(self.data):
            PyByteArray_Resize(self.data, 2 * self.size)
        to = <uint8_t*>PyByteArray_AS_STRING(self.data) + start
        put16(to, <uint16_t>operation)
        put16(to + 2, <uint16_t>klen)
        put16(to + 4, <uint16_t>vlen)
        memcpy(to + OP_SIZE, PyBytes_AS_STRING(key), klen)
        memcpy(to + OP_SIZE + klen, PyBytes_AS_STRING(value), vlen)
        return 0

    cpdef void give_up(self):
        """Note no more: what this transaction did is no list of operations."""
        self.whole = False
        self.size = 0
        self.data = bytearray()


cdef class Ledger:
    """Counts changed, blocks freed and subtrees dropped by transaction `txid`.

    `counts` maps a block to its new count; 1 and 0 mean that it is no longer shared.
    `freed` holds a word `block << 16 | blocks` for what no committed root will reach any more, and
    behind it the transaction that wrote that; `own_freed` such words for what this transaction both
    wrote and freed, and has not used again. `durable` is the newest transaction known to be flushed.
    `grows`, `replaced` and `removed` tell what it does to the items of datasets: whether there is more
    than before, and how many got another value or went.
    `dropped` holds references of whole subtrees whose blocks nobody has released yet.
    `compress` is how leaves will be compressed when they are stored, or None. `keep_old` is for open
    readers: nodes of the old version stay in the cache. `below` is the ledger of the transactions
    before, whose trees are not stored yet.
    `unfinished` counts the changes of trees that have begun and not ended: where an error ends one in
    its middle, whatever it is, that stays counted, and the transaction cannot commit.
    """

    def __init__(self, uint64_t txid, uint64_t durable, dict shared, uint32_t block_size,
                 Ledger below=None):
        self.operations = Operations()
        self.below = below
        self.txid = txid
        self.durable = durable
        self.shared = shared
        self.counts = {}
        self.block_size = block_size
        self.freed = bytearray()
        self.own_freed = bytearray()
        self.dropped = []
        self.dirty_limit = 1 << 62

    cpdef uint32_t count(self, uint64_t block) except 0:
        """References to an allocated block as this transaction sees it."""
        cdef dict below = None if self.below is None else self.below.counts
        if not self.counts and not self.shared and not below:
            return 1
        value = self.counts.get(block)
        if value is None and below:
            value = below.get(block)
        if value is None:
            value = self.shared.get(block)
        return value or 1

    cpdef share(self, uint64_t block):
        """Add one reference to a block."""
        self.counts[block] = self.count(block) + 1

    cpdef bint release(self, bytes pointer) except -1:
        """Take one reference away; True where it was the last, and the block is now free, and with it
        its second copy, which has no count of its own."""
        cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(pointer)
        cdef uint64_t block = u64(p)
        cdef int32_t twin = twin_of(p)
        cdef dict below = None if self.below is None else self.below.counts
        cdef uint32_t count = self.count(block)
        if count > 1:
            self.counts[block] = count - 1
            return False
        if self.counts or self.shared or below:
            self.counts.pop(block, None)
            if block in self.shared or (below and block in below):
                self.counts[block] = 0
        if twin:
            self.free_blocks(block + <int64_t>twin, u32(p + 16), u64(p + 8))
        self.free_blocks(block, u32(p + 16), u64(p + 8))
        return True

    cdef int free_blocks(self, uint64_t block, uint32_t stored, uint64_t birth) except -1:
        cdef uint64_t blocks = (stored + self.block_size - 1) // self.block_size
        cdef uint64_t entry[2]
        entry[0], entry[1] = block << 16 | blocks, birth
        if self.reuse_own and birth == self.txid:
            append(self.own_freed, entry, 8)
        else:
            append(self.freed, entry, 16)
            self.freed_blocks += blocks
        return 0

    cpdef bytes freed_between(self, uint64_t above, uint64_t upto):
        """The runs freed that transactions `above` < birth <= `upto` wrote: little-endian words
        `block << 16 | blocks`."""
        cdef Py_ssize_t i, n = 0, size = PyByteArray_GET_SIZE(self.freed) // 2
        cdef bytes found = PyBytes_FromStringAndSize(NULL, size)
        cdef uint64_t* words = <uint64_t*>PyBytes_AS_STRING(found)
        cdef const uint64_t* entries = <const uint64_t*>PyByteArray_AS_STRING(self.freed)
        for i in range(size // 8):
            if above < entries[2 * i + 1] <= upto:
                words[n] = entries[2 * i]
                n += 1
        return found[:8 * n]


cdef int append(bytearray data, const void* more, Py_ssize_t length) except -1:
    cdef Py_ssize_t size = PyByteArray_GET_SIZE(data)
    PyByteArray_Resize(data, size + length)
    memcpy(PyByteArray_AS_STRING(data) + size, more, length)
    return 0
