"""cowfs ls: list directories."""

from __future__ import annotations

import os
import stat
from datetime import datetime
from functools import cache

import click

from cowfs.fs import FS

from .arguments import bytes_option
from .command import command
from .escapes import show_text
from .output import print_table, show_bytes
from .places import PlaceName, need_place, read


@command(
    "ls",
    "List directories.\n\n"
    r"A line for each entry, by name; what does not print in a name is shown as \xNN.",
)
@click.argument("places", type=PlaceName(), metavar="PLACE...", nargs=-1, required=True)
@click.option("-l", "long", is_flag=True, help="Mode, links, owner, size and time too.")
@bytes_option
def run(places: tuple[str, ...], long: bool, exact: bool) -> None:
    for number, text in enumerate(places):
        place = need_place(text)
        with read(place) as (fs, path):
            status = fs.lstat(path)
            if stat.S_ISLNK(status.st_mode) and not long and fs.isdir(path):
                status = fs.stat(path)
            if not stat.S_ISDIR(status.st_mode):
                names = [(os.path.basename(path), path)]
            else:
                names = [(name, os.path.join(path, name)) for name in sorted(fs.listdir(path))]
                if len(places) > 1:
                    print(f"{'' if number == 0 else chr(10)}{text}:")
            if long:
                print_long(fs, names, exact)
            else:
                for name, _ in names:
                    print(show_text(name))


def print_long(fs: FS, names: list[tuple[bytes, bytes]], exact: bool) -> None:
    """A table of entries."""
    rows = []
    for name, path in names:
        status = fs.lstat(path)
        shown = show_text(name)
        if stat.S_ISLNK(status.st_mode):
            shown += f" -> {show_text(os.fsencode(fs.readlink(path)))}"
        rows.append(
            [
                stat.filemode(status.st_mode),
                str(status.st_nlink),
                user_name(status.st_uid),
                group_name(status.st_gid),
                "-" if stat.S_ISDIR(status.st_mode) else show_bytes(status.st_size, exact),
                datetime.fromtimestamp(status.st_mtime).strftime("%Y-%m-%d %H:%M"),
                shown,
            ]
        )
    if rows:
        print_table(
            ["MODE", "LINKS", "USER", "GROUP", "SIZE", "TIME", "NAME"], rows, right="LINKS SIZE"
        )


@cache
def user_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@cache
def group_name(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
