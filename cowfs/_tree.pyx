"""The copy-on-write B+tree as a writer sees it: changes, and storing them.

A tree is a root node and, for a writer, a ledger. Nodes that are shared between versions are never
changed: the first touch in a transaction copies a node (and so, one after the other, the path to
it), and the ledger is told, so that counts follow the pointers: copying a node that only this tree
refers to frees the old block; copying a shared one takes one reference from it and gives one to each
of its children (O. Rodeh, B-trees, Shadowing, and Clones, ACM Transactions on Storage, 2008).

A dirty node belongs to the transaction that made it. Once that has ended it is frozen: other versions
share it, and who wants to change it copies it like a stored one, but that nothing is counted: only
what is stored has counts.

Invariants: dirty nodes hang below dirty nodes only; a dirty node has no block. What holds for reading
(`_view.pyx`) holds here, too.
"""

cimport cython
from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from cowfs._bytes cimport Slice, __builtin_bswap64, bytes_of, compare, slice_of, u64
from cowfs._ledger cimport OPERATION_DELETE, OPERATION_PUT, OPERATION_RANGE, Ledger
from cowfs._node cimport (
    CELL_HEADER, KIND_EXTENT, KIND_INLINE, KIND_TREE, MAX_DEPTH, MAX_KEY_LEN, POINTER, REF, Node,
    Summary, keep_budget, key_of, kind_of, length_of, new_node, value_of,
)
from cowfs._pointer cimport DATA_LEVEL, Pointer
from cowfs._view cimport TreeView, check_key

from cowfs.errors import ClosedError, KeyTypeError, ReadOnlyError, UsageError

cdef enum:
    FIRST_DATASET = 16
    SAMPLE = 16

cdef bytes UNSTORED = bytes(REF)
"""The reference to a node that has no block yet."""

cdef struct Path:
    # The way to a leaf: inner nodes, all of one transaction, and the child taken in each.
    PyObject* node[MAX_DEPTH]
    int slot[MAX_DEPTH]
    int depth


