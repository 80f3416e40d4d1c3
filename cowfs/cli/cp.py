"""cowfs cp: copy files into, out of, between and within images."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import click

import cowfs
from cowfs import limits
from cowfs.errors import PathIsADirectoryError, UsageError
from cowfs.fs import FS
from cowfs.volume import Volume

from .across import copy_across, copy_volume
from .command import Settings, command
from .datasets import need_fs, need_head, need_volume
from .places import Place, PlaceName, naming, parse_place
from .progress import Progress, progress_bar

log = logging.getLogger(__name__)

NEEDS_RECURSIVE = "is a directory; cp -r copies it with all in it"

Begin = Callable[[str], Progress | None]


@command(
    "cp",
    "Copy files into, out of, between and within images.\n\n"
    "One side at least is IMAGE:DATASET/path, or IMAGE:DATASET for a volume, which is copied to "
    "and from files as a whole. As with cp(1), what is copied goes into DST where "
    "that is a directory, and SRC/. stands for all that is in SRC. Modes, times, attributes, hard "
    "links and holes are kept. What goes into an image goes there as a whole or not at all; within "
    "one image, copies share their space.",
)
@click.argument("sources", type=PlaceName(), metavar="SRC...", nargs=-1, required=True)
@click.argument("target", type=PlaceName(), metavar="DST")
@click.option("-r", "-R", "--recursive", is_flag=True, help="Directories, with all in them.")
@click.pass_obj
def run(settings: Settings, sources: tuple[str, ...], target: str, recursive: bool) -> None:
    place = parse_place(target)
    if place is None and not all(map(parse_place, sources)):
        raise UsageError("one side must be a place in an image, IMAGE:DATASET/path")
    with progress_bar(settings) as begin:
        if place is None:
            copy_out(sources, target, recursive, begin)
        else:
            copy_in(sources, place, recursive, begin)


# --- out of images ------------------------------------------------------------------------------


def copy_out(sources: Sequence[str], target: str, recursive: bool, begin: Begin) -> None:
    """Copy from images to the host."""
    into = os.path.isdir(target)
    check_target(into, target, sources, recursive)
    targets = Targets(os.fsencode(target), into)
    with ExitStack() as stack:
        stores = Stores(stack)
        for source in sources:
            place = parse_place(source)
            assert place is not None
            store = stores.get(place)
            name, path = place.find(store)
            with naming(store, name), store.at(name) as view:
                if isinstance(view, Volume):
                    check_volume_path(place, path)
                    view.copy_out(os.fsdecode(targets.of(place)), progress=begin(source))
                    continue
                fs = need_fs(view, name)
                check_source(fs.isdir(path), path, recursive)
                fs.copy_out(
                    path,
                    targets.of(place),
                    progress=begin(source),
                    follow_symlinks=not recursive,
                )
            log.info("copied %s", source)


# --- into images --------------------------------------------------------------------------------


def copy_in(sources: Sequence[str], place: Place, recursive: bool, begin: Begin) -> None:
    """Copy into an image, from the host, from the same image or from another one."""
    with ExitStack() as stack:
        stores = Stores(stack)
        store = stores.get(place, "w")
        tx = stack.enter_context(store.transaction())
        name, path = place.find(store)
        need_head(name)
        if isinstance(tx[name], Volume):
            check_volume_path(place, path)
            if len(sources) > 1:
                raise UsageError(f"{place} is a volume; it can become a copy of one source only")
            fill_volume(stores, tx, sources[0], tx[name], begin)
            log.info("copied %s", sources[0])
            return
        fs = need_fs(tx[name], name)
        into = fs.isdir(path)
        check_target(into, str(place), sources, recursive)
        targets = Targets(path, into)
        for source in sources:
            origin = parse_place(source)
            if origin is None:
                with naming(store, name):
                    copy_from_host(source, fs, targets.of(source), recursive, begin)
            else:
                copy_between(stores, tx, origin, fs, targets, recursive, begin)
            log.info("copied %s", source)


def fill_volume(
    stores: Stores, tx: cowfs.Transaction, source: str, volume: Volume, begin: Begin
) -> None:
    """Make a volume a copy of a file on the host, or of another volume."""
    place = parse_place(source)
    if place is None:
        volume.copy_in(source, progress=begin(source))
        return
    store = stores.get(place)
    name, path = place.find(store)
    check_volume_path(place, path)
    if store is tx.store and name == volume.name:
        raise UsageError(f"{source}: a volume cannot be copied onto itself")
    with store.at(name) as view:
        copy_volume(need_volume(view, name), volume, begin(source))


def copy_from_host(source: str, fs: FS, target: bytes, recursive: bool, begin: Begin) -> None:
    """Copy from the host; as cp(1) does, without -r what a pipe or device holds, not itself."""
    mode = os.stat(source).st_mode if not recursive else os.lstat(source).st_mode
    if stat.S_ISDIR(mode) and not recursive:
        raise IsADirectoryError(errno.EISDIR, NEEDS_RECURSIVE, source)
    if recursive or stat.S_ISREG(mode):
        progress = begin(source)
        fs.copy_in(source, target, progress=progress, follow_symlinks=not recursive)
    else:
        with open(source, "rb") as old, fs.open(target, "wb") as new:
            while data := old.read(limits.MIB):
                new.write(data)


def copy_between(
    stores: Stores,
    tx: cowfs.Transaction,
    place: Place,
    fs: FS,
    targets: Targets,
    recursive: bool,
    begin: Begin,
) -> None:
    """Copy from an image: this one, where the copy shares the source's space, or another."""
    store = stores.get(place)
    name, path = place.find(store)
    with ExitStack() as stack:
        stack.enter_context(naming(store, name))
        same = store is tx.store
        if same and "@" not in name:
            origin = need_fs(tx[name], name)
        else:
            origin = need_fs(stack.enter_context(store.at(name)), name)
        check_source(origin.isdir(path), path, recursive)
        target = targets.of(place)
        if same:
            fs.copy(path, target, origin=origin, recursive=recursive, follow_symlinks=not recursive)
        else:
            copy_across(origin, path, fs, target, begin(str(place)), follow_symlinks=not recursive)


