"""cowfs: files go in and out by its commands, versions are the library's."""

import sys
from collections.abc import Mapping
from pathlib import Path

import cowfs
from benchmark.filetrees.base import Snapshots, run

DATASET = "files"


class CowfsTrees(Snapshots):
    name = "cowfs"

    def __init__(self, directory: Path) -> None:
        self.image = directory / "trees.cow"
        self._opened: cowfs.Store | None = None
        with cowfs.open(self.image, "n") as store:
            store.create(DATASET, kind="fs")

    @classmethod
    def describe(cls) -> str:
        return f"cowfs {cowfs.__version__}, LZ4, cache 64 MiB"

    @property
    def store(self) -> cowfs.Store:
        """The image, opened here; a command needs it closed."""
        if self._opened is None:
            self._opened = cowfs.open(self.image, "w")
        return self._opened

    def copy_in(self, source: Path) -> None:
        command("cp", "-r", f"{source}/.", f"{self.image}:{DATASET}/")

    def sync(self) -> None:
        run("sync", self.image)  # durable already: shows that nothing is left to do

    def copy_out(self, target: Path) -> None:
        self.close()
        command("cp", "-r", f"{self.image}:{DATASET}/.", target)

    def write(self, files: Mapping[str, bytes]) -> None:
        with self.store.transaction() as tx:
            tree = tx[DATASET]
            for path, data in files.items():
                tree.write_bytes(path, data)

    def snapshot(self, name: str) -> None:
        self.store.snapshot(f"{DATASET}@{name}")

    def clone(self, snapshot: str, name: str) -> None:
        self.store.clone(f"{DATASET}@{snapshot}", name)

    def diff(self, old: str, new: str) -> int:
        return sum(1 for _ in self.store.diff(f"{DATASET}@{old}", f"{DATASET}@{new}"))

    def destroy(self, snapshot: str) -> None:
        self.store.destroy(f"{DATASET}@{snapshot}")

    def destroy_clone(self, name: str) -> None:
        self.store.destroy(name)

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None


def command(*arguments: str | Path) -> None:
    run(Path(sys.executable).with_name("cowfs"), *arguments)


FILE_TREES = CowfsTrees
