"""SIGKILL while a real process works on a real file: no acknowledged commit is lost.

The work is the crash fuzzer's: all kinds of datasets, large values, snapshots, clones, rollbacks,
destroying, commits that are durable and such that are not. What a process wrote stays in the host's
page cache when it is killed, so that a commit counts from the moment it was acknowledged, durable
or not.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import random
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

import cowfs
from cowfs.device import MemoryDevice
from crashfuzzer.generator import random_step
from crashfuzzer.judge import verify
from crashfuzzer.model import PlainStore
from crashfuzzer.steps import Commit
from crashfuzzer.world import World

KILLS = 200
"""Of each of the two workloads."""
STEPS_BETWEEN = 8
"""A process is killed after up to so many commits."""


def commit_of(seed: int, number: int, model: PlainStore) -> Commit:
    """Commit number `number` of a workload that has come to a state."""
    chance = random.Random(f"{seed} {number}")
    while True:
        step = random_step(chance, model)
        if isinstance(step, Commit):
            return step


def do(store: cowfs.Store, model: PlainStore, commit: Commit, *, keep: bool = True) -> PlainStore:
    """Do it to a store (and undo it, unless it is to `keep` it); the state that it leads to."""
    after = model.copy()
    with store.transaction(durable=commit.durable) as tx:
        for change in commit.changes:
            if change.possible(after):
                change.apply(tx, after)
        if not keep:
            tx.abort()
    return after


def work(
    image: str, world: World, seed: int, number: int, model: PlainStore, to: Connection
) -> None:
    """A process that commits until it is killed, and says so each time."""
    with world.entered(on_host=True):
        store = cowfs.open(image, "w", cache=world.cache)
        while True:
            model = do(store, model, commit_of(seed, number, model))
            number += 1
            to.send(number)
            if number % 5 == 0:
                store.reclaim()


@pytest.mark.parametrize("seed", range(2))
def test_kill_loses_no_acknowledged_commit(tmp_path: Path, seed: int) -> None:
    image = str(tmp_path / "kill.cow")
    world = replace(World.random(seed), size=None, seed=0)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["cowfs", __name__])
    chance = random.Random(seed)
    number, model = 0, PlainStore()
    with world.entered(on_host=True):
        cowfs.open(image, "n", cache=world.cache).close()
        shadow = world.make(MemoryDevice())  # changes are made to a store and a model together
    for kill in range(KILLS):
        hear, say = processes.Pipe(duplex=False)
        # Each process draws ids of its own, as it would outside of a test.
        own = replace(world, seed=1 + kill)
        worker = processes.Process(target=work, args=(image, own, seed, number, model, say))
        worker.start()
        say.close()
        said = number
        for _ in range(chance.randrange(1, STEPS_BETWEEN)):
            said = hear.recv()
        worker.kill()
        worker.join()
        with contextlib.suppress(EOFError):
            while True:
                said = hear.recv()
        with world.entered(on_host=True):
            while number < said:
                model = do(shadow, model, commit_of(seed, number, model))
                number += 1
            commit = commit_of(seed, number, model)
            in_flight = do(shadow, model, commit, keep=False)
            with cowfs.open(image, cache=world.cache) as store:
                if verify(store, [model, in_flight]) is in_flight:
                    model = do(shadow, model, commit)
                    number += 1
