"""What must be true of a store: it holds, whole, a state that it may hold, and `check` finds every
structure, count and checksum right.
"""

from __future__ import annotations

from collections.abc import Sequence

import cowfs

from .model import Items, PlainStore, contents, difference


class Wrong(AssertionError):
    """The store is not what it should be."""


def verify(store: cowfs.Store, allowed: Sequence[PlainStore]) -> PlainStore:
    """The newest of the states that the store holds; Wrong where it is none of `allowed`."""
    found = contents(store)
    for state in reversed(allowed):
        if holds(found, state):
            break
    else:
        hints = [difference(found, state.everything()) for state in allowed]
        raise Wrong("a state that never was, or was replaced for good: " + "; or ".join(hints))
    report = store.check()
    if not report.ok:
        raise Wrong("check: " + "; ".join(map(str, report.faults[:5])))
    return state


def holds(found: dict[str, Items], state: PlainStore) -> bool:
    """Whether contents are those of a state."""
    heads, snapshots = state.heads, state.snapshots
    return len(found) == len(heads) + len(snapshots) and all(
        items == (heads.get(name) if name in heads else snapshots.get(name))
        for name, items in found.items()
    )
