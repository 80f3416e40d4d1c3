"""RocksDB through rocksdict, with its log flushed at every commit."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import cast

from rocksdict import (
    BlockBasedOptions,
    Cache,
    Options,
    Rdict,
    SstFileWriter,
    WriteBatch,
    WriteOptions,
)

from benchmark.engines.base import Engine, Pair, Reader

CACHE = 1 << 30


class RocksdbEngine(Engine):
    name = "rocksdb"

    def __init__(self, directory: Path, capacity: int | None = None) -> None:
        self._directory = directory
        blocks = BlockBasedOptions()
        blocks.set_block_cache(Cache(CACHE))
        self._options = Options(raw_mode=True)
        self._options.create_if_missing(True)
        self._options.set_block_based_table_factory(blocks)
        self._durable = WriteOptions()
        self._durable.sync = True
        self._db = Rdict(str(directory / "bench.rocksdb"), self._options)

    @classmethod
    def describe(cls) -> str:
        return f"RocksDB by rocksdict {version('rocksdict')}, sync, block cache 1 GiB"

    def load_sorted(self, pairs: Iterable[Pair]) -> None:
        table = str(self._directory / "sorted.sst")
        writer = SstFileWriter(self._options)
        writer.open(table)
        for key, value in pairs:
            writer[key] = value
        writer.finish()
        self._db.ingest_external_file([table])

    def put_many(self, pairs: Sequence[Pair]) -> None:
        batch = WriteBatch(raw_mode=True)
        for key, value in pairs:
            batch.put(key, value)
        self._db.write(batch, self._durable)

    def put(self, key: bytes, value: bytes) -> None:
        self._db.put(key, value, self._durable)

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        snapshot = self._db.snapshot()

        def items(start: bytes | None = None) -> Iterable[Pair]:
            return cast(Iterable[Pair], snapshot.items(from_key=start))

        yield Reader(
            self._db.get, self._get_many, items, lambda start, count: islice(items(start), count)
        )

    def _get_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        return cast(Sequence[bytes | None], self._db.get(list(keys)))

    def close(self) -> None:
        self._db.close()


ENGINE = RocksdbEngine
