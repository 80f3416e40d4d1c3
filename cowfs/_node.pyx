# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""A node of the B+tree on a packed buffer, and the cache that nodes and records live in.

A page is a header, an array of 16-bit slots, and cells. A slot holds the distance of its cell from
the *end* of the page, so that a page may be stored without the gap in its middle: the same bytes are
the dirty node, the clean node and the block on the device (docs/format.md gives the layout).

Invariants: a clean page is never written to; a dirty one is written to by the transaction that made
it only (`birth`), and is frozen from its end on; storing a dirty node makes a clean one beside it
(`packed`). `attach` is the only way from stored bytes to a node and proves every slot and cell to lie
within the page, so that no other function here checks bounds, and every pointer in it to be one that
could have been written; an evicted node keeps its pointer and is filled again by whoever walks over
it next.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove, memset

import sys

from cowfs._bytes cimport compare, prefetch, u16, u32, u64
from cowfs._pointer cimport DATA_LEVEL, logical_of, twin_of

from cowfs import limits

if sys.byteorder != "little":
    raise ImportError("cowfs needs a little-endian machine")

cdef extern from "Python.h":
    void PyObject_GC_UnTrack(void* op)

cdef enum:
    CACHE_LINE = 64

cdef uint64_t MAX_ITEMS = <uint64_t>1 << 48
"""More than any image holds; sums of so many stay within 64 bits."""
cdef uint32_t MAX_RECORD = limits.MAX_RECORD
cdef uint64_t MAX_VALUE = limits.MAX_VALUE

cdef int MAX_SPARED = 256  # by one eviction, which a writer may be waiting for
cdef int ENTRY_OVERHEAD = 400
"""Bytes of a cached node beside its page: the object, its heads and its place in the cache."""


cdef inline uint32_t head_of(const uint8_t* key, int klen) noexcept:
    """The first four bytes of a key as a number that sorts as they do."""
    cdef uint32_t word = 0
    if klen >= 4:
        memcpy(&word, key, 4)
        return ((word & 0xFF) << 24) | ((word & 0xFF00) << 8) | ((word >> 8) & 0xFF00) | (word >> 24)
    if klen > 0:
        word = <uint32_t>key[0] << 24
    if klen > 1:
        word |= <uint32_t>key[1] << 16
    if klen > 2:
        word |= <uint32_t>key[2] << 8
    return word


cdef inline uint64_t word_of(const uint8_t* key) noexcept:
    """The first eight bytes of a key as a number that sorts as they do."""
    return (<uint64_t>head_of(key, 4) << 32) | head_of(key + 4, 4)


cdef inline void put16(uint8_t* at, uint16_t value) noexcept:
    memcpy(at, &value, 2)


cdef inline list untracked(list entries):
    """A list of what cannot refer back to it, which the garbage collector need not look through."""
    PyObject_GC_UnTrack(<void*>entries)
    return entries


@cython.no_gc
cdef class Entry:
    """What the cache holds: something with a cost in bytes that can be dropped and read again."""

    cdef void drop(self):
        pass


@cython.no_gc
cdef class Record(Entry):
    """Decoded bytes of one extent."""

    def __init__(self, uint64_t block, bytes checksum, bytes data):
        self.block = block
        self.checksum = checksum
        self.data = data
        self.cost = len(data) + 200


cdef class Meter:
    """How many bytes the dirty nodes of a store take, whoever refers to them."""


