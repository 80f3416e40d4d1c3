"""What the kernel and programs were told is done, and who has to know when that is lost.

Changes are gathered for some seconds (`gathering.py`). Where they are lost, each program that had a
file open is told at its next fsync: what it wrote may be gone. The kernel, which goes on believing
what it was told, is told as well: of all that the transaction was about. No word makes it give up
the size and times of a file whose writes it holds back, so losses are counted for each file, and a
file with another count is another one to the kernel (`files.py`).
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from cowfs.errors import FileError


class LostChangesError(FileError):
    """Changes were lost since this file was opened; open it anew."""

    code = errno.EIO


class Subject(NamedTuple):
    """What a request was about: a file; or, with a name, what a directory has under it."""

    dataset: str
    number: int
    name: bytes
    losses: int = 0
    """Of the file, before this was told (`Told.losses`)."""


class Told:
    """What was told since the last commit, of all datasets that are mounted from a store.

    `undone` is called when the subjects of requests are not as the kernel was told that they are.
    """

    def __init__(self, undone: Callable[[set[Subject]], None]) -> None:
        self._undone = undone
        self._subjects: set[Subject] = set()
        """Of all requests that changed something."""
        self._altered: set[tuple[str, int]] = set()
        """The files whose size or times were changed."""
        self._given: dict[str, int] = {}
        """The largest inode number of each dataset that the kernel was given for a new file."""
        self._handles = 0
        self._lost_handle = 0
        """The newest handle that there was when changes were lost."""
        self.lost_numbers: dict[str, int] = {}
        """The largest inode number of each dataset that was lost: what comes after it is not to be
        mistaken for that."""
        self.losses: Counter[tuple[str, int]] = Counter()
        """By dataset and number, how often changes of a file's size or times were lost that the
        kernel was told are done: what it knew of the file before is not to be relied on. Each loss
        adds the files of some seconds."""

    def changed(self, subject: Subject) -> None:
        """A request is about to change something."""
        self._subjects.add(subject)

    def made(self, dataset: str, number: int) -> None:
        """A file was made, of which the kernel is told."""
        self.changed(Subject(dataset, number, b""))
        self._given[dataset] = number

    def altered(self, dataset: str, number: int) -> None:
        """The size or times of a file were changed, of which the kernel goes by its own."""
        self._altered.add((dataset, number))

    def handle(self) -> int:
        """A number for a file that is opened now, larger than all before."""
        self._handles += 1
        return self._handles

    def check_kept(self, handle: int) -> None:
        """Raise LostChangesError where changes were lost since the file was opened: they may be
        its own."""
        if handle <= self._lost_handle:
            raise LostChangesError

    def keep(self) -> None:
        """All that was told is committed."""
        self._subjects.clear()
        self._altered.clear()

    def lose(self, *, alone: bool) -> None:
        """All that was told is lost; if it is that of one request `alone`, which fails, programs
        need not be told."""
        subjects, self._subjects = self._subjects, set()
        altered, self._altered = self._altered, set()
        self.lost_numbers.update(self._given)
        self.undo(subjects)
        if not alone:
            self._lost_handle = self._handles
            self.losses.update(altered)

    def undo(self, subjects: set[Subject]) -> None:
        """These are not as the kernel was told."""
        self._undone({subject._replace(losses=self.losses[subject[:2]]) for subject in subjects})
