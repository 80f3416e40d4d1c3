"""A crash between any two operations on the device, and any loss of what was not flushed.

A random workload runs once on a device that logs what is done to it, and notes in the log which
state it had reached. Then every place of the log is a crash: everything up to the last flush is
there, and of what came after it all, some operations, or some sectors. Each of these images must
open as of the last acknowledged commit or the one in flight (or, where commits need not be durable,
one in between), whole; `check` finds nothing; and it takes a further transaction, which is there
after another crash.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

import cowfs
from cowfs import limits

from ..devices import Crash, Note, RecordingDevice, crashes, device_of
from ..plain import Items, PlainStore, assert_holds, assert_sound, contents, noise, reopened, text

SAMPLES = 3
"""Images with losses, for each place of the log."""


class Workload:
    """Random changes to a store and its model; `states[i]` is the model after the i-th of them."""

    def __init__(self, seed: int, device: RecordingDevice, parameters: cowfs.Parameters) -> None:
        self.chance = random.Random(seed)
        self.device = device
        self.store = cowfs.open_device(device, parameters=parameters, cache=1 << 20)
        self.states = [PlainStore()]
        self.durable: list[bool] = [True]
        self.first = len(device.log)
        self.device.note(0)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            durable = self.step()
            self.durable.append(durable)
            self.device.note(len(self.states) - 1)
            assert len(self.states) == len(self.durable)

    def step(self) -> bool:
        """One change that is one moment; whether it is durable when it returns."""
        model = self.states[-1].copy()
        self.states.append(model)
        choice = self.chance.random()
        if choice < 0.05:
            self.store.sync()
        elif choice < 0.1:
            self.store.close()
            self.store = cowfs.open_device(self.device, cache=1 << 20)
        elif choice < 0.2 and model.snapshots:
            name = self.chance.choice(sorted(model.snapshots))
            model.destroy(name)
            self.store.destroy(name)
        elif choice < 0.25 and len(model.heads) > 1:
            name = self.chance.choice(sorted(model.heads))
            model.destroy(name)
            self.store.destroy(name, recursive=True)
        elif choice < 0.3 and model.snapshots:
            name = self.chance.choice(sorted(model.snapshots))
            model.rollback(name)
            self.store.rollback(name)
        else:
            durable = self.chance.random() < 0.7
            with self.store.transaction(durable=durable) as tx:
                for _ in range(self.chance.choice((1, 1, 2, 4))):
                    self.change(tx, model)
            return durable
        return True

    def change(self, tx: cowfs.Transaction, model: PlainStore) -> None:
        """One part of a transaction."""
        choice = self.chance.random()
        name = self.chance.choice(("a", "b", "c"))
        snapshot = f"{name}@{self.chance.randrange(4)}"
        if name not in model.heads:
            if model.snapshots and choice < 0.5:
                source = self.chance.choice(sorted(model.snapshots))
                model.clone(source, name)
                tx.clone(source, name)
            else:
                model.create(name)
                tx.create(name)
        elif choice < 0.15 and snapshot not in model.snapshots:
            model.snapshot(snapshot)
            tx.snapshot(snapshot)
        elif choice < 0.3:
            start = b"%03d" % self.chance.randrange(100)
            stop = b"%03d" % self.chance.randrange(100)
            items = model.heads[name]
            doomed = [key for key in items if start <= key < stop]
            assert tx[name].delete_range(start, stop) == len(doomed)
            for key in doomed:
                del items[key]
        else:
            for _ in range(self.chance.choice((1, 1, 5, 40))):
                key = b"%03d" % self.chance.randrange(100) + bytes(self.chance.choice((0, 300)))
                size = self.chance.choice((0, 10, 100, 100, 1000, 3000, 30_000))
                data = self.chance.choice((noise, text))(size, self.chance.randrange(100))
                tx[name][key] = data
                model.heads[name][key] = data


def workload(seed: int, monkeypatch: pytest.MonkeyPatch) -> Workload:
    """With checkpoints, steps of destroying and flushes of large transactions coming often."""
    monkeypatch.setattr(limits, "LOG_RECORDS", 4 + seed % 5)
    monkeypatch.setattr(limits, "REAP_BLOCKS", 5)
    monkeypatch.setattr(limits, "ONE_FLUSH_LIMIT", 200_000)
    sizes = {"size": None if seed % 2 else 8 << 20, "node_size": (4096, 8192)[seed // 2 % 2]}
    work = Workload(seed, RecordingDevice(), cowfs.Parameters(**sizes))  # type: ignore[arg-type]
    work.run(25)
    return work


def possible(work: Workload, crash: Crash) -> Iterator[Items | dict[str, Items]]:
    """What may be found: from the last durable state on, to the one in flight."""
    reached = [op.value for op in work.device.log[: crash.done] if isinstance(op, Note)][-1]
    oldest = max(i for i in range(reached + 1) if work.durable[i])
    for state in work.states[oldest : reached + 2]:
        yield state.everything()


@pytest.mark.parametrize("seed", range(8))
def test_every_crash_leaves_the_last_commit_or_the_one_in_flight(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = workload(seed, monkeypatch)
    chance = random.Random(seed)
    for number, crash in enumerate(crashes(work.device.log, chance, SAMPLES, work.first)):
        place = f"crash {number} of seed {seed}, after {crash.done} operations: {crash.how}"
        try:
            device = device_of(crash.image)
            store = cowfs.open_device(device, cache=1 << 20)
            found = contents(store)
            assert found in list(possible(work, crash)), "a state that never was"
            assert_sound(store)
            if chance.random() < 0.4:
                go_on(store, found, chance)
        except Exception as error:
            error.add_note(place)
            raise


def go_on(store: cowfs.Store, found: dict[str, Items], chance: random.Random) -> None:
    """The store takes another transaction, which is there after another crash."""
    items = {b"%d" % n: noise(chance.choice((10, 2000))) for n in range(chance.randrange(1, 30))}
    for part in range(chance.randrange(1, 8)):
        with store.transaction() as tx:
            (tx["further"] if part else tx.create("further")).update(items)
    device = store.device
    assert hasattr(device, "discard")
    again = reopened(device, cache=1 << 20)  # type: ignore[arg-type]
    assert_holds(again, {**found, "further": items})
    assert_sound(again)


def test_a_second_crash_while_opening_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening writes too (it settles the end of the log): a crash in there is no worse."""
    work = workload(99, monkeypatch)
    chance = random.Random(99)
    for number, crash in enumerate(crashes(work.device.log, chance, 1, work.first)):
        if number % 4:
            continue
        first = RecordingDevice()
        first.write(0, crash.image)
        first.flush()
        before = len(first.log)
        found = contents(cowfs.open_device(first, cache=1 << 20))
        for second in crashes(first.log, chance, 2, before):
            store = cowfs.open_device(device_of(second.image), cache=1 << 20)
            assert contents(store) == found
            assert_sound(store)


def test_opening_for_reading_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    work = workload(5, monkeypatch)
    chance = random.Random(5)
    for number, crash in enumerate(crashes(work.device.log, chance, 1, work.first)):
        if number % 5:
            continue
        device = RecordingDevice()
        device.write(0, crash.image)
        before = len(device.log)
        with cowfs.open_device(device, readonly=True) as store:
            found = contents(store)
            assert_sound(store)
        assert len(device.log) == before
        assert contents(cowfs.open_device(device)) == found
