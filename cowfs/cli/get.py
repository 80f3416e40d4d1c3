"""cowfs get: write a value to standard output."""

from __future__ import annotations

import shutil
import sys

import click

import cowfs

from .arguments import dataset_argument, hex_option, image_argument, read_key
from .command import command
from .datasets import need_datasets, need_key, need_kv
from .output import raw_stdout


@command(
    "get",
    "Write a value to standard output.\n\n"
    r"The value's bytes as they are; on a terminal, a newline after them. In KEY \xNN stands for "
    "the byte NN.",
)
@image_argument
@dataset_argument(metavar="DATASET[@NAME]")
@click.argument("key")
@hex_option
def run(image: str, dataset: str, key: str, as_hex: bool) -> None:
    wanted = read_key(key, as_hex)
    with cowfs.open(image, "r") as store:
        need_datasets(store, dataset)
        with store.at(dataset) as view, raw_stdout() as out:
            kv = need_kv(view, dataset)
            need_key(kv, wanted, dataset, key)
            if as_hex:
                with kv.open(wanted, "rb") as source:
                    while piece := source.read(1 << 20):
                        out.write(piece.hex().encode())
                out.write(b"\n")
                return
            with kv.open(wanted, "rb") as source:
                shutil.copyfileobj(source, out, 1 << 20)
            if sys.stdout.isatty():
                out.write(b"\n")
