"""The counts of shared blocks in the form in which a checkpoint stores them, a group at a time.

Most blocks that are shared have two references, which one bit says. So a group takes no longer to
store the more of it is shared: writers wait for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from . import limits
from .bitmap import Bitmap


class CountMap:
    """Counts of two and more, by block: a bit for each, and a number for those above two."""

    def __init__(self, total: int) -> None:
        self._shared = Bitmap(total, limits.GROUP_BLOCKS)
        self._many: defaultdict[int, dict[int, int]] = defaultdict(dict)
        """By group, and by block within it."""

    def apply(self, total: int, counts: Mapping[int, int]) -> set[int]:
        """Take over what became of some counts in an image of `total` blocks; their groups."""
        self._shared.resize(total)
        groups = set()
        for block, count in counts.items():
            group, index = divmod(block, limits.GROUP_BLOCKS)
            groups.add(group)
            self._shared.change(block, 1, count > 1)
            if count > 2:
                self._many[group][index] = count
            elif group in self._many:
                self._many[group].pop(index, None)
        return groups

    def after(self, total: int, counts: Mapping[int, int]) -> tuple[CountMap, set[int]]:
        """Another one, to which `counts` are applied, and their groups. The two share what those
        leave as it is."""
        other = CountMap(0)
        other._shared = self._shared.copy()
        other._many.update(self._many)
        for group in {block // limits.GROUP_BLOCKS for block in counts} & self._many.keys():
            other._many[group] = dict(self._many[group])
        return other, other.apply(total, counts)

    def group(self, group: int) -> tuple[bytes, list[tuple[int, int]]]:
        """The bits of a group, and (index, count) of those above two."""
        many = sorted(self._many[group].items()) if group in self._many else []
        return self._shared.group_bytes(group), many

    def load(
        self, total: int, group: int, shared: bytes, many: list[tuple[int, int]]
    ) -> dict[int, int]:
        """Take over a group that was stored; its counts. ValueError where they are impossible."""
        first = group * limits.GROUP_BLOCKS
        self._shared.resize(total)
        counts: dict[int, int] = {}
        if shared != bytes(len(shared)) and self._shared.set_group_bytes(group, shared):
            stop = min(first + limits.GROUP_BLOCKS, total)
            block = self._shared.next_set(first, stop)
            while block < stop:
                counts[block] = 2
                block = self._shared.next_set(block + 1, stop)
        for index, count in many:
            if first + index not in counts or not 2 < count <= limits.MAX_COUNT:
                raise ValueError("an impossible count")
            counts[first + index] = self._many[group][index] = count
        return counts
