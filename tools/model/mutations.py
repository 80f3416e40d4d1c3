"""Ways to get the protocol wrong, one method each: the model is worth something if it sees them."""

from __future__ import annotations

from .disk import Disk
from .protocol import Protocol, Step
from .state import SLOTS, Blocks, Flush, Freed, History, Record, State, Store

MUTATIONS: list[type[Protocol]] = []


def mutation(cls: type[Protocol]) -> type[Protocol]:
    """Put a mutation on the list."""
    MUTATIONS.append(cls)
    return cls


# --- when blocks are used again -----------------------------------------------------------------


@mutation
class BlocksAreReusedBeforeTheFlush(Protocol):
    def freed_for_good(self, store: Store, freed: Freed) -> bool:
        return True


@mutation
class BlocksAreReusedUnderAReader(Protocol):
    def unread(self, store: Store, freed: Freed) -> bool:
        return True


@mutation
class BlocksAreReusedThatProveACommit(Protocol):
    def unproven_by(self, store: Store, freed: Freed) -> bool:
        return True


@mutation
class BlocksThatProveACommitAreReusedOnceItIsFlushed(Protocol):
    """Flushed is not enough: something durable has to say so."""

    def unproven_by(self, store: Store, freed: Freed) -> bool:
        return freed.birth <= store.durable


@mutation
class AFoldFreesTheRecords(Protocol):
    def folds(self, store: Store, txid: int) -> Store:
        freed = tuple(Freed(txid, block, 0) for block in sorted(store.log - {store.next_block}))
        return store._replace(
            log=store.log - {f.block for f in freed}, freed=(*store.freed, *freed)
        )


@mutation
class TheOldLogIsFreeBeforeTheSuperblockIsFlushed(Protocol):
    def superblock_written(self, store: Store) -> Store:
        assert store.checkpoint is not None
        return self._lead_to(store, store.checkpoint)


# --- what is flushed when -----------------------------------------------------------------------


@mutation
class ACheckpointNeitherProvesItselfNorIsFlushedBeforeItsRecord(Protocol):
    def proof_of_checkpoint(self, blocks: Blocks) -> Blocks:
        return ()


@mutation
class ACommitIsAcknowledgedBeforeTheFlush(Protocol):
    def visible(self, state: State, store: Store) -> State:
        return state._replace(acknowledged=store.history)


@mutation
class AFlushAcknowledgesWhatCameWhileItRan(Protocol):
    def covered(self, store: Store, flush: Flush) -> int:
        return store.txid


@mutation
class AFailedFlushIsNotFinal(Protocol):
    def flush_failed(self, state: State, store: Store) -> State:
        return state._replace(store=store)


@mutation
class AFailedFlushTakesBackWhatWasVisible(Protocol):
    def flush_failed(self, state: State, store: Store) -> State:
        history = store.history[: store.durable]
        return state._replace(store=store._replace(failed=True, history=history))


@mutation
class ASuperblockIsWrittenBeforeTheRecordIsFlushed(Protocol):
    def _checkpoint(self, state: State, store: Store, *places: int) -> Step:
        label, state = super()._checkpoint(state, store, *places)
        assert state.store is not None and state.store.checkpoint is not None
        superblock = state.store.checkpoint.superblock
        disk = state.disk.write(superblock.sequence % SLOTS, superblock, tears=True)
        checkpoint = state.store.checkpoint._replace(written=True)
        return label, state._replace(disk=disk, store=state.store._replace(checkpoint=checkpoint))


# --- what records say ---------------------------------------------------------------------------


@mutation
class ARecordCallsDurableWhatIsOnlyVisible(Protocol):
    def claimed(self, store: Store) -> int:
        return store.txid


@mutation
class ARecordCallsItselfDurable(Protocol):
    def claimed(self, store: Store) -> int:
        return store.txid + 1


@mutation
class RecordsOfTwoOpeningsLookAlike(Protocol):
    def nonce(self, store: Store) -> int:
        return 0


@mutation
class AFoldForgetsTheIntents(Protocol):
    def folded(self, store: Store, op: int) -> History:
        intents = {number for number, _ in store.payloads}
        kept = (o for n, o in enumerate(store.history, 1) if n not in intents)
        return (*kept, op)


# --- opening ------------------------------------------------------------------------------------


@mutation
class NothingIsProven(Protocol):
    def proves(self, disk: Disk, record: Record) -> bool:
        return True


@mutation
class OnlyTheFirstRunIsProven(Protocol):
    def proves(self, disk: Disk, record: Record) -> bool:
        return super().proves(disk, record._replace(runs=record.runs[:1]))


@mutation
class AnOpeningBeginsAtAnOlderCheckpoint(Protocol):
    def from_checkpoint(self, chain: list[tuple[int, Record]]) -> list[tuple[int, Record]]:
        return chain


@mutation
class WhatDidNotCountIsNotWiped(Protocol):
    def wipe(self, disk: Disk, block: int) -> Disk:
        return disk


@mutation
class WhatWasFoundIsNotFlushed(Protocol):
    def settle_barrier(self, state: State, store: Store) -> State:
        return self._durable(state, store, store.txid)


@mutation
class NoSuperblockLeadsToTheCheckpointThatWasFound(Protocol):
    def needs_superblock(self, store: Store, moved: bool) -> bool:
        return not moved and store.proven < store.txid


@mutation
class NoSuperblockSaysWhatTheWipedRecordSaid(Protocol):
    def needs_superblock(self, store: Store, moved: bool) -> bool:
        return moved


@mutation
class OpeningForgetsThatAnythingMustBeProven(Protocol):
    """It believes the records, and says so nowhere."""

    def needs_superblock(self, store: Store, moved: bool) -> bool:
        return False
