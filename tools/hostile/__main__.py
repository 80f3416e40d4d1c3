"""The command line of `tools/attack`: a campaign on all cores, with a progress bar."""

from __future__ import annotations

import itertools
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .bounds import run
from .flips import flip, stretches
from .forge import attack

_NOTES = Console(stderr=True)
_JOBS = os.cpu_count() or 1
_SHOWN = 10
"""Problems that are printed."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Damage images, and see what cowfs makes of them; exit code 1 where it misbehaves."""


@main.command("flip")
@click.option("--part", default=1, show_default=True, help="Flip one in so many stretches.")
@click.option("--first", default=0, show_default=True, help="Begin with this stretch.")
def flip_all(part: int, first: int) -> None:
    """Flip every byte of small images that anything reads, one at a time."""
    with _NOTES.status("Looking at what is read"):
        cases = list(stretches())[first::part]
    flipped = noticed = 0
    problems = []
    started = time.monotonic()
    with _bar(len(cases)) as show:
        for done, outcome in enumerate(run(flip, iter(cases), _JOBS), 1):
            if outcome.result is None:
                problems.append(f"{outcome.case}: {outcome.problem}")
            else:
                flipped, noticed = flipped + outcome.result[0], noticed + outcome.result[1]
            show(done, f"{flipped:,} bytes")
    print(
        f"{flipped:,} bytes flipped in {time.monotonic() - started:,.0f} s: {noticed:,} were found "
        f"out, {flipped - noticed:,} made no difference"
    )
    _end(problems)


@main.command("forge")
@click.option("--minutes", default=1.0, show_default=True, type=click.FloatRange(min=0))
@click.option("--seed", type=int, help="First seed; drawn at random if not given.")
@click.option("--images", type=click.IntRange(min=1), help="End after so many, however long.")
def forge_many(minutes: float, seed: int | None, images: int | None) -> None:
    """Forge images with checksums that are right, a seed each, and use them."""
    first = random.randrange(1 << 30) if seed is None else seed
    started = time.monotonic()
    verdicts: Counter[str] = Counter()
    problems = []

    def seeds() -> Iterator[int]:
        for number in itertools.count() if images is None else range(images):
            if images is None and time.monotonic() - started > 60 * minutes:
                return
            yield first + number

    with _bar(images or 60 * minutes) as show:
        for done, outcome in enumerate(run(attack, seeds(), _JOBS), 1):
            if outcome.result is None:
                problems.append(f"seed {outcome.case}: {outcome.problem}")
            else:
                verdicts[outcome.result[1]] += 1
            show(done if images else time.monotonic() - started, f"{done:,} images")
    print(
        f"{verdicts.total() + len(problems):,} images (from seed {first} on) in "
        f"{time.monotonic() - started:,.0f} s: {verdicts['refused']:,} did not open, in "
        f"{verdicts['found']:,} check found the damage, {verdicts['sound']:,} were sound images"
    )
    _end(problems)


@contextmanager
def _bar(total: float) -> Iterator[Callable[[float, str], None]]:
    """Yields what shows how far it is."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=_NOTES,
        disable=not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task("", total=total)
        yield lambda done, text: bar.update(task, completed=done, description=text)


def _end(problems: list[str]) -> None:
    for problem in problems[:_SHOWN]:
        print(problem)
    if problems:
        print(f"{len(problems):,} problems.")
        sys.exit(1)
    print("Each behaved as promised.")


if __name__ == "__main__":
    main(prog_name="attack")
