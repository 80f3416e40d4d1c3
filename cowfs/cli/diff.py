"""cowfs diff: what changed between two snapshots, or a snapshot and the head."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import click

import cowfs
from cowfs.control import open_store
from cowfs.errors import UsageError

from .arguments import dataset_argument, image_argument, json_option
from .command import Settings, command
from .datasets import need_datasets
from .escapes import show_text
from .output import print_json, print_json_array

DIFFERENT = 1
TROUBLE = 2

WORDS = {"+": "added", "-": "removed", "M": "modified", "R": "renamed"}


@command(
    "diff",
    "Show what changed between two snapshots.\n\n"
    "From a snapshot to what its dataset is now, where only one is named. "
    "A line each: + added, - removed, M modified, R renamed; by path for files, by key for keys "
    "and values, by range of bytes for volumes. Its cost is that of what differs. The exit code "
    "is 0 where nothing differs, 1 where something does, 2 on trouble.",
)
@image_argument
@dataset_argument("old", metavar="DATASET@NAME")
@dataset_argument("new", metavar="[DATASET[@NAME]]", required=False)
@json_option
@click.option("--stat", is_flag=True, help="Count the changes instead of listing them.")
@click.pass_obj
def run(
    settings: Settings, image: str, old: str, new: str | None, as_json: bool, stat: bool
) -> None:
    settings.failure_code = TROUBLE
    if new is None:
        if "@" not in old:
            raise UsageError(f"{old!r} is what there is now; name a snapshot, {old}@NAME")
        new = old.partition("@")[0]
    counts: Counter[str] = Counter()
    with open_store(image, "r") as store:
        need_datasets(store, old, new)
        changes = counted(store.diff(old, new), counts)
        if stat:
            for _ in changes:
                pass
            print_counts(counts, as_json)
        elif as_json:
            print_json_array(map(record, changes))
        else:
            for change in changes:
                print(show_change(change))
    if counts:
        raise click.exceptions.Exit(DIFFERENT)


def counted(changes: Iterator[cowfs.Change], counts: Counter[str]) -> Iterator[cowfs.Change]:
    """The same changes; how many of each kind went by is noted."""
    for change in changes:
        counts[change.op] += 1
        yield change


def show_change(change: cowfs.Change) -> str:
    """A change as a line."""
    if change.stop:
        return f"{change.op} {change.start}..{change.stop}"
    line = f"{change.op} {show_text(change.path)}"
    return line if change.new_path is None else f"{line} -> {show_text(change.new_path)}"


def record(change: cowfs.Change) -> dict[str, str | int]:
    """A change as JSON has it: the fields that mean something for its kind."""
    if change.stop:
        return {"op": change.op, "start": change.start, "stop": change.stop}
    fields: dict[str, str | int] = {"op": change.op, "path": show_text(change.path)}
    if change.new_path is not None:
        fields["new_path"] = show_text(change.new_path)
    return fields


def print_counts(counts: Counter[str], as_json: bool) -> None:
    named = {word: counts[op] for op, word in WORDS.items()}
    if as_json:
        print_json(named)
    else:
        print(", ".join(f"{count} {word}" for word, count in named.items()))
