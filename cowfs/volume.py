"""The volume kind: a sparse block device of a given size, which is one large value in its tree."""

from __future__ import annotations

from collections.abc import Callable

from . import limits
from ._tree import Tree
from .blob import Blob
from .errors import CorruptionError, UsageError
from .session import Session

BLOB_KEY = b"\0"
"""The one key of a volume's tree."""


class Volume:
    """Bytes at offsets: reads beyond what was written give zeros.

    `get_size` and `set_size` reach the size in the catalog. Offsets and sizes are in bytes.
    """

    kind = "volume"

    def __init__(
        self, session: Session, get_size: Callable[[], int], set_size: Callable[[int], None]
    ) -> None:
        self._session = session
        self._get_size = get_size
        self._set_size = set_size

    @property
    def name(self) -> str:
        """`dataset` or `dataset@snapshot`."""
        return self._session.name

    @property
    def size(self) -> int:
        """Bytes of the device."""
        return self._get_size()

    def pread(self, length: int, offset: int) -> bytes:
        """`length` bytes from `offset`; fewer only at the end of the device."""
        self._check(offset, 0)
        length = min(length, self.size - offset)
        with self._session.reading() as tree:
            data = self._blob(tree).pread(length, offset)
        return data.ljust(length, b"\0")

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> int:
        """Write all of `data` at `offset`; how many bytes that were."""
        self._check(offset, len(data))
        with self._session.writing() as tree:
            self._blob(tree).pwrite(data, offset)
        return len(data)

    def discard(self, offset: int, length: int) -> None:
        """Give a range back: it reads as zeros."""
        self._check(offset, length)
        with self._session.writing() as tree:
            self._blob(tree).punch(offset, length)

    def resize(self, size: int) -> None:
        """Another size; what lies beyond a smaller one is gone."""
        if not (isinstance(size, int) and 0 < size <= limits.MAX_VALUE):
            raise UsageError(f"size {size!r}: a volume has 1 to {limits.MAX_VALUE} bytes")
        with self._session.writing() as tree:
            blob = self._blob(tree)
            if blob.size > size:
                blob.truncate(size)
            self._set_size(size)

    def flush(self) -> None:
        """Everything written is durable: each write outside a transaction is so when it returns."""

    def data_ranges(self, start: int = 0) -> list[tuple[int, int]]:
        """(start, stop) of each stretch that holds data."""
        with self._session.reading() as tree:
            return list(self._blob(tree).data_ranges(start))

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
        blob = Blob(self._session.io, tree, BLOB_KEY)
        if blob.size > self.size:
            raise CorruptionError(
                self.name, None, f"{blob.size} bytes in a volume of {self.size} bytes"
            )
        return blob

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise UsageError(
                f"bytes {offset} to {offset + length} of a volume of {self.size} bytes"
            )
