"""Arguments that many commands take: images, names of datasets and snapshots, sizes, keys."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.types import StringParamType

import cowfs
from cowfs.errors import Error, UsageError
from cowfs.sizes import parse_size, show_size

from .escapes import read_hex, read_text

F = TypeVar("F", bound=Callable[..., Any])

if TYPE_CHECKING:
    IntegerType = click.ParamType[int]
else:  # generic since click 8.2 only
    IntegerType = click.ParamType


class DatasetName(StringParamType):
    """A dataset or snapshot; the library checks it, completion offers what the image has."""

    name = "dataset"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        from click.shell_completion import CompletionItem

        try:
            with cowfs.open(os.path.expanduser(ctx.params["image"]), "r") as store:
                names = [entry.name for entry in store.list()] if "@" in incomplete else list(store)
        except (Error, OSError, KeyError, TypeError):
            return []
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


class Size(IntegerType):
    """Bytes, written as people write sizes; where only some are allowed, one of these."""

    name = "size"

    def __init__(self, allowed: Sequence[int] = ()) -> None:
        self.allowed = allowed

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            size = parse_size(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)
        if self.allowed and size not in self.allowed:
            self.fail(f"{value}: allowed are {', '.join(map(show_size, self.allowed))}", param, ctx)
        return size


image_argument = click.argument("image", type=click.Path(readable=False), metavar="IMAGE")
json_option = click.option("--json", "as_json", is_flag=True, help="Print the records as JSON.")
bytes_option = click.option("--bytes", "exact", is_flag=True, help="Show exact numbers of bytes.")
hex_option = click.option("--hex", "as_hex", is_flag=True, help="Keys and values are hex digits.")


def dataset_argument(
    name: str = "dataset", metavar: str = "DATASET", **attributes: Any
) -> Callable[[F], F]:
    """An argument that names one or more datasets or snapshots."""
    return click.argument(name, type=DatasetName(), metavar=metavar, **attributes)


def read_key(text: str, as_hex: bool) -> bytes:
    r"""A key as given: with \xNN for odd bytes, or as hex digits."""
    return read_hex(text) if as_hex else read_text(text)
