"""cowfs scan: keys and values in order."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import islice

import click

import cowfs
from cowfs import limits
from cowfs.errors import UsageError
from cowfs.kv import KV

from .arguments import (
    dataset_argument,
    hex_option,
    image_argument,
    json_option,
    read_key,
)
from .command import command
from .datasets import need_datasets, need_kv
from .escapes import show_hex, show_pieces, show_text
from .output import print_array

PIECE = limits.MIB
"""Bytes of a value that are in memory at once: values may be larger than that."""


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
            found = islice(kv.lengths(first, last, prefix=beginning, reverse=reverse), limit)
            records = (
                (show(key), None if keys_only else _show_value(kv, key, length, as_hex))
                for key, length in found
            )
            if as_json:
                print_array(_json_pieces(key, value) for key, value in records)
            else:
                for key, value in records:
                    sys.stdout.write(key)
                    if value is not None:
                        sys.stdout.write("\t")
                        sys.stdout.writelines(value)
                    sys.stdout.write("\n")


def _show_value(kv: KV, key: bytes, length: int, as_hex: bool) -> Iterator[str]:
    pieces = [kv[key]] if length <= PIECE else _read_pieces(kv, key)
    return map(show_hex, pieces) if as_hex else show_pieces(pieces)


def _read_pieces(kv: KV, key: bytes) -> Iterator[bytes]:
    with kv.open(key) as source:
        while piece := source.read(PIECE):
            yield piece


def _json_pieces(key: str, value: Iterator[str] | None) -> Iterator[str]:
    yield f'{{"key": {_in_json(key)}'
    if value is not None:
        yield ', "value": "'
        for piece in value:
            yield _in_json(piece)[1:-1]
        yield '"'
    yield "}"


def _in_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
