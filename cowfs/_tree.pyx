# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The copy-on-write B+tree: the walk from root to leaf, changes, scans.

A tree is a root node and, for a writer, a ledger. Nodes that are shared between versions are never
changed: the first touch in a transaction copies a node (and so, one after the other, the path to
it), and the ledger is told, so that counts follow the pointers: copying a node that only this tree
refers to frees the old block; copying a shared one takes one reference from it and gives one to each
of its children (O. Rodeh, B-trees, Shadowing, and Clones, ACM Transactions on Storage, 2008).

A dirty node belongs to the transaction that made it. Once that has ended it is frozen: other versions
share it, and who wants to change it copies it like a stored one, but that nothing is counted: only
what is stored has counts.

Invariants: `kids` of an inner node hold either None or the very node that its cell points to; dirty
nodes hang below dirty nodes only; a dirty node has no block. Nothing here blocks or does I/O but
loading a node, which goes through `source`; a pointer into a page is never used after a load, since
another thread may evict meanwhile, except where the page is held.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from cowfs._bytes cimport compare, prefetch, u16, u32, u64
from cowfs._ledger cimport (
    OPERATION_DELETE, OPERATION_PUT, OPERATION_RANGE, Ledger,
)
from cowfs._node cimport (
    CELL_HEADER, HEADER, KIND_EXTENT, KIND_INLINE, KIND_TREE, MAX_DEPTH, MAX_KEY_LEN, POINTER, REF,
    Cache, Entry, Node, new_node, sound_ref,
)
from cowfs._pointer cimport twin_of
from cowfs._writer cimport BlockWriter

from cowfs.errors import ClosedError, CorruptionError, KeyTypeError, ReadOnlyError, UsageError

INLINE = KIND_INLINE
EXTENT = KIND_EXTENT
TREE = KIND_TREE

cdef enum:
    TOGETHER = 32
    RELEASE = 0
    SWAP = 1
    FIRST_DATASET = 16
    SMALL_NODE = 4096
    SAMPLE = 16


cdef inline int check_key(key) except -1:
    if type(key) is not bytes:
        raise KeyTypeError(f"keys are bytes, not {type(key).__name__}")
    if not 1 <= PyBytes_GET_SIZE(key) <= MAX_KEY_LEN:
        raise UsageError(
            f"a key of {len(key)} bytes; keys have 1 to {MAX_KEY_LEN} bytes")
    return 0


