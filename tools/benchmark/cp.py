"""Copying one large file into an image, beside copying it within the host's file system."""

import filecmp
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmark.measure import Sample, elapsed, elapsed_when_quiet
from benchmark.report import Goal, Race

DATASET = "files"
CHUNK = 16 << 20
AT_LEAST = 0.5
NOTES = [
    "The file is random bytes, which do not compress, and is in the page cache before. "
    "cowfs cp makes its copy durable and checksums it; cp leaves it in the page cache.",
]


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def cowfs(*arguments: str | Path) -> None:
    run(Path(sys.executable).with_name("cowfs"), *arguments)


def make_source(path: Path, size: int) -> None:
    """A file of random bytes, in the host's page cache and on its disk."""
    with path.open("wb") as file:
        for start in range(0, size, CHUNK):
            file.write(os.urandom(min(CHUNK, size - start)))
    run("sync", path)


def copy_with_host(source: Path, target: Path) -> tuple[float, float]:
    """Seconds of the copy, and of the copy with a sync of what it wrote."""
    copy = elapsed_when_quiet(run, "cp", source, target)
    return copy, copy + elapsed(run, "sync", target)


def copy_with_cowfs(source: Path, target: Path) -> tuple[float, float]:
    cowfs("mkfs", target)
    cowfs("create", target, DATASET)
    copy = elapsed_when_quiet(cowfs, "cp", source, f"{target}:{DATASET}/file")
    return copy, copy + elapsed(run, "sync", target)


def check(source: Path, image: Path, back: Path) -> None:
    cowfs("cp", f"{image}:{DATASET}/file", back)
    if not filecmp.cmp(source, back, shallow=False):
        raise RuntimeError("the file came out of the image with other bytes than it had")
    back.unlink()


def race(size: int, rounds: int, directory: Path, progress: Callable[[str], None]) -> list[Race]:
    source, target, image = (directory / name for name in ("source", "target", "image.cow"))
    progress("making the file")
    make_source(source, size)
    spent: dict[str, list[tuple[float, float]]] = {"cowfs": [], "cp": []}
    for number in range(1, rounds + 1):
        progress(f"round {number} of {rounds}: cp")
        spent["cp"].append(copy_with_host(source, target))
        target.unlink()
        progress(f"round {number} of {rounds}: cowfs cp")
        spent["cowfs"].append(copy_with_cowfs(source, image))
        check(source, image, target)
        image.unlink()
    return [
        Race(
            workload=title,
            operations=size,
            seconds={
                name: Sample(tuple(times[column] for times in rounds_spent))
                for name, rounds_spent in spent.items()
            },
            goals=(Goal("cp", AT_LEAST),),
            unit="B",
        )
        for column, title in enumerate(("copy a file in", "copy a file in, then sync it"))
    ]