# --- what cp(1) asks of sources and targets -----------------------------------------------------


class Stores:
    """The images of one command, each opened once."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._open: dict[str, cowfs.Store] = {}

    def get(self, place: Place, flag: str = "r") -> cowfs.Store:
        """The store that a place is in; the first to ask decides whether it is for writing."""
        key = os.path.realpath(place.image)
        if key not in self._open:
            self._open[key] = self._stack.enter_context(cowfs.open(place.image, flag))
        return self._open[key]


class Targets:
    """Where each source goes: to the target itself or, where that is a directory, into it."""

    def __init__(self, path: bytes, into: bool) -> None:
        self._path = path
        self._into = into
        self._taken: dict[bytes, str] = {}

    def of(self, source: str | Place) -> bytes:
        """The target for a source; its name there is its last part, a dataset's its own."""
        path = source.rest if isinstance(source, Place) else source
        name = os.path.basename(os.fsencode(path).rstrip(b"/"))
        if not self._into or name in (b"", b".", b".."):
            return self._path
        target = os.path.join(self._path, name)
        if target in self._taken:
            raise UsageError(f"{self._taken[target]} and {source} would go to the same place")
        self._taken[target] = str(source)
        return target


def check_target(into: bool, target: str, sources: Sequence[str], recursive: bool) -> None:
    """Refuse a target that must be a directory and is none."""
    if not into and (len(sources) > 1 or (target.endswith("/") and not recursive)):
        raise NotADirectoryError(errno.ENOTDIR, "is not a directory", target)


def check_volume_path(place: Place, path: bytes) -> None:
    """Refuse a path in a volume."""
    if path != b"/":
        raise UsageError(f"{place}: a volume has no files; name it alone, as IMAGE:DATASET")


def check_source(is_directory: bool, path: bytes, recursive: bool) -> None:
    """Refuse a directory without -r."""
    if is_directory and not recursive:
        raise PathIsADirectoryError(path, NEEDS_RECURSIVE)