cdef class Cache:
    """Clean nodes and records under one budget in bytes; the clock algorithm picks what to drop.

    F. J. Corbato, A Paging Experiment with the Multics System (1968). An entry that was used since
    the hand last passed stays for another round. Entries are found by their first block; whoever
    finds one compares the checksum, since a block may have been written anew.
    """

    def __init__(self, Py_ssize_t limit):
        self.dirty = Meter()
        self.limit = limit
        self.ring = untracked([])
        self.by_block = {}

    cdef void admit(self, Entry entry):
        """Take an entry in; call `evict` later, when no page is in use."""
        self.by_block[entry.block] = entry
        if not entry.cached:
            entry.cached = True
            entry.referenced = True
            entry.place = len(self.ring)
            self.ring.append(entry)
            self.used += entry.cost

    cdef void evict(self, Py_ssize_t room):
        """Drop entries until `room` bytes of the budget are free. No page must be in use now."""
        cdef Entry entry
        cdef int spared = 0
        while self.used > self.limit - room and self.ring:
            if self.hand >= len(self.ring):
                self.hand = 0
            entry = <Entry>self.ring[self.hand]
            if entry.referenced and spared < MAX_SPARED:
                entry.referenced = False
                self.hand += 1
                spared += 1
            else:
                self.forget(entry)

    cdef void forget(self, Entry entry):
        """Drop an entry at once, as one that nobody will ask for again."""
        cdef Entry last
        if not entry.cached:
            return
        entry.cached = False
        self.used -= entry.cost
        last = <Entry>self.ring.pop()
        if last is not entry:
            self.ring[entry.place] = last
            last.place = entry.place
        if self.by_block.get(entry.block) is entry:
            del self.by_block[entry.block]
        entry.drop()

    def record(self, uint64_t block, bytes checksum):
        """The data of a cached record, or None."""
        entry = self.by_block.get(block)
        if type(entry) is Record and (<Record>entry).checksum == checksum:
            (<Record>entry).referenced = True
            return (<Record>entry).data
        return None

    def add_record(self, uint64_t block, bytes checksum, bytes data):
        """Keep the data of a record that was read or written."""
        self.admit(Record(block, checksum, data))
        self.evict(0)

    def clear(self):
        """Drop everything: whatever is asked for is read from the device again."""
        cdef Py_ssize_t limit = self.limit
        cdef Entry entry
        for entry in self.ring:
            entry.referenced = False
        self.limit = 0
        self.evict(0)
        self.limit = limit


