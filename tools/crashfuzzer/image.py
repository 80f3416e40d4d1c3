"""The bytes of a device as a map of chunks that copies share, so that a crash state costs what
differs in it and not what is stored; with a fingerprint, to tell how many states are distinct.
"""

from __future__ import annotations

import xxhash

CHUNK = 4096
"""Bytes that are kept, and shared, together."""
_ZEROS = bytes(CHUNK)


class Image:
    """Bytes that can be read, written, resized and copied. Chunks of zeros are not kept."""

    __slots__ = ("_chunks", "_sum", "size")

    def __init__(self) -> None:
        self.size = 0
        self._chunks: dict[int, bytes] = {}
        self._sum = 0

    def copy(self) -> Image:
        """The same bytes; what is done to one is not done to the other."""
        other = Image()
        other.size, other._sum = self.size, self._sum
        other._chunks = self._chunks.copy()
        return other

    @property
    def fingerprint(self) -> tuple[int, int]:
        """Equal for equal images, and different for different ones (128 bits of hash)."""
        return self.size, self._sum

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes; fewer only at the end."""
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        first, skip = divmod(offset, CHUNK)
        get = self._chunks.get
        if skip + length <= CHUNK:
            chunk = get(first, _ZEROS)
            return chunk if length == CHUNK else chunk[skip : skip + length]
        last = (offset + length - 1) // CHUNK
        data = b"".join([get(index, _ZEROS) for index in range(first, last + 1)])
        return data if len(data) == length else data[skip : skip + length]

    def write(self, offset: int, data: bytes | bytearray) -> None:
        """Put bytes at an offset; the image grows where they lie beyond its end."""
        end = offset + len(data)
        self.size = max(self.size, end)
        at = offset
        while at < end:
            index, skip = divmod(at, CHUNK)
            piece = bytes(data[at - offset : at - offset + CHUNK - skip])
            if len(piece) < CHUNK:
                old = self._chunks.get(index, _ZEROS)
                piece = old[:skip] + piece + old[skip + len(piece) :]
            self._put(index, piece)
            at = (index + 1) * CHUNK

    def resize(self, size: int) -> None:
        """Cut off, or grow by zeros."""
        if size < self.size:
            first, keep = divmod(size, CHUNK)
            for index in [index for index in self._chunks if index >= first]:
                kept = self._chunks[index][: keep if index == first else 0]
                self._put(index, kept.ljust(CHUNK, b"\0"))
        self.size = size

    def _put(self, index: int, chunk: bytes) -> None:
        old = self._chunks.get(index, _ZEROS)
        if chunk == old:
            return
        if old is not _ZEROS:
            self._sum ^= xxhash.xxh3_128_intdigest(old, index)
        if chunk == _ZEROS:
            del self._chunks[index]
        else:
            self._sum ^= xxhash.xxh3_128_intdigest(chunk, index)
            self._chunks[index] = chunk