@cython.final
cdef class Tree(TreeView):
    """One version of a tree that the one writer who gave it a ledger changes."""

    cdef int splits
    cdef bint compressible

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
        tree.ref = self.ref
        return tree

    def reset(self, bytes ref):
        """Go over to another stored version, as a rollback does."""
        self.version += 1
        if self.ledger is not None:
            self.ledger.operations.give_up()
        self.stand_on(ref)

    # --- changing --------------------------------------------------------------------------------

    cdef int writing(self) except -1:
        if self.ledger is None:
            if self.closed:
                raise ClosedError(f"{self.label}: this view or transaction has ended")
            raise ReadOnlyError(f"{self.label} is open for reading only")
        if self.cache.dirty.bytes > self.ledger.dirty_limit:
            self.ledger.spill()
        keep_budget(self.cache)
        return 0

    cdef inline bint owned(self, Node node):
        """Whether this transaction made the node, and so may change it."""
        return node.dirty and node.birth == self.ledger.txid

    cdef Node writable_copy(self, Node node):
        """A copy of a loaded node that this transaction owns, with the counts put right."""
        cdef Node copy = node.copy(
            0, self.small if node.used() <= self.small else self.node_size,
            self.ledger.txid, self.cache.dirty)
        if not node.dirty:
            self.ledger.unfinished += 1
            if self.account(node) and not self.ledger.keep_old:
                self.cache.forget(node)
            self.ledger.unfinished -= 1
        return copy

    cdef bint account(self, Node node) except -1:
        """One pointer to a stored node goes away, and a copy of its items stays. True where that
        was the last pointer, and the node is free."""
        cdef int i
        cdef uint64_t block
        if self.ledger.release(node.pointer()):
            return True
        for i in range(node.n):
            if node.level or kind_of(node.cell(i)):
                block = u64(value_of(node.cell(i)).at)
                if block:
                    self.ledger.share(block)
        return False

    cdef Node dirty_root(self):
        if self.root is None:
            self.root = new_node(0, self.small, self.ledger.txid, self.cache.dirty)
        elif not self.owned(self.root):
            self.root = self.writable_copy(self.loaded_root())
        return self.root

    cdef Node dirty_child(self, Node parent, int i):
        cdef Node kid = self.child(parent, i)
        if not self.owned(kid):
            kid = self.writable_copy(kid)
            parent.kids[i] = kid
        return kid

    cdef Node descend(self, Slice key, Path* path):
        """The leaf that covers `key`, owned by this transaction as all above it now is."""
        cdef Node node = self.dirty_root()
        cdef int at
        path.depth = 0
        while node.level:
            at = node.route(key)
            path.node[path.depth] = <PyObject*>node
            path.slot[path.depth] = at
            path.depth += 1
            node = self.dirty_child(node, at)
        return node

    cdef int forget_cell(self, uint8_t* cell) except -1:
        """The cell's value goes away: so does what it points to."""
        cdef Slice value = value_of(cell)
        if kind_of(cell) == KIND_EXTENT:
            self.ledger.release(bytes_of(value))
        elif kind_of(cell) == KIND_TREE and u64(value.at):
            self.ledger.dropped.append(bytes_of(value)[:REF])
        return 0

    def put(self, key, value, int kind=KIND_INLINE, bint release=True):
        """Insert or replace. What an old value pointed to is released, where the caller has not
        accounted for it already."""
        check_key(key)
        if type(value) is not bytes:
            raise KeyTypeError(f"values are bytes, not {type(value).__name__}")
        if kind == KIND_INLINE and PyBytes_GET_SIZE(value) > self.inline_limit:
            raise UsageError("a value too large for a leaf")
        self.writing()
        self.store(slice_of(<bytes>key), kind, slice_of(<bytes>value), release)
        # What failed is not among the operations, which are done again when the image is opened.
        if kind != KIND_INLINE:
            self.ledger.operations.give_up()
        elif self.owner >= FIRST_DATASET:
            self.ledger.operations.add(self.owner, OPERATION_PUT, <bytes>key, <bytes>value)

    def put_records(self, list changed, writer):
        """Put records of a large value, (number, bytes) each, as extents, raw, that `writer` places."""
        cdef Pointer to
        cdef uint64_t number, key
        cdef Py_ssize_t length
        cdef bytes digest
        checksum, write = writer.checksum, writer.write
        self.writing()
        self.ledger.operations.give_up()
        for number, data in changed:
            self.writing()
            length = PyBytes_GET_SIZE(<bytes?>data)
            digest = checksum(data)
            memset(&to, 0, sizeof(Pointer))
            to.block, to.birth, to.level = write(data), self.ledger.txid, DATA_LEVEL
            to.stored = <uint32_t>length
            to.logical, to.twin_above = <uint16_t>length, <uint16_t>(length >> 16)
            memcpy(to.checksum, slice_of(digest).at, 16)
            key = __builtin_bswap64(number)
            self.store(Slice(<const uint8_t*>&key, 8), KIND_EXTENT,
                       Slice(<const uint8_t*>&to, POINTER), True)

    def touch(self, bytes key):
        """Copy the path to `key`, so that the counts of what its cell points to are settled."""
        cdef Path path
        self.writing()
        self.ledger.operations.give_up()
        if self.root is not None:
            self.descend(slice_of(key), &path)

    cdef int store(self, Slice key, int kind, Slice value, bint release) except -1:
        """Insert or replace. An error behind the descent breaks the transaction: the key may have
        neither value."""
        cdef Path path
        cdef Node node = self.descend(key, &path)
        cdef int at
        self.version += 1
        self.ledger.unfinished += 1
        if node.find(key, &at):
            if self.owner >= FIRST_DATASET:
                self.ledger.replaced += 1
                if value_of(node.cell(at)).length < value.length:
                    self.ledger.grows = True
            if release:
                self.forget_cell(node.cell(at))
            if node.overwrite(at, kind, value):
                self.ledger.unfinished -= 1
                return 0
            node.remove(at, 1)
        else:
            self.items += 1
            if self.owner >= FIRST_DATASET:
                self.ledger.grows = True
        if not node.insert(at, key, kind, value, None):
            self.insert_split(node, at, key, kind, value, &path)
        self.ledger.unfinished -= 1
        return 0

    cdef int insert_split(self, Node node, int at, Slice key, int kind, Slice value,
                          Path* path) except -1:
        """Insert where there is no room: split the leaf, and the nodes above it where need be."""
        cdef Node right, kid = None
        cdef int middle
        cdef bytes separator
        while not (node.insert(at, key, kind, value, kid) or (
                self.make_room(node, key, kind) and node.insert(at, key, kind, value, kid))):
            # Input that arrives in order leaves full nodes behind.
            if at == node.n and node.last == node.n - 1:
                middle = node.n
            else:
                middle = middle_of(node, at, CELL_HEADER + key.length + value.length)
            right = node.split(middle, self.small, self.node_size)
            if at > middle or (at == middle and (right.n == 0 or node.used() > right.used())):
                self.insert_into_half(right, at - middle, key, kind, value, kid)
            else:
                self.insert_into_half(node, at, key, kind, value, kid)
            separator = separator_of(node, right)
            key, kind, value, kid = slice_of(separator), KIND_INLINE, slice_of(UNSTORED), right
            if path.depth:
                path.depth -= 1
                node = <Node>path.node[path.depth]
                at = path.slot[path.depth] + 1
            else:
                node = self.raise_root(node)
                at = 1
        return 0

    cdef bint make_room(self, Node node, Slice key, int kind) except -1:
        """Where a node is full: give it a larger page instead of splitting it, if that is better.

        A node of one small block is the cheapest to write. A larger one pays where it compresses
        into such a block (a sample of full ones tells; records save too little), or items are few.
        """
        if node.size >= self.node_size:
            return False
        if node.n >= 4:
            if node.level or kind and key.length <= 8 or self.ledger.compress is None:
                return False
            if self.splits % SAMPLE == 0:
                self.compressible = 2 * len(self.ledger.compress(node.page)) < node.size
            self.splits += 1
            if not self.compressible:
                return False
        node.repage(self.node_size)
        return True

    cdef int insert_into_half(self, Node node, int at, Slice key, int kind, Slice value,
                              Node kid) except -1:
        """Insert into a node where room was made, if need be on a larger page."""
        if not node.insert(at, key, kind, value, kid):
            node.repage(self.node_size)
            if not node.insert(at, key, kind, value, kid):
                raise AssertionError("a split left no room")
        return 0

    cdef Node raise_root(self, Node node):
        """A new root above the one there was, which is its only child."""
        self.root = new_node(node.level + 1, self.small, self.ledger.txid, self.cache.dirty)
        self.root.insert(0, slice_of(b""), KIND_INLINE, slice_of(UNSTORED), node)
        return self.root

    def delete(self, key):
        """Remove `key`; False where it is not there (and nothing is copied then)."""
        check_key(key)
        self.writing()
        if key not in self:
            return False
        self.drop(key, key + b"\0")
        if self.owner >= FIRST_DATASET:
            self.ledger.operations.add(self.owner, OPERATION_DELETE, key, b"")
        return True

    cdef bint mend(self, Node parent, int i) except -1:
        """Remove child `i`, which is dirty, where it is empty; where it is small, append it to the one
        before, or the one behind to it. True where it did."""
        cdef Node left, right, node = <Node>parent.kids[i]
        cdef Slice separator
        cdef uint8_t* cell
        cdef int j, both, limit = self.node_size if node.size > self.small else self.small
        if node.n == 0:
            parent.remove(i, 1)
            return True
        if 4 * node.used() >= limit or parent.n < 2:
            return False
        i = max(i - 1, 0)
        left, right = self.child(parent, i), self.child(parent, i + 1)
        separator = key_of(parent.cell(i + 1))
        both = left.used() + right.used() + CELL_HEADER + separator.length
        if 5 * both > 4 * limit:
            return False
        left = self.dirty_child(parent, i)
        if left.size < both:
            left.repage(self.node_size)
        if not right.dirty:
            self.account(right)
        # Nothing is refused: there is room for both, and `used` counts a header twice.
        for j in range(right.n):
            cell = right.cell(j)
            left.insert(
                left.n, separator if right.level and j == 0 else key_of(cell), kind_of(cell),
                value_of(cell), right.kids[j] if right.level else None)
        left.last = -2
        parent.remove(i + 1, 1)
        return True

    cdef int lower_root(self) except -1:
        """Take inner nodes with one child off the top."""
        cdef Node kid
        while self.root.dirty and self.root.level and self.root.n == 1:
            kid = self.child(self.root, 0)
            if not kid.dirty:
                self.ref = bytes_of(value_of(self.root.cell(0)))
            self.root = kid
        if self.root.n == 0:
            self.root = None
        return 0

    def delete_range(self, bytes start=None, bytes stop=None):
        """Remove start <= key < stop; the number of items removed.

        Whole subtrees go without a look at them: the ledger lists them as dropped.
        """
        cdef int64_t removed
        cdef bytes first, last
        self.writing()
        if self.root is None or (stop is not None and (start or b"") >= stop):
            return 0
        # Of a bound, no more than a key can have is of any consequence.
        first, last = (start or b"")[:MAX_KEY_LEN + 1], (stop or b"")[:MAX_KEY_LEN + 1]
        removed = self.drop(start, stop)
        if self.owner >= FIRST_DATASET:
            self.ledger.operations.add(self.owner, OPERATION_RANGE, first, last)
        return removed

    cdef int64_t drop(self, bytes start, bytes stop) except -1:
        """Remove start <= key < stop; the number of items removed. An error breaks the transaction:
        some may be gone."""
        cdef int64_t removed
        self.version += 1
        self.ledger.unfinished += 1
        removed = self.drop_range(self.dirty_root(), start, stop)
        self.items -= removed
        if self.owner >= FIRST_DATASET:
            self.ledger.removed += removed
        self.lower_root()
        self.ledger.unfinished -= 1
        return removed

    cdef int64_t drop_range(self, Node node, bytes start, bytes stop) except -1:
        cdef int first = 0, last = node.n, i
        cdef int64_t removed = 0
        if node.level == 0:
            if start is not None:
                node.find(slice_of(start), &first)
            if stop is not None:
                node.find(slice_of(stop), &last)
            for i in range(first, last):
                self.forget_cell(node.cell(i))
            node.remove(first, last - first)
            return last - first
        # Children first .. last - 1 are covered whole; those on the two edges are looked into.
        if start is not None:
            first = node.route(slice_of(start)) + 1
        if stop is not None:
            last = node.route(slice_of(stop))
        if last < first:
            removed = self.drop_range(self.dirty_child(node, last), start, stop)
            self.mend(node, last)
            return removed
        if stop is not None:
            removed += self.drop_range(self.dirty_child(node, last), None, stop)
        if start is not None:
            removed += self.drop_range(self.dirty_child(node, first - 1), start, None)
        for i in range(first, last):
            removed += self.drop_child(node, i)
        node.remove(first, last - first)
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
        cdef Slice reference
        cdef const Summary* summary
        kid = parent.kids[i]
        if kid is not None and (<Node>kid).dirty:
            node = <Node>kid
            for j in range(node.n):
                if node.level:
                    removed += self.drop_child(node, j)
                else:
                    self.forget_cell(node.cell(j))
            return removed if node.level else node.n
        reference = value_of(parent.cell(i))
        summary = <const Summary*>(reference.at + POINTER)
        if reference.at[25] == 0 and summary.outside == 0:
            self.ledger.release(bytes_of(reference))
        else:
            self.ledger.dropped.append(bytes_of(reference))
        return summary.items

    def load_sorted(self, pairs, put_large):
        """Put pairs whose keys ascend; how many there were. Nodes are left full where keys append.

        `put_large(key, value)` takes the values that do not fit a leaf. An error behind the first
        pair breaks the transaction.
        """
        cdef int64_t count = 0
        cdef bytes before = None, key, value
        cdef Node leaf = None
        cdef uint64_t version = 0
        self.writing()
        cdef Ledger ledger = self.ledger
        ledger.operations.give_up()
        ledger.grows = True
        for first, second in pairs:
            check_key(first)
            if type(second) is not bytes:
                raise KeyTypeError(f"values are bytes, not {type(second).__name__}")
            key = first
            value = second
            if before is not None and key <= before:
                raise UsageError(
                    f"load_sorted takes keys in ascending order; {key!r} follows {before!r}")
            if before is None:
                ledger.unfinished += 1
            before = key
            count += 1
            if PyBytes_GET_SIZE(value) > self.inline_limit:
                put_large(key, value)
                leaf = None
            elif (leaf is not None and leaf.dirty and self.version == version and leaf.insert(
                    leaf.n, slice_of(key), KIND_INLINE, slice_of(value), None)):
                # Behind the key before, which is the last one of the last leaf.
                self.items += 1
            else:
                self.writing()
                self.store(slice_of(key), KIND_INLINE, slice_of(value), True)
                leaf, version = self.root, self.version
                while leaf is not None and leaf.level and leaf.dirty:
                    leaf = <Node>leaf.kids[leaf.n - 1]  # what is clean may have been evicted
                if leaf is not None and (not leaf.dirty or compare(
                        key_of(leaf.cell(leaf.n - 1)), slice_of(key)) != 0):
                    leaf = None
        self.version += 1
        if before is not None:
            ledger.unfinished -= 1
        return count

    # --- storing ---------------------------------------------------------------------------------

    def flush(self, writer):
        """Store every dirty node, children before parents. Returns the root's reference or None. An
        error breaks the transaction: nothing may refer to what was stored."""
        cdef bint limited = writer.space.limit > 0
        cdef Node stored
        write = writer.write_node
        if self.root is None:
            self.ref = None
        elif self.root.dirty:
            self.version += 1  # whoever holds a dirty node finds its place again
            self.ledger.unfinished += 1
            stored = self.store_node(self.dirty_root() if limited else self.root, write, limited)
            while stored.dirty:
                self.part_child(self.raise_root(stored), 0)
                stored = self.store_node(self.root, write, limited)
            self.root = stored
            self.ref = stored.reference(self.ledger.block_size)
            self.ledger.unfinished -= 1
        return self.ref

    cdef Node store_node(self, Node node, write, bint limited):
        """The clean node that now holds, on the device, what a dirty one holds.

        A frozen node stays as it is, for the versions that share it, should this transaction fail.
        On an image of limited size free blocks may lie one by one, and a node that takes several be
        refused: then it is returned itself, for the caller to part it in two. So all are owned there.
        """
        cdef bint owned = self.owned(node)
        # Dirty children of an owned node go at once: a large transaction is not in memory twice.
        cdef Node target = node if owned else node.packed(self.owner, self.ledger.txid)
        cdef Node kid
        cdef bytes reference
        cdef int i = 0
        while node.level and i < node.n:
            found = node.kids[i]
            if found is not None and (<Node>found).dirty:
                kid = self.dirty_child(node, i) if limited else <Node>found
                kid = self.store_node(kid, write, limited)
                if kid.dirty:
                    if not self.part_child(node, i):
                        return node
                    continue
                target.kids[i] = kid
                reference = kid.reference(self.ledger.block_size)
                target.overwrite(i, KIND_INLINE, slice_of(reference))
            i += 1
        if owned:
            target = node.packed(self.owner, self.ledger.txid)
        return target if write(target) else node

    cdef bint part_child(self, Node parent, int i) except -1:
        """Split a child that is too large in two; False where the parent has no room for both."""
        cdef Node right, node = <Node>parent.kids[i]
        cdef bytes separator
        if parent.used() + 2 + CELL_HEADER + MAX_KEY_LEN + REF > self.node_size:
            return False
        right = node.split(middle_of(node, -1, 0), self.small, self.node_size)
        separator = separator_of(node, right)
        self.insert_into_half(
            parent, i + 1, slice_of(separator), KIND_INLINE, slice_of(UNSTORED), right)
        return True


cdef int middle_of(Node node, int at, int size) noexcept:
    """Where to cut a node in two: behind the items that fill half of the bytes, a new one of `size`
    that comes to `at` included."""
    cdef int middle = 0, half = 0, length, total = node.used() + size
    while middle < node.n:
        if middle == at:
            half += size
        length = length_of(node.cell(middle))
        if 2 * half + length > total:
            break
        half += length
        middle += 1
    return middle or 1


cdef bytes separator_of(Node left, Node right):
    """The shortest key that parts two leaves; inner nodes know it already."""
    cdef Slice last = key_of(left.cell(left.n - 1)), key = key_of(right.cell(0))
    cdef int i = 0
    if not left.level:
        while i < last.length and i < key.length and last.at[i] == key.at[i]:
            i += 1
        key.length = min(key.length, i + 1)
    return bytes_of(key)
