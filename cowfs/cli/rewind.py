"""cowfs rewind: go back to an older checkpoint, on the worst day."""

from __future__ import annotations

import dataclasses

import click

from cowfs.rewind import Checkpoint, checkpoints, rewind

from .arguments import image_argument, json_option
from .command import Settings, command
from .output import print_json
from .progress import progress_bar


@command(
    "rewind",
    "Go back to an older checkpoint of a damaged image.\n\n"
    "Lists the superblocks that are intact, newest first, and whether all that each leads to "
    "verifies; and what going back to it would lose: transactions, and the datasets and snapshots "
    "that are there now and not in it. With --to, the image becomes what it was at that "
    "checkpoint: all transactions after it are lost. It is verified whole before anything is "
    "changed. Copy the image first.",
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
        return
    for one in found:
        if sequence is not None:
            print(f"went back to transaction {one.txid}; all after it are lost")
        else:
            since = f"{one.since.astimezone():%Y-%m-%d %H:%M:%S}" if one.since else "-"
            state = "intact" if one.damage is None else f"damaged: {one.damage}"
            print(f"{one.sequence}  transaction {one.txid}  not before {since}  {state}")
        print_difference(one, went_back=sequence is not None)


def print_difference(one: Checkpoint, *, went_back: bool) -> None:
    """What is there now, and not in a checkpoint, and the other way round."""
    if not one.intact:
        return
    if one.newest_txid > one.txid:
        lost = f"transactions {one.txid + 1} to {one.newest_txid}"
        print(f"    {'lost' if went_back else 'loses'}: {lost}")
    if one.loses is None:
        print("    what is there now cannot be read, to say what else is lost")
    for names, word in ((one.loses, "without"), (one.brings_back, "brings back")):
        if names:
            print(f"    {word}: {', '.join(names)}")
