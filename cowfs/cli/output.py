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


def _encode(value: object) -> object:
    """Records of the library, and what is in them, as JSON has it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, bytes):
        return show_text(value)
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{value!r} in a record")


def print_json(value: Any) -> None:
    """One object, indented."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=_encode))


def print_json_array(values: Iterable[Any]) -> None:
    """An array with one record a line, written as the records come."""
    print_array([json.dumps(value, ensure_ascii=False, default=_encode)] for value in values)


def print_array(records: Iterable[Iterable[str]]) -> None:
    """As `print_json_array`, of records that are JSON already and come in pieces."""
    write = sys.stdout.write
    separator = "["
    for pieces in records:
        write(separator + "\n")
        sys.stdout.writelines(pieces)
        separator = ","
    write("[]\n" if separator == "[" else "\n]\n")


@contextmanager
def raw_stdout() -> Iterator[Any]:
    """Standard output for bytes."""
    sys.stdout.flush()
    yield sys.stdout.buffer
    sys.stdout.buffer.flush()
