"""The interface between the `blocks` suite and images of block devices."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar


class Volume(ABC):
    """A block device in an image, in a directory of its own."""

    name: ClassVar[str]

    @abstractmethod
    def __init__(self, directory: Path, size: int) -> None: ...

    @classmethod
    @abstractmethod
    def describe(cls) -> str:
        """Its version and the settings that matter."""

    @classmethod
    def unavailable(cls) -> str | None:
        """Why it cannot run on this machine; None where it can."""
        return None

    @abstractmethod
    def write(self, source: Path, length: int, offsets: Sequence[int]) -> None:
        """Write the first `length` bytes of a file at each offset, and flush at the end."""

    @abstractmethod
    def read(self, length: int, offsets: Sequence[int]) -> None:
        """Read so many bytes at each offset."""

    @abstractmethod
    def snapshot(self, name: str) -> None:
        """Keep the volume as it is now, durably."""

    @abstractmethod
    def clone(self, name: str) -> None:
        """A writable copy of the volume as it is, durably."""

    @abstractmethod
    def rollback(self, snapshot: str) -> None:
        """Make the volume what it was; the snapshot stays."""

    @abstractmethod
    def destroy(self, snapshot: str) -> None:
        """Remove a snapshot, and give back its space."""

    @abstractmethod
    def export(self, target: Path) -> None:
        """Write the volume as it is to a plain file."""

    @abstractmethod
    def close(self) -> None: ...
