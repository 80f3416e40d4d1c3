"""The command line of `tools/bench`: one sub-command a suite."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console

import cowfs
from benchmark import alone, cp, kv, machine, nbd
from benchmark.engines import NAMES, engine_class
from benchmark.engines.cowfs import CowfsEngine
from benchmark.report import Report

KV_NOTES = [
    "Rates are medians of the rounds (slowest to fastest); a ratio is the median of the rounds' "
    "own ratios. A round runs each workload on each engine in turn.",
    f"Keys are {kv.KEY_BYTES} and values {kv.VALUE_BYTES} random bytes, which do not compress. "
    "Every engine gets the same, and what it holds is compared afterwards.",
    "Gets and the scan read a store that was filled in random order by one transaction; puts go "
    "into it. All puts but those of the bulk load are single calls in the program's own loop, "
    "except SQLite's (executemany).",
    "cowfs and SQLite have 1 GiB of cache, since these rows are about memory and LMDB maps all.",
]
ALONE_NOTES = [
    "'The same' is taken as within a quarter. Times of commands include the interpreter's start.",
    "Live data is what the dataset references in the image: its nodes, filled as they are.",
]
CP_NOTES = [
    "The file is random bytes, which do not compress, and is in the page cache before. "
    "cowfs cp makes its copy durable and checksums it; cp leaves it in the page cache.",
]
NBD_NOTES = [
    f"fio's nbd engine at depth 16 over a Unix socket; records of {nbd.RECORD}; no flushes, so "
    "that either server may keep what is written in memory (qemu-nbd: --cache=writeback).",
]


SUITE_NAMES = [part.name for part in (*kv.WORKLOADS, *alone.MEASUREMENTS)]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure cowfs beside its peers on this machine."""


def common(command: Callable[..., None]) -> Callable[..., None]:
    """Options that every suite has."""
    options = (
        click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1)),
        click.option(
            "--dir",
            "parent",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            default=tempfile.gettempdir,
            help="Where to make the stores, which are removed at the end; else with other "
            "temporary files.",
        ),
        click.option(
            "--json",
            "json_file",
            type=click.Path(dir_okay=False, writable=True, path_type=Path),
            help="Write every figure of every round to this file, too.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@main.command("kv")
@click.option("--items", default=1_000_000, show_default=True, type=click.IntRange(min=1_000))
@click.option(
    "--engine",
    "engine_names",
    multiple=True,
    type=click.Choice(NAMES),
    help="An engine to run; may be repeated. All if not given.",
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(SUITE_NAMES),
    help="A part to run; may be repeated. All if not given.",
)
@common
def kv_command(
    items: int,
    engine_names: tuple[str, ...],
    only: tuple[str, ...],
    rounds: int,
    parent: Path,
    json_file: Path | None,
) -> None:
    """Maps: loads, gets, scans and commits beside LMDB and SQLite; what cowfs alone promises."""
    engines = [engine_class(name) for name in NAMES if name in (engine_names or NAMES)]
    workloads = [part for part in kv.WORKLOADS if part.name in (only or SUITE_NAMES)]
    measurements = [
        part
        for part in alone.MEASUREMENTS
        if part.name in (only or SUITE_NAMES) and CowfsEngine in engines
    ]
    facts = [*machine.describe(parent), "; ".join(engine.describe() for engine in engines)]
    with workplace(parent) as (directory, progress):
        races = kv.race(engines, workloads, items, rounds, directory, progress)
        figures = alone.measure(measurements, items, rounds, directory, progress)
    finish(
        Report(
            title=f"kv, {items:,} items, {rounds} rounds",
            machine=facts,
            races=races,
            figures=figures,
            notes=[*(KV_NOTES if races else []), *(ALONE_NOTES if figures else [])],
        ),
        json_file,
    )


@main.command("cp")
@click.option(
    "--mib", default=1_024, show_default=True, type=click.IntRange(min=1), help="Size of the file."
)
@common
def cp_command(mib: int, rounds: int, parent: Path, json_file: Path | None) -> None:
    """Files: copying a large one into an image, beside cp."""
    with workplace(parent) as (directory, progress):
        races = cp.race(mib << 20, rounds, directory, progress)
    finish(
        Report(
            title=f"cp, a file of {mib:,} MiB, {rounds} rounds",
            machine=[*machine.describe(parent), f"cowfs {cowfs.__version__}, LZ4"],
            races=races,
            notes=CP_NOTES,
        ),
        json_file,
    )


@main.command("nbd")
@click.option(
    "--mib", default=1_024, show_default=True, type=click.IntRange(min=16), help="Size of volumes."
)
@common
def nbd_command(mib: int, rounds: int, parent: Path, json_file: Path | None) -> None:
    """Volumes over NBD beside qemu-nbd with qcow2; needs fio and qemu-utils."""
    with workplace(parent) as (directory, progress):
        races = nbd.race(mib << 20, rounds, directory, progress)
        figures = [nbd.snapshots(mib << 20, directory, progress)]
    finish(
        Report(
            title=f"nbd, volumes of {mib:,} MiB, {rounds} rounds",
            machine=[*machine.describe(parent), f"cowfs {cowfs.__version__}, LZ4"],
            races=races,
            figures=figures,
            notes=NBD_NOTES,
        ),
        json_file,
    )


@contextmanager
def workplace(parent: Path) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """A directory for the stores, and what to call with the step that is under way."""
    console = Console(stderr=True)
    with (
        tempfile.TemporaryDirectory(prefix="cowfs-bench-", dir=parent) as directory,
        console.status("") as status,
    ):
        yield Path(directory), status.update


def finish(report: Report, json_file: Path | None) -> None:
    report.print()
    if json_file:
        report.write_json(json_file)


if __name__ == "__main__":
    main(prog_name="bench")
