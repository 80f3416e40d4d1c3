"""cowfs scan: keys and values in order."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import islice
from typing import Any

import click

import cowfs
from cowfs.errors import UsageError

from .arguments import (
    dataset_argument,
    hex_option,
    image_argument,
    json_option,
    read_key,
)
from .command import command
from .datasets import need_datasets, need_kv
from .escapes import show_hex, show_text
from .output import print_json_array


@command(
    "scan",
    "List keys and values in order.\n\n"
    r"A line each: key, tab, value. What does not print is shown as \xNN.",
)
@image_argument
@dataset_argument(metavar="DATASET[@NAME]")
@click.option("--prefix", metavar="P", help="Only keys that begin with P.")
@click.option("--from", "start", metavar="A", help="Begin at key A, or the next one after it.")
@click.option("--to", "stop", metavar="B", help="End before key B.")
@click.option("--reverse", is_flag=True, help="Last key first.")
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="At most N keys.")
@click.option("--keys", "keys_only", is_flag=True, help="Keys without values.")
@json_option
@hex_option
def run(
    image: str,
    dataset: str,
    prefix: str | None,
    start: str | None,
    stop: str | None,
    reverse: bool,
    limit: int | None,
    keys_only: bool,
    as_json: bool,
    as_hex: bool,
) -> None:
    if prefix is not None and not (start is None and stop is None):
        raise UsageError("give --prefix, or --from and --to, not both")
    first, last, beginning = (
        None if text is None else read_key(text, as_hex) for text in (start, stop, prefix)
    )
    show = show_hex if as_hex else show_text
    with cowfs.open(image, "r") as store:
        need_datasets(store, dataset)
        with store.at(dataset) as view:
            kv = need_kv(view, dataset)
            if keys_only:
                keys = kv.keys(first, last, prefix=beginning, reverse=reverse)
                fields: Iterable[tuple[str, ...]] = ((show(key),) for key in keys)
            else:
                items = kv.items(first, last, prefix=beginning, reverse=reverse)
                fields = ((show(key), show(value)) for key, value in items)
            print_items(islice(fields, limit), as_json)


def print_items(fields: Iterable[tuple[str, ...]], as_json: bool) -> None:
    if as_json:
        names = ("key", "value")
        records: Iterable[Any] = (dict(zip(names, texts, strict=False)) for texts in fields)
        print_json_array(records)
    else:
        sys.stdout.writelines("\t".join(texts) + "\n" for texts in fields)
