"""What the store tells about itself: plain records, the same for people, programs and tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """A dataset or snapshot. Sizes are in bytes."""

    name: str
    """`dataset` or `dataset@snapshot`."""
    kind: str
    created: datetime
    items: int
    """Items of its tree."""
    referenced: int
    """What can be reached from it, on the device, with all metadata."""
    exclusive: int
    """What destroying it would free: reached from nothing else."""
    logical: int
    """What was put in, before compression: keys and values."""
    stored: int
    """What the data takes on the device after compression: `referenced`, as of now."""
    size: int
    """Of a volume; 0 for the others."""

    @property
    def is_snapshot(self) -> bool:
        """Whether it is read-only and pinned."""
        return "@" in self.name

    @property
    def dataset(self) -> str:
        """Name of the dataset that it is or belongs to."""
        return self.name.partition("@")[0]


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two versions.

    `op` is "+" added, "-" removed, "M" modified, "R" renamed (then `new_path` is set). `path` is a
    path in an fs dataset and a key in a kv dataset; for a volume it is b"" and the bytes `start` to
    `stop` differ.
    """

    op: str
    path: bytes
    new_path: bytes | None = None
    start: int = 0
    stop: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong on the image."""

    dataset: str
    block: int | None
    reason: str
    repairable: bool = False
    """Whether another copy is good: scrub of a store that is open for writing repairs it."""

    def __str__(self) -> str:
        place = f"block {self.block}" if self.block is not None else "no block"
        return f"{self.dataset or 'store'}: {place}: {self.reason}"


@dataclass(slots=True)
class Report:
    """What check or scrub found."""

    faults: list[Fault] = field(default_factory=list)
    repaired: list[Fault] = field(default_factory=list)
    """What scrub wrote anew from a second copy; no fault any more."""
    nodes: int = 0
    extents: int = 0
    bytes: int = 0
    """Read and verified."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that could not be copied out of a damaged image, or may not have been."""

    dataset: str
    """Name of the dataset or snapshot; "" for what is above them all."""
    what: bytes
    """Path, key, or range of them; b"" where it is the whole dataset."""
    start: int | None
    """First byte that is lost; None where not just bytes of it are."""
    stop: int | None
    block: int | None
    """Where the damage is, if it is known."""
    reason: str


@dataclass(frozen=True, slots=True)
class SpaceReport:
    """Where the image's space is, in bytes. `total` is the sum of what follows it up to `free`."""

    total: int
    live: int
    """Reached from the datasets as they are now."""
    pinned: int
    """Reached from snapshots only."""
    reclaimable: int
    """Being destroyed, or waiting for a reader or the next commit."""
    metadata: int
    """Superblocks, the log, the catalog and the space map."""
    free: int
    reserve: int
    """Part of `free` that is held back so that deleting always works."""
    limit: int
    """Size that the image may grow to; 0 where it grows as needed."""
    file_bytes: int
    """What the file takes on its host."""
