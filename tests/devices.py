"""Devices that go wrong on purpose, in the place of the file: the seam of most tests below."""

from __future__ import annotations

import errno

from cowfs.device import MemoryDevice
from cowfs.errors import OutOfSpaceError

_PAGE = 4096


def copy_device(source: MemoryDevice) -> MemoryDevice:
    """Another device with the same bytes, as after the machine stopped right now."""
    return device_of(source.read(0, source.size()))


def device_of(image: bytes | bytearray) -> MemoryDevice:
    """A device that holds an image."""
    device = MemoryDevice(len(image))
    device.write(0, image)
    return device


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


class ThinDevice(MemoryDevice):
    """A device on a host that allocates pages when they are written, and has `room` for so many."""

    def __init__(self, room: int) -> None:
        super().__init__(name="<thin>")
        self.room = room
        self._pages: set[int] = set()

    def allocated(self) -> int:
        return len(self._pages) * _PAGE

    def host_room(self) -> int:
        return (self.room - len(self._pages)) * _PAGE

    def sparse(self, offset: int, length: int) -> bool:
        return not self._pages.issuperset(_pages(offset, length))

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        if len(self._pages.union(_pages(offset, len(data)))) > self.room:
            raise OutOfSpaceError(f"{self.name}: the disk under the image is full")
        self._pages.update(_pages(offset, len(data)))
        super().write(offset, data)


def _pages(offset: int, length: int) -> range:
    return range(offset // _PAGE, -(-(offset + length) // _PAGE))


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
