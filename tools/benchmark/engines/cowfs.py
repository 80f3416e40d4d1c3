"""cowfs, compressing as by default, with a cache that holds what LMDB would have mapped."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import cowfs
from benchmark.engines.base import Engine, Pair, Reader

CACHE = 1 << 30
DATASET = "bench"
IMAGE = "bench.cow"


class CowfsEngine(Engine):
    name = "cowfs"
    copies = 1
    """Of metadata."""

    def __init__(self, directory: Path, capacity: int | None = None) -> None:
        self.image = directory / IMAGE
        self.store = cowfs.open(
            self.image, "c", cache=CACHE, size=capacity, metadata_copies=self.copies
        )
        if DATASET not in self.store:
            self.store.create(DATASET, kind="kv")
        self._live = self.store[DATASET]

    @classmethod
    def describe(cls) -> str:
        copies = f", metadata copies {cls.copies}" if cls.copies > 1 else ""
        return f"cowfs {cowfs.__version__}, LZ4, cache 1 GiB{copies}"

    def load_sorted(self, pairs: Iterable[Pair]) -> None:
        with self.store.transaction() as tx:
            tx[DATASET].load_sorted(pairs)

    def put_many(self, pairs: Sequence[Pair]) -> None:
        with self.store.transaction() as tx:
            bench = tx[DATASET]
            for key, value in pairs:
                bench[key] = value

    def put(self, key: bytes, value: bytes) -> None:
        self._live[key] = value

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        with self.store.at(DATASET) as view:
            yield Reader(
                view.get,
                view.get_many,
                view.items,
                lambda start, count: islice(view.items(start), count),
            )

    def close(self) -> None:
        self.store.close()


ENGINE = CowfsEngine
