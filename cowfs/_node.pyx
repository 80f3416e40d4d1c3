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
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memmove, memset

import sys

from cowfs._bytes cimport Slice, __builtin_bswap64, compare, prefetch, put16, u16, u32, u64
from cowfs._pointer cimport DATA_LEVEL, logical_of, twin_of

from cowfs import limits

if sys.byteorder != "little":
    raise ImportError("cowfs needs a little-endian machine")

cdef extern from *:
    void PyObject_GC_UnTrack(void* op)
    uint32_t __builtin_bswap32(uint32_t) noexcept

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
    elif klen > 0:
        memcpy(&word, key, klen)
    return __builtin_bswap32(word)


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

    cpdef void evict(self, Py_ssize_t room):
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


@cython.final
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

    cdef bint find(self, Slice key, int* at) noexcept:
        """Lower bound of `key` in `at`; True where the key itself is there.

        Slot 0 of an inner node stands for everything below slot 1, whatever key it holds.
        """
        cdef int base = 1 if self.level else 0
        cdef int lo = base, hi = self.n, mid, c, prefix = self.prefix
        cdef uint32_t head
        cdef uint64_t word
        cdef uint32_t* heads = self.heads
        if hi <= base:
            at[0] = hi
            return False
        if 0 < prefix <= 8 and key.length >= 8:
            # As below, without a look at a cell, which is seldom in the processor's cache.
            word = __builtin_bswap64(u64(key.at)) >> (64 - 8 * prefix)
            if word != self.shared:
                at[0] = hi if word > self.shared else base
                return False
        elif prefix:
            c = memcmp(key.at, key_of(self.cell(base)).at, min(prefix, key.length))
            if c > 0:
                at[0] = hi
                return False
            if c < 0 or key.length < prefix:
                at[0] = base
                return False
        head = head_of(key.at + prefix, key.length - prefix)
        lo = self.first_head(head, lo)
        at[0] = lo
        if lo >= self.n or heads[lo] != head:
            return False
        hi = lo + 1
        if hi < self.n and heads[hi] == head:
            hi = self.n if head == 0xFFFFFFFF else self.first_head(head + 1, hi)
        while lo < hi:
            mid = (lo + hi) >> 1
            c = compare(key_of(self.cell(mid)), key)
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
        cdef int mid, hi = self.n
        while lo < hi:
            mid = (lo + hi) >> 1
            if self.heads[mid] < head:
                lo = mid + 1
            else:
                hi = mid
        return lo

    cdef void prefetch_cell(self, Slice key) noexcept:
        """Have the processor fetch the cell of a leaf at which `find` will look first."""
        cdef int at
        if key.length > self.prefix:
            at = self.first_head(head_of(key.at + self.prefix, key.length - self.prefix), 0)
            if at < self.n:
                prefetch(self.cell(at))
                prefetch(self.cell(at) + CACHE_LINE)

    cdef int route(self, Slice key) noexcept:
        """The child of an inner node that covers `key`."""
        cdef int at
        return at if self.find(key, &at) else at - 1

    cdef int reserve_heads(self, int n) except -1:
        """Make room for so many heads."""
        cdef uint32_t* grown
        if self.heads_room < n:
            grown = <uint32_t*>realloc(self.heads, 4 * (n + 16))
            if grown == NULL:
                raise MemoryError()
            self.heads = grown
            self.heads_room = n + 16
        return 0

    cdef int build_heads(self) except -1:
        """Find the prefix that all keys share, its first eight bytes as a number, and the four bytes
        after it, for `find`."""
        cdef int base = 1 if self.level else 0
        cdef int i, prefix = 0
        cdef Slice key, last
        self.reserve_heads(self.n)
        if self.n > base:
            key = key_of(self.cell(base))
            last = key_of(self.cell(self.n - 1))
            while prefix < key.length and prefix < last.length and key.at[prefix] == last.at[prefix]:
                prefix += 1
        self.prefix = prefix
        self.shared = 0
        for i in range(min(prefix, 8)):
            self.shared = (self.shared << 8) | key.at[i]
        for i in range(base, self.n):
            key = key_of(self.cell(i))
            self.heads[i] = head_of(key.at + prefix, key.length - prefix)
        return 0

    cdef object attach(self, bytes page, uint64_t blocks, uint32_t block_size, uint32_t node_size):
        """Take a stored page; None if it is sound, else what is wrong with it (nothing is taken).

        `blocks` is how many the image has: what the page points to must lie within.
        """
        cdef uint8_t* p = <uint8_t*>PyBytes_AS_STRING(page)
        cdef int size = <int>PyBytes_GET_SIZE(page)
        cdef int n, i, dist
        cdef int64_t total
        cdef uint8_t* cell
        cdef Slice key, value, before
        if size < HEADER or u32(p) != NODE_MAGIC:
            return "not a node"
        if p[4] != self.level:
            return f"a node of level {p[4]} where level {self.level} belongs"
        n = u16(p + 6)
        if n == 0 or HEADER + 2 * n > size:
            return f"a node of {n} items in {size} bytes"
        total = HEADER + 2 * n
        for i in range(n):
            dist = u16(p + HEADER + 2 * i)
            if dist < CELL_HEADER or dist > size - HEADER - 2 * n:
                return f"item {i} lies outside the node"
            cell = p + size - dist
            key = key_of(cell)
            value = value_of(cell)
            if length_of(cell) > dist or key.length > MAX_KEY_LEN:
                return f"item {i} runs over the end of the node"
            if self.level:
                if kind_of(cell) != KIND_INLINE or value.length != REF:
                    return f"item {i} is no child reference"
                if not sound_ref(value.at, self.level - 1, node_size, blocks, block_size):
                    return f"item {i} refers to what cannot be a child"
            elif key.length == 0 or not sound_value(
                    kind_of(cell), value, node_size, blocks, block_size):
                return f"item {i} is malformed"
            if i > (1 if self.level else 0) and compare(before, key) >= 0:
                return f"item {i} is out of order"
            before = key
            total += length_of(cell)
        if total != size:
            return f"{total} bytes of items in a node of {size}"
        self.n = n
        self.take_page(page, HEADER + 2 * n)
        self.last = -2
        if self.level:
            self.kids = untracked([None] * n)
        self.build_heads()
        self.cost = size + ENTRY_OVERHEAD + (48 * n if self.level else 0)
        return None

    cdef void take_page(self, bytes page, int low) noexcept:
        """Go over to a page whose cells begin at `low`, with no garbage among them."""
        self.page = page
        self.p = <uint8_t*>PyBytes_AS_STRING(page)
        self.size = <int>PyBytes_GET_SIZE(page)
        self.low = low
        self.garbage = 0

    cdef int copy_items(self, Node source, int first, bytes page) except -1:
        """Take what another node holds from slot `first` on to a page of its own. The children are
        shared."""
        cdef list kids = source.kids
        self.take_page(page, source.lay_out(first, page))
        self.n = source.n - first
        self.level = source.level
        self.last = source.last
        self.reserve_heads(self.n)
        memcpy(self.heads, source.heads + first, 4 * self.n)
        self.prefix = source.prefix
        self.shared = source.shared
        if self.level:
            # Last: a new list can run the garbage collector, and so another thread that evicts.
            self.kids = untracked(kids[first:])
        return 0

    cdef void own(self, uint64_t txid, Meter meter) noexcept:
        """Be a dirty node, which transaction `txid` may change."""
        self.birth = txid
        self.dirty = True
        self.meter = meter
        meter.bytes += self.size + ENTRY_OVERHEAD

    cdef Node copy(self, int first, int capacity, uint64_t txid, Meter meter):
        """A dirty node with the same items, those from slot `first` on."""
        cdef Node node = Node.__new__(Node)
        node.copy_items(self, first, PyBytes_FromStringAndSize(NULL, capacity))
        node.own(txid, meter)
        return node

    cpdef int used(self) noexcept:
        """Bytes of the page that hold something."""
        return HEADER + 2 * self.n + self.size - self.low - self.garbage

    cdef bint insert(self, int i, Slice key, int kind, Slice value, Node kid) except -1:
        """Put a cell, and the child that belongs to it, in front of slot `i` of a dirty node; False
        where it does not fit."""
        cdef int need = CELL_HEADER + key.length + value.length
        cdef int base = 1 if self.level else 0
        cdef int other = base if i != base else base + 1
        cdef uint8_t* cell
        cdef uint16_t* slots
        if self.low - HEADER - 2 * self.n < need + 2:
            if self.used() + need + 2 > self.size:
                return False
            self.repage(self.size)
        if self.heads_room <= self.n:
            self.reserve_heads(self.n + 1)
        self.low -= need
        cell = self.p + self.low
        put16(cell, <uint16_t>(key.length | kind << 14))
        put16(cell + 2, <uint16_t>value.length)
        memcpy(cell + CELL_HEADER, key.at, key.length)
        memcpy(cell + CELL_HEADER + key.length, value.at, value.length)
        slots = <uint16_t*>(self.p + HEADER)
        memmove(slots + i + 1, slots + i, 2 * (self.n - i))
        slots[i] = <uint16_t>(self.size - self.low)
        memmove(self.heads + i + 1, self.heads + i, 4 * (self.n - i))
        self.n += 1
        self.last = i
        if i >= base and self.n > other and key.length >= self.prefix and memcmp(
                key.at, key_of(self.cell(other)).at, self.prefix) == 0:
            self.heads[i] = head_of(key.at + self.prefix, key.length - self.prefix)
        else:
            self.build_heads()
        if self.level:
            self.kids.insert(i, kid)
        return True

    cdef bint overwrite(self, int i, int kind, Slice value) noexcept:
        """Give slot `i` of a dirty node another value; False where it has another length."""
        cdef uint8_t* cell = self.cell(i)
        cdef int klen = key_of(cell).length
        if value_of(cell).length != value.length:
            return False
        put16(cell, <uint16_t>(klen | kind << 14))
        memcpy(cell + CELL_HEADER + klen, value.at, value.length)
        return True

    cdef int remove(self, int i, int count) except -1:
        """Take `count` cells from slot `i` on, and their children, out of a dirty node."""
        cdef int j
        cdef uint16_t* slots = <uint16_t*>(self.p + HEADER)
        for j in range(i, i + count):
            self.garbage += length_of(self.cell(j))
        memmove(slots + i, slots + i + count, 2 * (self.n - i - count))
        memmove(self.heads + i, self.heads + i + count, 4 * (self.n - i - count))
        self.n -= count
        self.last = -2
        if self.level:
            del self.kids[i:i + count]
        return 0

    cdef int repage(self, int capacity) except -1:
        """Give a dirty node a page of another size, in which its cells have room, without garbage."""
        cdef bytes page = PyBytes_FromStringAndSize(NULL, capacity)
        cdef int low = self.lay_out(0, page)
        self.meter.bytes += capacity - self.size
        self.take_page(page, low)
        return 0

    cdef int fit(self, int small, int capacity) except -1:
        """Take what keys share anew, and a page of `small` bytes where that is enough."""
        self.build_heads()
        if self.used() <= small:
            capacity = small
        return self.repage(capacity) if self.garbage or self.size != capacity else 0

    cdef Node split(self, int at, int small, int capacity):
        """Move the cells from slot `at` on into a new dirty node. Both have `small` bytes where
        that is enough for what they hold, else `capacity`."""
        cdef Node right
        if at == self.n:
            self.last = -2
            return new_node(self.level, small, self.birth, self.meter)
        right = self.copy(at, self.size, self.birth, self.meter)
        right.last = -2
        right.fit(small, capacity)
        self.remove(at, self.n - at)
        self.fit(small, capacity)
        return right

    cdef Node packed(self, uint64_t owner, uint64_t txid):
        """The clean node that is stored for this dirty one: no garbage, no gap."""
        cdef Node node = Node.__new__(Node)
        node.copy_items(self, 0, PyBytes_FromStringAndSize(NULL, self.used()))
        (<uint32_t*>node.p)[0] = NODE_MAGIC
        node.p[4] = <uint8_t>self.level
        node.p[5] = 0
        (<uint16_t*>node.p)[3] = <uint16_t>self.n
        (<uint64_t*>node.p)[1] = owner
        (<uint64_t*>node.p)[2] = txid
        node.cost = node.size + ENTRY_OVERHEAD + (48 * self.n if self.level else 0)
        return node

    cdef int lay_out(self, int first, bytes page) noexcept:
        """Copy header, and slots and cells from `first` on, to a page that has room for them, without
        the garbage. Returns where the cells begin."""
        cdef int i, length, capacity = <int>PyBytes_GET_SIZE(page), low = capacity
        cdef uint8_t* p = <uint8_t*>PyBytes_AS_STRING(page)
        cdef uint16_t* slots = <uint16_t*>(p + HEADER)
        memcpy(p, self.p, HEADER + 2 * self.n)
        if not self.garbage and not first:
            low -= self.size - self.low
            memcpy(p + low, self.p + self.low, self.size - self.low)
            return low
        for i in range(first, self.n):
            length = length_of(self.cell(i))
            low -= length
            memcpy(p + low, self.cell(i), length)
            slots[i - first] = <uint16_t>(capacity - low)
        return low

    cdef void set_pointer(self, const uint8_t* pointer) noexcept:
        """Take the place of the stored page from a block pointer."""
        memcpy(&self.at, pointer, POINTER)
        self.block = self.at.block
        self.birth = self.at.birth
        self.level = self.at.level

    cdef bytes pointer(self):
        """The block pointer to the stored page."""
        return (<char*>&self.at)[:POINTER]

    cdef bytes reference(self, uint32_t block_size):
        """Pointer and summary of a stored node, as its parent has them."""
        cdef Summary summary = self.summarize(block_size, 1)
        return self.pointer() + (<char*>&summary)[:sizeof(Summary)]

    cpdef Summary summarize(self, uint32_t block_size, int copies):
        """What this node and everything below it hold. What is not stored counts as if it were, in
        so many copies and without compression."""
        cdef int i
        cdef uint8_t* cell
        cdef Slice value
        cdef Summary below, total
        cdef uint64_t outside = 0
        if not self.dirty:
            copies = 2 if twin_of(<uint8_t*>&self.at) else 1
        total.items = total.logical = 0
        total.stored = copies * whole_blocks(self.used() if self.dirty else self.at.stored, block_size)
        for i in range(self.n):
            cell = self.cell(i)
            value = value_of(cell)
            if self.level:
                kid = self.kids[i]
                if kid is not None and (<Node>kid).dirty:
                    below = (<Node>kid).summarize(block_size, copies)
                else:
                    memcpy(&below, value.at + POINTER, sizeof(Summary))
                total.items += below.items
                total.logical += below.logical
                total.stored += below.stored
                outside += below.outside
                continue
            total.items += 1
            total.logical += key_of(cell).length
            if kind_of(cell) == KIND_INLINE:
                total.logical += value.length
                continue
            outside += 1
            if kind_of(cell) == KIND_EXTENT:
                total.logical += u32(value.at + 20)
                total.stored += whole_blocks(u32(value.at + 16), block_size)
            else:
                total.logical += u64(value.at + REF)
                total.stored += u64(value.at + 60)
        total.outside = <uint32_t>min(outside, <uint64_t>0xFFFFFFFF)
        return total


