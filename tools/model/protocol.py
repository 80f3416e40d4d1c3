"""The protocol: how transactions are committed, made durable, found again, and their blocks reused.

Each method that may be overridden decides one thing, so that a mutation is one method.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

from .disk import NOTHING, Content, Disk, Unknown
from .state import (
    SLOTS,
    Blocks,
    Checkpoint,
    Data,
    Flush,
    Freed,
    History,
    Reader,
    Record,
    State,
    Store,
    Superblock,
    Wrong,
    tidy,
)

Step = tuple[str, State]


class Protocol:
    """The steps. `blocks`, `transactions` and `crashes` bound what is visited."""

    blocks = 9
    transactions = 3
    crashes = 2

    def __init__(self) -> None:
        self._checksums: dict[Record, int] = {}

    def start(self) -> State:
        """An image that was just made."""
        first = SLOTS
        root, space = Data("root", 0, ()), Data("map", 0)
        record = Record(
            "CHECKPOINT", 0, 0, first + 3, 0, 0, root=(first + 1, root), map=(first + 2, space)
        )
        superblock = Superblock(0, first, self.checksum(record), 0)
        contents: list[Content] = [superblock, NOTHING, record, root, space]
        contents += [NOTHING] * (SLOTS + self.blocks - len(contents))
        store = Store(
            (),
            durable=0,
            proven=0,
            opening=0,
            checksum=self.checksum(record),
            next_block=first + 3,
            superblock=superblock,
            map_block=first + 2,
            roots=((0, first + 1),),
            log=frozenset({first}),
        )
        return State(Disk(tuple((content,) for content in contents)), store, (), ())

    def steps(self, state: State) -> Iterator[Step]:
        """All that can happen next."""
        for label, following in self._steps(state):
            yield label, self._forget(following)

    def _steps(self, state: State) -> Iterator[Step]:
        if state.store is None:
            yield from self._open(state)
            return
        if state.crashes < self.crashes:
            yield "power cut", self._power_cut(state)
        if state.store.failed:
            if state.store.history != state.issued:
                raise Wrong(
                    f"a failed store shows {state.store.history}, and showed {state.issued} before"
                )
            return
        yield from self._read(state, state.store)
        if state.store.flush is not None:
            yield from self._end_flush(state, state.store, state.store.flush)
        if state.store.step:
            yield from self._go_on(state, state.store)
            return
        yield from self._begin_flush(state, state.store)
        if state.store.txid < self.transactions:
            yield from self._commit(state, self._release(state.store))

    def _forget(self, state: State) -> State:
        """States that differ only in what cannot be found any more are taken for one."""
        disk, store = state.disk, state.store
        if store is None or store.step in ("settle", "settled"):
            return state
        used = store.used()
        free = [block for block in range(SLOTS, len(disk.blocks)) if block not in used]
        records = self._stale_records(disk, store, free)
        unproven = {
            content
            for block in store.log
            for content in disk.blocks[block]
            if isinstance(content, Record) and content.txid > store.proven
        }
        runs = {run for record in records | unproven for run in record.runs}

        sequence = store.superblock.sequence
        in_force = len(disk.blocks[sequence % SLOTS]) == 1

        def worthless(block: int, content: Content) -> bool:
            if isinstance(content, Superblock):
                return in_force and content.sequence < sequence
            return content not in records and (block, content) not in runs

        free += range(SLOTS)
        for block in free:
            disk = disk.forget(block, worthless)
        if store.flush is not None:
            asked = tuple(
                (block, NOTHING if block in free and worthless(block, content) else content)
                for block, content in store.flush.asked
                if len(disk.blocks[block]) > 1
            )
            store = store._replace(flush=store.flush._replace(asked=asked))
        return state._replace(disk=disk, store=store)

    def _stale_records(self, disk: Disk, store: Store, free: list[int]) -> set[Record]:
        """Records that were lost, or did not count, and that could still follow what is there:
        right behind the last one, behind another of these, or behind one that is written anew."""
        known = {store.checksum}
        found: set[Record] = set()
        places = [store.next_block, *free]
        candidates = [
            content
            for block in places
            for content in disk.blocks[block]
            if isinstance(content, Record) and content.txid > store.txid
        ]
        for record in sorted(candidates):
            if record.previous in known or record.opening == self.nonce(store):
                found.add(record)
                known.add(self.checksum(record))
        return found

    # --- a transaction --------------------------------------------------------------------------

    def _release(self, store: Store) -> Store:
        """At its beginning: let go of what nobody can need any more."""
        waiting = tuple(freed for freed in store.freed if not self.reusable(store, freed))
        return store._replace(freed=waiting)

    def reusable(self, store: Store, freed: Freed) -> bool:
        """Whether a block that was freed may be used again."""
        return (
            self.freed_for_good(store, freed)
            and self.unread(store, freed)
            and self.unproven_by(store, freed)
        )

    def freed_for_good(self, store: Store, freed: Freed) -> bool:
        """The transaction that freed it is durable."""
        return freed.by <= store.durable

    def unread(self, store: Store, freed: Freed) -> bool:
        """No reader is older than that."""
        return store.reader is None or store.reader.txid >= freed.by

    def unproven_by(self, store: Store, freed: Freed) -> bool:
        """Whoever wrote it needs no proof."""
        return freed.birth <= store.proven

    def _commit(self, state: State, store: Store) -> Iterator[Step]:
        """Write a record and its blocks, and make it visible."""
        # What a program does after a power cut may be what it did before, or something else.
        stale = {
            content.txid
            for found in state.disk.blocks
            for content in found
            if isinstance(content, Record | Data)
        }
        for op in (0, 1) if store.txid + 1 in stale else (0,):
            for (after,) in self._places(state.disk, store, 1):
                yield self._intent(state, store, op, after, None)
            for after, payload in self._places(state.disk, store, 2):
                yield self._intent(state, store, op, after, payload)
            for after, root, scratch in self._places(state.disk, store, 3):
                yield self._full(state, store, op, after, root, scratch)
            if store.checkpoint is None:  # else it is completed first, by flushes
                for after, root, space in self._places(state.disk, store, 3):
                    yield self._checkpoint(state, store, op, after, root, space)

    def _places(self, disk: Disk, store: Store, count: int) -> Iterator[tuple[int, ...]]:
        """Ways to place so many blocks. Of free blocks with equal contents, the first will do."""
        used = store.used()
        free = [block for block in range(SLOTS, SLOTS + self.blocks) if block not in used]
        seen = set()
        for places in permutations(free, count):
            shape = tuple(disk.blocks[block] for block in places)
            if shape not in seen:
                seen.add(shape)
                yield places

    def _intent(self, state: State, store: Store, op: int, after: int, payload: int | None) -> Step:
        """The operations themselves, in the record; a long value is its payload."""
        txid = store.txid + 1
        runs = ((payload, Data("payload", txid, (op,))),) if payload is not None else ()
        record = self._record("INTENT", store, after, runs, op=op)
        state = self._write(state, store, runs)
        log, payloads = store.log | {store.next_block}, store.payloads
        if payload is not None:
            payloads = (*payloads, (txid, payload))
        store = store._replace(payloads=payloads, log=log)
        return f"INTENT {txid}", self._publish(state, store, record)

    def _full(
        self, state: State, store: Store, op: int, after: int, root: int, scratch: int
    ) -> Step:
        """A fold: the tree with all that the intents did, too. `scratch` was written and freed."""
        txid = store.txid + 1
        content = Data("root", txid, self.folded(store, op))
        runs = ((scratch, Data("scratch", txid, (op,))), (root, content))
        record = self._record("FULL", store, after, runs, root=(root, content), op=op)
        state = self._write(state, store, runs)
        old_txid, old_root = store.roots[-1]
        store = store._replace(
            roots=(*store.roots, (txid, root)),
            log=store.log | {store.next_block},
            freed=(*store.freed, Freed(txid, old_root, old_txid), Freed(txid, scratch, txid)),
        )
        return f"FULL {txid}", self._publish(state, self.folds(store, txid), record)

    def folded(self, store: Store, op: int) -> History:
        """What a FULL record leads to."""
        return (*store.history, op)

    def folds(self, store: Store, txid: int) -> Store:
        """What a fold does to the log: nothing. Its blocks stay until a checkpoint."""
        return store

    def _record(
        self,
        kind: str,
        store: Store,
        after: int,
        runs: Blocks,
        *,
        op: int,
        root: tuple[int, Content] = (0, NOTHING),
        space: tuple[int, Content] = (0, NOTHING),
    ) -> Record:
        durable = self.claimed(store)
        return Record(
            kind,
            store.txid + 1,
            store.checksum,
            after,
            durable,
            self.nonce(store),
            runs,
            op,
            root,
            space,
        )

    def claimed(self, store: Store) -> int:
        """What a record says is flushed."""
        return store.durable

    def nonce(self, store: Store) -> int:
        """What tells the records of one opening from those of another."""
        return store.opening

    def checksum(self, record: Record) -> int:
        """A number for each record."""
        return self._checksums.setdefault(record, len(self._checksums) + 1)

    def _write(self, state: State, store: Store, blocks: Blocks) -> State:
        """Write blocks; none of them may be of a version that somebody can see."""
        kept = store.reachable(store.txid) | store.reachable(store.durable)
        if store.reader is not None:
            kept |= store.reader.blocks
        disk = state.disk
        for block, content in blocks:
            if block in kept:
                raise Wrong(f"block {block} is written, which a visible version needs")
            disk = disk.write(block, content)
        return state._replace(disk=disk)

    def _publish(self, state: State, store: Store, record: Record) -> State:
        """Write the record, and make the commit visible."""
        disk = state.disk.write(store.next_block, record, tears=True)
        history = (*store.history, record.op)
        store = store._replace(
            history=history,
            checksum=self.checksum(record),
            next_block=record.next_block,
            claims=(*store.claims, (record.txid, record.durable)),
        )
        state = state._replace(disk=disk, store=tidy(store), issued=history)
        return self.visible(state, store)

    def visible(self, state: State, store: Store) -> State:
        """Who wants a durable commit is told nothing yet."""
        return state

    # --- durability -----------------------------------------------------------------------------

    def _begin_flush(self, state: State, store: Store) -> Iterator[Step]:
        """One thread flushes for all that wait."""
        written = store.checkpoint is not None and store.checkpoint.written
        if store.flush is None and (store.durable < store.txid or written):
            flush = Flush(store.txid, state.disk.asked())
            yield "flush begins", state._replace(store=store._replace(flush=flush))

    def _end_flush(self, state: State, store: Store, flush: Flush) -> Iterator[Step]:
        store = store._replace(flush=None)
        disk = state.disk.flushed(flush.asked)
        durable = self._durable(state._replace(disk=disk), store, self.covered(store, flush))
        yield "flush ends", self._go_on_with_checkpoint(durable)
        disk = state.disk.dropped(flush.asked)
        yield "flush fails", self.flush_failed(state._replace(disk=disk), store)

    def covered(self, store: Store, flush: Flush) -> int:
        """The newest transaction that a flush made durable."""
        return flush.txid

    def _durable(self, state: State, store: Store, txid: int) -> State:
        """What is flushed is acknowledged."""
        durable = max(store.durable, txid)
        said = [claim for number, claim in store.claims if number <= durable]
        store = store._replace(
            durable=durable,
            proven=max([store.proven, self.said(said, durable)]),
            claims=tuple(entry for entry in store.claims if entry[0] > durable),
        )
        return state._replace(store=tidy(store), acknowledged=store.history[:durable])

    def said(self, claims: list[int], durable: int) -> int:
        """What durable records say is flushed."""
        return max(claims, default=0)

    def flush_failed(self, state: State, store: Store) -> State:
        """It is final: the visible version stays, which may be the last place where some of it is,
        and nothing is written or acknowledged any more."""
        return state._replace(store=store._replace(failed=True))

    def _barrier(self, state: State, store: Store, txid: int) -> State:
        """The holder of the writer's lock flushes."""
        disk = state.disk.flushed(state.disk.asked())
        return self._durable(state._replace(disk=disk), store, txid)

    # --- readers --------------------------------------------------------------------------------

    def _read(self, state: State, store: Store) -> Iterator[Step]:
        if store.reader is not None:
            yield "reader goes", state._replace(store=tidy(store._replace(reader=None)))
        elif not store.step:
            reader = Reader(store.txid, store.reachable(store.txid))
            yield "reader comes", state._replace(store=store._replace(reader=reader))

    # --- a checkpoint ---------------------------------------------------------------------------

    def _checkpoint(
        self, state: State, store: Store, op: int, after: int, root: int, space: int
    ) -> Step:
        """1. The tree, the map of all blocks, and the record, in any order."""
        txid = store.txid + 1
        content, map_content = Data("root", txid, self.folded(store, op)), Data("map", txid)
        blocks: Blocks = ((root, content), (space, map_content))
        record = self._record(
            "CHECKPOINT",
            store,
            after,
            self.proof_of_checkpoint(blocks),
            op=op,
            root=(root, content),
            space=(space, map_content),
        )
        state = self._write(state, store, blocks)
        old_txid, old_root = store.roots[-1]
        freed = (Freed(txid, old_root, old_txid), Freed(txid, store.map_block, 0))
        superblock = Superblock(
            store.superblock.sequence + 1, store.next_block, self.checksum(record), txid
        )
        older = store.log | {block for _, block in store.payloads}
        store = store._replace(
            roots=(*store.roots, (txid, root)),
            log=frozenset({store.next_block}),
            payloads=(),
            map_block=space,
            freed=(*store.freed, *freed),
            checkpoint=Checkpoint(txid, superblock, older),
        )
        return f"CHECKPOINT {txid}", self._publish(state, store, record)

    def proof_of_checkpoint(self, blocks: Blocks) -> Blocks:
        """It proves itself as any other commit does."""
        return blocks

    def _go_on_with_checkpoint(self, state: State) -> State:
        """2. A flush has made it durable: its superblock is written, into the slot of the ring that
        is not in force. 3. A later one has made that durable: the older log is free."""
        store = state.store
        assert store is not None
        checkpoint = store.checkpoint
        if checkpoint is None:
            return state
        if checkpoint.written:
            return state._replace(store=tidy(self._lead_to(store, checkpoint)))
        if self.superblock_due(store, checkpoint):
            superblock = checkpoint.superblock
            disk = state.disk.write(superblock.sequence % SLOTS, superblock, tears=True)
            store = store._replace(checkpoint=checkpoint._replace(written=True))
            return state._replace(disk=disk, store=self.superblock_written(store))
        return state

    def superblock_due(self, store: Store, checkpoint: Checkpoint) -> bool:
        """Whether the record is durable to which it leads."""
        return checkpoint.txid <= store.durable

    def superblock_written(self, store: Store) -> Store:
        """Nothing is free before it is flushed."""
        return store

    def _lead_to(self, store: Store, checkpoint: Checkpoint) -> Store:
        freed = tuple(Freed(checkpoint.txid, block, 0) for block in sorted(checkpoint.older))
        return store._replace(
            superblock=checkpoint.superblock,
            proven=max(store.proven, checkpoint.txid),
            freed=(*store.freed, *freed),
            checkpoint=None,
        )

    def _go_on(self, state: State, store: Store) -> Iterator[Step]:
        yield {"settle": self._settle_flush, "settled": self._settle_done}[store.step](state, store)

    # --- after a power cut ----------------------------------------------------------------------

    def _power_cut(self, state: State) -> State:
        return state._replace(disk=state.disk.stopped(), store=None, crashes=state.crashes + 1)

    def _open(self, state: State) -> Iterator[Step]:
        """Find the newest commit; each thing that the power cut may have left is tried."""
        try:
            store, disk = self._found(state.disk, state.crashes)
        except Unknown as unknown:
            for content in sorted(set(state.disk.blocks[unknown.block]), key=repr):
                disk = state.disk.decide(unknown.block, content)
                yield from self._open(state._replace(disk=disk))
            return
        found = store.history
        if found[: len(state.acknowledged)] != state.acknowledged:
            raise Wrong(f"{state.acknowledged} was acknowledged, and {found} is found")
        if state.issued[: len(found)] != found:
            raise Wrong(f"{state.issued} was written, and {found} is found")
        yield f"opened as of {store.txid}", state._replace(disk=disk, store=store)

    def _found(self, disk: Disk, opening: int) -> tuple[Store, Disk]:
        """Superblock, chain, proof, replay; and the first write of `_settle`."""
        slots = [disk.read(block) for block in range(SLOTS)]
        superblock = max(slot for slot in slots if isinstance(slot, Superblock))
        chain: list[tuple[int, Record]] = []
        block, previous = superblock.block, 0
        while True:
            record = disk.read(block)
            if not isinstance(record, Record):
                break
            if chain and record.previous != previous:
                break
            if not chain and self.checksum(record) != superblock.checksum:
                break
            chain.append((block, record))
            block, previous = record.next_block, self.checksum(record)
        if not chain:
            raise Wrong("the superblock leads to no checkpoint")
        durable = max(superblock.durable, *(record.durable for _, record in chain))
        counted = 0
        while counted < len(chain) and (
            chain[counted][1].txid <= durable or self.proves(disk, chain[counted][1])
        ):
            counted += 1
        proven = max(superblock.durable, *(record.durable for _, record in chain[:counted]))
        chain = self.from_checkpoint(chain[:counted])
        store = Store((), 0, proven, opening, 0, 0, superblock, 0, roots=((0, 0),))
        base, replayed = chain[0][1], list[Record]()
        for place, record in chain:
            store = self._replay(disk, store, place, record)
            if record.kind == "INTENT":
                replayed.append(record)
            else:
                base, replayed = record, []
        if store.txid != base.txid + len(replayed):
            raise Wrong(f"record {base.txid} leads to a version of other transactions")
        for block, content in (base.root, *(run for intent in replayed for run in intent.runs)):
            if disk.read(block) != content:
                raise Wrong(f"block {block} does not hold what a record that counts leads to")
        store = store._replace(durable=store.txid)
        # Before anything else is written: what did not count is wiped, lest it count later.
        if isinstance(disk.read(store.next_block), Record):
            disk = self.wipe(disk, store.next_block)
        return tidy(store._replace(step="settle")), disk

    def from_checkpoint(self, chain: list[tuple[int, Record]]) -> list[tuple[int, Record]]:
        """What is replayed: from the last checkpoint on. What an older one leads to may have been
        overwritten since."""
        first = max(i for i, (_, record) in enumerate(chain) if record.kind == "CHECKPOINT")
        return chain[first:]

    def proves(self, disk: Disk, record: Record) -> bool:
        """Whether everything that was written with a record is there."""
        return all(disk.read(block) == content for block, content in record.runs)

    def _replay(self, disk: Disk, store: Store, place: int, record: Record) -> Store:
        """Take over what a record says."""
        if record.kind == "INTENT":
            if record.txid != store.txid + 1:
                raise Wrong("an intent is missing")
            payloads = tuple((record.txid, block) for block, _ in record.runs)
            store = store._replace(
                history=(*store.history, record.op), payloads=(*store.payloads, *payloads)
            )
        else:
            assert isinstance(record.root[1], Data)
            store = store._replace(
                history=record.root[1].history, roots=((record.txid, record.root[0]),)
            )
        store = store._replace(
            log=store.log | {place},
            checksum=self.checksum(record),
            next_block=record.next_block,
        )
        if record.kind == "CHECKPOINT":
            block, content = record.map
            if disk.read(block) != content:
                raise Wrong(f"block {block} does not hold the map of checkpoint {record.txid}")
            store = store._replace(
                log=frozenset({place}),
                payloads=(),
                map_block=record.map[0],
                superblock=store.superblock._replace(block=place, checksum=self.checksum(record)),
            )
        return store

    def wipe(self, disk: Disk, block: int) -> Disk:
        """Overwrite a record that did not count."""
        return disk.write(block, NOTHING, tears=True)

    def settle_barrier(self, state: State, store: Store) -> State:
        """What was found is flushed: it may have been in the host's cache only."""
        return self._barrier(state, store, store.txid)

    def _settle_flush(self, state: State, store: Store) -> Step:
        """That is flushed; and a superblock says what only the wiped record said, or leads to the
        newest checkpoint, if need be."""
        state = self.settle_barrier(state, store)
        assert state.store is not None
        store = state.store
        state = state._replace(issued=store.history, acknowledged=store.history)
        newest = state.disk.read(store.superblock.sequence % SLOTS)
        if not self.needs_superblock(store, newest != store.superblock):
            store = store._replace(step="")
            return "settled", state._replace(store=store)
        superblock = store.superblock._replace(
            sequence=store.superblock.sequence + 1, durable=store.txid
        )
        disk = state.disk.write(superblock.sequence % SLOTS, superblock, tears=True)
        store = store._replace(superblock=superblock, step="settled")
        return "settled: superblock", state._replace(disk=disk, store=store)

    def needs_superblock(self, store: Store, moved: bool) -> bool:
        """Whether the one that was found does not lead here, or leaves something to be proven."""
        return moved or store.proven < store.txid

    def _settle_done(self, state: State, store: Store) -> Step:
        state = self._barrier(state, store, store.txid)
        assert state.store is not None
        return "settled: done", state._replace(
            store=state.store._replace(step="", proven=store.txid)
        )
