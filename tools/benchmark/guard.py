"""Instructions of the kernels, compared with a committed baseline: slow-downs without a clock.

valgrind counts what the program executes, so the machine's other work, its clock and its disk have
no say; two runs on one machine differ by less than a thousandth. Compiler and interpreter do have a
say, so the baseline is kept for each pair of them. The C library chooses its memcpy by the
processor: the choice is taken from it, and what is left between machines is tolerated.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from benchmark.kernels import KERNELS

BASELINE = Path(__file__).with_name("baseline.json")
TOLERANCE = 0.08
"""More instructions than this part of the baseline's, and the guard fails. The same code and
packages differed by 4.6 % between two machines, in a scan."""
PLAIN_PROCESSOR = "glibc.cpu.hwcaps=-AVX2,-ERMS,-FSRM"
COUNTED = "PyNumber_MatrixMultiply"
"""The function below which valgrind counts: see `kernels.Counted`."""

Counts = dict[str, float]
"""Instructions of one operation, by kernel."""


class GuardError(Exception):
    """Why there is nothing to compare."""


@dataclass(frozen=True)
class Comparison:
    """One kernel: instructions of one operation, now and in the baseline."""

    kernel: str
    now: float
    before: float | None

    @property
    def change(self) -> float | None:
        return None if self.before is None else self.now / self.before - 1

    @property
    def slower(self) -> bool:
        return self.change is not None and self.change > TOLERANCE

    @property
    def faster(self) -> bool:
        return self.change is not None and self.change < -TOLERANCE


def environment() -> str:
    """What the counts depend on besides the code."""
    python = ".".join(platform.python_version_tuple()[:2])
    compiler = platform.python_compiler().partition(".")[0]
    return f"{platform.python_implementation()} {python}, {compiler}, {platform.machine()}"


def count(directory: Path) -> Counts:
    """Run the kernels under valgrind."""
    if shutil.which("valgrind") is None:
        raise GuardError("valgrind not found: install Debian's valgrind")
    dumps = directory / "callgrind"
    dumps.mkdir()
    done = subprocess.run(
        [
            "valgrind",
            "--tool=callgrind",
            f"--callgrind-out-file={dumps / 'out'}",
            f"--toggle-collect={COUNTED}",
            f"--dump-after={COUNTED}",
            sys.executable,
            "-m",
            "benchmark.kernels",
            directory,
        ],
        check=False,
        env=os.environ | {"PYTHONHASHSEED": "0", "GLIBC_TUNABLES": PLAIN_PROCESSOR},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise GuardError(f"the kernels failed under valgrind:\n{done.stderr}")
    numbered = sorted(dumps.glob("out.*"), key=lambda path: int(path.suffix[1:]))
    if len(numbered) != len(KERNELS):
        raise GuardError(f"{COUNTED} was called {len(numbered)} times, not once for each kernel")
    totals = [total(path) for path in numbered]
    return {
        title: instructions / operations
        for (title, _, operations), instructions in zip(KERNELS, totals, strict=True)
    }


def total(dump: Path) -> int:
    """The sum of a dump of callgrind."""
    for line in dump.read_text().splitlines():
        if line.startswith("totals:"):
            return int(line.split()[1])
    raise GuardError(f"{dump.name}: not a dump of callgrind")


def compare(counts: Counts, baselines: dict[str, Counts], where: str) -> list[Comparison]:
    """Each kernel beside its baseline. A new kernel has none; a new environment is refused."""
    if where not in baselines:
        known = "; ".join(baselines) or "none"
        raise GuardError(
            f"no baseline for {where} (there are: {known}); to make one: tools/bench guard --update"
        )
    return [Comparison(kernel, now, baselines[where].get(kernel)) for kernel, now in counts.items()]


def read_baselines() -> dict[str, Counts]:
    baselines: dict[str, Counts] = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    return baselines


def write_baseline(counts: Counts, where: str) -> None:
    baselines = read_baselines()
    baselines[where] = {kernel: round(now, 1) for kernel, now in counts.items()}
    BASELINE.write_text(json.dumps(dict(sorted(baselines.items())), indent=1) + "\n")


def show(comparisons: list[Comparison]) -> None:
    table = Table("kernel", "instructions", "baseline", "change", "", box=box.MARKDOWN)
    for each in comparisons:
        verdict = "[bold red]slower[/]" if each.slower else "faster" if each.faster else ""
        table.add_row(
            each.kernel,
            f"{each.now:,.0f}",
            "none" if each.before is None else f"{each.before:,.0f}",
            "" if each.change is None else f"{each.change:+.1%}",
            verdict,
        )
    Console(highlight=False).print(table)
