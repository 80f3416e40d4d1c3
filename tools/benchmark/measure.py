"""Times, and what several of them say together."""

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import ParamSpec

P = ParamSpec("P")
MIB = 1 << 20


@dataclass(frozen=True)
class Sample:
    """The same figure from several rounds."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)

    def over(self, other: "Sample") -> "Sample":
        """Round by round this figure divided by the other, so that drift of the machine cancels."""
        pairs = zip(self.values, other.values, strict=True)
        return Sample(tuple(mine / theirs for mine, theirs in pairs))


_observers: list[Callable[[], AbstractContextManager[None]]] = []


def observe(observer: Callable[[], AbstractContextManager[None]]) -> None:
    """Have an observer entered around all that is measured from now on, as a profiler is."""
    _observers.append(observer)


def elapsed(action: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> float:
    """How many seconds one call takes."""
    with ExitStack() as stack:
        for observer in _observers:
            stack.enter_context(observer())
        start = time.perf_counter()
        action(*args, **kwargs)
        return time.perf_counter() - start


def elapsed_when_quiet(action: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> float:
    """The same, once nothing that was written before waits for the disk."""
    os.sync()
    return elapsed(action, *args, **kwargs)


def write(path: Path, data: bytes, times: int) -> None:
    """Write a file of so many times `data`."""
    with open(path, "wb", buffering=0) as file:
        for _ in range(times):
            file.write(data)


def warm(path: Path, size: int) -> None:
    """Use memory, by way of a file of `size` bytes that goes away: a virtual machine gets what it
    has not used for a while slowly, and the first to need it would pay for all."""
    write(path, bytes(MIB), size // MIB)
    path.unlink()


def best_command_seconds(command: Sequence[str | Path], times: int) -> float:
    """The shortest of several runs of a command, from its start to its end, nothing subtracted."""

    def run() -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)

    return min(elapsed(run) for _ in range(times))
