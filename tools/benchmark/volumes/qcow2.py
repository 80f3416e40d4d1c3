"""qcow2 by qemu-img and qemu-io: snapshots within the image, clones as overlays."""

import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmark.volumes.base import Volume

PROGRAMS = ("qemu-img", "qemu-io")


class Qcow2Volume(Volume):
    name = "qcow2"

    def __init__(self, directory: Path, size: int) -> None:
        self._directory = directory
        self._image = directory / "volume.qcow2"
        run("qemu-img", "create", "-q", "-f", "qcow2", self._image, str(size))

    @classmethod
    def describe(cls) -> str:
        return run("qemu-img", "--version").splitlines()[0].replace("version ", "") + ", qcow2"

    @classmethod
    def unavailable(cls) -> str | None:
        missing = [program for program in PROGRAMS if shutil.which(program) is None]
        return f"{', '.join(missing)} not found: install Debian's qemu-utils" if missing else None

    def write(self, source: Path, length: int, offsets: Sequence[int]) -> None:
        writes = (f"write -q -s {source} {offset} {length}" for offset in offsets)
        self._io([*writes, "flush"])

    def read(self, length: int, offsets: Sequence[int]) -> None:
        self._io(f"read -q {offset} {length}" for offset in offsets)

    def _io(self, commands: Iterable[str]) -> None:
        run("qemu-io", "-f", "qcow2", self._image, commands="\n".join(commands) + "\n")

    def snapshot(self, name: str) -> None:
        run("qemu-img", "snapshot", "-q", "-c", name, self._image)

    def clone(self, name: str) -> None:
        overlay = self._directory / f"{name}.qcow2"
        run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", self._image, overlay)

    def rollback(self, snapshot: str) -> None:
        run("qemu-img", "snapshot", "-q", "-a", snapshot, self._image)

    def destroy(self, snapshot: str) -> None:
        run("qemu-img", "snapshot", "-q", "-d", snapshot, self._image)

    def export(self, target: Path) -> None:
        run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", self._image, target)

    def close(self) -> None:
        pass


def run(*command: str | Path, commands: str = "") -> str:
    """What a command prints; it gets `commands` on its input."""
    done = subprocess.run(command, check=True, input=commands, stdout=subprocess.PIPE, text=True)
    if " failed" in done.stdout:
        raise RuntimeError(f"{command[0]}: {done.stdout.strip()}")
    return done.stdout


VOLUME = Qcow2Volume
