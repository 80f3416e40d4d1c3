"""The interface between the `trees` suite and what can hold a tree of files.

As with `engines`: every call is one that users of that place can make, in the fastest way that its
own documents show.
"""

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar


class FileTrees(ABC):
    """A tree of files in a directory of its own: copied in, and out again."""

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
    def copy_in(self, source: Path) -> None:
        """Take in all that is in a directory, as the tree."""

    @abstractmethod
    def sync(self) -> None:
        """Make durable what was copied in."""

    @abstractmethod
    def copy_out(self, target: Path) -> None:
        """Write the tree to a directory that is not there yet."""

    @abstractmethod
    def close(self) -> None: ...


class Snapshots(FileTrees):
    """A place that also keeps versions of the tree."""

    @abstractmethod
    def write(self, files: Mapping[str, bytes]) -> None:
        """Write files of the tree anew, durably, all together if it can."""

    @abstractmethod
    def snapshot(self, name: str) -> None:
        """Keep the tree as it is now, durably."""

    @abstractmethod
    def clone(self, snapshot: str, name: str) -> None:
        """Make a writable copy of a snapshot, durably."""

    @abstractmethod
    def diff(self, old: str, new: str) -> int:
        """List what differs between two snapshots; how many files that are."""

    @abstractmethod
    def destroy(self, snapshot: str) -> None:
        """Remove a snapshot, durably; its space may come back later."""

    @abstractmethod
    def destroy_clone(self, name: str) -> None:
        """Remove a clone."""


def run(*command: str | Path) -> None:
    """Run a command that says nothing unless something is wrong."""
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def output(*command: str | Path) -> str:
    """What a command prints."""
    return subprocess.run(
        command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ).stdout
