"""The limit: one write and flush of the same bytes; for reads, what is in memory already.

Nothing that keeps its promises can be faster than this in Python. It cannot be read back after a
crash: the bytes go, one write after the other, over a file that was written before, since that is
what a disk flushes fastest.
"""

import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from benchmark.engines.base import Engine, Pair, Reader

PREPARED = 64 << 20


class RawEngine(Engine):
    name = "raw"

    def __init__(self, directory: Path, capacity: int | None = None) -> None:
        self._fd = os.open(directory / "bench.raw", os.O_RDWR | os.O_CREAT)
        os.pwrite(self._fd, bytes(PREPARED), 0)
        os.fsync(self._fd)
        self._end = 0
        self._values: dict[bytes, bytes] = {}

    @classmethod
    def describe(cls) -> str:
        return "raw: one pwrite and fdatasync of the same bytes, dict, list"

    def load_sorted(self, pairs: Iterable[Pair]) -> None:
        self.put_many(list(pairs))

    def put_many(self, pairs: Sequence[Pair]) -> None:
        self._write(b"".join(chain.from_iterable(pairs)))
        self._values.update(pairs)

    def put(self, key: bytes, value: bytes) -> None:
        self._write(key + value)
        self._values[key] = value

    def _write(self, data: bytes) -> None:
        if self._end + len(data) > PREPARED:
            self._end = 0
        os.pwrite(self._fd, data, self._end)
        os.fdatasync(self._fd)
        self._end += len(data)

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        get = self._values.get
        ordered = sorted(self._values.items())
        keys = [key for key, _ in ordered]

        def from_key(start: bytes, count: int) -> Iterator[Pair]:
            at = bisect_left(keys, start)
            return iter(ordered[at : at + count])

        yield Reader(get, lambda wanted: list(map(get, wanted)), lambda: ordered, from_key)

    def close(self) -> None:
        os.close(self._fd)


ENGINE = RawEngine
