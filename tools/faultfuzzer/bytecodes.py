"""Interrupts the program between two bytecodes of a line, wherever the interpreter can.

Ctrl-C is an exception where the interpreter looks for signals, and nowhere else: where a function
begins or a generator goes on, where a call of what is compiled ends, and where a loop begins anew.
So it can come between such a call and the assignment of its result, but not between a function's
`return` and that, nor between the moment when `with` takes a lock and the block. Memory runs out at
bytecodes that need some, and then it is the bytecode that fails.

A tracer can raise only *before* a bytecode. That is the same where one handler is in charge of this
bytecode and of the one before, at which the interpreter looks; elsewhere nothing is raised: behind
a call that is the last of its block, as in `return call()` inside `try` or `with`.

Ctrl-C comes in `contextlib`, too: what was entered there, or is about to be left, must not be lost.
"""

from __future__ import annotations

import contextlib
import dis
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from types import CodeType, FrameType
from typing import Any

from crashfuzzer.threads import in_thread

from .lines import PACKAGE, in_destructor

_CALLS = ("CALL", "CALL_KW", "CALL_FUNCTION_EX")
_MAKING = (
    *_CALLS,
    "BINARY_OP",
    "BUILD_LIST",
    "BUILD_MAP",
    "BUILD_SET",
    "BUILD_STRING",
    "BUILD_TUPLE",
    "DICT_MERGE",
    "DICT_UPDATE",
    "LIST_APPEND",
    "LIST_EXTEND",
    "MAKE_FUNCTION",
    "MAP_ADD",
    "SET_ADD",
    "SET_UPDATE",
    "STORE_SUBSCR",
)
"""What needs memory. An attribute that is there has its place, and so has a name."""
_PARTS_OF_CALLS = ("KW_NAMES", "PRECALL")
_COMPREHENSIONS = ("<dictcomp>", "<listcomp>", "<setcomp>")


@dataclass(frozen=True, slots=True)
class Point:
    """Where an error can come: before the bytecode at an offset of a function."""

    code: CodeType
    offset: int
    error: type[BaseException]

    def __str__(self) -> str:
        line = next(
            line for start, stop, line in self.code.co_lines() if start <= self.offset < stop
        )
        return f"{self.error.__name__} at {self.code.co_qualname}:{line}, bytecode {self.offset}"


class Stepper:
    """While `watching`, counts how often each point is reached, or raises the error of one."""

    unit = "bytecode"

    def __init__(self, point: Point | None = None, passes: int = 0) -> None:
        self.point = point
        self.error = point.error if point is not None else KeyboardInterrupt
        self._passes = self._left = passes
        """How often the point is passed before the error comes."""
        self.injected = 0
        self.reached: Counter[Point] = Counter()
        self._functions: dict[int, _Function] = {}
        """By the id of their code, as it takes long to hash that."""

    def __str__(self) -> str:
        return f"{self.point}, when it was passed {self._passes} times"

    @property
    def seed(self) -> int:
        """Of what follows."""
        return hash((self._passes, self.point.offset)) if self.point is not None else 0

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """The bytecodes of the `with` block count."""
        sys.settrace(self._called)
        try:
            yield
        finally:
            sys.settrace(None)

    def _called(self, frame: FrameType, _: str, __: object) -> Callable[..., Any] | None:
        code, caller = frame.f_code, frame.f_back
        trace = caller.f_trace if caller is not None else None
        if isinstance(trace, _Activation):
            trace.callee = trace.callee or code.co_name
        if self.point is not None and code is not self.point.code:
            return None
        if not code.co_filename.startswith(PACKAGE) and not _serves_cowfs(frame):
            return None
        function = self._functions.get(id(code))
        if function is None:
            function = self._functions[id(code)] = _Function(code)
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return _Activation(self, function, frame.f_lasti)

    def reach(self, frame: FrameType, point: Point) -> None:
        """A point is reached. Raises its error if it is the one."""
        if self.point is None:
            self.reached[point] += 1
        elif point == self.point:
            self._left -= 1
            if self._left < 0 and not self.injected and _can_come(point.error, frame):
                self.injected = 1
                raise point.error


