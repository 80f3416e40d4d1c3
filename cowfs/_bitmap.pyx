# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""A bitmap of blocks, one bit each, set for what may not be handed out.

Searching it is the part of allocation that grows with the store, so it goes word by word here.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memset

cdef extern from *:
    int __builtin_popcountll(unsigned long long) noexcept
    int __builtin_ctzll(unsigned long long) noexcept


cdef class Bitmap:
    """`size` bits, all clear at first; `used` of them are set. `dirty` has a byte for each group, set
    when bits change."""

    cdef bytearray words
    cdef uint64_t* w
    cdef readonly Py_ssize_t size
    cdef readonly Py_ssize_t used
    cdef readonly Py_ssize_t group_blocks
    cdef readonly bytearray dirty
    cdef list longest

    def __init__(self, Py_ssize_t size, Py_ssize_t group_blocks):
        self.group_blocks = group_blocks
        self.words = bytearray()
        self.dirty = bytearray()
        self.longest = []
        self.resize(size)

    def resize(self, Py_ssize_t size):
        """Grow: new bits are clear, and their groups changed. Shrink: the bits beyond are forgotten."""
        cdef Py_ssize_t groups = (size + self.group_blocks - 1) // self.group_blocks
        cdef Py_ssize_t length = groups * self.group_blocks // 8
        if length < len(self.words):
            self.used -= self.count(size, self.size)
            del self.words[length:]
            del self.dirty[groups:]
            del self.longest[groups:]
        else:
            self.words.extend(bytes(length - len(self.words)))
            self.dirty.extend(b"\1" * (groups - len(self.dirty)))
            if self.longest:
                self.longest[len(self.longest) - 1] = self.group_blocks
            self.longest.extend([self.group_blocks] * (groups - len(self.longest)))
        self.w = <uint64_t*>PyByteArray_AS_STRING(self.words)
        self.size = size

    cdef Py_ssize_t change(self, Py_ssize_t start, Py_ssize_t length, bint on):
        """Set or clear a range; the number of bits that changed."""
        cdef Py_ssize_t changed = 0, stop = start + length, take, bit, group
        cdef uint64_t mask, old
        if start < 0 or length < 0 or stop > self.size:
            raise ValueError(f"blocks {start} to {stop} of {self.size}")
        if length:
            for group in range(start // self.group_blocks, (stop - 1) // self.group_blocks + 1):
                self.dirty[group] = 1
                if not on:
                    self.longest[group] = self.group_blocks
        while start < stop:
            bit = start & 63
            take = min(64 - bit, stop - start)
            mask = (~<uint64_t>0 if take == 64 else ((<uint64_t>1 << take) - 1)) << bit
            old = self.w[start >> 6]
            if on:
                changed += __builtin_popcountll(mask & ~old)
                self.w[start >> 6] = old | mask
            else:
                changed += __builtin_popcountll(mask & old)
                self.w[start >> 6] = old & ~mask
            start += take
        self.used += changed if on else -changed
        return changed

    def set(self, Py_ssize_t start, Py_ssize_t length):
        """Set a range; how many of its bits were clear."""
        return self.change(start, length, True)

    def clear(self, Py_ssize_t start, Py_ssize_t length):
        """Clear a range; how many of its bits were set."""
        return self.change(start, length, False)

    cdef Py_ssize_t change_packed(self, bytes packed, bint on):
        cdef Py_ssize_t i, total = 0
        cdef uint64_t word
        cdef const uint64_t* words = <const uint64_t*>PyBytes_AS_STRING(packed)
        for i in range(PyBytes_GET_SIZE(packed) // 8):
            word = words[i]
            total += self.change(word >> 16, word & 0xFFFF, on)
        return total

    def set_packed(self, bytes packed):
        """Set ranges given as words `start << 16 | length`; how many bits were clear."""
        return self.change_packed(packed, True)

    def clear_packed(self, bytes packed):
        """Clear ranges given as words `start << 16 | length`; how many bits were set."""
        return self.change_packed(packed, False)

    def test(self, Py_ssize_t at):
        """Whether a bit is set."""
        if at < 0 or at >= self.size:
            return False
        return bool(self.w[at >> 6] >> (at & 63) & 1)

    def count(self, Py_ssize_t start, Py_ssize_t stop):
        """Set bits in start .. stop - 1."""
        cdef Py_ssize_t total = 0
        while start < stop and start & 63:
            total += self.w[start >> 6] >> (start & 63) & 1
            start += 1
        while start + 64 <= stop:
            total += __builtin_popcountll(self.w[start >> 6])
            start += 64
        while start < stop:
            total += self.w[start >> 6] >> (start & 63) & 1
            start += 1
        return total

    def find(self, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t goal):
        """(position, length) of the first clear run of `goal` bits in start .. stop - 1, or of the
        longest run there is; (start, 0) where all bits are set."""
        cdef Py_ssize_t at = start, run, best = start, best_length = 0
        cdef uint64_t word
        if stop > self.size:
            stop = self.size
        while at < stop:
            # To the next clear bit.
            word = ~self.w[at >> 6] >> (at & 63)
            if word == 0:
                at = (at | 63) + 1
                continue
            at += __builtin_ctzll(word)
            if at >= stop:
                break
            # To the end of the run.
            run = at
            while run < stop and run - at < goal:
                word = self.w[run >> 6] >> (run & 63)
                if word == 0:
                    run = (run | 63) + 1
                    continue
                run += __builtin_ctzll(word)
                break
            if run > stop:
                run = stop
            if run - at >= goal:
                return at, goal
            if run - at > best_length:
                best = at
                best_length = run - at
            at = run
        return best, best_length

    def next_set(self, Py_ssize_t at):
        """The first set bit from `at` on, or `size`."""
        cdef uint64_t word
        while at < self.size:
            word = self.w[at >> 6] >> (at & 63)
            if word:
                return min(at + __builtin_ctzll(word), self.size)
            at = (at | 63) + 1
        return self.size

    def next_clear(self, Py_ssize_t at):
        """The first clear bit from `at` on, or `size`."""
        cdef uint64_t word
        while at < self.size:
            word = ~self.w[at >> 6] >> (at & 63)
            if word:
                return min(at + __builtin_ctzll(word), self.size)
            at = (at | 63) + 1
        return self.size

    def search(self, Py_ssize_t near, Py_ssize_t goal):
        """(position, length) of a clear run of `goal` bits within one group: the next one behind
        `near`, going round; (0, 0) where there is none. Groups known to hold no run of that length
        are passed over."""
        cdef Py_ssize_t groups = len(self.longest)
        cdef Py_ssize_t i, group, start, stop, first
        if groups == 0:
            return 0, 0
        if near >= self.size or near < 0:
            near = 0
        first = near // self.group_blocks
        for i in range(groups + 1):
            group = (first + i) % groups
            if self.longest[group] < goal:
                continue
            start = group * self.group_blocks
            stop = start + self.group_blocks
            if i == 0:
                start = near
            position, length = self.find(start, stop, goal)
            if length >= goal:
                return position, length
            if i:
                self.longest[group] = length
        return 0, 0

    def copy(self):
        """Another bitmap with the same bits, of which none has changed yet."""
        cdef Bitmap other
        other = Bitmap(self.size, self.group_blocks)
        other.words[:] = self.words
        other.used = self.used
        other.w = <uint64_t*>PyByteArray_AS_STRING(other.words)
        memset(PyByteArray_AS_STRING(other.dirty), 0, len(other.dirty))
        return other

    def clean(self):
        """Which groups changed since the last call, as a list; they count as unchanged now."""
        cdef list groups = [i for i, changed in enumerate(self.dirty) if changed]
        memset(PyByteArray_AS_STRING(self.dirty), 0, len(self.dirty))
        return groups

    def mark(self, groups):
        """Count these groups as changed."""
        for group in groups:
            self.dirty[group] = 1

    def mark_all(self):
        """Count all groups as changed."""
        memset(PyByteArray_AS_STRING(self.dirty), 1, len(self.dirty))

    def group_bytes(self, Py_ssize_t group):
        """The bits of a group, lowest block in the lowest bit of the first byte."""
        cdef Py_ssize_t length = self.group_blocks // 8
        return bytes(self.words[group * length:(group + 1) * length])

    def set_group_bytes(self, Py_ssize_t group, bytes data):
        """Replace the bits of a group."""
        cdef Py_ssize_t length = self.group_blocks // 8
        if len(data) != length:
            raise ValueError(f"{len(data)} bytes for a group of {length}")
        self.used -= self.count(8 * group * length, 8 * (group + 1) * length)
        self.words[group * length:(group + 1) * length] = data
        self.used += self.count(8 * group * length, 8 * (group + 1) * length)
        self.longest[group] = self.group_blocks
        self.w = <uint64_t*>PyByteArray_AS_STRING(self.words)
