"""cowfs: each put is a transaction that is not flushed, as Redis's are not."""

from collections.abc import Iterable
from pathlib import Path

import cowfs
from benchmark.maps.base import ChangingMap, Pair, Usage

DATASET = "map"
SNAPSHOT = "map@snapshot"
RESET_PEAK = "5"


class CowfsMap(ChangingMap):
    name = "cowfs"

    def __init__(self, directory: Path) -> None:
        self._store = cowfs.open(directory / "map.cow", "n")
        self._store.create(DATASET)
        self._memory = self._live = self._used = 0

    @classmethod
    def describe(cls) -> str:
        return f"cowfs {cowfs.__version__}, LZ4, cache 64 MiB, durable=False"

    def load(self, pairs: Iterable[Pair]) -> None:
        with self._store.transaction() as tx:
            tx[DATASET].update(pairs)

    def put(self, key: bytes, value: bytes) -> None:
        with self._store.transaction(durable=False) as tx:
            tx[DATASET][key] = value

    def prepare(self) -> None:
        space = self._store.space()
        self._live, self._used = space.live, space.live + space.pinned
        Path("/proc/self/clear_refs").write_text(RESET_PEAK)
        self._memory = peak_memory()

    def snapshot(self) -> None:
        self._store.snapshot(SNAPSHOT)

    def usage(self) -> Usage:
        memory = peak_memory() - self._memory
        space = self._store.space()
        return Usage(memory, space.live + space.pinned - self._used, self._live)

    def close(self) -> None:
        self._store.close()


def peak_memory() -> int:
    """The most that was resident of this process since the peak was reset, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(peak) * 1024


MAP = CowfsMap
