"""Which blocks are free, how often each is referenced, and what waits to be freed.

The map of blocks is a bitmap in memory, in allocation groups; counts are kept for shared blocks
only. A block that a transaction frees is reusable once that transaction is durable and no open
reader is older: until then it waits in `pending`, still set in the bitmap.

On the device the map is a checkpoint (the space tree: one item for each group) and the deltas in
the commit records since. `checkpoint_groups` gives the map as it will be once everything that is
pending is free, since nobody reads an old version across a restart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from . import limits
from ._bitmap import Bitmap
from .device import Device
from .errors import CorruptionError, OutOfSpaceError
from .format import Delta, pack_group, unpack_group

NORMAL, DELETING, DESTROYING = range(3)
"""Who asks for space: what only deletes may use a part of the reserve, destroying all of it."""

_SMALL_RUN = 64
_LARGE_RUN = 1024
_GROW_STEP = 256
_HOLE = 256
"""Blocks of the shortest free run that is punched out of the file: holes cost the host time, both
when they are made and when they are filled again."""
_FULL = 0.7
"""A growing image grows, rather than fill small gaps, while more of it than this is in use."""


class Space:
    """The allocator and the counts of one store.

    `limit` is the number of blocks that the image may have, or 0 where it grows as needed.
    """

    def __init__(self, device: Device, block_size: int, total: int, limit: int) -> None:
        self.device = device
        self.block_size = block_size
        self.limit = limit
        self.bitmap = Bitmap(total, limits.GROUP_BLOCKS)
        self.shared: dict[int, int] = {}
        self.used = 0
        self.pending: deque[tuple[int, bytes, int]] = deque()
        self.pending_blocks = 0
        self.purpose = NORMAL
        self._near = 0
        self._undiscarded: list[bytes] = []
        self.reserve_fixed()

    def reserve_fixed(self) -> None:
        """Set what is never handed out: both superblock places, and block 0 with the first."""
        self.used += self.bitmap.set(0, limits.SUPERBLOCK_SLOTS)
        self.used += self.bitmap.set(limits.SECOND_PLACE_BLOCK, limits.SUPERBLOCK_SLOTS)

    @property
    def total(self) -> int:
        """Blocks of the image as it is."""
        return self.bitmap.size

    @property
    def reserve(self) -> int:
        """Blocks kept back in an image of limited size, so that deleting always works."""
        return max(64, min(4096, self.limit // 16)) if self.limit else 0

    @property
    def free(self) -> int:
        """Blocks that could be handed out now, if the image grew to its limit."""
        return (self.limit or self.total) - self.used

    # --- handing out ----------------------------------------------------------------------------

    def take_run(self, minimum: int, written: int) -> tuple[int, int]:
        """(first block, blocks) of a free run of at least `minimum` blocks, now in use.

        Runs are as long as what the transaction has `written` (in bytes) so far suggests. Raises
        OutOfSpaceError.
        """
        goal = max(minimum, min(_LARGE_RUN, max(_SMALL_RUN, written // self.block_size)))
        if self.limit:
            floor = (self.reserve, self.reserve // 2, 0)[self.purpose]
            spare = self.free - floor
            if spare < minimum:
                raise self._full()
            goal = min(goal, spare)
        start, length = self.bitmap.search(self._near, goal)
        if not length and (self.used - self.pending_blocks > _FULL * self.total):
            start, length = self._grow(goal)
        while not length and goal > minimum:
            goal = max(minimum, goal // 4)
            start, length = self.bitmap.search(self._near, goal)
        if not length:
            start, length = self._grow(minimum)
        if not length:
            raise self._full()
        self.used += self.bitmap.set(start, length)
        self._near = start + length
        return start, length

    def _grow(self, blocks: int) -> tuple[int, int]:
        """A run of fresh blocks at the end; (0, 0) where the limit is reached."""
        old = self.total
        new = old + max(blocks, _GROW_STEP, min(old // 32, 8192))
        if self.limit:
            new = min(new, self.limit)
        if new - old < blocks:
            return 0, 0
        self.device.resize(new * self.block_size)
        self.bitmap.resize(new)
        return old, blocks

    def _full(self) -> OutOfSpaceError:
        size = (self.limit or self.total) * self.block_size
        return OutOfSpaceError(
            f"the image is full: {self.free * self.block_size:,} of {size:,} bytes are free, "
            f"{self.reserve * self.block_size:,} of them reserved for deleting; "
            "delete data or destroy snapshots, then try again"
        )

    def give_back(self, start: int, length: int) -> None:
        """Blocks that were taken and not used, or used by a transaction that is abandoned."""
        self.used -= self.bitmap.clear(start, length)

    # --- commit ---------------------------------------------------------------------------------

    def apply_counts(self, counts: dict[int, int]) -> None:
        """Make the counts of a committed transaction those of the store."""
        shared = self.shared
        for block, count in counts.items():
            if count > 1:
                shared[block] = count
            else:
                shared.pop(block, None)
        group_blocks = limits.GROUP_BLOCKS
        self.bitmap.mark({block // group_blocks for block in counts})

    def defer(self, txid: int, freed: bytes, blocks: int) -> None:
        """Blocks that transaction `txid` freed."""
        if freed:
            self.pending.append((txid, freed, blocks))
            self.pending_blocks += blocks

    def release(self, txid: int) -> None:
        """Make reusable what was freed by transactions up to `txid`."""
        while self.pending and self.pending[0][0] <= txid:
            _, freed, blocks = self.pending.popleft()
            self.used -= self.bitmap.clear_packed(freed)
            self.pending_blocks -= blocks

    # --- giving back to the host ----------------------------------------------------------------

    def long_free_runs(self) -> Iterator[tuple[int, int]]:
        """(first block, blocks) of each free run that is worth a hole in the file."""
        at = 0
        while at < self.total:
            start, length = self.bitmap.find(at, self.total, _HOLE)
            if length < _HOLE:
                return
            while start + length < self.total and not self.bitmap.test(start + length):
                length += self.bitmap.find(start + length, self.total, self.total)[1]
            yield start, length
            at = start + length

    def shrink(self) -> None:
        """Forget the free blocks at the end, all but a few."""
        last = self.total
        while last > limits.MIN_IMAGE_BLOCKS and not self.bitmap.test(last - 1):
            last -= 1
        self.bitmap.resize(min(self.total, max(limits.MIN_IMAGE_BLOCKS, last + _SMALL_RUN)))

    # --- checkpoint -----------------------------------------------------------------------------

    def checkpoint_groups(
        self, changed: Iterable[int], freed: Iterable[bytes], counts: dict[int, int]
    ) -> Iterator[tuple[int, bytes]]:
        """(group, stored form) of each group in `changed` and each that has something pending.

        `freed` and `counts` are those of the transaction that makes the checkpoint.
        """
        settled = self.bitmap.copy()
        for _, packed, _ in self.pending:
            settled.clear_packed(packed)
        for packed in freed:
            settled.clear_packed(packed)
        groups = sorted(set(changed) | set(settled.clean()))
        by_group: dict[int, list[tuple[int, int]]] = {group: [] for group in groups}
        for source, overlay in ((self.shared, counts), (counts, None)):
            for block, count in source.items():
                group = block // limits.GROUP_BLOCKS
                if count > 1 and group in by_group and not (overlay and block in overlay):
                    by_group[group].append((block % limits.GROUP_BLOCKS, count))
        for group in groups:
            yield group, pack_group(settled.group_bytes(group), sorted(by_group[group]))

    def load_group(self, group: int, data: bytes) -> None:
        """Take a group over from a checkpoint; CorruptionError where it is malformed."""
        first = group * limits.GROUP_BLOCKS
        try:
            if first >= self.total:
                raise ValueError("beyond the end of the image")
            bitmap, counts = unpack_group(data, limits.GROUP_BLOCKS // 8)
            self.bitmap.set_group_bytes(group, bitmap)
            for index, count in counts:
                if index >= limits.GROUP_BLOCKS or count < 2:
                    raise ValueError("an impossible count")
                self.shared[first + index] = count
        except ValueError as error:
            raise CorruptionError("", None, f"space map of group {group}: {error}") from None

    def apply_delta(self, delta: Delta) -> None:
        """Replay what a commit record says; ValueError where it cannot be."""
        for start, length in delta.segments:
            self.bitmap.set(start, length)
        self.bitmap.clear_packed(delta.freed)
        self.apply_counts(delta.counts)

    def recount(self) -> None:
        """Settle `used` after loading."""
        self.used = self.bitmap.count(0, self.total)
