"""cowfs create: make a dataset."""

from __future__ import annotations

import logging

import click

from cowfs.control import open_store
from cowfs.errors import UsageError
from cowfs.limits import VOLUME_RECORD_SIZES

from .arguments import Size, dataset_argument, image_argument
from .command import command

log = logging.getLogger(__name__)


@command("create", "Make a dataset: files, keys and values, or a volume.")
@image_argument
@dataset_argument()
@click.option(
    "--kind",
    type=click.Choice(["fs", "kv", "volume"]),
    default="fs",
    show_default=True,
    help="Files and directories, a map from keys to values, or a block device.",
)
@click.option("--size", type=Size(), help="Size of a volume, as 8G.")
@click.option(
    "--record-size",
    type=Size(VOLUME_RECORD_SIZES),
    help="What a volume stores, and a small write rewrites, as one: 4K to 1M.  [default: 16K]",
)
def run(image: str, dataset: str, kind: str, size: int | None, record_size: int | None) -> None:
    if kind == "volume" and size is None:
        raise UsageError("a volume needs a size: --size 8G")
    if kind != "volume" and size is not None:
        raise UsageError(f"--size is for volumes; a dataset of kind {kind} takes what it needs")
    if kind != "volume" and record_size is not None:
        raise UsageError(f"--record-size is for volumes; a dataset of kind {kind} has none")
    with open_store(image, "w") as store:
        store.create(dataset, kind=kind, size=size, record_size=record_size)
    log.info("%s: made dataset %s of kind %s", image, dataset, kind)
