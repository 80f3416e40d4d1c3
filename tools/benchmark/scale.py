"""How cost grows: with keys, files, snapshots, with less memory, with age on a full image.

Everything is cowfs alone, each operation a durable one of the library. A figure that should not
grow is compared between the smallest and the largest size that ran.
"""

import math
import os
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import ParamSpec

import cowfs
from benchmark.alone import SAME
from benchmark.measure import Sample, elapsed
from benchmark.report import Curve, Figure

P = ParamSpec("P")

CACHE = 64 << 20
VALUE_BYTES = 100
REPEATS = 21
READS = 2_000
CHANGED = 10
FILES_IN_DIRECTORY = 1_000
FILE_BYTES = 500
SNAPSHOTS_OF = 100_000
"""Keys of the map that has many snapshots."""
CACHED = 500_000
"""Keys of the map that is read with less and less memory."""
SHARES = (1.0, 0.1, 0.01)
"""Memory for it, as a part of what it takes on the disk."""
IN_COMMIT = 1_000
COMMITS = 50
FULL = 0.95
FULL_VALUE_BYTES = 1_000
FULL_COMMIT = 10
"""Keys that a commit overwrites on the full image: it must fit into what is free."""

MICRO = 1e6
MIB = 1 << 20

Times = dict[str, float]
"""Microseconds, by operation."""

NOTES = [
    f"Times are medians of {REPEATS} durable operations with {CACHE // MIB} MiB of cache; a read "
    f"is one of {READS:,} at random. open is that of an image that was closed, first change that "
    "which follows, and reads the map of space.",
    "A figure that must not grow may differ by a quarter; one that may grow with the logarithm, "
    f"by that and a quarter. diff is of {CHANGED} changes.",
]


class Keys:
    name = "keys"

    def __init__(self) -> None:
        self.random = random.Random(0)

    def key(self, number: int) -> bytes:
        return number.to_bytes(16, "big")

    def fill(self, store: cowfs.Store, size: int) -> None:
        with store.transaction() as tx:
            tx.create(self.name).load_sorted(
                (self.key(number), self.random.randbytes(VALUE_BYTES)) for number in range(size)
            )

    def change(self, store: cowfs.Store | cowfs.Transaction, number: int) -> None:
        store[self.name][self.key(number)] = self.random.randbytes(VALUE_BYTES)

    def read(self, view: cowfs.KV, number: int) -> None:
        view[self.key(number)]


class Files:
    name = "files"

    def __init__(self) -> None:
        self.random = random.Random(0)

    def path(self, number: int) -> str:
        directory, file = divmod(number, FILES_IN_DIRECTORY)
        return f"d{directory}/f{file}"

    def fill(self, store: cowfs.Store, size: int) -> None:
        with store.transaction() as tx:
            files = tx.create(self.name, kind="fs")
            for number in range(size):
                if number % FILES_IN_DIRECTORY == 0:
                    files.mkdir(f"d{number // FILES_IN_DIRECTORY}")
                files.write_bytes(self.path(number), self.random.randbytes(FILE_BYTES))

    def change(self, store: cowfs.Store | cowfs.Transaction, number: int) -> None:
        store[self.name].write_bytes(self.path(number), self.random.randbytes(FILE_BYTES))

    def read(self, view: cowfs.FS, number: int) -> None:
        view.read_bytes(self.path(number))


# What each operation may do when the store grows.
CONSTANT = ("snapshot", "clone", "rollback", "open")
LOGARITHMIC = ("change", "first change", "read", "diff", "destroy")


def operations(image: Path, store: cowfs.Store, subject: Keys | Files, size: int) -> Times:
    """Each operation on a filled store, which is closed at the end."""
    source = random.Random(size)
    head = subject.name
    spent: dict[str, list[float]] = {}

    def timed(operation: str, action: Callable[P, object], *args: P.args, **kw: P.kwargs) -> None:
        spent.setdefault(operation, []).append(elapsed(action, *args, **kw))

    store.snapshot(f"{head}@0")
    for number in range(1, REPEATS + 1):
        before, now = f"{head}@{number - 1}", f"{head}@{number}"
        chosen = source.sample(range(size), CHANGED)
        with store.transaction() as tx:
            for each in chosen:
                subject.change(tx, each)
        store.snapshot(now)  # stores the changes, which may be in the log only
        timed("diff", list_diff, store, before, now)
        timed("change", subject.change, store, chosen[0])
        timed("snapshot", store.snapshot, f"{head}@timed")
        store.destroy(f"{head}@timed")
        timed("clone", store.clone, now, "clone")
        store.destroy("clone")
        timed("rollback", store.rollback, now)
        timed("destroy", store.destroy, before)
    store.destroy(f"{head}@{REPEATS}")
    chosen = [source.randrange(size) for _ in range(READS)]
    with store.at(head) as view:
        reads = [elapsed(subject.read, view, number) for number in chosen]
    store.close()
    for number in chosen[:REPEATS]:
        timed("open", open_and_close, image)
        with cowfs.open(image, "w", cache=CACHE) as again:
            timed("first change", subject.change, again, number)
    found = {operation: median(values) * MICRO for operation, values in spent.items()}
    return found | {"read": median(reads) * MICRO}


