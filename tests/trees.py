"""All that is to be seen of a tree of files, on the host and in a dataset, to be compared."""

from __future__ import annotations

import os
import stat
import tempfile
from typing import Any

from cowfs.fs import FS

Tree = dict[bytes, tuple[Any, ...]]
"""By path: mode, links, the first path of the same file, content, attributes."""


def has_attributes() -> bool:
    with tempfile.NamedTemporaryFile() as file:
        try:
            os.setxattr(file.name, b"user.a", b"1")
        except OSError:
            return False
    return True


ATTRIBUTES = has_attributes()
"""Whether files on the host can have extended attributes of any name."""


def host_tree(root: bytes) -> Tree:
    """All that is compared, by path; files with several names show which they are."""
    found: Tree = {}
    first: dict[int, bytes] = {}
    todo = [b""]
    while todo:
        path = todo.pop()
        full = os.path.join(root, path) if path else root
        info = os.lstat(full)
        kind = stat.S_IFMT(info.st_mode)
        content: Any = None
        if kind == stat.S_IFDIR:
            content = sorted(os.listdir(full))
            todo += [os.path.join(path, name) for name in reversed(content)]
        elif kind == stat.S_IFREG:
            with open(full, "rb") as file:
                content = file.read()
        elif kind == stat.S_IFLNK:
            content = os.readlink(full)
        same = path
        if kind != stat.S_IFDIR:
            same = first.setdefault(info.st_ino, path)
        attributes = {}
        if ATTRIBUTES and kind in (stat.S_IFREG, stat.S_IFDIR):
            names = os.listxattr(full, follow_symlinks=False)
            attributes = {name: os.getxattr(full, name, follow_symlinks=False) for name in names}
        found[path] = (info.st_mode, info.st_nlink, same, content, attributes)
    return found


def cowfs_tree(fs: FS, top: bytes = b"/") -> Tree:
    """The same of a dataset."""
    found: Tree = {}
    first: dict[int, bytes] = {}
    todo = [b""]
    while todo:
        path = todo.pop()
        full = os.path.join(top, path)
        info = fs.lstat(full)
        kind = stat.S_IFMT(info.st_mode)
        content: Any = None
        if kind == stat.S_IFDIR:
            content = fs.listdir(full)
            assert content == sorted(content)
            assert info.st_size == len(content)
            todo += [os.path.join(path, name) for name in reversed(content)]
        elif kind == stat.S_IFREG:
            content = fs.read_bytes(full)
            assert info.st_size == len(content)
        elif kind == stat.S_IFLNK:
            content = fs.readlink(full)
        same = path
        if kind != stat.S_IFDIR:
            same = first.setdefault(info.st_ino, path)
        names = fs.listxattr(full, follow_symlinks=False)
        attributes = {name: fs.getxattr(full, name, follow_symlinks=False) for name in names}
        found[path] = (info.st_mode, info.st_nlink, same, content, attributes)
    return found
