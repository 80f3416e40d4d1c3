"""cowfs rewind: go back to an older checkpoint, on the worst day."""

from __future__ import annotations

import dataclasses

import click

from cowfs.rewind import checkpoints, rewind

from .arguments import image_argument, json_option
from .command import Settings, command
from .output import print_json
from .progress import progress_bar


@command(
    "rewind",
    "Go back to an older checkpoint of a damaged image.\n\n"
    "Lists the superblocks that are intact, newest first, and whether all that each leads to "
    "verifies. With --to, the image becomes what it was at that checkpoint: all transactions after "
    "it are lost. It is verified whole before anything is changed. Copy the image first.",
)
@image_argument
@click.option("--to", "sequence", type=int, metavar="SEQUENCE", help="Go back to this superblock.")
@json_option
@click.pass_obj
def run(settings: Settings, image: str, sequence: int | None, as_json: bool) -> None:
    with progress_bar(settings) as begin:
        if sequence is None:
            found = checkpoints(image, begin("checking"))
        else:
            found = [rewind(image, sequence, begin("checking"))]
    if as_json:
        print_json([{**dataclasses.asdict(one), "intact": one.intact} for one in found])
    elif sequence is not None:
        print(f"went back to transaction {found[0].txid}; all after it are lost")
    else:
        for one in found:
            since = f"{one.since.astimezone():%Y-%m-%d %H:%M:%S}" if one.since else "-"
            state = "intact" if one.damage is None else f"damaged: {one.damage}"
            print(f"{one.sequence}  transaction {one.txid}  not before {since}  {state}")
