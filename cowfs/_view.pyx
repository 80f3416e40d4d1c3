"""One version of a copy-on-write B+tree as readers see it: the walk from root to leaf, and scans.

Invariants: `kids` of an inner node hold either None or the very node that its cell points to. Nothing
here blocks or does I/O but loading a node, which goes through `source`; a pointer into a page is never
used after a load, since another thread may evict meanwhile, except where the page is held.
"""

cimport cython
from cpython.bytes cimport PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp

from cowfs._bytes cimport Slice, bytes_of, compare, prefetch, slice_of, u64
from cowfs._ledger cimport Ledger
from cowfs._node cimport (
    HEADER, KIND_EXTENT, KIND_INLINE, KIND_TREE, MAX_DEPTH, MAX_KEY_LEN, POINTER, REF, Cache, Node,
    Summary, keep_budget, key_of, kind_of, sound_ref, value_of,
)

from cowfs.errors import ClosedError, CorruptionError, KeyTypeError, UsageError

INLINE = KIND_INLINE
EXTENT = KIND_EXTENT
TREE = KIND_TREE

cdef enum:
    TOGETHER = 32
    SMALL_NODE = 4096


cdef int check_key(key) except -1:
    if type(key) is not bytes:
        raise KeyTypeError(f"keys are bytes, not {type(key).__name__}")
    if not 1 <= PyBytes_GET_SIZE(key) <= MAX_KEY_LEN:
        raise UsageError(
            f"a key of {len(key)} bytes; keys have 1 to {MAX_KEY_LEN} bytes")
    return 0


