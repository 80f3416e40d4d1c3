"""Ctrl-C at any moment: the store can be closed while the exception is being handled, as `with
cowfs.open(...)` does, and space is held for no view that nobody has. A transaction in which it is
caught has all of the change or nothing of it, or refuses to commit."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import cowfs
from cowfs.device import MemoryDevice
from faultfuzzer.bytecodes import Point, Stepper
from faultfuzzer.explore import in_time

from ..devices import copy_device
from ..plain import assert_sound, noise, reopened


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


def interrupted(act: Act, *, opened: bool) -> Iterator[tuple[MemoryDevice, cowfs.Store, Stepper]]:
    """Stores, each with what interrupts `act` at another moment."""
    _, store = new_store(opened=opened)
    every = Stepper()
    with every.watching():
        act(store)
    points = [point for point in every.reached if point.error is KeyboardInterrupt]
    for point in points:
        yield *new_store(opened=opened), Stepper(point)


def new_store(*, opened: bool = False) -> tuple[MemoryDevice, cowfs.Store]:
    """A store with something in it; where it was `opened`, its map of space is not there yet."""
    device = MemoryDevice()
    store = cowfs.open_device(device, parameters=cowfs.Parameters(metadata_copies=2))
    store.create("a")[b"there"] = b"before"
    if opened:
        store.close()
        store = cowfs.open_device(device)
    return device, store


@pytest.mark.parametrize("opened", [False, True], ids=["made", "opened"])
@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
def test_a_store_can_be_closed_while_an_interrupt_is_being_handled(
    act: Act, *, opened: bool
) -> None:
    times = 0
    for device, store, stepper in interrupted(act, opened=opened):
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


@pytest.mark.parametrize("opened", [False, True], ids=["made", "opened"])
@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
def test_an_interrupt_leaves_no_version_pinned_and_nobody_waiting(
    act: Act, *, opened: bool
) -> None:
    for _, store, stepper in interrupted(act, opened=opened):
        with in_time():
            try:
                with stepper.watching():
                    act(store)
            except KeyboardInterrupt:
                pass
            assert store.readers() == [], str(stepper)
            if store.failure is None:  # as it is where a record was being written
                store["a"][b"afterwards"] = b"works"


# --- within a transaction that goes on ------------------------------------------------------------


def everything(store: cowfs.Store) -> dict[str, Any]:
    """What all datasets and snapshots hold."""
    found: dict[str, Any] = {}
    for entry in store.list():
        with store.at(entry.name) as view:
            if entry.kind == "kv":
                found[entry.name] = dict(view)
            elif entry.kind == "volume":
                found[entry.name] = view.pread(view.size, 0)
            else:
                found[entry.name] = [
                    (top, names, [(name, view.read_bytes(f"{top}/{name}")) for name in files])
                    for top, names, files in view.walk()
                ]
    return found


def full_of_all_kinds() -> MemoryDevice:
    """An image with datasets of all kinds, in nodes that are full and do not fit one block."""
    device = MemoryDevice()
    parameters = cowfs.Parameters(compression="none", node_size=4096)
    with cowfs.open_device(device, parameters=parameters) as store:
        with store.transaction() as tx:
            kv = tx.create("a")
            for number in range(150):
                kv[b"%04d" % number] = noise(50, number)
            kv[b"large"] = noise(9000)
            fs = tx.create("f", "fs")
            for directory in ("/d", "/e"):
                fs.mkdir(directory)
                for number in range(4):
                    fs.write_bytes(f"{directory}/{number}", noise(400 * (number % 3), number))
            fs.write_bytes("/large", noise(9000, 7))
            tx.create("v", "volume", size=1 << 16, record_size=4096).pwrite(noise(30_000), 0)
        store.snapshot("a@s", "f@s", "v@s")
        store["a"][b"0000"] = b"since"
    return device


def put_and_spill(tx: cowfs.Transaction) -> None:
    """Memory is full: what is dirty is stored before the next change."""
    tx.ledger.dirty_limit = 0
    tx["a"][b"0100"] = noise(60)


CHANGES: dict[str, Callable[[cowfs.Transaction], object]] = {
    "put": lambda tx: tx["a"].__setitem__(b"0100", noise(300)),
    "put and spill": put_and_spill,
    "put what is large": lambda tx: tx["a"].__setitem__(b"0100", noise(9000)),
    "delete": lambda tx: tx["a"].__delitem__(b"large"),
    "delete a range": lambda tx: tx["a"].delete_range(b"0020", b"0120"),
    "pop": lambda tx: tx["a"].pop(b"0100"),
    "update": lambda tx: tx["a"].update({b"0001": noise(200), b"0101": noise(200)}),
    "load": lambda tx: tx["a"].load_sorted((b"0001-%02d" % n, noise(400, n)) for n in range(20)),
    "write": lambda tx: tx["f"].write_bytes("/d/1", noise(9000)),
    "rename": lambda tx: tx["f"].rename("/d/1", "/e/2"),
    "link": lambda tx: tx["f"].link("/d/1", "/e/new"),
    "unlink": lambda tx: tx["f"].unlink("/large"),
    "make directories": lambda tx: tx["f"].makedirs("/x/y"),
    "remove a tree": lambda tx: tx["f"].remove_tree("/d"),
    "copy": lambda tx: tx["f"].copy("/d", "/z", recursive=True),
    "write to a volume": lambda tx: tx["v"].pwrite(noise(10_000, 2), 1000),
    "discard": lambda tx: tx["v"].discard(1000, 10_000),
    "resize": lambda tx: tx["v"].resize(10_000),
    "create": lambda tx: tx.create("b"),
    "rename a dataset": lambda tx: tx.rename("a", "b"),
    "rename a snapshot": lambda tx: tx.rename("a@s", "a@t"),
    "snapshot": lambda tx: tx.snapshot("a@t", "f@t"),
    "clone": lambda tx: tx.clone("a", "b"),
    "roll back": lambda tx: tx.rollback("a@s", "a@t"),
    "destroy": lambda tx: tx.destroy("a", recursive=True),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_an_error_ends_in_its_middle_is_not_committed(
    change: Callable[[cowfs.Transaction], object],
) -> None:
    image = full_of_all_kinds()

    def changed(stepper: Stepper, *, kept: bool = False) -> tuple[cowfs.Store, bool]:
        """The store, and whether it could be committed, also while the interrupt is `kept`, and
        with it what it went through."""
        store = cowfs.open_device(copy_device(image))
        tx = store.transaction()
        tx["a"][b"0149"] = b"of the same transaction"
        caught: BaseException | None = None
        try:
            with stepper.watching():
                change(tx)
        except (KeyboardInterrupt, MemoryError) as error:
            caught = error if kept else None
        try:
            tx.commit()
        except cowfs.ClosedError:
            return store, False
        finally:
            del caught
        return store, True

    before = everything(cowfs.open_device(copy_device(image)))
    every = Stepper()
    store, _ = changed(every)
    states = {"whole": everything(store)}
    states["not at all"] = before | {"a": before["a"] | {b"0149": b"of the same transaction"}}
    for point in every.reached:
        for kept in (False, True) if in_contextlib(point) else (False,):
            stepper = Stepper(point)
            store, committed = changed(stepper, kept=kept)
            if committed:
                assert everything(store) in states.values(), str(stepper)
                assert_sound(store)


def in_contextlib(point: Point) -> bool:
    """Whether it is where a generator that serves a `with` may be left as it is."""
    return point.code.co_filename == contextlib.__file__


def test_an_interrupt_that_is_kept_breaks_no_other_transaction() -> None:
    """The generators that it went through are ended when nobody refers to it any more."""
    change = CHANGES["write to a volume"]
    image = full_of_all_kinds()
    every = Stepper()
    with every.watching():
        change(cowfs.open_device(copy_device(image)).transaction())
    points = [point for point in every.reached if in_contextlib(point)]
    assert len(points) > 5
    for point in points:
        store = cowfs.open_device(copy_device(image))
        tx = store.transaction()
        caught: list[BaseException] = []
        try:
            with Stepper(point).watching():
                change(tx)
        except KeyboardInterrupt as error:
            caught.append(error)
        tx.abort()
        with store.transaction() as other:
            other["a"][b"0149"] = b"another"
            caught.clear()
        assert store["a"][b"0149"] == b"another"


@pytest.mark.parametrize("size", [10, 60, 200])
def test_a_put_that_is_interrupted_while_its_leaf_is_full_is_not_committed(size: int) -> None:
    """It asks whether the leaf compresses when the old value has gone from there already."""
    store = cowfs.open_device(MemoryDevice(), parameters=cowfs.Parameters())
    kv, chance = store.create("a"), random.Random(size)
    items = {b"%04d" % number: chance.randbytes(20) for number in range(2000)}
    kv.update(items)

    def interrupt(page: bytes) -> bytes:
        raise KeyboardInterrupt

    tx = store.transaction()
    tx.ledger.compress = interrupt
    with pytest.raises(KeyboardInterrupt):
        for key in items:
            tx["a"][key] = chance.randbytes(size + 20)
    assert tx.broken
    tx["a"][b"0000"] = b"does not mend it"
    with pytest.raises(cowfs.ClosedError, match="broke this transaction"):
        tx.commit()
    assert dict(kv) == items
    assert_sound(store)


def test_an_interrupt_while_nodes_are_stored_early_breaks_the_transaction() -> None:
    """A run that was left by half is free, and the writer goes on in it."""

    def spilled(stepper: Stepper) -> cowfs.Transaction:
        store = cowfs.open_device(MemoryDevice(), parameters=cowfs.Parameters())
        store.create("a")[b"k"] = b"value"  # the writer is in a run of the log
        tx = store.transaction()
        tx["a"].update((b"%d" % number, noise(100, number)) for number in range(100))
        with contextlib.suppress(KeyboardInterrupt, MemoryError), stepper.watching():
            tx.ledger.dirty_limit = 0
            tx["a"][b"k"] = b"other"
        return tx

    every = Stepper()
    assert not spilled(every).broken
    names = ("leave_log", "keep_for_log", "take_run", "give_back", "note_size")
    points = [point for point in every.reached if point.code.co_name in names]
    assert len(points) > 5
    for point in points:
        assert spilled(Stepper(point)).broken, str(point)


# --- while an interrupt is handled ----------------------------------------------------------------

Alone = Callable[..., object]
ALONE: dict[str, Alone] = {
    "read": lambda a, f, v: a.get(b"there"),
    "update": lambda a, f, v: a.update({b"k": b"value"}),
    "pop": lambda a, f, v: a.pop(b"there"),
    "write": lambda a, f, v: f.write_bytes("/file", b"value"),
    "look for": lambda a, f, v: f.exists("/file"),
    "write to a volume": lambda a, f, v: v.pwrite(b"value", 100),
}
"""Changes by their own, of a map, files and a volume."""

SAVES: list[tuple[str, Callable[[Any], object], Callable[[Any], bytes]]] = [
    ("a", lambda a: a.__setitem__(b"1", b"saved"), lambda a: bytes(a[b"1"])),
    ("a", lambda a: a.update({b"2": b"saved"}), lambda a: bytes(a[b"2"])),
    ("f", lambda f: f.write_bytes("/3", b"saved"), lambda f: bytes(f.read_bytes("/3"))),
    ("v", lambda v: v.pwrite(b"saved", 0), lambda v: bytes(v.pread(5, 0))),
]
"""What who handles an interrupt may want to keep: in which dataset, how, and the way back."""


@pytest.mark.parametrize("change", ALONE.values(), ids=ALONE)
def test_what_is_written_while_an_interrupt_is_handled_is_committed_or_refused(
    change: Alone,
) -> None:
    """The interrupt may have left a `with` block without its exit."""

    def new() -> tuple[MemoryDevice, cowfs.Store]:
        device = MemoryDevice()
        store = cowfs.open_device(device, parameters=cowfs.Parameters())
        store.create("a")[b"there"] = b"before"
        store.create("f", "fs")
        store.create("v", "volume", size=1 << 16)
        return device, store

    every = Stepper()
    _, store = new()
    with every.watching():
        change(a=store["a"], f=store["f"], v=store["v"])
    points = [point for point in every.reached if point.error is KeyboardInterrupt]
    assert len(points) > 5
    for point in points:
        device, store = new()
        # Not asked for anew below, as they know of what is under way.
        datasets = {name: store[name] for name in ("a", "f", "v")}
        saved = []
        stepper = Stepper(point)
        try:
            with stepper.watching():
                change(**datasets)
        except KeyboardInterrupt:
            for name, write, read in SAVES:
                with contextlib.suppress(cowfs.BusyError, cowfs.FailedError):
                    write(datasets[name])
                    saved.append((name, read))
                    assert read(datasets[name]) == b"saved", str(stepper)
        store.close()
        with reopened(device) as store:
            for name, read in saved:
                assert read(store[name]) == b"saved", str(stepper)
            assert_sound(store)


# --- closing --------------------------------------------------------------------------------------


class WatchedDevice(MemoryDevice):
    """Tells whether it is closed, and takes no more writes then."""

    closed = False

    def close(self) -> None:
        self.closed = True

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        super().write(offset, data)

    def discard(self, offset: int, length: int) -> None:
        assert not self.closed
        super().discard(offset, length)


def test_closing_that_was_interrupted_can_be_done_again() -> None:
    def opened() -> tuple[WatchedDevice, cowfs.Store]:
        device = WatchedDevice()
        store = cowfs.open_device(device, parameters=cowfs.Parameters())
        store.create("a")[b"there"] = b"before"
        return device, store

    every = Stepper()
    _, store = opened()
    with every.watching():
        store.close()
    for point in every.reached:
        device, store = opened()
        with contextlib.suppress(KeyboardInterrupt, MemoryError), Stepper(point).watching():
            store.close()
        with in_time():
            store.close()
        assert device.closed, str(point)
        with reopened(device) as store:
            assert store["a"][b"there"] == b"before"


def test_threads_that_close_at_once_wait_for_the_first() -> None:
    errors: list[BaseException] = []

    def close(store: cowfs.Store, device: WatchedDevice, barrier: threading.Barrier) -> None:
        barrier.wait()
        try:
            store.close()
            assert device.closed
        except BaseException as error:
            errors.append(error)

    for _ in range(20):
        device = WatchedDevice()
        store = cowfs.open_device(device, parameters=cowfs.Parameters())
        store.create("a").update((b"%d" % number, noise(900, number)) for number in range(50))
        arguments = store, device, threading.Barrier(3)
        threads = [threading.Thread(target=close, args=arguments) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert len(reopened(device)["a"]) == 50


def test_what_is_refused_does_not_break_its_transaction() -> None:
    store = cowfs.open_device(MemoryDevice(), parameters=cowfs.Parameters())
    store.create("a")
    store.create("b")
    store.snapshot("a@1")
    with store.transaction() as tx:
        tx["a"][b"key"] = b"value"
        refused: Callable[[], object]
        for refused in (
            lambda: tx.create("a"),
            lambda: tx.clone("a", "b"),
            lambda: tx.clone("a", "no@name"),
            lambda: tx.rename("a", "b"),
            lambda: tx.snapshot("b@1", "a@1"),
            lambda: tx.rollback("a@1", keep="1"),
            lambda: tx.rollback("a@2"),
            lambda: tx.destroy("a"),
        ):
            with pytest.raises(cowfs.Error):
                refused()
            assert not tx.broken
    assert store["a"][b"key"] == b"value" and store.check().ok
