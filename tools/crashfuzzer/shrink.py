"""Makes a failing case short: as few steps, changes and losses as still fail.

What is left out shifts all that comes later, so that the power cut of the case need not hurt any
more where another one does: each shorter workload is explored anew, from its end on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from .case import Case, Crash
from .explore import Failure, explore_steps
from .losses import Losses
from .steps import Abandon, Commit, Cut

_STATES = 200
"""Crash states of a shorter workload that are looked at before it is taken to be sound."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Some parts of a case, of which each may be left out: how to get them, and to put fewer."""

    get: Callable[[Case], tuple[Any, ...]]
    put: Callable[[Case, tuple[Any, ...]], Case]


def shrink(case: Case, tell: Callable[[int], None] = lambda steps: None) -> Case:
    """A case that fails, too, and is no longer than this one; `tell` hears its steps so far."""
    shrinker = _Shrinker(case, tell)
    shrinker.drop_what_follows()
    for name in ("steps", "further"):
        shrinker.leave_out(_field(name))
        for at in range(len(_field(name).get(shrinker.case))):
            shrinker.leave_out(_changes(name, at))
    for name in ("crash", "second"):
        shrinker.leave_out(_losses(name))
        for at in range(len(_losses(name).get(shrinker.case))):
            shrinker.leave_out(_sectors(name, at))
    return shrinker.case


class _Shrinker:
    """The shortest failing case so far."""

    def __init__(self, case: Case, tell: Callable[[int], None]) -> None:
        self.case = case
        self.tell = tell

    def drop_what_follows(self) -> None:
        """Leave out the second power cut, the steps before it, and those after the first."""
        if not self._fails(replace(self.case, further=(), second=None)):
            self._fails(replace(self.case, second=None))
        while self.case.steps and self._fails(replace(self.case, steps=self.case.steps[:-1])):
            pass

    def leave_out(self, part: _Part) -> None:
        """As many as can be: all first, then ever smaller pieces."""
        length = len(part.get(self.case))
        while length:
            at = 0
            while at < len(parts := part.get(self.case)):
                shorter = part.put(self.case, (*parts[:at], *parts[at + length :]))
                if not self._fails(shorter) and not self._fails_elsewhere(shorter):
                    at += length
            length //= 2

    def _fails(self, case: Case) -> bool:
        """Whether a case fails; it is the shortest so far then."""
        self.tell(len(self.case.steps))
        try:
            case.replay()
        except Exception:
            self.case = case
            return True
        return False

    def _fails_elsewhere(self, case: Case) -> bool:
        """Whether another power cut in the workload of a case does it."""
        if case.steps == self.case.steps:
            return False
        try:
            explore_steps(case.world, case.steps, _STATES)
        except Failure as failure:
            self.case = failure.case
            self.drop_what_follows()
            return True
        return False


def _with(case: Case, name: str, value: object) -> Case:
    """The case with another value of a field."""
    fields: dict[str, Any] = {name: value}
    return replace(case, **fields)


def _field(name: str) -> _Part:
    return _Part(
        lambda case: getattr(case, name),
        lambda case, steps: _with(case, name, steps),
    )


def _changes(name: str, at: int) -> _Part:
    """Of step number `at`."""

    def get(case: Case) -> tuple[Any, ...]:
        steps = getattr(case, name)[at : at + 1]
        return steps[0].changes if steps and isinstance(steps[0], Commit | Abandon | Cut) else ()

    def put(case: Case, changes: tuple[Any, ...]) -> Case:
        steps = list(getattr(case, name))
        steps[at] = replace(steps[at], changes=changes)
        return _with(case, name, tuple(steps))

    return _Part(get, put)


def _losses(name: str) -> _Part:
    def get(case: Case) -> Losses:
        crash: Crash | None = getattr(case, name)
        return crash.losses if crash else ()

    def put(case: Case, losses: Losses) -> Case:
        return _with(case, name, replace(getattr(case, name), losses=losses))

    return _Part(get, put)


def _sectors(name: str, at: int) -> _Part:
    """Of loss number `at`."""
    losses = _losses(name)

    def get(case: Case) -> tuple[int, ...]:
        return tuple(losses.get(case)[at].sectors or ())

    def put(case: Case, sectors: tuple[int, ...]) -> Case:
        changed = list(losses.get(case))
        changed[at] = replace(changed[at], sectors=sectors)
        return losses.put(case, tuple(changed))

    return _Part(get, put)
