"""What the model knows: records, superblocks, the memory of a process, and what users were told.

A version of the store is its history: what each transaction did, in order. The whole tree is one
block, its root; a FULL record leads to it. Everything else that a record lists stands for itself.
"""

from __future__ import annotations

from typing import NamedTuple

from .disk import NOTHING, Content, Disk

History = tuple[int, ...]
Blocks = tuple[tuple[int, Content], ...]
"""(block, content) of each."""

SLOTS = 2
"""Blocks of the superblock ring; with two, the slot written is always the one before in force."""


class Wrong(Exception):
    """A property does not hold."""


class Data(NamedTuple):
    """What a transaction wrote into a block."""

    name: str
    txid: int
    history: History = ()


class Record(NamedTuple):
    """A commit record. Its checksum stands for all of it."""

    kind: str
    """INTENT, FULL or CHECKPOINT."""
    txid: int
    previous: int
    next_block: int
    durable: int
    """The newest transaction known to be flushed when it was written."""
    opening: int
    runs: Blocks = ()
    """What was written with it, to prove it by."""
    op: int = 0
    """What the transaction does: that of an INTENT is done again at opening."""
    root: tuple[int, Content] = (0, NOTHING)
    map: tuple[int, Content] = (0, NOTHING)


class Superblock(NamedTuple):
    """Where the chain begins."""

    sequence: int
    block: int
    checksum: int
    durable: int


class Freed(NamedTuple):
    """A block that waits to be used again."""

    by: int
    """The transaction that freed it."""
    block: int
    birth: int
    """The transaction that wrote it, and may have to prove itself by it; 0: none."""


class Reader(NamedTuple):
    """An open view."""

    txid: int
    blocks: frozenset[int]


class Flush(NamedTuple):
    """A flush that has begun, outside of the writer's lock."""

    txid: int
    """The newest transaction that it covers."""
    asked: Blocks


class Checkpoint(NamedTuple):
    """A checkpoint whose record is written, and where no opening begins yet."""

    txid: int
    superblock: Superblock
    older: frozenset[int]
    """Blocks of the log before it."""
    written: bool = False
    """Whether its superblock is."""


class Store(NamedTuple):
    """The memory of a process that has the image open."""

    history: History
    """Of the visible version."""
    durable: int
    proven: int
    """Transactions that need no proof: something durable says that they are flushed."""
    opening: int
    checksum: int
    next_block: int
    superblock: Superblock
    map_block: int
    roots: tuple[tuple[int, int], ...]
    """(txid, block) of FULL records, as far back as somebody needs them."""
    payloads: tuple[tuple[int, int], ...] = ()
    """(txid, block) of INTENT records since the checkpoint."""
    log: frozenset[int] = frozenset()
    """Blocks of records since the checkpoint."""
    claims: tuple[tuple[int, int], ...] = ()
    """(txid, `durable` of its record) of commits that are not flushed."""
    freed: tuple[Freed, ...] = ()
    reader: Reader | None = None
    flush: Flush | None = None
    checkpoint: Checkpoint | None = None
    step: str = ""
    """The next step of what holds the writer's lock: opening."""
    failed: bool = False

    @property
    def txid(self) -> int:
        return len(self.history)

    def reachable(self, txid: int) -> frozenset[int]:
        """Blocks of a version."""
        base, root = max(entry for entry in self.roots if entry[0] <= txid)
        payloads = {block for number, block in self.payloads if base < number <= txid}
        return frozenset(payloads | {root})

    def used(self) -> set[int]:
        """Blocks that are not free."""
        return {
            *self.log,
            *(block for _, block in self.payloads),
            *(freed.block for freed in self.freed),
            self.next_block,
            self.map_block,
            self.roots[-1][1],
            *(self.checkpoint.older if self.checkpoint is not None else ()),
        }


class State(NamedTuple):
    """All there is. Users know of `acknowledged`; no more than `issued` was written."""

    disk: Disk
    store: Store | None
    acknowledged: History
    issued: History
    crashes: int = 0


def tidy(store: Store) -> Store:
    """Forget what nobody asks for any more, so that equal states are equal."""
    oldest = min(store.durable, store.txid)
    needed = max(entry for entry in store.roots if entry[0] <= oldest)
    return store._replace(
        roots=tuple(entry for entry in store.roots if entry >= needed),
        freed=tuple(sorted(store.freed)),
    )
