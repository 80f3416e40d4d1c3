"""Workloads that every key-value engine can run.

A round runs each workload on each engine in turn, so that a slow minute of the machine meets all
of them. What an engine stored is read back and compared, outside the measured time.
"""

import random
import shutil
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from benchmark.engines.base import Engine, Pair
from benchmark.measure import Sample, elapsed_when_quiet
from benchmark.report import Goal, Race

KEY_BYTES = 16
VALUE_BYTES = 100
GETS = 500_000
SINGLES = 2_000
BATCHES = 200
BATCH = 100
COMMIT = 1_000
MANY = 1_000
"""Keys that one `get_many` asks for."""
RANGES = 5_000
RANGE = 100
THREADS = 16
AGED = 0.6
"""Part of a store's capacity that is in use when it ages."""
PAGE = 4096
SMALLEST_PART = 250
SMALLEST_STORE = 2 << 20
"""Bytes: what cowfs makes at least."""
AGE = 150
"""Commits of overwrites that age a store, and that are then measured."""


class Data:
    """What the workloads put and ask for: the same for every engine and round."""

    def __init__(self, items: int) -> None:
        self._random = random.Random(items)
        self.pairs = self.new_pairs(items)
        self.ascending = sorted(self.pairs)
        self.wanted = self._random.sample(self.pairs, min(items, GETS))
        self.singles = self.new_pairs(SINGLES)
        self.batches = chunks(self.new_pairs(BATCHES * BATCH), BATCH)
        self.from_threads = self.new_pairs(SINGLES)
        self.starts = [key for key, _ in self.ascending[:-RANGE]]
        self.starts = self._random.sample(self.starts, min(RANGES, len(self.starts)))

    @property
    def overwrite(self) -> int:
        """Keys that one commit overwrites: not so many that a small store is written anew."""
        return min(COMMIT, max(1, len(self.pairs) // SMALLEST_PART))

    def overwrites(self, commits: int) -> list[Sequence[Pair]]:
        """New values for keys chosen at random, in commits."""
        count = commits * self.overwrite
        chosen = self._random.choices(self.pairs, k=count)
        fresh = self.new_pairs(count)
        pairs = [(key, value) for (key, _), (_, value) in zip(chosen, fresh, strict=True)]
        return chunks(pairs, self.overwrite)

    def new_pairs(self, count: int) -> list[Pair]:
        keys = self._random.randbytes(count * KEY_BYTES)
        values = self._random.randbytes(count * VALUE_BYTES)
        return [
            (
                keys[i * KEY_BYTES : (i + 1) * KEY_BYTES],
                values[i * VALUE_BYTES : (i + 1) * VALUE_BYTES],
            )
            for i in range(count)
        ]


def chunks(pairs: Sequence[Pair], size: int) -> list[Sequence[Pair]]:
    return [pairs[start : start + size] for start in range(0, len(pairs), size)]


class Lane:
    """One engine in one round: where it keeps its stores, and the full one that several use."""

    def __init__(self, engine: type[Engine], directory: Path, data: Data) -> None:
        self._engine = engine
        self._directory = directory
        self._stores = 0
        self._full: Engine | None = None
        self.data = data
        directory.mkdir()

    def new_store(self, capacity: int | None = None) -> Engine:
        self._stores += 1
        directory = self._directory / f"{self._engine.name}-{self._stores}"
        directory.mkdir()
        return self._engine(directory, capacity)

    def newest_bytes(self) -> int:
        """What the store that was made last takes on its disk; it should be closed."""
        return allocated(self._directory / f"{self._engine.name}-{self._stores}")

    def full_store(self) -> Engine:
        """A store with all pairs, put in random order."""
        if self._full is None:
            self._full = self.new_store()
            self._full.put_many(self.data.pairs)
        return self._full

    def keep_as_full(self, store: Engine) -> None:
        self._full = store

    def close(self) -> None:
        if self._full:
            self._full.close()
        shutil.rmtree(self._directory)


def allocated(directory: Path) -> int:
    """Bytes that all files below a directory take on their disk."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return sum(path.stat().st_blocks * 512 for path in files)


def check_all(store: Engine, expected: Sequence[Pair]) -> None:
    with store.reader() as reader:
        if not all(found == pair for found, pair in zip_longest(reader.items(), expected)):
            raise RuntimeError(f"{store.name} does not hold what was loaded")


def check_some(store: Engine, expected: Sequence[Pair]) -> None:
    with store.reader() as reader:
        if not all(reader.get(key) == value for key, value in expected):
            raise RuntimeError(f"{store.name} does not hold what was put")


def sorted_load(lane: Lane) -> float:
    store = lane.new_store()
    spent = elapsed_when_quiet(store.load_sorted, lane.data.ascending)
    check_all(store, lane.data.ascending)
    store.close()
    return spent


def random_load(lane: Lane) -> float:
    store = lane.new_store()
    spent = elapsed_when_quiet(store.put_many, lane.data.pairs)
    check_all(store, lane.data.ascending)
    lane.keep_as_full(store)
    return spent


def random_get(lane: Lane) -> float:
    store = lane.full_store()
    check_some(store, lane.data.wanted)  # warms the store up, too
    keys = [key for key, _ in lane.data.wanted]
    with store.reader() as reader:
        get = reader.get

        def run() -> None:
            for key in keys:
                get(key)

        return elapsed_when_quiet(run)


def many_gets(lane: Lane) -> float:
    store = lane.full_store()
    check_some(store, lane.data.wanted)
    wanted = [key for key, _ in lane.data.wanted]
    batches = [wanted[start : start + MANY] for start in range(0, len(wanted), MANY)]
    with store.reader() as reader:
        get_many = reader.get_many

        def run() -> None:
            for keys in batches:
                get_many(keys)

        return elapsed_when_quiet(run)


def ranges(lane: Lane) -> float:
    store = lane.full_store()
    check_some(store, lane.data.wanted)
    with store.reader() as reader:
        from_key = reader.range

        def run() -> None:
            for start in lane.data.starts:
                for _key, _value in from_key(start, RANGE):
                    pass

        return elapsed_when_quiet(run)


def scan(lane: Lane) -> float:
    store = lane.full_store()
    check_some(store, lane.data.wanted)
    with store.reader() as reader:

        def run() -> None:
            for _key, _value in reader.items():
                pass

        return elapsed_when_quiet(run)


def durable_batches(lane: Lane) -> float:
    store = lane.full_store()

    def run() -> None:
        for batch in lane.data.batches:
            store.put_many(batch)

    spent = elapsed_when_quiet(run)
    check_some(store, [pair for batch in lane.data.batches for pair in batch])
    return spent


def durable_singles(lane: Lane) -> float:
    store = lane.full_store()

    def run() -> None:
        for key, value in lane.data.singles:
            store.put(key, value)

    spent = elapsed_when_quiet(run)
    check_some(store, lane.data.singles)
    return spent


def durable_threads(lane: Lane) -> float:
    store = lane.full_store()
    pairs = lane.data.from_threads

    def put_share(number: int) -> None:
        for key, value in pairs[number::THREADS]:
            store.put(key, value)

    def run() -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(put_share, range(THREADS)))

    spent = elapsed_when_quiet(run)
    check_some(store, pairs)
    return spent


def committed_load(lane: Lane) -> float:
    store = lane.new_store()
    spent = elapsed_when_quiet(put_commits, store, chunks(lane.data.pairs, COMMIT))
    check_all(store, lane.data.ascending)
    store.close()
    return spent


def put_commits(store: Engine, commits: Sequence[Sequence[Pair]]) -> None:
    for pairs in commits:
        store.put_many(pairs)


def aged_load(lane: Lane) -> float:
    """Overwrites of a store of limited size, after as many that scattered its free space."""
    store = lane.new_store()
    store.put_many(lane.data.pairs)
    store.close()
    pages = round(lane.newest_bytes() / AGED / PAGE)
    store = lane.new_store(capacity=max(SMALLEST_STORE, pages * PAGE))
    store.put_many(lane.data.pairs)
    commits = lane.data.overwrites(2 * AGE)
    put_commits(store, commits[:AGE])
    spent = elapsed_when_quiet(put_commits, store, commits[AGE:])
    newest = dict(lane.data.pairs)
    for pairs in commits:
        newest.update(pairs)
    check_all(store, sorted(newest.items()))
    store.close()
    return spent


@dataclass(frozen=True)
class Workload:
    """What is run, how many operations that is, and what cowfs owes beside its peers."""

    name: str
    title: str
    run: Callable[[Lane], float]
    operations: Callable[[Data], int]
    goals: tuple[Goal, ...] = ()


def lmdb(at_least: float) -> tuple[Goal, ...]:
    return (Goal("lmdb", at_least),)


def _all_items(data: Data) -> int:
    return len(data.pairs)


def _gets(data: Data) -> int:
    return len(data.wanted)


# In the order in which a round runs them.
WORKLOADS = (
    Workload("sorted-load", "sorted load, one transaction, bulk", sorted_load, _all_items, lmdb(2)),
    Workload("random-load", "random load, one transaction", random_load, _all_items, lmdb(1.5)),
    Workload("get", "warm random get", random_get, _gets, lmdb(1.2)),
    Workload("get-many", f"get_many of {MANY:,}, a key", many_gets, _gets, lmdb(2)),
    Workload("scan", "ordered scan of all items", scan, _all_items, lmdb(1.5)),
    Workload("range", f"range of {RANGE} items", ranges, lambda data: len(data.starts), lmdb(1)),
    Workload("batch", f"batch of {BATCH}, durable", durable_batches, lambda _: BATCHES, lmdb(4)),
    Workload(
        "put",
        "single put, durable",
        durable_singles,
        lambda _: SINGLES,
        (Goal("lmdb", 2.3), Goal("sqlite", 1)),
    ),
    Workload(
        "put-threads",
        f"single puts, durable, {THREADS} threads",
        durable_threads,
        lambda _: SINGLES,
    ),
    Workload(
        "commit-load", f"random load, {COMMIT:,} a commit", committed_load, _all_items, lmdb(2)
    ),
    Workload(
        "aged-load",
        f"the same on a store aged to {AGED:.0%} full",
        aged_load,
        lambda data: AGE * data.overwrite,
        lmdb(1.2),
    ),
)


NOTES = [
    "Rates are medians of the rounds (slowest to fastest); a ratio is the median of the rounds' "
    "own ratios. A round runs each workload on each engine in turn.",
    f"Keys are {KEY_BYTES} and values {VALUE_BYTES} random bytes, which do not compress. "
    "Every engine gets the same, and what it holds is compared afterwards.",
    "Gets and the scan read a store that was filled in random order by one transaction; puts go "
    "into it. All puts but those of the bulk load are single calls in the program's own loop, "
    "except SQLite's (executemany); RocksDB's go into one batch.",
    "cowfs, SQLite and RocksDB have 1 GiB of cache, since these rows are about memory and LMDB "
    "maps all. raw is the limit, not a store: see engines/raw.py.",
]


def race(
    engines: Collection[type[Engine]],
    workloads: Collection[Workload],
    items: int,
    rounds: int,
    directory: Path,
    progress: Callable[[str], None],
) -> list[Race]:
    if not workloads:
        return []
    data = Data(items)
    spent: dict[tuple[Workload, type[Engine]], list[float]] = {}
    for number in range(1, rounds + 1):
        with ExitStack() as stack:
            lanes = {}
            for engine in engines:
                lanes[engine] = Lane(engine, directory / f"{engine.name}-round{number}", data)
                stack.callback(lanes[engine].close)
            for workload in workloads:
                for engine, lane in lanes.items():
                    progress(f"round {number} of {rounds}: {workload.title}, {engine.name}")
                    spent.setdefault((workload, engine), []).append(workload.run(lane))
    return [
        Race(
            workload=workload.title,
            operations=workload.operations(data),
            seconds={engine.name: Sample(tuple(spent[workload, engine])) for engine in engines},
            goals=workload.goals,
        )
        for workload in workloads
    ]