@cython.no_gc
cdef class Node(Entry):
    """One node: a page, or an empty shell that knows where its page is stored."""

    def __dealloc__(self):
        free(self.heads)
        # A class without garbage collection keeps its fields until here.
        if self.meter is not None:
            self.meter.bytes -= self.size + ENTRY_OVERHEAD

    cdef void drop(self):
        self.page = None
        self.p = NULL
        self.kids = None

    cdef inline uint8_t* cell(self, int i) noexcept:
        return self.p + self.size - (<uint16_t*>(self.p + HEADER))[i]

    cdef bint find(self, const uint8_t* key, int klen, int* at) noexcept:
        """Lower bound of `key` in `at`; True where the key itself is there.

        Slot 0 of an inner node stands for everything below slot 1, whatever key it holds.
        """
        cdef int base = 1 if self.level else 0
        cdef int lo = base, hi = self.n, mid, c, prefix = self.prefix
        cdef uint32_t head
        cdef uint64_t word
        cdef uint8_t* cell
        cdef uint32_t* heads = self.heads
        if hi <= base:
            at[0] = hi
            return False
        if 0 < prefix <= 8 and klen >= 8:
            # As below, without a look at a cell, which is seldom in the processor's cache.
            word = word_of(key) >> (64 - 8 * prefix)
            if word != self.shared:
                at[0] = hi if word > self.shared else base
                return False
        elif prefix:
            cell = self.cell(base)
            c = memcmp(key, cell + CELL_HEADER, prefix if prefix < klen else klen)
            if c > 0:
                at[0] = hi
                return False
            if c < 0 or klen < prefix:
                at[0] = base
                return False
        head = head_of(key + prefix, klen - prefix)
        lo = self.first_head(head, lo)
        at[0] = lo
        if lo >= self.n or heads[lo] != head:
            return False
        hi = lo + 1
        if hi < self.n and heads[hi] == head:
            hi = self.n
            mid = lo
            while mid < hi:
                c = (mid + hi) >> 1
                if heads[c] == head:
                    mid = c + 1
                else:
                    hi = c
        while lo < hi:
            mid = (lo + hi) >> 1
            cell = self.cell(mid)
            c = compare(cell + CELL_HEADER, u16(cell) & 0x3FFF, key, klen)
            if c == 0:
                at[0] = mid
                return True
            if c < 0:
                lo = mid + 1
            else:
                hi = mid
        at[0] = lo
        return False

    cdef inline int first_head(self, uint32_t head, int lo) noexcept:
        """The first slot from `lo` on whose head is not less."""
        cdef int hi = self.n, mid
        while lo < hi:
            mid = (lo + hi) >> 1
            if self.heads[mid] < head:
                lo = mid + 1
            else:
                hi = mid
        return lo

    cdef void prefetch_cell(self, const uint8_t* key, int klen) noexcept:
        """Have the processor fetch the cell of a leaf at which `find` will look first."""
        cdef int at
        cdef uint8_t* cell
        if klen > self.prefix:
            at = self.first_head(head_of(key + self.prefix, klen - self.prefix), 0)
            if at < self.n:
                cell = self.cell(at)
                prefetch(cell)
                prefetch(cell + CACHE_LINE)

    cdef int route(self, const uint8_t* key, int klen) noexcept:
        """The child of an inner node that covers `key`."""
        cdef int at
        if self.find(key, klen, &at):
            return at
        return at - 1

    cdef int build_heads(self) except -1:
        """Find the prefix that all keys share, its first eight bytes as a number, and the four bytes
        after it, for `find`."""
        cdef int base = 1 if self.level else 0
        cdef int i, klen, first_len, last_len, prefix = 0
        cdef uint8_t* first
        cdef uint8_t* last
        cdef uint32_t* grown
        if self.heads_room < self.n:
            grown = <uint32_t*>realloc(self.heads, 4 * (self.n + 16))
            if grown == NULL:
                raise MemoryError()
            self.heads = grown
            self.heads_room = self.n + 16
        if self.n > base:
            first = self.cell(base)
            last = self.cell(self.n - 1)
            first_len = u16(first) & 0x3FFF
            last_len = u16(last) & 0x3FFF
            if last_len < first_len:
                first_len = last_len
            while prefix < first_len and first[CELL_HEADER + prefix] == last[CELL_HEADER + prefix]:
                prefix += 1
        self.prefix = prefix
        self.shared = 0
        for i in range(min(prefix, 8)):
            self.shared = (self.shared << 8) | first[CELL_HEADER + i]
        for i in range(base, self.n):
            first = self.cell(i)
            klen = u16(first) & 0x3FFF
            self.heads[i] = head_of(first + CELL_HEADER + prefix, klen - prefix)
        return 0

    cdef object attach(self, bytes page, uint64_t blocks, uint32_t block_size, uint32_t node_size):
        """Take a stored page; None if it is sound, else what is wrong with it (nothing is taken).

        `blocks` is how many the image has: what the page points to must lie within.
        """
        cdef uint8_t* p = <uint8_t*>PyBytes_AS_STRING(page)
        cdef int size = <int>PyBytes_GET_SIZE(page)
        cdef int n, i, base, dist, klen, kind, vlen, before_len = 0
        cdef int64_t total
        cdef uint8_t* cell
        cdef uint8_t* value
        cdef uint8_t* before = NULL
        if size < HEADER or u32(p) != NODE_MAGIC:
            return "not a node"
        if p[4] != self.level:
            return f"a node of level {p[4]} where level {self.level} belongs"
        n = u16(p + 6)
        if n == 0 or HEADER + 2 * n > size:
            return f"a node of {n} items in {size} bytes"
        base = 1 if self.level else 0
        total = HEADER + 2 * n
        for i in range(n):
            dist = u16(p + HEADER + 2 * i)
            if dist < CELL_HEADER or dist > size - HEADER - 2 * n:
                return f"item {i} lies outside the node"
            cell = p + size - dist
            klen = u16(cell) & 0x3FFF
            kind = u16(cell) >> 14
            vlen = u16(cell + 2)
            if CELL_HEADER + klen + vlen > dist or klen > MAX_KEY_LEN:
                return f"item {i} runs over the end of the node"
            value = cell + CELL_HEADER + klen
            if base:
                if kind != KIND_INLINE or vlen != REF:
                    return f"item {i} is no child reference"
                if not sound_ref(value, self.level - 1, node_size, blocks, block_size):
                    return f"item {i} refers to what cannot be a child"
            elif klen == 0 or not sound_value(kind, value, vlen, node_size, blocks, block_size):
                return f"item {i} is malformed"
            if i > base and compare(before, before_len, cell + CELL_HEADER, klen) >= 0:
                return f"item {i} is out of order"
            before = cell + CELL_HEADER
            before_len = klen
            total += CELL_HEADER + klen + vlen
        if total != size:
            return f"{total} bytes of items in a node of {size}"
        self.n = n
        self.page = page
        self.p = p
        self.size = size
        self.garbage = 0
        self.last = -2
        self.low = HEADER + 2 * n
        if base:
            self.kids = untracked([None] * n)
        self.build_heads()
        self.cost = size + ENTRY_OVERHEAD + (48 * n if base else 0)
        return None

    cdef int copy_heads(self, Node source) except -1:
        """Take over what `find` knows of another node with the same items."""
        if self.heads_room < source.n:
            free(self.heads)
            self.heads_room = 0
            self.heads = <uint32_t*>malloc(4 * (source.n + 16))
            if self.heads == NULL:
                raise MemoryError()
            self.heads_room = source.n + 16
        memcpy(self.heads, source.heads, 4 * source.n)
        self.prefix = source.prefix
        self.shared = source.shared
        return 0

    cdef Node copy(self, int capacity, uint64_t txid, Meter meter):
        """A dirty node with the same items. The children are shared, being immutable."""
        # Making an object can run the garbage collector, and so another thread that evicts.
        cdef bytes held = self.page
        cdef uint8_t* p = self.p
        cdef list kids = self.kids
        cdef Node node = new_node(self.level, capacity, txid, meter)
        node.low = lay_out(p, self.size, self.n, self.low, self.garbage, node.p, capacity)
        node.n = self.n
        node.last = self.last
        if self.level:
            node.kids = untracked(list(kids))
        node.copy_heads(self)
        return node

    @property
    def used_bytes(self):
        """Bytes of the page that hold something."""
        return self.used()

    cdef int used(self) noexcept:
        return HEADER + 2 * self.n + self.size - self.low - self.garbage

    cdef bint insert(self, int i, const uint8_t* key, int klen, int kind,
                     const uint8_t* value, int vlen) except -1:
        """Put a cell in front of slot `i` of a dirty node; False where it does not fit."""
        cdef int need = CELL_HEADER + klen + vlen
        cdef int base = 1 if self.level else 0
        cdef uint8_t* cell
        cdef uint16_t* slots
        cdef uint32_t* grown
        cdef int other
        if self.low - HEADER - 2 * self.n < need + 2:
            if self.low + self.garbage - HEADER - 2 * self.n < need + 2:
                return False
            self.compact()
        self.low -= need
        cell = self.p + self.low
        put16(cell, <uint16_t>(klen | (kind << 14)))
        put16(cell + 2, <uint16_t>vlen)
        memcpy(cell + CELL_HEADER, key, klen)
        memcpy(cell + CELL_HEADER + klen, value, vlen)
        slots = <uint16_t*>(self.p + HEADER)
        memmove(slots + i + 1, slots + i, 2 * (self.n - i))
        slots[i] = <uint16_t>(self.size - self.low)
        if self.heads_room <= self.n:
            grown = <uint32_t*>realloc(self.heads, 4 * (2 * self.n + 16))
            if grown == NULL:
                raise MemoryError()
            self.heads = grown
            self.heads_room = 2 * self.n + 16
        memmove(self.heads + i + 1, self.heads + i, 4 * (self.n - i))
        self.n += 1
        self.last = i
        other = base if i != base else base + 1
        if i >= base and self.n > other and klen >= self.prefix and memcmp(
                key, self.cell(other) + CELL_HEADER, self.prefix) == 0:
            self.heads[i] = head_of(key + self.prefix, klen - self.prefix)
        else:
            self.build_heads()
        return True

    cdef bint replace(self, int i, int kind, const uint8_t* value, int vlen) except -1:
        """Give slot `i` of a dirty node another value; False where it does not fit."""
        cdef uint8_t* cell = self.cell(i)
        cdef int klen = u16(cell) & 0x3FFF
        cdef int old = u16(cell + 2)
        cdef int need
        cdef uint8_t key[MAX_KEY_LEN]
        if old == vlen:
            put16(cell, <uint16_t>(klen | (kind << 14)))
            memcpy(cell + CELL_HEADER + klen, value, vlen)
            return True
        need = CELL_HEADER + klen + vlen
        if self.low - HEADER - 2 * self.n < need:
            if self.low + self.garbage - HEADER - 2 * self.n + old < vlen:
                return False
            memcpy(key, cell + CELL_HEADER, klen)
            self.remove(i, 1)
            return self.insert(i, key, klen, kind, value, vlen)
        self.low -= need
        memcpy(self.p + self.low + CELL_HEADER, cell + CELL_HEADER, klen)
        cell = self.p + self.low
        put16(cell, <uint16_t>(klen | (kind << 14)))
        put16(cell + 2, <uint16_t>vlen)
        memcpy(cell + CELL_HEADER + klen, value, vlen)
        (<uint16_t*>(self.p + HEADER))[i] = <uint16_t>(self.size - self.low)
        self.garbage += CELL_HEADER + klen + old
        return True

    cdef void remove(self, int i, int count) noexcept:
        """Take `count` cells from slot `i` on out of a dirty node."""
        cdef int j
        cdef uint8_t* cell
        cdef uint16_t* slots = <uint16_t*>(self.p + HEADER)
        for j in range(i, i + count):
            cell = self.cell(j)
            self.garbage += CELL_HEADER + (u16(cell) & 0x3FFF) + u16(cell + 2)
        memmove(slots + i, slots + i + count, 2 * (self.n - i - count))
        memmove(self.heads + i, self.heads + i + count, 4 * (self.n - i - count))
        self.n -= count
        self.last = -2

    cdef int compact(self) except -1:
        """Squeeze the garbage out of a dirty page."""
        return self.repage(self.size)

    cdef int repage(self, int capacity) except -1:
        """Give a dirty node a page of another size, in which its cells have room."""
        cdef bytes page = PyBytes_FromStringAndSize(NULL, capacity)
        cdef uint8_t* p = <uint8_t*>PyBytes_AS_STRING(page)
        self.low = lay_out(self.p, self.size, self.n, self.low, self.garbage, p, capacity)
        self.meter.bytes += capacity - self.size
        self.page = page
        self.p = p
        self.size = capacity
        self.garbage = 0
        return 0

    cdef Node split(self, int at, int small, int capacity):
        """Move the cells from slot `at` on into a new dirty node. Both have `small` bytes where
        that is enough for what they hold, else `capacity`."""
        cdef Node right
        cdef int i, length, total = HEADER
        cdef uint8_t* cell
        for i in range(at, self.n):
            cell = self.cell(i)
            total += CELL_HEADER + (u16(cell) & 0x3FFF) + u16(cell + 2) + 2
        right = new_node(
            self.level, small if total <= small else capacity, self.birth, self.meter)
        for i in range(at, self.n):
            cell = self.cell(i)
            length = CELL_HEADER + (u16(cell) & 0x3FFF) + u16(cell + 2)
            right.low -= length
            memcpy(right.p + right.low, cell, length)
            (<uint16_t*>(right.p + HEADER))[i - at] = <uint16_t>(right.size - right.low)
            self.garbage += length
        right.n = self.n - at
        self.n = at
        self.last = -2
        if self.level:
            right.kids = untracked(self.kids[at:])
            del self.kids[at:]
        right.build_heads()
        self.build_heads()
        self.compact()
        if self.size > small and self.used() <= small:
            self.repage(small)
        return right

    cdef Node packed(self, uint64_t owner, uint64_t txid):
        """The clean node that is stored for this dirty one: no garbage, no gap."""
        cdef Node node = Node.__new__(Node)
        cdef int size = self.used()
        cdef bytes page = PyBytes_FromStringAndSize(NULL, size)
        cdef uint8_t* p = <uint8_t*>PyBytes_AS_STRING(page)
        node.low = lay_out(self.p, self.size, self.n, self.low, self.garbage, p, size)
        (<uint32_t*>p)[0] = NODE_MAGIC
        p[4] = <uint8_t>self.level
        p[5] = 0
        (<uint16_t*>p)[3] = <uint16_t>self.n
        (<uint64_t*>p)[1] = owner
        (<uint64_t*>p)[2] = txid
        node.page = page
        node.p = p
        node.size = size
        node.n = self.n
        node.level = self.level
        node.last = self.last
        node.copy_heads(self)
        if self.level:
            node.kids = untracked(list(self.kids))
        node.cost = size + ENTRY_OVERHEAD + (48 * self.n if self.level else 0)
        return node

    cdef void set_pointer(self, const uint8_t* pointer) noexcept:
        """Take the place of the stored page from a block pointer."""
        self.block = u64(pointer)
        self.birth = u64(pointer + 8)
        self.stored = u32(pointer + 16)
        self.logical = logical_of(pointer)
        self.compression = pointer[24]
        self.level = pointer[25]
        self.twin = twin_of(pointer)
        memcpy(self.checksum, pointer + 28, 16)

    cdef void write_pointer(self, uint8_t* to) noexcept:
        memcpy(to, &self.block, 8)
        memcpy(to + 8, &self.birth, 8)
        memcpy(to + 16, &self.stored, 4)
        put16(to + 20, <uint16_t>self.logical)
        put16(to + 22, <uint16_t>(<uint32_t>self.twin >> 16))
        to[24] = <uint8_t>self.compression
        to[25] = <uint8_t>self.level
        put16(to + 26, <uint16_t>self.twin)
        memcpy(to + 28, self.checksum, 16)

    cdef void summarize(self, uint64_t* out, uint32_t block_size, int copies):
        """Items, logical bytes, stored bytes and cells that point outside, below this node. What is
        not stored counts as if it were, in so many copies and without compression."""
        cdef int i, klen, kind
        cdef uint8_t* cell
        cdef uint8_t* value
        cdef uint64_t below[4]
        cdef uint64_t items = 0, logical = 0, outside = 0
        cdef uint64_t stored = self.used() if self.dirty else self.stored
        if not self.dirty:
            copies = 2 if self.twin else 1
        stored = (stored + block_size - 1) // block_size * block_size * copies
        for i in range(self.n):
            cell = self.cell(i)
            klen = u16(cell) & 0x3FFF
            value = cell + CELL_HEADER + klen
            if self.level:
                kid = self.kids[i]
                if kid is not None and (<Node>kid).dirty:
                    (<Node>kid).summarize(below, block_size, copies)
                    items += below[0]
                    logical += below[1]
                    stored += below[2]
                    outside += below[3]
                    continue
                items += u64(value + 44)
                logical += u64(value + 52)
                stored += u64(value + 60)
                outside += u32(value + 68)
                continue
            kind = u16(cell) >> 14
            items += 1
            logical += klen
            if kind == KIND_INLINE:
                logical += u16(cell + 2)
            elif kind == KIND_EXTENT:
                logical += u32(value + 20)
                stored += (u32(value + 16) + block_size - 1) // block_size * block_size
                outside += 1
            else:
                logical += u64(value + REF)
                stored += u64(value + 60)
                outside += 1
        out[0] = items
        out[1] = logical
        out[2] = stored
        out[3] = outside if outside < 0xFFFFFFFF else 0xFFFFFFFF


