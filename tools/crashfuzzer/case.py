"""One failure as data: under which conditions, after which steps, with which losses. It can be run
again, and printed as a test.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from .losses import Epoch, Losses
from .run import Run
from .steps import Step
from .world import World

_WIDTH = 100
"""Columns of a line of source."""


@dataclass(frozen=True, slots=True)
class Crash:
    """A power cut in epoch number `epoch` of a run, or in the last one where there are fewer."""

    epoch: int
    losses: Losses = ()


@dataclass(frozen=True, slots=True)
class Case:
    """Steps, and a power cut; what was left goes through `further` steps, and a `second` cut."""

    world: World
    steps: tuple[Step, ...]
    crash: Crash | None = None
    further: tuple[Step, ...] = ()
    second: Crash | None = None
    late: bool = False
    """Instead of what follows, the blocks that were lost are there after all once it was opened."""

    def replay(self) -> None:
        """Run it; an exception says what is wrong, and none that all is well."""
        with self.world.entered():
            run = Run(self.world)
            run.take(self.steps)
            if self.crash is None:
                return
            epoch = self._epoch(run, self.crash)
            run = self._open(run, self.crash)
            if self.late:
                Run(self.world, run.with_late(epoch, self.crash.losses), (run.model,))
                return
            run.take(self.further)
            if self.second is not None:
                self._open(run, self.second)

    def _epoch(self, run: Run, crash: Crash) -> Epoch:
        epochs = list(run.epochs())
        return epochs[min(crash.epoch, len(epochs) - 1)]

    def _open(self, run: Run, crash: Crash) -> Run:
        epoch = self._epoch(run, crash)
        return Run(self.world, epoch.image(crash.losses), run.allowed(epoch))

    def source(self, name: str, message: str) -> str:
        """A test that replays it, ready to be put into a file."""
        names: dict[str, set[str]] = {}
        for cls in _classes(self):
            names.setdefault(cls.__module__, set()).add(cls.__name__)
        return "\n".join(
            [
                *(f"from {module} import {', '.join(sorted(names[module]))}" for module in names),
                "",
                "",
                f"def test_{name}() -> None:",
                *(f"    # {line}" for line in textwrap.wrap(message, _WIDTH - 6)),
                f"    {_source(self, 4)}.replay()",
                "",
            ]
        )


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """(prefix, value) of what a dataclass or tuple consists of; defaults are left out."""
    if isinstance(value, tuple):
        for part in value:
            yield "", part
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            part = getattr(value, field.name)
            if part != field.default:
                yield f"{field.name}=", part


def _classes(value: object) -> Iterator[type]:
    """The classes whose names its source uses."""
    if dataclasses.is_dataclass(value) or isinstance(value, Enum):
        yield type(value)
    for _, part in _parts(value):
        yield from _classes(part)


def _source(value: object, indent: int) -> str:
    """Python that gives the value, in one line where it fits."""
    if not isinstance(value, tuple) and not dataclasses.is_dataclass(value):
        return repr(value)
    name = "" if isinstance(value, tuple) else type(value).__name__
    parts = [prefix + _source(part, indent + 4) for prefix, part in _parts(value)]
    only = "," if isinstance(value, tuple) and len(parts) == 1 else ""
    flat = f"{name}({', '.join(parts)}{only})"
    if "\n" not in flat and indent + len(flat) <= _WIDTH - 20:
        return flat
    lines = "".join(f"{' ' * (indent + 4)}{part},\n" for part in parts)
    return f"{name}(\n{lines}{' ' * indent})"
