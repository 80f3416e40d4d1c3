"""What is served: volumes by name, and the commits of what their clients write.

Clients write into memory (`cowfs.writeback`); this module decides when that is committed, in a
thread of its own: when somebody waits for a flush, when enough has come together, and else after
some seconds. All flushes that come in while a commit is under way are answered by the next one.
Everything here runs in the event loop, but for what is handed to threads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cowfs import Store
from cowfs.errors import BusyError
from cowfs.limits import KIB, MIB
from cowfs.writeback import BufferedVolume, WriteBack

_ENOUGH = 3 * MIB // 2
"""Bytes of writes that are worth a commit, which then needs no flush of its own."""
_FULL = 2 * MIB
"""Bytes of writes that no commit has taken yet, at which clients have to wait for one: bounds
memory, and keeps a commit below the size from which it needs a flush of its own
(`limits.ONE_FLUSH_LIMIT`), as of writes all over a volume it stores as many bytes of leaves."""
_LOOK = 64 * KIB
"""Bytes of writes after which it is worth adding up what waits for a commit, in all volumes."""
_INTERVAL_S = 5
"""Longest time for which something that was written is not durable."""
_READERS = 8
"""Requests that wait for the disk at a time."""

_T = TypeVar("_T")
log = logging.getLogger("cowfs.serve")


class Exports:
    """The volumes and snapshots that are served from one store."""

    def __init__(self, store: Store, names: Sequence[str]) -> None:
        self.store = store
        self.writeback = WriteBack(store)
        self.volumes: dict[str, BufferedVolume] = {
            name: self.writeback.open(name) for name in names
        }
        self.is_full = False
        """Whether writes have to wait: for `when_there_is_room`."""
        self._unseen = 0
        """Bytes of writes since what waits was added up."""
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="cowfs-commit")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="cowfs-serve")
        self._waiting: list[asyncio.Future[None]] = []
        """For the next commit to be durable."""
        self._is_late = False
        """Whether the next commit is to be durable though nobody waits."""
        self._held: list[Callable[[], None]] = []
        """What goes on when there is room again."""
        self._commits: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    # --- for connections ------------------------------------------------------------------------

    def when_there_is_room(self, resume: Callable[[], None]) -> None:
        """Have something called after the next commit, whether it went well or not."""
        self._held.append(resume)
        self._begin()

    def written(self, volume: BufferedVolume, length: int) -> None:
        """So many bytes were written: begin a commit if it is time for one."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_INTERVAL_S, self._on_time)
        self._unseen += length + volume.record_size  # a part of a record takes as much as a whole
        if self._unseen < _LOOK and not volume.crowded:
            return
        self._unseen = 0
        gathered = self.writeback.gathered
        self.is_full = gathered >= _FULL
        if gathered >= _ENOUGH or volume.crowded:
            self._begin()

    async def flush(self) -> None:
        """All that was written before is durable when this returns."""
        if self.writeback.due:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            self._begin()
            await waiting

    async def in_thread(self, work: Callable[[], _T]) -> _T:
        """What `work` gives, which may wait for the disk."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    async def committed(self) -> None:
        """All that was written before is in the newest version, if not durable, on return."""
        if self.writeback.pending:
            await asyncio.get_running_loop().run_in_executor(self._writer, self.settle)

    # --- for live control -----------------------------------------------------------------------

    def settle(self) -> None:
        """Bring all that was written before into the store's newest version. From any thread."""
        self.writeback.commit(durable=False)

    def check_unused(self, dataset: str) -> None:
        """BusyError where a dataset or snapshot is served, so that it cannot be replaced or go."""
        for name in self.volumes:
            if dataset in (name, name.partition("@")[0]):
                raise BusyError(f"{dataset}: {name} is being served; end that first")

    def grow(self, name: str, size: int) -> None:
        """Let a served volume become larger, for clients that come from now on: the protocol
        cannot tell those that are connected."""
        volume = self.volumes[name]
        if size < volume.size:
            raise BusyError(
                f"{name} is being served and has {volume.size} bytes; it can grow meanwhile, and "
                "shrink when that has ended"
            )
        self.writeback.resize(name, size)

    # --- the end --------------------------------------------------------------------------------

    async def close(self) -> None:
        """Commit everything, durably. Raises what went wrong; nothing is served any more."""
        if self._timer is not None:
            self._timer.cancel()
        try:
            if self._commits is not None:
                await self._commits
            if self.writeback.due and not self.store.readonly:
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._writer, self.writeback.commit)
        finally:
            self._writer.shutdown()
            self._readers.shutdown()

    # --- inside ---------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._commits is None:
            self._commits = asyncio.get_running_loop().create_task(self._commit())

    def _on_time(self) -> None:
        self._timer = None
        if self.writeback.due:
            self._is_late = True
            self._begin()

    async def _commit(self) -> None:
        """Commit until nobody waits and little is left."""
        loop = asyncio.get_running_loop()
        more = True
        while more:
            waiting, self._waiting = self._waiting, []
            durable, self._is_late = bool(waiting) or self._is_late, False
            error: Exception | None = None
            try:
                await loop.run_in_executor(self._writer, self._commit_now, durable)
            except Exception as found:  # no memory, too: those who wait are told
                log.error("%s: what was written is not stored: %s", self.store.path, found)
                error = found
            for future in waiting:
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)
            # Who waits where nothing can be stored is told so, rather than wait for ever.
            self.is_full = error is None and self.writeback.gathered >= _FULL
            held, self._held = self._held, []
            for resume in held:
                resume()
            more = bool(self._waiting or self._held or self._is_late)
            more = more or (error is None and self.writeback.gathered >= _ENOUGH)
        self._commits = None
        if self._timer is None and self.writeback.due:
            self._timer = loop.call_later(_INTERVAL_S, self._on_time)

    def _commit_now(self, durable: bool) -> None:
        self.writeback.commit(durable=durable)
