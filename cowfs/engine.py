"""The engine: one image, opened. Its versions and readers, one writer at a time, making, opening
and closing it.

Any number of readers, each on the version that it opened, are never blocked. How a transaction
reaches the device is the commit protocol's business (`commit.py`).
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from inspect import GEN_CLOSED, getgeneratorstate
from typing import Any, Self

from . import limits
from ._ledger import Ledger
from ._node import Cache
from ._tree import Tree
from .blockio import BlockIO
from .catalog import CATALOG_OWNER, LARGEST, SPACE_OWNER, Catalog, Root
from .codec import COMPRESSION_NAMES, Encoder
from .commit import Committer
from .device import Device
from .errors import (
    BusyError,
    ClosedError,
    CorruptionError,
    DeviceError,
    OutOfSpaceError,
    ReadOnlyError,
)
from .format import CHECKSUM_SIZE, KNOWN_READ_ONLY, TWO_COPIES, Superblock
from .group import Group
from .log import Log, beyond_all, follow, is_followed, lead_back, read_superblocks, settle
from .parameters import Parameters
from .recovery import Recovery, replay
from .session import FixedSession, Pin, Session
from .space import Space, packed_runs
from .transaction import Transaction
from .values import resolver
from .version import Reader, Version, Versions

_log = logging.getLogger("cowfs")


class Engine(ABC):
    """What is below the user's `Store`: versions, transactions and the commit protocol."""

    def __init__(
        self,
        device: Device,
        superblock: Superblock,
        log: Log,
        space: Space,
        catalog_ref: bytes | None,
        space_ref: bytes | None,
        *,
        readonly: bool,
        cache_size: int,
        punch: bool = True,
    ) -> None:
        self.device = device
        self.readonly = readonly
        self.cache_size = cache_size
        self.punch = punch
        self.log = log
        encoder = Encoder(superblock.compression, superblock.block_size)
        self.io = BlockIO(device, space, Cache(cache_size), encoder, superblock.node_size)
        catalog = self._tree(CATALOG_OWNER, catalog_ref, "(catalog)")
        self.versions = Versions(Version(log.txid, catalog, {}, log.proven_txid, {}))
        space_tree = self._tree(SPACE_OWNER, space_ref, "(space map)")
        dirty_limit = max(limits.MIN_CACHE // 2, cache_size // 2)
        self.committer = Committer(
            self.io, log, self.versions, space_tree, dirty_limit, mending=not readonly
        )
        self.durability = self.committer.durability
        self._group = Group()
        self._writer = threading.Lock()
        self._writing_ref: weakref.ref[Transaction] | None = None
        """Weak: a transaction that an interrupt kept from its `with` block is given up with it."""
        self._next = threading.Lock()
        """Held by the one that waits for `_writer`: who comes again at once waits here first."""
        self._writing_thread = 0
        self._closing = 0
        """The thread that closes the store: no other one begins to write any more."""
        self._closer = threading.RLock()
        """Held by that thread. A signal handler may close in the midst of it."""
        self._closed = False

    # --- identity -------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """Name of the image."""
        return self.device.name

    @property
    def label(self) -> str:
        """The label given to mkfs."""
        return self.log.superblock.label

    @property
    def uuid(self) -> str:
        """The image's id."""
        return str(uuid.UUID(bytes=self.log.superblock.uuid))

    def change_size(self, name: str, size: int) -> None:
        """Note the new size of a volume in the transaction that is open."""
        writing = self._writing
        if writing is None:
            raise ClosedError("no transaction is open")
        writing.note_volume_size(name, size)

    @property
    def txid(self) -> int:
        """Number of the newest transaction."""
        return self.log.txid

    def __repr__(self) -> str:
        return f"<cowfs store {self.path!r}{' (closed)' if self._closed else ''}>"

    @property
    def failure(self) -> BaseException | None:
        """Why the store takes no more writes, or None."""
        return self.durability.failure

    @property
    def durable_txid(self) -> int:
        """Number of the newest transaction that is known to be durable."""
        return self.durability.txid

    @property
    def catalog_tree(self) -> Tree:
        """The catalog as it is stored."""
        return self.versions.newest.catalog

    @property
    def space_tree(self) -> Tree:
        """The space map as of the last checkpoint."""
        return self.committer.space_tree

    # --- reading --------------------------------------------------------------------------------

    def open_view(self, name: str) -> FixedSession:
        """A session on a snapshot, or on a dataset as it is now; pinned until it is closed."""
        return self.view_root(name)[1]

    def view_root(self, name: str) -> tuple[Root, FixedSession]:
        """`open_view`, and the catalog's record of what it shows."""
        self._check_open()
        number = next(self.versions.numbers)
        try:
            version = self.versions.open(number, name)
            root = version.resolve(name)
            head = version.heads.get(root.dataset) if "@" not in name else None
            tree = head.fork(None, name) if head is not None else self.tree_of(root, name)
            tree.volume_size = root.size
            return root, FixedSession(
                name,
                self.io,
                tree,
                readonly=True,
                on_close=partial(self.versions.close, number, None),
            )
        except BaseException:
            self.versions.close(number, None)
            raise

    @contextmanager
    def pinned_version(self, purpose: str) -> Iterator[Version]:
        """The version of this moment, kept in place."""
        self._check_open()
        number = next(self.versions.numbers)
        pin = Pin(partial(self.versions.close, number, None))  # also when nothing below is reached
        try:
            yield self.versions.open(number, f"({purpose})")
        finally:
            pin.release()

    @contextmanager
    def pinned(self, purpose: str) -> Iterator[Catalog]:
        """The catalog of this moment, with everything stored that it leads to kept in place."""
        with self.pinned_version(purpose) as version:
            yield Catalog(version.catalog.fork())

    def still(self) -> threading.Lock:
        """For a `with` block during which no transaction runs, and which calls `begin_still` first.

        It is the lock itself: an interrupt could come between the `__enter__` or `__exit__` of
        anything else and the block, and would leave it held as long as its traceback is.
        """
        self._check_open()  # in a fork nobody may ever let go of the lock
        if self._writes_here():
            raise BusyError("this thread has a transaction open; end it first")
        return self._writer

    def begin_still(self) -> None:
        """Let go of what nobody needs any more, and mend what was found damaged."""
        self._check_open()
        self.committer.release_freed()

    def mend(self) -> bool:
        """Write anew what reads found damaged and a second copy has, durably; False where that is
        not for this store, or this thread, to do."""
        if self._writes_here():
            return False
        with self.still():
            self.begin_still()
            return self.mend_still()

    def mend_still(self) -> bool:
        """`mend`, for who sees to it that no transaction runs."""
        if self.readonly or self.failure is not None:
            return False
        self.committer.release_freed()  # which mends
        self.committer.flush_mended()
        return True

    def own_blocks(self, *, pending: bool = True) -> Iterator[tuple[int, int]]:
        """(block, blocks) in use by the store itself: superblocks, the log, what is held for the
        writer, and, with `pending`, what waits to be freed."""
        yield from self.io.space.fixed()
        yield from self.durability.log_blocks()
        yield self.log.next_block, 1
        if self.log.next_copy:
            yield self.log.next_copy, 1
        yield from self.committer.unplaced()
        if not pending:
            yield from self.io.space.kept
            return
        for packed in self.io.space.waiting():
            yield from packed_runs(packed)

    def readers(self) -> list[Reader]:
        """Open views, oldest first: what keeps freed space from being used again."""
        return self.versions.readers()

    def tree_of(self, root: Root, label: str, ledger: Ledger | None = None) -> Tree:
        """The tree of a head or snapshot, as it is stored."""
        return self._tree(root.dataset, root.ref, label, ledger)

    def _tree(
        self, owner: int, ref: bytes | None, label: str, ledger: Ledger | None = None
    ) -> Tree:
        tree = Tree(self.io, self.io.cache, self.io.node_size, owner, ref, ledger, label)
        tree.resolve = resolver(self.io, label, LARGEST.get(owner, limits.MAX_VALUE))
        return tree

    @abstractmethod
    def make_object(self, root: Root, session: Session) -> Any:
        """The KV, FS or Volume for a session; the store above knows them."""

    @contextmanager
    def open_change(self, name: str) -> Iterator[Tree]:
        """The tree of a dataset in a durable transaction of its own."""
        with self.transaction() as tx:
            yield tx.tree(name)

    def change(self, name: str, act: Callable[..., Any], *arguments: Any) -> Any:
        """Have `act` change the tree of a dataset, durably, perhaps in one transaction with what
        other threads change; its result."""
        return self._group.make(self, name, act, arguments)

    def reclaim(self) -> None:
        """Finish destroying what was destroyed in part, in short steps; between two of them a
        writer that waits for its turn has it."""
        with self.pinned("reclaim") as catalog:
            more = any(True for _ in catalog.drops())
        steps = 0
        while more:
            steps += 1
            with self.transaction(durable=steps % limits.REAP_FLUSH == 0) as tx:
                more = tx.reclaim()
        if steps:
            self.sync()

    # --- transactions ---------------------------------------------------------------------------

    def transaction(self, durable: bool = True) -> Transaction:
        """Begin a transaction; waits for another thread's to end.

        With `durable=False` it is atomic and in order, and made durable by the next durable commit.
        """
        return Transaction(self, durable)

    def begin(self, tx: Transaction) -> int:
        """Let one transaction write; its number. Called by Transaction only."""
        self.check_idle()
        if self.readonly:
            raise ReadOnlyError(f"{self.path} is open for reading only; open it with 'w'")
        tx.turn = self._turn(weakref.ref(tx))
        next(tx.turn)
        try:
            return self.committer.begin()
        except BaseException:
            tx.turn.close()  # whoever keeps the error keeps the transaction
            raise

    def _turn(self, tx: weakref.ref[Transaction]) -> Generator[None, None, None]:
        """The right to write, from `next` to `close`. Whatever interrupts its holder, and wherever:
        once nobody refers to the generator any more, it is closed."""
        # No ExitStack: an interrupt could come when it has the lock, and not noted that it has.
        waiting = self._waiting()
        try:
            next(waiting)
            with self._writer:
                waiting.close()
                self._check_open()
                if self._closing not in (0, threading.get_ident()):
                    raise ClosedError(f"{self.path}: this store is being closed")
                self.durability.check_sound()
                self._writing_ref, self._writing_thread = tx, threading.get_ident()
                yield
        finally:
            waiting.close()

    def _waiting(self) -> Generator[None, None, None]:
        """The place of who has the next turn, from `next` to `close`."""
        with self._next:
            yield

    @property
    def _writing(self) -> Transaction | None:
        """The transaction that is open."""
        tx = self._writing_ref() if self._writing_ref is not None else None
        return tx if tx is not None and _has_turn(tx) else None

    def _writes_here(self) -> bool:
        """Whether this thread has a transaction open."""
        return self._writing is not None and self._writing_thread == threading.get_ident()

    def check_idle(self) -> None:
        """BusyError where this thread has a transaction open: it would wait for itself. ClosedError
        in a fork: it could wait for a thread that it does not have."""
        self._check_open()
        if self._writes_here():
            raise BusyError(
                "this thread has a transaction open already; end it first, or use it instead"
            )

    def _writes_elsewhere(self) -> bool:
        """Whether another thread, which is alive, has a transaction open."""
        others = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
        return self._writing is not None and self._writing_thread in others

    def abandon(self, tx: Transaction) -> None:
        """Give back what a transaction placed. It can be done again, should something interrupt."""
        if not _has_turn(tx) or self.device.forked:
            return
        if self.failure is None:
            self.committer.abandon()
            # The host may be full of it, and who deletes then needs a little.
            if self.punch and self.io.writer.written > limits.ONE_FLUSH_LIMIT:
                self._punch()
        else:  # nobody needs what it wrote behind, and a store that failed gives nothing back
            with suppress(OSError):
                self.device.settle()

    def end(self, tx: Transaction) -> None:
        """Let the next transaction write."""
        if tx.turn is not None:
            tx.turn.close()

    def check_stays_open(self) -> None:
        """ClosedError where the store is closed, or a thread is closing it: from then on versions
        are not kept in place any more."""
        self._check_open()
        if self._closing:
            raise ClosedError(f"{self.path}: this store is being closed")

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"{self.path}: this store is closed")
        if self.device.forked:
            raise ClosedError(
                f"{self.path}: this process is a fork of the one that has the image open for "
                "writing; open it behind the fork"
            )

    # --- the end --------------------------------------------------------------------------------

    def sync(self) -> None:
        """Make non-durable commits durable."""
        self._check_open()
        self.durability.make_durable(self.versions.newest.txid)

    def close(self) -> None:
        """Settle the log so that the next opening is quick, and let go of the image.

        Open views end. A transaction of this thread that is still open is abandoned, and so is one
        of a thread that has ended; another thread's is waited for: it may be committing just now.
        So is another thread that closes. Should this be interrupted, it can be done again. In a
        fork of the process that opened the store nothing is done to the image, which is that one's.
        """
        if self.device.forked:
            self._closed = True
            self.device.close()
            return
        writing = self._writing
        if writing is not None and not self._writes_elsewhere():
            writing.abort()
            self.end(writing)  # an interrupt may have come before there was anything to abandon
        with self._closer:
            settles = False
            if not self._closed:
                self._closing = threading.get_ident()
                with self._writer:  # who has it now may fail
                    settles = not self.readonly and self.failure is None
            try:
                if settles:
                    self._settle()
            finally:
                self._closed = True
                self.durability.join()
                self.io.encoder.close()
                self.device.close()

    def _settle(self) -> None:
        """Leave a checkpoint behind, and the free space to the host."""
        # Who still reads from here on may find other things there, which are no damage.
        with self.still():
            self.begin_still()
            self.committer.mending = False
        self.versions.forget_readers()
        if not self.io.space.is_read:
            if self.log.records <= 1:
                return  # as it was opened
            try:
                _ = self.io.space.map
            except (CorruptionError, DeviceError) as error:
                _log.warning("%s: closed without a checkpoint: %s", self.path, error)
                return
        if self.log.records > 1 or self.io.space.slack_at_end() > limits.GROUP_BLOCKS // 8:
            try:
                with self.transaction() as tx:
                    self.committer.finish_run()
                    self.io.space.release_log()
                    # What is destroyed in part refers to blocks that are free already.
                    if not any(True for _ in tx.catalog.drops()):
                        self.io.space.shrink()
                    tx.checkpoint = True
            except OutOfSpaceError as error:
                # The log holds everything; the next opening takes a little longer.
                _log.warning("%s: closed without a checkpoint: %s", self.path, error)
                return  # the newest record still says how long the image is
            if self.failure is not None:
                return
            size = self.io.space.total * self.io.block_size
            if self.device.size() > size:
                self.device.resize(size)
        self.committer.complete_checkpoint()
        self.io.space.release_log()
        if self.punch:
            self._punch()

    def _punch(self) -> None:
        """Give long free runs back to the host."""
        for start, length in self.io.space.long_free_runs():
            self.device.discard(start * self.io.block_size, length * self.io.block_size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- making and opening ---------------------------------------------------------------------

    @classmethod
    def make(
        cls,
        device: Device,
        parameters: Parameters,
        *,
        cache_size: int = limits.DEFAULT_CACHE,
        punch: bool = True,
    ) -> Self:
        """Write an empty image on a device and open it."""
        parameters.check()
        block_size = parameters.block_size
        limit = parameters.size // block_size if parameters.size is not None else 0
        total = limits.MIN_IMAGE_BLOCKS
        device.resize(0)
        device.resize(total * block_size)
        superblock = Superblock(
            uuid=uuid.uuid4().bytes,
            label=parameters.label,
            block_size=block_size,
            node_size=parameters.node_size,
            compression=COMPRESSION_NAMES[parameters.compression],
            limit_blocks=limit,
            created_ns=time.time_ns(),
            sequence=0,
            txid=0,
            record_block=0,
            total_blocks=total,
            durable_txid=0,
            record_previous=bytes(CHECKSUM_SIZE),
            incompatible=TWO_COPIES if parameters.metadata_copies == 2 else 0,
        )
        space = Space(device, block_size, total, limit, superblock.metadata_copies)
        for run in space.fixed():  # else a host that is full later could refuse a superblock
            space.write_ahead(*run)
        first, length = space.take_run(1, 0)
        space.give_back(first + 1, length - 1)
        log = Log(superblock, 0, bytes(CHECKSUM_SIZE), first)
        engine = cls(
            device,
            superblock,
            log,
            space,
            None,
            None,
            readonly=False,
            cache_size=cache_size,
            punch=punch,
        )
        with engine.transaction() as tx:
            tx.checkpoint = True
        return engine

    @classmethod
    def load(
        cls,
        device: Device,
        *,
        readonly: bool,
        cache_size: int = limits.DEFAULT_CACHE,
        punch: bool = True,
    ) -> Self:
        """Open the image on a device as of its newest commit.

        Raises FormatError where there is no image that this version can use, CorruptionError where
        it is damaged.
        """
        superblock = read_superblocks(device)[0]
        unknown = superblock.read_only & ~KNOWN_READ_ONLY
        if unknown and not readonly:
            raise ReadOnlyError(
                f"{device.name}: has features {unknown:#x} that this cowfs can only read; "
                "open it with 'r'"
            )
        found = Recovery(device, superblock)
        log = follow(device, superblock, found.visit)
        if not readonly:
            if is_followed(device, log):
                _ = found.space.map  # says whether what follows is in use by something else
            settle(device, log, superblock, found.space.total)
        engine = cls._recovered(found, log, readonly=readonly, cache_size=cache_size, punch=punch)
        if found.operations:
            engine._replay(found.operations)
        return engine

    @classmethod
    def _recovered(
        cls,
        found: Recovery,
        log: Log,
        *,
        readonly: bool,
        cache_size: int = limits.DEFAULT_CACHE,
        punch: bool = True,
    ) -> Self:
        """The engine that goes on from what the log says."""
        engine = cls(
            found.device,
            found.superblock,
            log,
            found.space,
            found.catalog_ref,
            found.stored_map.ref,
            readonly=readonly,
            cache_size=cache_size,
            punch=punch,
        )
        engine.io.damaged.update(found.io.damaged)
        if not found.space.is_read:
            found.space.read_later(found.space.total, found.stored_map.reader(engine.io))
        return engine

    @classmethod
    def load_checkpoint(
        cls, device: Device, superblock: Superblock, newest: Superblock | None = None
    ) -> Self:
        """Open an image as of the checkpoint of any superblock, without what the log holds after
        it: for reading, or, given the newest superblock, to go on from there for good.

        Then transactions get numbers that none had before: records of abandoned ones stay on the
        image, and must not pass for later ones.
        """
        found = Recovery(device, superblock)
        log = follow(device, superblock, found.visit, alone=True)
        if newest is not None:
            _ = found.space.map  # what fails here has changed nothing
            lead_back(device, log, newest, found.space.total)
            log.txid = log.proven_txid = beyond_all(newest)
        engine = cls._recovered(found, log, readonly=newest is None)
        if newest is not None:
            with engine.transaction() as tx:
                tx.checkpoint = True
        return engine

    def _replay(self, packed: list[bytes]) -> None:
        """Do the operations again that only the log holds."""
        newest = self.versions.newest
        catalog = Catalog(newest.catalog.fork())

        def open_tree(dataset: int, ledger: Ledger) -> Tree:
            root = catalog.by_id(dataset)
            return self.tree_of(root, root.name, ledger)

        ledger = self.committer.new_ledger(newest.txid)
        heads = {
            dataset: tree.fork() for dataset, tree in replay(packed, ledger, open_tree).items()
        }
        self.versions.newest = replace(newest, heads=heads)
        self.committer.adopt(ledger, packed)


def _has_turn(tx: Transaction) -> bool:
    """Whether a transaction has the right to write."""
    return tx.turn is not None and getgeneratorstate(tx.turn) != GEN_CLOSED
