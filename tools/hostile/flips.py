"""Every byte of small images flipped, one at a time: checksums leave no byte that could lie.

Bytes that nothing reads cannot change what is found; which these are, a device notes while the
sound image is used. All others are flipped, each by another mask. What only opening reads makes a
difference only if the store is another one after it, so mostly that is all that must be looked at.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cowfs
from cowfs import limits
from cowfs.device import MemoryDevice
from crashfuzzer.model import contents

from .images import Contents, Sample, make
from .judge import REFUSED, Wrong

STRETCH = 64
"""Bytes that are flipped, one after the other, as one case."""

Case = tuple[str, int, int]
"""Name of a sample, and the bytes to flip: start and stop."""


class FlippedDevice(MemoryDevice):
    """A device that gives one byte wrong, and notes which bytes are read."""

    def __init__(self, image: bytes) -> None:
        super().__init__(len(image), name="<flipped>")
        super().write(0, image)
        self.flip = (0, 0)
        """(offset, mask)"""
        self.read_bytes = bytearray(len(image))
        """1 for each byte that was read since this was last cleared."""

    def read(self, offset: int, length: int) -> bytes:
        data = super().read(offset, length)
        self.read_bytes[offset : offset + len(data)] = b"\1" * len(data)
        at, mask = self.flip
        if mask and offset <= at < offset + len(data):
            at -= offset
            return data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]
        return data


@dataclass(frozen=True, slots=True)
class Ground:
    """A sample, and how it is read while nothing is wrong with it."""

    sample: Sample
    state: tuple[Any, ...]
    """Of the store that it opens as."""
    opening: bytes
    """1 for each byte that opening reads."""
    later: bytes
    """1 for each byte that is read after that."""


@functools.cache
def ground(name: str) -> Ground:
    """A sample, made once a process; what differs between two (times, the id) is no matter here."""
    sample = make(name)
    device = FlippedDevice(sample.data)
    state = _state(device)
    opening, device.read_bytes = bytes(device.read_bytes), bytearray(device.size())
    with cowfs.open_device(device, readonly=True, cache=1 << 20) as store:
        device.read_bytes = bytearray(device.size())
        store.check()
        store.scrub()
        contents(store)
    later = bytes(device.read_bytes)
    if find(device) != sample.allowed[-1]:
        raise Wrong(f"{name}: not what is on the image")
    return Ground(sample, state, opening, later)


def stretches(names: tuple[str, ...] = ("closed", "open", "twins", "twins-open")) -> Iterator[Case]:
    """All bytes that anything reads, in short stretches."""
    for name in names:
        known = ground(name)
        for start in range(0, len(known.later), STRETCH):
            if any(known.opening[start : start + STRETCH]) or any(
                known.later[start : start + STRETCH]
            ):
                yield name, start, min(start + STRETCH, len(known.later))


def flip(case: Case) -> tuple[int, int]:
    """Flip the bytes of a stretch: how many, and how many were found out. Raises Wrong."""
    name, start, stop = case
    known = ground(name)
    device = FlippedDevice(known.sample.data)
    allowed = [None, *known.sample.allowed]
    noticed = 0
    for at in range(start, stop):
        device.flip = at, at * 2654435761 % 255 + 1
        try:
            if not known.later[at] and _state(device) == known.state:
                continue
            found = find(device)
        except REFUSED:
            found = None
        except Exception as error:
            raise Wrong(f"{name}, byte {at}: {type(error).__name__}: {error}") from error
        if found not in allowed:
            raise Wrong(f"{name}, byte {at}: other data, and no error")
        noticed += found is None
    return stop - start, noticed


def _state(device: MemoryDevice) -> tuple[Any, ...]:
    """All that opening an image makes of it."""
    with cowfs.open_device(device, readonly=True, cache=1 << 20) as store:
        space, log = store.io.space, store.log
        groups = -(-space.total // limits.GROUP_BLOCKS)
        return (
            log,
            store.catalog_tree.ref,
            store.space_tree.ref,
            [space.bitmap.group_bytes(group) for group in range(groups)],
            dict(space.shared),
            space.total,
        )


def find(device: MemoryDevice) -> Contents | None:
    """All that is on an image; None where it is refused, by opening, check, scrub or reading."""
    try:
        with cowfs.open_device(device, readonly=True, cache=1 << 20) as store:
            report = store.check()
            store.scrub()
            try:
                found = contents(store)
            except cowfs.CorruptionError:
                if report.ok:
                    raise Wrong("check found nothing, and reading does") from None
                return None
            return found
    except REFUSED:
        return None
