"""cowfs snapshot: take snapshots at one atomic moment."""

from __future__ import annotations

import logging

import cowfs

from .arguments import dataset_argument, image_argument
from .command import command
from .datasets import need_datasets

log = logging.getLogger(__name__)


@command(
    "snapshot",
    "Take snapshots, all at one atomic moment.\n\n"
    "It costs the same however large the dataset is, and no space until something changes.",
)
@image_argument
@dataset_argument("names", metavar="DATASET@NAME...", nargs=-1, required=True)
def run(image: str, names: tuple[str, ...]) -> None:
    with cowfs.open(image, "w") as store:
        need_datasets(store, *names)
        store.snapshot(*names)
    log.info("%s: took %s", image, ", ".join(names))
