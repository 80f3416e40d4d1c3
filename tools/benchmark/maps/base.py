"""The interface between the `pause` suite and maps."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

Pair = tuple[bytes, bytes]


@dataclass(frozen=True)
class Usage:
    """What a snapshot has cost while everything was rewritten, in bytes."""

    memory: int
    """More than before it was taken."""
    disk: int
    predicted_disk: int
    """What was to be expected of the disk when it was taken."""


class ChangingMap(ABC):
    """A map that changes, one key at a time, while another thread takes a snapshot of it."""

    name: ClassVar[str]

    @abstractmethod
    def __init__(self, directory: Path) -> None: ...

    @classmethod
    @abstractmethod
    def describe(cls) -> str:
        """Its version and the settings that matter."""

    @classmethod
    def unavailable(cls) -> str | None:
        """Why it cannot run on this machine; None where it can."""
        return None

    @abstractmethod
    def load(self, pairs: Iterable[Pair]) -> None:
        """Fill it."""

    @abstractmethod
    def put(self, key: bytes, value: bytes) -> None:
        """Change one key; it need not be durable at once."""

    @abstractmethod
    def prepare(self) -> None:
        """Note what memory and disk are used before the snapshot."""

    @abstractmethod
    def snapshot(self) -> None:
        """Take the snapshot; returns when it shows this moment. From another thread than `put`."""

    @abstractmethod
    def usage(self) -> Usage:
        """What the snapshot, which must still be there, has cost so far."""

    @abstractmethod
    def close(self) -> None: ...


def memory_of(process: int | str, *names: str) -> int:
    """The sum of some lines of a process's smaps_rollup, in bytes."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    values = {line.split()[0].rstrip(":"): int(line.split()[1]) for line in lines}
    return sum(values[name] for name in names) * 1024
