"""A line for each step of the demonstration: what, how long, how much space."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import cowfs
from cowfs.sizes import show_size

WIDTH = 84


class Difference(Exception):
    """Something did not come out as it went in."""


class Step:
    """One step while it runs."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.result = ""
        """What came of it, for its line."""

    def need(self, condition: bool, complaint: str) -> None:
        """Raise Difference where the condition does not hold."""
        if not condition:
            raise Difference(f"{self.title}: {complaint}")


class Steps:
    """Runs steps on a store. Space is what its datasets and snapshots take in the image."""

    def __init__(self, store: cowfs.Store) -> None:
        self._store = store
        self._used = self._space()

    def _space(self) -> int:
        space = self._store.space()
        return space.live + space.pinned

    def heading(self, text: str) -> None:
        """Announce what comes next."""
        print(f"\n{text}\n{'':{WIDTH}} {'time':>8} {'space':>8}", flush=True)

    @contextmanager
    def __call__(self, title: str) -> Iterator[Step]:
        step = Step(title)
        begin = time.perf_counter()
        yield step
        taken = time.perf_counter() - begin
        used, self._used = self._used, self._space()
        line = f"  {title}: {step.result}" if step.result else f"  {title}"
        print(
            f"{line:{WIDTH}} {_show_time(taken):>8} {_show_change(self._used - used):>8}",
            flush=True,
        )


def _show_time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds * 1000:.1f} ms"


def _show_change(size: int) -> str:
    return f"+{show_size(size)}" if size > 0 else show_size(size) if size else "0"
