"""cowfs del: delete keys."""

from __future__ import annotations

import click

import cowfs

from .arguments import dataset_argument, hex_option, image_argument, read_key
from .command import command
from .datasets import need_datasets, need_head, need_key, need_kv


@command(
    "del",
    "Delete keys.\n\n"
    r"All of them or, where one is missing, none. In KEY \xNN stands for the byte NN.",
)
@image_argument
@dataset_argument()
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@hex_option
def run(image: str, dataset: str, keys: tuple[str, ...], as_hex: bool) -> None:
    with cowfs.open(image, "w") as store:
        need_datasets(store, dataset)
        need_head(dataset)
        with store.transaction() as tx:
            kv = need_kv(tx[dataset], dataset)
            for key in keys:
                wanted = read_key(key, as_hex)
                need_key(kv, wanted, dataset, key)
                del kv[wanted]
