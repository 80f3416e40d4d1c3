"""Every error that cowfs raises on purpose: one tree under `Error`, grouped by when it can happen.

Messages say what was wrong, what is allowed and what to do. Where Python has a class that callers
already catch (`KeyError`, `ValueError`, `FileNotFoundError` ...) the cowfs class derives from both.
"""

from __future__ import annotations

import errno
import os


class Error(Exception):
    """Base of all errors of cowfs."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else self.__class__.__name__


# --- wrong use: nothing was read or written -----------------------------------------------------


class UsageError(Error, ValueError):
    """An argument, name or size that is not allowed."""


class KeyTypeError(Error, TypeError):
    """A key or value that is not bytes."""


class NotFoundError(Error, KeyError):
    """A dataset, snapshot or key that does not exist."""


class ExistsError(Error, ValueError):
    """A name that is already taken."""


class KindError(Error, TypeError):
    """A dataset of another kind than the operation needs."""


class ReadOnlyError(Error, PermissionError):
    """A write to a snapshot, a view or a store that was opened for reading."""


class ClosedError(Error, ValueError):
    """Use of a store, transaction, view or file after its end."""


# --- opening an image ---------------------------------------------------------------------------


class FormatError(Error):
    """Not an image, an image of a newer format, or one that is cut short."""


class BusyError(Error):
    """Another process, or another handle of this one, holds the image."""


# --- while running ------------------------------------------------------------------------------


class OutOfSpaceError(Error, OSError):
    """The image (or the disk under it) is full; the transaction left no trace."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.errno = errno.ENOSPC


class DeviceError(Error, OSError):
    """The host could not read or write the image; `errno` says why."""

    def __init__(self, code: int | None, message: str) -> None:
        super().__init__(message)
        self.errno = code


class FailedError(Error):
    """The store refuses writes because a write or flush failed; open it anew."""


class TooLargeError(Error, MemoryError):
    """A value that is too large to be had in one piece: more than 256 MiB, nearly all of it holes.
    Open it as a file, and read it piece by piece."""


class CorruptionError(Error):
    """Bytes on the image that are not what was written.

    Attributes: `dataset` (name, or "" where none is known), `block` (number of the first block,
    or None) and `reason`.
    """

    def __init__(self, dataset: str, block: int | None, reason: str) -> None:
        self.dataset = dataset
        self.block = block
        self.reason = reason
        place = f"dataset {dataset!r}, " if dataset else ""
        where = f"block {block}" if block is not None else "no block"
        super().__init__(f"corrupt image: {place}{where}: {reason}")


# --- files: what os raises, and ours ------------------------------------------------------------


class FileError(Error, OSError):
    """An operation on a path inside an fs dataset that POSIX refuses.

    `filename` and, where two paths are concerned, `filename2` are set as by `os`.
    """

    code = errno.EIO

    def __init__(
        self, path: bytes | str = "", reason: str = "", other: bytes | str | None = None
    ) -> None:
        super().__init__(reason)
        # OSError's own initialiser clears these.
        self.errno = self.code
        self.strerror = reason or os.strerror(self.code)
        self.args = (self.strerror,)
        if path:
            self.at(path, other)

    def at(self, path: bytes | str, other: bytes | str | None = None) -> None:
        """Name the path, where whoever raised the error did not know it."""
        self.filename = os.fsdecode(path)
        where = self.filename
        if other is not None:
            self.filename2 = os.fsdecode(other)
            where += f" -> {self.filename2}"
        self.args = (f"{where}: {self.strerror}",)


class PathNotFoundError(FileError, FileNotFoundError):
    """No such file or directory."""

    code = errno.ENOENT


class PathExistsError(FileError, FileExistsError):
    """The path exists already."""

    code = errno.EEXIST


class PathNotADirectoryError(FileError, NotADirectoryError):
    """A component of the path is not a directory."""

    code = errno.ENOTDIR


class PathIsADirectoryError(FileError, IsADirectoryError):
    """The path is a directory, where a file is needed."""

    code = errno.EISDIR


class DirectoryNotEmptyError(FileError):
    """The directory has entries."""

    code = errno.ENOTEMPTY


class PathInvalidError(FileError, ValueError):
    """A name, path or argument that no file system takes."""

    code = errno.EINVAL


class PathNameTooLongError(FileError):
    """A name of more than 255 bytes."""

    code = errno.ENAMETOOLONG


class PathBusyError(FileError):
    """The root, or another directory that must stay where it is."""

    code = errno.EBUSY


class FileTooBigError(FileError):
    """A file of more bytes than a file can have."""

    code = errno.EFBIG


class StaleFileError(FileError):
    """The file that was open here has been removed."""

    code = errno.ESTALE


class TooManyLinksError(FileError):
    """A file of more links than can be counted."""

    code = errno.EMLINK


class SymlinkLoopError(FileError):
    """Too many symbolic links on the way."""

    code = errno.ELOOP


class AttributeExistsError(FileError):
    """An extended attribute of that name exists already."""

    code = errno.EEXIST


class AttributeNotFoundError(FileError):
    """No extended attribute of that name."""

    code = errno.ENODATA


class PathPermissionError(FileError, PermissionError):
    """An operation that POSIX forbids on this kind of file."""

    code = errno.EPERM
