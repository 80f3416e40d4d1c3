"""cowfs cat: write files to standard output."""

from __future__ import annotations

import shutil

import click

from .command import command
from .output import raw_stdout
from .places import PlaceName, need_place, read


@command("cat", "Write files to standard output.")
@click.argument("places", type=PlaceName(), metavar="PLACE...", nargs=-1, required=True)
def run(places: tuple[str, ...]) -> None:
    for text in places:
        with (
            read(need_place(text)) as (fs, path),
            fs.open(path, "rb") as source,
            raw_stdout() as out,
        ):
            shutil.copyfileobj(source, out, 1 << 20)
