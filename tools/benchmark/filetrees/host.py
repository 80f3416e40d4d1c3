"""What people do without snapshots: `cp -a` of everything, `diff -r` over everything."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from benchmark.filetrees.base import Snapshots, output, run


class HostTrees(Snapshots):
    name = "host"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._tree = directory / "files"

    @classmethod
    def describe(cls) -> str:
        return f"host: cp -a, diff -rq, {output('cp', '--version').splitlines()[0]}"

    def copy_in(self, source: Path) -> None:
        run("cp", "-a", source, self._tree)

    def sync(self) -> None:
        run("sync", "--file-system", self._tree)

    def copy_out(self, target: Path) -> None:
        run("cp", "-a", self._tree, target)

    def write(self, files: Mapping[str, bytes]) -> None:
        for path, data in files.items():
            (self._tree / path).write_bytes(data)
        self.sync()

    def snapshot(self, name: str) -> None:
        run("cp", "-a", self._tree, self._directory / name)
        self.sync()

    def clone(self, snapshot: str, name: str) -> None:
        run("cp", "-a", self._directory / snapshot, self._directory / name)
        self.sync()

    def diff(self, old: str, new: str) -> int:
        done = subprocess.run(
            ["diff", "-rq", self._directory / old, self._directory / new],
            check=False,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"LC_ALL": "C"},
        )
        if done.returncode > 1:
            raise RuntimeError("diff -rq failed")
        return len(done.stdout.splitlines())

    def destroy(self, snapshot: str) -> None:
        run("rm", "-r", self._directory / snapshot)
        self.sync()

    def destroy_clone(self, name: str) -> None:
        self.destroy(name)

    def close(self) -> None:
        pass


FILE_TREES = HostTrees
