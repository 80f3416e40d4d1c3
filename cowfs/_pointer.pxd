# What the compiled modules read of a block pointer whose halves lie apart (docs/format.md): lengths of
# nodes fit 16 bits, so the upper half of their length is that of the distance to their second copy.
from libc.stdint cimport int32_t, uint8_t, uint32_t

from cowfs._bytes cimport u16, u32

cdef enum:
    DATA_LEVEL = 255


cdef inline uint32_t logical_of(const uint8_t* pointer) noexcept:
    """Bytes after decompression."""
    return u32(pointer + 20) if pointer[25] == DATA_LEVEL else u16(pointer + 20)


cdef inline int32_t twin_of(const uint8_t* pointer) noexcept:
    """Blocks from the first copy of a node to the second; 0 where there is none, as of data."""
    if pointer[25] == DATA_LEVEL:
        return 0
    return <int32_t>(<uint32_t>u16(pointer + 22) << 16 | u16(pointer + 26))