def list_diff(store: cowfs.Store, old: str, new: str) -> None:
    exhaust(store.diff(old, new))


def open_and_close(image: Path) -> None:
    cowfs.open(image, "w", cache=CACHE).close()


def by_size(
    subject: Keys | Files, sizes: Sequence[int], directory: Path, progress: Callable[[str], None]
) -> tuple[list[Curve], list[Figure]]:
    found: dict[int, Times] = {}
    for size in sizes:
        progress(f"{size:,} {subject.name}")
        image = directory / f"{subject.name}-{size}.cow"
        store = cowfs.open(image, "n", cache=CACHE)
        subject.fill(store, size)
        found[size] = operations(image, store, subject, size)
        image.unlink()
    chart = f"operations by number of {subject.name}"
    curves = make_curves(chart, subject.name, "µs", found)
    return curves, growth(subject.name, found)


def growth(what: str, found: Mapping[int, Times]) -> list[Figure]:
    """Between the smallest and the largest size, beside what it may be."""
    small, large = min(found), max(found)
    if small == large:
        return []
    logarithm = math.log(large) / math.log(small)
    return [
        Figure(
            f"{operation}, {large:,} : {small:,} {what}",
            Sample((found[large][operation] / found[small][operation],)),
            "×",
            at_most=round(SAME * (1 if operation in CONSTANT else logarithm), 2),
        )
        for operation in (*CONSTANT, *LOGARITHMIC)
        if operation in found[small]
    ]


def make_curves(
    chart: str, across: str, up: str, found: Mapping[int, Times] | Mapping[float, Times]
) -> list[Curve]:
    lines = list(dict.fromkeys(line for times in found.values() for line in times))
    return [
        Curve(
            chart=chart,
            line=line,
            across=across,
            up=up,
            points=tuple((size, times[line]) for size, times in found.items() if line in times),
        )
        for line in lines
    ]


def by_snapshots(
    counts: Sequence[int], directory: Path, progress: Callable[[str], None]
) -> tuple[list[Curve], list[Figure]]:
    """One map with more and more snapshots, each with a change behind it."""
    source = random.Random(0)
    keys = Keys()
    image = directory / "snapshots.cow"
    store = cowfs.open(image, "n", cache=CACHE)
    keys.fill(store, SNAPSHOTS_OF)
    found: dict[int, Times] = {}
    made = 0
    for count in counts:
        progress(f"{count:,} snapshots")
        while made < count:
            with store.transaction(durable=False) as tx:
                keys.change(tx, source.randrange(SNAPSHOTS_OF))
                tx.snapshot(f"keys@s{made}")
            made += 1
        store.sync()
        spent: dict[str, list[float]] = {}
        for number in range(REPEATS):
            chosen = source.randrange(SNAPSHOTS_OF)
            spent.setdefault("change", []).append(elapsed(keys.change, store, chosen))
            name = f"keys@extra{number}"
            spent.setdefault("snapshot", []).append(elapsed(store.snapshot, name))
            spent.setdefault("rollback", []).append(elapsed(store.rollback, name))
            spent.setdefault("clone", []).append(elapsed(store.clone, name, "clone"))
            store.destroy("clone")
            spent.setdefault("destroy", []).append(elapsed(store.destroy, name))
        store.close()
        spent["open"] = [elapsed(open_and_close, image) for _ in range(REPEATS)]
        store = cowfs.open(image, "w", cache=CACHE)
        found[count] = {name: median(values) * MICRO for name, values in spent.items()}
        found[count]["list"] = elapsed(store.list) * MICRO / max(1, count)
    store.close()
    image.unlink()
    chart = "operations by number of snapshots (list: a snapshot)"
    figures = growth("snapshots", {max(2, count): times for count, times in found.items()})
    return make_curves(chart, "snapshots", "µs", found), figures


def by_cache(
    items: int, directory: Path, progress: Callable[[str], None]
) -> tuple[list[Curve], list[Figure]]:
    """The same map, with memory for all of it and for parts."""
    keys = Keys()
    image = directory / "cache.cow"
    with cowfs.open(image, "n", cache=CACHE) as store:
        keys.fill(store, items)
        (entry,) = store.list()
    found: dict[float, Times] = {}
    for share in SHARES:
        progress(f"memory for {share:.0%} of the data")
        cache = max(
            MIB, round(2 * share * entry.referenced)
        )  # pages are larger than what is stored
        source = random.Random(0)
        with cowfs.open(image, "w", cache=cache) as store:
            with store.at("keys") as view:
                scan = elapsed(exhaust, view.items())
                chosen = [keys.key(source.randrange(items)) for _ in range(READS * 10)]
                get = elapsed(exhaust, map(view.get, chosen)) / len(chosen)
            spent = [elapsed(commit_some, store, keys, source, items) for _ in range(COMMITS)]
        found[share * 100] = {
            "get": get * MICRO,
            "scan, an item": scan / items * MICRO,
            f"put, {IN_COMMIT:,} a commit": median(spent) / IN_COMMIT * MICRO,
        }
    image.unlink()
    chart = f"{items:,} keys with less memory"
    return make_curves(chart, "cache, % of the data", "µs", found), []


