"""The command line of `tools/bench`: one sub-command a suite."""

import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

import click
from rich.console import Console

import cowfs
from benchmark import (
    alone,
    blocks,
    cp,
    filetrees,
    guard,
    kv,
    machine,
    maps,
    mariadb,
    mount,
    nbd,
    pause,
    profiles,
    scale,
    trees,
    volumes,
)
from benchmark.engines import BY_NAME_ONLY, NAMES, engine_class
from benchmark.engines.cowfs import CowfsEngine
from benchmark.report import Report


class Peer(Protocol):
    """What may not be on this machine."""

    name: ClassVar[str]

    @classmethod
    def unavailable(cls) -> str | None:
        """Why it is not there; None where it is."""


P = TypeVar("P", bound=Peer)
PLOTS = Path(__file__).parents[2] / "docs" / "plots"
SUITE_NAMES = [part.name for part in (*kv.WORKLOADS, *alone.MEASUREMENTS)]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure cowfs beside its peers on this machine."""


rounds_option = click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1))


def common(command: Callable[..., None]) -> Callable[..., None]:
    """Options that every suite has."""
    options = (
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
    type=click.Choice([*NAMES, *BY_NAME_ONLY]),
    help="An engine to run; may be repeated. All but twins if not given.",
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(SUITE_NAMES),
    help="A part to run; may be repeated. All if not given.",
)
@rounds_option
@common
def kv_command(
    items: int,
    engine_names: tuple[str, ...],
    only: tuple[str, ...],
    rounds: int,
    parent: Path,
    json_file: Path | None,
) -> None:
    """Maps: loads, gets, scans, commits beside the peers; what cowfs alone promises."""
    engines = [
        engine_class(name) for name in (*NAMES, *BY_NAME_ONLY) if name in (engine_names or NAMES)
    ]
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
            notes=[*(kv.NOTES if races else []), *(alone.NOTES if figures else [])],
        ),
        json_file,
    )


@main.command("cp")
@click.option(
    "--mib", default=1_024, show_default=True, type=click.IntRange(min=1), help="Size of the file."
)
@rounds_option
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
            notes=cp.NOTES,
        ),
        json_file,
    )


@main.command("trees")
@click.option("--files", default=200_000, show_default=True, type=click.IntRange(min=200))
@click.option(
    "--engine",
    "names",
    multiple=True,
    type=click.Choice(filetrees.NAMES),
    help="A place to run; may be repeated. All if not given.",
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(trees.PARTS),
    help="A part to run; may be repeated. All if not given.",
)
@click.option("--rounds", default=1, show_default=True, type=click.IntRange(min=1))
@common
def trees_command(
    files: int,
    names: tuple[str, ...],
    only: tuple[str, ...],
    rounds: int,
    parent: Path,
    json_file: Path | None,
) -> None:
    """Many small files: in and out, snapshots, clones, diffs, beside Btrfs, cp -a and tar."""
    wanted = [filetrees.file_trees_class(name) for name in names or filetrees.NAMES]
    classes, missing = available(wanted)
    with workplace(parent) as (directory, progress):
        races, figures = trees.run(classes, only or trees.PARTS, files, rounds, directory, progress)
    finish(
        Report(
            title=f"trees, {files:,} files, {rounds} rounds",
            machine=[*machine.describe(parent), "; ".join(c.describe() for c in classes)],
            races=races,
            figures=figures,
            notes=[*missing, *trees.NOTES],
        ),
        json_file,
    )


@main.command("blocks")
@click.option("--mib", default=256, show_default=True, type=click.IntRange(min=1))
@click.option("--writes", default=blocks.WRITES, show_default=True, type=click.IntRange(min=1))
@rounds_option
@common
def blocks_command(
    mib: int, writes: int, rounds: int, parent: Path, json_file: Path | None
) -> None:
    """Block devices: filling, snapshots, writes over them, removal, beside qcow2."""
    classes, missing = available([volumes.volume_class(name) for name in volumes.NAMES])
    with workplace(parent) as (directory, progress):
        races = blocks.race(classes, mib << 20, writes, rounds, directory, progress)
    finish(
        Report(
            title=f"blocks, a device of {mib:,} MiB, {rounds} rounds",
            machine=[*machine.describe(parent), "; ".join(c.describe() for c in classes)],
            races=races,
            notes=[*missing, *blocks.NOTES],
        ),
        json_file,
    )


@main.command("pause")
@click.option(
    "--mib",
    "sizes",
    multiple=True,
    default=(50, 200),
    show_default=True,
    type=click.IntRange(min=1),
    help="Size of the map; may be repeated.",
)
@rounds_option
@common
def pause_command(
    sizes: tuple[int, ...], rounds: int, parent: Path, json_file: Path | None
) -> None:
    """A snapshot of a map while all of it is rewritten, beside Redis's BGSAVE."""
    classes, missing = available([maps.map_class(name) for name in maps.NAMES])
    with workplace(parent) as (directory, progress):
        figures, curves = pause.measure(classes, sizes, rounds, directory, progress)
    finish(
        Report(
            title=f"pause, {rounds} rounds",
            machine=[*machine.describe(parent), "; ".join(c.describe() for c in classes)],
            figures=figures,
            curves=curves,
            notes=[*missing, *pause.NOTES],
        ),
        json_file,
    )


