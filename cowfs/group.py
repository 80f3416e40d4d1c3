"""Group commit: changes that threads make at the same time become one transaction.

A change that is a transaction of its own, as `kv[key] = value` is, takes a few microseconds, and a
transaction around it ten times as many, in which no other thread of Python runs. To share the flush
is not enough then. So a change is handed over: who is first in the queue leads, and makes all that
it finds there in one transaction. The others sleep until that is durable.

Each change is made once, and acknowledged when it is durable, whoever is interrupted, and where.
Who wakes up looks at what became of the transaction. If its leader did not get to the flush, each
sees to that itself. If it was given up, as one of the changes could not be made, or its leader was
interrupted, each makes its change alone; so nobody gets the error of another one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .errors import BusyError

if TYPE_CHECKING:
    from .engine import Engine
    from .transaction import Transaction


class _Change:
    """What a thread hands over."""

    __slots__ = ("act", "arguments", "name", "result", "thread", "tx", "waits", "woken")

    def __init__(self, name: str, act: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.name = name
        self.act = act
        self.arguments = arguments
        self.thread = threading.get_ident()
        self.result: Any = None
        self.tx: Transaction | None = None
        """The transaction in which it was made."""
        self.waits = True
        """Until a leader is done with it, or its thread has gone."""
        self.woken = threading.Lock()
        """Held until its thread is to go on: a lock for each, as the cheapest way to wake one."""
        self.woken.acquire()

    def wake(self) -> None:
        """Let its thread go on. A second time does nothing, once it leads or has gone."""
        if self.woken.locked():
            self.woken.release()


class Group:
    """The queue of changes. The first one's thread leads until it leaves the queue."""

    def __init__(self) -> None:
        self._queue: list[_Change] = []
        self._leaving = threading.Lock()
        self._leaver = 0
        """The thread that holds it."""

    def make(
        self, store: Engine, name: str, act: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> Any:
        """Call `act` with the tree of a dataset and the arguments, in this thread or another, and
        commit, durably; its result. Where that fails it is called again, in another transaction.

        The store is given each time: one that nobody refers to any more lets go of its image at
        once, and not when the garbage collector comes by.
        """
        change = _Change(name, act, arguments)
        inside = [other.thread for other in list(self._queue) if other.waits]
        if change.thread in (self._leaver, *inside):
            raise BusyError(  # it would wait for itself
                "this thread is in the midst of another change: a signal handler, or a finalizer, "
                "came between; leave changes to the program that it interrupts"
            )
        led: list[_Change] = []
        try:
            self._queue.append(change)
            if self._queue[0] is not change:
                store.check_idle()
                change.woken.acquire()
            if change.waits:
                self._lead(store, led)
        except Exception:
            if len(led) <= 1:
                raise
            # Perhaps another's error. If it is this one's, it comes again below.
        finally:
            try:
                self._leave(change, led)
            except BaseException:
                self._leave(change, led)  # an interrupt; doing it twice does no harm
                raise
        committed = change.tx.committed if change.tx is not None else None
        if committed is None:
            change.tx = None  # what an interrupt left open ends when nobody refers to it any more
            with store.transaction() as tx:
                return act(tx.tree(name), *arguments)
        store.durability.make_durable(committed)
        return change.result

    def _lead(self, store: Engine, led: list[_Change]) -> None:
        """Make all changes of the queue, those too that come meanwhile, and commit; `led` is who
        has to be told."""
        with store.transaction() as tx:
            while len(led) < len(self._queue):  # nobody but its leader shortens the queue
                change = self._queue[len(led)]
                led.append(change)
                if change.waits:
                    change.result = change.act(tx.tree(change.name), *change.arguments)
                    change.tx = tx

    def _leave(self, change: _Change, led: list[_Change]) -> None:
        """Let the next one lead, and those that this one led go on."""
        if change.tx is not None and not led:
            return  # another thread led, and has done this
        with self._leaving:
            self._leaver = change.thread
            change.waits = False
            for each in led:
                each.waits = False
            while self._queue and not self._queue[0].waits:
                del self._queue[0]
            if self._queue:
                self._queue[0].wake()
            for each in led:
                each.wake()
            self._leaver = 0