def exhaust(items: Iterator[object]) -> None:
    for _ in items:
        pass


def commit_some(store: cowfs.Store, keys: Keys, source: random.Random, items: int) -> None:
    with store.transaction() as tx:
        for _ in range(IN_COMMIT):
            keys.change(tx, source.randrange(items))


@dataclass
class FullStore:
    """An image of limited size, so full that just the overwrites fit."""

    image: Path
    keys: list[bytes]
    source: random.Random

    @classmethod
    def make(cls, image: Path, size: int) -> "FullStore":
        source = random.Random(size)
        keys: list[bytes] = []
        with cowfs.open(image, "n", cache=CACHE, size=size) as store:
            full = store.create("full")
            while store.space().free > (1 - FULL) * size:
                fresh = [source.randbytes(16) for _ in range(FULL_COMMIT)]
                try:
                    full.update((key, source.randbytes(FULL_VALUE_BYTES)) for key in fresh)
                except cowfs.OutOfSpaceError:
                    break  # what is left is the reserve, which overwriting may use a part of
                keys += fresh
        return cls(image, keys, source)

    def overwrite(self, commits: int) -> float:
        """Seconds that a durable commit takes, on average."""
        with cowfs.open(self.image, "w", cache=CACHE) as store:

            def run() -> None:
                for _ in range(commits):
                    with store.transaction() as tx:
                        full = tx["full"]
                        for key in self.source.sample(self.keys, FULL_COMMIT):
                            full[key] = self.source.randbytes(FULL_VALUE_BYTES)

            return elapsed(run) / commits

    def cold_scan(self) -> float:
        """Seconds to read all of it in order, with nothing of the image in memory."""
        with self.image.open("rb") as file:
            os.fdatasync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with cowfs.open(self.image, "r", cache=CACHE) as store, store.at("full") as view:
            return elapsed(exhaust, view.items())

    def fullness(self) -> float:
        with cowfs.open(self.image, "r") as store:
            space = store.space()
        return 1 - space.free / space.total


def by_age(
    size: int, ages: Sequence[int], directory: Path, progress: Callable[[str], None]
) -> tuple[list[Curve], list[Figure]]:
    """A full image, overwritten at random so many times its own size."""
    progress(f"filling {size // MIB} MiB")
    store = FullStore.make(directory / "full.cow", size)
    commits = max(1, len(store.keys) // FULL_COMMIT)
    found: dict[int, Times] = {}
    for before, age in pairwise((0, *ages)):
        progress(f"overwriting it {age} times")
        store.overwrite((age - before) * commits)
        found[age] = {
            f"durable commit of {FULL_COMMIT} overwrites": store.overwrite(COMMITS) * MICRO,
            "cold scan, an item": store.cold_scan() / len(store.keys) * MICRO,
        }
    percent = round(store.fullness() * 100)
    chart = f"an image of {size // MIB} MiB that is {percent} % full"
    figures = [
        Figure(
            f"{line}, overwritten {ages[-1]} : {ages[0]} times, {percent} % full",
            Sample((found[ages[-1]][line] / found[ages[0]][line],)),
            "×",
            at_most=SAME,
        )
        for line in found[ages[0]]
    ]
    store.image.unlink()
    return make_curves(chart, "times overwritten", "µs", found), figures


PARTS = ("keys", "files", "snapshots", "cache", "full")


@dataclass(frozen=True)
class Sizes:
    """How far each part goes."""

    keys: Sequence[int]
    files: Sequence[int]
    snapshots: Sequence[int]
    cached: int
    full: int
    ages: Sequence[int]


def measure(
    parts: Collection[str], sizes: Sizes, directory: Path, progress: Callable[[str], None]
) -> tuple[list[Curve], list[Figure]]:
    runs: dict[str, Callable[[], tuple[list[Curve], list[Figure]]]] = {
        "keys": lambda: by_size(Keys(), sizes.keys, directory, progress),
        "files": lambda: by_size(Files(), sizes.files, directory, progress),
        "snapshots": lambda: by_snapshots(sizes.snapshots, directory, progress),
        "cache": lambda: by_cache(sizes.cached, directory, progress),
        "full": lambda: by_age(sizes.full, sizes.ages, directory, progress),
    }
    curves: list[Curve] = []
    figures: list[Figure] = []
    for part in parts:
        drawn, judged = runs[part]()
        curves += drawn
        figures += judged
    return curves, figures
