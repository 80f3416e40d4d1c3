"""Where the time of a workload goes: SUBJECT ITEMS DIRECTORY HOW, as a process of its own.

HOW is `python`, which prints Python's functions by their own time, or `native`, which is for
running under `perf record`: that is told to count while the workload is timed, and not while data
is made.
"""

import cProfile
import os
import pstats
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from benchmark import kv, measure, trees
from benchmark.engines.cowfs import CowfsEngine
from benchmark.filetrees.cowfs import DATASET, CowfsTrees
from benchmark.measure import elapsed_when_quiet

LINES = 20
CONTROL, ANSWERS = "control", "answers"
"""FIFOs to and from perf."""


class ProfileError(Exception):
    """Why there is no profile."""


def workload(name: str) -> Callable[[int, Path], None]:
    """Run a workload of the kv suite on cowfs."""
    (chosen,) = (each for each in kv.WORKLOADS if each.name == name)

    def run(items: int, directory: Path) -> None:
        with closing(kv.Lane(CowfsEngine, directory / "lane", kv.Data(items))) as lane:
            chosen.run(lane)

    return run


def files_in(files: int, directory: Path) -> None:
    """What `cowfs cp -r` does, in this process."""
    source = trees.Source(directory / "source", files)
    with closing(CowfsTrees(directory)) as place:

        def run() -> None:
            with place.store.transaction() as tx:
                tx[DATASET].copy_in(source.path, "/")

        elapsed_when_quiet(run)


def versions(files: int, directory: Path) -> None:
    """Snapshots, clones and diffs of a tree."""
    source = trees.Source(directory / "source", files)
    with closing(CowfsTrees(directory)) as place:
        place.copy_in(source.path)
        trees.versions(place, source, trees.REPEATS)


SUBJECTS: dict[str, Callable[[int, Path], None]] = {
    **{each.name: workload(each.name) for each in kv.WORKLOADS},
    "files-in": files_in,
    "files-versions": versions,
}


def by_python(subject: str, items: int, directory: Path) -> str:
    """Python's functions, those of C that it calls among them, by their own time."""
    return run_here(subject, items, directory, "python", ())


def by_symbol(subject: str, items: int, directory: Path) -> str:
    """Symbols of all that ran, the kernel's and compiled ones too, by samples of the clock."""
    if shutil.which("perf") is None:
        raise ProfileError("perf not found: install Debian's linux-perf to see compiled code, too")
    for name in (CONTROL, ANSWERS):
        os.mkfifo(directory / name)
    record = directory / "perf.data"
    recording = (
        "perf",
        "record",
        "--quiet",
        "--event=cpu-clock",
        "--delay=-1",
        f"--control=fifo:{directory / CONTROL},{directory / ANSWERS}",
        f"--output={record}",
        "--",
    )
    run_here(subject, items, directory, "native", recording)
    report = subprocess.run(
        [
            "perf",
            "report",
            f"--input={record}",
            "--stdio",
            "--sort=dso,symbol",
            "--percent-limit=1",
        ],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ).stdout
    lines = [line.rstrip(" -") for line in report.splitlines() if line.strip(" -")[:1].isdigit()]
    return "\n".join(lines[:LINES]) + "\n"


def run_here(subject: str, items: int, directory: Path, how: str, under: Sequence[str]) -> str:
    command = [*under, sys.executable, "-m", "benchmark.profiles", subject, str(items)]
    place = directory / how
    place.mkdir()
    done = subprocess.run(
        [*command, str(place), how], check=False, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise ProfileError(f"{' '.join(command)} failed with {done.returncode}")
    shutil.rmtree(place)
    return done.stdout


class PythonProfile:
    """Counts what Python calls, from enter to exit."""

    def __init__(self) -> None:
        self._profile = cProfile.Profile()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._profile:
            yield

    def show(self) -> None:
        pstats.Stats(self._profile).strip_dirs().sort_stats("tottime").print_stats(LINES)


class PerfSwitch:
    """Has perf count from enter to exit."""

    def __init__(self, directory: Path) -> None:
        self._control = (directory / CONTROL).open("w")
        self._answers = (directory / ANSWERS).open()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self._tell("enable")
        try:
            yield
        finally:
            self._tell("disable")

    def _tell(self, word: str) -> None:
        self._control.write(f"{word}\n")
        self._control.flush()
        self._answers.readline()

    def show(self) -> None:
        """`perf report` does."""


def main() -> None:
    subject, items, directory, how = sys.argv[1:]
    place = Path(directory)
    profiler = PythonProfile() if how == "python" else PerfSwitch(place.parent)
    measure.observe(profiler)
    SUBJECTS[subject](int(items), place)
    profiler.show()


if __name__ == "__main__":
    main()
