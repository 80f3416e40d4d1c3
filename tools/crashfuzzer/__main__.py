"""The command line of `tools/crashfuzz`: one seed after the other, on all cores, for some time."""

from __future__ import annotations

import itertools
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from .case import Case
from .explore import Failure, explore
from .shrink import shrink

_NOTES = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of the workload of a seed."""

    seed: int
    states: int
    """Distinct crash states; 0 where one of them failed."""
    case: Case | None = None
    reason: str = ""


def outcome(seed: int) -> Outcome:
    """Explore one seed; run in a process of its own."""
    try:
        return Outcome(seed, explore(seed))
    except Failure as failure:
        return Outcome(seed, 0, failure.case, str(failure))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--minutes", default=1.0, show_default=True, type=click.FloatRange(min=0), help="How long."
)
@click.option("--seed", type=int, help="First seed; drawn at random if not given.")
@click.option(
    "--workloads",
    type=click.IntRange(min=1),
    help="End after so many seeds, however long it takes.",
)
@click.option(
    "--jobs",
    default=os.cpu_count() or 1,
    show_default=True,
    type=click.IntRange(min=1),
    help="Processes.",
)
def main(minutes: float, seed: int | None, workloads: int | None, jobs: int) -> None:
    """Explore what power cuts leave of random workloads, a workload a seed.

    Ends at the first failure: with exit code 1, and a test that shows it, made as short as can be.
    """
    first = random.randrange(1 << 30) if seed is None else seed
    started = time.monotonic()
    seconds = minutes * 60
    states = done = 0
    failed: Outcome | None = None
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=_NOTES,
        disable=not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task("", total=workloads or seconds)
        for found in _outcomes(first, jobs, workloads, started + seconds):
            states, done = states + found.states, done + 1
            passed = time.monotonic() - started
            bar.update(
                task,
                description=f"{states:,} states, {states / passed:,.0f} a second",
                completed=done if workloads else passed,
            )
            if found.case is not None:
                failed = found
                break
    passed = time.monotonic() - started
    print(
        f"{states:,} distinct crash states of {done:,} workloads (from seed {first} on) "
        f"in {passed:,.0f} s: {states / passed:,.0f} a second, {jobs} processes"
    )
    if failed is not None:
        _show(failed)
        sys.exit(1)
    print("Each opened as promised.")


def _begin() -> None:
    """In a process of the pool."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable()  # that copies were lost is what is wanted here


def _outcomes(first: int, jobs: int, workloads: int | None, until: float) -> Iterator[Outcome]:
    """Outcomes as they come, of `workloads` seeds or until that time."""
    seeds = itertools.count(first) if workloads is None else iter(range(first, first + workloads))
    with ProcessPoolExecutor(jobs, initializer=_begin) as pool:
        running: set[Future[Outcome]] = set()
        try:
            while True:
                if workloads is not None or time.monotonic() < until:
                    free = jobs + 1 - len(running)
                    running |= {pool.submit(outcome, n) for n in itertools.islice(seeds, free)}
                if not running:
                    return
                ready, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in ready)
        finally:
            pool.shutdown(cancel_futures=True)


def _show(failed: Outcome) -> None:
    """Print a failure as a short test."""
    assert failed.case is not None
    print(f"Seed {failed.seed}: {failed.reason}\n")
    with _NOTES.status("") as status:
        case = shrink(failed.case, lambda steps: status.update(f"Shortening it: {steps} steps"))
    reason = failed.reason
    try:
        case.replay()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    print(case.source(f"power_cut_{failed.seed}", reason))


if __name__ == "__main__":
    main(prog_name="crashfuzz")
