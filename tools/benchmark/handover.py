"""The limit of group commit in Python: threads that only hand over bytes and sleep until one of
them has written and flushed what all had handed over. No store, no tree, no proof.

What is left is what waking a thread costs: the kernel, another processor, and the interpreter,
which runs one thread at a time.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmark.engines.base import Pair
from benchmark.engines.raw import RawEngine
from benchmark.measure import elapsed


class Handover:
    """A queue of pairs. The first one's thread writes those of all."""

    def __init__(self, directory: Path) -> None:
        self._raw = RawEngine(directory)
        self._queue: list[tuple[Pair, threading.Lock]] = []

    def put(self, pair: Pair) -> None:
        woken = threading.Lock()
        woken.acquire()
        handed = pair, woken
        self._queue.append(handed)
        if self._queue[0] is not handed:
            woken.acquire()
            if not self._queue or self._queue[0] is not handed:
                return  # it is written
        written = len(self._queue)
        self._raw.put_many([pair for pair, _ in self._queue[:written]])
        others = self._queue[1:written]
        del self._queue[:written]
        for _, other in (*self._queue[:1], *others):
            other.release()

    def put_all(self, pairs: Sequence[Pair]) -> None:
        for pair in pairs:
            self.put(pair)

    def seconds(self, shares: Sequence[Sequence[Pair]]) -> float:
        """How long threads take, one for each share."""
        with ThreadPoolExecutor(len(shares)) as pool:
            return elapsed(lambda: list(pool.map(self.put_all, shares)))

    def close(self) -> None:
        self._raw.close()
