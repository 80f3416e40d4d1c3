"""The thread that completes checkpoints, beside the program: which of the two goes on is drawn at
each operation on the device, so that a seed gives the same order every time.

Both are greenlets of one thread of the host. `Thread` and `Lock` stand for those of `threading` in
`cowfs.durability`, whose thread does nothing that others can see but by way of device and lock.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

from greenlet import getcurrent, greenlet


class Turns:
    """Who goes on: the program, or a thread of its store. Each calls `take` where it may stop."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._threads: list[greenlet] = []

    def add(self, thread: greenlet) -> None:
        """A thread begins; it waits for its first turn."""
        self._threads = [other for other in self._threads if not other.dead]
        self._threads.append(thread)

    def take(self) -> None:
        """Let the others go on a little, or not."""
        if in_thread():
            _program().switch()
            return
        for thread in self._threads:
            while not thread.dead and self._chance.random() < 0.3:
                thread.switch()

    def end(self) -> None:
        """The process ends, and its threads with it."""
        for thread in self._threads:
            if not thread.dead:
                thread.parent = getcurrent()
                thread.throw()
        self._threads.clear()


def in_thread() -> bool:
    """Whether it is a thread that goes on, not the program."""
    return getcurrent().parent is not None


def _program() -> greenlet:
    found = getcurrent()
    while found.parent is not None:
        found = found.parent
    return found


class Thread:
    """`threading.Thread`, for a method of what has the device as `device`."""

    def __init__(self, *, target: Any, args: tuple[object, ...], name: str, daemon: bool) -> None:
        self._turns: Turns = target.__self__.device.turns
        self._greenlet = greenlet(lambda: _run(target, args))

    def start(self) -> None:
        self._turns.add(self._greenlet)

    def is_alive(self) -> bool:
        return not self._greenlet.dead

    def join(self) -> None:
        while self.is_alive():
            self._greenlet.switch()


def _run(target: Callable[..., object], args: tuple[object, ...]) -> None:
    with suppress(MemoryError):  # which the host's threads print, and end
        target(*args)


class Lock:
    """`threading.Lock`: who finds it held lets its holder go on."""

    def __init__(self) -> None:
        self._holder: greenlet | None = None

    def __enter__(self) -> None:
        while self._holder is not None:
            self._holder.switch()
        self._holder = getcurrent()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._holder = None
