"""Gathering: the changes of many requests in one transaction, so that each need not pay a commit.

A file system promises durability at fsync, and else within some seconds. So requests change the
datasets within one transaction that stays open: the first one begins it, fsync commits it, and so
does `mounts.py` every few seconds. Reads look into it as well, as they must see what was written.

A store has one writer at a time, so whoever else wants to write (live control) does it in
`exclusively`, between two transactions of this one.

What runs out of space takes its transaction with it (docs/design.md), here with changes that
programs were told are done. So where room gets short, each request commits by itself, and what
fails is that request alone. Where that was misjudged, or damage stops a request in its middle, all
that was gathered is lost, and `told.py` knows who believes otherwise.

A large file comes in many writes, one behind the other. Its tree of records is stored once for all
of them: when anything else is asked for, which then finds everything in place.

One request is one `with gathering:`; `read` and what writes are for use within it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import NamedTuple

from cowfs import FS, Store, Transaction
from cowfs.blob import Blob
from cowfs.errors import FileError, OutOfSpaceError
from cowfs.fs.nodes import Inodes
from cowfs.limits import KIB, MIB, RECORD_SIZE

from .told import Subject, Told

_SHORT = 16 * MIB
"""Room below which each request is a transaction of its own."""
_REQUEST = 24 * KIB
"""What a request may need at the commit for nodes, beside its data: a path in three places."""
_RECORDS = 2 * RECORD_SIZE
"""What a request may take beside its data at once: a record of which it changes a part, at either
end, is written anew as a whole, and the old one is free only after the commit."""

log = logging.getLogger("cowfs.mount")


class Gathering:
    """The open transaction of a store, for all that is mounted from it.

    `undone` is called, with the lock held, when the subjects of requests are not as the kernel was
    told that they are.
    """

    def __init__(
        self, store: Store, undone: Callable[[set[Subject]], None] = lambda subjects: None
    ) -> None:
        self.store = store
        self.told = Told(undone)
        self._lock = threading.RLock()
        self._transaction: Transaction | None = None
        self._requests = 0
        """How many have changed something in the open transaction."""
        self._room = 0
        """Bytes that are free, less what has been asked for since that was looked at."""
        self._alone = False
        """Whether the request in progress is to be committed by itself."""
        self._content: _Content | None = None
        """The file that was written to last, if nothing else was asked for since."""
        self._read: _Read | None = None
        """The file that was read last."""
        self._nodes: dict[str, tuple[FS, Inodes]] = {}
        """Of the open transaction, or, where none is open, of views of the newest version."""
        self._writing: Subject | None = None
        """The file to which the request in progress writes."""
        self._before: tuple[Inodes, int] | None = None
        """The files that the request in progress changes, and the version of their tree before."""

    # --- for requests ---------------------------------------------------------------------------

    def __enter__(self) -> Gathering:
        self._lock.acquire()
        self._writing = self._before = None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is not None:
                self._failed(error)
            elif self._alone and self._transaction is not None:
                self.commit()
        finally:
            self._lock.release()

    def read(self, name: str) -> Inodes:
        """The files of a dataset (or snapshot) as they are, with all that was gathered."""
        self._store_content()
        return self._find(name)

    def content(self, dataset: str, number: int) -> Blob:
        """What a file holds, to read: the same as long as nothing has changed, so that its tree of
        records is not looked up for each piece."""
        nodes = self.read(dataset)
        last, version = self._read, nodes.tree.version
        if last is None or (last.nodes, last.number, last.version) != (nodes, number, version):
            last = self._read = _Read(nodes, number, version, nodes.blob(number))
        return last.blob

    def write(self, dataset: str, number: int, name: bytes = b"", size: int = 0) -> Inodes:
        """The files of a dataset, to change one of them, or what a directory has under a name;
        `size` is the number of bytes to be written."""
        self._store_content()
        return self._prepare(Subject(dataset, number, name), size)

    def write_content(self, dataset: str, number: int, data: memoryview, offset: int) -> int:
        """Write to a file; the bytes written."""
        self._writing = Subject(dataset, number, b"")
        nodes = self._prepare(self._writing, len(data))
        self.told.altered(dataset, number)
        content = self._content
        if content is None or content.nodes is not nodes or content.number != number:
            self._store_content()
            blob = nodes.blob(number, deferred=True)
            content = self._content = _Content(nodes, number, blob)
        return nodes.write(number, data, offset, content.blob)

    def dataset(self, name: str) -> FS:
        """The dataset that `read` gives the files of."""
        self.read(name)
        return self._nodes[name][0]

    @property
    def pending(self) -> bool:
        """Whether anything waits for a commit."""
        return self._transaction is not None or self.store.durable_txid < self.store.txid

    # --- the end of a transaction ---------------------------------------------------------------

    def commit(self, *, durable: bool = True) -> None:
        """Commit what was gathered. With `durable`, all before it is durable, too."""
        with self._lock:
            transaction = self._transaction
            if transaction is None:
                self._drop_nodes()
                if durable and not self.store.readonly:
                    self.store.sync()
                return
            try:
                self._transaction = None
                self._store_content()
                self._drop_nodes()
                transaction.durable = durable
                transaction.commit()
            except BaseException as error:  # an interrupt, too: nobody else knows of the changes
                self._lose(transaction, error)
                raise
            self.told.keep()

    @contextlib.contextmanager
    def exclusively(self) -> Iterator[None]:
        """All that was gathered is committed, and no request is served meanwhile."""
        with self._lock:
            self.commit(durable=False)
            yield
            self._drop_nodes()

    # --- inside ---------------------------------------------------------------------------------

    def _find(self, name: str) -> Inodes:
        found = self._nodes.get(name)
        if found is None:
            if self._transaction is not None and "@" not in name:
                found = _nodes(self._transaction[name])
                if name in self.told.lost_numbers:
                    found[1].pass_over(self.told.lost_numbers[name])
            else:
                found = _nodes(self.store.at(name))
            self._nodes[name] = found
        return found[1]

    def _prepare(self, subject: Subject, size: int) -> Inodes:
        if self._transaction is None or self._is_short(size):
            self._begin(size)
        self._requests += 1
        self.told.changed(subject)
        nodes = self._find(subject.dataset)
        if self._before is None or self._before[0] is not nodes:
            self._before = nodes, nodes.tree.version
        return nodes

    def _store_content(self) -> None:
        if self._content is not None:
            # Until it is done, nobody else may forget it: a commit without it would lead to what
            # was freed.
            self._content.blob.store()
            self._content = None

    def _lose(self, transaction: Transaction, error: BaseException) -> None:
        """A transaction cannot go on, nor anything that was gathered in it."""
        try:
            # Where it is one request's, that request fails, and nobody else has lost anything.
            self.told.lose(alone=self._alone)
            if not self._alone:
                path = self.store.path
                log.error("%s: what was changed since the last commit is lost: %s", path, error)
        finally:
            self._forget(transaction)

    def _forget(self, transaction: Transaction) -> None:
        self._content = None
        self._drop_nodes()
        self._transaction = None
        transaction.abort()

    def _failed(self, error: BaseException) -> None:
        """A request failed. Most leave no trace; one that left the transaction in pieces ends it,
        with all that was gathered."""
        if self._writing is not None:
            self.told.undo({self._writing})  # the kernel shows what it sent, and has it as written
        transaction = self._transaction
        if transaction is None:
            return
        # What is refused is refused before anything is changed.
        if self._before is not None and not isinstance(error, FileError):
            nodes, version = self._before
            self.store.io.break_if_changed(nodes.tree, version, error)
        if isinstance(error, OutOfSpaceError) or transaction.broken or self.store.failure:
            self._lose(transaction, error)

    def _begin(self, size: int) -> None:
        if self._transaction is not None:
            self.commit()
        self._drop_nodes()
        self._transaction = self.store.transaction()
        self._requests = 0
        self._room = 0  # others use the host, too
        self._alone = self._is_short(size)

    def _is_short(self, size: int) -> bool:
        """Whether there may not be room for all that is gathered, and `size` bytes more."""
        self._room -= size + _RECORDS + _REQUEST
        if self._room < _SHORT:
            self._room = self._look_for_room() - size - self._requests * _REQUEST
        return self._room < _SHORT

    def _look_for_room(self) -> int:
        """Bytes that are free now: in the image, as far as its host has room for them."""
        io = self.store.io
        space, size = io.space, io.block_size
        room = max(0, io.device.allocated() - space.used * size) + io.device.host_room()
        return min(room, (space.free - space.reserve) * size) if space.limit else room

    def _drop_nodes(self) -> None:
        for fs, _ in self._nodes.values():
            fs.close()
        self._nodes.clear()
        self._read = None


class _Content(NamedTuple):
    """A file that is being written to."""

    nodes: Inodes
    number: int
    blob: Blob


def _nodes(fs: FS) -> tuple[FS, Inodes]:
    with fs.reading() as nodes:
        return fs, nodes


class _Read(NamedTuple):
    """A file that is being read."""

    nodes: Inodes
    number: int
    version: int
    """Of the tree that the files are in."""
    blob: Blob