@main.command("scale")
@click.option("--keys", multiple=True, default=(10_000, 100_000, 1_000_000), show_default=True)
@click.option("--files", multiple=True, default=(10_000, 100_000), show_default=True)
@click.option("--snapshots", multiple=True, default=(1, 100, 10_000), show_default=True)
@click.option("--cached", default=scale.CACHED, show_default=True, help="Keys of the cache part.")
@click.option("--full-mib", default=16, show_default=True, help="Size of the full image.")
@click.option("--age", "ages", multiple=True, default=(1, 10, 100), show_default=True)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(scale.PARTS),
    help="A part to run; may be repeated. All if not given.",
)
@common
def scale_command(
    keys: tuple[int, ...],
    files: tuple[int, ...],
    snapshots: tuple[int, ...],
    cached: int,
    full_mib: int,
    ages: tuple[int, ...],
    only: tuple[str, ...],
    parent: Path,
    json_file: Path | None,
) -> None:
    """How the cost of each operation grows. Options with several sizes are given once for each."""
    sizes = scale.Sizes(keys, files, snapshots, cached, full_mib << 20, ages)
    with workplace(parent) as (directory, progress):
        curves, figures = scale.measure(only or scale.PARTS, sizes, directory, progress)
    finish(
        Report(
            title="scale",
            machine=[*machine.describe(parent), f"cowfs {cowfs.__version__}, LZ4"],
            figures=figures,
            curves=curves,
            notes=scale.NOTES,
        ),
        json_file,
    )


@main.command("guard")
@click.option("--update", is_flag=True, help="Make what is counted now the baseline.")
def guard_command(update: bool) -> None:
    """Instructions of fixed kernels, compared with the committed baseline; needs valgrind."""
    try:
        with workplace(Path(tempfile.gettempdir())) as (directory, progress):
            progress("counting")
            counts = guard.count(directory)
        if update:
            guard.write_baseline(counts, guard.environment())
        comparisons = guard.compare(counts, guard.read_baselines(), guard.environment())
    except guard.GuardError as error:
        raise click.ClickException(str(error)) from None
    guard.show(comparisons)
    if any(each.slower for each in comparisons):
        raise click.ClickException(
            f"more than {guard.TOLERANCE:.0%} slower than the baseline. If it has to be: "
            "tools/bench guard --update, and say why where you commit it."
        )


@main.command("mount")
@click.option(
    "--mib", default=256, show_default=True, type=click.IntRange(min=1), help="Size of the file."
)
@rounds_option
@common
def mount_command(mib: int, rounds: int, parent: Path, json_file: Path | None) -> None:
    """Mounts: throughput and small files beside pass-through file systems and Btrfs."""
    with workplace(parent) as (directory, progress):
        races = mount.race(mib, rounds, directory, progress)
        figures = [mount.pause(rounds, directory, progress)]
        figures += mariadb.pauses(rounds, directory, progress)
    finish(
        Report(
            title=f"mount, a file of {mib:,} MiB and {mount.FILES:,} files, {rounds} rounds",
            machine=[*machine.describe(parent), f"cowfs {cowfs.__version__}, LZ4"],
            races=races,
            figures=figures,
            notes=mount.NOTES,
        ),
        json_file,
    )


@main.command("nbd")
@click.option(
    "--mib", default=1_024, show_default=True, type=click.IntRange(min=16), help="Size of volumes."
)
@rounds_option
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
            notes=nbd.NOTES,
        ),
        json_file,
    )


@main.command("profile")
@click.argument("subject", type=click.Choice(list(profiles.SUBJECTS)))
@click.option("--items", default=200_000, show_default=True, help="Keys or files.")
def profile_command(subject: str, items: int) -> None:
    """Where the time of a workload goes: Python's functions, and compiled ones by perf."""
    with workplace(Path(tempfile.gettempdir())) as (directory, progress):
        for title, profile in (
            ("Python's functions, by own time (profiling slows calls down)", profiles.by_python),
            ("all code, by samples of the clock (waiting is not counted)", profiles.by_symbol),
        ):
            progress(title)
            try:
                text = profile(subject, items, directory)
            except profiles.ProfileError as error:
                raise click.ClickException(str(error)) from None
            click.echo(f"{title}\n\n{text}")


@main.command("plot")
@click.argument(
    "reports", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option(
    "--to",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=PLOTS,
    show_default="docs/plots",
)
def plot_command(reports: tuple[Path, ...], directory: Path) -> None:
    """Pictures of what suites wrote with --json."""
    from benchmark import plot

    for path in plot.draw(reports, directory):
        click.echo(path)


def available(peers: Collection[type[P]]) -> tuple[list[type[P]], list[str]]:
    """The peers that this machine has, and a line for each that it has not."""
    reasons = {peer: peer.unavailable() for peer in peers}
    missing = [f"{peer.name} is left out: {why}." for peer, why in reasons.items() if why]
    return [peer for peer, why in reasons.items() if not why], missing


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
