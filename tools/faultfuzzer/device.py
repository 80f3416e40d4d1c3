"""A device on which some I/Os go wrong: each kind of fault, at any I/O, alone or in a burst.

What has arrived when an error is raised depends on the kind: nothing, a part of it, or everything.
As the device logs what arrived, a power cut may follow at any time.
"""

from __future__ import annotations

import errno
from collections import Counter
from dataclasses import dataclass
from enum import Enum

from cowfs.errors import OutOfSpaceError
from crashfuzzer.device import RecordingDevice
from crashfuzzer.losses import SECTOR
from crashfuzzer.threads import Turns, in_thread

_BLOCK = 4096


class Kind(Enum):
    """What goes wrong."""

    EIO = "EIO"
    """Nothing arrives."""
    LATE = "EIO, all done"
    """Everything arrives, and an error is reported all the same."""
    SHORT = "short"
    """A read gives half of it; half of a write arrives, and then EIO."""
    ENOSPC = "ENOSPC"
    """Half of a write arrives, and then the host is full."""
    FULL = "host full"
    """The same, of writes to what the host has not allocated yet: all others succeed."""
    INTERRUPT = "interrupt"
    """KeyboardInterrupt, when it is done."""
    MEMORY = "no memory"
    """MemoryError, before anything is done."""

    def __repr__(self) -> str:
        return str(self)


_WRITING = tuple(kind for kind in Kind if kind is not Kind.FULL)
KINDS: dict[str, tuple[Kind, ...]] = {
    "read": (Kind.EIO, Kind.SHORT, Kind.INTERRUPT, Kind.MEMORY),
    "write": _WRITING,
    "write_behind": _WRITING,
    "first write": tuple(Kind),
    "first write_behind": tuple(Kind),
    "settle": (Kind.INTERRUPT,),
    "resize": (Kind.EIO, Kind.LATE, Kind.ENOSPC, Kind.INTERRUPT, Kind.MEMORY),
    "discard": (Kind.EIO, Kind.INTERRUPT, Kind.MEMORY),
    "flush": (Kind.EIO, Kind.LATE, Kind.ENOSPC, Kind.INTERRUPT, Kind.MEMORY),
}
"""What may go wrong with each operation."""


@dataclass(frozen=True, slots=True)
class Fault:
    """From I/O number `first` on, `count` of them go wrong, as far as they can in this way."""

    kind: Kind
    first: int
    count: int = 1


class FaultyDevice(RecordingDevice):
    """Goes wrong where `fault` says, while it is `armed`; only then I/Os are counted."""

    def __init__(self, turns: Turns | None = None) -> None:
        super().__init__(turns=turns)
        self.fault: Fault | None = None
        self.armed = False
        self.calls: list[str] = []
        """The operations so far, by their names."""
        self.injected: Counter[tuple[str, Kind]] = Counter()
        self._behind: Exception | None = None
        """The error of something that was written behind."""
        self._holes: set[int] = set()
        """Numbers of the blocks that the host has not allocated."""

    def sparse(self, offset: int, length: int) -> bool:
        return not self._holes.isdisjoint(_blocks(offset, length))

    def _fails(self, operation: str) -> Kind | None:
        """How the I/O that is asked for goes wrong."""
        if not self.armed:
            return None
        number = len(self.calls)
        self.calls.append(operation)
        fault = self.fault
        if (
            fault is None
            or not fault.first <= number < fault.first + fault.count
            or fault.kind not in KINDS[operation]
            or (fault.kind is Kind.INTERRUPT and in_thread())  # Ctrl-C is for the program
        ):
            return None
        self.injected[operation, fault.kind] += 1
        return fault.kind

    def read(self, offset: int, length: int) -> bytes:
        data = super().read(offset, length)
        kind = self._fails("read")
        if kind is Kind.SHORT:
            return data[: length // 2]
        _raise(kind)
        return data

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        kind = self._fails(self._named("write", offset, len(data)))
        self._write_part(offset, data, kind)
        _raise(kind)

    def write_behind(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self._raise_behind()
        kind = self._fails(self._named("write_behind", offset, len(data)))
        self._write_part(offset, data, kind)
        try:
            _raise(kind)
        except OSError as error:
            self._behind = error

    def settle(self) -> None:
        _raise(self._fails("settle"))
        self._raise_behind()

    def resize(self, size: int) -> None:
        kind = self._fails("resize")
        if kind in (None, Kind.LATE, Kind.INTERRUPT):
            self._holes.update(_blocks(self.size(), size - self.size()))
            self._holes.difference_update(_blocks(size, self.size() - size))
            super().resize(size)
        _raise(kind)

    def discard(self, offset: int, length: int) -> None:
        kind = self._fails("discard")
        if kind in (None, Kind.INTERRUPT):
            self._holes.update(_blocks(offset, length))
            super().discard(offset, length)
        _raise(kind)

    def flush(self) -> None:
        kind = self._fails("flush")
        if kind in (None, Kind.LATE, Kind.INTERRUPT):
            super().flush()
        _raise(kind, full=OSError(errno.ENOSPC, "no space left under the image"))

    def _write_part(
        self, offset: int, data: bytes | bytearray | memoryview, kind: Kind | None
    ) -> None:
        if kind in (Kind.EIO, Kind.MEMORY):
            return
        if kind in (Kind.SHORT, Kind.ENOSPC, Kind.FULL):
            data = memoryview(data)[: len(data) // 2 // SECTOR * SECTOR]
        if kind is not Kind.FULL:
            self._holes.difference_update(_blocks(offset, len(data)))
        super().write(offset, data)

    def _named(self, operation: str, offset: int, length: int) -> str:
        return f"first {operation}" if self.sparse(offset, length) else operation

    def _raise_behind(self) -> None:
        if self._behind is not None:
            error, self._behind = self._behind, None
            raise error


def _blocks(offset: int, length: int) -> range:
    """The numbers of the host's blocks in a range."""
    return range(offset // _BLOCK, -(-(offset + length) // _BLOCK))


def _raise(kind: Kind | None, full: OSError | None = None) -> None:
    """The error of a kind; `full` is that of a host that has no room."""
    match kind:
        case None:
            return
        case Kind.INTERRUPT:
            raise KeyboardInterrupt
        case Kind.MEMORY:
            raise MemoryError
        case Kind.ENOSPC | Kind.FULL:
            raise full or OutOfSpaceError("the disk under the image is full")
        case _:
            raise OSError(errno.EIO, "an I/O error was injected")
