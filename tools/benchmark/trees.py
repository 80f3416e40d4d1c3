"""Trees of many small files: in and out, and their versions.

The same tree goes into cowfs, kernel Btrfs, a plain directory of the host, and an archive. Those
that keep versions are then changed a little, again and again, with a snapshot each time.
"""

import random
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmark.filetrees.base import FileTrees, Snapshots
from benchmark.filetrees.cowfs import CowfsTrees
from benchmark.measure import Sample, elapsed, elapsed_when_quiet
from benchmark.report import Figure, Goal, Race

FILES_IN_DIRECTORY = 100
LARGEST = 4_000
CHANGED = 10
REPEATS = 11
"""Snapshots, clones and diffs of each round, where one takes milliseconds."""
UNIQUE = 0.01
"""Part of the files that only the destroyed snapshot has."""
WORDS = [
    "amber",
    "birch",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "heath",
    "inlet",
    "joule",
    "karst",
    "lilac",
]

MILLI = 1e3


class Source:
    """A tree on the host, the same on every machine: text, in directories of a hundred files."""

    def __init__(self, directory: Path, files: int) -> None:
        self.path = directory
        self._random = random.Random(files)
        self._text = " ".join(self._random.choices(WORDS, k=LARGEST)).encode()
        self.names = [
            f"d{number // FILES_IN_DIRECTORY:05}/file{number % FILES_IN_DIRECTORY:03}.txt"
            for number in range(files)
        ]
        for number, name in enumerate(self.names):
            path = directory / name
            if number % FILES_IN_DIRECTORY == 0:
                path.parent.mkdir(parents=True)
            path.write_bytes(self.content())
        subprocess.run(["sync", "--file-system", directory], check=True)

    def content(self) -> bytes:
        """Text of random length, different each time."""
        start = self._random.randrange(len(self._text) - LARGEST)
        return (
            b"%x " % self._random.getrandbits(64)
            + self._text[start : start + self._random.randrange(LARGEST)]
        )

    def some(self, count: int) -> dict[str, bytes]:
        """New content for files chosen at random."""
        return {name: self.content() for name in self._random.sample(self.names, count)}

    def check(self, copy: Path) -> None:
        """Raise where a copy differs."""
        subprocess.run(["diff", "-rq", self.path, copy], check=True)


Times = dict[str, list[float]]
"""Seconds, by the name of the row."""


def in_and_out(trees: FileTrees, source: Source, directory: Path) -> Times:
    """What is copied out stays until the suite ends: ext4 takes several times as long to create
    files in the minutes after many were removed."""
    copied = elapsed_when_quiet(trees.copy_in, source.path)
    synced = copied + elapsed(trees.sync)
    out = directory / "out"
    back = elapsed_when_quiet(trees.copy_out, out)
    source.check(out)
    return {"in": [copied], "in-durable": [synced], "out": [back]}


def versions(trees: Snapshots, source: Source, repeats: int) -> Times:
    """Snapshots, clones and diffs, one change of a few files after the other."""
    spent: Times = {"snapshot": [], "clone": [], "diff": []}
    trees.snapshot("0")
    for number in range(1, repeats + 1):
        before, now = str(number - 1), str(number)
        trees.write(source.some(CHANGED))
        spent["snapshot"].append(elapsed(trees.snapshot, now))
        spent["clone"].append(elapsed(trees.clone, now, f"clone{now}"))
        start = time.perf_counter()
        found = trees.diff(before, now)
        spent["diff"].append(time.perf_counter() - start)
        if found != CHANGED:
            raise RuntimeError(f"{trees.name}: diff found {found} files, not {CHANGED}")
        trees.destroy_clone(f"clone{now}")
        trees.destroy(before)
    trees.destroy(str(repeats))
    return spent


def destroying(trees: Snapshots, source: Source) -> Times:
    """Removing a snapshot of which a hundredth of the files are in no other version."""
    trees.snapshot("doomed")
    trees.write(source.some(max(1, round(UNIQUE * len(source.names)))))
    return {"destroy": [elapsed(trees.destroy, "doomed")]}


