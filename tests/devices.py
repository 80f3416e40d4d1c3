"""Devices that go wrong on purpose, in the place of the file: the seam of most tests below."""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from dataclasses import dataclass

from cowfs.device import MemoryDevice

SECTOR = 512
"""Bytes that a disk writes whole or not at all."""
GARBAGE = b"\xdb"
"""What a discarded range reads as: a device may give anything."""


@dataclass(frozen=True, slots=True)
class Write:
    """`data` went to `offset`."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Resize:
    """The device was given `size` bytes."""

    size: int


@dataclass(frozen=True, slots=True)
class Discard:
    """A range was given back to the host."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Flush:
    """Everything before this is durable."""


@dataclass(frozen=True, slots=True)
class Note:
    """A mark that a test put between the operations."""

    value: int


Op = Write | Resize | Discard | Flush | Note


def copy_device(source: MemoryDevice) -> MemoryDevice:
    """Another device with the same bytes, as after the machine stopped right now."""
    return device_of(source.read(0, source.size()))


def device_of(image: bytes | bytearray) -> MemoryDevice:
    """A device that holds an image."""
    device = MemoryDevice(len(image))
    device.write(0, image)
    return device


class RecordingDevice(MemoryDevice):
    """A device in memory that logs what is done to it, to replay any crash from the log.

    A crash keeps everything up to the last flush and any part of what was written since: whole
    operations, or single sectors of them.
    """

    def __init__(self) -> None:
        super().__init__(name="<recording>")
        self.log: list[Op] = []
        self.blocks_read = 0

    def note(self, value: int) -> None:
        """Put a mark into the log."""
        self.log.append(Note(value))

    def read(self, offset: int, length: int) -> bytes:
        self.blocks_read += -(-length // 4096)
        return super().read(offset, length)

    def resize(self, size: int) -> None:
        self.log.append(Resize(size))
        super().resize(size)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self.log.append(Write(offset, bytes(data)))
        super().write(offset, data)

    def flush(self) -> None:
        self.log.append(Flush())

    def discard(self, offset: int, length: int) -> None:
        self.log.append(Discard(offset, length))
        super().write(offset, GARBAGE * length)

    def written(self) -> int:
        """Bytes written so far."""
        return sum(len(op.data) for op in self.log if isinstance(op, Write))

    def image_after(self, count: int) -> bytearray:
        """The image when the first `count` operations of the log reached it, in order."""
        image = bytearray()
        for op in self.log[:count]:
            apply(image, op)
        return image


def apply(image: bytearray, op: Op) -> None:
    """Do to an image what an operation of the log says."""
    match op:
        case Write(offset, data):
            _extend(image, offset + len(data))
            image[offset : offset + len(data)] = data
        case Resize(size):
            del image[size:]
            _extend(image, size)
        case Discard(offset, length):
            image[offset : offset + length] = GARBAGE * length
        case _:
            pass


def _extend(image: bytearray, size: int) -> None:
    if len(image) < size:
        image.extend(bytes(size - len(image)))


@dataclass(frozen=True, slots=True)
class Crash:
    """What is left after a crash between two operations of the log."""

    image: bytearray
    done: int
    """Operations of the log that had been asked for."""
    how: str
    """What became of those that were not flushed, for the message of a failing test."""


def crashes(log: list[Op], chance: random.Random, samples: int, start: int = 0) -> Iterator[Crash]:
    """Crashes at every place of the log from `start` on.

    For each place there is one where everything asked for arrived in order, and `samples` where of
    what was not flushed some operations, or some sectors, are missing.
    """
    flushed = bytearray()  # everything up to the last flush, and nothing else
    current = bytearray()  # everything
    waiting: list[Op] = []
    for done, op in enumerate(log, 1):
        if isinstance(op, Note):
            continue
        if done > start and not waiting:
            yield Crash(bytearray(current), done - 1, "all of it arrived")
        apply(current, op)
        if isinstance(op, Flush):
            flushed = bytearray(current)
            waiting = []
            continue
        waiting.append(op)
        if done <= start:
            continue
        yield Crash(bytearray(current), done, "all of it arrived")
        for sample in range(samples):
            image = bytearray(flushed)
            how = _lose(image, waiting, chance, sample)
            yield Crash(image, done, how)
    yield Crash(bytearray(current), len(log), "all of it arrived")


def _lose(image: bytearray, waiting: list[Op], chance: random.Random, sample: int) -> str:
    """Apply a part of `waiting`; how it was chosen."""
    if sample % 2 == 0:
        kept = [i for i in range(len(waiting)) if chance.random() < 0.5]
        for i in kept:
            apply(image, waiting[i])
        return f"of {len(waiting)} operations since the flush, {kept} arrived"
    torn = chance.randrange(len(waiting))
    missing = chance.choice((0.1, 0.5, 0.9))
    for i, op in enumerate(waiting):
        if i != torn or not isinstance(op, Write):
            apply(image, op)
            continue
        for at in range(0, len(op.data), SECTOR):
            if chance.random() >= missing:
                apply(image, Write(op.offset + at, op.data[at : at + SECTOR]))
    return f"of {len(waiting)} operations since the flush, {torn} lost {missing:.0%} of its sectors"


class FailingDevice(MemoryDevice):
    """A device whose I/O fails from the `countdown`th write or flush on, until it is repaired."""

    def __init__(self) -> None:
        super().__init__(name="<failing>")
        self.countdown: int | None = None
        self.failures = 0

    def _count(self) -> None:
        if self.countdown is None:
            return
        if self.countdown == 0:
            self.failures += 1
            raise OSError(errno.EIO, "the disk is on fire")
        self.countdown -= 1

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self._count()
        super().write(offset, data)

    def flush(self) -> None:
        self._count()
        super().flush()


class LyingReader(MemoryDevice):
    """A device that gives wrong bytes for some ranges, while what is stored stays as it was."""

    def __init__(self, image: bytes | bytearray) -> None:
        super().__init__(len(image), name="<lying>")
        super().write(0, image)
        self.flips: dict[int, int] = {}

    def read(self, offset: int, length: int) -> bytes:
        data = bytearray(super().read(offset, length))
        for at, mask in self.flips.items():
            if offset <= at < offset + len(data):
                data[at - offset] ^= mask
        return bytes(data)