cdef class TreeView:
    """One version of a tree: read by anyone.

    `source.read(pointer, label)` gives the verified, decompressed bytes of a block, of which the
    source has `total_blocks`, of `block_size` bytes. `ref` is the reference of the stored root, None
    for an empty tree. `ledger` is that of the transaction that changes the tree, or None.
    `resolve(kind, value)` gives the bytes of a large value; set by the layer that knows them.
    `pin` is whatever has to stay alive as long as this tree, or a scan of it, is in use.
    `volume_size` is what the catalog says of a volume's tree: the bytes that it may hold.
    """

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
        self.stand_on(ref)

    cdef int stand_on(self, bytes ref) except -1:
        """Be this stored version."""
        self.ref = ref
        self.root = None if ref is None else self.shell(slice_of(ref).at)
        self.items = 0 if ref is None else u64(slice_of(ref).at + POINTER)
        return 0

    def close(self):
        """No use from here on: every call raises ClosedError."""
        self.closed = True
        self.version += 1
        self.root = None
        self.ledger = None

    def __len__(self):
        cdef Node root = self.loaded_root()
        if root is not None and not root.dirty and self.ref is not None:
            self.check_summary(root, slice_of(self.ref).at)
        return self.items

    @property
    def top(self):
        """The root: its reference where it is stored, the node where it is not; None without one."""
        return self.root if self.root is None or self.root.dirty else self.ref

    # --- walking ---------------------------------------------------------------------------------

    cdef Node shell(self, const uint8_t* pointer):
        """The cached node that `pointer` names, or an empty one that knows its place."""
        cdef Node node
        found = self.cache.by_block.get(u64(pointer))
        if type(found) is Node:
            node = <Node>found
            if memcmp(&node.at, pointer, POINTER) == 0:
                return node
        node = Node.__new__(Node)
        node.set_pointer(pointer)
        return node

    cdef int load(self, Node node) except -1:
        """Fill an empty node from the device."""
        keep_budget(self.cache)
        read_node(node, self.source, self.node_size, self.label)
        if node is self.root and self.ref is not None:
            self.check_summary(node, slice_of(self.ref).at)
        self.cache.admit(node)
        return 0

    cdef int check_summary(self, Node node, const uint8_t* ref) except -1:
        """CorruptionError where a node is not what the reference to it says that it holds."""
        cdef Summary found = node.summarize(self.source.block_size, 1)
        if memcmp(&found, ref + POINTER, sizeof(Summary)):
            node.drop()
            raise CorruptionError(self.label, node.block, "holds something else than its parent says")
        return 0

    def check_ref(self, bytes ref):
        """CorruptionError where this cannot be a reference to a node of this store."""
        cdef Slice r = slice_of(ref)
        if r.length != REF or not sound_ref(
                r.at, r.at[25], self.node_size, self.source.total_blocks, self.source.block_size):
            raise CorruptionError(self.label, None, "a reference to what cannot be a node")

    cdef inline Node loaded_root(self):
        """The root, loaded, or None in an empty tree. Raises ClosedError."""
        if self.root is None:
            if self.closed:
                raise ClosedError(f"{self.label}: this view or transaction has ended")
            return None
        if self.root.p == NULL:
            self.load(self.root)
        self.root.referenced = True
        return self.root

    cdef Node child(self, Node parent, int i):
        """Child `i`, loaded. The page of `parent` must be there; it may be gone afterwards."""
        cdef Node kid
        cdef bytes held
        cdef uint8_t* cell
        cdef Slice lower, upper, key
        cdef list kids = parent.kids
        found = kids[i]
        if found is not None and (<Node>found).p != NULL:
            (<Node>found).referenced = True
            return <Node>found
        held = parent.page
        cell = parent.cell(i)
        kid = self.shell(value_of(cell).at) if found is None else <Node>found
        kid.referenced = True
        if kid.level != parent.level - 1:
            raise CorruptionError(
                self.label, kid.block,
                f"a node of level {kid.level} below one of level {parent.level}")
        lower = key_of(cell)
        upper.at = NULL
        if i + 1 < parent.n:
            upper = key_of(parent.cell(i + 1))
        kids[i] = None
        if kid.p == NULL:
            self.load(kid)
        self.check_summary(kid, value_of(cell).at)
        # Keys outside what the parent promises would be found by a scan and not by a search. Of an
        # inner node, the first key stands for everything below the second.
        if kid.level == 0 or kid.n > 1:
            if i and compare(key_of(kid.cell(1 if kid.level else 0)), lower) < 0:
                raise CorruptionError(self.label, kid.block, "a key below its parent's bound")
            if upper.at != NULL and compare(key_of(kid.cell(kid.n - 1)), upper) >= 0:
                raise CorruptionError(self.label, kid.block, "a key above its parent's bound")
        kids[i] = kid
        return kid

    cdef Node leaf_of(self, Slice key):
        """The leaf that covers `key`; None in an empty tree."""
        cdef Node node = self.loaded_root()
        while node is not None and node.level:
            node = self.child(node, node.route(key))
        return node

    def get(self, key, default=None):
        """The value of `key`, or `default`."""
        cdef Node leaf
        check_key(key)
        leaf = self.leaf_of(slice_of(<bytes>key))
        return default if leaf is None else value_in(self, leaf, slice_of(<bytes>key), default)

    def get_many(self, keys, default=None):
        """The values of several keys, in their order.

        A search waits for memory most of the time: for a node, its heads, its page. So TOGETHER of
        them go down side by side, level by level, and what each needs next is fetched while the
        others go on.
        """
        cdef list wanted = list(keys), values = []
        cdef list nodes
        cdef Py_ssize_t start
        cdef int i, level, count
        cdef Node node
        cdef Slice key[TOGETHER]
        for start in range(0, len(wanted), TOGETHER):
            count = <int>min(TOGETHER, len(wanted) - start)
            for i in range(count):
                check_key(wanted[start + i])
                key[i] = slice_of(wanted[start + i])
            node = self.loaded_root()
            nodes = [node] * count
            level = 0 if node is None else node.level
            while level:
                level -= 1
                for i in range(count):
                    node = <Node>nodes[i]
                    # Loading a node may have made the cache drop another: `get` looks for it below.
                    if node is not None and node.p != NULL:
                        nodes[i] = node = self.child(node, node.route(key[i]))
                        prefetch(node.heads)
                        prefetch(node.p)
            for i in range(count):
                node = <Node>nodes[i]
                if node is not None and node.p != NULL:
                    node.prefetch_cell(key[i])
            for i in range(count):
                node = <Node>nodes[i]
                if node is None or node.p == NULL or node.level:
                    values.append(self.get(wanted[start + i], default))
                else:
                    values.append(value_in(self, node, key[i], default))
        return values

    def cell(self, bytes key):
        """(kind, value as stored) of `key`, or None: for large values, whose cell is a pointer."""
        cdef Node leaf = self.leaf_of(slice_of(key))
        cdef int at
        if leaf is None or not leaf.find(slice_of(key), &at):
            return None
        return kind_of(leaf.cell(at)), bytes_of(value_of(leaf.cell(at)))

    def __contains__(self, key):
        check_key(key)
        return self.cell(key) is not None

    def items_between(self, bytes start=None, bytes stop=None, bint reverse=False, int what=0):
        """An iterator over start <= key < stop.

        `what` is 0 for (key, value), 1 for keys, 2 for values, 3 for (key, kind, value as stored).
        Changes to the tree behind the iterator's position do not disturb it; changes ahead show.
        """
        return Cursor(self, start, stop, reverse, what)


