# What the compiled modules read of a block pointer whose halves lie apart (docs/format.md): lengths of
# nodes fit 16 bits, so the upper half of their length is that of the distance to their second copy.
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

cdef enum:
    DATA_LEVEL = 255


cdef inline uint32_t logical_of(const uint8_t* pointer) noexcept:
    """Bytes after decompression."""
    cdef uint16_t low
    cdef uint32_t both
    if pointer[25] == DATA_LEVEL:
        memcpy(&both, pointer + 20, 4)
        return both
    memcpy(&low, pointer + 20, 2)
    return low


cdef inline int32_t twin_of(const uint8_t* pointer) noexcept:
    """Blocks from the first copy of a node to the second; 0 where there is none, as of data."""
    cdef uint16_t low, high
    if pointer[25] == DATA_LEVEL:
        return 0
    memcpy(&high, pointer + 22, 2)
    memcpy(&low, pointer + 26, 2)
    return <int32_t>(<uint32_t>high << 16 | low)
