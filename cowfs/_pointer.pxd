# A block pointer, and what is read of it whose halves lie apart (docs/format.md): lengths of nodes fit
# 16 bits, so the upper half of their length is that of the distance to their second copy.
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from cowfs._bytes cimport u16, u32

cdef enum:
    DATA_LEVEL = 255

cdef packed struct Pointer:
    uint64_t block
    uint64_t birth
    uint32_t stored
    uint16_t logical
    uint16_t twin_above
    uint8_t compression
    uint8_t level
    uint16_t twin_below
    uint8_t checksum[16]


cdef inline uint32_t logical_of(const uint8_t* pointer) noexcept:
    """Bytes after decompression."""
    return u32(pointer + 20) if pointer[25] == DATA_LEVEL else u16(pointer + 20)


cdef inline int32_t twin_of(const uint8_t* pointer) noexcept:
    """Blocks from the first copy of a node to the second; 0 where there is none, as of data."""
    if pointer[25] == DATA_LEVEL:
        return 0
    return <int32_t>(<uint32_t>u16(pointer + 22) << 16 | u16(pointer + 26))
