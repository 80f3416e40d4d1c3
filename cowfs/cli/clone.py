"""cowfs clone: make a writable dataset from a snapshot."""

from __future__ import annotations

import logging

from cowfs.control import open_store

from .arguments import dataset_argument, image_argument
from .command import command
from .datasets import need_datasets

log = logging.getLogger(__name__)


@command(
    "clone",
    "Make a writable dataset from a snapshot.\n\n"
    "The two share what they have in common, and neither depends on the other: the snapshot and "
    "its dataset may be destroyed.",
)
@image_argument
@dataset_argument("snapshot", metavar="DATASET@NAME")
@dataset_argument("new", metavar="NEW")
def run(image: str, snapshot: str, new: str) -> None:
    with open_store(image, "w") as store:
        need_datasets(store, snapshot)
        store.clone(snapshot, new)
    log.info("%s: made %s from %s", image, new, snapshot)
