"""A bitmap of blocks, one bit each, set for what may not be handed out, in allocation groups."""

from __future__ import annotations

from collections.abc import Iterable

from ._bitmap import Bits


class Bitmap(Bits):
    """`size` bits, all clear at first. They are stored and loaded by the group, of which it tells
    those that changed."""

    def __init__(self, size: int, group_blocks: int) -> None:
        super().__init__(group_blocks)
        self.resize(size)

    def resize(self, size: int) -> None:
        """Grow: new bits are clear, and their groups changed. Shrink: bits beyond are forgotten."""
        if size == self.size:
            return
        groups = -(-size // self.group_blocks)
        length = groups * self.group_blocks // 8
        if self.size > 8 * length:
            self.clear(8 * length, self.size - 8 * length)
        # An interrupt or another thread may come between any two of these: it never has more bits
        # than there are words, nor more groups that changed.
        self.size = min(size, self.size)
        del self.dirty[groups:]
        del self.words[length:]
        partial = self.size // self.group_blocks
        self.longest[partial:] = [self.group_blocks] * (groups - partial)
        self.words.extend(bytes(length - len(self.words)))
        self.dirty.extend(b"\1" * (groups - len(self.dirty)))
        self.size = size

    def set(self, start: int, length: int) -> int:
        """Set a range; how many of its bits were clear."""
        return self.change(start, length, True)

    def clear(self, start: int, length: int) -> int:
        """Clear a range; how many of its bits were set."""
        return self.change(start, length, False)

    def set_packed(self, packed: bytes) -> int:
        """Set ranges given as words `start << 16 | length`; how many of their bits were clear."""
        return self.change_packed(packed, True)

    def clear_packed(self, packed: bytes) -> int:
        """Clear ranges given as words `start << 16 | length`; how many of their bits were set."""
        return self.change_packed(packed, False)

    def copy(self) -> Bitmap:
        """Another bitmap with the same bits, of which none has changed yet."""
        other = Bitmap(self.size, self.group_blocks)
        other.words[:] = self.words
        other.used = self.used
        other.clean()
        return other

    def clean(self) -> list[int]:
        """Which groups changed since the last call, as a list; they count as unchanged now."""
        del self.dirty[-(-self.size // self.group_blocks) :]  # of a `resize` that was interrupted
        groups = [group for group, changed in enumerate(self.dirty) if changed]
        self.dirty[:] = bytes(len(self.dirty))
        return groups

    def mark(self, groups: Iterable[int]) -> None:
        """Count these groups as changed."""
        for group in groups:
            self.dirty[group] = 1

    def mark_all(self) -> None:
        """Count all groups as changed."""
        self.mark(range(len(self.dirty)))

    def count(self, start: int, stop: int) -> int:
        """Set bits in start .. stop - 1."""
        bits = _number(self.words[start >> 3 : -(-stop // 8)]) >> (start & 7)
        return (bits & (1 << max(0, stop - start)) - 1).bit_count()

    def group_bytes(self, group: int) -> bytes:
        """The bits of a group, lowest block in the lowest bit of the first byte."""
        length = self.group_blocks // 8
        return bytes(self.words[group * length : (group + 1) * length])

    def set_group_bytes(self, group: int, data: bytes) -> int:
        """Replace the bits of a group; how many are set now."""
        before = self.group_bytes(group)
        if len(data) != len(before):
            raise ValueError(f"{len(data)} bytes for a group of {len(before)}")
        found = _number(data).bit_count()
        if data != before:
            self.words[group * len(data) : (group + 1) * len(data)] = data
            self.used += found - _number(before).bit_count()
        self.longest[group] = self.group_blocks
        return found


def _number(bits: bytes | bytearray) -> int:
    return int.from_bytes(bits, "little")
