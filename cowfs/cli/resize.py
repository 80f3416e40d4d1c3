"""cowfs resize: give a volume another size."""

from __future__ import annotations

import logging

import click

from cowfs.control import RemoteStore, open_store

from .arguments import Size, dataset_argument, image_argument
from .command import command
from .datasets import need_datasets, need_head, need_volume

log = logging.getLogger(__name__)


@command("resize", "Give a volume another size.\n\nWhat lies beyond a smaller one is gone.")
@image_argument
@dataset_argument()
@click.argument("size", type=Size(), metavar="SIZE")
def run(image: str, dataset: str, size: int) -> None:
    with open_store(image, "w") as store:
        need_head(dataset)
        need_datasets(store, dataset)
        if isinstance(store, RemoteStore):
            store.resize(dataset, size)
        else:
            need_volume(store[dataset], dataset).resize(size)
    log.info("%s: %s has %d bytes now", image, dataset, size)
