"""Ctrl-C at any moment: the store can be closed while the exception is being handled, as `with
cowfs.open(...)` does, and space is held for no view that nobody has."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import cowfs
from cowfs.device import MemoryDevice
from faultfuzzer.bytecodes import Stepper
from faultfuzzer.explore import in_time

from ..plain import assert_sound, reopened


def commit(store: cowfs.Store) -> None:
    """A transaction."""
    with store.transaction() as tx:
        tx["a"][b"k"] = b"value"


def abandon(store: cowfs.Store) -> None:
    """A transaction that is given up."""
    tx = store.transaction()
    tx["a"][b"k"] = b"value"
    tx.abort()


def change(store: cowfs.Store) -> None:
    """A change that is a transaction of its own."""
    store["a"][b"k"] = b"value"


def look(store: cowfs.Store) -> None:
    """A view, a read, and what pins a version for a moment."""
    with store.at("a") as view:
        assert view[b"there"] == store["a"][b"there"] == b"before"
    store.list()


def scrub(store: cowfs.Store) -> None:
    """Every checksum, of a log with two copies as well."""
    assert store.scrub().ok


def check(store: cowfs.Store) -> None:
    """Everything, while no transaction runs."""
    assert store.check().ok


Act = Callable[[cowfs.Store], None]
ACTS = [commit, abandon, change, look, scrub, check]


def interrupted(act: Act) -> Iterator[tuple[MemoryDevice, cowfs.Store, Stepper]]:
    """Stores, each with what interrupts `act` at another moment."""
    _, store = new_store()
    every = Stepper()
    with every.watching():
        act(store)
    points = [point for point in every.reached if point.error is KeyboardInterrupt]
    for point in points:
        yield *new_store(), Stepper(point)


def new_store() -> tuple[MemoryDevice, cowfs.Store]:
    """A store with something in it."""
    device = MemoryDevice()
    store = cowfs.open_device(device, parameters=cowfs.Parameters(metadata_copies=2))
    store.create("a")[b"there"] = b"before"
    return device, store


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
def test_a_store_can_be_closed_while_an_interrupt_is_being_handled(act: Act) -> None:
    times = 0
    for device, store, stepper in interrupted(act):
        with in_time():
            try:
                with stepper.watching():
                    act(store)
            except KeyboardInterrupt:
                store.close()
        times += stepper.injected  # never where nobody refers to an object any more
        with reopened(device) as store:
            assert store["a"][b"there"] == b"before"
            assert_sound(store)
    assert times > 20


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
def test_an_interrupt_leaves_no_version_pinned_and_nobody_waiting(act: Act) -> None:
    for _, store, stepper in interrupted(act):
        with in_time():
            try:
                with stepper.watching():
                    act(store)
            except KeyboardInterrupt:
                pass
            assert store.readers() == [], str(stepper)
            if store.failure is None:  # as it is where a record was being written
                store["a"][b"afterwards"] = b"works"
