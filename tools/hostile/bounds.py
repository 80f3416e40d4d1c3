"""Work in processes that may not take too much: a case that needs more memory or more time, or
brings the interpreter down, costs its own process and is told from one that ends well.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Generic, TypeVar

MEMORY = 1 << 30
"""Bytes of address space that a process may add to what it starts with: the cache (1 MiB here), one
value read whole and its parts (limits.WHOLE), and room for the interpreter."""
SECONDS = 60
"""Seconds of processor time for one case; most take a few hundredths of one."""

Case = TypeVar("Case")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Case, Result]):
    """What came of a case: a result, or why there is none."""

    case: Case
    result: Result | None
    problem: str = ""


def run(
    work: Callable[[Case], Result], cases: Iterator[Case], jobs: int
) -> Iterator[Outcome[Case, Result]]:
    """Outcomes as they come. An exception of `work` is a problem; so is the end of a process."""
    workers = [_Worker(work) for _ in range(jobs)]
    try:
        for worker in workers:
            worker.give(cases)
        while busy := [worker for worker in workers if worker.busy]:
            ready = wait([worker.connection for worker in busy])
            for worker in busy:
                if worker.connection in ready:
                    yield worker.outcome()
                    worker.give(cases)
    finally:
        for worker in workers:
            worker.end()


class _Worker(Generic[Case, Result]):
    """A process, and the case that it is at."""

    def __init__(self, work: Callable[[Case], Result]) -> None:
        self._work = work
        self._cases: list[Case] = []
        self._start()

    def _start(self) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=_serve, args=(theirs, self._work), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def busy(self) -> bool:
        """Whether an outcome is to come."""
        return bool(self._cases)

    def give(self, cases: Iterator[Case]) -> None:
        """The next case, if there is one."""
        for case in cases:
            self._cases.append(case)
            self.connection.send(case)
            return

    def outcome(self) -> Outcome[Case, Result]:
        """What came of the case that was given; another process takes over where this one died."""
        case = self._cases.pop()
        try:
            result, problem = self.connection.recv()
            return Outcome(case, result, problem)
        except EOFError:
            self._process.join()
            code = self._process.exitcode or 0
            self.connection.close()
            self._start()
        if code == -signal.SIGXCPU:
            return Outcome(case, None, f"took more than {SECONDS} s")
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return Outcome(case, None, f"the process ended with {name}")

    def end(self) -> None:
        """Stop, in the midst of work if need be."""
        self.connection.close()
        self._process.kill()
        self._process.join()


def _serve(connection: Connection, work: Callable[[Case], Result]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if "libasan" not in os.environ.get("LD_PRELOAD", ""):  # which reserves terabytes, unused
        _limit_memory()
    while True:
        with contextlib.suppress(EOFError):
            case = connection.recv()
            used = resource.getrusage(resource.RUSAGE_SELF)
            hard = int(used.ru_utime + used.ru_stime) + SECONDS
            resource.setrlimit(resource.RLIMIT_CPU, (hard, resource.RLIM_INFINITY))
            answer: tuple[Result | None, str]
            try:
                answer = work(case), ""
            except Exception as error:
                answer = None, f"{type(error).__name__}: {error}"
            connection.send(answer)
            continue
        return


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