cdef class Tree:
    """One version of a tree: read by anyone, changed by the one writer that gave it a ledger.

    `source.read(pointer, label)` gives the verified, decompressed bytes of a block, of which the
    source has `total_blocks`, of `block_size` bytes.
    `resolve(kind, value)` gives the bytes of a large value; set by the layer that knows them.
    `pin` is whatever has to stay alive as long as this tree, or a scan of it, is in use.
    `volume_size` is what the catalog says of a volume's tree: the bytes that it may hold.
    """

    cdef object source
    cdef Cache cache
    cdef Ledger ledger
    cdef Node root
    cdef readonly int node_size
    cdef readonly uint64_t owner
    cdef readonly uint64_t version
    cdef uint64_t items
    cdef readonly int inline_limit
    cdef int small
    cdef int splits
    cdef bint compressible
    cdef public str label
    cdef public object resolve
    cdef public object pin
    cdef public uint64_t volume_size
    cdef bytes stored_ref
    cdef bint closed

    def __init__(self, source, Cache cache, int node_size, uint64_t owner, bytes ref=None,
                 Ledger ledger=None, str label="", resolve=None):
        self.source = source
        self.cache = cache
        self.node_size = node_size
        # So a leaf has room for three items; and for one of them a block is enough.
        self.inline_limit = min(node_size // 4, source.block_size - MAX_KEY_LEN) - 128
        self.small = min(SMALL_NODE, node_size)
        self.owner = owner
        self.ledger = ledger
        self.label = label
        self.resolve = resolve
        self.stored_ref = ref
        if ref is not None:
            self.root = self.shell(<const uint8_t*><char*>ref)
            self.items = u64(<const uint8_t*><char*>ref + 44)

    def fork(self, Ledger ledger=None, str label=None):
        """The same version as another tree: for a writer with a ledger, else for a reader."""
        cdef Tree tree = Tree.__new__(Tree)
        tree.source = self.source
        tree.cache = self.cache
        tree.node_size = self.node_size
        tree.inline_limit = self.inline_limit
        tree.small = self.small
        tree.owner = self.owner
        tree.ledger = ledger
        tree.label = self.label if label is None else label
        tree.resolve = self.resolve
        tree.pin = self.pin
        tree.volume_size = self.volume_size
        tree.root = self.root
        tree.items = self.items
        tree.stored_ref = self.stored_ref
        return tree

    def reset(self, bytes ref):
        """Go over to another stored version, as a rollback does."""
        self.version += 1
        if self.ledger is not None:
            self.ledger.operations.give_up()
        self.stored_ref = ref
        self.root = None
        self.items = 0
        if ref is not None:
            self.root = self.shell(<const uint8_t*><char*>ref)
            self.items = u64(<const uint8_t*><char*>ref + 44)

    def close(self):
        """No use from here on: every call raises ClosedError."""
        self.closed = True
        self.version += 1
        self.root = None
        self.ledger = None

    def __len__(self):
        if self.closed:
            raise ClosedError(f"{self.label}: this view or transaction has ended")
        if self.root is not None and not self.root.dirty and self.stored_ref is not None:
            if self.root.p == NULL:
                self.load(self.root)
            self.check_summary(self.root, <const uint8_t*><char*>self.stored_ref)
        return self.items

    @property
    def writable(self):
        """Whether this tree may be changed."""
        return self.ledger is not None

    @property
    def edits(self):
        """The ledger of the transaction that this tree belongs to, or None."""
        return self.ledger

    @property
    def ref(self):
        """Reference of the stored root (None for an empty tree), as of the last `flush`."""
        return self.stored_ref

    def summary(self, uint32_t block_size, int copies):
        """(items, logical, stored bytes) of the tree; what is in memory only as if it were stored,
        its nodes in so many copies."""
        cdef uint64_t found[4]
        cdef const uint8_t* ref
        if self.root is None:
            return 0, 0, 0
        if self.root.dirty:
            self.root.summarize(found, block_size, copies)
            return found[0], found[1], found[2]
        ref = <const uint8_t*><char*>self.stored_ref
        return u64(ref + 44), u64(ref + 52), u64(ref + 60)

    @property
    def top(self):
        """The root: its reference where it is stored, the node where it is not; None without one."""
        if self.root is None or self.root.dirty:
            return self.root
        return self.stored_ref

    # --- walking ---------------------------------------------------------------------------------

    cdef Node shell(self, const uint8_t* pointer):
        """The cached node that `pointer` names, or an empty one that knows its place."""
        cdef Node node
        found = self.cache.by_block.get(u64(pointer))
        if type(found) is Node:
            node = <Node>found
            if (node.birth == u64(pointer + 8) and node.level == pointer[25]
                    and node.twin == twin_of(pointer)
                    and memcmp(node.checksum, pointer + 28, 16) == 0):
                return node
        node = Node.__new__(Node)
        node.set_pointer(pointer)
        return node

    cdef inline void keep_budget(self):
        """Make the cache drop what is too much, beside the dirty nodes."""
        cdef Py_ssize_t dirty = self.cache.dirty.bytes
        if self.cache.used + dirty > self.cache.limit:
            self.cache.evict(dirty)

    cdef int load(self, Node node) except -1:
        """Fill an empty node from the device."""
        cdef uint8_t pointer[POINTER]
        cdef bytes page
        if node.level > MAX_DEPTH - 2:
            raise CorruptionError(self.label, node.block, f"a node of level {node.level}")
        if node.logical > <uint32_t>self.node_size:
            raise CorruptionError(self.label, node.block, f"a node of {node.logical} bytes")
        self.keep_budget()
        node.write_pointer(pointer)
        page = self.source.read(PyBytes_FromStringAndSize(<char*>pointer, POINTER), self.label)
        if node.p != NULL:
            return 0
        problem = node.attach(
            page, self.source.total_blocks, self.source.block_size, self.node_size)
        if problem is not None:
            raise CorruptionError(self.label, node.block, problem)
        if node is self.root and self.stored_ref is not None:
            self.check_summary(node, <const uint8_t*><char*>self.stored_ref)
        self.cache.admit(node)
        return 0

    cdef int check_summary(self, Node node, const uint8_t* ref) except -1:
        """CorruptionError where a node is not what the reference to it says that it holds."""
        cdef uint64_t found[4]
        node.summarize(found, self.source.block_size, 1)
        if memcmp(found, ref + POINTER, 24) or found[3] != u32(ref + POINTER + 24):
            node.drop()
            raise CorruptionError(self.label, node.block, "holds something else than its parent says")
        return 0

    def check_ref(self, bytes ref):
        """CorruptionError where this cannot be a reference to a node of this store."""
        cdef const uint8_t* r = <const uint8_t*>PyBytes_AS_STRING(ref)
        if PyBytes_GET_SIZE(ref) != REF or not sound_ref(
                r, r[25], self.node_size, self.source.total_blocks, self.source.block_size):
            raise CorruptionError(self.label, None, "a reference to what cannot be a node")

    cdef Node child(self, Node parent, int i):
        """Child `i`, loaded. The page of `parent` must be there; it may be gone afterwards."""
        cdef Node kid
        cdef bytes held
        cdef uint8_t* cell
        cdef const uint8_t* bound
        cdef uint8_t* first
        cdef int length
        cdef bint proven = True
        cdef list kids = parent.kids
        kid_or_none = kids[i]
        if kid_or_none is None:
            proven = False
            cell = parent.cell(i)
            kid = self.shell(cell + CELL_HEADER + (u16(cell) & 0x3FFF))
            if kid.level != parent.level - 1:
                raise CorruptionError(
                    self.label, kid.block,
                    f"a node of level {kid.level} below one of level {parent.level}")
        else:
            kid = <Node>kid_or_none
        kid.referenced = True
        if kid.p == NULL or not proven:
            held = parent.page
            cell = parent.cell(i)
            bound = cell + CELL_HEADER
            length = u16(cell) & 0x3FFF
            cell = NULL
            if i + 1 < parent.n:
                cell = parent.cell(i + 1)
            kids[i] = None
            if kid.p == NULL:
                self.load(kid)
            self.check_summary(kid, bound + length)
            # Keys outside what the parent promises would be found by a scan and not by a search.
            first = kid.cell(1 if kid.level and kid.n > 1 else 0)
            if i and not (kid.level and kid.n == 1) and compare(
                    first + CELL_HEADER, u16(first) & 0x3FFF, bound, length) < 0:
                raise CorruptionError(self.label, kid.block, "a key below its parent's bound")
            first = kid.cell(kid.n - 1)
            if cell != NULL and not (kid.level and kid.n == 1) and compare(
                    first + CELL_HEADER, u16(first) & 0x3FFF,
                    cell + CELL_HEADER, u16(cell) & 0x3FFF) >= 0:
                raise CorruptionError(self.label, kid.block, "a key above its parent's bound")
            kids[i] = kid
        return kid

    cdef Node leaf_of(self, const uint8_t* key, int klen):
        """The leaf that covers `key`; None in an empty tree."""
        cdef Node node = self.root
        if node is None:
            if self.closed:
                raise ClosedError(f"{self.label}: this view or transaction has ended")
            return None
        if node.p == NULL:
            self.load(node)
        node.referenced = True
        while node.level:
            node = self.child(node, node.route(key, klen))
        return node

    def get(self, key, default=None):
        """The value of `key`, or `default`."""
        cdef Node leaf
        check_key(key)
        leaf = self.leaf_of(<const uint8_t*>PyBytes_AS_STRING(key), <int>PyBytes_GET_SIZE(key))
        return default if leaf is None else self.value_in(leaf, <bytes>key, default)

    def get_many(self, keys, default=None):
        """The values of several keys, in their order."""
        cdef list wanted = list(keys), values = []
        cdef Py_ssize_t start
        for start in range(0, len(wanted), TOGETHER):
            self.get_together(wanted[start:start + TOGETHER], values, default)
        return values

    cdef int get_together(self, list keys, list values, default) except -1:
        """Add the values of up to TOGETHER keys.

        A search waits for memory most of the time: for a node, its heads, its page. So these go
        down together, level by level, and what each needs next is fetched while the others go on.
        """
        cdef list nodes
        cdef int i, at, level, count = <int>len(keys)
        cdef Node node = self.root
        if self.closed:
            raise ClosedError(f"{self.label}: this view or transaction has ended")
        for i in range(count):
            check_key(keys[i])
        if node is not None and node.p == NULL:
            self.load(node)
        nodes = [node] * count
        level = 0 if node is None else node.level
        while level:
            level -= 1
            for i in range(count):
                node = <Node>nodes[i]
                # Loading a node may have made the cache drop another: `get` looks for it below.
                if node is None or node.p == NULL:
                    nodes[i] = None
                    continue
                at = node.route(<const uint8_t*>PyBytes_AS_STRING(keys[i]),
                                <int>PyBytes_GET_SIZE(keys[i]))
                nodes[i] = node = self.child(node, at)
                prefetch(node.heads)
                prefetch(node.p)
        for i in range(count):
            node = <Node>nodes[i]
            if node is not None and node.p != NULL:
                node.prefetch_cell(<const uint8_t*>PyBytes_AS_STRING(keys[i]),
                                   <int>PyBytes_GET_SIZE(keys[i]))
        for i in range(count):
            node = <Node>nodes[i]
            if node is None or node.p == NULL:
                values.append(self.get(keys[i], default))
            else:
                values.append(self.value_in(node, keys[i], default))
        return 0

    @cython.final
    cdef inline object value_in(self, Node leaf, bytes key, default):
        """The value of `key` in the leaf that covers it, or `default`."""
        cdef int at, klen = <int>PyBytes_GET_SIZE(key)
        cdef uint8_t* cell
        if not leaf.find(<const uint8_t*>PyBytes_AS_STRING(key), klen, &at):
            return default
        cell = leaf.cell(at)
        value = PyBytes_FromStringAndSize(<char*>cell + CELL_HEADER + klen, u16(cell + 2))
        if u16(cell) >> 14:
            return self.resolve(u16(cell) >> 14, value)
        return value

    def cell(self, bytes key):
        """(kind, value as stored) of `key`, or None: for large values, whose cell is a pointer."""
        cdef Node leaf
        cdef int at, klen = <int>PyBytes_GET_SIZE(key)
        cdef uint8_t* cell
        leaf = self.leaf_of(<const uint8_t*>PyBytes_AS_STRING(key), klen)
        if leaf is None or not leaf.find(<const uint8_t*>PyBytes_AS_STRING(key), klen, &at):
            return None
        cell = leaf.cell(at)
        return (u16(cell) >> 14,
                PyBytes_FromStringAndSize(<char*>cell + CELL_HEADER + klen, u16(cell + 2)))

    def __contains__(self, key):
        cdef Node leaf
        cdef int at
        check_key(key)
        leaf = self.leaf_of(<const uint8_t*>PyBytes_AS_STRING(key), <int>PyBytes_GET_SIZE(key))
        return leaf is not None and leaf.find(
            <const uint8_t*>PyBytes_AS_STRING(key), <int>PyBytes_GET_SIZE(key), &at)

    def items_between(self, bytes start=None, bytes stop=None, bint reverse=False, int what=0):
        """An iterator over start <= key < stop.

        `what` is 0 for (key, value), 1 for keys, 2 for values, 3 for (key, kind, value as stored).
        Changes to the tree behind the iterator's position do not disturb it; changes ahead show.
        """
        return Cursor(self, start, stop, reverse, what)

    # --- changing --------------------------------------------------------------------------------

    cdef int writing(self) except -1:
        if self.ledger is None:
            if self.closed:
                raise ClosedError(f"{self.label}: this view or transaction has ended")
            raise ReadOnlyError(f"{self.label} is open for reading only")
        if self.cache.dirty.bytes > self.ledger.dirty_limit:
            self.ledger.spill()
        self.keep_budget()
        return 0

    cdef inline bint owned(self, Node node):
        """Whether this transaction made the node, and so may change it."""
        return node.dirty and node.birth == self.ledger.txid

    cdef Node writable_copy(self, Node node):
        """A copy of a loaded node that this transaction owns, with the counts put right."""
        cdef Node copy = node.copy(
            self.small if node.used() <= self.small else self.node_size,
            self.ledger.txid, self.cache.dirty)
        if not node.dirty and self.account(node) and not self.ledger.keep_old:
            self.cache.forget(node)
        return copy

    cdef bint account(self, Node node) except -1:
        """One pointer to a stored node goes away, and a copy of its items stays. True where that
        was the last pointer, and the node is free."""
        cdef Ledger ledger = self.ledger
        cdef int i
        cdef uint8_t* cell
        cdef uint64_t block
        if ledger.count_of(node.block) > 1:
            ledger.counts[node.block] = ledger.count_of(node.block) - 1
            for i in range(node.n):
                cell = node.cell(i)
                if node.level or u16(cell) >> 14:
                    block = u64(cell + CELL_HEADER + (u16(cell) & 0x3FFF))
                    if block:
                        ledger.raise_count(block)
            return False
        ledger.last_reference(node.block)
        ledger.free_blocks(node.block, node.stored, node.birth, node.twin)
        return True

    cdef Node dirty_root(self):
        if self.root is None:
            self.root = new_node(0, self.small, self.ledger.txid, self.cache.dirty)
        elif not self.owned(self.root):
            if self.root.p == NULL:
                self.load(self.root)
            self.root = self.writable_copy(self.root)
        return self.root

    cdef Node dirty_child(self, Node parent, int i):
        cdef Node kid = self.child(parent, i)
        if not self.owned(kid):
            kid = self.writable_copy(kid)
            parent.kids[i] = kid
        return kid

    cdef int forget_cell(self, uint8_t* cell) except -1:
        """The cell's value goes away: so does what it points to."""
        cdef int kind = u16(cell) >> 14
        cdef uint8_t* value = cell + CELL_HEADER + (u16(cell) & 0x3FFF)
        if kind == KIND_EXTENT:
            self.ledger.lower_count(value)
        elif kind == KIND_TREE and u64(value):
            self.ledger.dropped.append(PyBytes_FromStringAndSize(<char*>value, REF))
        return 0

    def put(self, key, value, int kind=KIND_INLINE):
        """Insert or replace. What an old value pointed to is released."""
        check_key(key)
        if type(value) is not bytes:
            raise KeyTypeError(f"values are bytes, not {type(value).__name__}")
        if kind == KIND_INLINE and PyBytes_GET_SIZE(value) > self.inline_limit:
            raise UsageError("a value too large for a leaf")
        self.writing()
        if self.owner >= FIRST_DATASET:
            if kind == KIND_INLINE:
                self.note(OPERATION_PUT, key, value)
            else:
                self.ledger.operations.give_up()
        self.store(<const uint8_t*>PyBytes_AS_STRING(key), <int>PyBytes_GET_SIZE(key), kind,
                   <const uint8_t*>PyBytes_AS_STRING(value), <int>PyBytes_GET_SIZE(value), RELEASE)

    cdef int note(self, int operation, bytes key, bytes value) except -1:
        """Put an operation on the transaction's list."""
        return self.ledger.operations.add(
            self.owner, operation,
            <const uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key),
            <const uint8_t*>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))

    def swap(self, bytes key, int kind, bytes value):
        """Replace a value whose old pointer the caller has accounted for already."""
        self.writing()
        self.ledger.operations.give_up()
        self.store(<const uint8_t*>PyBytes_AS_STRING(key), <int>PyBytes_GET_SIZE(key), kind,
                   <const uint8_t*>PyBytes_AS_STRING(value), <int>PyBytes_GET_SIZE(value), SWAP)

    def touch(self, bytes key):
        """Copy the path to `key`, so that the counts of what its cell points to are settled."""
        cdef Node node
        cdef int klen = <int>PyBytes_GET_SIZE(key)
        self.writing()
        self.ledger.operations.give_up()
        if self.root is None:
            return
        node = self.dirty_root()
        while node.level:
            node = self.dirty_child(node, node.route(<const uint8_t*>PyBytes_AS_STRING(key), klen))

    cdef int store(self, const uint8_t* key, int klen, int kind,
                   const uint8_t* value, int vlen, int mode) except -1:
        cdef PyObject* path[MAX_DEPTH]
        cdef int slot[MAX_DEPTH]
        cdef int depth = 0, at
        cdef Node node = self.dirty_root()
        cdef bint exact
        while node.level:
            at = node.route(key, klen)
            path[depth] = <PyObject*>node
            slot[depth] = at
            depth += 1
            node = self.dirty_child(node, at)
        exact = node.find(key, klen, &at)
        self.version += 1
        if exact:
            if self.owner >= FIRST_DATASET:
                self.ledger.replaced += 1
                if u16(node.cell(at) + 2) < vlen:
                    self.ledger.grows = True
            if mode == RELEASE:
                self.forget_cell(node.cell(at))
            if node.replace(at, kind, value, vlen):
                return 0
            node.remove(at, 1)
            if self.make_room(node) and node.insert(at, key, klen, kind, value, vlen):
                return 0
        else:
            self.items += 1
            if self.owner >= FIRST_DATASET:
                self.ledger.grows = True
            if node.insert(at, key, klen, kind, value, vlen):
                return 0
            if self.make_room(node) and node.insert(at, key, klen, kind, value, vlen):
                return 0
        self.insert_split(node, at, key, klen, kind, value, vlen, None, path, slot, depth)
        return 0

    cdef bint make_room(self, Node node) except -1:
        """Where a node is full: give it a larger page instead of splitting it, if that is better.

        A node of one small block is the cheapest to write. A larger one pays where it compresses
        into such a block, which a sample of those that are full tells, or where items are few.
        """
        if node.size >= self.node_size:
            return False
        if node.n >= 4:
            if node.level or self.ledger.compress is None:
                return False
            if self.splits % SAMPLE == 0:
                self.compressible = 2 * len(self.ledger.compress(node.page)) < node.size
            self.splits += 1
            if not self.compressible:
                return False
        node.repage(self.node_size)
        return True

    cdef int insert_split(self, Node node, int at, const uint8_t* key, int klen, int kind,
                          const uint8_t* value, int vlen, Node kid,
                          PyObject** path, int* slot, int depth) except -1:
        """Insert where there is no room: split the node, and the ones above it where need be."""
        cdef Node right, parent
        cdef int middle
        cdef uint8_t reference[REF]
        cdef bytes separator
        memset(reference, 0, REF)
        while True:
            # Input that arrives in order leaves full nodes behind.
            if at == node.n and node.last == node.n - 1:
                middle = node.n
            else:
                middle = middle_of(node, at, CELL_HEADER + klen + vlen)
            right = node.split(middle, self.small, self.node_size)
            if at > middle or (at == middle and right.n == 0) or (
                    at == middle and node.used() > right.used()):
                at -= middle
                self.insert_after_split(right, at, key, klen, kind, value, vlen)
                if kid is not None:
                    right.kids.insert(at, kid)
            else:
                self.insert_after_split(node, at, key, klen, kind, value, vlen)
                if kid is not None:
                    node.kids.insert(at, kid)
            separator = separator_of(node, right)
            key = <const uint8_t*>PyBytes_AS_STRING(separator)
            klen = <int>PyBytes_GET_SIZE(separator)
            kind = KIND_INLINE
            value = reference
            vlen = REF
            kid = right
            if depth == 0:
                parent = self.raise_root(node)
                parent.insert(1, key, klen, KIND_INLINE, reference, REF)
                parent.kids.append(right)
                return 0
            depth -= 1
            parent = <Node>path[depth]
            at = slot[depth] + 1
            if parent.insert(at, key, klen, KIND_INLINE, reference, REF) or (
                    self.make_room(parent)
                    and parent.insert(at, key, klen, KIND_INLINE, reference, REF)):
                parent.kids.insert(at, right)
                return 0
            node = parent

    cdef Node raise_root(self, Node node):
        """A new root above the one there was, which is its only child."""
        cdef uint8_t reference[REF]
        memset(reference, 0, REF)
        self.root = new_node(node.level + 1, self.small, self.ledger.txid, self.cache.dirty)
        self.root.insert(0, reference, 0, KIND_INLINE, reference, REF)
        self.root.kids.append(node)
        return self.root

    cdef int insert_after_split(self, Node node, int at, const uint8_t* key, int klen, int kind,
                                const uint8_t* value, int vlen) except -1:
        """Insert into a half that was made for it, if need be on a larger page."""
        if node.insert(at, key, klen, kind, value, vlen):
            return 0
        if node.size < self.node_size:
            node.repage(self.node_size)
            if node.insert(at, key, klen, kind, value, vlen):
                return 0
        raise AssertionError("a split left no room")

    def delete(self, key):
        """Remove `key`; False where it is not there (and nothing is copied then)."""
        cdef PyObject* path[MAX_DEPTH]
        cdef int slot[MAX_DEPTH]
        cdef int depth = 0, at, klen
        cdef const uint8_t* k
        cdef Node node
        check_key(key)
        k = <const uint8_t*>PyBytes_AS_STRING(key)
        klen = <int>PyBytes_GET_SIZE(key)
        self.writing()
        node = self.leaf_of(k, klen)
        if node is None or not node.find(k, klen, &at):
            return False
        if self.owner >= FIRST_DATASET:
            self.note(OPERATION_DELETE, key, b"")
            self.ledger.removed += 1
        node = self.dirty_root()
        while node.level:
            at = node.route(k, klen)
            path[depth] = <PyObject*>node
            slot[depth] = at
            depth += 1
            node = self.dirty_child(node, at)
        node.find(k, klen, &at)
        self.version += 1
        self.items -= 1
        self.forget_cell(node.cell(at))
        node.remove(at, 1)
        while depth:
            depth -= 1
            if not self.mend(<Node>path[depth], slot[depth]):
                break
        self.lower_root()
        return True

    cdef bint mend(self, Node parent, int i) except -1:
        """Remove child `i` where it is empty, merge it where it is small; True where it did."""
        cdef Node node = <Node>parent.kids[i]
        cdef Node other
        cdef int j
        cdef int limit = self.node_size if node.size > self.small else self.small
        if node.n == 0:
            parent.remove(i, 1)
            del parent.kids[i]
            return True
        if 4 * node.used() >= limit or parent.n < 2:
            return False
        j = i - 1 if i else 1
        other = self.child(parent, j)
        if 5 * (node.used() + other.used() + MAX_KEY_LEN // 8) > 4 * limit:
            return False
        if j < i:
            return self.merge(parent, j)
        return self.merge(parent, i)

    cdef bint merge(self, Node parent, int i) except -1:
        """Append child `i + 1` to child `i`, if it fits."""
        cdef Node right = self.child(parent, i + 1)
        cdef Node left
        cdef int j, klen
        cdef uint8_t* cell
        cdef uint8_t* separator = parent.cell(i + 1)
        klen = u16(separator) & 0x3FFF
        left = self.child(parent, i)
        if right.p == NULL:
            self.load(right)
        if left.used() + right.used() + klen + CELL_HEADER > self.node_size:
            return False
        left = self.dirty_child(parent, i)
        if right.p == NULL:
            self.load(right)
        if left.size < left.used() + right.used() + klen + CELL_HEADER:
            left.repage(self.node_size)
        if not right.dirty:
            self.account(right)
        # Nothing is refused: there is room for both, and `used` counts a header twice.
        for j in range(right.n):
            cell = right.cell(j)
            if right.level and j == 0:
                left.insert(left.n, separator + CELL_HEADER, klen, KIND_INLINE,
                            cell + CELL_HEADER + (u16(cell) & 0x3FFF), REF)
            else:
                left.insert(left.n, cell + CELL_HEADER, u16(cell) & 0x3FFF, u16(cell) >> 14,
                            cell + CELL_HEADER + (u16(cell) & 0x3FFF), u16(cell + 2))
        left.last = -2
        if right.level:
            left.kids.extend(right.kids)
        parent.remove(i + 1, 1)
        del parent.kids[i + 1]
        return True

    cdef int lower_root(self) except -1:
        """Take inner nodes with one child off the top."""
        cdef Node kid
        cdef uint8_t* cell
        while self.root.dirty and self.root.level and self.root.n == 1:
            kid = self.child(self.root, 0)
            if not kid.dirty:
                cell = self.root.cell(0)
                self.stored_ref = PyBytes_FromStringAndSize(
                    <char*>cell + CELL_HEADER + (u16(cell) & 0x3FFF), REF)
            self.root = kid
        if self.root.n == 0:
            self.root = None
        return 0

    def delete_range(self, bytes start=None, bytes stop=None):
        """Remove start <= key < stop; the number of items removed.

        Whole subtrees go without a look at them: the ledger lists them as dropped.
        """
        cdef int64_t removed
        self.writing()
        if self.root is None or (stop is not None and (start or b"") >= stop):
            return 0
        if self.owner >= FIRST_DATASET:
            # Of a bound, no more than a key can have is of any consequence.
            self.note(
                OPERATION_RANGE,
                (start or b"")[:MAX_KEY_LEN + 1], (stop or b"")[:MAX_KEY_LEN + 1])
        self.version += 1
        removed = self.drop_range(self.dirty_root(), start, stop)
        self.items -= removed
        if self.owner >= FIRST_DATASET:
            self.ledger.removed += removed
        self.lower_root()
        return removed

    cdef int64_t drop_range(self, Node node, bytes start, bytes stop) except -1:
        cdef int first = 0, last = node.n, i
        cdef int64_t removed = 0
        if node.level == 0:
            if start is not None:
                node.find(<const uint8_t*>PyBytes_AS_STRING(start),
                          <int>PyBytes_GET_SIZE(start), &first)
            if stop is not None:
                node.find(<const uint8_t*>PyBytes_AS_STRING(stop),
                          <int>PyBytes_GET_SIZE(stop), &last)
            for i in range(first, last):
                self.forget_cell(node.cell(i))
            if last > first:
                node.remove(first, last - first)
            return last - first
        # Children first .. last - 1 are covered whole; those on the two edges are looked into.
        if start is not None:
            first = node.route(<const uint8_t*>PyBytes_AS_STRING(start),
                               <int>PyBytes_GET_SIZE(start)) + 1
        if stop is not None:
            last = node.route(<const uint8_t*>PyBytes_AS_STRING(stop),
                              <int>PyBytes_GET_SIZE(stop))
        if start is not None and stop is not None and last == first - 1:
            removed = self.drop_range(self.dirty_child(node, last), start, stop)
            self.mend(node, last)
            return removed
        if stop is not None:
            removed += self.drop_range(self.dirty_child(node, last), None, stop)
        if start is not None:
            removed += self.drop_range(self.dirty_child(node, first - 1), start, None)
        for i in range(first, last):
            removed += self.drop_child(node, i)
        if last > first:
            node.remove(first, last - first)
            del node.kids[first:last]
        if stop is not None:
            self.mend(node, first)
        if start is not None:
            self.mend(node, first - 1)
        return removed

    cdef int64_t drop_child(self, Node parent, int i) except -1:
        """Let go of child `i` of a dirty node; the number of items below it."""
        cdef Node node
        cdef int j
        cdef int64_t removed = 0
        cdef uint8_t* cell
        cdef uint8_t* reference
        kid = parent.kids[i]
        if kid is not None and (<Node>kid).dirty:
            node = <Node>kid
            for j in range(node.n):
                if node.level:
                    removed += self.drop_child(node, j)
                else:
                    self.forget_cell(node.cell(j))
            return removed if node.level else node.n
        cell = parent.cell(i)
        reference = cell + CELL_HEADER + (u16(cell) & 0x3FFF)
        removed = u64(reference + 44)
        if reference[25] == 0 and u32(reference + 68) == 0:
            self.ledger.lower_count(reference)
        else:
            self.ledger.dropped.append(PyBytes_FromStringAndSize(<char*>reference, REF))
        return removed

    def clear(self):
        """Remove everything, in time that does not grow with it."""
        if self.root is not None:
            self.delete_range(None, None)

    def load_sorted(self, pairs, put_large):
        """Put pairs whose keys ascend; how many there were. Nodes are left full where keys append.

        `put_large(key, value)` takes the values that do not fit a leaf.
        """
        cdef int64_t count = 0
        cdef bytes before = None, key, value
        cdef Node leaf = None
        cdef uint64_t version = 0
        self.writing()
        self.ledger.operations.give_up()
        self.ledger.grows = True
        for first, second in pairs:
            check_key(first)
            if type(second) is not bytes:
                raise KeyTypeError(f"values are bytes, not {type(second).__name__}")
            key = first
            value = second
            if before is not None and key <= before:
                raise UsageError(
                    f"load_sorted takes keys in ascending order; {key!r} follows {before!r}")
            before = key
            count += 1
            if PyBytes_GET_SIZE(value) > self.inline_limit:
                put_large(key, value)
                leaf = None
            elif (leaf is not None and leaf.dirty and self.version == version
                    and leaf.insert(leaf.n, <const uint8_t*>PyBytes_AS_STRING(key),
                                    <int>PyBytes_GET_SIZE(key), KIND_INLINE,
                                    <const uint8_t*>PyBytes_AS_STRING(value),
                                    <int>PyBytes_GET_SIZE(value))):
                # Behind the key before, which is the last one of the last leaf.
                self.items += 1
            elif self.append(key, value):
                leaf = self.root
                while leaf.level:
                    leaf = <Node>leaf.kids[leaf.n - 1]
                version = self.version
            else:
                self.put(key, value)
                leaf = None
        self.version += 1
        return count

    cdef bint append(self, bytes key, bytes value) except -1:
        """Put a key that is larger than all others; False, and no change, where it is not."""
        cdef PyObject* path[MAX_DEPTH]
        cdef int slot[MAX_DEPTH]
        cdef int depth = 0
        cdef uint8_t* cell
        cdef const uint8_t* k = <const uint8_t*>PyBytes_AS_STRING(key)
        cdef int klen = <int>PyBytes_GET_SIZE(key)
        cdef const uint8_t* v = <const uint8_t*>PyBytes_AS_STRING(value)
        cdef int vlen = <int>PyBytes_GET_SIZE(value)
        cdef Node node
        self.writing()
        node = self.dirty_root()
        while node.level:
            path[depth] = <PyObject*>node
            slot[depth] = node.n - 1
            depth += 1
            node = self.dirty_child(node, node.n - 1)
        if node.n:
            cell = node.cell(node.n - 1)
            if compare(cell + CELL_HEADER, u16(cell) & 0x3FFF, k, klen) >= 0:
                return False
        self.version += 1
        self.items += 1
        if not node.insert(node.n, k, klen, KIND_INLINE, v, vlen) and not (
                self.make_room(node) and node.insert(node.n, k, klen, KIND_INLINE, v, vlen)):
            node.last = node.n - 1
            self.insert_split(node, node.n, k, klen, KIND_INLINE, v, vlen,
                              None, path, slot, depth)
        return True

    # --- storing ---------------------------------------------------------------------------------

    def flush(self, BlockWriter writer):
        """Store every dirty node, children before parents. Returns the root's reference or None."""
        cdef uint8_t reference[REF]
        cdef bint limited = writer.limited()
        cdef Node stored
        if self.root is None:
            self.stored_ref = None
        elif self.root.dirty:
            self.version += 1  # whoever holds a dirty node finds its place again
            stored = self.store_node(self.dirty_root() if limited else self.root, writer, limited)
            while stored.dirty:
                self.part_child(self.raise_root(stored), 0)
                stored = self.store_node(self.root, writer, limited)
            self.root = stored
            self.reference(self.root, reference, writer.block_size)
            self.stored_ref = PyBytes_FromStringAndSize(<char*>reference, REF)
        return self.stored_ref

    cdef Node store_node(self, Node node, BlockWriter writer, bint limited):
        """The clean node that now holds, on the device, what a dirty one holds.

        A frozen node stays as it is, for the versions that share it, should this transaction fail.
        On an image of limited size free blocks may lie one by one, and a node that takes several be
        refused: then it is returned itself, for the caller to part it in two. So all are owned there.
        """
        cdef bint owned = self.owned(node)
        # Dirty children of an owned node go at once: a large transaction is not in memory twice.
        cdef Node target = node if owned else node.packed(self.owner, writer.txid)
        cdef Node kid
        cdef uint8_t reference[REF]
        cdef uint8_t* cell
        cdef int i = 0
        while node.level and i < node.n:
            found = node.kids[i]
            if found is not None and (<Node>found).dirty:
                kid = self.dirty_child(node, i) if limited else <Node>found
                kid = self.store_node(kid, writer, limited)
                if kid.dirty:
                    if not self.part_child(node, i):
                        return node
                    continue
                self.reference(kid, reference, writer.block_size)
                target.kids[i] = kid
                cell = target.cell(i)
                memcpy(cell + CELL_HEADER + (u16(cell) & 0x3FFF), reference, REF)
            i += 1
        if owned:
            target = node.packed(self.owner, writer.txid)
        return target if writer.write_node(target) else node

    cdef bint part_child(self, Node parent, int i) except -1:
        """Split a child that is too large in two; False where the parent has no room for both."""
        cdef Node node = <Node>parent.kids[i]
        cdef Node right
        cdef bytes separator
        cdef uint8_t reference[REF]
        if parent.used() + 2 + CELL_HEADER + MAX_KEY_LEN + REF > self.node_size:
            return False
        memset(reference, 0, REF)
        right = node.split(middle_of(node, -1, 0), self.small, self.node_size)
        separator = separator_of(node, right)
        self.insert_after_split(
            parent, i + 1, <const uint8_t*>PyBytes_AS_STRING(separator),
            <int>PyBytes_GET_SIZE(separator), KIND_INLINE, reference, REF)
        parent.kids.insert(i + 1, right)
        return True

    cdef int reference(self, Node node, uint8_t* to, uint32_t block_size) except -1:
        """Pointer and summary of a stored node."""
        cdef uint64_t summary[4]
        cdef uint32_t outside
        node.write_pointer(to)
        node.summarize(summary, block_size, 1)
        outside = <uint32_t>summary[3]
        memcpy(to + 44, summary, 24)
        memcpy(to + 68, &outside, 4)
        return 0


cdef int middle_of(Node node, int at, int size) noexcept:
    """Where to cut a node in two: behind the items that fill half of the bytes, a new one of `size`
    that comes to `at` included."""
    cdef int middle = 0, half = 0, length, total = node.used() + size
    cdef uint8_t* cell
    while middle < node.n:
        if middle == at:
            half += size
        cell = node.cell(middle)
        length = CELL_HEADER + (u16(cell) & 0x3FFF) + u16(cell + 2)
        if 2 * half + length > total:
            break
        half += length
        middle += 1
    return middle or 1


cdef bytes separator_of(Node left, Node right):
    """The shortest key that parts two leaves; inner nodes know it already."""
    cdef uint8_t* cell = right.cell(0)
    cdef uint8_t* last = left.cell(left.n - 1)
    cdef int i = 0, length = u16(cell) & 0x3FFF
    if not left.level:
        while (i < (u16(last) & 0x3FFF) and i < length
               and last[CELL_HEADER + i] == cell[CELL_HEADER + i]):
            i += 1
        if i + 1 < length:
            length = i + 1
    return PyBytes_FromStringAndSize(<char*>cell + CELL_HEADER, length)


def node_items(source, int node_size, bytes ref, str label):
    """(level, items) of a stored node, read from the device past the cache.

    Items are (key, kind, value); those of an inner node give the lower bound of each child (b"" for
    the first) and its reference. For what walks over nodes one by one: diff, check, destroying.
    """
    cdef Node node = Node.__new__(Node)
    node.set_pointer(<const uint8_t*><char*>ref)
    if node.level > MAX_DEPTH - 2 or node.logical > <uint32_t>node_size:
        raise CorruptionError(label, node.block, "not a pointer to a node")
    problem = node.attach(
        source.read(ref, label), source.total_blocks, source.block_size, node_size)
    if problem is not None:
        raise CorruptionError(label, node.block, problem)
    return node.level, cells_of(node)


def memory_items(Node node):
    """The same of a node that is in memory only, with such children themselves as values."""
    return node.level, cells_of(node)


cdef list cells_of(Node node):
    cdef int i, klen
    cdef uint8_t* cell
    cdef list items = []
    for i in range(node.n):
        cell = node.cell(i)
        klen = u16(cell) & 0x3FFF
        kid = node.kids[i] if node.level else None
        items.append((
            b"" if node.level and i == 0
            else PyBytes_FromStringAndSize(<char*>cell + CELL_HEADER, klen),
            u16(cell) >> 14,
            kid if kid is not None and (<Node>kid).dirty
            else PyBytes_FromStringAndSize(<char*>cell + CELL_HEADER + klen, u16(cell + 2))))
    return items


cdef class Cursor:
    """Iterator over a range of a tree; see Tree.items_between."""

    cdef Tree tree
    cdef bytes start
    cdef bytes stop
    cdef bint reverse
    cdef int what
    cdef list path
    cdef int slot[MAX_DEPTH]
    cdef bytes page
    cdef uint8_t* p
    cdef int size
    cdef int at
    cdef int limit
    cdef bint ended
    cdef uint64_t version
    cdef bytes last

    def __cinit__(self, Tree tree, bytes start, bytes stop, bint reverse, int what):
        self.tree = tree
        self.start = start
        self.stop = stop
        self.reverse = reverse
        self.what = what
        self.seek(stop if reverse else start, False)

    def __iter__(self):
        return self

    cdef int seek(self, bytes key, bint beyond) except -1:
        """Position on the first item in range, or on the one behind `key`."""
        cdef Tree tree = self.tree
        cdef Node node = tree.root
        cdef int depth = 0, at
        cdef const uint8_t* k = NULL
        cdef int klen = 0
        self.version = tree.version
        self.path = []
        self.page = None
        self.p = NULL
        self.at = self.limit = 0
        self.ended = node is None
        if node is None:
            if tree.closed:
                raise ClosedError(f"{tree.label}: this view or transaction has ended")
            return 0
        tree.keep_budget()
        if key is not None:
            k = <const uint8_t*>PyBytes_AS_STRING(key)
            klen = <int>PyBytes_GET_SIZE(key)
        if node.p == NULL:
            tree.load(node)
        while node.level:
            if key is None:
                at = node.n - 1 if self.reverse else 0
            else:
                at = node.route(k, klen)
            self.path.append(node)
            self.slot[depth] = at
            depth += 1
            node = tree.child(node, at)
        if self.reverse:
            # Items below `at` are still to come; `key` itself is outside the range.
            if key is None:
                at = node.n
            else:
                node.find(k, klen, &at)
            self.hold(node, at)
        else:
            at = 0
            if key is not None and node.find(k, klen, &at) and beyond:
                at += 1
            self.hold(node, at)
        return 0

    cdef int hold(self, Node leaf, int at) except -1:
        """Keep the page of a leaf, whatever the cache does, and find where the range ends in it."""
        cdef int bound
        self.page = leaf.page
        self.p = leaf.p
        self.size = leaf.size
        if self.reverse:
            self.limit = 0
            if self.start is not None:
                leaf.find(<const uint8_t*>PyBytes_AS_STRING(self.start),
                          <int>PyBytes_GET_SIZE(self.start), &bound)
                self.limit = bound
                if bound:
                    self.ended = True
            self.at = at
        else:
            self.limit = leaf.n
            if self.stop is not None:
                leaf.find(<const uint8_t*>PyBytes_AS_STRING(self.stop),
                          <int>PyBytes_GET_SIZE(self.stop), &bound)
                if bound < leaf.n:
                    self.limit = bound
                    self.ended = True
            self.at = at
        return 0

    cdef bint advance(self) except -1:
        """Go to the next leaf; False at the end."""
        cdef Tree tree = self.tree
        cdef int depth = <int>len(self.path)
        cdef Node node
        cdef uint8_t* cell
        cdef bytes bound
        if self.ended:
            return False
        while depth:
            depth -= 1
            node = <Node>self.path[depth]
            if self.reverse:
                if self.slot[depth] == 0:
                    continue
                self.slot[depth] -= 1
            else:
                if self.slot[depth] + 1 >= node.n:
                    continue
                self.slot[depth] += 1
            del self.path[depth + 1:]
            tree.keep_budget()
            if node.p == NULL:
                tree.load(node)
            cell = node.cell(self.slot[depth] + self.reverse)
            bound = PyBytes_FromStringAndSize(<char*>cell + CELL_HEADER, u16(cell) & 0x3FFF)
            while node.level:
                if node.p == NULL:
                    tree.load(node)
                node = tree.child(node, self.slot[depth])
                depth += 1
                if node.level:
                    self.path.append(node)
                    self.slot[depth] = node.n - 1 if self.reverse else 0
            # Both leaves keep to what parts them, however far above them that is.
            if self.reverse:
                self.check_bound(self.p, self.size, 0, bound, False)
                self.check_bound(node.p, node.size, node.n - 1, bound, True)
            else:
                self.check_bound(self.p, self.size, self.limit - 1, bound, True)
                self.check_bound(node.p, node.size, 0, bound, False)
            self.hold(node, node.n if self.reverse else 0)
            return True
        self.ended = True
        return False

    cdef int check_bound(self, uint8_t* p, int size, int i, bytes bound, bint below) except -1:
        """CorruptionError unless item `i` of a leaf, where it has one, is on its side of `bound`."""
        cdef uint8_t* cell
        if p == NULL or i < 0:
            return 0
        cell = p + size - (<uint16_t*>(p + HEADER))[i]
        if below != (compare(cell + CELL_HEADER, u16(cell) & 0x3FFF,
                             <const uint8_t*>PyBytes_AS_STRING(bound),
                             <int>PyBytes_GET_SIZE(bound)) < 0):
            raise CorruptionError(self.tree.label, None, f"a leaf reaches beyond the key {bound!r}")
        return 0

    def __next__(self):
        cdef uint8_t* cell
        cdef int klen, kind
        if self.version != self.tree.version:
            self.reposition()
        if self.reverse:
            while self.at <= self.limit:
                if not self.advance():
                    self.at = self.limit = 0
                    self.page = None
                    raise StopIteration
            self.at -= 1
            cell = self.p + self.size - (<uint16_t*>(self.p + HEADER))[self.at]
        else:
            while self.at >= self.limit:
                if not self.advance():
                    self.at = self.limit = 0
                    self.page = None
                    raise StopIteration
            cell = self.p + self.size - (<uint16_t*>(self.p + HEADER))[self.at]
            self.at += 1
        klen = u16(cell) & 0x3FFF
        kind = u16(cell) >> 14
        key = PyBytes_FromStringAndSize(<char*>cell + CELL_HEADER, klen)
        if self.tree.ledger is not None:
            self.last = key
        if self.what == 1:
            return key
        value = PyBytes_FromStringAndSize(<char*>cell + CELL_HEADER + klen, u16(cell + 2))
        if self.what == 3:
            return key, kind, value
        if kind:
            value = self.tree.resolve(kind, value)
        if self.what == 2:
            return value
        return key, value

    cdef int reposition(self) except -1:
        """The tree was changed: find the place again by the last key."""
        if self.last is None:
            self.seek(self.stop if self.reverse else self.start, False)
        else:
            self.seek(self.last, True)
        return 0
