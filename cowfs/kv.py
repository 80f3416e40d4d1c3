"""The kv kind: an ordered map from bytes to bytes, in the shape of a dict."""

from __future__ import annotations

import contextlib
import io as stdio
from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any, overload

from . import limits
from ._tree import Tree
from .blob import Blob
from .blockio import BlockIO
from .errors import KeyTypeError, NotFoundError, UsageError
from .session import FixedSession, Session
from .values import cell_size, write_blob, write_value


def _after_prefix(prefix: bytes) -> bytes | None:
    """The smallest key behind all that start with `prefix`; None where there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None


class KV(MutableMapping[bytes, bytes]):
    """A map from bytes to bytes (keys of 1 to 1,024 bytes, values of any length), in key order.

    On a view it is read-only; in a transaction its changes are the transaction's; on a store
    directly each change is a durable transaction of its own.
    """

    kind = "kv"

    def __init__(self, session: Session) -> None:
        self._session = session
        if isinstance(session, FixedSession):
            # The fastest way there is: straight into the compiled walk.
            self.get = session.tree.get  # type: ignore[method-assign]

    @property
    def name(self) -> str:
        """`dataset` or `dataset@snapshot`."""
        return self._session.name

    def close(self) -> None:
        """End a view: its version need not be kept any longer."""
        self._session.close()

    def __enter__(self) -> KV:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- reading --------------------------------------------------------------------------------

    def __getitem__(self, key: bytes) -> bytes:
        with self._session.reading() as tree:
            value: bytes | None = tree.get(key)
        if value is None:
            raise NotFoundError(f"no key {key!r} in {self.name}")
        return value

    @overload
    def get(self, key: bytes) -> bytes | None: ...
    @overload
    def get(self, key: bytes, default: bytes) -> bytes: ...
    @overload
    def get(self, key: bytes, default: Any) -> Any: ...
    def get(self, key: bytes, default: Any = None) -> Any:
        """The value of `key`, or `default`."""
        with self._session.reading() as tree:
            return tree.get(key, default)

    def get_many(self, keys: Iterable[bytes], default: bytes | None = None) -> list[bytes | None]:
        """The values of several keys, in their order."""
        with self._session.reading() as tree:
            values: list[bytes | None] = tree.get_many(keys, default)
        return values

    def __contains__(self, key: object) -> bool:
        with self._session.reading() as tree:
            return key in tree

    def __len__(self) -> int:
        with self._session.reading() as tree:
            return len(tree)

    def __iter__(self) -> Iterator[bytes]:
        return self.keys()

    def __repr__(self) -> str:
        return f"<cowfs kv {self.name!r}>"

    def items(  # type: ignore[override]
        self,
        start: bytes | None = None,
        stop: bytes | None = None,
        *,
        prefix: bytes | None = None,
        reverse: bool = False,
    ) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) for start <= key < stop, or for keys that begin with `prefix`, in order."""
        return self._range(start, stop, prefix, reverse, 0)

    def keys(  # type: ignore[override]
        self,
        start: bytes | None = None,
        stop: bytes | None = None,
        *,
        prefix: bytes | None = None,
        reverse: bool = False,
    ) -> Iterator[bytes]:
        """Keys of a range, in order; see `items`."""
        return self._range(start, stop, prefix, reverse, 1)

    def values(  # type: ignore[override]
        self,
        start: bytes | None = None,
        stop: bytes | None = None,
        *,
        prefix: bytes | None = None,
        reverse: bool = False,
    ) -> Iterator[bytes]:
        """Values of a range, in key order; see `items`."""
        return self._range(start, stop, prefix, reverse, 2)

    def lengths(
        self,
        start: bytes | None = None,
        stop: bytes | None = None,
        *,
        prefix: bytes | None = None,
        reverse: bool = False,
    ) -> Iterator[tuple[bytes, int]]:
        """(key, bytes of its value) of a range, in order, however large the values are."""
        cells = self._range(start, stop, prefix, reverse, 3)
        return ((key, cell_size((kind, raw))) for key, kind, raw in cells)

    def _range(
        self,
        start: bytes | None,
        stop: bytes | None,
        prefix: bytes | None,
        reverse: bool,
        what: int,
    ) -> Iterator[Any]:
        for bound in (start, stop, prefix):
            if bound is not None and type(bound) is not bytes:
                raise KeyTypeError(f"bounds are bytes, not {type(bound).__name__}")
        if prefix is not None:
            if start is not None or stop is not None:
                raise UsageError("a range has either a prefix or bounds, not both")
            start, stop = prefix, _after_prefix(prefix)
        start = start or None
        if isinstance(self._session, FixedSession):
            cursor: Iterator[Any] = self._session.tree.items_between(start, stop, reverse, what)
            return cursor
        return _live_range(self._session, start, stop, reverse, what)

    # --- changing -------------------------------------------------------------------------------

    def __setitem__(self, key: bytes, value: bytes) -> None:
        session = self._session
        if isinstance(session, FixedSession):  # the same without the calls, as loads are many puts
            _put(session.writing().tree, session.io, key, value)
        else:
            _check_pair(key, value)  # what cannot be put would have others of its group try alone
            session.change(_put, session.io, key, value)

    def __delitem__(self, key: bytes) -> None:
        if not self.discard(key):
            raise NotFoundError(f"no key {key!r} in {self.name}")

    def discard(self, key: bytes) -> bool:
        """Remove a key if it is there; whether it was."""
        found: bool = self._session.change(Tree.delete, key)
        return found

    # What the mapping methods do in several steps is one transaction here.

    def update(self, other: Any = (), /) -> None:
        """Put all items of a mapping, or pairs, together. In a transaction, an error behind the
        first one breaks it."""
        with self._session.writing() as tree:
            version = tree.version
            try:
                super().update(other)
            except BaseException as error:
                self._session.io.break_if_changed(tree, version, error)
                raise

    def pop(self, key: bytes, *default: Any) -> Any:
        """Remove a key and return its value, or `default` where it is not there."""
        with self._session.writing():
            return super().pop(key, *default)

    def popitem(self) -> tuple[bytes, bytes]:
        """Remove and return the first item. Raises KeyError on an empty map."""
        with self._session.writing():
            return super().popitem()

    def setdefault(self, key: bytes, default: Any = None) -> Any:
        """The value of a key, which gets `default` where it is not there."""
        with self._session.writing():
            return super().setdefault(key, default)

    def delete_range(self, start: bytes | None = None, stop: bytes | None = None) -> int:
        """Remove start <= key < stop; how many there were. Costs no look at what is removed."""
        for bound in (start, stop):
            if bound is not None and type(bound) is not bytes:
                raise KeyTypeError(f"bounds are bytes, not {type(bound).__name__}")
        with self._session.writing() as tree:
            removed: int = tree.delete_range(start or None, stop)
        return removed

    def clear(self) -> None:
        """Remove everything."""
        self.delete_range()

    def load_sorted(self, pairs: Iterable[tuple[bytes, bytes]]) -> int:
        """Put pairs whose keys ascend, as fast as it goes; how many there were.

        Raises UsageError where keys do not ascend; the transaction should then be abandoned.
        """
        with self._session.writing() as tree:

            def put_large(key: bytes, value: bytes) -> None:
                write_value(self._session.io, tree, key, value)

            count: int = tree.load_sorted(pairs, put_large)
        return count

    # --- large values as streams ----------------------------------------------------------------

    def open(self, key: bytes, mode: str = "rb") -> stdio.BufferedIOBase:
        """A value as a binary file object: "rb" to read it piece by piece and anywhere, "wb" to
        replace it piece by piece. In a transaction all pieces become real together; on a store
        directly each piece (1 MiB) commits by itself."""
        if mode == "rb":
            with self._session.reading() as tree:
                if key not in tree:
                    raise NotFoundError(f"no key {key!r} in {self.name}")
            return stdio.BufferedReader(_ValueReader(self._session, key), limits.RECORD_SIZE)
        if mode == "wb":
            _check_pair(key, b"")
            return stdio.BufferedWriter(_ValueWriter(self._session, key), 8 * limits.RECORD_SIZE)
        raise UsageError(f"mode {mode!r}: a value opens as 'rb' or 'wb'")


