"""What of a store is durable: its flushes, and the checkpoint that is on its way.

Any thread that waits for a commit flushes for all that wait (`make_durable`). A failed flush is
final: nobody can tell what it left on the device, so the store takes no more writes.

A checkpoint needs two flushes more than a commit, for its superblock and for using the older log
again. It waits for those of the commits that follow; if these are not durable, a thread makes them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from .device import Device
from .errors import FailedError
from .format import Superblock
from .log import Log, write_superblock
from .version import Versions

_log = logging.getLogger("cowfs")


@dataclass(slots=True)
class Checkpoint:
    """A checkpoint whose record is written, on its way to being where openers begin.

    Once a flush has made the record durable, its superblock is written, and once a later flush has
    made that durable, the older log is free. Until then openers come from the older superblock.
    """

    superblock: Superblock
    record: bytes
    """To which it leads."""
    older_log: list[tuple[int, int]]
    """(block, blocks) of the log before it."""
    written: bool = False
    """Whether the superblock is written."""
    durable: bool = False
    """Whether it is durable."""


class Durability:
    """Flushes for one store, and what they prove. Owns the superblock."""

    def __init__(self, device: Device, log: Log, versions: Versions) -> None:
        self.device = device
        self.log = log
        self.versions = versions
        self.txid = log.txid
        """The newest version that is durable."""
        self.failure: BaseException | None = None
        """Why the store takes no more writes."""
        self.flushing = threading.Lock()
        """Held while the device is flushed, and by who must not have that happen meanwhile."""
        self.checkpoint: Checkpoint | None = None
        """Set by who commits when the record is written, and taken back once it is durable."""
        self._completing: threading.Thread | None = None

    # --- flushes --------------------------------------------------------------------------------

    def make_durable(self, txid: int) -> None:
        """Return when version `txid` is durable. One flush is for all who wait."""
        if self.txid >= txid:
            return
        with self.flushing:
            if self.txid >= txid:
                return
            newest = self.versions.newest
            self._flush("whether this transaction was kept will be seen then")
            self.txid = newest.txid
            self.log.proven_txid = max(self.log.proven_txid, newest.flushed_txid)
            checkpoint = self.checkpoint
            if checkpoint is not None and checkpoint.written:
                self._lead_to(checkpoint)
            elif checkpoint is not None and checkpoint.superblock.txid <= newest.txid:
                self._write_superblock(checkpoint)

    def flush(self, consequence: str) -> None:
        """Flush the device; `consequence` ends what is said if it fails."""
        # Not while that of another thread fails, whose loss this one would miss.
        with self.flushing:
            self._flush(consequence)

    def _flush(self, consequence: str) -> None:
        if self.failure is not None:  # what was lost then, this one would not bring back
            raise FailedError(
                f"{self._failed_earlier()}; the store takes no more writes: "
                f"open it anew; {consequence}"
            )
        try:
            self.device.flush()
        except OSError as error:
            self.failure = error
            raise FailedError(
                f"{self.device.name}: a flush failed ({error}); the store takes no more writes: "
                f"open it anew; {consequence}"
            ) from error

    def check_sound(self) -> None:
        """FailedError where an earlier write or flush failed."""
        if self.failure is not None:
            raise FailedError(
                f"{self._failed_earlier()}; what was committed before is safe, but the store "
                "takes no more writes: open it anew"
            )

    def _failed_earlier(self) -> str:
        reason = str(self.failure) or type(self.failure).__name__
        return f"{self.device.name}: an earlier write or flush failed ({reason})"

    # --- a checkpoint ---------------------------------------------------------------------------

    def prepare_checkpoint(self) -> bool:
        """See to it that another checkpoint can begin without a wait for the one before, by a
        thread; whether it already can. To be called by who has the right to write."""
        checkpoint = self.checkpoint
        if checkpoint is None or checkpoint.durable or not self.device.waits:
            return True
        if self._completing is None or not self._completing.is_alive():
            thread = threading.Thread(
                target=self._complete, args=(checkpoint,), name="cowfs-checkpoint", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # the host has no more of them
                return True
            self._completing = thread  # one that runs: `join` can wait for no other
        return False

    def finish_checkpoint(self) -> None:
        """Have openers begin at the newest checkpoint, with flushes of its own. To be called by who
        has the right to write."""
        self.join()
        if self.checkpoint is not None:
            self.make_durable(self.checkpoint.superblock.txid)
            self._complete(self.checkpoint)

    def declare_durable(self) -> None:
        """Have a superblock say that all commits are durable, which else the next one would. They
        are, and no checkpoint is on its way, whose superblock would have the same number."""
        self.check_sound()
        log = self.log
        assert self.txid == log.txid and self.checkpoint is None
        with self.flushing:
            superblock = replace(
                log.superblock, sequence=log.superblock.sequence + 1, durable_txid=log.txid
            )
            write_superblock(self.device, superblock, log.checkpoint)
            self._flush("nothing of this transaction was kept")
            log.superblock, log.proven_txid = superblock, log.txid

    def _write_superblock(self, checkpoint: Checkpoint) -> None:
        """Lead openers to a checkpoint whose record is durable. Nothing that was acknowledged needs
        it: should it fail, the log leads there from the checkpoint before."""
        try:
            write_superblock(self.device, checkpoint.superblock, checkpoint.record)
            checkpoint.written = True
        except Exception as error:
            self._superblock_failed(error)

    def _lead_to(self, checkpoint: Checkpoint) -> None:
        """A flush has made the superblock durable."""
        self.log.superblock, self.log.checkpoint = checkpoint.superblock, checkpoint.record
        self.log.proven_txid = max(self.log.proven_txid, checkpoint.superblock.txid)
        checkpoint.durable = True

    def _superblock_failed(self, error: Exception) -> None:
        self.failure = error
        _log.error("%s: writing the superblock failed: %s", self.device.name, error)

    def _complete(self, checkpoint: Checkpoint) -> None:
        with suppress(FailedError):  # it is kept, and whoever commits next is told
            self.make_durable(checkpoint.superblock.txid)
        with self.flushing:
            if self.failure is not None:
                return
            if not checkpoint.written:  # an interrupt
                self._write_superblock(checkpoint)
            if checkpoint.written and not checkpoint.durable:
                try:
                    self.device.flush()
                    self._lead_to(checkpoint)
                except Exception as error:
                    self._superblock_failed(error)

    def join(self) -> None:
        """Wait for the thread that completes a checkpoint, if there is one."""
        if self._completing is not None:
            self._completing.join()

    def log_blocks(self) -> Iterator[tuple[int, int]]:
        """(block, blocks) of all that openers may have to follow."""
        yield from self.log.blocks
        if self.checkpoint is not None:
            yield from self.checkpoint.older_log