cdef int lay_out(const uint8_t* source, int size, int n, int low, int garbage,
                 uint8_t* page, int capacity) noexcept:
    """Copy the header, slots and cells of a page of `size` bytes into one that has room for what is
    used of it, without the garbage. Returns where the cells begin."""
    cdef int i, length, cells = size - low
    cdef const uint8_t* cell
    cdef uint16_t* slots = <uint16_t*>(page + HEADER)
    memcpy(page, source, HEADER + 2 * n)
    if not garbage:
        memcpy(page + capacity - cells, source + low, cells)
        return capacity - cells
    low = capacity
    for i in range(n):
        cell = source + size - slots[i]
        length = CELL_HEADER + (u16(cell) & 0x3FFF) + u16(cell + 2)
        low -= length
        memcpy(page + low, cell, length)
        slots[i] = <uint16_t>(capacity - low)
    return low


cdef bint sound_pointer(const uint8_t* pointer, int level, uint32_t most, uint64_t blocks,
                        uint32_t block_size) noexcept:
    """Whether a pointer to at most `most` bytes, at this level, can have been written."""
    cdef uint64_t block = u64(pointer)
    cdef uint32_t stored = u32(pointer + 16), logical = logical_of(pointer)
    cdef uint32_t beyond = (stored - 1) // block_size
    cdef int64_t twin = twin_of(pointer)
    if not (block != 0 and block < blocks and stored != 0 and stored <= logical <= most
            and beyond < blocks - block and pointer[25] == level):
        return False
    if twin == 0:
        return True
    # Neither copy lies over the other, nor outside the image.
    return ((twin > beyond or -twin > beyond) and <int64_t>block + twin > 0
            and <int64_t>block + twin + beyond < <int64_t>blocks)


