# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""What one transaction does: to reference counts, to free space, and as a list of operations.

A block's count is the number of pointers to it from reachable nodes and roots. Only counts of two
and more are kept (`shared`, owned by the space layer, never written here); an allocated block that
is not among them has one. Changes stay in this ledger until the transaction commits, so that
abandoning it means dropping the ledger. Transactions that were committed as operations, and whose
trees are not stored yet, have theirs gathered in one ledger, which that of the next lies on top of.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdlib cimport free, realloc
from libc.stdint cimport uint16_t
from libc.string cimport memcpy

from cowfs._pointer cimport twin_of

import struct

WORD = struct.Struct("<Q")

cdef enum:
    OP_SIZE = 6
    MAX_OPERATIONS = 1 << 20


cdef class Operations:
    """What a transaction did, as puts and deletes that can be done again; `format.unpack_operations`
    is the way back.

    `whole` is False from the moment on when it did something that is not among them, or more than
    `MAX_OPERATIONS` bytes of it: then only its trees tell what it did.
    """

    def __cinit__(self):
        self.whole = True

    def __dealloc__(self):
        free(self.data)

    def __len__(self):
        return self.size

    cdef int add(self, uint64_t tree, int op, const uint8_t* key, Py_ssize_t klen,
                 const uint8_t* value, Py_ssize_t vlen) except -1:
        """Note an operation on the tree with that id."""
        cdef Py_ssize_t need
        cdef uint8_t* grown
        if not self.whole:
            return 0
        need = self.size + OP_SIZE + klen + vlen
        if tree != self.tree:
            need += OP_SIZE + 8
        if need > MAX_OPERATIONS:
            self.give_up()
            return 0
        if need > self.room:
            grown = <uint8_t*>realloc(self.data, 2 * need + 256)
            if grown == NULL:
                raise MemoryError()
            self.data = grown
            self.room = 2 * need + 256
        if tree != self.tree:
            self.tree = tree
            self.append(OPERATION_TREE, <const uint8_t*>&tree, 8, NULL, 0)
        self.append(op, key, klen, value, vlen)
        self.count += 1
        return 0

    cdef void append(self, int op, const uint8_t* key, Py_ssize_t klen,
                     const uint8_t* value, Py_ssize_t vlen) noexcept:
        cdef uint8_t* to = self.data + self.size
        cdef uint16_t key_size = <uint16_t>klen, value_size = <uint16_t>vlen
        to[0] = <uint8_t>op
        to[1] = 0
        memcpy(to + 2, &key_size, 2)
        memcpy(to + 4, &value_size, 2)
        if klen:
            memcpy(to + OP_SIZE, key, klen)
        if vlen:
            memcpy(to + OP_SIZE + klen, value, vlen)
        self.size += OP_SIZE + klen + vlen

    cpdef void give_up(self):
        """Note no more: what this transaction did is no list of operations."""
        self.whole = False
        free(self.data)
        self.data = NULL
        self.size = self.room = 0

    def packed(self):
        """All of them, as they are stored."""
        return PyBytes_FromStringAndSize(<char*>self.data, self.size)


