"""cowfs snapshot: take snapshots at one atomic moment."""

from __future__ import annotations

import contextlib
import logging
import signal
import subprocess
from collections.abc import Callable, Iterator

import click

from cowfs.control import open_store
from cowfs.signals import ending_signals

from .arguments import dataset_argument, image_argument
from .command import command
from .datasets import need_datasets

log = logging.getLogger(__name__)


@command(
    "snapshot",
    "Take snapshots, all at one atomic moment.\n\n"
    "It costs the same however large the dataset is, and no space until something changes. What "
    "programs wrote to a dataset that is mounted is in it, as after a power cut at that moment; "
    "those that want to be asked first are, by --quiesce.",
)
@image_argument
@dataset_argument("names", metavar="DATASET@NAME...", nargs=-1, required=True)
@click.option("--quiesce", metavar="CMD", help="Run this first; no snapshot where it fails.")
@click.option("--resume", metavar="CMD", help="Run this afterwards, whatever happened.")
def run(image: str, names: tuple[str, ...], quiesce: str | None, resume: str | None) -> None:
    with open_store(image, "w") as store:
        need_datasets(store, *names)
        with hooks(quiesce, resume):
            store.snapshot(*names)
    log.info("%s: took %s", image, ", ".join(names))


@contextlib.contextmanager
def hooks(before: str | None, after: str | None) -> Iterator[None]:
    """Shell commands around what is done; the second one runs though a signal ends this."""
    _on_signals(_end)
    try:
        if before is not None:
            _call("--quiesce", before)
        yield
    finally:
        _on_signals(lambda number, frame: None)
        if after is not None:
            _call("--resume", after)


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _on_signals(handler: Callable[[int, object], None]) -> None:
    for number in ending_signals():
        if number != signal.SIGINT:  # which is KeyboardInterrupt
            signal.signal(number, handler)


def _call(option: str, command: str) -> None:
    code = subprocess.run(command, shell=True, check=False).returncode
    if code != 0:
        raise click.ClickException(f"{option} {command!r} failed with code {code}")