class _Function:
    """What can come before which bytecodes of a function."""

    def __init__(self, code: CodeType) -> None:
        self.code = code
        steps = list(dis.Bytecode(code))
        self.calls = {step.offset for step in steps if step.opname in _CALLS}
        self.names = {*code.co_names, *_COMPREHENSIONS}
        """Of what it may call. Behind a function of Python the interpreter does not look."""
        self.looks: set[tuple[int, int]] = set()
        """Pairs of bytecodes: before the second, coming from the first, a signal is seen."""
        self.points: dict[int, list[Point]] = {}
        """By offsets; those of signals, first, count only if a pair says so."""
        handlers = _handlers(code, steps)
        same = {
            step.offset: before.offset
            for before, step in pairwise(steps)
            if handlers[before.offset] == handlers[step.offset]
        }
        for before, step in pairwise(steps):
            if before.opname in _CALLS or (before.opname == "RESUME" and (before.arg or 0) & 3 < 2):
                self.looks.add((before.offset, step.offset))
        for step in steps:
            if "JUMP_BACKWARD" in step.opname and "NO_INTERRUPT" not in step.opname:
                self.looks.add((step.offset, step.argval))
        self.looks = {(before, at) for before, at in self.looks if at in same}
        for _, at in self.looks:
            self.points[at] = [Point(code, at, KeyboardInterrupt)]
        exits = _exits(steps)
        ours = code.co_filename.startswith(PACKAGE)
        for step in steps:
            if step.opname in _MAKING and step.offset not in exits and ours:
                point = Point(code, step.offset, MemoryError)
                self.points.setdefault(step.offset, []).append(point)


class _Activation:
    """A function at work: the trace function of its frame."""

    __slots__ = ("callee", "function", "last", "stepper")

    def __init__(self, stepper: Stepper, function: _Function, last: int) -> None:
        self.stepper = stepper
        self.function = function
        self.last = last
        """The bytecode before."""
        self.callee = ""
        """The first function of Python that this one called."""

    def __call__(self, frame: FrameType, event: str, _: object) -> _Activation:
        if event == "opcode":
            at, function = frame.f_lasti, self.function
            for point in function.points.get(at, ()):
                if point.error is MemoryError or self._looks(at):
                    self.stepper.reach(frame, point)
            self.last, self.callee = at, ""
        return self

    def _looks(self, at: int) -> bool:
        """Whether the interpreter has just looked for signals."""
        if (self.last, at) not in self.function.looks:
            return False
        return self.last not in self.function.calls or self.callee not in self.function.names


def _handlers(code: CodeType, steps: list[dis.Instruction]) -> dict[int, int]:
    """By the offset of each bytecode: where its exceptions are handled; -1 if nowhere here."""
    entries = dis.Bytecode(code).exception_entries  # type: ignore[attr-defined]
    return {
        step.offset: next((e.target for e in entries if e.start <= step.offset < e.end), -1)
        for step in steps
    }


def _exits(steps: list[dis.Instruction]) -> set[int]:
    """Calls that end a `with` block, as if with three times None."""
    shown = [step for step in steps if step.opname not in _PARTS_OF_CALLS]
    return {
        shown[i].offset
        for i in range(3, len(shown))
        if shown[i].opname in _CALLS
        and all(
            before.opname == "LOAD_CONST" and before.argval is None for before in shown[i - 3 : i]
        )
    }


def _serves_cowfs(frame: FrameType) -> bool:
    """Whether it is a function of `contextlib` for a `with` of cowfs."""
    caller = frame.f_back
    return (
        frame.f_code.co_filename == contextlib.__file__
        and caller is not None
        and caller.f_code.co_filename.startswith(PACKAGE)
    )


def _can_come(error: type[BaseException], frame: FrameType) -> bool:
    """Whether an error can come at this moment: Ctrl-C is for the program, not for its threads."""
    return not in_destructor(frame) and not (error is KeyboardInterrupt and in_thread())
