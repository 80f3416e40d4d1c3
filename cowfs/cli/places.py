"""Places: `IMAGE:DATASET[@NAME]/path` inside an image, or a path on the host.

Names of datasets hold slashes and colons too, so a place is read against what exists: the image is
what stands before the first colon that has a file before it, and the dataset the longest name
from there on. `IMAGE:DATASET//path` ends the name of the dataset where one would go on.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import click
from click.types import StringParamType

import cowfs
from cowfs import Store
from cowfs.errors import Error, FileError, NotFoundError, UsageError
from cowfs.fs import FS

from .datasets import nearest, need_fs, need_head


@dataclass(frozen=True)
class Place:
    """What a user named inside an image."""

    image: str
    rest: str
    """After the colon: dataset, snapshot and path, told apart by `find`."""

    def __str__(self) -> str:
        return f"{self.image}:{self.rest}"

    def find(self, store: Store) -> tuple[str, bytes]:
        """The dataset or snapshot, and the path in it: absolute, b"/" for its root."""
        parts = self.rest.split("/")
        for count in range(len(parts), 0, -1):
            name = "/".join(parts[:count])
            dataset, _, snapshot = name.partition("@")
            if dataset in store and "/" not in snapshot:
                return name, b"/" + os.fsencode("/".join(parts[count:])).lstrip(b"/")
        dataset = parts[0].partition("@")[0]
        if not dataset:
            raise UsageError(f"{self}: a place in an image is {self.image}:DATASET/path")
        raise NotFoundError(f"{self.image}: no dataset {dataset!r}; {nearest(store, dataset)}")


def parse_place(text: str) -> Place | None:
    """The place in an image that `text` names; None where it is a path on the host."""
    at = text.find(":")
    while at > 0:
        if _is_file(text[:at]):
            return Place(text[:at], text[at + 1 :])
        at = text.find(":", at + 1)
    image, colon, rest = text.partition(":")
    if not colon or not image or os.path.lexists(text):
        return None
    return Place(image, rest)


def need_place(text: str) -> Place:
    """The place in an image that `text` names, for commands that work on nothing else."""
    place = parse_place(text)
    if place is None:
        raise UsageError(f"{text!r}: a place in an image is written IMAGE:DATASET/path")
    return place


def _is_file(path: str) -> bool:
    try:
        return not stat.S_ISDIR(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


@contextmanager
def read(place: Place) -> Iterator[tuple[FS, bytes]]:
    """The files of a dataset or snapshot, and the path in them."""
    with cowfs.open(place.image, "r") as store:
        name, path = place.find(store)
        with naming(store, name), store.at(name) as view:
            yield need_fs(view, name), path


def change(places: Sequence[Place], action: Callable[[FS, bytes], object]) -> None:
    """Do `action` at each place; in one image, at all of them or at none."""
    with ExitStack() as stack:
        writers: dict[str, tuple[Store, cowfs.Transaction]] = {}
        for place in places:
            key = os.path.realpath(place.image)
            if key not in writers:
                store = stack.enter_context(cowfs.open(place.image, "w"))
                writers[key] = store, stack.enter_context(store.transaction())
            store, tx = writers[key]
            name, path = place.find(store)
            need_head(name)
            with naming(store, name):
                action(need_fs(tx[name], name), path)


@contextmanager
def naming(store: Store, name: str) -> Iterator[None]:
    """Errors about a path in a dataset name the image and the dataset too."""
    try:
        yield
    except FileError as error:
        error.at(f"{store.path}:{name}{error.filename or ''}", error.filename2)
        raise


class PlaceName(StringParamType):
    """A place; completion offers images and host files, and within an image its datasets."""

    name = "place"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        from click.shell_completion import CompletionItem

        place = parse_place(incomplete)
        if place is None:
            return [CompletionItem(incomplete, type="file")]
        try:
            with cowfs.open(place.image, "r") as store:
                names = list(store)
        except (Error, OSError):
            return []
        return [
            CompletionItem(f"{place.image}:{name}") for name in names if name.startswith(place.rest)
        ]