def _live_range(
    session: Session, start: bytes | None, stop: bytes | None, reverse: bool, what: int
) -> Iterator[Any]:
    """A range of the version that is the newest when the first item is asked for."""
    with contextlib.closing(session.view()) as view:
        yield from view.tree.items_between(start, stop, reverse, what)


def _put(tree: Tree, io: BlockIO, key: bytes, value: bytes) -> None:
    if type(value) is bytes and len(value) <= tree.inline_limit:
        tree.put(key, value)
    else:
        _check_pair(key, value)
        write_value(io, tree, key, value)


def _check_pair(key: object, value: object) -> None:
    if type(key) is not bytes or type(value) is not bytes:
        wrong = key if type(key) is not bytes else value
        raise KeyTypeError(f"keys and values are bytes, not {type(wrong).__name__}")
    if not 1 <= len(key) <= limits.MAX_KEY:
        raise UsageError(f"a key of {len(key)} bytes; keys have 1 to {limits.MAX_KEY} bytes")


class _ValueReader(stdio.RawIOBase):
    """A value, read at random; on a live map each read sees the newest version."""

    def __init__(self, session: Session, key: bytes) -> None:
        self._session = session
        self._key = key
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == stdio.SEEK_CUR:
            offset += self._at
        elif whence == stdio.SEEK_END:
            with self._blob() as blob:
                offset += blob.size
        self._at = max(0, offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        with self._blob() as blob:
            data = blob.pread(len(view), self._at)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    @contextlib.contextmanager
    def _blob(self) -> Iterator[Blob]:
        with self._session.reading() as tree:
            yield Blob(self._session.io, tree, self._key)


class _ValueWriter(stdio.RawIOBase):
    """A value that is written from front to back. Chunks are stored under the key as they come in;
    on a live map, each chunk is a transaction, so use a transaction for one moment."""

    def __init__(self, session: Session, key: bytes) -> None:
        self._session = session
        self._key = key
        self._at = 0
        with session.writing() as tree:
            write_blob(session.io, tree, key, [])

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        with self._session.writing() as tree:
            Blob(self._session.io, tree, self._key).pwrite(view, self._at)
        self._at += len(view)
        return len(view)
