"""cowfs df: space by reason."""

from __future__ import annotations

from cowfs.control import open_store

from .arguments import bytes_option, image_argument, json_option
from .command import command
from .output import print_json, print_table, show_bytes

PARTS = {
    "live": "in datasets as they are now",
    "pinned": "in snapshots only: destroying them frees it",
    "reclaimable": "destroyed, and free in a moment",
    "metadata": "the image's own records",
    "free": "not in use",
    "reserve": "of what is free, held back so that deleting always works",
}


@command("df", "Show where the space of an image went.")
@image_argument
@json_option
@bytes_option
def run(image: str, as_json: bool, exact: bool) -> None:
    with open_store(image, "r") as store:
        space = store.space()
    if as_json:
        print_json(space)
        return

    def line(name: str, size: int, text: str) -> list[str]:
        return [name, show_bytes(size, exact), f"{size / space.total:.1%}", text]

    rows = [line(name, getattr(space, name), text) for name, text in PARTS.items()]
    rows.append(line("total", space.total, "all of the image as it is now"))
    if space.limit:
        rows.append(line("limit", space.limit, "what the image may grow to"))
    rows.append(line("file", space.file_bytes, "what it takes on its host"))
    print_table(["SPACE", "SIZE", "SHARE", "WHAT"], rows, right="SIZE SHARE")
