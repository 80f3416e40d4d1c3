"""Open files: the raw layer that the standard library's io classes stand on.

A file is held by its inode number, so it stays the same file however its names change. Each call
goes through the dataset's session: on a store directly, a write is a durable transaction of its
own, which is why `wrap` puts a large buffer before it.
"""

from __future__ import annotations

import errno
import io
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ..blockio import BlockIO
from ..errors import ClosedError, PathInvalidError, StaleFileError, UsageError
from ..limits import MIB, RECORD_SIZE
from .inode import Inode
from .nodes import Inodes

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from .dataset import FS

READ_BUFFER = RECORD_SIZE
WRITE_BUFFER = MIB
"""Bytes of the buffer before a file: one record to read, enough for every core to write."""

_BASES = {"r", "w", "x", "a"}


class OpenMode:
    """The `mode` of open(), taken apart. Raises UsageError where it is none."""

    __slots__ = ("append", "binary", "create", "exclusive", "readable", "truncate", "writable")

    def __init__(self, mode: str) -> None:
        if not isinstance(mode, str):
            raise UsageError(f"mode {mode!r}: a mode is a string like 'r' or 'wb'")
        letters = set(mode)
        base = letters & _BASES
        if len(letters) != len(mode) or letters - _BASES - set("bt+") or len(base) != 1:
            raise UsageError(f"mode {mode!r}: one of r, w, x, a, with b or t and + where wanted")
        if {"b", "t"} <= letters:
            raise UsageError(f"mode {mode!r}: text or binary, not both")
        self.binary = "b" in letters
        self.readable = "r" in letters or "+" in letters
        self.writable = "r" not in letters or "+" in letters
        self.create = "r" not in letters
        self.truncate = "w" in letters
        self.exclusive = "x" in letters
        self.append = "a" in letters

    def __str__(self) -> str:
        if self.exclusive:
            return "xb+" if self.readable else "xb"
        if self.append:
            return "ab+" if self.readable else "ab"
        if self.readable:
            return "rb+" if self.writable else "rb"
        return "wb"


