"""How the ledgers of transactions come together where one lies on top of another: once a
transaction, so apart from what each change to a tree has to do (`_ledger.pyx`)."""

from __future__ import annotations

from ._ledger import Ledger

_EVER = (1 << 64) - 1


def gather(ledger: Ledger, later: Ledger) -> None:
    """Add what a later transaction did, whose ledger lay on top of this one."""
    ledger.counts.update(later.counts)
    _take_freed(ledger, later)
    ledger.dropped.extend(later.dropped)


def settle(ledger: Ledger) -> None:
    """Take over what the ledger below holds: this transaction stores all of it. Once only: an
    interrupt ends the transaction."""
    below = ledger.below
    if below is not None:
        ledger.counts = {**below.counts, **ledger.counts}
        _take_freed(ledger, below)
        ledger.dropped = below.dropped + ledger.dropped
        ledger.below = None


def freed_bytes(ledger: Ledger, start: int = 0) -> bytes:
    """The runs freed, from the `start`th byte on: little-endian words `block << 16 | blocks`."""
    return ledger.freed_between(0, _EVER)[start:]


def _take_freed(ledger: Ledger, other: Ledger) -> None:
    ledger.freed += other.freed
    ledger.freed_blocks += other.freed_blocks