cdef inline uint64_t whole_blocks(uint64_t size, uint64_t block_size) noexcept:
    """Bytes of the blocks that so many take."""
    return (size + block_size - 1) // block_size * block_size


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


cdef bint sound_value(int kind, Slice value, uint32_t node_size, uint64_t blocks,
                      uint32_t block_size) noexcept:
    """Whether the value of an item of a leaf can have been written."""
    cdef int i
    cdef uint32_t record
    if kind == KIND_INLINE:
        return <uint32_t>value.length <= node_size // 4 - 128
    if kind == KIND_EXTENT:
        return value.length == POINTER and sound_pointer(
            value.at, DATA_LEVEL, MAX_RECORD, blocks, block_size)
    if kind != KIND_TREE or value.length != TREE_CELL or u64(value.at + REF) > MAX_VALUE:
        return False
    record = u32(value.at + REF + 8)
    if record == 0 or record > MAX_RECORD:
        return False
    for i in range(REF):
        if value.at[i]:
            return sound_ref(value.at, value.at[25], node_size, blocks, block_size)
    return True


cdef Node new_node(int level, int capacity, uint64_t txid, Meter meter):
    """An empty dirty node, which transaction `txid` may change."""
    cdef Node node = Node.__new__(Node)
    node.take_page(PyBytes_FromStringAndSize(NULL, capacity), capacity)
    memset(node.p, 0, HEADER)
    node.level = level
    node.last = -2
    node.kids = untracked([]) if level else None
    node.reserve_heads(112)
    node.own(txid, meter)
    return node
