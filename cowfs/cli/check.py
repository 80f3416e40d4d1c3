"""cowfs check: verify every structure, count and checksum."""

from __future__ import annotations

import dataclasses

import click

import cowfs
from cowfs.control import open_store

from .arguments import image_argument, json_option
from .command import Settings, command
from .output import print_json
from .progress import progress_bar


@command(
    "check",
    "Verify every structure, count and checksum.\n\n"
    "A line for each fault, by dataset and block. Nothing is changed. The exit code is 1 on any "
    "fault.",
)
@image_argument
@json_option
@click.pass_obj
def run(settings: Settings, image: str, as_json: bool) -> None:
    with open_store(image, "r") as store:
        with progress_bar(settings) as begin:
            report = store.check(progress=begin("checking"))
        print_report(image, report, as_json)


def print_report(image: str, report: cowfs.Report, as_json: bool) -> None:
    """What was found; ends the program with exit code 1 where that was a fault."""
    if as_json:
        print_json({"ok": report.ok, **dataclasses.asdict(report)})
    for fault in report.faults if not as_json else ():
        print(fault)
    if not report.ok:
        count = len(report.faults)
        raise click.ClickException(f"{image}: {count} fault{'s' if count != 1 else ''} found")