cdef inline object value_in(TreeView tree, Node leaf, Slice key, default):
    """The value of `key` in the leaf that covers it, or `default`."""
    cdef int at
    cdef uint8_t* cell
    if not leaf.find(key, &at):
        return default
    cell = leaf.cell(at)
    value = bytes_of(value_of(cell))
    return tree.resolve(kind_of(cell), value) if kind_of(cell) else value


cdef int read_node(Node node, source, int node_size, str label) except -1:
    """Fill an empty node from the device; it may be that another thread has meanwhile."""
    if node.level > MAX_DEPTH - 2:
        raise CorruptionError(label, node.block, f"a node of level {node.level}")
    if node.at.logical > node_size:
        raise CorruptionError(label, node.block, f"a node of {node.at.logical} bytes")
    page = source.read(node.pointer(), label)
    if node.p == NULL:
        problem = node.attach(page, source.total_blocks, source.block_size, node_size)
        if problem is not None:
            raise CorruptionError(label, node.block, problem)
    return 0


def node_items(source, int node_size, bytes ref, str label):
    """(level, items) of a stored node, read from the device past the cache.

    Items are (key, kind, value); those of an inner node give the lower bound of each child (b"" for
    the first) and its reference. For what walks over nodes one by one: diff, check, destroying.
    """
    cdef Node node = Node.__new__(Node)
    node.set_pointer(slice_of(ref).at)
    read_node(node, source, node_size, label)
    return memory_items(node)


def memory_items(Node node):
    """The same of a node that is in memory only, with such children themselves as values."""
    cdef int i
    cdef uint8_t* cell
    cdef list items = []
    for i in range(node.n):
        cell = node.cell(i)
        kid = node.kids[i] if node.level else None
        items.append((
            b"" if node.level and i == 0 else bytes_of(key_of(cell)),
            kind_of(cell),
            kid if kid is not None and (<Node>kid).dirty else bytes_of(value_of(cell))))
    return node.level, items


