# Declarations of one version of a tree as readers see it, for who changes trees. See _view.pyx.
from libc.stdint cimport uint8_t, uint64_t

from cowfs._bytes cimport Slice
from cowfs._ledger cimport Ledger
from cowfs._node cimport Cache, Node

cdef class TreeView:
    cdef object source
    cdef Cache cache
    cdef readonly Ledger ledger
    cdef Node root
    cdef readonly int node_size
    cdef readonly int inline_limit
    cdef int small
    cdef readonly uint64_t owner
    cdef readonly uint64_t version
    cdef uint64_t items
    cdef public str label
    cdef public object resolve
    cdef public object pin
    cdef public uint64_t volume_size
    cdef readonly bytes ref
    cdef bint closed

    cdef int stand_on(self, bytes ref) except -1
    cdef Node shell(self, const uint8_t* pointer)
    cdef int load(self, Node node) except -1
    cdef int check_summary(self, Node node, const uint8_t* ref) except -1
    cdef inline Node loaded_root(self)
    cdef Node child(self, Node parent, int i)
    cdef Node leaf_of(self, Slice key)

cdef int check_key(key) except -1
