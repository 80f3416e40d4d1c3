"""cowfs check: verify every structure, count and checksum; copy out what verifies."""

from __future__ import annotations

import dataclasses
import os

import click

import cowfs
from cowfs.control import open_store
from cowfs.device import FileDevice, check_image_path
from cowfs.report import Loss
from cowfs.salvage import Salvage

from .arguments import image_argument, json_option
from .command import Settings, command
from .escapes import show_text
from .output import print_json
from .progress import progress_bar


@command(
    "check",
    "Verify every structure, count and checksum.\n\n"
    "A line for each fault, by dataset and block. Nothing is changed. The exit code is 1 on any "
    "fault. With --salvage, everything that still verifies is copied to a new directory instead, "
    "and a line names each thing that could not be.",
)
@image_argument
@click.option(
    "--salvage", "out", type=click.Path(), metavar="OUT", help="Copy out what still verifies."
)
@json_option
@click.pass_obj
def run(settings: Settings, image: str, out: str | None, as_json: bool) -> None:
    if out is not None:
        salvage(settings, image, out, as_json)
        return
    with open_store(image, "r") as store:
        with progress_bar(settings) as begin:
            report = store.check(progress=begin("checking"))
        print_report(image, report, as_json)


def print_report(image: str, report: cowfs.Report, as_json: bool) -> None:
    """What was found; ends the program with exit code 1 where that was a fault."""
    if as_json:
        print_json({"ok": report.ok, **dataclasses.asdict(report)})
    for repaired in report.repaired if not as_json else ():
        print(f"{repaired}: repaired from the second copy")
    if report.repaired and not as_json:
        print(f"{len(report.repaired)} repaired")
    for fault in report.faults if not as_json else ():
        print(fault)
    if not report.ok:
        count = len(report.faults)
        raise click.ClickException(f"{image}: {count} fault{'s' if count != 1 else ''} found")


def salvage(settings: Settings, image: str, out: str, as_json: bool) -> None:
    """Copy out what verifies; ends the program with exit code 1 where something was lost."""
    count = 0
    losses: list[Loss] = []
    device = FileDevice(check_image_path(os.fspath(image)), writable=False)
    try:
        with progress_bar(settings) as begin:
            work = Salvage(device, out, begin("salvaging"))
            for loss in work:
                count += 1
                if as_json:
                    losses.append(loss)
                else:
                    print(show_loss(loss))
    finally:
        device.close()
    if as_json:
        found = {"transaction": work.txid, "versions": work.versions}
        print_json({"ok": not count, **found, "losses": list(map(dataclasses.asdict, losses))})
    else:
        print(f"{work.versions} datasets and snapshots as of transaction {work.txid} are in {out}")
    if count:
        raise click.ClickException(
            f"{image}: {count} loss{'es' if count != 1 else ''}; what verifies is in {out}"
        )


def show_loss(loss: Loss) -> str:
    """In one line: where, which bytes of it, and why."""
    place = loss.dataset
    if loss.what:
        place += f": {show_text(loss.what)}" if place else show_text(loss.what)
    if loss.start is not None:
        place += f", bytes {loss.start} to {loss.stop}"
    reason = f"block {loss.block}: {loss.reason}" if loss.block is not None else loss.reason
    return f"{place}: {reason}" if place else reason