def blocked(trees: CowfsTrees, source: Source) -> Times:
    """How long a writer waits for its turn, at most, while another thread destroys."""
    trees.snapshot("doomed")
    trees.write(source.some(max(1, round(UNIQUE * len(source.names)))))
    if "log" not in trees.store:
        trees.store.create("log")
    waited: list[float] = []
    gone = threading.Event()
    started = threading.Event()

    def write() -> None:
        while not gone.is_set():
            asked = time.perf_counter()
            with trees.store.transaction() as tx:
                waited.append(time.perf_counter() - asked)
                tx["log"][b"%d" % len(waited)] = b"written"
            started.set()

    writer = threading.Thread(target=write)
    writer.start()
    started.wait()
    try:
        trees.destroy("doomed")
    finally:
        gone.set()
        writer.join()
    return {"blocked": [max(waited)]}


@dataclass(frozen=True)
class Row:
    """A line of the report."""

    name: str
    title: str
    goals: tuple[Goal, ...] = ()


# A part is what --only chooses; it fills several rows at once.
PARTS = ("in-out", "versions", "destroy")
ROWS = (
    Row("in", "{files} files in", (Goal("btrfs", 1), Goal("host"))),
    Row("in-durable", "{files} files in, then sync", (Goal("btrfs"), Goal("archive"))),
    Row("out", "{files} files out", (Goal("btrfs"), Goal("archive"))),
    Row("snapshot", "snapshot of {files} files, durable", (Goal("btrfs", 10),)),
    Row("clone", "clone of it, durable", (Goal("btrfs", 10),)),
    Row("diff", f"diff, {CHANGED} of {{files}} files changed", (Goal("btrfs", 5),)),
    Row("destroy", f"destroying a snapshot, {UNIQUE:.0%} of it unique", (Goal("btrfs"),)),
)
BLOCKED_AT_MOST = 2

NOTES = [
    "The tree is in the page cache before it is copied. Copies in and out are commands (cowfs cp "
    "-r, cp -a, tar); cowfs's is durable when it returns. Snapshots, clones and removals are "
    "calls: of the library, and the ioctls of Btrfs, which are durable too. host is cp -a and "
    "diff -rq.",
    "cowfs diffs by its library; Btrfs by send --no-data piped to receive --dump.",
    "cowfs has given back all space when destroying returns; Btrfs goes on in the background.",
]


def run(
    classes: Collection[type[FileTrees]],
    parts: Sequence[str],
    files: int,
    rounds: int,
    directory: Path,
    progress: Callable[[str], None],
) -> tuple[list[Race], list[Figure]]:
    progress(f"making a tree of {files:,} files")
    source = Source(directory / "source", files)
    spent: dict[str, dict[str, list[float]]] = {}
    waits: list[float] = []
    for number in range(1, rounds + 1):
        for trees_class in classes:
            progress(f"round {number} of {rounds}: {trees_class.name}")
            place = directory / f"{trees_class.name}-round{number}"
            with new_trees(trees_class, place) as trees:
                for row, seconds in _measure(trees, parts, source, place).items():
                    spent.setdefault(row, {}).setdefault(trees.name, []).append(median(seconds))
                if isinstance(trees, CowfsTrees) and "destroy" in parts:
                    waits += blocked(trees, source)["blocked"]
    races = [
        Race(
            workload=row.title.format(files=f"{files:,}"),
            operations=1,
            seconds={name: Sample(tuple(values)) for name, values in spent[row.name].items()},
            goals=row.goals,
        )
        for row in ROWS
        if row.name in spent
    ]
    figures = [
        Figure(
            "a writer waits for another thread's destroy, at most",
            Sample(tuple(wait * MILLI for wait in waits)),
            "ms",
            at_most=BLOCKED_AT_MOST,
        )
    ]
    return races, figures if waits else []


@contextmanager
def new_trees(trees_class: type[FileTrees], place: Path) -> Iterator[FileTrees]:
    """A place, empty at first."""
    place.mkdir()
    with closing(trees_class(place)) as trees:
        yield trees


def _measure(trees: FileTrees, parts: Sequence[str], source: Source, place: Path) -> Times:
    spent: Times = {}
    if "in-out" in parts:
        spent |= in_and_out(trees, source, place)
    elif isinstance(trees, Snapshots):
        trees.copy_in(source.path)
        trees.sync()
    if isinstance(trees, Snapshots):
        quick = trees.name != "host"
        if "versions" in parts:
            spent |= versions(trees, source, REPEATS if quick else 1)
        if "destroy" in parts:
            spent |= destroying(trees, source)
    return spent
