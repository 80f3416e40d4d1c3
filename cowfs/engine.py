"""The engine: one image, opened. Superblock ring, commit, readers, one writer at a time.

`Engine.commit` is the commit protocol of docs/design.md, a step a line. One writer at a time; any
number of readers, each on the version that it opened, never blocked. A failed flush is final: the
store refuses writes from then on.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

from . import limits
from ._ledger import Ledger
from ._node import Cache
from ._tree import Tree
from .blob import resolver, write_value
from .blockio import BlockIO
from .catalog import CATALOG_OWNER, SPACE_OWNER, Catalog, Root
from .codec import COMPRESSION_NAMES, Encoder
from .device import Device
from .errors import BusyError, ClosedError, FailedError, ReadOnlyError
from .format import (
    CHECKSUM_SIZE,
    FLAG_CHECKPOINT,
    FLAG_FLUSHED,
    KNOWN_READ_ONLY,
    NO_REF,
    CommitRecord,
    Delta,
    Run,
    Superblock,
    group_key,
)
from .log import Log, follow, read_superblocks, settle, write_superblock
from .parameters import Parameters
from .recovery import Recovery
from .session import FixedSession, Session
from .space import Space, pack_runs, packed_runs
from .transaction import Transaction

_log = logging.getLogger("cowfs")

_INLINE_DELTA = 2048
_OVERFLOW_EXTENT = 64 * limits.KIB
_MANY_COUNTS = 20_000
"""Changed counts beyond which a checkpoint is smaller than a delta."""


@dataclass(frozen=True, slots=True)
class Reader:
    """An open view: it keeps the blocks of its version from being used again."""

    name: str
    txid: int
    since: float
    """Seconds since the epoch."""


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
        self.io.writer.adopt(log.next_block)
        self.catalog_tree = self._tree(CATALOG_OWNER, catalog_ref, "(catalog)")
        self.space_tree = self._tree(SPACE_OWNER, space_ref, "(space map)")
        self.durable_txid = log.txid
        self._opening = secrets.randbits(16)
        self.failure: BaseException | None = None
        self._readers: dict[int, Reader] = {}
        self._reader_number = 0
        self._state = threading.Lock()
        """Held while a view opens or a commit becomes visible: both in a few steps."""
        self._writer = threading.Lock()
        self._writing: Transaction | None = None
        self._writing_thread = 0
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
        if self._writing is None:
            raise ClosedError("no transaction is open")
        self._writing.resize(name, size)

    def size_of(self, name: str) -> int:
        """Bytes of a volume, as the transaction that is open in this thread sees it."""
        if self._writing is not None and self._writing_thread == threading.get_ident():
            return self._writing.catalog.resolve(name).size
        with self.pinned("lookup") as catalog:
            return catalog.resolve(name).size

    @property
    def txid(self) -> int:
        """Number of the newest transaction."""
        return self.log.txid

    def __repr__(self) -> str:
        return f"<cowfs store {self.path!r}{' (closed)' if self._closed else ''}>"

    # --- reading --------------------------------------------------------------------------------

    def open_view(self, name: str) -> FixedSession:
        """A session on a snapshot, or on a dataset as it is now; pinned until it is closed."""
        return self.view_root(name)[1]

    def view_root(self, name: str) -> tuple[Root, FixedSession]:
        """`open_view`, and the catalog's record of what it shows."""
        with self._state:
            self._check_open()
            catalog = Catalog(self.catalog_tree.fork())
            number = self._reader_number = self._reader_number + 1
            self._readers[number] = Reader(name, self.log.txid, time.time())
        try:
            root = catalog.resolve(name)
            tree = self.tree_of(root, name)
        except BaseException:
            self._close_reader(number)
            raise
        session = FixedSession(
            name,
            self.io,
            tree,
            readonly=True,
            on_close=lambda: self._close_reader(number),
        )
        return root, session

    @contextmanager
    def pinned(self, purpose: str) -> Iterator[Catalog]:
        """The catalog of this moment, with everything that it leads to kept in place."""
        with self._state:
            self._check_open()
            catalog = Catalog(self.catalog_tree.fork())
            number = self._reader_number = self._reader_number + 1
            self._readers[number] = Reader(f"({purpose})", self.log.txid, time.time())
        try:
            yield catalog
        finally:
            self._close_reader(number)

    @contextmanager
    def still(self) -> Iterator[None]:
        """No transaction runs meanwhile."""
        if self._writing_thread == threading.get_ident():
            raise BusyError("this thread has a transaction open; end it first")
        with self._writer:
            self._check_open()
            yield

    def own_blocks(self, *, pending: bool = True) -> Iterator[tuple[int, int]]:
        """(block, blocks) in use by the store itself: superblocks, the log, what is held for the
        writer, and, with `pending`, what waits to be freed."""
        yield 0, limits.SUPERBLOCK_SLOTS
        yield limits.SECOND_PLACE_BLOCK, limits.SUPERBLOCK_SLOTS
        yield from self.log.blocks
        yield self.log.next_block, 1
        writer = self.io.writer
        if writer.end > writer.cursor:
            yield writer.cursor, writer.end - writer.cursor
        if pending:
            for packed in self.io.space.waiting():
                yield from packed_runs(packed)

    def readers(self) -> list[Reader]:
        """Open views, oldest first: what keeps freed space from being used again."""
        return sorted(self._readers.values(), key=lambda reader: (reader.txid, reader.since))

    def _close_reader(self, number: int) -> None:
        self._readers.pop(number, None)

    def tree_of(self, root: Root, label: str, ledger: Ledger | None = None) -> Tree:
        """The tree of a head or snapshot."""
        return self._tree(root.dataset, root.ref, label, ledger)

    def _tree(
        self, owner: int, ref: bytes | None, label: str, ledger: Ledger | None = None
    ) -> Tree:
        tree = Tree(self.io, self.io.cache, self.io.node_size, owner, ref, ledger, label)
        tree.resolve = resolver(self.io, label)
        return tree

    @abstractmethod
    def make_object(self, root: Root, session: Session) -> Any:
        """The KV, FS or Volume for a session; the store above knows them."""

    @contextmanager
    def open_change(self, name: str) -> Iterator[Tree]:
        """The tree of a dataset in a durable transaction of its own."""
        with self.transaction() as tx:
            yield tx.tree(name)

    def reclaim(self) -> None:
        """Finish destroying what was destroyed in part."""
        more = True
        while more:
            with self.pinned("reclaim") as catalog:
                more = any(True for _ in catalog.drops())
            if more:
                with self.transaction() as tx:
                    more = tx.reclaim()

    # --- transactions ---------------------------------------------------------------------------

    def transaction(self, durable: bool = True) -> Transaction:
        """Begin a transaction; waits for another thread's to end.

        With `durable=False` it is atomic and in order, and made durable by the next durable commit.
        """
        return Transaction(self, durable)

    def begin(self, tx: Transaction) -> int:
        """Let one transaction write; its number. Called by Transaction only."""
        self._check_open()
        if self.readonly:
            raise ReadOnlyError(f"{self.path} is open for reading only; open it with 'w'")
        me = threading.get_ident()
        if self._writing_thread == me:
            raise BusyError(
                "this thread has a transaction open already; end it first, or use it instead"
            )
        self._writer.acquire()
        try:
            self._check_open()
            self._check_sound()
        except BaseException:
            self._writer.release()
            raise
        self._writing_thread = me
        self._writing = tx
        self.io.broken = None
        self.io.space.begin()
        self._release_freed()
        txid = self.log.txid + 1
        self.io.writer.begin(txid)
        return txid

    def end(self, tx: Transaction) -> None:
        """Let the next transaction write."""
        if self._writing is tx:
            self._writing = None
            self._writing_thread = 0
            self._writer.release()

    def abandon(self, tx: Transaction) -> None:
        """Give back what a transaction placed."""
        if self._writing is tx and self.failure is None:
            self.io.writer.abandon()

    def commit(self, tx: Transaction) -> None:
        """The commit protocol. All of the transaction's dataset trees are stored already."""
        ledger, writer, log, space = tx.ledger, self.io.writer, self.log, self.io.space
        checkpoint = tx.checkpoint or log.due or log.txid == 0 or self._log_crowds()
        if not (checkpoint or tx.catalog.tree.version or writer.written):
            if tx.durable:
                self._settle_durability()
            return
        tx.prepare_space()
        catalog_ref = tx.catalog.tree.flush(writer) or NO_REF
        tx.note_size()

        # 1. Now and then the whole space map is stored, and the log starts anew.
        checkpoint = checkpoint or tx.large or len(ledger.counts) > _MANY_COUNTS
        retired = pack_runs(log.blocks) if checkpoint else b""
        space_tree, space_ref = self.space_tree, NO_REF
        segments_before = freed_before = 0
        counts = ledger.counts
        changed: list[int] = []
        try:
            if checkpoint:
                writer.finish_run()
                ledger.reuse_own = False
                segments_before, freed = len(writer.segments), ledger.freed_bytes()
                freed_before, counts = len(freed), {}
                changed = space.bitmap.clean()
                space_tree = self._store_space(ledger, changed, [freed, retired])
                space_ref = space_tree.ref or NO_REF
            writer.close_segment()

            # 2. What this transaction does to space goes into its commit record.
            delta = Delta(
                writer.segments[segments_before:], ledger.freed_bytes(freed_before), counts
            ).pack()
            overflow: list[bytes] = []
            if len(delta) > _INLINE_DELTA:
                step = min(_OVERFLOW_EXTENT, self.io.record_size())
                parts = [delta[i : i + step] for i in range(0, len(delta), step)]
                overflow, delta = self.io.write_extents(list(parts)), b""
            record = CommitRecord(
                uuid=log.superblock.uuid,
                txid=tx.txid,
                previous=log.checksum,
                next_block=writer.reserve_record(),
                total_blocks=space.total,
                durable_txid=self.durable_txid,
                flags=FLAG_CHECKPOINT if checkpoint else 0,
                catalog=catalog_ref,
                space=space_ref,
                overflow=overflow,
                delta=delta,
                opening=self._opening,
            )

            # 3. Blocks of a large transaction are flushed before the record that leads to them.
            data = None
            if not tx.large and not checkpoint:
                writer.seal()
                record.runs = [Run._make(run) for run in writer.runs]
                data = record.pack(self.io.block_size)
            if data is None:
                writer.drain()
                self._flush()
                record.runs, record.durable_txid = [], log.txid
                record.flags |= FLAG_FLUSHED
                data = record.pack(self.io.block_size)
            if data is None:
                raise AssertionError("a commit record that does not fit its block")
        except BaseException:
            space.bitmap.mark(changed)
            raise

        # 4. The record makes it real. Should anything go wrong from here on, nobody can tell what
        #    reached the device, and the store takes no more writes until it is opened anew.
        record_block = writer.record_block
        durable = tx.durable or checkpoint
        try:
            writer.write_record(data)
            if durable:
                self.device.flush()

            # 5. It becomes visible, and what it freed waits until nobody needs it.
            self._publish(tx, record, space_tree, data[-CHECKSUM_SIZE:], durable)
            if checkpoint:
                self._write_superblock(tx.txid, record_block, record.previous, retired)
            log.note_record(record_block, overflow)
        except BaseException as error:
            self.failure = error
            raise

    def _publish(
        self,
        tx: Transaction,
        record: CommitRecord,
        space_tree: Tree,
        digest: bytes,
        durable: bool,
    ) -> None:
        """Make a commit that is on the device the newest version."""
        ledger, log, space = tx.ledger, self.log, self.io.space
        with self._state:
            space.apply_counts(ledger.counts)
            newest = min(self._newest_reader(), ledger.durable)
            space.defer(
                tx.txid,
                unseen=ledger.freed_between(newest, ledger.durable) + ledger.own_freed_bytes(),
                seen=ledger.freed_between(0, newest),
                young=ledger.freed_between(ledger.durable, tx.txid),
            )
            self.catalog_tree = tx.catalog.tree.fork()
            self.space_tree = space_tree
            log.txid = tx.txid
            log.checksum = digest
            log.next_block = record.next_block
            if durable:
                self.durable_txid = tx.txid
                log.proven_txid = max(log.proven_txid, record.durable_txid)

    def _log_crowds(self) -> bool:
        """Whether the log takes too much of an image of limited size."""
        return 0 < self.io.space.reserve < 8 * self.log.records

    def _store_space(self, ledger: Ledger, changed: list[int], freed: list[bytes]) -> Tree:
        """Store the space map as it is without what this writes; the new space tree."""
        tree = self.space_tree.fork(ledger)
        freed = [*freed, ledger.own_freed_bytes()]
        groups = self.io.space.checkpoint_groups(changed, freed, ledger.counts)
        for group, value in list(groups):
            write_value(self.io, tree, group_key(group), value)
        tree.delete_range(group_key(-(-self.io.space.total // limits.GROUP_BLOCKS)))
        tree.flush(self.io.writer)
        return tree.fork()

    def _write_superblock(
        self, txid: int, record_block: int, previous: bytes, retired: bytes
    ) -> None:
        """Lead openers to the checkpoint just made; only then the old log is free."""
        superblock = replace(
            self.log.superblock,
            txid=txid,
            sequence=self.log.superblock.sequence + 1,
            durable_txid=txid,
            record_block=record_block,
            total_blocks=self.io.space.total,
            record_previous=previous,
        )
        try:
            write_superblock(self.device, superblock)
            self.device.flush()
        except Exception as error:
            # The commit itself is durable: the log leads to it from the checkpoint before.
            self.failure = error
            _log.error("%s: writing the superblock failed: %s", self.path, error)
            return
        self.log.restart(superblock)
        self.log.proven_txid = txid
        self.io.space.defer(txid, retired)

    def _flush(self) -> None:
        try:
            self.device.flush()
        except Exception as error:
            self.failure = error
            raise FailedError(
                f"{self.path}: a flush failed ({error}); nothing of this transaction was kept, "
                "and the store takes no more writes: open it anew"
            ) from error

    def _release_freed(self) -> None:
        """Let go of what nobody can need any more: no reader, and no opening after a crash."""
        oldest = min((reader.txid for reader in list(self._readers.values())), default=self.txid)
        self.io.space.release(self.durable_txid, self.log.proven_txid, oldest)

    def _newest_reader(self) -> int:
        """The newest version that a reader has open; 0 where there is none."""
        return max((reader.txid for reader in list(self._readers.values())), default=0)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"{self.path}: this store is closed")

    def _check_sound(self) -> None:
        if self.failure is not None:
            raise FailedError(
                f"{self.path}: an earlier write or flush failed ({self.failure}); what was "
                "committed before is safe, but the store takes no more writes: open it anew"
            )

    # --- the end --------------------------------------------------------------------------------

    def sync(self) -> None:
        """Make non-durable commits durable."""
        with self._writer:
            self._check_open()
            self._settle_durability()

    def _settle_durability(self) -> None:
        if self.durable_txid < self.log.txid:
            self._check_sound()
            self._flush()
            self.durable_txid = self.log.txid

    def close(self) -> None:
        """Settle the log so that the next opening is quick, and let go of the image.

        Open views end. A transaction that is still open is abandoned.
        """
        if self._closed:
            return
        if self._writing is not None:
            self._writing.abort()
        try:
            if not self.readonly and self.failure is None:
                self._settle()
        finally:
            self._closed = True
            self.io.encoder.close()
            self.device.close()

    def _settle(self) -> None:
        """Leave a checkpoint behind, and the free space to the host."""
        self._readers.clear()
        if self.log.records > 1 or self.io.space.slack_at_end() > limits.GROUP_BLOCKS // 8:
            with self.transaction() as tx:
                self.io.writer.finish_run()
                self.io.space.shrink()
                tx.checkpoint = True
            if self.failure is not None:
                return
            size = self.io.space.total * self.io.block_size
            if self.device.size() > size:
                self.device.resize(size)
        self._release_freed()
        if self.punch:
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
        )
        space = Space(device, block_size, total, limit)
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
        engine.transaction().commit()  # the first commit is a checkpoint
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
        found.io.space.recount()
        if not readonly:
            settle(device, log, superblock, found.io.space.total)
        return cls(
            device,
            superblock,
            log,
            found.io.space,
            found.catalog_ref,
            found.space_ref,
            readonly=readonly,
            cache_size=cache_size,
            punch=punch,
        )
