"""The command line of `tools/faultfuzz`: all faults of a workload, of one after the other."""

from __future__ import annotations

import itertools
import logging
import os
import random
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

import click
from rich.console import Console
from rich.table import Table

from .explore import Tally, explore


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
    """Let each I/O of random workloads fail in each way, and interrupt each line that they reach,
    and each bytecode at which Ctrl-C can come, or memory run out.

    A workload a seed. Ends at the first thing that is wrong, with exit code 1; else it prints how
    often what was injected, and what came of it.
    """
    first = random.randrange(1 << 30) if seed is None else seed
    until = time.monotonic() + minutes * 60
    seeds = itertools.count(first) if workloads is None else iter(range(first, first + workloads))
    tally, done = Tally(), 0
    # What the engine logs when a superblock cannot be written is what is wanted here.
    with ProcessPoolExecutor(jobs, initializer=logging.disable) as pool:
        running: dict[Future[Tally], int] = {}
        while True:
            if workloads is not None or time.monotonic() < until:
                for number in itertools.islice(seeds, jobs + 1 - len(running)):
                    running[pool.submit(explore, number)] = number
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                number = running.pop(future)
                error = future.exception()
                if error is not None:
                    pool.shutdown(cancel_futures=True)
                    notes = "; ".join(getattr(error, "__notes__", ()))
                    print(f"Seed {number}, {notes}: {type(error).__name__}: {error}")
                    sys.exit(1)
                tally.add(future.result())
                done += 1
    _show(tally)
    print(
        f"{tally.injected.total():,} faults injected into {done:,} workloads (from seed {first} "
        "on). Nothing was lost, and each store was sound."
    )


def _show(tally: Tally) -> None:
    """Print what was injected where, and what came of it."""
    operations = sorted({operation for operation, _ in tally.injected})
    table = Table("injected", *operations)
    for kind in sorted({kind for _, kind in tally.injected}):
        counts = (tally.injected[operation, kind] for operation in operations)
        table.add_row(kind, *(f"{count:,}" if count else "" for count in counts))
    outcomes = Table("the step", "times")
    for outcome, count in tally.outcomes.most_common():
        outcomes.add_row(outcome, f"{count:,}")
    console = Console(width=100)
    console.print(table)
    console.print(outcomes)


if __name__ == "__main__":
    main(prog_name="faultfuzz")
