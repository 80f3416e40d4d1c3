"""Interrupts the program at any line of cowfs: Ctrl-C may come there, and memory may run out.

What comes in the midst of a line is the business of `bytecodes.py`, which knows how the interpreter
of today works. This module does not: it interrupts where another one might.

A tracer counts the lines of cowfs as they are reached, and raises an exception at one of them.
Lines with `with`, `try`, `except` and `finally` are passed over. The interpreter looks for signals
where calls end and functions begin, hence neither there, nor on the way from a block to the exit of
its `with`, which counts as that line: a lock cannot be left held.

What runs because nobody refers to an object any more is left alone: there the interpreter drops all
exceptions. In the compiled part an interrupt shows only when it calls something that is not.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import cowfs
from cowfs.device import FileDevice
from cowfs.session import Pin

PACKAGE = str(Path(cowfs.__file__).parent)
_DESTRUCTORS = {
    method.__code__ for method in (Pin.release, cowfs.Transaction.__del__, FileDevice.__del__)
}

_NEVER = ("with ", "try:", "except ", "finally:")

Line = tuple[CodeType, int]
"""A line of source, by its function and number."""


class Tracer:
    """Counts lines while `watching`, and at number `first` raises `error`."""

    unit = "line"

    def __init__(self, first: int = -1, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.first = first
        self.error = error
        self.injected = 0
        self.reached = 0
        self.places: dict[Line, list[int]] = {}
        """For each line, when it was reached; noted only if nothing is to be raised."""

    def __str__(self) -> str:
        return f"{self.error.__name__} at line number {self.first}"

    @property
    def seed(self) -> int:
        """Of what follows."""
        return self.first

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The lines of the `with` block count."""
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "call" and not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            self._reach(frame)
        return self._trace

    def _reach(self, frame: FrameType) -> None:
        number = self.reached
        self.reached += 1
        if self.first < 0:
            self.places.setdefault((frame.f_code, frame.f_lineno), []).append(number)
        elif number >= self.first and not self.injected and _can_be_interrupted(frame):
            self.injected = 1
            raise self.error


def _can_be_interrupted(frame: FrameType) -> bool:
    """Whether an exception may come at the line that it is about to run."""
    source = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    return not source.lstrip().startswith(_NEVER) and not in_destructor(frame)


def in_destructor(frame: FrameType) -> bool:
    """Whether it runs because nobody refers to an object any more."""
    caller: FrameType | None = frame
    while caller is not None:
        if caller.f_code in _DESTRUCTORS:
            return True
        caller = caller.f_back
    return False
