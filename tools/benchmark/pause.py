"""A snapshot of a map while every key of it is rewritten: what it costs the writer, and in memory.

This is what fork() was used for, and where it fails. `changing` is the process that does it.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from benchmark.changing import VALUE_BYTES, Outcome
from benchmark.maps.base import ChangingMap
from benchmark.measure import Sample
from benchmark.report import Curve, Figure

LONGEST_PAUSE = 1.0
"""Milliseconds."""
CACHE_MIB = 64
PREDICTED = 1.05
"""Disk that a snapshot may take to what was predicted."""

MILLI = 1e3
MIB = 1 << 20

NOTES = [
    f"Values are {VALUE_BYTES:,} random bytes. One thread puts one key after the other, another "
    "takes the snapshot; the longest put from then until every key was rewritten is the pause. "
    "Neither waits for the disk: cowfs's transactions have durable=False, Redis has no append-only "
    "file.",
    "Redis's child is slowed down until every key was rewritten, as a larger map or slower disk "
    "would slow it.",
    "Memory is what the process takes at most beyond what it took before the snapshot; of Redis, "
    "what the child has for itself, and what the server grew. Disk is what snapshot and map take "
    "together beyond what the map took; predicted is the size that df showed as live.",
]


def measure(
    classes: Collection[type[ChangingMap]],
    sizes: Collection[int],
    rounds: int,
    directory: Path,
    progress: Callable[[str], None],
) -> tuple[list[Figure], list[Curve]]:
    """All maps at all sizes, in MiB."""
    found: dict[tuple[str, int], list[Outcome]] = {}
    for number in range(1, rounds + 1):
        for mib in sizes:
            for map_class in classes:
                progress(f"round {number} of {rounds}: {mib:,} MiB, {map_class.name}")
                outcome = in_a_process(map_class.name, mib * MIB // VALUE_BYTES, directory)
                found.setdefault((map_class.name, mib), []).append(outcome)
    figures = [
        figure for (name, mib), outcomes in found.items() for figure in judge(name, mib, outcomes)
    ]
    curves = [
        Curve(
            chart="longest pause of a writer, a snapshot taken and all keys rewritten",
            line=map_class.name,
            across="MiB of values",
            up="ms",
            points=tuple(
                (mib, sample(found[map_class.name, mib], longest_during).median) for mib in sizes
            ),
        )
        for map_class in classes
    ]
    return figures, curves if len(sizes) > 1 else []


def in_a_process(name: str, items: int, parent: Path) -> Outcome:
    directory = parent / name
    directory.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "benchmark.changing", name, directory, str(items)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    shutil.rmtree(directory)
    return Outcome(**json.loads(done.stdout))


def longest_during(outcome: Outcome) -> float:
    return outcome.longest_during * MILLI


def sample(outcomes: Collection[Outcome], figure: Callable[[Outcome], float]) -> Sample:
    return Sample(tuple(figure(outcome) for outcome in outcomes))


def judge(name: str, mib: int, outcomes: Collection[Outcome]) -> list[Figure]:
    """The figures of one map at one size, with cowfs's goals."""
    own = name == "cowfs"
    title = f"{name}, {mib:,} MiB"

    def figure(
        what: str, value: Callable[[Outcome], float], unit: str, at_most: float | None = None
    ) -> Figure:
        return Figure(f"{title}: {what}", sample(outcomes, value), unit, at_most if own else None)

    figures = [
        figure("longest put, no snapshot", lambda each: each.longest_before * MILLI, "ms"),
        figure("longest put, with a snapshot", longest_during, "ms", LONGEST_PAUSE),
        figure("snapshot", lambda each: each.snapshot * MILLI, "ms"),
        figure("puts, no snapshot", lambda each: each.rate_before / 1e3, "k/s"),
        figure(
            "rate with : without a snapshot", lambda each: each.rate_during / each.rate_before, "×"
        ),
        figure("more memory", lambda each: each.memory / MIB, "MiB", CACHE_MIB),
    ]
    if own:
        figures += [
            figure("more disk", lambda each: each.disk / MIB, "MiB"),
            figure(
                "disk : predicted", lambda each: each.disk / each.predicted_disk, "×", PREDICTED
            ),
        ]
    return figures
