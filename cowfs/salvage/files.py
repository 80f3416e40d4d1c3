"""What is left of a dataset of files, as files on the host.

All about a file stands together in the tree, the way back to its directory too. So one pass puts
each file where it says that it belongs, whatever became of the entries in its directory. A second
one goes through the directories: an entry gives a name back to a file that lost the way, and names
the files that are lost. What has no name in the end stays in `lost+found`, by its number.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import groupby

from ..errors import CorruptionError
from ..fs.inode import (
    DATA,
    ENTRY,
    ID_MAX,
    INODE,
    KEY_SIZE,
    NAME,
    NAME_KEY_SIZE,
    NO_INODE,
    ROOT,
    SYMLINK,
    SYMLINK_MAX,
    XATTR,
    XATTR_MAX,
    Inode,
    make_key,
    sound_name,
    split_key,
    split_name_key,
    unpack_entry,
    unpack_inode,
)
from ..report import Loss
from ..values import cell_size
from .output import Refused, fill, make_directories, new_file, refusing
from .walk import Cell, Damaged, Gap, Hurt, Item, Piece, whole

_DEEPEST = 2048
"""Directories above a file: a longer path is none that a host can have."""
_PATHS = 1 << 16
"""Paths of directories that are remembered."""

_FILES, _LOST_FOUND = b"files", b"lost+found"


class Files:
    """One dataset or snapshot of files, on its way out to the directory `top`."""

    def __init__(self, tree: Damaged, top: bytes) -> None:
        self._tree = tree
        self._top = top
        self._is_root = os.geteuid() == 0
        self._paths: dict[int, bytes] = {ROOT: _FILES}
        self._gaps: list[Gap] = []
        self._adrift: dict[int, list[Loss]] = {}
        """Files and directories in lost+found, by their numbers, and what of them is lost."""
        self._bare: set[int] = set()
        """Files and directories that are there without their inodes."""
        self._named: dict[int, tuple[int, bytes]] = {}
        """(directory, name) of what got its name back."""

    def run(self) -> Iterator[Loss]:
        """Copy everything out; what was lost."""
        make_directories(self._top, _FILES)
        for number, items in self._groups(self._gaps.append):
            yield from self._each(number, items, self._file)
        for gap in self._gaps:
            yield self._loss(_inodes(gap), gap.reason, gap.block)
        for number, items in self._groups(lambda gap: None):
            yield from self._each(number, items, self._directory)
        for number, losses in sorted(self._adrift.items()):
            yield self._loss(_lost_path(number), "its name is lost")
            yield from _named(losses, _lost_path(number))
        with suppress(OSError):  # of one that is not empty, or was never made
            os.rmdir(self._host(_LOST_FOUND))

    def _groups(self, note: Callable[[Gap], None]) -> Iterator[tuple[int, Iterator[Item]]]:
        """(number, items) of each file; what cannot be read goes to `note`."""

        def items() -> Iterator[Item]:
            for found in self._tree.items():
                if isinstance(found, Gap):
                    note(found)
                elif len(found[0]) >= KEY_SIZE:
                    yield found

        for number, group in groupby(items(), lambda item: int.from_bytes(item[0][:8], "big")):
            if number != NO_INODE:
                yield number, group

    def _each(
        self,
        number: int,
        items: Iterator[Item],
        work: Callable[[int, Iterator[Item]], Iterator[Loss]],
    ) -> Iterator[Loss]:
        """Do something with the items of one file; what is wrong with them is a loss."""
        try:
            yield from work(number, items)
        except (Refused, ValueError) as error:
            yield self._loss(b"inode %d" % number, str(error))
        except CorruptionError as error:
            yield self._loss(b"inode %d" % number, error.reason, error.block)

    # --- the first pass ---------------------------------------------------------------------------

    def _file(self, number: int, items: Iterator[Item]) -> Iterator[Loss]:
        """A file, under each of its names; or a directory, still empty."""
        inode: Inode | None = None
        cell: Cell | None = None
        path: bytes | None = None
        attributes = is_directory = False
        losses: list[Loss] = []
        for key, kind, raw in items:
            _, what, rest = split_key(key)
            if what == INODE and not rest:
                inode = unpack_inode(raw)
                is_directory = inode.is_directory
                if not inode.nlink:  # it was removed while it was open
                    return
            elif what == XATTR:
                attributes = True
            elif what == ENTRY:
                is_directory = True
            elif what == DATA and not rest:
                cell = kind, raw
            elif what == NAME and not is_directory:
                parent, name = split_name_key(key)
                shown = self._join(parent, name)
                try:
                    if path is None:
                        losses = self._make(number, inode, cell, attributes)
                    self._link(number, path, parent, name)
                    path = path or shown
                except Refused as refused:
                    yield self._loss(shown, str(refused))
                    if path is None:
                        self._remove(number)
                        return
        if inode is None:
            self._bare.add(number)
        if is_directory:
            make_directories(self._top, self._path(number))
            if inode is None:
                yield self._loss(self._path(number), "its inode is lost")
            return
        if path is None:
            self._adrift[number] = self._make(number, inode, cell, attributes)
        else:
            yield from _named(losses, path)

    def _make(
        self, number: int, inode: Inode | None, cell: Cell | None, attributes: bool
    ) -> list[Loss]:
        """A file in lost+found, from where it gets its names; what of it is lost."""
        if inode is None and cell is None:
            raise Refused("nothing but its name is left")
        make_directories(self._top, _LOST_FOUND)
        path = self._host(_lost_path(number))
        losses = []
        if inode is None or inode.is_regular:
            size = cell_size(cell) if cell is not None else inode.size if inode is not None else 0
            parts: Iterator[Piece | Hurt] = (
                self._tree.pieces(*cell)
                if cell is not None
                else iter([Hurt(0, size, None, "its content is lost")] if size else [])
            )
            fd = new_file(path)
            try:
                losses += [
                    self._loss(b"", one.reason, one.block, one.start, one.stop)
                    for one in fill(fd, size, parts)
                ]
            finally:
                os.close(fd)
            if inode is None:
                losses.append(self._loss(b"", "its inode is lost"))
                return losses
        elif inode.type == SYMLINK:
            target = self._whole(cell, SYMLINK_MAX) if cell is not None else b""
            if not target or b"\0" in target:
                raise Refused("where the symbolic link leads is lost")
            with refusing():
                os.symlink(target, path)
        else:
            with refusing():
                os.mknod(path, inode.mode & ~0o7777 | 0o600, inode.rdev)
        losses += self._finish(path, number, inode, attributes)
        return losses

    def _link(self, number: int, known: bytes | None, parent: int, name: bytes) -> None:
        """Give a file a name: the first, or one beside that under which it is known."""
        if not sound_name(name):
            raise Refused("no file can have that name")
        make_directories(self._top, self._path(parent))
        path = self._host(self._join(parent, name))
        with refusing():
            if known is not None:
                os.link(self._host(known), path, follow_symlinks=False)
            elif os.path.lexists(path):
                raise Refused("something else has its name")
            else:
                os.rename(self._host(_lost_path(number)), path)

    def _remove(self, number: int) -> None:
        """Take back a file that could not get its name."""
        with suppress(FileNotFoundError):
            os.unlink(self._host(_lost_path(number)))

    # --- the second pass --------------------------------------------------------------------------

    def _directory(self, number: int, items: Iterator[Item]) -> Iterator[Loss]:
        """A directory: its entries, and then, as nothing more comes into it, its times."""
        inode: Inode | None = None
        attributes = False
        for key, _, raw in items:
            _, what, rest = split_key(key)
            if what == INODE and not rest:
                inode = unpack_inode(raw)
                if not inode.is_directory:
                    return
            elif what == XATTR:
                attributes = True
            elif what == ENTRY:
                try:
                    yield from self._entry(number, rest, unpack_entry(raw)[0])
                except (Refused, ValueError) as error:
                    yield self._loss(self._join(number, rest), str(error))
        if inode is not None:
            path = self._path(number)
            yield from _named(self._finish(self._host(path), number, inode, attributes), path)

    def _entry(self, parent: int, name: bytes, number: int) -> Iterator[Loss]:
        """What an entry leads to: it may be adrift, or lost."""
        if number in self._adrift:
            self._link(number, None, parent, name)
            yield from _named(self._adrift.pop(number), self._join(parent, name))
            self._named[number] = parent, name
            self._paths = {ROOT: _FILES}
        gap = self._gap(make_key(number, INODE))
        if gap is not None and number not in self._bare:
            yield self._loss(self._join(parent, name), gap.reason, gap.block)

    def _gap(self, key: bytes) -> Gap | None:
        """The gap that a key lies in."""
        at = bisect_right(self._gaps, key, key=lambda gap: gap.low) - 1
        if at < 0:
            return None
        gap = self._gaps[at]
        return gap if gap.high is None or key < gap.high else None

    # --- paths ------------------------------------------------------------------------------------

    def _host(self, path: bytes) -> bytes:
        return os.path.join(self._top, path)

    def _join(self, parent: int, name: bytes) -> bytes:
        return os.path.join(self._path(parent), name)

    def _path(self, number: int) -> bytes:
        """Of a directory, beneath `top`; one that lost its way to the root begins in lost+found."""
        parts: list[bytes] = []
        seen: set[int] = set()
        at = number
        while at not in self._paths:
            way = self._named.get(at) or self._way_back(at)
            if way is None or at in seen or len(seen) == _DEEPEST:
                self._adrift.setdefault(at, [])
                break
            seen.add(at)
            parts.append(way[1])
            at = way[0]
        path = b"/".join([self._paths.get(at) or _lost_path(at), *reversed(parts)])
        if len(self._paths) == _PATHS:
            self._paths = {ROOT: _FILES}
        self._paths[number] = path
        return path

    def _way_back(self, number: int) -> tuple[int, bytes] | None:
        """(directory, name) of the first name that a directory knows of itself."""
        for found in self._tree.items(make_key(number, NAME), make_key(number, NAME + 1)):
            if not isinstance(found, Gap) and len(found[0]) > NAME_KEY_SIZE:
                parent, name = split_name_key(found[0])
                return (parent, name) if sound_name(name) else None
        return None

    # --- what belongs to a file -------------------------------------------------------------------

    def _finish(self, path: bytes, number: int, inode: Inode, attributes: bool) -> list[Loss]:
        """Owner, attributes, mode, times: each may undo what comes after it."""
        losses = []
        if self._is_root:
            owner = [-1 if one > ID_MAX else one for one in (inode.uid, inode.gid)]
            with refusing():
                os.chown(path, *owner, follow_symlinks=False)
        if attributes:
            losses = list(self._attributes(path, number))
        with refusing():
            if inode.is_directory:  # which its owner has to be able to read, to use what is saved
                os.chmod(path, inode.mode & 0o7777 | 0o700)
            elif inode.type != SYMLINK:
                os.chmod(path, inode.mode & 0o7777)
            os.utime(path, ns=(inode.atime_ns, inode.mtime_ns), follow_symlinks=False)
        return losses

    def _attributes(self, path: bytes, number: int) -> Iterator[Loss]:
        for found in self._tree.items(make_key(number, XATTR), make_key(number, XATTR + 1)):
            if isinstance(found, Gap):
                continue
            name = found[0][KEY_SIZE:]
            try:
                value = self._whole(found[1:], XATTR_MAX)
                if b"\0" in name:
                    raise Refused("no attribute can have that name")
                with refusing():
                    os.setxattr(path, name, value, follow_symlinks=False)
            except Refused as refused:
                yield self._loss(b"", f"attribute {os.fsdecode(name)}: {refused}")
            except CorruptionError as error:
                yield self._loss(b"", f"attribute {os.fsdecode(name)}: {error.reason}", error.block)

    def _whole(self, cell: Cell, most: int) -> bytes:
        """A value that is small. Raises CorruptionError."""
        if cell_size(cell) > most:
            raise CorruptionError(self._tree.label, None, f"a value of {cell_size(cell)} bytes")
        return whole(self._tree, cell)

    def _loss(
        self,
        what: bytes,
        reason: str,
        block: int | None = None,
        start: int | None = None,
        stop: int | None = None,
    ) -> Loss:
        return Loss(self._tree.label, _shown(what), start, stop, block, reason)


def _lost_path(number: int) -> bytes:
    return b"%s/#%d" % (_LOST_FOUND, number)


def _named(losses: list[Loss], path: bytes) -> Iterator[Loss]:
    """What is lost of a file, now that it is known where that is."""
    return (replace(loss, what=_shown(path)) for loss in losses)


def _shown(path: bytes) -> bytes:
    """A path as it is in the dataset, where it is known."""
    return path.removeprefix(_FILES) or b"/" if path.startswith(_FILES) else path


def _inodes(gap: Gap) -> bytes:
    """Whose items a gap may have held."""
    first = int.from_bytes(gap.low[:8].ljust(8, b"\0"), "big")
    if gap.high is None:
        return b"inodes from %d on" % first
    return b"inodes %d to %d" % (first, int.from_bytes(gap.high[:8].ljust(8, b"\0"), "big"))
