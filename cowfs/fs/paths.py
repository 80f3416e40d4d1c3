"""From paths to inode numbers: `.` and `..`, symbolic links and their loops, slashes at the end.

Paths are `/`-separated and start at the dataset's root whether or not they begin with a slash; so
do the absolute targets of symbolic links. `..` above the root is the root.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from ..errors import (
    KeyTypeError,
    PathInvalidError,
    PathNotADirectoryError,
    PathNotFoundError,
    SymlinkLoopError,
)
from .inode import DIRECTORY, NO_INODE, ROOT, SYMLINK
from .nodes import Inodes, check_name

StrPath = str | os.PathLike[str]
BytesPath = bytes | os.PathLike[bytes]
AnyPath = StrPath | BytesPath

LINKS_MAX = 40
"""Symbolic links on the way to one file, as in Linux."""


class Place(NamedTuple):
    """Where a path leads: an entry of a directory, which need not be there yet."""

    parent: int
    name: bytes
    """Empty for the root; `.` or `..` where the path ends so, which no entry is called."""
    number: int
    """Its inode, or NO_INODE."""
    kind: int
    """Its file type; 0 where there is none."""
    slash: bool
    """Whether the path ends in a slash, which only a directory's may."""

    @property
    def is_entry(self) -> bool:
        """Whether it is named as an entry of its parent: not the root, `.` or `..`."""
        return self.name not in (b"", b".", b"..")


def encode(path: AnyPath) -> bytes:
    """The bytes of a path; KeyTypeError or PathInvalidError where it is none."""
    try:
        raw = os.fsencode(path)
    except TypeError:
        raise KeyTypeError(
            f"paths are str, bytes or os.PathLike, not {type(path).__name__}"
        ) from None
    except UnicodeEncodeError as error:
        raise PathInvalidError(repr(path), f"no bytes stand for it: {error}") from None
    if b"\0" in raw:
        raise PathInvalidError(repr(path), "a path with a NUL")
    if not raw:
        raise PathNotFoundError(raw)
    return raw


def locate(nodes: Inodes, raw: bytes, *, follow: bool, entry: bool = False) -> Place:
    """Where the path `raw` leads; with `follow`, through a symbolic link at its end.

    With `entry` the place itself is meant, as by rename or unlink: then a slash at the end does not
    lead through a link either, and whether a directory is there is for the caller to see. Raises
    PathNotFoundError, PathNotADirectoryError, SymlinkLoopError.
    """
    todo = raw.split(b"/")
    todo.reverse()
    parent, name, number, kind, slash = ROOT, b"", ROOT, DIRECTORY, False
    links = 0
    while todo:
        part = todo.pop()
        if not part:
            slash = True
            if kind != DIRECTORY and number and (not entry or any(todo)):
                raise PathNotADirectoryError
            continue
        if kind != DIRECTORY:
            raise PathNotADirectoryError if number else PathNotFoundError
        slash = False
        if part == b".":
            name = part
            continue
        if part == b"..":
            number = parent = nodes.parent(number)
            name = part
            continue
        check_name(part)
        parent, name = number, part
        found = nodes.lookup(parent, part)
        if found is None:
            number = kind = 0
            continue
        number, kind = found
        if kind == SYMLINK and (follow or (todo and (not entry or any(todo)))):
            links += 1
            if links > LINKS_MAX:
                raise SymlinkLoopError
            target = nodes.target(number)
            if target.startswith(b"/"):
                parent, name, number = ROOT, b"", ROOT
            else:
                number = parent
            kind = DIRECTORY
            todo.extend(reversed(target.split(b"/")))
    return Place(parent, name, number, kind, slash)


def resolve(nodes: Inodes, raw: bytes, *, follow: bool = True) -> tuple[int, int]:
    """(inode number, file type) of what is at a path. Raises PathNotFoundError."""
    place = locate(nodes, raw, follow=follow)
    if place.number == NO_INODE:
        raise PathNotFoundError
    if place.kind == DIRECTORY and place.is_entry:
        nodes.check_directory(place.number, place.parent, place.name)
    return place.number, place.kind
