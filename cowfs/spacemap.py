"""The map of space: which blocks are in use, how often those that are shared are referenced, and
how both are stored.

The map is in memory as a whole. On the device it is a checkpoint, one item for each allocation
group that has something in use, and the deltas in the commit records since.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from . import limits
from .bitmap import Bitmap
from .counts import CountMap
from .errors import CorruptionError
from .format import Delta, pack_group, unpack_group


class SpaceMap:
    """Of an image of `total` blocks, all free at first."""

    def __init__(self, total: int) -> None:
        self.bitmap = Bitmap(total, limits.GROUP_BLOCKS)
        self.shared: dict[int, int] = {}
        """Counts of two and more, for ledgers; `_counts` has the same, as they are stored."""
        self._counts = CountMap(total)

    def apply_counts(self, counts: dict[int, int]) -> None:
        """Take over what a transaction did to counts."""
        shared = self.shared
        for block, count in counts.items():
            if count > 1:
                shared[block] = count
            else:
                shared.pop(block, None)
        self.bitmap.mark(self._counts.apply(self.bitmap.size, counts))

    def apply_delta(self, delta: Delta) -> None:
        """Do again what a commit record says; ValueError where it cannot be."""
        if any(block >= self.bitmap.size for block in delta.counts):
            raise ValueError("a count beyond the end of the image")
        for start, length in delta.segments:
            self.bitmap.set(start, length)
        self.bitmap.clear_packed(delta.freed)
        self.apply_counts(delta.counts)

    def stored_groups(
        self, settled: Bitmap, changed: Iterable[int], counts: dict[int, int]
    ) -> Iterator[tuple[int, bytes]]:
        """(group, stored form) of groups in `changed`, and of those that `settled`, which is stored
        instead of the bitmap, and `counts` to come change besides."""
        settled_counts, counted = self._counts.after(self.bitmap.size, counts)
        for group in sorted({*changed, *settled.clean(), *counted}):
            yield group, pack_group(settled.group_bytes(group), *settled_counts.group(group))

    def load_group(self, group: int, data: bytes) -> None:
        """Take a group over from a checkpoint; CorruptionError where it is malformed."""
        total = self.bitmap.size
        first = group * limits.GROUP_BLOCKS
        try:
            if first >= total:
                raise ValueError("beyond the end of the image")
            bitmap, shared, many = unpack_group(data, limits.GROUP_BLOCKS // 8)
            there = total - first
            if there < limits.GROUP_BLOCKS and any(
                int.from_bytes(bits, "little") >> there for bits in (bitmap, shared)
            ):
                raise ValueError("blocks in use beyond the end of the image")
            self.bitmap.set_group_bytes(group, bitmap)
            self.shared.update(self._counts.load(total, group, shared, many))
        except ValueError as error:
            raise CorruptionError("", None, f"space map of group {group}: {error}") from None