cdef class Ledger:
    """Counts changed, blocks freed and subtrees dropped by transaction `txid`.

    `counts` maps a block to its new count; 1 and 0 mean that it is no longer shared.
    `freed` holds `block << 16 | blocks` for what no committed root will reach any more, and `births`
    the transactions that wrote these. `durable` is the newest transaction known to be flushed.
    `grows`, `replaced` and `removed` tell what it does to the items of datasets: whether there is more
    than before, and how many got another value or went.
    `dropped` holds references of whole subtrees whose blocks nobody has released yet.
    `compress` is how leaves will be compressed when they are stored, or None. `keep_old` is for open
    readers: nodes of the old version stay in the cache. `below` is the ledger of the transactions
    before, whose trees are not stored yet.
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
        self.dropped = []
        self.own_freed = []
        self.dirty_limit = 1 << 62

    def __dealloc__(self):
        free(self.freed)
        free(self.births)

    cdef uint32_t count_of(self, uint64_t block):
        cdef dict below = None if self.below is None else self.below.counts
        if not self.counts and not self.shared and not below:
            return 1
        key = block
        value = self.counts.get(key)
        if value is None and below:
            value = below.get(key)
        if value is None:
            value = self.shared.get(key)
            if value is None:
                return 1
        return <uint32_t>value or 1

    cdef int raise_count(self, uint64_t block) except -1:
        self.counts[block] = self.count_of(block) + 1
        return 0

    cdef int last_reference(self, uint64_t block) except -1:
        """Forget the count of a block that is about to be free."""
        cdef dict below = None if self.below is None else self.below.counts
        if self.counts or self.shared or below:
            self.counts.pop(block, None)
            if block in self.shared or (below and block in below):
                self.counts[block] = 0
        return 0

    cdef int free_blocks(self, uint64_t block, uint32_t stored, uint64_t birth,
                         int32_t twin) except -1:
        """Free a block, and with it its second copy, which has no count of its own."""
        cdef uint64_t blocks = (stored + self.block_size - 1) // self.block_size
        if twin:
            self.free_blocks(block + <int64_t>twin, stored, birth, 0)
        if self.reuse_own and birth == self.txid:
            self.own_freed.append((block << 16) | blocks)
            return 0
        self.note_freed((block << 16) | blocks, birth)
        return 0

    cdef int note_freed(self, uint64_t run, uint64_t birth) except -1:
        cdef Py_ssize_t room
        cdef uint64_t* grown
        if self.freed_n == self.freed_room:
            room = 2 * self.freed_room + 64
            grown = <uint64_t*>realloc(self.freed, 8 * room)
            if grown == NULL:
                raise MemoryError()
            self.freed = grown
            grown = <uint64_t*>realloc(self.births, 8 * room)
            if grown == NULL:
                raise MemoryError()
            self.births = grown
            self.freed_room = room
        self.freed[self.freed_n] = run
        self.births[self.freed_n] = birth
        self.freed_n += 1
        self.freed_blocks += run & 0xFFFF
        return 0

    cdef int note_all_freed(self, Ledger other) except -1:
        cdef Py_ssize_t i
        for i in range(other.freed_n):
            self.note_freed(other.freed[i], other.births[i])
        return 0

    def gather(self, Ledger later):
        """Add what a later transaction did, whose ledger lay on top of this one."""
        self.counts.update(later.counts)
        self.note_all_freed(later)
        self.dropped.extend(later.dropped)

    def settle(self):
        """Take over what the ledger below holds: this transaction stores all of it."""
        cdef Ledger below = self.below
        if below is None:
            return
        self.counts = {**below.counts, **self.counts}
        self.note_all_freed(below)
        self.dropped = below.dropped + self.dropped
        self.below = None

    cdef bint lower_count(self, const uint8_t* pointer) except -1:
        """Take one reference away; True where it was the last, and the block is now free."""
        cdef uint64_t block, birth
        cdef uint32_t stored, count
        memcpy(&block, pointer, 8)
        memcpy(&birth, pointer + 8, 8)
        memcpy(&stored, pointer + 16, 4)
        count = self.count_of(block)
        if count > 1:
            self.counts[block] = count - 1
            return False
        self.last_reference(block)
        self.free_blocks(block, stored, birth, twin_of(pointer))
        return True

    def count(self, uint64_t block):
        """References to an allocated block as this transaction sees it."""
        return self.count_of(block)

    def share(self, uint64_t block):
        """Add one reference to a block."""
        self.raise_count(block)

    def release(self, bytes pointer):
        """Take one reference away; True where it was the last, and the block is now free."""
        return self.lower_count(<const uint8_t*><char*>pointer)

    def freed_bytes(self, Py_ssize_t start=0):
        """The runs freed, from the `start`th byte on: little-endian words `block << 16 | blocks`."""
        return PyBytes_FromStringAndSize(<char*>self.freed + start, 8 * self.freed_n - start)

    def freed_between(self, uint64_t above, uint64_t upto):
        """The runs among `freed_bytes` that transactions `above` < birth <= `upto` wrote."""
        cdef Py_ssize_t i, n = 0
        cdef bytes packed = PyBytes_FromStringAndSize(NULL, 8 * self.freed_n)
        cdef uint64_t* words = <uint64_t*>PyBytes_AS_STRING(packed)
        for i in range(self.freed_n):
            if above < self.births[i] <= upto:
                words[n] = self.freed[i]
                n += 1
        return packed[:8 * n]

    def own_freed_bytes(self):
        """Runs that this transaction both wrote and freed, and that it has not used again yet."""
        return pack_words(self.own_freed)


cdef bytes pack_words(list words):
    return b"".join([WORD.pack(word) for word in words])
