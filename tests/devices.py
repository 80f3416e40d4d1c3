"""Devices that go wrong on purpose, in the place of the file: the seam of most tests below."""

from __future__ import annotations

import errno

from cowfs.device import MemoryDevice


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
