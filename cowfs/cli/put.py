"""cowfs put: store a value."""

from __future__ import annotations

import os
import shutil
import sys

import click

import cowfs
from cowfs.errors import UsageError

from .arguments import (
    dataset_argument,
    hex_option,
    image_argument,
    read_key,
)
from .command import command
from .datasets import need_datasets, need_head, need_kv
from .escapes import read_hex


@command(
    "put",
    "Store a value.\n\n"
    r"In KEY \xNN stands for the byte NN; VALUE is stored as it is given. Without a VALUE, or "
    "where it is -, standard input is stored, of any length and all or nothing.",
)
@image_argument
@dataset_argument()
@click.argument("key")
@click.argument("value", required=False)
@click.option("--file", type=click.Path(readable=False), help="Store what this file holds.")
@hex_option
def run(
    image: str, dataset: str, key: str, value: str | None, file: str | None, as_hex: bool
) -> None:
    if file is not None and value is not None:
        raise UsageError("give a VALUE or --file, not both")
    stored_key = read_key(key, as_hex)
    with cowfs.open(image, "w") as store:
        need_datasets(store, dataset)
        need_head(dataset)
        with store.transaction() as tx:
            kv = need_kv(tx[dataset], dataset)
            if file is not None:
                with open(file, "rb") as source, kv.open(stored_key, "wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
            elif value is None or value == "-":
                with kv.open(stored_key, "wb") as target:
                    shutil.copyfileobj(sys.stdin.buffer, target, 1 << 20)
            else:
                kv[stored_key] = read_hex(value) if as_hex else os.fsencode(value)
