"""cowfs rename: another name for a dataset or snapshot."""

from __future__ import annotations

import logging

from cowfs.control import open_store

from .arguments import dataset_argument, image_argument
from .command import command
from .datasets import need_datasets

log = logging.getLogger(__name__)


@command(
    "rename",
    "Rename a dataset or snapshot.\n\nA dataset takes its snapshots with it; a snapshot stays "
    "with its dataset.",
)
@image_argument
@dataset_argument("old", metavar="OLD")
@dataset_argument("new", metavar="NEW")
def run(image: str, old: str, new: str) -> None:
    with open_store(image, "w") as store:
        need_datasets(store, old)
        store.rename(old, new)
    log.info("%s: renamed %s to %s", image, old, new)
