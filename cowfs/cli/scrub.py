"""cowfs scrub: verify every checksum, and repair what has a second copy."""

from __future__ import annotations

import click

from cowfs.control import open_store

from .arguments import image_argument, json_option
from .check import print_report
from .command import Settings, command
from .progress import progress_bar


@command(
    "scrub",
    "Verify every checksum, and repair what has a second copy.\n\n"
    "Reads all that is in use and compares it with its checksum: a line for each fault, by dataset "
    "and block. Where a node has a second copy (mkfs --metadata-copies 2), a damaged one is "
    "written anew from the other. 'cowfs check' verifies structures and counts too. The exit code "
    "is 1 on any fault that is left.",
)
@image_argument
@json_option
@click.pass_obj
def run(settings: Settings, image: str, as_json: bool) -> None:
    with open_store(image, "r") as store, progress_bar(settings) as begin:
        report = store.scrub(progress=begin("scrubbing"))
    if any(fault.repairable for fault in report.faults):
        # Only now: an image that is only read is left as it is, and shared with other readers.
        with open_store(image, "w") as store, progress_bar(settings) as begin:
            report = store.scrub(progress=begin("repairing"))
    print_report(image, report, as_json)
