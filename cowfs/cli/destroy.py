"""cowfs destroy: destroy datasets or snapshots and free their space."""

from __future__ import annotations

import logging

import click

from cowfs.control import open_store

from .arguments import dataset_argument, image_argument
from .command import command
from .datasets import need_datasets

log = logging.getLogger(__name__)


@command(
    "destroy",
    "Destroy datasets or snapshots and free their space.\n\n"
    "A dataset that has snapshots is destroyed with them by -r, and not without. Clones do not "
    "depend on what they came from and stay.",
)
@image_argument
@dataset_argument("names", metavar="DATASET[@NAME]...", nargs=-1, required=True)
@click.option("-r", "--recursive", is_flag=True, help="A dataset's snapshots too.")
def run(image: str, names: tuple[str, ...], recursive: bool) -> None:
    with open_store(image, "w") as store:
        need_datasets(store, *names)
        store.destroy(*names, recursive=recursive)
    log.info("%s: destroyed %s", image, ", ".join(names))
