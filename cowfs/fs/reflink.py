"""Copying within a store: the copies share the content of the files.

Source and target may be one tree, or those of two datasets or snapshots.
"""

from __future__ import annotations

from ..errors import PathInvalidError
from ..values import share_blob_between
from .bulk import Bulk, Directory, check_file_place
from .inode import DATA, NO_INODE, XATTR, Inode, make_key
from .nodes import Inodes, Keep
from .paths import Place


class Reflink:
    """One copy from a tree to a tree."""

    def __init__(self, source: Inodes, target: Inodes, keep: Keep) -> None:
        self._source = source
        self._target = target
        self._bulk = Bulk(target, keep)
        self._links: dict[int, int] = {}

    def run(self, number: int, place: Place) -> None:
        """Copy a file, or a directory with everything in it, to a place."""
        inode = self._source.get(number)
        same_tree = self._source.tree is self._target.tree
        if same_tree and place.number == number:
            raise PathInvalidError(reason="source and target are the same file")
        if inode.is_directory:
            if same_tree and number in self._target.ancestors(place.number or place.parent):
                raise PathInvalidError(reason="a directory cannot be copied into itself")
            self._walk(number, self._bulk.open_at(place, self._copy(inode)))
            return
        check_file_place(place)
        parent = self._bulk.open_parent(place)
        self._file(number, inode, parent, place.name)
        if place.number == NO_INODE:
            self._bulk.close_parent(parent)
        else:
            self._bulk.close(parent)

    def _walk(self, number: int, top: Directory) -> None:
        todo = [(number, top)]
        while todo:
            number, directory = todo.pop()
            self._attributes(number, directory.number)
            inner = []
            for name, child, inode in self._source.children(number):
                if inode.is_directory:
                    below = self._bulk.open_in(directory, name, self._copy(inode))
                    inner.append((child, below))
                else:
                    self._file(child, inode, directory, name)
            self._bulk.close(directory)
            inner.reverse()
            todo += inner

    def _file(self, number: int, inode: Inode, parent: Directory, name: bytes) -> None:
        if inode.nlink > 1:
            known = self._links.get(number)
            if known is not None:
                self._bulk.link(parent, name, known)
                return
        copy = self._copy(inode)
        own = self._bulk.claim(parent, name, copy)
        if inode.nlink > 1:
            self._links[number] = own
        self._bulk.put_inode(own, copy)
        self._attributes(number, own)
        self._share(make_key(number, DATA), make_key(own, DATA))
        self._bulk.put_name(own, parent, name)

    def _attributes(self, number: int, own: int) -> None:
        for name in list(self._source.attributes(number)):
            self._share(make_key(number, XATTR) + name, make_key(own, XATTR) + name)

    def _share(self, source: bytes, target: bytes) -> None:
        share_blob_between(self._target.io, self._source.tree, source, self._target.tree, target)

    def _copy(self, inode: Inode) -> Inode:
        now = self._bulk.now
        return Inode(
            inode.mode,
            inode.uid,
            inode.gid,
            1,
            inode.size,
            inode.atime_ns,
            inode.mtime_ns,
            now,
            now,
            inode.rdev,
            inode.flags,
        )
