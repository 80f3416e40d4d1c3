"""Files through FUSE: a mounted dataset beside what stores nothing itself, and beside Btrfs."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from benchmark.measure import MIB, Sample, elapsed, elapsed_when_quiet, warm, write
from benchmark.report import Figure, Goal, Race

NOTES = [
    "passthrough is a directory of the host behind the same binding, libfuse its own example "
    "passthrough_ll with writeback, btrfs the kernel's on a loop device. "
    "The file is random bytes; it is read from the caches of the process behind FUSE, not from "
    "the kernel's for the mount.",
    "create, stat and unlink are of 10,000 empty files.",
]

FILES = 10_000
EXAMPLES = Path("/usr/share/doc/libfuse3-dev/examples")


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(
        command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd=cwd
    )
    return done.stdout


def cowfs(*arguments: str | Path) -> None:
    run(Path(sys.executable).with_name("cowfs"), *arguments)


# --- where files can be put -----------------------------------------------------------------------


@contextmanager
def on_cowfs(directory: Path) -> Iterator[Path]:
    image, mnt = directory / "image.cow", directory / "mnt"
    mnt.mkdir()
    cowfs("mkfs", image)
    cowfs("create", image, "files")
    cowfs("mount", "-d", image, "files", mnt)
    yield mnt
    run("fusermount3", "-u", mnt)
    cowfs("check", image)


@contextmanager
def on_passthrough(directory: Path) -> Iterator[Path]:
    """The same binding without the store."""
    source, mnt = directory / "source", directory / "mnt"
    source.mkdir()
    mnt.mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "benchmark.passthrough", source, mnt], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield mnt
        run("fusermount3", "-u", mnt)


@contextmanager
def on_libfuse(directory: Path) -> Iterator[Path]:
    """libfuse's passthrough_ll, in C, as Debian's libfuse3-dev has it; it has no passthrough_hp."""
    source, mnt, program = directory / "source", directory / "mnt", directory / "passthrough_ll"
    source.mkdir()
    mnt.mkdir()
    flags = run("pkg-config", "--cflags", "--libs", "fuse3").split()
    run("gcc", "-O2", EXAMPLES / "passthrough_ll.c", "-o", program, *flags)
    run(program, "-o", f"source={source},writeback,cache=always", mnt)
    yield mnt
    run("fusermount3", "-u", mnt)


@contextmanager
def on_btrfs(directory: Path) -> Iterator[Path]:
    """The kernel's Btrfs on a loop device."""
    image, mnt = directory / "image", directory / "mnt"
    mnt.mkdir()
    run("truncate", "-s", "4G", image)
    run("mkfs.btrfs", "-q", image)
    run("mount", "-o", "loop", image, mnt)
    yield mnt
    run("umount", mnt)


Engine = Callable[[Path], AbstractContextManager[Path]]


def engines() -> dict[str, Engine]:
    """Those that this machine has what is needed for."""
    found: dict[str, Engine] = {"cowfs": on_cowfs, "passthrough": on_passthrough}
    if (EXAMPLES / "passthrough_ll.c").exists() and shutil.which("gcc"):
        found["libfuse"] = on_libfuse
    if os.geteuid() == 0 and shutil.which("mkfs.btrfs"):
        found["btrfs"] = on_btrfs
    return found


# --- what is done there ---------------------------------------------------------------------------


def read(path: Path, times: int) -> None:
    with open(path, "rb", buffering=0) as file:
        for _ in range(times):
            file.read(MIB)


def sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def forget(path: Path) -> None:
    """Have the kernel keep nothing of a file."""
    sync(path)
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def make(directory: Path) -> None:
    for number in range(FILES):
        os.close(os.open(directory / str(number), os.O_CREAT | os.O_WRONLY))


def look(directory: Path) -> None:
    for number in range(FILES):
        os.stat(directory / str(number))


def remove(directory: Path) -> None:
    for number in range(FILES):
        os.unlink(directory / str(number))


def measure(mnt: Path, mib: int) -> dict[str, float]:
    """Seconds of each workload."""
    spent = {}
    data = os.urandom(MIB)
    file, directory = mnt / "file", mnt / "directory"
    spent["write"] = elapsed_when_quiet(write, file, data, mib)
    spent["write, then fsync"] = spent["write"] + elapsed(sync, file)
    forget(file)
    read(file, mib)
    forget(file)
    spent["read"] = elapsed(read, file, mib)
    file.unlink()
    directory.mkdir()
    spent["create"] = elapsed_when_quiet(make, directory)
    spent["stat"] = elapsed(look, directory)
    spent["unlink"] = elapsed(remove, directory)
    spent["create, stat, unlink"] = spent["create"] + spent["stat"] + spent["unlink"]
    return spent


def longest_write(mnt: Path, image: Path) -> float:
    """The longest that a synced write of 16 KiB took while ten snapshots were taken, in ms."""
    longest = 0.0
    ending = threading.Event()

    def load() -> None:
        nonlocal longest
        data = os.urandom(16 << 10)
        fd = os.open(mnt / "pages", os.O_CREAT | os.O_WRONLY | os.O_DSYNC)
        number = 0
        while not ending.is_set():
            offset = number * 7919 % 1024 * len(data)
            longest = max(longest, elapsed(os.pwrite, fd, data, offset))
            number += 1
        os.close(fd)

    thread = threading.Thread(target=load)
    thread.start()
    for number in range(10):
        cowfs("snapshot", image, f"files@{number}")
    ending.set()
    thread.join()
    return longest * 1e3


def pause(rounds: int, directory: Path, progress: Callable[[str], None]) -> Figure:
    """What programs notice of a snapshot."""
    longest = []
    for number in range(1, rounds + 1):
        progress(f"round {number} of {rounds}: snapshots under load")
        place = directory / f"pause{number}"
        place.mkdir()
        with on_cowfs(place) as mnt:
            longest.append(longest_write(mnt, place / "image.cow"))
        shutil.rmtree(place)
    what = "longest synced write of 16 KiB while ten snapshots are taken"
    return Figure(what, Sample(tuple(longest)), "ms", at_most=100)


THROUGHPUT = ("write", "write, then fsync", "read")

GOALS = {
    ("write", "passthrough"): 0.7,
    ("read", "passthrough"): 0.7,
    ("write", "libfuse"): 0.5,
    ("read", "libfuse"): 0.5,
    ("create, stat, unlink", "btrfs"): 0.2,
}


def race(mib: int, rounds: int, directory: Path, progress: Callable[[str], None]) -> list[Race]:
    spent: dict[str, list[dict[str, float]]] = {}
    for number in range(1, rounds + 1):
        for name, engine in engines().items():
            progress(f"round {number} of {rounds}: {name}")
            place = directory / f"{name}{number}"
            place.mkdir()
            warm(directory / "warm", 3 * mib * MIB)
            with engine(place) as mnt:
                spent.setdefault(name, []).append(measure(mnt, mib))
            shutil.rmtree(place)
    return [
        Race(
            workload=workload,
            operations=mib * MIB if workload in THROUGHPUT else FILES,
            seconds={
                name: Sample(tuple(times[workload] for times in all_times))
                for name, all_times in spent.items()
            },
            goals=tuple(
                Goal(peer, GOALS.get((workload, peer))) for peer in spent if peer != "cowfs"
            ),
            unit="B" if workload in THROUGHPUT else "",
        )
        for workload in spent["cowfs"][0]
    ]
