"""The crash states of one workload: every image that a power cut may leave (or a sample, where they
are too many) is opened and judged, takes further steps, and survives another power cut meanwhile.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from .case import Case, Crash
from .device import RecordingDevice
from .generator import random_commit, random_step
from .image import Image
from .judge import Wrong, verify
from .losses import Epoch, Losses, power_cuts, random_cut
from .model import PlainStore
from .run import Run
from .steps import Commit, Reopen, Scribble, Step
from .world import World

STEPS = 40
"""Steps of a workload."""
SAMPLES = 4
"""Power cuts drawn at random, for each epoch and each manner of loss."""


class Failure(Exception):
    """A case that fails, and why."""

    def __init__(self, case: Case, error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.case = case


def explore(seed: int, **conditions: Any) -> int:
    """Run the workload of a seed, and its crash states; how many of them were distinct. What is
    given of the fields of its `World` is not drawn.

    Raises Failure.
    """
    chance = random.Random(seed)
    world = replace(World.random(seed), **conditions)
    with world.entered():
        search = _Search(world, chance)
        for _ in range(STEPS):
            search.do(random_step(chance, search.run.model, world.durable))
        return search.power_cuts(search.epochs())


def explore_steps(world: World, steps: Iterable[Step], most: int) -> int:
    """The same with given steps, for up to `most` crash states, the latest first."""
    with world.entered():
        search = _Search(world, random.Random(0))
        for step in steps:
            search.do(step)
        return search.power_cuts(reversed(search.epochs()), most)


class _Search:
    """One workload, and what was found in its crash states so far."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self.chance = chance
        self.case = Case(world, ())
        self.seen: dict[tuple[int, int], PlainStore] = {}
        """By the image's fingerprint: what it held."""
        with self._judging(self.case):
            self.run = Run(world)

    def do(self, step: Step) -> None:
        """One more step of the workload."""
        self.case = replace(self.case, steps=(*self.case.steps, step))
        with self._judging(self.case):
            step.do(self.run)

    def epochs(self) -> list[tuple[int, Epoch]]:
        """The epochs of the workload, which is complete, with their numbers."""
        with self._judging(self.case):
            self.run.look()
        return list(enumerate(self.run.epochs()))

    def power_cuts(self, epochs: Iterable[tuple[int, Epoch]], most: int = 1 << 60) -> int:
        """Crash states of these epochs, up to `most`; how many there were."""
        for number, epoch in epochs:
            for losses in power_cuts(epoch, self.chance, SAMPLES):
                self.power_cut(number, epoch, losses)
                if len(self.seen) >= most:
                    return len(self.seen)
        return len(self.seen)

    def power_cut(self, number: int, epoch: Epoch, losses: Losses) -> None:
        """One crash state, and what follows from it."""
        case = replace(self.case, crash=Crash(number, losses))
        image, allowed = epoch.image(losses), self.run.allowed(epoch)
        with self._judging(case):
            known = self.seen.get(image.fingerprint)
            if known is not None:
                if known not in allowed:
                    raise Wrong("a state that was replaced for good")
                return
            run = Run(case.world, image, allowed)
            self.seen[image.fingerprint] = run.model
            if self.chance.random() < 0.1:
                _look_only(case.world, image, run.model)
        if losses and self.chance.random() < 0.2:
            self._open(replace(case, late=True), run.with_late(epoch, losses), (run.model,))
        for step in self._further(run):
            case = replace(case, further=(*case.further, step))
            with self._judging(case):
                step.do(run)
        self._second(case, run)

    def _open(self, case: Case, image: Image, allowed: tuple[PlainStore, ...]) -> None:
        """One more crash state, after which nothing follows."""
        if image.fingerprint not in self.seen:
            with self._judging(case):
                self.seen[image.fingerprint] = Run(case.world, image, allowed).model

    def _further(self, run: Run) -> Iterator[Step]:
        """What the store does after the power cut: often, what it did before, once more."""
        if self.chance.random() < 0.1:
            yield Scribble()
        lost = self.run.changes.get(self.run.states.index(run.model) + 1, ())
        if lost and self.chance.random() < 0.5:
            yield Commit(lost, self.chance.random() < 0.5)
        else:
            yield random_commit(self.chance, run.model, run.world.durable)
        if self.chance.random() < 0.3:
            yield self.chance.choice((Reopen(), Scribble()))

    def _second(self, case: Case, run: Run) -> None:
        """A power cut after, or while, the image was opened and went on."""
        epochs = list(enumerate(run.epochs()))
        cuts: list[tuple[int, Epoch, Losses]] = []
        if self.chance.random() < 0.3:
            cuts.append((*epochs[-1], ()))
        number, epoch = self.chance.choice(epochs)
        cuts.append((number, epoch, random_cut(epoch, self.chance)))
        for number, epoch, losses in cuts:
            self._open(
                replace(case, second=Crash(number, losses)), epoch.image(losses), run.allowed(epoch)
            )

    @staticmethod
    @contextmanager
    def _judging(case: Case) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise Failure(case, error) from error


def _look_only(world: World, image: Image, expected: PlainStore) -> None:
    """Opening for reading finds the same, and writes nothing."""
    device = RecordingDevice(image.copy())
    with world.open(device, readonly=True) as store:
        verify(store, [expected])
    if device.log:
        raise Wrong("opening for reading wrote to the device")
