# How the compiled modules read and write numbers and keys in a page, where nothing is aligned.
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

cdef extern from *:
    """#define prefetch(address) __builtin_prefetch(address)"""
    void prefetch(const void* address) noexcept
    uint64_t __builtin_bswap64(uint64_t) noexcept


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


cdef inline void put16(uint8_t* to, uint16_t value) noexcept:
    memcpy(to, &value, 2)


cdef struct Slice:
    # Bytes somewhere: a key or value, in a page or a bytes object that whoever uses it keeps.
    const uint8_t* at
    int length


cdef inline Slice slice_of(bytes data) noexcept:
    return Slice(<const uint8_t*>PyBytes_AS_STRING(data), <int>PyBytes_GET_SIZE(data))


cdef inline bytes bytes_of(Slice data):
    return PyBytes_FromStringAndSize(<const char*>data.at, data.length)


cdef inline int compare(Slice a, Slice b) noexcept:
    cdef int c = memcmp(a.at, b.at, a.length if a.length < b.length else b.length)
    return c if c else a.length - b.length
