"""Visits every state of a protocol, breadth first: what is wrong is found by a shortest way.

The properties are checked where they can break: that no block of a visible, acknowledged or read
version is written, at each write; that an opening finds, whole, what was acknowledged or more of
what was written after it, at each opening.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from .protocol import Protocol
from .state import State, Wrong


@dataclass(frozen=True)
class Result:
    """What came of it."""

    states: int
    transitions: int
    wrong: str = ""
    trace: tuple[str, ...] = ()
    """The steps that lead to what is wrong."""


def explore(protocol: Protocol, tell: Callable[[int], None] = lambda states: None) -> Result:
    """All states, or those up to the first in which something is wrong."""
    start = protocol.start()
    came_from: dict[State, tuple[State, str] | None] = {start: None}
    todo = deque([start])
    transitions = 0
    while todo:
        state = todo.popleft()
        if not len(came_from) % 1000:
            tell(len(came_from))
        try:
            for label, following in protocol.steps(state):
                transitions += 1
                if following not in came_from:
                    came_from[following] = (state, label)
                    todo.append(following)
        except Wrong as error:
            return Result(len(came_from), transitions, str(error), _trace(came_from, state))
    return Result(len(came_from), transitions)


def _trace(came_from: dict[State, tuple[State, str] | None], state: State) -> tuple[str, ...]:
    labels = []
    step = came_from[state]
    while step is not None:
        state, label = step
        labels.append(label)
        step = came_from[state]
    return tuple(reversed(labels))
