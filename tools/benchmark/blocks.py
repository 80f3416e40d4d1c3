"""Block devices in images: filling, snapshots, writes over a snapshot, removal, beside qcow2."""

import filecmp
import random
import shutil
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from benchmark.measure import Sample, elapsed, elapsed_when_quiet
from benchmark.report import Goal, Race
from benchmark.volumes.base import Volume

BLOCK = 4096
WRITES = 1_000
CHUNK = 16 << 20
PEER = "qcow2"

NOTES = [
    "The device is full of random bytes, which do not compress; blocks are of 4 KiB, at random.",
    "qcow2's times are those of commands, of which the start of a process is part; cowfs's are "
    "calls of its library. qcow2 has no checksums; a clone of it depends on what it came from.",
]


@dataclass(frozen=True)
class Row:
    """A line of the report: what a step is called, how many operations it is, and their unit."""

    name: str
    title: str
    operations: int = 1
    unit: str = ""


def rows(size: int, writes: int) -> list[Row]:
    return [
        Row("fill", "fill it, durable", size, "B"),
        Row("snapshot", "snapshot of it, durable"),
        Row("write", f"{writes:,} blocks over the snapshot, then a flush", writes),
        Row("again", "the same blocks again", writes),
        Row("read", f"read {writes:,} blocks", writes),
        Row("clone", "clone"),
        Row("rollback", "roll back"),
        Row("destroy", "destroy the snapshot"),
    ]


def measure(volume: Volume, size: int, offsets: list[int], place: Path) -> dict[str, float]:
    """Seconds of each step. What the volume holds at the end is compared with what it should."""
    filling, block = place / "filling", place / "block"
    make_random(filling, size)
    make_random(block, BLOCK)
    spent = {"fill": elapsed_when_quiet(volume.write, filling, size, [0])}
    spent["snapshot"] = elapsed(volume.snapshot, "first")
    spent["write"] = elapsed_when_quiet(volume.write, block, BLOCK, offsets)
    spent["again"] = elapsed_when_quiet(volume.write, block, BLOCK, offsets)
    check(volume, patched(filling, block, offsets), place)
    spent["read"] = elapsed_when_quiet(volume.read, BLOCK, offsets)
    spent["clone"] = elapsed(volume.clone, "copy")
    spent["rollback"] = elapsed(volume.rollback, "first")
    check(volume, filling, place)
    volume.write(block, BLOCK, offsets)
    spent["destroy"] = elapsed(volume.destroy, "first")
    check(volume, patched(filling, block, offsets), place)
    return spent


def make_random(path: Path, size: int) -> None:
    source = random.Random(size)
    with path.open("wb") as file:
        for start in range(0, size, CHUNK):
            file.write(source.randbytes(min(CHUNK, size - start)))


def patched(filling: Path, block: Path, offsets: list[int]) -> Path:
    """A copy of the filling with the block at each offset."""
    copy = filling.with_name("patched")
    if not copy.exists():
        shutil.copyfile(filling, copy)
        with copy.open("r+b") as file:
            for offset in offsets:
                file.seek(offset)
                file.write(block.read_bytes())
    return copy


def check(volume: Volume, expected: Path, place: Path) -> None:
    found = place / "found"
    volume.export(found)
    if not filecmp.cmp(found, expected, shallow=False):
        raise RuntimeError(f"{volume.name} does not hold what was written")
    found.unlink()


def race(
    classes: Collection[type[Volume]],
    size: int,
    writes: int,
    rounds: int,
    directory: Path,
    progress: Callable[[str], None],
) -> list[Race]:
    source = random.Random(writes)
    spent: dict[str, dict[str, list[float]]] = {}
    for number in range(1, rounds + 1):
        offsets = [BLOCK * source.randrange(size // BLOCK) for _ in range(writes)]
        for volume_class in classes:
            progress(f"round {number} of {rounds}: {volume_class.name}")
            place = directory / f"{volume_class.name}-round{number}"
            place.mkdir()
            with closing(volume_class(place, size)) as volume:
                for step, seconds in measure(volume, size, offsets, place).items():
                    spent.setdefault(step, {}).setdefault(volume.name, []).append(seconds)
            shutil.rmtree(place)
    return [
        Race(
            workload=row.title,
            operations=row.operations,
            seconds={name: Sample(tuple(values)) for name, values in spent[row.name].items()},
            goals=(Goal(PEER),),
            unit=row.unit,
        )
        for row in rows(size, writes)
    ]
