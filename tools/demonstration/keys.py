"""The second act: a map of a million keys goes in, is changed, and comes out as it was."""

from __future__ import annotations

import random
from collections.abc import Iterator

import cowfs
from cowfs.kv import KV

from .steps import Step, Steps

KEYS = 1_000_000
KEY_SIZE = 16


def demonstrate(store: cowfs.Store, steps: Steps) -> None:
    """All steps on keys and values."""
    noise = random.Random(2026).randbytes(KEYS * KEY_SIZE)
    keys = sorted({noise[i : i + KEY_SIZE] for i in range(0, len(noise), KEY_SIZE)})
    steps.heading(f"Keys and values: {len(keys):,} keys of {KEY_SIZE} bytes, values of 100")

    store.create("accounts")
    with steps("load them sorted, in one transaction") as step, store.transaction() as tx:
        loaded = tx["accounts"].load_sorted(pairs(keys))
        step.need(loaded == len(keys), f"{loaded:,} loaded")
    with steps("snapshot accounts@original"):
        store.snapshot("accounts@original")

    with steps("change it, in one transaction") as step, store.transaction() as tx:
        expected = change(tx["accounts"], keys, step)
    with steps("diff by key, accounts@original and now") as step:
        step.result = compare_diff(store, expected, step)

    with steps("roll back to accounts@original"):
        store.rollback("accounts@original")
    with steps("compare with what went in: every key and value") as step:
        compare_items(store, keys, step)


def value(key: bytes, balance: int = 0) -> bytes:
    """The 100 bytes that belong to a key."""
    return b'{"id": "%s", "balance": %10d, "currency": "EUR", "open": true}'.ljust(100) % (
        key.hex().encode(),
        balance,
    )


def pairs(keys: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """What goes in."""
    return ((key, value(key)) for key in keys)


def change(accounts: KV, keys: list[bytes], step: Step) -> list[tuple[str, bytes]]:
    """Modify, add and remove keys, one by one and a whole range; what a diff has to say."""
    begin, end = len(keys) // 2, len(keys) // 2 + 5000
    accounts.delete_range(keys[begin], keys[end])
    expected = dict.fromkeys(keys[begin:end], "-")
    for key in keys[::100]:
        if key not in expected:
            accounts[key] = value(key, balance=100)
            expected[key] = "M"
    for key in keys[50::500]:
        if key not in expected:
            del accounts[key]
            expected[key] = "-"
    for key in keys[::200]:
        new = key + b"/new"
        accounts[new] = value(key)
        expected[new] = "+"
    step.result = f"{len(expected):,} keys"
    return [(op, key) for key, op in sorted(expected.items())]


def compare_diff(store: cowfs.Store, expected: list[tuple[str, bytes]], step: Step) -> str:
    """What the diff says must be what was done; how much of each kind that is."""
    found = [(item.op, item.path) for item in store.diff("accounts@original", "accounts")]
    for one, other in zip(found, expected, strict=False):
        step.need(one == other, f"found {one}, where {other} was done")
    step.need(len(found) == len(expected), f"{len(found):,} changes, {len(expected):,} were made")
    ops = [op for op, _ in found]
    return "   ".join(f"{op} {ops.count(op):,}" for op in "+-M")


def compare_items(store: cowfs.Store, keys: list[bytes], step: Step) -> None:
    """Everything in the map must be what went in."""
    with store.at("accounts") as view:
        step.need(len(view) == len(keys), f"{len(view):,} keys, {len(keys):,} went in")
        for found, expected in zip(view.items(), pairs(keys), strict=True):
            step.need(found == expected, f"found {found}, where {expected} went in")
    step.result = f"{len(keys):,} the same"
