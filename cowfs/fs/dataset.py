"""`FS`: a dataset of files, in the manner of `os` and `pathlib`.

Each method resolves its paths and does its work inside one session context: on a view it reads a
version that stands still, in a transaction its changes are the transaction's, on a store directly
each change is a durable transaction of its own. The work itself is done in `nodes.py`.

There is no umask, no current directory and no check of permissions: who can open the image can do
everything. Reading does not change times of access. Names are bytes; a path given as str gives str
back, one given as bytes bytes, as with `os`.
"""

from __future__ import annotations

import os
import posixpath
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from types import TracebackType
from typing import Any, AnyStr, Generic, cast, overload

from .._tree import Tree
from ..blob import Blob
from ..errors import (
    CorruptionError,
    FileError,
    PathBusyError,
    PathExistsError,
    PathInvalidError,
    PathIsADirectoryError,
    PathNotADirectoryError,
    PathNotFoundError,
    ReadOnlyError,
    StaleFileError,
    SymlinkLoopError,
    UsageError,
)
from ..limits import RECORD_SIZE
from ..session import Session
from .file import OpenMode, RawFile, check_text_arguments, open_files, wrap
from .inode import DIRECTORY, NAME_MAX, NO_INODE, REGULAR, SYMLINK, Inode
from .nodes import Inodes, check_name
from .paths import AnyPath, BytesPath, Place, StrPath, encode, locate, resolve
from .results import DirEntry, Stat

_BATCH = 1024
"""Entries that scandir reads at a time."""

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""


class _Operation:
    """A session context that hands out `Inodes`, and names the paths in errors that name none.

    What is refused is refused before anything is changed. Any other error breaks the transaction
    where it comes in the middle of a change: one operation changes several items of the tree.
    """

    __slots__ = ("_context", "_fs", "_other", "_path", "_tree", "_version", "_writes")

    def __init__(
        self,
        fs: FS,
        context: AbstractContextManager[Tree],
        path: bytes = b"",
        other: bytes | None = None,
        *,
        writes: bool = False,
    ) -> None:
        self._fs = fs
        self._writes = writes
        self._context = context
        self._path = path
        self._other = other

    def __enter__(self) -> Inodes:
        tree = self._context.__enter__()
        self._tree, self._version = tree, tree.version
        nodes = Inodes(self._fs.session.io, tree, self._fs.created_ns)
        if self._writes and not self._fs.tidy:
            self._fs.tidy = True
            try:
                _tidy_up(nodes)
            except BaseException as error:
                self._break(error)
                raise
        return nodes

    def _break(self, error: BaseException) -> None:
        self._fs.session.io.break_if_changed(self._tree, self._version, error)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._writes and error is not None:
                refused = isinstance(error, FileError) and not isinstance(error, StaleFileError)
                if not refused:
                    self._break(error)
        finally:
            self._context.__exit__(kind, error, trace)
        if self._path and isinstance(error, FileError) and not error.filename:
            if isinstance(error, StaleFileError):
                raise CorruptionError(
                    self._fs.name, None, f"{os.fsdecode(self._path)}: an inode is missing"
                ) from None
            error.at(self._path, self._other)


