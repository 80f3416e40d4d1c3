"""cowfs rollback: take a dataset back to a snapshot."""

from __future__ import annotations

import logging

import click

from cowfs.control import open_store

from .arguments import dataset_argument, image_argument
from .command import command
from .datasets import need_datasets

log = logging.getLogger(__name__)


@command(
    "rollback",
    "Take a dataset back to a snapshot.\n\n"
    "Later snapshots stay. What is abandoned is lost unless --keep gives it a name.",
)
@image_argument
@dataset_argument("name", metavar="DATASET@NAME")
@click.option(
    "--keep", metavar="NAME", help="Keep the abandoned state as the snapshot DATASET@NAME."
)
def run(image: str, name: str, keep: str | None) -> None:
    with open_store(image, "w") as store:
        need_datasets(store, name)
        store.rollback(name, keep=keep)
    log.info("%s: rolled back to %s", image, name)
