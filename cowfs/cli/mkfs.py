"""cowfs mkfs: make an image."""

from __future__ import annotations

import logging
import os
import stat

import click

import cowfs
from cowfs import limits
from cowfs.errors import ExistsError, UsageError

from .arguments import Size, image_argument
from .command import command

log = logging.getLogger(__name__)


@command("mkfs", "Make an image.\n\nWithout --size it grows as needed.")
@image_argument
@click.option("--size", type=Size(), help="Largest size of the image, as 10G.")
@click.option(
    "--block-size",
    type=Size(limits.BLOCK_SIZES),
    default="4K",
    show_default=True,
    help="What space is given out in: 4K, 8K, 16K, 32K or 64K.",
)
@click.option(
    "--node-size",
    type=Size(limits.NODE_SIZES),
    default="8K",
    show_default=True,
    help="Size of a tree's nodes: 4K, 8K, 16K or 32K.",
)
@click.option(
    "--compression",
    type=click.Choice(["lz4", "none"]),
    default="lz4",
    show_default=True,
    help="How data is compressed.",
)
@click.option(
    "--metadata-copies",
    type=click.IntRange(1, 2),
    default=1,
    show_default=True,
    help="2 keeps a second copy of all metadata, from which they are repaired.",
)
@click.option("--label", default="", help="A text to tell the image by.")
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def run(
    image: str,
    size: int | None,
    block_size: int,
    node_size: int,
    compression: str,
    metadata_copies: int,
    label: str,
    force: bool,
) -> None:
    check_free(image, force)
    with cowfs.open(
        image,
        "n",
        size=size,
        block_size=block_size,
        node_size=node_size,
        compression=compression,
        metadata_copies=metadata_copies,
        label=label,
    ) as store:
        log.info("%s: made, uuid %s", image, store.uuid)


def check_free(image: str, force: bool) -> None:
    """Refuse to write over what nobody meant to lose."""
    try:
        mode = os.stat(image).st_mode
    except FileNotFoundError:
        if os.path.islink(image):
            raise ExistsError(f"{image}: is a symbolic link to nothing; remove it first") from None
        return
    if stat.S_ISDIR(mode):
        raise UsageError(f"{image}: is a directory; an image is a file")
    if not stat.S_ISREG(mode):
        raise UsageError(f"{image}: is not an ordinary file; an image is one")
    if not force:
        raise ExistsError(f"{image}: exists; --force overwrites it and all that is in it")
