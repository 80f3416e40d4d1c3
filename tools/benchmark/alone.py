"""What cowfs promises of itself: snapshots, diff, recovery, group commit, image size, start-up.

A measurement gives its figures by name, once a round; PROMISES says what each is and may be.
"""

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import cowfs
from benchmark.engines.base import Pair
from benchmark.engines.cowfs import DATASET, IMAGE, CowfsEngine
from benchmark.engines.lmdb import LmdbEngine
from benchmark.handover import Handover
from benchmark.kv import THREADS, VALUE_BYTES, Data, allocated, chunks
from benchmark.measure import Sample, best_command_seconds, elapsed
from benchmark.report import Figure

SMALL_ITEMS = 1_000
REPEATS = 100
TRANSACTIONS = 9
PUTS_IN_TRANSACTION = 1_000
CHANGED = 10
DIFFS = 21
KILLS = 3
COMMITS_BEFORE_KILL = 300
OVERWRITES = 3
BATCH = 1_000
COMMANDS = 15
JSON_BYTES = 200
WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "joule"]

# "The same cost", as far as two medians of durable commits can tell.
SAME = 1.25

MICRO = 1e6
MILLI = 1e3
MIB = 1 << 20


class Images:
    """Images to start from, each loaded once and then copied for every use."""

    def __init__(self, data: Data, directory: Path) -> None:
        self.data = data
        self._directory = directory
        self._copies: list[Path] = []
        self._small = self._load("small", data.pairs[:SMALL_ITEMS])
        self._full = self._load("full", data.pairs)

    def _load(self, name: str, pairs: list[Pair]) -> Path:
        directory = self._directory / name
        directory.mkdir(parents=True)
        engine = CowfsEngine(directory)
        engine.put_many(pairs)
        engine.close()
        return engine.image

    def empty(self) -> Path:
        """A directory for a store of one's own."""
        directory = self._directory / f"copy{len(self._copies)}"
        directory.mkdir()
        self._copies.append(directory)
        return directory

    def _copy(self, image: Path) -> Path:
        directory = self.empty()
        shutil.copyfile(image, directory / IMAGE)
        return directory

    def drop_copies(self) -> None:
        for directory in self._copies:
            shutil.rmtree(directory)
        self._copies.clear()

    def small(self) -> Path:
        """A directory with an image of few keys."""
        return self._copy(self._small)

    def full(self) -> Path:
        """A directory with an image of all keys."""
        return self._copy(self._full)


def snapshots(images: Images) -> dict[str, float]:
    """Single durable operations in turn on three images, so that they meet the same disk."""
    pairs = iter(images.data.new_pairs(4 * REPEATS))
    small, full, plain = engines = [
        CowfsEngine(directory) for directory in (images.small(), images.full(), images.full())
    ]
    for engine in engines:
        engine.put(*next(pairs))
    full.store.snapshot(f"{DATASET}@start")
    spent: list[tuple[float, ...]] = []
    for number in range(REPEATS):
        name = f"{DATASET}@{number}"
        put_plain = elapsed(plain.put, *next(pairs))
        put_after = elapsed(full.put, *next(pairs))
        snapshot_full = elapsed(full.store.snapshot, name)
        small.put(*next(pairs))
        snapshot_small = elapsed(small.store.snapshot, name)
        spent.append((put_plain, put_after, snapshot_full, snapshot_small))
    for engine in engines:
        engine.close()
    put_plain, put_after, snapshot_full, snapshot_small = map(median, zip(*spent, strict=True))
    return {
        "put": put_plain * MICRO,
        "put-after": put_after * MICRO,
        "put-after : put": put_after / put_plain,
        "snapshot-full": snapshot_full * MICRO,
        "snapshot-small": snapshot_small * MICRO,
        "snapshot-full : put": snapshot_full / put_plain,
        "snapshot-full : snapshot-small": snapshot_full / snapshot_small,
    }


def snapshots_in_transaction(images: Images) -> dict[str, float]:
    """The same puts in two transactions, of which one began with a snapshot."""
    engine = CowfsEngine(images.full())
    without: list[float] = []
    after: list[float] = []
    for number in range(TRANSACTIONS):
        for spent in (without, after):
            pairs = images.data.new_pairs(PUTS_IN_TRANSACTION)
            with engine.store.transaction() as tx:
                if spent is after:
                    tx.snapshot(f"{DATASET}@{number}")
                spent.append(elapsed(put_all, tx[DATASET], pairs))
            if spent is after:
                engine.store.destroy(f"{DATASET}@{number}")
    engine.close()
    return {
        "tx-put": median(without) / PUTS_IN_TRANSACTION * MICRO,
        "tx-put-after": median(after) / PUTS_IN_TRANSACTION * MICRO,
        "tx-put-after : tx-put": median(after) / median(without),
    }


def put_all(bench: MutableMapping[bytes, bytes], pairs: Iterable[Pair]) -> None:
    for key, value in pairs:
        bench[key] = value


