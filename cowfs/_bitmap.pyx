"""The bits of a bitmap of blocks: changing and searching them.

Searching is the part of allocation that grows with the store, so it goes word by word here. What is
done to a group at a time is in `bitmap.py`.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t

cdef extern from *:
    int __builtin_popcountll(unsigned long long) noexcept
    int __builtin_ctzll(unsigned long long) noexcept


cdef class Bits:
    """`size` bits, none at first; `used` of them are set. `dirty` has a byte for each group, set when
    bits change. `longest` has the length of run that each group may have room for."""

    cdef readonly bytearray words
    cdef public Py_ssize_t size
    cdef public Py_ssize_t used
    cdef readonly Py_ssize_t group_blocks
    cdef readonly bytearray dirty
    cdef readonly list longest

    def __init__(self, Py_ssize_t group_blocks):
        self.group_blocks = group_blocks
        self.words = bytearray()
        self.dirty = bytearray()
        self.longest = []

    cpdef Py_ssize_t change(self, Py_ssize_t start, Py_ssize_t length, bint on) except -1:
        """Set or clear a range; the number of bits that changed."""
        cdef Py_ssize_t changed = 0, stop = start + length, take, group
        cdef uint64_t mask, flipped, inverted = ~<uint64_t>0 if on else 0
        cdef uint64_t* words = data_of(self)
        if start < 0 or length < 0 or stop > self.size:
            raise ValueError(f"blocks {start} to {stop} of {self.size}")
        if length:
            for group in range(start // self.group_blocks, (stop - 1) // self.group_blocks + 1):
                self.dirty[group] = 1
                if not on:
                    self.longest[group] = self.group_blocks
        while start < stop:
            take = min(64 - (start & 63), stop - start)
            mask = (~<uint64_t>0 >> (64 - take)) << (start & 63)
            flipped = mask & (words[start >> 6] ^ inverted)
            changed += __builtin_popcountll(flipped)
            words[start >> 6] ^= flipped
            start += take
        self.used += changed if on else -changed
        return changed

    def change_packed(self, bytes packed, bint on):
        """Set or clear ranges given as words `start << 16 | length`; how many bits changed."""
        cdef Py_ssize_t i, total = 0
        cdef uint64_t word
        for i in range(PyBytes_GET_SIZE(packed) // 8):
            word = (<const uint64_t*>PyBytes_AS_STRING(packed))[i]
            total += self.change(word >> 16, word & 0xFFFF, on)
        return total

    def test(self, Py_ssize_t at):
        """Whether a bit is set."""
        return 0 <= at < self.size and bool(data_of(self)[at >> 6] >> (at & 63) & 1)

    def next_set(self, Py_ssize_t at, stop=None):
        """The first set bit from `at` on and before `stop`, or `stop`; `size` is the last one."""
        return next_bit(data_of(self), at, self.size if stop is None else min(stop, self.size), True)

    def next_clear(self, Py_ssize_t at):
        """The first clear bit from `at` on, or `size`."""
        return next_bit(data_of(self), at, self.size, False)

    def find(self, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t goal):
        """(position, length) of the first clear run of `goal` bits in start .. stop - 1, or of the
        longest run there is; (start, 0) where all bits are set."""
        cdef Py_ssize_t at, end = start, best = start, length = 0
        stop = min(stop, self.size)
        while length < goal:
            at = next_bit(data_of(self), end, stop, False)
            if at >= stop:
                break
            end = next_bit(data_of(self), at, min(stop, at + goal), True)
            if end - at > length:
                best, length = at, end - at
        return best, length

    def search(self, Py_ssize_t near, Py_ssize_t goal):
        """(position, length) of a clear run of `goal` bits within one group: the next one behind
        `near`, going round; (0, 0) where there is none. Groups known to hold no run of that length
        are passed over."""
        cdef Py_ssize_t groups = len(self.longest)
        cdef Py_ssize_t i, group, start
        if near >= self.size or near < 0:
            near = 0
        for i in range(groups + 1 if groups else 0):
            group = (near // self.group_blocks + i) % groups
            if self.longest[group] < goal:
                continue
            start = group * self.group_blocks
            position, length = self.find(start if i else near, start + self.group_blocks, goal)
            if length >= goal:
                return position, length
            if i:
                self.longest[group] = length
        return 0, 0


cdef inline uint64_t* data_of(Bits bits) noexcept:
    return <uint64_t*>PyByteArray_AS_STRING(bits.words)


cdef Py_ssize_t next_bit(
        const uint64_t* words, Py_ssize_t at, Py_ssize_t stop, bint on) noexcept:
    """The first bit in at .. stop - 1 that is set (`on`) or clear, or `stop`."""
    cdef uint64_t word
    while at < stop:
        word = (words[at >> 6] if on else ~words[at >> 6]) >> (at & 63)
        if word:
            return min(at + __builtin_ctzll(word), stop)
        at = (at | 63) + 1
    return stop
