"""cowfs rm: remove files and directories."""

from __future__ import annotations

import stat

import click

from cowfs.errors import PathInvalidError, PathIsADirectoryError
from cowfs.fs import FS

from .command import command
from .places import PlaceName, change, need_place


@command(
    "rm",
    "Remove files and directories.\n\nAll that is named in one image goes, or nothing does.",
)
@click.argument("places", type=PlaceName(), metavar="PLACE...", nargs=-1, required=True)
@click.option("-r", "--recursive", is_flag=True, help="Directories too, with all in them.")
def run(places: tuple[str, ...], recursive: bool) -> None:
    change([need_place(text) for text in places], lambda fs, path: remove(fs, path, recursive))


def remove(fs: FS, path: bytes, recursive: bool) -> None:
    if not path.strip(b"/"):
        raise PathInvalidError(path, "is all of the dataset; 'cowfs destroy' removes that")
    if not stat.S_ISDIR(fs.lstat(path).st_mode):
        fs.unlink(path)
    elif not recursive:
        raise PathIsADirectoryError(path, "is a directory; rm -r removes it and all in it")
    else:
        fs.remove_tree(path)
