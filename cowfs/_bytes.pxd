# How the compiled modules read numbers and keys in a page, where nothing is aligned.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

cdef extern from *:
    """#define prefetch(address) __builtin_prefetch(address)"""
    void prefetch(const void* address) noexcept


cdef inline uint16_t u16(const uint8_t* at) noexcept:
    cdef uint16_t value
    memcpy(&value, at, 2)
    return value


cdef inline uint32_t u32(const uint8_t* at) noexcept:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return value


cdef inline uint64_t u64(const uint8_t* at) noexcept:
    cdef uint64_t value
    memcpy(&value, at, 8)
    return value


cdef inline int compare(const uint8_t* a, int alen, const uint8_t* b, int blen) noexcept:
    cdef int c = memcmp(a, b, alen if alen < blen else blen)
    return c if c else alen - blen