cdef bint sound_ref(const uint8_t* ref, int level, uint32_t node_size, uint64_t blocks,
                    uint32_t block_size) noexcept:
    """Whether a reference to a node of this level can have been written."""
    return (level <= MAX_DEPTH - 2 and u64(ref + POINTER) <= MAX_ITEMS
            and sound_pointer(ref, level, node_size, blocks, block_size))


cdef bint sound_value(int kind, const uint8_t* value, int vlen, uint32_t node_size,
                      uint64_t blocks, uint32_t block_size) noexcept:
    """Whether the value of an item of a leaf can have been written."""
    cdef int i
    cdef uint32_t record
    if kind == KIND_INLINE:
        return <uint32_t>vlen <= node_size // 4 - 128
    if kind == KIND_EXTENT:
        return vlen == POINTER and sound_pointer(
            value, DATA_LEVEL, MAX_RECORD, blocks, block_size)
    if kind != KIND_TREE or vlen != TREE_CELL or u64(value + REF) > MAX_VALUE:
        return False
    record = u32(value + REF + 8)
    if record == 0 or record > MAX_RECORD:
        return False
    for i in range(REF):
        if value[i]:
            return sound_ref(value, value[25], node_size, blocks, block_size)
    return True


cdef Node new_node(int level, int capacity, uint64_t txid, Meter meter):
    """An empty dirty node, which transaction `txid` may change."""
    cdef Node node = Node.__new__(Node)
    node.birth = txid
    node.page = PyBytes_FromStringAndSize(NULL, capacity)
    node.p = <uint8_t*>PyBytes_AS_STRING(node.page)
    memset(node.p, 0, HEADER)
    node.size = capacity
    node.low = capacity
    node.level = level
    node.dirty = True
    node.last = -2
    node.kids = untracked([]) if level else None
    node.heads_room = 128
    node.heads = <uint32_t*>malloc(4 * 128)
    if node.heads == NULL:
        raise MemoryError()
    node.meter = meter
    meter.bytes += capacity + ENTRY_OVERHEAD
    return node
