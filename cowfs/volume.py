"""The volume kind: a sparse block device of a given size, which is one large value in its tree."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from operator import lt

from . import limits
from ._tree import Tree
from .blob import Blob
from .catalog import check_volume_size
from .errors import CorruptionError, UsageError
from .filecopy import copy_in, copy_out
from .host import CHUNK, ReadAhead, identity, naming, write_all
from .session import Session

BLOB_KEY = b"\0"
"""The one key of a volume's tree."""

Progress = Callable[[int, int], None]


class Volume:
    """Bytes at offsets: reads beyond what was written give zeros.

    `set_size` changes the size in the catalog; the tree knows it. Offsets and sizes are in bytes.
    """

    kind = "volume"

    def __init__(
        self,
        session: Session,
        set_size: Callable[[int], None],
        record_size: int,
    ) -> None:
        self._session = session
        self._set_size = set_size
        self.record_size = record_size
        """Bytes that are stored, and rewritten, as one."""
        if record_size not in limits.VOLUME_RECORD_SIZES:
            raise CorruptionError(
                session.name, None, f"a volume with records of {record_size} bytes"
            )

    @property
    def name(self) -> str:
        """`dataset` or `dataset@snapshot`."""
        return self._session.name

    @property
    def size(self) -> int:
        """Bytes of the device."""
        with self._session.reading() as tree:
            return tree.volume_size

    def pread(self, length: int, offset: int) -> bytes:
        """`length` bytes from `offset`; fewer only at the end of the device."""
        with self._session.reading() as tree:
            _check(tree, offset, 0)
            length = min(length, tree.volume_size - offset)
            data = self._blob(tree).pread(length, offset)
        return data.ljust(length, b"\0")

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> int:
        """Write all of `data` at `offset`; how many bytes that were."""
        view = _bytes_of(data)
        with self._session.writing() as tree:
            _check(tree, offset, len(view))
            self._blob(tree).pwrite(view, offset)
        return len(view)

    def pwritev(self, pieces: Sequence[tuple[int, bytes | memoryview]]) -> None:
        """Write many pieces, (offset, bytes) each, in one pass: they ascend and do not overlap."""
        end = 0
        pieces = [(at, data if type(data) is bytes else _bytes_of(data)) for at, data in pieces]
        for offset, data in pieces:
            if offset < end:
                raise UsageError(f"a piece at {offset} behind one that ends at {end}")
            end = offset + len(data)
        with self._session.writing() as tree:
            _check(tree, end, 0)
            self._blob(tree).pwritev(pieces)

    def write_records(self, records: list[tuple[int, bytes]]) -> None:
        """Write whole records of `record_size` bytes, (number, bytes) each, in one pass: their
        numbers ascend."""
        if not records:
            return
        size = self.record_size
        numbers, contents = zip(*records, strict=True)
        if {*map(type, contents)} != {bytes} or {*map(len, contents)} != {size}:
            raise UsageError(f"a record that has not {size} bytes")
        if not all(map(lt, numbers, numbers[1:])):
            raise UsageError("records whose numbers do not ascend")
        with self._session.writing() as tree:
            _check(tree, numbers[0] * size, 0)
            _check(tree, numbers[-1] * size, size)
            self._blob(tree).write_records(records, size)

    def discard(self, offset: int, length: int) -> None:
        """Give a range back: it reads as zeros."""
        with self._session.writing() as tree:
            _check(tree, offset, length)
            self._blob(tree).punch(offset, length)

    def resize(self, size: int) -> None:
        """Another size; what lies beyond a smaller one is gone."""
        check_volume_size(size)
        with self._session.writing() as tree:
            blob = self._blob(tree)
            with self._session.io.as_a_whole():
                if blob.size > size:
                    blob.truncate(size)
                self._set_size(size)

    def flush(self) -> None:
        """Everything written is durable: each write outside a transaction is so when it returns."""

    def data_ranges(self, start: int = 0) -> list[tuple[int, int]]:
        """(start, stop) of each stretch that holds data."""
        with self._session.reading() as tree:
            return list(self._blob(tree).data_ranges(start))

    def copy_in(self, source: str | os.PathLike[str], *, progress: Progress | None = None) -> None:
        """Become a copy of a file or block device on the host: its bytes, its holes, its size."""
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe is refused below
        ahead = ReadAhead()
        try:
            status = os.fstat(fd)
            mode = status.st_mode
            if (status.st_dev, status.st_ino) == self._session.io.device.identity:
                raise UsageError(
                    f"{os.fspath(source)}: is the image itself, which changes meanwhile"
                )
            if stat.S_ISDIR(mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(source))
            if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
                raise UsageError(f"{os.fspath(source)}: a volume is copied from a file or a disk")
            size = os.lseek(fd, 0, os.SEEK_END)
            if not size:
                raise UsageError(f"{os.fspath(source)}: is empty; a volume has at least one byte")
            with self._session.writing() as tree:
                blob = self._blob(tree)
                with self._session.io.as_a_whole():
                    self._set_size(size)
                    copy_in(blob, fd, size, ahead, _counting(progress, size))
        finally:
            ahead.close()
            os.close(fd)

    def copy_out(self, target: str | os.PathLike[str], *, progress: Progress | None = None) -> None:
        """Write all bytes to a file on the host, with holes where nothing was ever written; to a
        device or pipe, every byte."""
        with self._session.reading() as tree:
            size = tree.volume_size
            report = _counting(progress, size)
            blob = self._blob(tree)
            path = os.fspath(target)
            image = self._session.io.device.identity
            if image is not None and identity(path) == image:
                raise UsageError(f"{path}: is the image itself; copy to another place")
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            try:
                with naming(path):
                    if stat.S_ISREG(os.fstat(fd).st_mode):
                        copy_out(blob, fd, report, sparse=True)
                        os.ftruncate(fd, size)
                        return
                    for start in range(0, size, CHUNK):
                        length = min(CHUNK, size - start)
                        write_all(fd, blob.pread(length, start).ljust(length, b"\0"))
                        report(length)
            finally:
                os.close(fd)

    def close(self) -> None:
        """End a view."""
        self._session.close()

    def __enter__(self) -> Volume:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<cowfs volume {self.name!r}>"

    def _blob(self, tree: Tree) -> Blob:
        """What was written so far, which may end before the volume does."""
        blob = Blob(self._session.io, tree, BLOB_KEY, record_size=self.record_size)
        if blob.size > tree.volume_size:
            raise CorruptionError(
                self.name, None, f"{blob.size} bytes in a volume of {tree.volume_size} bytes"
            )
        return blob


def _bytes_of(data: bytes | bytearray | memoryview) -> memoryview:
    """Something's bytes: an array's items may have more than one, and its `len` counts items."""
    return memoryview(data).cast("B")


def _check(tree: Tree, offset: int, length: int) -> None:
    """UsageError where a range is not within the volume."""
    size = tree.volume_size
    if offset < 0 or length < 0 or offset + length > size:
        raise UsageError(f"bytes {offset} to {offset + length} of a volume of {size} bytes")


def _counting(progress: Progress | None, total: int) -> Callable[[int], None]:
    """What takes the bytes done since it was called last, and tells `progress` of their sum."""
    done = 0

    def report(length: int) -> None:
        nonlocal done
        done += length
        if progress is not None:
            progress(done, total)

    return report
