"""LMDB through py-lmdb, as durable as it is by default (fdatasync at every commit)."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import lmdb

from benchmark.engines.base import Engine, Pair, Reader

MAP_SIZE = 64 << 30


class LmdbEngine(Engine):
    name = "lmdb"

    def __init__(self, directory: Path, capacity: int | None = None) -> None:
        self._env = lmdb.open(
            str(directory / "bench.lmdb"), map_size=capacity or MAP_SIZE, subdir=False
        )

    @classmethod
    def describe(cls) -> str:
        library = ".".join(map(str, lmdb.version()))
        return f"py-lmdb {lmdb.__version__}, LMDB {library}, default durability"

    def load_sorted(self, pairs: Iterable[Pair]) -> None:
        with self._env.begin(write=True) as txn:
            txn.cursor().putmulti(pairs, append=True)

    def put_many(self, pairs: Sequence[Pair]) -> None:
        with self._env.begin(write=True) as txn:
            put = txn.put
            for key, value in pairs:
                put(key, value)

    def put(self, key: bytes, value: bytes) -> None:
        with self._env.begin(write=True) as txn:
            txn.put(key, value)

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        with self._env.begin() as txn:
            get = txn.get

            def get_many(keys: Sequence[bytes]) -> list[bytes | None]:
                # Cursor.getmulti was measured, and is slower.
                return [get(key) for key in keys]

            def from_key(start: bytes, count: int) -> Iterator[Pair]:
                cursor = txn.cursor()
                cursor.set_range(start)
                return islice(cursor, count)

            yield Reader(get, get_many, txn.cursor, from_key)

    def close(self) -> None:
        self._env.close()


ENGINE = LmdbEngine
