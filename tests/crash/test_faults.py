"""I/O that fails and programs that are interrupted: nothing acknowledged is lost, a transaction
that failed leaves no trace, and whatever is left is sound.

tools/faultfuzzer/ does it. `make faultfuzz` goes on where these tests stop.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cowfs
from cowfs import space
from cowfs.durability import Durability
from cowfs.engine import Engine
from cowfs.space import Space
from cowfs.transaction import Transaction
from faultfuzzer.device import FaultyDevice
from faultfuzzer.explore import attempt, bytecodes, faults, interrupt, interrupts, workload

from ..plain import assert_sound, noise

WORKLOADS = range(3)
INTERRUPTS = 300
"""Lines that are interrupted, of each workload."""
BYTECODES = 150
"""Places between two bytecodes at which an error comes, of each workload."""


@pytest.mark.parametrize("seed", WORKLOADS)
def test_every_io_can_fail(seed: int) -> None:
    world, steps, calls = workload(seed)
    for fault in faults(calls):
        attempt(world, steps, fault)


@pytest.mark.parametrize("seed", WORKLOADS)
def test_every_line_can_be_interrupted(seed: int) -> None:
    world, steps, _ = workload(seed)
    chance = random.Random(seed)
    for tracer in chance.sample(interrupts(world, steps, chance), INTERRUPTS):
        interrupt(world, steps, tracer)


@pytest.mark.parametrize("seed", WORKLOADS)
def test_an_interrupt_can_come_between_any_two_bytecodes(seed: int) -> None:
    world, steps, _ = workload(seed)
    chance = random.Random(seed)
    for stepper in chance.sample(bytecodes(world, steps, chance), BYTECODES):
        interrupt(world, steps, stepper)


# --- the checker is checked ---------------------------------------------------------------------


def a_failed_flush_is_not_final(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Durability, "check_sound", lambda self: None)


def an_error_of_a_flush_is_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = FaultyDevice.flush

    def flush(self: FaultyDevice) -> None:
        with contextlib.suppress(OSError):
            original(self)

    monkeypatch.setattr(FaultyDevice, "flush", flush)


def a_transaction_that_failed_keeps_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "abandon", lambda self, tx: None)


def a_transaction_that_failed_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Transaction, "abort", lambda self: None)


def what_the_log_needs_is_not_allocated_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Space, "write_ahead", lambda self, start, length: None)


@pytest.mark.parametrize(
    "plant",
    [
        a_failed_flush_is_not_final,
        an_error_of_a_flush_is_swallowed,
        a_transaction_that_failed_keeps_its_blocks,
        a_transaction_that_failed_does_not_end,
        what_the_log_needs_is_not_allocated_ahead,
    ],
    ids=lambda plant: plant.__name__,
)
def test_a_planted_lie_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, steps, calls = workload(0)
    plant(monkeypatch)
    with pytest.raises((AssertionError, cowfs.Error)):
        for fault in faults(calls):
            attempt(world, steps, fault)


def test_a_run_that_is_handed_out_before_anybody_knows_of_it_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between two bytecodes of one line, where no interrupt of lines comes."""
    original = Space.take_run

    def take_run(*args: Any, **kwargs: Any) -> tuple[int, ...]:
        return tuple(original(*args, **kwargs))

    take_run.__code__ = take_run.__code__.replace(co_filename=space.__file__)  # a part of cowfs
    monkeypatch.setattr(Space, "take_run", take_run)
    world, steps, _ = workload(0)
    chance = random.Random(0)
    with pytest.raises(AssertionError, match="in use, and lost"):
        for stepper in bytecodes(world, steps, chance):
            if stepper.point is not None and stepper.point.code is take_run.__code__:
                interrupt(world, steps, stepper)


# --- system calls -------------------------------------------------------------------------------


def work(image: Path) -> None:
    """Commits of several shapes, on an image that holds `before`."""
    with cowfs.open(image, "w", cache=1 << 20) as store:
        for number in range(3):
            store["a"][b"small %d" % number] = noise(500, number)
        store["a"][b"large"] = noise(3_000_000)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image with something in it."""
    path = tmp_path / "image.cow"
    with cowfs.open(path, "n") as store:
        store.create("a")[b"before"] = noise(20_000)
    return path


def test_system_calls_that_do_half_of_it_are_gone_on_with(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = os.pread, os.pwrite
    monkeypatch.setattr(os, "pread", lambda fd, length, at: read(fd, -(-length // 2), at))
    monkeypatch.setattr(
        os, "pwrite", lambda fd, data, at: write(fd, memoryview(data)[: -(-len(data) // 2)], at)
    )
    work(image)
    with cowfs.open(image) as store:
        assert store["a"][b"large"] == noise(3_000_000)
        assert len(store["a"]) == 5
        assert_sound(store)


@pytest.mark.parametrize("call", ["pread", "pwrite", "fdatasync", "ftruncate"])
def test_a_system_call_that_fails_is_an_error_of_cowfs_and_loses_nothing(
    image: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    original = getattr(os, call)
    failing, calls = 0, 0

    def fail(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == failing + 1:
            raise OSError(errno.EIO, "Input/output error")
        return original(*args)

    while True:
        calls = 0
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            try:
                work(image)
            except cowfs.Error as error:
                assert "image" in str(error)
        with cowfs.open(image, "w") as store:
            assert store["a"][b"before"] == noise(20_000)
            assert_sound(store)
        if calls <= failing:
            break
        failing += 1
    assert failing > 0
