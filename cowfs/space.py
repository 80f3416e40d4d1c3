"""Handing out free blocks, and what waits to be free.

The map of blocks (`spacemap.py`) is read when it is first needed: who only reads never needs it. A
block that a transaction frees is reusable once that transaction is durable and no open
reader is older: until then it waits in a queue, still set in the bitmap. A reader can only see what
was written before it opened: what came later waits in `unseen`, the rest in `seen`, so that a
reader that is left open holds on to its own version and to nothing more. Blocks that were freed
before the transaction that wrote them was flushed wait in `young` for longer: after a crash, that
transaction proves itself by what it wrote, so these bytes must stay until something durable says
that it needs no proof. Blocks of the old log wait in `retired`, and are then kept for the next one
(`log_runs`): they lie in long runs, and the host has allocated them.

`checkpoint_groups` gives the map as it will be once everything that is pending is free, since
nobody reads an old version across a restart.
"""

from __future__ import annotations

import contextlib
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from . import limits
from .bitmap import Bitmap
from .device import Device
from .errors import OutOfSpaceError
from .spacemap import SpaceMap

_WORD = struct.Struct("<Q")

T = TypeVar("T")

NORMAL, REPLACING, DELETING, DESTROYING = range(4)
"""Who asks for space: what does not grow may use a part of the reserve, what removes more than it
replaces a larger one, and destroying all of it."""

_SMALL_RUN = 64
_LARGE_RUN = 256
_LONGEST_RUN = 1024
"""Blocks of a run that is taken for large records where it is there, though none so long is looked
for. Of nodes it would leave more in pieces."""
_SHORTEST_LOG_RUN = 16
"""Blocks of the shortest run in which the log goes on."""
_GROW_STEP = 256
_MANY_RUNS = 4096
"""More are not counted to find a size of records: see `likely_runs`."""
_HOLE = 256
"""Blocks of the shortest free run that is punched out of the file: holes cost the host time, both
when they are made and when they are filled again."""
_FULL = 0.68
_SLACK = 2048
"""A growing image grows, rather than fill small gaps, while more of it than this part is in use,
but for some blocks that make small images quick."""


