"""A device in memory that logs what is done to it: all that can be known about a power cut is which
operations had been asked for, and where among them the flushes were.
"""

from __future__ import annotations

from dataclasses import dataclass

from cowfs.device import UNLIMITED

from .image import Image
from .threads import Turns

GARBAGE = b"\xdb"
"""What is in ranges that were discarded, or are free: a device may give anything."""


@dataclass(frozen=True, slots=True)
class Write:
    """`data` went to `offset`."""

    offset: int
    data: bytes

    @property
    def end(self) -> int:
        """Where the byte behind it is."""
        return self.offset + len(self.data)


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
class Scribble:
    """Every block that was free was overwritten, as transactions in flight may do."""

    ranges: tuple[tuple[int, int], ...]
    """(offset, length) of each."""


@dataclass(frozen=True, slots=True)
class Flush:
    """Everything before this is durable, but for what others wrote while it went on."""

    late: int = 0
    """The number of these: the last changes before this."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A step came to its end: state number `state` is acknowledged, as durable or not."""

    state: int
    durable: bool


@dataclass(frozen=True, slots=True)
class PowerCut:
    """The machine stopped, and this is what was left. Nothing before it is in flight any more."""

    image: Image


Change = Write | Resize | Discard | Scribble
"""What a power cut may undo."""
Operation = Change | Flush | Mark | PowerCut


def apply(image: Image, change: Change) -> None:
    """Do to an image what an operation of the log says."""
    match change:
        case Write(offset, data):
            image.write(offset, data)
        case Resize(size):
            image.resize(size)
        case Discard(offset, length):
            image.write(offset, GARBAGE * max(0, min(length, image.size - offset)))
        case Scribble(ranges):
            for offset, length in ranges:
                image.write(offset, GARBAGE * length)


class RecordingDevice:
    """A `cowfs.device.Device` in memory, with a log of all that was done to it."""

    identity: tuple[int, int] | None = None
    forked = False

    def __init__(self, image: Image | None = None, turns: Turns | None = None) -> None:
        self.name = "<recording>"
        self.turns = turns
        self.waits = turns is not None
        self.patient = False
        self.image = image or Image()
        self.log: list[Operation] = []
        self.blocks_read = 0
        """Of 4 KiB."""

    def size(self) -> int:
        return self.image.size

    def allocated(self) -> int:
        return self.image.size

    def host_room(self) -> int:
        return UNLIMITED

    def read(self, offset: int, length: int) -> bytes:
        self.blocks_read += -(-length // 4096)
        return self.image.read(offset, length)

    def sparse(self, offset: int, length: int) -> bool:
        return False

    def read_now(self, offset: int, length: int) -> bytes:
        return self.read(offset, length)

    def resize(self, size: int) -> None:
        self._change(Resize(size))

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self._change(Write(offset, bytes(data)))

    def begin_writing(self) -> None:
        pass

    def write_behind(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self.write(offset, data)

    def settle(self) -> None:
        pass

    def discard(self, offset: int, length: int) -> None:
        self._change(Discard(offset, length))

    def flush(self) -> None:
        self._take_turns()
        before = len(self.log)
        self._take_turns()
        late = [operation for operation in self.log[before:] if isinstance(operation, Change)]
        self.log.append(Flush(len(late)))

    def close(self) -> None:
        pass

    def scribble(self, ranges: tuple[tuple[int, int], ...]) -> None:
        """Put garbage into ranges that are of no use."""
        self._change(Scribble(ranges))

    def mark(self, state: int, durable: bool) -> None:
        """Note in the log that a state was reached."""
        self.log.append(Mark(state, durable))
        self._take_turns()

    def cut(self, image: Image) -> None:
        """The machine stops, and finds `image` when it starts again."""
        self.end()
        self.log.append(PowerCut(image.copy()))
        self.image = image

    def end(self) -> None:
        """The process that uses it ends."""
        if self.turns is not None:
            self.turns.end()

    def _take_turns(self) -> None:
        if self.turns is not None:
            self.turns.take()

    def _change(self, change: Change) -> None:
        self._take_turns()
        self.log.append(change)
        apply(self.image, change)
