"""cowfs mkdir: make directories."""

from __future__ import annotations

import click

from cowfs.fs import FS

from .command import command
from .places import PlaceName, change, need_place


@command("mkdir", "Make directories.\n\nAll that are named in one image are made, or none.")
@click.argument("places", type=PlaceName(), metavar="PLACE...", nargs=-1, required=True)
@click.option(
    "-p", "--parents", is_flag=True, help="Those above too, and no error where it is there."
)
def run(places: tuple[str, ...], parents: bool) -> None:
    change([need_place(text) for text in places], lambda fs, path: make(fs, path, parents))


def make(fs: FS, path: bytes, parents: bool) -> None:
    if parents:
        fs.makedirs(path, exist_ok=True)
    else:
        fs.mkdir(path)