class _OfMap(Generic[T]):
    """An attribute of the map: an ordinary one of the space, too, once the map is there."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, space: Space, owner: type[Space]) -> T:
        found: T = getattr(space.map, self._name)
        setattr(space, self._name, found)  # goes before this from now on
        return found


class Space:
    """The allocator of one store.

    `limit` is the number of blocks that the image may have, or 0 where it grows as needed. All
    blocks are free but those that are never handed out, or as the map has it that `read_later`
    gives.
    """

    bitmap = _OfMap[Bitmap]("bitmap")
    """The blocks of the map."""
    shared = _OfMap[dict[int, int]]("shared")
    """The counts of the map that are two and more."""

    def __init__(
        self, device: Device, block_size: int, total: int, limit: int, copies: int = 1
    ) -> None:
        self.device = device
        self.block_size = block_size
        self.limit = limit
        self.copies = copies
        """Of each node."""
        self._total = total
        """Blocks of the image, while its map is not there."""
        self._map: SpaceMap | None = None
        self._first: dict[str, SpaceMap] = {}
        """The map that was read first, which is never another one again."""
        self._read_map: Callable[[], SpaceMap] | None = None
        self.unseen: deque[tuple[int, bytes]] = deque()
        self.seen: deque[tuple[int, bytes]] = deque()
        self.young: deque[tuple[int, bytes]] = deque()
        self.retired: deque[tuple[int, bytes]] = deque()
        self.log_runs: list[tuple[int, int]] = []
        """(first block, blocks) of what is free, and kept for the log; set in the bitmap."""
        self.log_ends: list[tuple[int, int]] = []
        """What is left of runs that the log has filled, and too short to go on in. They wait for
        the log to be retired, and are one run with it again."""
        self._dying = Bitmap(0, limits.GROUP_BLOCKS)
        """What waits in the queues."""
        self.purpose = NORMAL
        self.refused = False
        """Whether the transaction in progress was refused space. It may have placed something that
        nothing refers to, and cannot commit any more."""
        self.freeing = 0
        """Blocks that the transaction in progress frees; see Transaction.prepare_space."""
        self.node_blocks = 1
        """Blocks of a full node."""
        self.relieve: Callable[[], object] = object
        """Makes reusable at once what only waits to be durable."""
        self._near = 0
        self._near_log = 0
        self._longest = _LARGE_RUN
        """The longest run that is looked for: less once there was none, and more with each
        transaction. A shorter one that is found is taken as long as it is."""

    # --- the map --------------------------------------------------------------------------------

    def read_later(self, total: int, read: Callable[[], SpaceMap]) -> None:
        """Have the map of an image of `total` blocks read once it is needed."""
        self._total, self._read_map = total, read

    def _empty_map(self) -> SpaceMap:
        found = SpaceMap(self._total)
        for start, length in self.fixed():
            found.bitmap.set(start, length)
        return found

    @property
    def is_read(self) -> bool:
        """Whether the map is there: nothing has changed it where it is not."""
        return self._map is not None

    @property
    def map(self) -> SpaceMap:
        """Which blocks are in use, what waits to be free among them. It is read when it is first
        asked for; raises CorruptionError or DeviceError where it cannot be."""
        known = self._map
        return self._first_map() if known is None else known

    def _first_map(self) -> SpaceMap:
        # No lock: a signal handler that closes the store may come in the midst of reading, and a
        # fork. Of two that read at once, the first one's is the map; it may have been changed
        # before the other is done, which must not be taken, and may have failed for it.
        try:
            found = self._empty_map() if self._read_map is None else self._read_map()
        except Exception:
            if not self._first:
                raise
        else:
            self._first.setdefault("map", found)
        self._map = self._first["map"]
        self._read_map = None
        return self._map

    def fixed(self) -> Iterator[tuple[int, int]]:
        """(block, blocks) of what has its place: superblocks, block 0 with the first of them, and
        copies of the records that they lead to."""
        yield 0, limits.SUPERBLOCK_SLOTS
        yield limits.SECOND_PLACE_BLOCK, limits.SUPERBLOCK_SLOTS
        if self.copies == 2:
            yield limits.RECORD_COPIES_BLOCK, limits.SUPERBLOCK_SLOTS

    @property
    def total(self) -> int:
        """Blocks of the image as it is."""
        known = self._map
        return self._total if known is None else known.bitmap.size

    @property
    def used(self) -> int:
        """Blocks that are not free. The map counts: no interrupt can come between the two."""
        return self.bitmap.used

    @property
    def pending_blocks(self) -> int:
        """Blocks that wait to be free."""
        return self._dying.used

    @property
    def reserve(self) -> int:
        """Blocks kept back in an image of limited size, so that deleting always works."""
        least = max(64, 16 * self.node_blocks)
        return self.copies * max(least, min(4096, self.limit // 16)) if self.limit else 0

    @property
    def free(self) -> int:
        """Blocks that could be handed out now, if the image grew to its limit."""
        return (self.limit or self.total) - self.used

    def begin(self) -> None:
        """A transaction begins. Raises CorruptionError or DeviceError where there is no map."""
        _ = self.bitmap
        self.purpose = NORMAL
        self.freeing = 0
        self.refused = False
        self._longest = min(_LARGE_RUN, 2 * self._longest)

    @contextlib.contextmanager
    def removing(self) -> Iterator[None]:
        """What is stored inside gives back more than it takes: it may use the reserve."""
        before, self.purpose = self.purpose, DELETING
        try:
            yield
        finally:
            self.purpose = before

    # --- handing out ----------------------------------------------------------------------------

    def take_run(self, minimum: int, written: int, *, log: bool = False) -> tuple[int, int]:
        """(first block, blocks) of a free run of at least `minimum` blocks, now in use.

        Runs are as long as what the transaction has `written` (in bytes) so far suggests, or long
        where the `log` goes on in them for many commits. Raises OutOfSpaceError.
        """
        run, rest = self._next_log_run(minimum) if log else (None, [])
        if run is not None:
            try:
                self.log_runs = rest
                self._near_log = sum(run)
                self.bitmap.set(*run)  # free at the last checkpoint: its groups change now
                return run
            except BaseException:  # an interrupt: nobody knows of the run
                self.log_runs = rest
                self.give_back(*run)
                raise
        for make_room in (self.release_log, self.relieve):
            try:
                return self._take_free(minimum, written, log)
            except OutOfSpaceError:
                make_room()
                self.refused = False
        self.release_log()
        return self._take_free(minimum, written, log)

    def _take_free(self, minimum: int, written: int, log: bool) -> tuple[int, int]:
        most = _LARGE_RUN
        if minimum * self.block_size >= limits.THROUGH:
            most = max(most, min(_LONGEST_RUN, self.free // 8))
        wanted = max(minimum, min(most, max(_SMALL_RUN, written // self.block_size)))
        if self.limit:
            spare = self.free - self._floor
            if spare < minimum:
                raise self._full()
            wanted = min(wanted, spare)
        goal = max(minimum, min(_SMALL_RUN if log else self._longest, wanted))
        if self.free < 2 * self.reserve:  # runs are left to what needs them
            goal = minimum
        start, length = self.bitmap.search(self._near, goal)
        if not length and (log or self._filled):
            with contextlib.suppress(OutOfSpaceError):  # of the host; smaller runs may do
                start, length = self._grow(goal, written, log=log)
        while not length and goal > minimum:
            self._longest = goal = max(minimum, goal // 2)
            start, length = self.bitmap.search(self._near, goal)
        if not length:
            start, length = self._grow(minimum, written, log=log)
        if not length:
            raise self._full()
        length = self.bitmap.next_set(start + length, start + max(length, wanted)) - start
        if log:
            length = self._write_log_ahead(start, length, minimum)
        try:
            self.bitmap.set(start, length)
            self._near = start + length
            return start, length
        except BaseException:  # an interrupt: nobody knows of the run
            self.bitmap.clear(start, length)
            raise

    def _next_log_run(self, minimum: int) -> tuple[tuple[int, int] | None, list[tuple[int, int]]]:
        """A run of at least `minimum` blocks out of what is kept for the log, if there is one, and
        what is left of that.

        The log goes round and round in it: what it left last, to which `rewind` may lead back, is
        overwritten last.
        """
        near = self._near_log
        parts = [
            part for start, length in sorted(self.log_runs) for part in _parts(start, length, near)
        ]
        fit = [part for part in parts if part[1] >= minimum]
        run = next((part for part in fit if part[0] >= near), fit[0] if fit else None)
        return run, [part for part in parts if part != run]

    def take_twin_run(
        self, minimum: int, written: int, block: int, *, log: bool = False
    ) -> tuple[int, int]:
        """(first block, blocks) of a free run, now in use, for the second copies of what is placed
        at `block` and behind: in another allocation group, or as far away as free space allows.
        One that is for the log is allocated by the host.

        What only deletes has to go on where there is none: (0, 0). Else raises OutOfSpaceError.
        """
        refusal: OutOfSpaceError | None = None
        for make_room in (self.release_log, self.relieve, object):
            found = 0, 0
            try:
                found = self._take_twin(minimum, written, block, log)
                if found[1]:
                    return found
            except OutOfSpaceError as error:  # of the host
                refusal = error
            except BaseException:  # an interrupt: nobody knows of the run
                self.give_back(*found)
                raise
            make_room()
        if self.purpose in (NORMAL, REPLACING):
            raise refusal or self._full()
        return 0, 0

    def _take_twin(self, minimum: int, written: int, block: int, log: bool) -> tuple[int, int]:
        wanted = max(minimum, min(_LARGE_RUN, max(_SMALL_RUN, written // self.block_size)))
        if self.limit:
            spare = self.free - self._floor
            if spare < minimum:
                return 0, 0
            wanted = min(wanted, spare)
        goal = max(minimum, min(self._longest, wanted))
        if self.free < 2 * self.reserve:  # runs are left to what needs them
            goal = minimum
        apart = min(limits.GROUP_BLOCKS * 3 // 2, self.total // 2)
        start = self._search_apart(block, goal, apart)
        if not start and self._filled:
            start = self._grow_apart(block, goal, apart)
        while not start and goal > minimum:
            goal = max(minimum, goal // 2)
            start = self._search_apart(block, goal, apart)
        start = start or self._grow_apart(block, goal, apart)
        while not start and apart > self.node_blocks:
            apart = max(self.node_blocks, apart // 2)
            start = self._search_apart(block, goal, apart)
        if not start:
            return 0, 0
        length = self.bitmap.next_set(start + goal, start + max(goal, wanted)) - start
        if log:
            length = self._write_log_ahead(start, length, minimum)
        try:
            self.bitmap.set(start, length)
            return start, length
        except BaseException:  # an interrupt: nobody knows of the run
            self.bitmap.clear(start, length)
            raise

    def _search_apart(self, block: int, goal: int, apart: int) -> int:
        """The first block of a free run of `goal` blocks, `apart` from `block` at least; 0 where
        there is none."""
        reach = limits.MAX_TWIN - _LARGE_RUN
        for low, high in (
            (block + apart, block + reach),
            (max(1, block - reach), block - apart - goal),
        ):
            if low <= high:
                start, length = self.bitmap.search(low, goal)
                if length and low <= start <= high:
                    return start
        return 0

    def _grow_apart(self, block: int, goal: int, apart: int) -> int:
        """The first block of fresh space at the end, or 0. What is left free between the two is
        for the first copies to come."""
        end = self.total - self.slack_at_end()
        start = max(end, block + apart)
        if self.limit:
            start = max(end, min(start, self.limit - goal))
        if start - block > limits.MAX_TWIN - _LARGE_RUN:
            return 0
        try:
            self._grow(start + goal - end, 0)
        except OutOfSpaceError:  # of the host; a place that is nearer may do
            return 0
        return start if self.total >= start + goal else 0

    @property
    def _floor(self) -> int:
        """Free blocks that are not for who asks."""
        reserve = self.reserve
        return (reserve, reserve // 2, reserve // 4, 0)[self.purpose]

    @property
    def _filled(self) -> bool:
        """Whether so much is in use that a growing image does not fill small gaps."""
        live = self.used - self.pending_blocks - self.freeing
        return live > _FULL * (self.total - _SLACK)

    def has_runs(self, blocks: int, count: int = 1) -> bool:
        """Whether so many runs of `blocks` are to be had. Always true where the image grows."""
        if not self.limit:
            return True
        found = (self.limit - self.total) // blocks
        if found < count == 1:
            return bool(self.bitmap.search(self._near, blocks)[1])
        at = 0
        while found < count:
            at, length = self.bitmap.find(at, self.total, blocks)
            if length < blocks:
                return False
            at += blocks
            found += 1
        return True

    def likely_runs(self, blocks: int) -> int:
        """How many runs of `blocks` a value of unknown size may come to need: what takes most of
        the free space, but not so many that to count them takes long."""
        return max(1, min(_MANY_RUNS, (self.free - self._floor) * 3 // 4 // blocks))

    def _grow(self, blocks: int, written: int, *, log: bool = False) -> tuple[int, int]:
        """A run of blocks at the end, most of them fresh; (0, 0) where the limit is reached.

        A large transaction grows it in longer steps the longer it becomes, as each has to wait for
        the writes that are under way. The log needs no more than it asks for: trees would fill the
        rest, and leave it in pieces. What was left over of the step before comes first.
        """
        old = self.total
        start = old - min(self.slack_at_end(), blocks)
        likely = max(old // 32, written // self.block_size // 4)
        new = start + (blocks if log else max(blocks, _GROW_STEP, min(likely, 8192)))
        if self.limit:
            new = min(new, self.limit)
        if new - start < blocks:
            return 0, 0
        if self.device.size() < new * self.block_size:
            self.device.resize(new * self.block_size)
        self.bitmap.resize(max(old, new))
        return start, blocks

    def write_ahead(self, start: int, length: int) -> None:
        """Have a run written with zeros where the host has not allocated it yet: for the small
        transactions to come, whose flushes then cost half. Where the host has no room, that shows
        here, and fails one transaction: a record that could not be written would end all."""
        at, size = start * self.block_size, length * self.block_size
        if self.device.sparse(at, size):
            self.device.write(at, bytes(size))

    def _write_log_ahead(self, start: int, length: int, minimum: int) -> int:
        """`write_ahead` of as much of a run as the host has room for; how many blocks."""
        try:
            self.write_ahead(start, length)
        except OutOfSpaceError:
            length = minimum
            self.write_ahead(start, length)
        return length

    def _full(self) -> OutOfSpaceError:
        self.refused = True
        size = (self.limit or self.total) * self.block_size
        return OutOfSpaceError(
            f"the image is full: {self.free * self.block_size:,} of {size:,} bytes are free, "
            f"{self.reserve * self.block_size:,} of them reserved for deleting; "
            "delete data or destroy snapshots, then try again"
        )

    def give_back(self, start: int, length: int) -> None:
        """Blocks that were taken and not used, or used by a transaction that is abandoned."""
        self.bitmap.clear(start, length)

    # --- commit ---------------------------------------------------------------------------------

    def defer(self, txid: int, unseen: bytes, seen: bytes = b"", young: bytes = b"") -> None:
        """Blocks that transaction `txid` freed: those that no open reader can see, those that one
        may see, and those written by transactions that were not flushed when this one began."""
        self._dying.resize(self.total)
        for queue, freed in ((self.unseen, unseen), (self.seen, seen), (self.young, young)):
            if freed:
                self._dying.set_packed(freed)
                queue.append((txid, freed))

    def retire(self, txid: int, blocks: Iterable[tuple[int, int]]) -> None:
        """Blocks of the log before the checkpoint that transaction `txid` made. It can be done
        again, should something interrupt."""
        packed = pack_runs(_joined(blocks))
        self._dying.resize(self.total)
        self._dying.set_packed(packed)
        if not self.retired or self.retired[-1][0] != txid:
            self.retired.append((txid, packed))

    def keep_for_log(self, start: int, length: int) -> None:
        """What is left of a run that was taken for the log. Trees that fill it would leave it in
        pieces, and the log would need another run, each time at the end of the image."""
        # One assignment each, so that no interrupt comes between this and the caller's next step.
        if length >= _SHORTEST_LOG_RUN:
            self.log_runs = [*self.log_runs, (start, length)]
        elif length:
            self.log_ends = [*self.log_ends, (start, length)]

    @property
    def kept(self) -> list[tuple[int, int]]:
        """(block, blocks) of all that is kept for the log."""
        return [*self.log_runs, *self.log_ends]

    def release_log(self) -> None:
        """Keep nothing for the log."""
        kept = self.kept
        try:
            self._forget_log(kept)
        except BaseException:
            self._forget_log(kept)  # an interrupt: what is free must not be kept as well
            raise

    def _forget_log(self, kept: list[tuple[int, int]]) -> None:
        self.log_runs, self.log_ends = [], []
        for run in kept:
            self.give_back(*run)

    def _keep_for_log(self, durable: int) -> None:
        while self.retired and self.retired[0][0] <= durable:
            _, packed = self.retired[0]
            runs: list[tuple[int, int]] = []
            kept = 0
            for start, length in _joined([*self.log_runs, *packed_runs(packed)]):
                enough = kept >= 2 * limits.LOG_BYTES // self.block_size
                if length >= _SHORTEST_LOG_RUN and not enough:
                    runs.append((start, length))
                    kept += length
                else:
                    self.give_back(start, length)
            # Up to the last step all of this may be done again, should an interrupt come.
            self._dying.clear_packed(packed)
            self.log_runs = runs
            self.retired.popleft()

    def release(self, durable: int, proven: int, oldest: int) -> None:
        """Make reusable what transactions up to `durable` freed (`proven` for what is young),
        unless a reader older than that may see it: `oldest` is the oldest reader's version."""
        self._keep_for_log(durable)
        for queue, limit in (
            (self.unseen, durable),
            (self.seen, min(durable, oldest)),
            (self.young, min(proven, oldest)),
        ):
            while queue and queue[0][0] <= limit:
                _, freed = queue[0]
                # All of this is done again if an interrupt comes before `popleft`.
                self.bitmap.clear_packed(freed)
                self._dying.clear_packed(freed)
                queue.popleft()

    def in_use(self, block: int) -> bool:
        """Whether a block is neither free nor waiting to be."""
        return self.bitmap.test(block) and not self._dying.test(block)

    def settled(self) -> Bitmap:
        """The map as it will be once everything that waits is free."""
        settled = self.bitmap.copy()
        for packed in self.waiting():
            settled.clear_packed(packed)
        return settled

    def waiting(self) -> Iterator[bytes]:
        """What is free for good and not reusable yet, or not for everything."""
        for queue in (self.unseen, self.seen, self.young, self.retired):
            for _, freed in queue:
                yield freed
        yield pack_runs(self.kept)

    # --- giving back to the host ----------------------------------------------------------------

    def long_free_runs(self) -> Iterator[tuple[int, int]]:
        """(first block, blocks) of each free run that is worth a hole in the file."""
        at = self.bitmap.next_clear(0)
        while at < self.total:
            stop = self.bitmap.next_set(at)
            if stop - at >= _HOLE:
                yield at, stop - at
            at = self.bitmap.next_clear(stop)

    def slack_at_end(self) -> int:
        """Free blocks behind the last one in use."""
        last = self.total
        while last > limits.MIN_IMAGE_BLOCKS and not self.bitmap.test(last - 1):
            last -= 1
        return self.total - last

    def shrink(self) -> None:
        """Forget the free blocks at the end, all but a few."""
        last = self.total - self.slack_at_end()
        self.bitmap.resize(min(self.total, max(limits.MIN_IMAGE_BLOCKS, last + _SMALL_RUN)))

    # --- checkpoint -----------------------------------------------------------------------------

    def checkpoint_groups(
        self, changed: Iterable[int], freed: Iterable[bytes], counts: dict[int, int]
    ) -> Iterator[tuple[int, bytes]]:
        """(group, stored form) of each group in `changed` and each that has something pending.

        `freed` and `counts` are those of the transaction that makes the checkpoint.
        """
        settled = self.settled()
        for packed in freed:
            settled.clear_packed(packed)
        return self.map.stored_groups(settled, changed, counts)


def _parts(start: int, length: int, at: int) -> list[tuple[int, int]]:
    """A run as two where block `at` is inside it."""
    if start < at < start + length:
        return [(start, at - start), (at, start + length - at)]
    return [(start, length)]


def _joined(runs: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Runs that follow each other, or overlap, as one, in order."""
    start = end = 0
    for first, blocks in sorted(runs):
        if first > end:
            if end > start:
                yield start, end - start
            start = first
        end = max(end, first + blocks)
    if end > start:
        yield start, end - start


def packed_runs(packed: bytes) -> Iterator[tuple[int, int]]:
    """(block, blocks) of words `block << 16 | blocks`."""
    for (word,) in _WORD.iter_unpack(packed):
        yield word >> 16, word & 0xFFFF


def pack_runs(runs: Iterable[tuple[int, int]]) -> bytes:
    """The inverse of `packed_runs`."""
    return b"".join(
        _WORD.pack((start + i) << 16 | min(0xFFFF, length - i))
        for start, length in runs
        for i in range(0, length, 0xFFFF)
    )
