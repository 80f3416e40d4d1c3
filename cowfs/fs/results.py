"""What the file system answers: the state of a file, an entry of a directory."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import AnyStr, Generic

from ..limits import RECORD_SIZE
from .inode import DIRECTORY, REGULAR, SYMLINK

_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Stat:
    """The state of a file, with the names of os.stat_result. Times are of the inode as stored:
    reading a file does not change its time of access."""

    st_mode: int
    st_ino: int
    st_dev: int
    """The dataset, within its image."""
    st_nlink: int
    st_uid: int
    st_gid: int
    st_size: int
    """Bytes; of a directory, the number of its entries."""
    st_atime_ns: int
    st_mtime_ns: int
    st_ctime_ns: int
    st_birthtime_ns: int
    st_blocks: int
    """Space that its content takes, compressed, in units of 512 bytes."""
    st_rdev: int

    st_blksize = RECORD_SIZE

    @property
    def st_atime(self) -> float:
        """Time of access, in seconds."""
        return self.st_atime_ns / _NS

    @property
    def st_mtime(self) -> float:
        """Time of the last change of content, in seconds."""
        return self.st_mtime_ns / _NS

    @property
    def st_ctime(self) -> float:
        """Time of the last change, in seconds."""
        return self.st_ctime_ns / _NS

    @property
    def st_birthtime(self) -> float:
        """Time of creation, in seconds."""
        return self.st_birthtime_ns / _NS


class DirEntry(Generic[AnyStr]):
    """An entry that `scandir` found, as os.DirEntry: its type is known without a look at it."""

    __slots__ = ("_kind", "_number", "_stat", "name", "path")

    name: AnyStr
    path: AnyStr
    _stat: Callable[[AnyStr, bool], Stat]

    def __init__(
        self,
        name: AnyStr,
        path: AnyStr,
        number: int,
        kind: int,
        get_stat: Callable[[AnyStr, bool], Stat],
    ) -> None:
        self.name = name
        self.path = path
        self._number = number
        self._kind = kind
        self._stat = get_stat

    def inode(self) -> int:
        """Its inode number."""
        return self._number

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a directory, or leads to one."""
        return self._is(DIRECTORY, follow_symlinks)

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a regular file, or leads to one."""
        return self._is(REGULAR, follow_symlinks)

    def is_symlink(self) -> bool:
        """Whether it is a symbolic link."""
        return self._kind == SYMLINK

    def stat(self, *, follow_symlinks: bool = True) -> Stat:
        """Its state."""
        return self._stat(self.path, follow_symlinks)

    def __fspath__(self) -> AnyStr:
        return self.path

    def __repr__(self) -> str:
        return f"<DirEntry {self.name!r}>"

    def _is(self, kind: int, follow: bool) -> bool:
        if not follow or self._kind != SYMLINK:
            return self._kind == kind
        try:
            return stat.S_IFMT(self.stat().st_mode) >> 12 == kind
        except FileNotFoundError:
            return False