@cython.final
cdef class Cursor:
    """Iterator over a range of a tree; see `TreeView.items_between`.

    Of the leaf whose page is held, the items from `low` on and below `high` are still to come.
    """

    cdef TreeView tree
    cdef bytes start
    cdef bytes stop
    cdef bint reverse
    cdef int what
    cdef list path
    cdef int slot[MAX_DEPTH]
    cdef bytes page
    cdef const uint16_t* slots
    cdef uint8_t* end
    cdef int low
    cdef int high
    cdef bint ended
    cdef uint64_t version
    cdef bytes last

    def __cinit__(self, TreeView tree, bytes start, bytes stop, bint reverse, int what):
        self.tree = tree
        self.start = start
        self.stop = stop
        self.reverse = reverse
        self.what = what
        self.seek()

    def __iter__(self):
        return self

    cdef inline uint8_t* cell(self, int i) noexcept:
        return self.end - self.slots[i]

    cdef int seek(self) except -1:
        """Position on the first item in range."""
        cdef bytes key = self.stop if self.reverse else self.start
        cdef Node node
        self.version = self.tree.version
        self.path = []
        self.page = None
        self.low = self.high = 0
        keep_budget(self.tree.cache)
        node = self.tree.loaded_root()
        self.ended = node is None
        if node is not None:
            self.hold(self.leaf_below(node, key))
        return 0

    cdef Node leaf_below(self, Node node, bytes key):
        """The leaf that covers `key`, or is the first one of all."""
        while node.level:
            if key is None:
                node = self.enter(node, node.n - 1 if self.reverse else 0)
            else:
                node = self.enter(node, node.route(slice_of(key)))
        return node

    cdef Node enter(self, Node node, int at):
        """Go down to child `at`, and remember the way."""
        self.slot[len(self.path)] = at
        self.path.append(node)
        return self.tree.child(node, at)

    cdef int hold(self, Node leaf) except -1:
        """Keep the page of a leaf, whatever the cache does, and find what of it is in range."""
        self.page = leaf.page
        self.slots = <const uint16_t*>(leaf.p + HEADER)
        self.end = leaf.p + leaf.size
        self.low = 0
        self.high = leaf.n
        if self.start is not None:
            leaf.find(slice_of(self.start), &self.low)
        if self.stop is not None:
            leaf.find(slice_of(self.stop), &self.high)
        self.ended = self.low > 0 if self.reverse else self.high < leaf.n
        return 0

    cdef bint advance(self) except -1:
        """Go to the next leaf; False at the end."""
        cdef Node node
        cdef int at
        cdef bytes bound
        while self.path and not self.ended:
            node = <Node>self.path.pop()
            at = self.slot[len(self.path)] + (-1 if self.reverse else 1)
            if not 0 <= at < node.n:
                continue
            keep_budget(self.tree.cache)
            if node.p == NULL:
                self.tree.load(node)
            bound = bytes_of(key_of(node.cell(at + self.reverse)))
            node = self.leaf_below(self.enter(node, at), None)
            # Both leaves keep to what parts them, however far above them that is.
            if self.reverse:
                self.check_parted(node.cell(node.n - 1), bound, self.cell(0))
            else:
                self.check_parted(self.cell(self.high - 1), bound, node.cell(0))
            self.hold(node)
            return True
        self.ended = True
        self.page = None
        self.low = self.high = 0
        return False

    cdef int check_parted(self, const uint8_t* left, bytes bound, const uint8_t* right) except -1:
        """CorruptionError unless the items on both sides of `bound` belong there."""
        if (compare(key_of(left), slice_of(bound)) >= 0
                or compare(key_of(right), slice_of(bound)) < 0):
            raise CorruptionError(self.tree.label, None, f"a leaf reaches beyond the key {bound!r}")
        return 0

    def __next__(self):
        cdef uint8_t* cell
        if self.version != self.tree.version:
            # The tree was changed: find the place again by the last key.
            if self.last is not None and self.reverse:
                self.stop = self.last
            elif self.last is not None:
                self.start = self.last + b"\0"  # the next key that there can be
            self.seek()
        while self.low >= self.high:
            if not self.advance():
                raise StopIteration
        if self.reverse:
            self.high -= 1
            cell = self.cell(self.high)
        else:
            cell = self.cell(self.low)
            self.low += 1
        key = bytes_of(key_of(cell))
        if self.tree.ledger is not None:
            self.last = key
        if self.what == 1:
            return key
        value = bytes_of(value_of(cell))
        if self.what == 3:
            return key, kind_of(cell), value
        if kind_of(cell):
            value = self.tree.resolve(kind_of(cell), value)
        if self.what == 2:
            return value
        return key, value