class OpenFiles:
    """The files of one dataset that are open, and which of them have lost their names."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._nameless: set[int] = set()
        self._lock = threading.Lock()

    def hold(self, number: int) -> None:
        """A file was opened."""
        with self._lock:
            self._counts[number] = self._counts.get(number, 0) + 1

    def let_go(self, number: int) -> bool:
        """A file was closed; whether it is to be forgotten now."""
        with self._lock:
            count = self._counts.pop(number, 1) - 1
            if count:
                self._counts[number] = count
                return False
            if number not in self._nameless:
                return False
            self._nameless.remove(number)
            return True

    def __contains__(self, number: object) -> bool:
        """Whether a file is open."""
        with self._lock:
            return number in self._counts

    def keep(self, number: int) -> bool:
        """A file loses its last name; whether it stays because it is open."""
        with self._lock:
            if number not in self._counts:
                return False
            self._nameless.add(number)
            return True


_open_files: WeakKeyDictionary[BlockIO, dict[int, OpenFiles]] = WeakKeyDictionary()
"""By store (each has one BlockIO, and takes this with it when it goes) and dataset: all objects of
a dataset, in transactions or not, know the same open files."""


def open_files(nodes: Inodes) -> OpenFiles:
    """The open files of the dataset that `nodes` belongs to."""
    of_store = _open_files.setdefault(nodes.io, {})
    return of_store.setdefault(nodes.tree.owner, OpenFiles())


class RawFile(io.RawIOBase):
    """A regular file, unbuffered. `seek` knows SEEK_DATA and SEEK_HOLE."""

    def __init__(
        self, fs: FS, nodes: Inodes, number: int, name: str | bytes, mode: OpenMode
    ) -> None:
        super().__init__()
        self.name = name
        self._fs = fs
        self._number = number
        inode = nodes.regular(number)
        self._born_ns = inode.btime_ns
        self._mode = mode
        self._offset = inode.size if mode.append else 0
        self._files = open_files(nodes)
        self._files.hold(number)

    @property
    def mode(self) -> str:
        """The mode, as io.FileIO gives it."""
        return str(self._mode)

    def readable(self) -> bool:
        """Whether it was opened for reading."""
        self._check_open()
        return self._mode.readable

    def writable(self) -> bool:
        """Whether it was opened for writing."""
        self._check_open()
        return self._mode.writable

    def seekable(self) -> bool:
        """Always."""
        self._check_open()
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill `buffer` as far as there are bytes; their number."""
        self._need(readable=True)
        view = memoryview(buffer).cast("B")
        with self._fs.reading() as nodes:
            self._check_same(nodes)
            data = nodes.read(self._number, len(view), self._offset)
        view[: len(data)] = data
        self._offset += len(data)
        return len(data)

    def readall(self) -> bytes:
        """Everything up to the end."""
        self._need(readable=True)
        with self._fs.reading() as nodes:
            left = self._check_same(nodes).size - self._offset
            data = nodes.read(self._number, max(left, 0), self._offset)
        self._offset += len(data)
        return data

    def write(self, data: ReadableBuffer) -> int:
        """Write all of `data`; its length."""
        self._need(readable=False)
        view = memoryview(data).cast("B")
        with self._fs.writing() as nodes:
            self._check_same(nodes)
            if self._mode.append:
                self._offset = nodes.append(self._number, view)
            else:
                self._offset += nodes.write(self._number, view, self._offset)
        return len(view)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Change the position; the new one."""
        self._check_open()
        if whence == os.SEEK_SET:
            position = offset
        elif whence == os.SEEK_CUR:
            position = self._offset + offset
        elif whence in (os.SEEK_END, os.SEEK_DATA, os.SEEK_HOLE):
            with self._fs.reading() as nodes:
                size = self._check_same(nodes).size
                found: int | None = size + offset
                if whence != os.SEEK_END:
                    found = None
                    if 0 <= offset < size:
                        find = nodes.next_data if whence == os.SEEK_DATA else nodes.next_hole
                        found = find(self._number, offset)
            if found is None:
                raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
            position = found
        else:
            raise UsageError(f"whence {whence!r}: allowed are os.SEEK_SET, CUR, END, DATA, HOLE")
        if position < 0:
            raise PathInvalidError(self.name, f"position {position}; a position is not negative")
        self._offset = position
        return position

    def tell(self) -> int:
        """The position."""
        self._check_open()
        return self._offset

    def truncate(self, size: int | None = None) -> int:
        """Cut off, or grow by a hole; the new size."""
        self._need(readable=False)
        size = self._offset if size is None else size
        with self._fs.writing() as nodes:
            self._check_same(nodes)
            nodes.truncate(self._number, size)
        return size

    def close(self) -> None:
        """Let go of the file; one without a name is deleted now."""
        if not self.closed:
            try:
                super().close()
            finally:
                if self._files.let_go(self._number):
                    self._forget()

    def __repr__(self) -> str:
        state = " (closed)" if self.closed else ""
        return f"<cowfs file {self.name!r} mode={self.mode!r}{state}>"

    def _forget(self) -> None:
        # Whoever writes next deletes it where the store or transaction has ended.
        with suppress(ClosedError), self._fs.writing() as nodes:
            nodes.forget(self._number)

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def _check_same(self, nodes: Inodes) -> Inode:
        """The inode; after a rollback there may be none, or that of another file."""
        inode = nodes.find(self._number)
        if inode is None or inode.btime_ns != self._born_ns:
            raise StaleFileError(self.name)
        return inode

    def _need(self, *, readable: bool) -> None:
        self._check_open()
        if readable and not self._mode.readable:
            raise io.UnsupportedOperation("not open for reading")
        if not readable and not self._mode.writable:
            raise io.UnsupportedOperation("not open for writing")


def wrap(
    raw: RawFile,
    mode: OpenMode,
    buffering: int,
    encoding: str | None,
    errors: str | None,
    newline: str | None,
) -> Any:
    """The file object that open() returns for a raw file; text is UTF-8 unless told otherwise."""
    if buffering == 0:
        return raw
    size = buffering
    if buffering < 0 or (buffering == 1 and not mode.binary):
        size = WRITE_BUFFER if mode.writable else READ_BUFFER
    buffered: io.BufferedRandom | io.BufferedWriter | io.BufferedReader
    if mode.readable and mode.writable:
        buffered = io.BufferedRandom(raw, size)
    elif mode.writable:
        buffered = io.BufferedWriter(raw, size)
    else:
        buffered = io.BufferedReader(raw, size)
    if mode.binary:
        return buffered
    text = io.TextIOWrapper(buffered, encoding or "utf-8", errors, newline, buffering == 1)
    text.mode = raw.mode.replace("b", "")  # type: ignore[misc]
    return text


def check_text_arguments(
    mode: OpenMode,
    buffering: int,
    encoding: str | None,
    errors: str | None,
    newline: str | None,
) -> None:
    """Raise UsageError where the arguments of open() do not go together."""
    if buffering == 0 and not mode.binary:
        raise UsageError("only binary files can be unbuffered")
    if mode.binary and (encoding is not None or errors is not None or newline is not None):
        raise UsageError("encoding, errors and newline are for text; open without 'b'")
    if newline not in (None, "", "\n", "\r", "\r\n"):
        raise UsageError(f"newline {newline!r}: allowed are None, '', '\\n', '\\r' and '\\r\\n'")
    if not mode.binary:
        import codecs

        for what, look_up in ((encoding, codecs.lookup), (errors, codecs.lookup_error)):
            try:
                look_up(what or ("utf-8" if look_up is codecs.lookup else "strict"))
            except LookupError as error:
                raise UsageError(str(error)) from None
