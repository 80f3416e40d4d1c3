"""SQLite with a write-ahead log that is flushed at every commit."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from benchmark.engines.base import Engine, Pair, Reader

CACHE_KIB = 1 << 20
PUT = "INSERT OR REPLACE INTO bench VALUES (?, ?)"
GET = "SELECT v FROM bench WHERE k = ?"
SCAN = "SELECT k, v FROM bench ORDER BY k"
RANGE = "SELECT k, v FROM bench WHERE k >= ? ORDER BY k LIMIT ?"


class SqliteEngine(Engine):
    name = "sqlite"

    def __init__(self, directory: Path, capacity: int | None = None) -> None:
        self._db = sqlite3.connect(
            directory / "bench.sqlite", isolation_level=None, check_same_thread=False
        )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._db.execute("CREATE TABLE bench (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID")

    @classmethod
    def describe(cls) -> str:
        return f"SQLite {sqlite3.sqlite_version}, WAL, synchronous=FULL, cache 1 GiB"

    def load_sorted(self, pairs: Iterable[Pair]) -> None:
        self._put_all(pairs)

    def put_many(self, pairs: Sequence[Pair]) -> None:
        self._put_all(pairs)

    def _put_all(self, pairs: Iterable[Pair]) -> None:
        with self._db:
            self._db.execute("BEGIN")
            self._db.executemany(PUT, pairs)

    def put(self, key: bytes, value: bytes) -> None:
        self._db.execute(PUT, (key, value))

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        with closing(self._db.cursor()) as cursor:
            execute = cursor.execute

            def get(key: bytes) -> bytes | None:
                row = execute(GET, (key,)).fetchone()
                return row[0] if row else None

            yield Reader(
                get,
                lambda keys: [get(key) for key in keys],
                lambda: self._db.execute(SCAN),
                lambda start, count: self._db.execute(RANGE, (start, count)),
            )

    def close(self) -> None:
        self._db.close()


ENGINE = SqliteEngine