class FS:
    """Files and directories. See docs/library.md."""

    kind = "fs"

    def __init__(self, session: Session, *, created_ns: int = 0) -> None:
        self.session = session
        self.created_ns = created_ns
        """Time of the root directory as long as nothing was ever put into it."""
        self.tidy = session.readonly
        """Whether files that a crash left behind, nameless, were looked for."""

    @property
    def name(self) -> str:
        """`dataset` or `dataset@snapshot`."""
        return self.session.name

    @property
    def readonly(self) -> bool:
        """Whether nothing can be changed here."""
        return self.session.readonly

    def close(self) -> None:
        """End a view: its version need not be kept any longer."""
        self.session.close()

    def __enter__(self) -> FS:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<cowfs fs {self.name!r}>"

    # --- what stands below ----------------------------------------------------------------------

    def reading(self) -> _Operation:
        """The files by number, to be read within a `with` statement."""
        return _Operation(self, self.session.reading())

    def writing(self) -> _Operation:
        """The files by number, to be changed within a `with` statement: all of it together."""
        return _Operation(self, self.session.writing(), writes=True)

    def _read(self, path: bytes) -> _Operation:
        return _Operation(self, self.session.reading(), path)

    def _write(self, path: bytes, other: bytes | None = None) -> _Operation:
        return _Operation(self, self.session.writing(), path, other, writes=True)

    # --- files ----------------------------------------------------------------------------------

    def open(
        self,
        path: AnyPath,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        *,
        permissions: int = 0o644,
    ) -> Any:
        """A file object, as the built-in open gives it; text is UTF-8 unless told otherwise.

        On a store directly every flush of it is a durable transaction: use a transaction for more
        than a few files.
        """
        raw = encode(path)
        how = OpenMode(mode)
        check_text_arguments(how, buffering, encoding, errors, newline)
        if how.writable and self.readonly:
            raise ReadOnlyError(f"{self.name} is open for reading only")
        if how.create:
            with self._write(raw) as nodes:
                number = self._open_to_write(nodes, raw, how, permissions)
                file = RawFile(self, nodes, number, os.fspath(path), how)
        else:
            with self._read(raw) as nodes:
                file = RawFile(self, nodes, _regular(nodes, raw), os.fspath(path), how)
        return wrap(file, how, buffering, encoding, errors, newline)

    def read_bytes(self, path: AnyPath) -> bytes:
        """All bytes of a file."""
        raw = encode(path)
        with self._read(raw) as nodes:
            return nodes.content(_regular(nodes, raw))

    def write_bytes(self, path: AnyPath, data: bytes | bytearray | memoryview) -> int:
        """Make `data` all that is in a file, which need not be there yet; its length."""
        raw = encode(path)
        view = memoryview(data).cast("B")
        with self._write(raw) as nodes:
            nodes.replace(self._open_to_write(nodes, raw, OpenMode("a"), 0o644), view)
        return len(view)

    def read_text(self, path: AnyPath, encoding: str = "utf-8", errors: str | None = None) -> str:
        """All text of a file."""
        with self.open(path, "r", encoding=encoding, errors=errors) as file:
            return cast(str, file.read())

    def write_text(
        self, path: AnyPath, text: str, encoding: str = "utf-8", errors: str | None = None
    ) -> int:
        """Make `text` all that is in a file, which need not be there yet; its length."""
        self.write_bytes(path, text.encode(encoding, errors or "strict"))
        return len(text)

    def truncate(self, path: AnyPath, length: int) -> None:
        """Cut a file off, or let it grow by a hole."""
        raw = encode(path)
        with self._write(raw) as nodes:
            nodes.truncate(_regular(nodes, raw), length)

    # --- looking --------------------------------------------------------------------------------

    def stat(self, path: AnyPath, *, follow_symlinks: bool = True) -> Stat:
        """The state of a file."""
        raw = encode(path)
        with self._read(raw) as nodes:
            number, _ = resolve(nodes, raw, follow=follow_symlinks)
            return make_stat(nodes, number, nodes.get(number))

    def lstat(self, path: AnyPath) -> Stat:
        """The state of a file; of a symbolic link, not of what it leads to."""
        return self.stat(path, follow_symlinks=False)

    def exists(self, path: AnyPath, *, follow_symlinks: bool = True) -> bool:
        """Whether there is anything at a path."""
        return self._kind(path, follow_symlinks) is not None

    def lexists(self, path: AnyPath) -> bool:
        """Whether there is anything at a path, be it a link that leads nowhere."""
        return self._kind(path, False) is not None

    def isdir(self, path: AnyPath) -> bool:
        """Whether a path leads to a directory."""
        return self._kind(path, True) == DIRECTORY

    def isfile(self, path: AnyPath) -> bool:
        """Whether a path leads to a regular file."""
        return self._kind(path, True) == REGULAR

    def islink(self, path: AnyPath) -> bool:
        """Whether there is a symbolic link at a path."""
        return self._kind(path, False) == SYMLINK

    @overload
    def listdir(self, path: StrPath = "/") -> list[str]: ...
    @overload
    def listdir(self, path: BytesPath) -> list[bytes]: ...
    def listdir(self, path: AnyPath = "/") -> list[str] | list[bytes]:
        """The names in a directory, sorted (by their bytes)."""
        raw = encode(path)
        with self._read(raw) as nodes:
            names = [name for name, _, _ in nodes.entries(_directory(nodes, raw))]
        return names if _is_bytes(path) else [os.fsdecode(name) for name in names]

    @overload
    def scandir(self, path: StrPath = "/") -> Scan[str]: ...
    @overload
    def scandir(self, path: BytesPath) -> Scan[bytes]: ...
    def scandir(self, path: AnyPath = "/") -> Scan[str] | Scan[bytes]:
        """The entries of a directory, sorted by name; ones that come and go meanwhile may show."""
        raw = encode(path)
        with self._read(raw) as nodes:
            number = _directory(nodes, raw)
        if _is_bytes(path):
            return Scan(self, number, raw, bytes)
        return Scan(self, number, os.fsdecode(raw), os.fsdecode)

    @overload
    def walk(
        self,
        top: StrPath = "/",
        topdown: bool = True,
        onerror: Callable[[OSError], object] | None = None,
        followlinks: bool = False,
    ) -> Iterator[tuple[str, list[str], list[str]]]: ...
    @overload
    def walk(
        self,
        top: BytesPath,
        topdown: bool = True,
        onerror: Callable[[OSError], object] | None = None,
        followlinks: bool = False,
    ) -> Iterator[tuple[bytes, list[bytes], list[bytes]]]: ...
    def walk(
        self,
        top: AnyPath = "/",
        topdown: bool = True,
        onerror: Callable[[OSError], object] | None = None,
        followlinks: bool = False,
    ) -> Iterator[tuple[Any, list[Any], list[Any]]]:
        """Directories with what is in them, as os.walk."""
        encode(top)
        stack: list[Any] = [os.fspath(top)]
        while stack:
            path = stack.pop()
            if isinstance(path, tuple):
                yield path
                continue
            directories: list[Any] = []
            others: list[Any] = []
            links = set()
            try:
                for entry in self.scandir(path):
                    if entry.is_symlink():
                        links.add(entry.name)
                    inside = directories if _leads_to_directory(entry) else others
                    inside.append(entry.name)
            except FileError as error:
                if onerror is not None:
                    onerror(error)
                continue
            if topdown:
                yield path, directories, others
            else:
                stack.append((path, directories, others))
            # The caller may have changed the list, to say where to go on.
            stack.extend(
                posixpath.join(path, name)
                for name in reversed(directories)
                if followlinks or name not in links
            )

    def statvfs(self, path: AnyPath = "/") -> os.statvfs_result:
        """The room in the image, as os.statvfs; files are not limited, so they are not counted."""
        self.stat(path)
        space = self.session.io.space
        block, free, total = space.block_size, space.free, space.total
        if space.limit:
            total, available = space.limit, max(free - space.reserve, 0)
        else:
            grow = self.session.io.device.host_room() // block
            total, free = total + grow, free + grow
            available = free
        flags = os.ST_RDONLY if self.readonly else 0
        return os.statvfs_result((block, block, total, free, available, 0, 0, 0, flags, NAME_MAX))

    # --- directories ----------------------------------------------------------------------------

    def mkdir(self, path: AnyPath, mode: int = 0o755) -> None:
        """Make a directory."""
        self._make(path, stat.S_IFDIR, mode)

    def makedirs(self, path: AnyPath, mode: int = 0o755, exist_ok: bool = False) -> None:
        """Make a directory, with those above it that are not there yet."""
        raw = encode(path)
        _check_mode(mode)
        with self._write(raw) as nodes:
            parts = raw.split(b"/")
            for count in range(1, len(parts) + 1):
                head = b"/".join(parts[:count]) or b"/"
                place = locate(nodes, head, follow=True)
                if place.number == NO_INODE:
                    break
            if place.number != NO_INODE:
                if place.kind == DIRECTORY and exist_ok:
                    return
                raise PathExistsError
            if locate(nodes, head, follow=False).number != NO_INODE:
                raise PathExistsError(reason="a symbolic link that leads nowhere is in the way")
            rest = [part for part in parts[count:] if part not in (b"", b".")]
            if b".." in rest:
                raise PathNotFoundError
            parent = place.parent
            rest.insert(0, place.name)
            for part in rest:
                check_name(part)
            for part in rest:
                parent = nodes.create(parent, part, stat.S_IFDIR | mode, *_owner())

    def rmdir(self, path: AnyPath) -> None:
        """Remove an empty directory."""
        raw = encode(path)
        with self._write(raw) as nodes:
            place = locate(nodes, raw, follow=False, entry=True)
            if place.name == b".":
                raise PathInvalidError(reason="'.' cannot be removed")
            _need_entry(place)
            nodes.rmdir(place.parent, place.name)

    def remove_tree(self, path: AnyPath) -> None:
        """Remove a directory with everything in it."""
        raw = encode(path)
        with self._write(raw) as nodes:
            place = locate(nodes, raw, follow=False, entry=True)
            _need_entry(place)
            nodes.remove_tree(place.parent, place.name, open_files(nodes).keep)

    # --- names ----------------------------------------------------------------------------------

    def unlink(self, path: AnyPath) -> None:
        """Remove a name of a file, and the file with its last one."""
        raw = encode(path)
        with self._write(raw) as nodes:
            place = locate(nodes, raw, follow=False, entry=True)
            if place.kind == DIRECTORY:
                raise PathIsADirectoryError
            if place.slash and place.number != NO_INODE:
                raise PathNotADirectoryError
            nodes.unlink(place.parent, place.name, open_files(nodes).keep)

    def rename(self, source: AnyPath, target: AnyPath) -> None:
        """Give a file another name, at once in the place of what has that name.

        As rename(2): a directory takes the place of an empty directory only, and never moves into
        itself; two names of one file stay as they are.
        """
        old, new = encode(source), encode(target)
        with self._write(old, new) as nodes:
            place = locate(nodes, old, follow=False, entry=True)
            to = locate(nodes, new, follow=False, entry=True)
            if not place.is_entry or not to.is_entry:
                raise PathBusyError
            if place.number == NO_INODE:
                raise PathNotFoundError
            if (place.slash or to.slash) and place.kind != DIRECTORY:
                raise PathNotADirectoryError
            nodes.rename(place.parent, place.name, to.parent, to.name, open_files(nodes).keep)

    def link(self, source: AnyPath, target: AnyPath) -> None:
        """Another name, `target`, for the file `source` (a symbolic link is not followed)."""
        old, new = encode(source), encode(target)
        with self._write(old, new) as nodes:
            number, _ = resolve(nodes, old, follow=False)
            place = self._new_place(nodes, new)
            nodes.link(number, place.parent, place.name)

    def symlink(self, target: AnyPath, path: AnyPath) -> None:
        """A symbolic link at `path` that leads to `target`, whether that is there or not."""
        raw, leads_to = encode(path), encode(target)
        with self._write(raw) as nodes:
            place = self._new_place(nodes, raw)
            nodes.create(place.parent, place.name, stat.S_IFLNK | 0o777, *_owner(), target=leads_to)

    @overload
    def readlink(self, path: StrPath) -> str: ...
    @overload
    def readlink(self, path: BytesPath) -> bytes: ...
    def readlink(self, path: AnyPath) -> str | bytes:
        """Where a symbolic link leads."""
        raw = encode(path)
        with self._read(raw) as nodes:
            number, kind = resolve(nodes, raw, follow=False)
            if kind != SYMLINK:
                raise PathInvalidError(reason="not a symbolic link")
            target = nodes.target(number)
        return target if _is_bytes(path) else os.fsdecode(target)

    def mkfifo(self, path: AnyPath, mode: int = 0o644) -> None:
        """A fifo, as a name and its state: there is nobody to open it here."""
        self._make(path, stat.S_IFIFO, mode)

    def mknod(self, path: AnyPath, mode: int = 0o644, device: int = 0) -> None:
        """An empty file, fifo, socket or device, by the type in `mode`: a name and its state."""
        kind = stat.S_IFMT(mode) or stat.S_IFREG
        if kind in (stat.S_IFDIR, stat.S_IFLNK) or not 0 <= device < 1 << 64:
            raise PathInvalidError(encode(path), "mknod makes files, fifos, sockets and devices")
        is_device = kind in (stat.S_IFCHR, stat.S_IFBLK)
        self._make(path, kind, stat.S_IMODE(mode), device if is_device else 0)

    # --- state ----------------------------------------------------------------------------------

    def chmod(self, path: AnyPath, mode: int, *, follow_symlinks: bool = True) -> None:
        """Change the permission bits."""
        raw = encode(path)
        with self._write(raw) as nodes:
            number, _ = resolve(nodes, raw, follow=follow_symlinks)
            nodes.set_attributes(number, mode=mode)

    def chown(self, path: AnyPath, uid: int, gid: int, *, follow_symlinks: bool = True) -> None:
        """Change owner and group; -1 leaves one as it is."""
        raw = encode(path)
        with self._write(raw) as nodes:
            number, _ = resolve(nodes, raw, follow=follow_symlinks)
            nodes.set_attributes(
                number, uid=None if uid == -1 else uid, gid=None if gid == -1 else gid
            )

    def utime(
        self,
        path: AnyPath,
        times: tuple[float, float] | None = None,
        *,
        ns: tuple[int, int] | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        """Set times of access and change, in seconds or as `ns` in nanoseconds; else to now."""
        raw = encode(path)
        if times is not None and ns is not None:
            raise UsageError("utime takes times or ns, not both")
        for pair in (times, ns):
            if pair is not None and len(pair) != 2:
                raise UsageError(f"{pair!r}: utime takes a time of access and one of change")
        if ns is None:
            now = time.time_ns()
            ns = (now, now) if times is None else _nanoseconds(times)
        with self._write(raw) as nodes:
            number, _ = resolve(nodes, raw, follow=follow_symlinks)
            nodes.set_attributes(number, atime_ns=ns[0], mtime_ns=ns[1])

    def listxattr(self, path: AnyPath, *, follow_symlinks: bool = True) -> list[str]:
        """The names of the extended attributes, sorted."""
        raw = encode(path)
        with self._read(raw) as nodes:
            number, _ = resolve(nodes, raw, follow=follow_symlinks)
            return [os.fsdecode(name) for name in nodes.attributes(number)]

    def getxattr(
        self, path: AnyPath, attribute: str | bytes, *, follow_symlinks: bool = True
    ) -> bytes:
        """The value of an extended attribute."""
        raw = encode(path)
        with self._read(raw) as nodes:
            number, _ = resolve(nodes, raw, follow=follow_symlinks)
            return nodes.get_attribute(number, os.fsencode(attribute))

    def setxattr(
        self,
        path: AnyPath,
        attribute: str | bytes,
        value: bytes | bytearray | memoryview,
        flags: int = 0,
        *,
        follow_symlinks: bool = True,
    ) -> None:
        """Set an extended attribute; `flags` may be os.XATTR_CREATE or os.XATTR_REPLACE."""
        raw = encode(path)
        data = bytes(memoryview(value))
        with self._write(raw) as nodes:
            number, _ = resolve(nodes, raw, follow=follow_symlinks)
            nodes.set_attribute(number, os.fsencode(attribute), data, flags)

    def removexattr(
        self, path: AnyPath, attribute: str | bytes, *, follow_symlinks: bool = True
    ) -> None:
        """Remove an extended attribute."""
        raw = encode(path)
        with self._write(raw) as nodes:
            number, _ = resolve(nodes, raw, follow=follow_symlinks)
            nodes.remove_attribute(number, os.fsencode(attribute))

    # --- copies ---------------------------------------------------------------------------------

    def copy(
        self,
        source: AnyPath,
        target: AnyPath,
        *,
        origin: FS | None = None,
        recursive: bool = False,
        follow_symlinks: bool = True,
    ) -> None:
        """Copy a file, or with `recursive` a directory, with everything about it, to `target`.

        The copy shares its content with the source (a reflink): it costs no space, and no time that
        grows with the content. `origin` is where the source is: any dataset or snapshot of the
        same store. Files that are there already are overwritten, directories added to.
        """
        from .reflink import Reflink

        origin = origin or self
        if origin.session.io is not self.session.io:
            raise UsageError("origin is in another store; copy out of it, and in here")
        old, new = encode(source), encode(target)
        with origin._read(old) as from_nodes, self._write(new) as nodes:
            # In one dataset the tree that is written to is also the newest.
            from_nodes = nodes if origin is self else from_nodes
            number, kind = resolve(from_nodes, old, follow=follow_symlinks)
            if kind == DIRECTORY and not recursive:
                raise PathIsADirectoryError(old, "a directory is copied with recursive=True")
            place = locate(nodes, new, follow=kind != SYMLINK)
            Reflink(from_nodes, nodes, open_files(nodes).keep).run(number, place)

    def copy_in(
        self,
        host_path: AnyPath,
        target: AnyPath,
        *,
        progress: Progress | None = None,
        follow_symlinks: bool = False,
    ) -> None:
        """Copy a file or a whole directory from the host to `target`, in one transaction.

        With it go modes, owners, times, extended attributes, hard links within what is copied, and
        holes. Files that are there already are overwritten, directories added to. Sockets are
        left out, with a warning. `follow_symlinks` is about `host_path` itself. `progress` is
        called with (bytes done, bytes in all).
        """
        from .importing import Import

        new = encode(target)
        source = encode(host_path)
        with self._write(new) as nodes:
            Import(nodes, open_files(nodes).keep, progress).run(source, new, follow_symlinks)

    def copy_out(
        self,
        source: AnyPath,
        host_path: AnyPath,
        *,
        progress: Progress | None = None,
        follow_symlinks: bool = False,
    ) -> None:
        """Copy a file or a whole directory to `host_path` on the host.

        With it go modes, times, extended attributes, hard links within what is copied, holes, and,
        for root, owners and devices. Files that are there already are replaced, directories added
        to. `follow_symlinks` is about `source` itself. `progress` is called with (bytes done,
        bytes in all).
        """
        from .exporting import Export

        raw = encode(source)
        with self._read(raw) as nodes:
            number, _ = resolve(nodes, raw, follow=follow_symlinks)
            Export(nodes, progress).run(number, encode(host_path))

    # --- inside ---------------------------------------------------------------------------------

    def _kind(self, path: AnyPath, follow: bool) -> int | None:
        try:
            raw = encode(path)
            with self._read(raw) as nodes:
                return resolve(nodes, raw, follow=follow)[1]
        except (
            PathNotFoundError,
            PathNotADirectoryError,
            PathInvalidError,
            SymlinkLoopError,
        ):
            return None

    def _open_to_write(self, nodes: Inodes, raw: bytes, mode: OpenMode, permissions: int) -> int:
        """The number of the file at `raw`, made or emptied as `mode` wants it."""
        _check_mode(permissions)
        place = locate(nodes, raw, follow=not mode.exclusive)
        if place.kind == DIRECTORY or (place.slash and place.number == NO_INODE):
            raise PathExistsError if mode.exclusive else PathIsADirectoryError
        if place.number == NO_INODE:
            return nodes.create(place.parent, place.name, stat.S_IFREG | permissions, *_owner())
        if mode.exclusive:
            raise PathExistsError
        _need_regular(place.kind)
        if mode.truncate:
            nodes.truncate(place.number, 0)
        return place.number

    def _make(self, path: AnyPath, kind: int, mode: int, device: int = 0) -> None:
        raw = encode(path)
        _check_mode(mode)
        with self._write(raw) as nodes:
            place = self._new_place(nodes, raw, directory=kind == stat.S_IFDIR)
            nodes.create(place.parent, place.name, kind | mode, *_owner(), rdev=device)

    def _new_place(self, nodes: Inodes, raw: bytes, *, directory: bool = False) -> Place:
        """Where something new is to be; nothing may be there yet."""
        place = locate(nodes, raw, follow=False, entry=True)
        if place.number != NO_INODE:
            raise PathExistsError
        if place.slash and not directory:
            raise PathNotFoundError
        return place


class Scan(Generic[AnyStr]):
    """The iterator that scandir returns; it may be closed early, as that of os."""

    def __init__(
        self, fs: FS, number: int, path: AnyStr, decode: Callable[[bytes], AnyStr]
    ) -> None:
        self._entries: Iterator[DirEntry[AnyStr]] | None = self._all(fs, number, path, decode)

    def __iter__(self) -> Scan[AnyStr]:
        return self

    def __next__(self) -> DirEntry[AnyStr]:
        if self._entries is None:
            raise StopIteration
        return next(self._entries)

    def __enter__(self) -> Scan[AnyStr]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give nothing more."""
        self._entries = None

    @staticmethod
    def _all(
        fs: FS, number: int, path: AnyStr, decode: Callable[[bytes], AnyStr]
    ) -> Iterator[DirEntry[AnyStr]]:
        """Entries in batches, so that nothing is held between them."""

        def get_stat(path: AnyStr, follow: bool) -> Stat:
            return fs.stat(path, follow_symlinks=follow)

        after = b""
        while True:
            with fs.reading() as nodes:
                batch = list(islice(nodes.entries(number, after), _BATCH))
            for name, child, kind in batch:
                own = decode(name)
                yield DirEntry(own, posixpath.join(path, own), child, kind, get_stat)
            if len(batch) < _BATCH:
                return
            after = batch[-1][0]


def stored_sectors(nodes: Inodes, number: int) -> int:
    """Units of 512 bytes that the content of a regular file takes."""
    blob: Blob = nodes.blob(number)
    if blob.size <= RECORD_SIZE:
        return -(-(blob.stored() or blob.size) // 512)
    return blob.stored() // 512


def make_stat(nodes: Inodes, number: int, inode: Inode) -> Stat:
    """The state of a file, for users."""
    return Stat(
        st_mode=inode.mode,
        st_ino=number,
        st_dev=nodes.tree.owner,
        st_nlink=inode.nlink,
        st_uid=inode.uid,
        st_gid=inode.gid,
        st_size=inode.size,
        st_atime_ns=inode.atime_ns,
        st_mtime_ns=inode.mtime_ns,
        st_ctime_ns=inode.ctime_ns,
        st_birthtime_ns=inode.btime_ns,
        st_blocks=stored_sectors(nodes, number) if inode.is_regular else 0,
        st_rdev=inode.rdev,
    )


def _tidy_up(nodes: Inodes) -> None:
    """Delete the files that were removed while they were open, and are not open any more: the
    program ended before it closed them."""
    left = list(nodes.orphans())
    if left:
        files = open_files(nodes)
        for number in left:
            if number not in files:
                nodes.forget(number)


def _owner() -> tuple[int, int]:
    return os.geteuid(), os.getegid()


def _is_bytes(path: AnyPath) -> bool:
    return isinstance(os.fspath(path), bytes)


def _check_mode(mode: int) -> None:
    if not 0 <= mode <= 0o7777:
        raise UsageError(f"mode {mode:#o}; allowed are 0 to 0o7777")


def _nanoseconds(times: tuple[float, float]) -> tuple[int, int]:
    """Exact for whole seconds, and to the precision of a float else."""
    first, second = (int(t) * 1_000_000_000 + round((t - int(t)) * 1_000_000_000) for t in times)
    return first, second


def _need_regular(kind: int) -> None:
    if kind == DIRECTORY:
        raise PathIsADirectoryError
    if kind != REGULAR:
        raise PathInvalidError(reason="fifos, sockets and devices have no content here")


def _regular(nodes: Inodes, raw: bytes) -> int:
    number, kind = resolve(nodes, raw)
    _need_regular(kind)
    return number


def _directory(nodes: Inodes, raw: bytes) -> int:
    number, kind = resolve(nodes, raw)
    if kind != DIRECTORY:
        raise PathNotADirectoryError
    return number


def _leads_to_directory(entry: DirEntry[Any]) -> bool:
    try:
        return entry.is_dir()
    except FileError:
        return False


def _need_entry(place: Place) -> None:
    """Raise where a place is missing, or is a directory that has to stay where it is."""
    if not place.is_entry:
        raise PathBusyError
    if place.number == NO_INODE:
        raise PathNotFoundError