def diff(images: Images) -> dict[str, float]:
    engine = CowfsEngine(images.full())
    before, after = f"{DATASET}@before", f"{DATASET}@after"
    engine.store.snapshot(before)
    changed = random.sample(images.data.pairs, CHANGED)
    engine.put_many([(key, bytes(reversed(value))) for key, value in changed])
    engine.store.snapshot(after)

    def run() -> None:
        found = {change.path for change in engine.store.diff(before, after)}
        if found != {key for key, _ in changed}:
            raise RuntimeError(f"diff found {len(found)} changes, not the {CHANGED} that were made")

    run()
    spent = [elapsed(run) for _ in range(DIFFS)]
    engine.close()
    return {"diff": median(spent) * MILLI}


def open_after_kill(images: Images) -> dict[str, float]:
    """A child commits until it is killed; what it acknowledged must be there after the open."""
    spent = []
    for _ in range(KILLS):
        image = images.full() / IMAGE
        command = [sys.executable, str(Path(__file__).with_name("writer.py")), str(image), DATASET]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout
            acknowledged = [writer.stdout.readline() for _ in range(COMMITS_BEFORE_KILL)]
            writer.kill()
            acknowledged += writer.stdout.readlines()
        whole = [line.rstrip(b"\n") for line in acknowledged if line.endswith(b"\n")]
        start = time.perf_counter()
        store = cowfs.open(image, "w")
        spent.append(time.perf_counter() - start)
        if len(whole) < COMMITS_BEFORE_KILL or not all(key in store[DATASET] for key in whole):
            raise RuntimeError("an acknowledged commit was lost")
        store.close()
    return {"open": median(spent) * MILLI}


def size(images: Images) -> dict[str, float]:
    """Every key overwritten several times, each time in a new order, in durable batches."""
    engine = CowfsEngine(images.full())
    keys = [key for key, _ in images.data.pairs]
    for _ in range(OVERWRITES):
        random.shuffle(keys)
        for batch in chunks([(key, random.randbytes(VALUE_BYTES)) for key in keys], BATCH):
            engine.put_many(batch)
    (entry,) = engine.store.list()
    engine.close()
    stat = engine.image.stat()
    allocated = stat.st_blocks * 512
    return {
        "live": entry.referenced / MIB,
        "apparent": stat.st_size / MIB,
        "allocated": allocated / MIB,
        "allocated : live": allocated / entry.referenced,
    }


