"""cowfs, by its library: writes that are flushed together are one transaction."""

from collections.abc import Sequence
from pathlib import Path

import cowfs
from benchmark.volumes.base import Volume

DATASET = "disk"
CHUNK = 8 << 20


class CowfsVolume(Volume):
    name = "cowfs"

    def __init__(self, directory: Path, size: int) -> None:
        self._store = cowfs.open(directory / "volume.cow", "n")
        self._store.create(DATASET, kind="volume", size=size)

    @classmethod
    def describe(cls) -> str:
        return f"cowfs {cowfs.__version__}, LZ4, cache 64 MiB"

    def write(self, source: Path, length: int, offsets: Sequence[int]) -> None:
        with source.open("rb") as file, self._store.transaction() as tx:
            disk = tx[DATASET]
            for offset in offsets:
                file.seek(0)
                for start in range(0, length, CHUNK):
                    disk.pwrite(file.read(min(CHUNK, length - start)), offset + start)

    def read(self, length: int, offsets: Sequence[int]) -> None:
        with self._store.at(DATASET) as view:
            for offset in offsets:
                view.pread(length, offset)

    def snapshot(self, name: str) -> None:
        self._store.snapshot(f"{DATASET}@{name}")

    def clone(self, name: str) -> None:
        self._store.clone(DATASET, name)

    def rollback(self, snapshot: str) -> None:
        self._store.rollback(f"{DATASET}@{snapshot}")

    def destroy(self, snapshot: str) -> None:
        self._store.destroy(f"{DATASET}@{snapshot}")

    def export(self, target: Path) -> None:
        with self._store.at(DATASET) as view, target.open("wb") as file:
            for start in range(0, view.size, CHUNK):
                file.write(view.pread(CHUNK, start))

    def close(self) -> None:
        self._store.close()


VOLUME = CowfsVolume
