"""cowfs info: what an image is and holds."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

import cowfs
from cowfs.codec import COMPRESSION_NAMES

from .arguments import bytes_option, image_argument, json_option
from .command import command
from .escapes import show_text
from .output import print_json, show_bytes, show_time


@command("info", "Show what an image is and holds.")
@image_argument
@json_option
@bytes_option
def run(image: str, as_json: bool, exact: bool) -> None:
    with cowfs.open(image, "r") as store:
        facts = collect(store)
    if as_json:
        print_json(facts)
        return
    sizes = {"size_limit", "block_size", "node_size", "file_bytes"}
    for name, value in facts.items():
        if isinstance(value, datetime):
            text = show_time(value)
        elif value is None:
            text = "none: grows as needed"
        elif name in sizes:
            text = show_bytes(value, exact)
        else:
            text = show_text(os.fsencode(str(value)))
        print(f"{name.replace('_', ' '):<12}  {text}".rstrip())


def collect(store: cowfs.Store) -> dict[str, Any]:
    """The facts, in the order in which they are shown."""
    superblock = store.log.superblock
    names = {number: name for name, number in COMPRESSION_NAMES.items()}
    entries = store.list()
    return {
        "image": store.path,
        "label": store.label,
        "uuid": store.uuid,
        "created": datetime.fromtimestamp(superblock.created_ns / 1e9, UTC),
        "size_limit": superblock.limit_blocks * superblock.block_size or None,
        "block_size": superblock.block_size,
        "node_size": superblock.node_size,
        "compression": names[superblock.compression],
        "copies": superblock.metadata_copies,
        "transaction": store.txid,
        "datasets": sum(not entry.is_snapshot for entry in entries),
        "snapshots": sum(entry.is_snapshot for entry in entries),
        "file_bytes": store.space().file_bytes,
    }