def json_pair(number: int, source: random.Random) -> Pair:
    """A record as programs keep them: some text that repeats, some numbers that do not."""
    record = {
        "id": number,
        "name": f"{source.choice(WORDS)} {source.choice(WORDS)}",
        "mail": f"{source.choice(WORDS)}{source.randrange(10_000)}@example.org",
        "created": f"2026-{source.randrange(1, 13):02}-{source.randrange(1, 29):02}T08:30:00Z",
        "balance": source.randrange(1_000_000) / 100,
        "active": source.random() < 0.9,
        "note": "",
    }
    room = JSON_BYTES - len(json.dumps(record))
    record["note"] = " ".join(source.choices(WORDS, k=room // 5))[:room].ljust(room)
    return source.randbytes(16), json.dumps(record).encode()


def json_size(images: Images) -> dict[str, float]:
    """Image sizes after one load in random order, of cowfs and of LMDB."""
    source = random.Random(JSON_BYTES)
    pairs = [json_pair(number, source) for number in range(len(images.data.pairs))]
    sizes = {}
    for engine_class in (CowfsEngine, LmdbEngine):
        directory = images.empty()
        engine = engine_class(directory)
        engine.put_many(pairs)
        engine.close()
        sizes[engine_class.name] = allocated(directory) / MIB
    return {
        "json-cowfs": sizes["cowfs"],
        "json-lmdb": sizes["lmdb"],
        "json-cowfs : json-lmdb": sizes["cowfs"] / sizes["lmdb"],
    }


def group_commit(images: Images) -> dict[str, float]:
    """Single durable puts, by one thread and by several; and the limit, without a store."""
    engine = CowfsEngine(images.full())
    pairs = images.data.new_pairs(THREADS * REPEATS)

    def put_share(share: Iterable[Pair]) -> None:
        for key, value in share:
            engine.put(key, value)

    alone = elapsed(put_share, pairs)
    with ThreadPoolExecutor(THREADS) as pool:
        together = elapsed(lambda: list(pool.map(put_share, chunks(pairs, REPEATS))))
    engine.close()
    limit = Handover(images.empty())
    limit_alone, limit_together = limit.seconds([pairs]), limit.seconds(chunks(pairs, REPEATS))
    limit.close()
    return {
        "one": alone / len(pairs) * MICRO,
        "together": together / len(pairs) * MICRO,
        "one : together": alone / together,
        "limit-one": limit_alone / len(pairs) * MICRO,
        "limit-together": limit_together / len(pairs) * MICRO,
        "limit-one : limit-together": limit_alone / limit_together,
    }


def start_up(images: Images) -> dict[str, float]:
    image = images.small() / IMAGE
    script = Path(sys.executable).with_name("cowfs")
    return {
        "import": best_command_seconds([sys.executable, "-c", "import cowfs"], COMMANDS) * MILLI,
        "list": best_command_seconds([script, "list", image], COMMANDS) * MILLI,
    }


@dataclass(frozen=True)
class Promise:
    """A figure of a measurement: what it is, its unit, what it may be at most or at least."""

    figure: str
    title: str
    unit: str
    at_most: float | None = None
    at_least: float | None = None


@dataclass(frozen=True)
class Measurement:
    name: str
    run: Callable[[Images], dict[str, float]]
    promises: tuple[Promise, ...]
    every_round: bool = True


MEASUREMENTS = (
    Measurement(
        "snapshot",
        snapshots,
        (
            Promise("put", "durable put, no snapshot", "µs"),
            Promise("put-after", "durable put directly after a snapshot", "µs"),
            Promise("snapshot-small", "durable snapshot, {small} keys", "µs"),
            Promise("snapshot-full", "durable snapshot, {full} keys", "µs"),
            Promise("snapshot-full : put", "snapshot : put", "×", SAME),
            Promise("snapshot-full : snapshot-small", "snapshot, {full} : {small} keys", "×", SAME),
            Promise("put-after : put", "durable put after a snapshot : without", "×", 2),
        ),
    ),
    Measurement(
        "put-after-snapshot",
        snapshots_in_transaction,
        (
            Promise("tx-put", "put in a transaction", "µs"),
            Promise("tx-put-after", "put in a transaction that took a snapshot", "µs"),
            Promise("tx-put-after : tx-put", "put in a transaction, with : without", "×", 2),
        ),
    ),
    Measurement("diff", diff, (Promise("diff", f"diff, {CHANGED} of {{full}} keys", "ms", 5),)),
    Measurement(
        "open",
        open_after_kill,
        (Promise("open", "open after a kill, {full} keys", "ms", 50),),
    ),
    Measurement(
        "size",
        size,
        (
            Promise("live", f"live data, all keys overwritten {OVERWRITES} times", "MiB"),
            Promise("apparent", "image file, apparent", "MiB"),
            Promise("allocated", "image file, allocated", "MiB"),
            Promise("allocated : live", "allocated : live", "×", 1.3),
        ),
        every_round=False,
    ),
    Measurement(
        "json-size",
        json_size,
        (
            Promise("json-cowfs", f"image, JSON-like values of {JSON_BYTES} bytes", "MiB"),
            Promise("json-lmdb", "the same in LMDB", "MiB"),
            Promise("json-cowfs : json-lmdb", "cowfs : LMDB", "×", 0.5),
        ),
        every_round=False,
    ),
    Measurement(
        "group-commit",
        group_commit,
        (
            Promise("one", "durable put, one thread", "µs"),
            Promise("together", f"durable put, {THREADS} threads", "µs"),
            Promise("one : together", f"{THREADS} threads : one", "×", at_least=4),
            Promise("limit-one", "a flush and no store, one thread", "µs"),
            Promise("limit-together", f"a flush and no store, {THREADS} threads", "µs"),
            Promise("limit-one : limit-together", f"no store, {THREADS} threads : one", "×"),
        ),
    ),
    Measurement(
        "start",
        start_up,
        (
            Promise("import", "python -c 'import cowfs', best run", "ms", 100),
            Promise("list", "cowfs list IMAGE, best run", "ms", 200),
        ),
    ),
)


NOTES = [
    "'The same' is taken as within a quarter. Times of commands include the interpreter's start.",
    "Live data is what the dataset references in the image: its nodes, filled as they are.",
]


def measure(
    measurements: Collection[Measurement],
    items: int,
    rounds: int,
    directory: Path,
    progress: Callable[[str], None],
) -> list[Figure]:
    if not measurements:
        return []
    progress("cowfs alone: loading")
    images = Images(Data(items), directory / "images")
    found: dict[str, list[float]] = {}
    for number in range(1, rounds + 1):
        for measurement in measurements:
            if number == 1 or measurement.every_round:
                progress(f"round {number} of {rounds}: {measurement.name}, cowfs alone")
                for figure, value in measurement.run(images).items():
                    found.setdefault(figure, []).append(value)
                images.drop_copies()
    counts = {"small": f"{SMALL_ITEMS:,}", "full": f"{items:,}"}
    return [
        Figure(
            what=promise.title.format(**counts),
            sample=Sample(tuple(found[promise.figure])),
            unit=promise.unit,
            at_most=promise.at_most,
            at_least=promise.at_least,
        )
        for measurement in measurements
        for promise in measurement.promises
    ]
