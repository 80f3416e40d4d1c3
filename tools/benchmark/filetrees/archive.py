"""An archive on the same disk: tar piped through lz4."""

import shutil
import subprocess
from pathlib import Path

from benchmark.filetrees.base import FileTrees, output, run

PROGRAMS = ("tar", "lz4")


class Archive(FileTrees):
    name = "archive"

    def __init__(self, directory: Path) -> None:
        self._archive = directory / "tree.tar.lz4"

    @classmethod
    def describe(cls) -> str:
        return f"archive: {output('tar', '--version').splitlines()[0]}, piped through lz4"

    @classmethod
    def unavailable(cls) -> str | None:
        missing = [program for program in PROGRAMS if shutil.which(program) is None]
        return (
            f"{', '.join(missing)} not found: install Debian's {' '.join(missing)}"
            if missing
            else None
        )

    def copy_in(self, source: Path) -> None:
        with subprocess.Popen(
            ["tar", "--create", "--directory", source, "."], stdout=subprocess.PIPE
        ) as tar:
            subprocess.run(
                ["lz4", "--quiet", "--force", "-", self._archive], check=True, stdin=tar.stdout
            )
        if tar.returncode:
            raise RuntimeError(f"tar failed with {tar.returncode}")

    def sync(self) -> None:
        run("sync", self._archive)

    def copy_out(self, target: Path) -> None:
        target.mkdir()
        with subprocess.Popen(
            ["lz4", "--decompress", "--stdout", "--quiet", self._archive], stdout=subprocess.PIPE
        ) as lz4:
            subprocess.run(
                ["tar", "--extract", "--directory", target], check=True, stdin=lz4.stdout
            )
        if lz4.returncode:
            raise RuntimeError(f"lz4 failed with {lz4.returncode}")

    def close(self) -> None:
        self._archive.unlink(missing_ok=True)


FILE_TREES = Archive
