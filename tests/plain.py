"""What tests of whole stores compare with, and how: plain dicts, from the crash fuzzer's model."""

from __future__ import annotations

import cowfs
from cowfs.device import MemoryDevice
from crashfuzzer.model import Items, PlainStore, contents, difference, noise, text

from .devices import copy_device

__all__ = [
    "Items",
    "PlainStore",
    "assert_holds",
    "assert_sound",
    "contents",
    "noise",
    "reopened",
    "text",
]


def reopened(device: MemoryDevice, *, cache: int = 1 << 24) -> cowfs.Store:
    """The store as it would be after the machine stopped now, on a device of its own."""
    return cowfs.open_device(copy_device(device), cache=cache)


def assert_sound(store: cowfs.Store) -> None:
    """Every count, every block, every checksum is right."""
    report = store.check()
    assert report.ok, "\n".join(map(str, report.faults[:10]))


def assert_holds(store: cowfs.Store, expected: dict[str, Items]) -> None:
    """The store holds exactly this."""
    different = difference(contents(store), expected)
    assert not different, different
