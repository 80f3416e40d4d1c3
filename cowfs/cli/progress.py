"""A progress bar for long work, on a terminal; nothing elsewhere, nor with --quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .command import Settings

Progress = Callable[[int, int], None]
"""Takes the bytes done and the bytes to do."""

INTERVAL_S = 0.05
"""Shortest time between two changes of the bar."""

LABEL = 30
"""Most characters of a label; its end matters more than its beginning."""


@contextmanager
def progress_bar(settings: Settings) -> Iterator[Callable[[str], Progress | None]]:
    """Yields what begins a piece of work under a label, and gives the function that is to be
    called with its state; None where nobody would see it."""
    if settings.quiet or not sys.stderr.isatty():
        yield lambda label: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bar

    with Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("", total=None)
        shown = 0.0

        def show(done: int, total: int) -> None:
            nonlocal shown
            now = time.monotonic()
            if now - shown >= INTERVAL_S:
                shown = now
                bar.update(task, completed=done, total=total)

        def begin(label: str) -> Progress:
            text = label if len(label) <= LABEL else f"…{label[1 - LABEL :]}"
            bar.reset(task, description=escape(text), total=None)
            return show

        yield begin
