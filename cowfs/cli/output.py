"""What commands print: the same records as a table for people or as JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from cowfs.sizes import show_size

from .escapes import show_text


def show_bytes(count: int, exact: bool) -> str:
    """A number of bytes for a table: 1.5G, or with --bytes 1610612736."""
    return str(count) if exact else show_size(count)


def show_time(moment: datetime) -> str:
    """Local time to the second."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: str = "") -> None:
    """Columns two blanks apart; those headed by a word of `right` are numbers."""
    numbers = set(right.split())
    lines = [list(headings), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (
            cell.rjust(width) if heading in numbers else cell.ljust(width)
            for cell, width, heading in zip(line, widths, headings, strict=True)
        )
        sys.stdout.write("  ".join(cells).rstrip() + "\n")


def record(value: Any) -> Any:
    """A dataclass of the library, or a part of one, as JSON has it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: record(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, bytes):
        return show_text(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [record(item) for item in value]
    return value


def print_json(value: Any) -> None:
    """One object, indented."""
    print(json.dumps(record(value), indent=2, ensure_ascii=False))


def print_json_array(values: Iterable[Any]) -> None:
    """An array with one record a line, written as the records come."""
    write = sys.stdout.write
    separator = "["
    for value in values:
        write(f"{separator}\n{json.dumps(record(value), ensure_ascii=False)}")
        separator = ","
    write("[]\n" if separator == "[" else "\n]\n")


@contextmanager
def raw_stdout() -> Iterator[Any]:
    """Standard output for bytes."""
    sys.stdout.flush()
    yield sys.stdout.buffer
    sys.stdout.buffer.flush()
