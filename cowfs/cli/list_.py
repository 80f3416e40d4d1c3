"""cowfs list: datasets and snapshots with their space."""

from __future__ import annotations

from cowfs.control import open_store

from .arguments import bytes_option, image_argument, json_option
from .command import command
from .output import print_json_array, print_table, show_bytes, show_time


@command(
    "list",
    "List datasets and snapshots with their space.\n\n"
    "REFERENCED is what it takes in the image, shared with others or not; EXCLUSIVE the part of it "
    "that destroying it would free; LOGICAL what was put in, before compression. SIZE is that of "
    "volumes.",
)
@image_argument
@json_option
@bytes_option
def run(image: str, as_json: bool, exact: bool) -> None:
    with open_store(image, "r") as store:
        entries = store.list()
    if as_json:
        print_json_array(entries)
        return
    sizes = any(entry.size for entry in entries)
    rows = []
    for entry in entries:
        counts = [entry.referenced, entry.exclusive, entry.logical]
        row = [entry.name, entry.kind, str(entry.items)]
        row += [show_bytes(count, exact) for count in counts]
        if sizes:
            row.append(show_bytes(entry.size, exact) if entry.size else "-")
        rows.append([*row, show_time(entry.created)])
    headings = ["NAME", "KIND", "ITEMS", "REFERENCED", "EXCLUSIVE", "LOGICAL"]
    headings += ["SIZE", "CREATED"] if sizes else ["CREATED"]
    print_table(headings, rows, right="ITEMS REFERENCED EXCLUSIVE LOGICAL SIZE")
