"""What a power cut may take: of everything asked for since the last flush, any part.

The log falls into epochs, from one flush to the next. What stands before an epoch is there. Of its
operations each may be missing, whole or in single sectors of 512 bytes, and where a sector was on
its way there may be garbage. Two writes to one place may arrive in any order: the second of them
missing is the same as the first of them coming last, so order needs no search of its own. Discarded
ranges read as they did before, as zeros, or as garbage.

Cuts are taken at the end of an epoch, before its flush returns. An earlier cut is one at which the
rest is missing; and by the end most is acknowledged, so the verdict is the strictest there.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from cowfs import limits
from cowfs.format import RECORD_MAGIC

from .device import Change, Discard, Flush, Mark, Operation, PowerCut, Resize, Write, apply
from .image import Image

SECTOR = 512
"""Bytes that a disk writes whole or not at all."""
_GARBAGE = random.Random("garbage").randbytes(SECTOR)
_BLOCK = limits.DEFAULT_BLOCK_SIZE
_BLOCK_SECTORS = _BLOCK // SECTOR

_EXHAUSTIVE = 4
"""Operations of an epoch up to which every subset of them is tried."""


class Left(Enum):
    """What is in the place of something that did not arrive."""

    OLD = "old"
    ZERO = "zero"
    GARBAGE = "garbage"

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True, slots=True)
class Loss:
    """What became of operation `number` of an epoch: all of it is lost, or some `sectors`."""

    number: int
    left: Left = Left.OLD
    sectors: range | tuple[int, ...] | None = None


Losses = tuple[Loss, ...]


@dataclass(slots=True)
class Epoch:
    """What was asked for between two flushes, and which states may be found if it is cut short."""

    base: Image
    """Everything before."""
    oldest: int
    """The newest state that was acknowledged as durable."""
    newest: int = 0
    """The one in flight; or, where there is none, the newest."""
    changes: list[Change] = field(default_factory=list)

    def image(self, losses: Losses) -> Image:
        """The image after a power cut that took `losses`."""
        image = self.base.copy()
        lost = {loss.number: loss for loss in losses}
        for number, change in enumerate(self.changes):
            loss = lost.get(number)
            if loss is None:
                apply(image, change)
            else:
                _apply_part(image, change, loss)
        return image

    def late_writes(self, losses: Losses) -> list[Write]:
        """What may be there after all, when the image was opened as of what came before: the blocks
        that `losses` took are free then, so the next transaction may put anything there, the very
        same bytes too. Records and superblocks are left out: their places are not free."""
        late: list[Write] = []
        lost = {loss.number for loss in losses}
        for number, change in enumerate(self.changes):
            if number not in lost or not isinstance(change, Write) or _superblock_place(change):
                continue
            later = [(c.offset, c.end) for c in self.changes[number + 1 :] if isinstance(c, Write)]
            for at in range(0, len(change.data), _BLOCK):
                write = Write(change.offset + at, change.data[at : at + _BLOCK])
                overwritten = any(a < write.end and write.offset < b for a, b in later)
                if not overwritten and not write.data.startswith(RECORD_MAGIC):
                    late.append(write)
        return late


def epochs(log: list[Operation], base: Image, states: int) -> Iterator[Epoch]:
    """The epochs of a log that begins with a mark on `base`, of a run that knew so many states."""
    image = base.copy()
    epoch = Epoch(image, 0)
    reached = oldest = 0
    for operation in log:
        match operation:
            case Flush() | PowerCut():
                epoch.oldest = oldest
                epoch.newest = min(reached + 1, states - 1)
                yield epoch
                image, late = image.copy(), epoch.changes
                if isinstance(operation, PowerCut):
                    image, late = operation.image, []
                else:
                    done = len(late) - operation.late
                    for change in late[:done]:
                        apply(image, change)
                    late = late[done:]
                epoch = Epoch(image, oldest, changes=late)
            case Mark(state, durable):
                reached = state
                oldest = state if durable else oldest
            case _:
                epoch.changes.append(operation)
    epoch.oldest, epoch.newest = oldest, reached
    yield epoch


def power_cuts(epoch: Epoch, chance: random.Random, samples: int) -> Iterator[Losses]:
    """Power cuts in an epoch, the likeliest to hurt first: whole operations missing, then about
    `samples` of everything else."""
    numbers = range(len(epoch.changes))
    yield ()
    if len(numbers) <= _EXHAUSTIVE:
        for size in numbers:
            for lost in itertools.combinations(numbers, size + 1):
                yield tuple(map(Loss, lost))
    else:
        yield from _corners(epoch)
        for _ in range(samples):
            missing = chance.random()
            yield tuple(Loss(number) for number in numbers if chance.random() < missing)
    for number in numbers:
        if isinstance(epoch.changes[number], Discard):
            yield (Loss(number, Left.ZERO),)
            yield (Loss(number, Left.OLD),)
    if any(isinstance(change, Write) for change in epoch.changes):
        for _ in range(samples):
            yield random_cut(epoch, chance)


def _corners(epoch: Epoch) -> Iterator[Losses]:
    """Of a longer epoch: what came first without the rest, and the rest without it; each operation
    missing, each alone; the superblocks without the rest, the rest without them, and one of their
    two places without the other; all but the growth of the file."""
    numbers = range(len(epoch.changes))
    for number in numbers:
        yield tuple(map(Loss, numbers[number:]))
        yield tuple(map(Loss, numbers[: number + 1]))
        yield (Loss(number),)
        yield tuple(Loss(other) for other in numbers if other != number)
    yield tuple(Loss(number) for number in numbers if _grows(epoch.changes[number]))
    places = [_superblock_place(change) for change in epoch.changes]
    if any(places):
        for kept in ((0,), (1, 2), (0, 1), (0, 2)):
            yield tuple(Loss(number) for number in numbers if places[number] not in kept)


def _grows(change: Change) -> bool:
    """Whether an operation makes the file longer, or fills what is new with zeros."""
    return isinstance(change, Resize) or (isinstance(change, Write) and not any(change.data))


def _superblock_place(change: Change) -> int:
    """1 or 2 where an operation writes a superblock in that place, else 0."""
    if isinstance(change, Write):
        block = change.offset // _BLOCK
        for place, first in ((1, 0), (2, limits.SECOND_PLACE_BLOCK)):
            if first <= block < first + limits.SUPERBLOCK_SLOTS:
                return place
    return 0


def random_cut(epoch: Epoch, chance: random.Random) -> Losses:
    """A power cut that tears one write, or several, and may take other operations as well."""
    writes = [n for n, change in enumerate(epoch.changes) if isinstance(change, Write)]
    torn = {chance.choice((writes[-1], chance.choice(writes)))} if writes else set()
    if chance.random() < 0.2:
        torn.update(n for n in writes if chance.random() < 0.7)
    missing = chance.choice((0.0, 0.0, 0.1, 0.5))
    losses = []
    for number, change in enumerate(epoch.changes):
        if number in torn and isinstance(change, Write):
            left = chance.choice((Left.OLD, Left.OLD, Left.GARBAGE))
            sectors = _torn_sectors(-(-len(change.data) // SECTOR), chance)
            losses.append(Loss(number, left, sectors))
        elif chance.random() < missing:
            discarded = isinstance(change, Discard)
            losses.append(
                Loss(number, chance.choice((Left.OLD, Left.ZERO)) if discarded else Left.OLD)
            )
    return tuple(losses)


def _torn_sectors(count: int, chance: random.Random) -> range | tuple[int, ...]:
    """Some sectors of a write of `count`: where blocks, records and checksums begin and end more
    often than elsewhere."""
    blocks = -(-count // _BLOCK_SECTORS)
    match chance.randrange(8):
        case 0:
            return range(1)
        case 1:
            return range(count - 1, count)
        case 2:  # the record of a commit without its blocks
            return range(min(_BLOCK_SECTORS, count - 1), count)
        case 3:  # its blocks without the record
            return range(min(_BLOCK_SECTORS, count))
        case 4:
            first = chance.randrange(blocks) * _BLOCK_SECTORS
            return range(first, min(count, first + _BLOCK_SECTORS))
        case 5:
            missing = chance.choice((0.1, 0.5, 0.9))
            return tuple(n for n in range(count) if chance.random() < missing)
        case 6:
            return range(chance.randrange(count), count)
        case _:
            only = chance.randrange(count)
            return range(only, only + 1)


def _apply_part(image: Image, change: Change, loss: Loss) -> None:
    """Do what is left of an operation."""
    if isinstance(change, Discard) and loss.left is Left.ZERO:
        length = max(0, min(change.length, image.size - change.offset))
        image.write(change.offset, bytes(length))
    if not isinstance(change, Write) or (loss.sectors is None and loss.left is Left.OLD):
        return
    data = bytearray(change.data)
    old = image.read(change.offset, len(data)).ljust(len(data), b"\0")
    for sector in range(-(-len(data) // SECTOR)) if loss.sectors is None else loss.sectors:
        at, end = sector * SECTOR, min(len(data), (sector + 1) * SECTOR)
        kept = {Left.OLD: old[at:end], Left.ZERO: bytes(SECTOR), Left.GARBAGE: _GARBAGE}[loss.left]
        data[at:end] = kept[: end - at]
    image.write(change.offset, data)
