"""All faults of one workload: it is run once to see how many places there are where something can
go wrong, and then once for each of them.
"""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import cowfs
from crashfuzzer.generator import random_step
from crashfuzzer.judge import Wrong
from crashfuzzer.run import Run
from crashfuzzer.steps import Cut, Kill, Step
from crashfuzzer.world import World

from .bytecodes import Stepper
from .device import KINDS, Fault, FaultyDevice, Kind
from .lines import Tracer
from .trial import Injector, Outcome, Trial

STEPS = 12
"""Steps of a workload."""
BURSTS = (1, 4, 1 << 30)
"""I/Os that go wrong in a row: one, some, and all of them until the image is opened anew."""

_BURSTS_OF = {Kind.INTERRUPT: BURSTS[:1], Kind.MEMORY: BURSTS[:1], Kind.FULL: BURSTS[-1:]}
"""Of those that come alone, and of what stays as it is."""

_LONG = 60
"""Seconds that a workload never takes: a hundredth of it, and less."""
_ERRORS = (KeyboardInterrupt, MemoryError)


@dataclass
class Tally:
    """How often what was injected, and what came of it."""

    injected: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By operation and kind."""
    outcomes: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Count that, too."""
        self.injected.update(other.injected)
        self.outcomes.update(other.outcomes)


def workload(seed: int) -> tuple[World, tuple[Step, ...], list[str]]:
    """The workload of a seed, and the I/Os that it takes."""
    chance = random.Random(seed)
    world = World.random(seed)
    steps: list[Step] = []
    device = FaultyDevice(world.turns())
    with world.entered():
        run = Run(world, device=device)
        device.armed = True
        while len(steps) < STEPS:
            step = random_step(chance, run.model, world.durable)
            if not isinstance(step, Cut | Kill):
                step.do(run)
                steps.append(step)
    return world, tuple(steps), device.calls


def faults(calls: list[str]) -> Iterator[Fault]:
    """Every kind at each I/O, alone and in bursts."""
    for number, operation in enumerate(calls):
        for kind in KINDS[operation]:
            for count in _BURSTS_OF.get(kind, BURSTS):
                yield Fault(kind, number, count)


def explore(seed: int) -> Tally:
    """All faults of the workload of a seed; how many there were. Raises Wrong."""
    world, steps, calls = workload(seed)
    tally = Tally()
    for fault in faults(calls):
        tally.add(attempt(world, steps, fault))
    chance = random.Random(seed)
    for tracer in interrupts(world, steps, chance):
        tally.add(interrupt(world, steps, tracer))
    for stepper in bytecodes(world, steps, chance):
        tally.add(interrupt(world, steps, stepper))
    return tally


def interrupts(world: World, steps: tuple[Step, ...], chance: random.Random) -> list[Tracer]:
    """Each line of cowfs that the workload reaches, the first time and at another one."""
    tracer = Tracer()
    interrupt(world, steps, tracer)
    return [
        Tracer(number, error)
        for numbers in tracer.places.values()
        for number, error in (
            (numbers[0], chance.choice(_ERRORS)),
            (chance.choice(numbers), chance.choice(_ERRORS)),
        )
    ]


def bytecodes(world: World, steps: tuple[Step, ...], chance: random.Random) -> list[Stepper]:
    """Each place in cowfs where Ctrl-C can come, or memory can run out, between two bytecodes: the
    first time that it is reached, and at another one."""
    stepper = Stepper()
    interrupt(world, steps, stepper)
    return [
        Stepper(point, passes)
        for point, times in stepper.reached.items()
        for passes in sorted({0, chance.randrange(times)})
    ]


def attempt(world: World, steps: tuple[Step, ...], fault: Fault) -> Tally:
    """One workload with one fault (or burst of them)."""
    device = FaultyDevice(world.turns())
    device.fault = fault

    @contextmanager
    def during() -> Iterator[None]:
        device.armed = True
        try:
            yield
        finally:
            device.armed = False

    errors: tuple[type[BaseException], ...] = (OSError, cowfs.Error)
    if fault.kind in (Kind.INTERRUPT, Kind.MEMORY):
        errors = (KeyboardInterrupt, MemoryError, cowfs.FailedError)
    injector = Injector(during, device.injected.total, errors)
    try:
        with world.entered():
            outcomes = Trial(world, device, injector, fault.first).take(steps)
        if fault.kind is Kind.FULL and Outcome.CLOSED in outcomes:
            raise Wrong("a host that is full ended a store, and not a transaction")
    except Exception as error:
        error.add_note(f"with {fault}")
        raise
    return Tally(
        Counter({(name, kind.value): n for (name, kind), n in device.injected.items()}),
        Counter(outcome.value for outcome in outcomes),
    )


def interrupt(world: World, steps: tuple[Step, ...], tracer: Tracer | Stepper) -> Tally:
    """One workload that is interrupted at a line, or between two bytecodes."""
    injector = Injector(tracer.watching, lambda: tracer.injected, (tracer.error, cowfs.FailedError))
    try:
        with world.entered(), in_time():
            outcomes = Trial(world, FaultyDevice(world.turns()), injector, tracer.seed).take(steps)
    except Exception as error:
        error.add_note(f"with {tracer}")
        raise
    return Tally(
        Counter({(tracer.unit, tracer.error.__name__): tracer.injected}),
        Counter(outcome.value for outcome in outcomes),
    )


@contextmanager
def in_time() -> Iterator[None]:
    """Wrong where it takes so long that it must be waiting for itself."""

    def late(*_: object) -> None:
        raise Wrong("it waits for ever")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(_LONG)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
