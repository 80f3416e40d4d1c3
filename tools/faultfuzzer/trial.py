"""One workload in which something goes wrong, and what must be true after that.

- *No lies.* What was acknowledged is there. A transaction that failed left no trace; where nobody
  can tell whether it arrived, the store refuses all further writes, and opened anew it has all of
  it or nothing.
- *Readable.* Reading gives what is there, or an error that says why not.
- *Sound.* The store that goes on, and the one that is opened anew, also after a power cut, passes
  `check` with exact counts, and takes the rest of the workload.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum

import cowfs
from crashfuzzer.device import Mark
from crashfuzzer.judge import Wrong, holds, verify
from crashfuzzer.losses import random_cut
from crashfuzzer.model import PlainStore, contents
from crashfuzzer.run import Run
from crashfuzzer.steps import Reopen, Step
from crashfuzzer.world import World

from .device import FaultyDevice

_CLOSING = 0.3
"""The part of trials in which an interrupt ends the program."""
_CUTS = 2
"""Power cuts, drawn at random, that may follow a fault."""


class Outcome(Enum):
    """How a step ended in which something went wrong."""

    UNHARMED = "succeeded"
    FAILED = "failed without a trace"
    CLOSED = "store refuses writes"
    REOPENED = "opened anew"


@dataclass(frozen=True, slots=True)
class Injector:
    """What makes things go wrong: `during` is entered for each step, `injected` counts."""

    during: Callable[[], AbstractContextManager[None]]
    injected: Callable[[], int]
    errors: tuple[type[BaseException], ...]
    """What a step may raise."""


class Trial:
    """A workload in progress. To be used while the world is entered."""

    def __init__(self, world: World, device: FaultyDevice, injector: Injector, seed: int) -> None:
        self.run = Run(world, device=device)
        self.device = device
        self.injector = injector
        self.chance = random.Random(seed)
        self.closes = self.chance.random() < _CLOSING
        """Whether an interrupt ends the program: the store is closed while the error is handled,
        and what it refers to is still there, as behind `with cowfs.open(...)`."""
        self.outcomes: list[Outcome] = []
        """Of the steps in which something went wrong."""

    def take(self, steps: tuple[Step, ...]) -> list[Outcome]:
        """Do all the steps; what became of those in which something went wrong. Raises Wrong."""
        for step in steps:
            self.do(step)
        self.run.drop_views()
        verify(self.run.store, [self.run.model])
        if self.run.store.readers():
            raise Wrong(f"space is held for views that nobody has: {self.run.store.readers()}")
        self._power_cuts()
        return self.outcomes

    def do(self, step: Step) -> None:
        """One step."""
        before, known = self.injector.injected(), len(self.run.states)
        error: type[BaseException] | None = None
        with self.injector.during():
            try:
                step.do(self.run)
            except self.injector.errors as caught:
                if self.injector.injected() == before:
                    raise
                error = type(caught)  # what it refers to goes, as behind any `except`
                if self._ends(error):
                    self.run.store.close()
            if self.injector.injected() == before:
                return
            if not isinstance(step, Reopen) and not self._ends(error):
                self._look_while_it_goes_wrong()
        self.outcomes.append(self._judge(step, error, in_flight=len(self.run.states) > known))

    def _look_while_it_goes_wrong(self) -> None:
        """Reading gives one of the states that there may be, or an error that says why not."""
        try:
            found = contents(self.run.store)
        except self.injector.errors as error:
            if isinstance(error, OSError | cowfs.Error) and not str(error):
                raise Wrong(f"an error without a reason: {error!r}") from error
            return
        if not any(holds(found, state) for state in self._possible()):
            raise Wrong("reading gave what never was")

    def _judge(self, step: Step, error: type[BaseException] | None, *, in_flight: bool) -> Outcome:
        run = self.run
        if isinstance(step, Reopen) and error is None:
            verify(run.store, [run.model])
            return Outcome.UNHARMED
        if isinstance(step, Reopen) or self._ends(error):
            self._reopen()
            return Outcome.REOPENED
        run.store.durability.join()  # a fault may have hit its thread, which has yet to say so
        if run.store.failure is not None:
            self._refuses_writes()
            self._power_cuts()
            self._reopen()
            return Outcome.CLOSED
        if error is None:
            verify(run.store, [run.model])
            self._power_cuts()
            return Outcome.UNHARMED
        run.drop_views()
        if in_flight:
            # An interrupt may come when the transaction was done, before anybody was told.
            told = issubclass(error, OSError | cowfs.Error)
            done = run.states[-2:-1] if told else run.states[-2:]
            if verify(run.store, done) is run.states[-1]:
                run.acknowledge(durable=False)
                return Outcome.UNHARMED
            run.withdraw()
        verify(run.store, [run.model])
        return Outcome.FAILED

    def _ends(self, error: type[BaseException] | None) -> bool:
        """Whether the program ends with an error."""
        return self.closes and error in (KeyboardInterrupt, MemoryError)

    def _possible(self) -> tuple[PlainStore, ...]:
        """The states that may be found: the newest that is durable, and all after it."""
        marks = (entry for entry in self.device.log if isinstance(entry, Mark) and entry.durable)
        return tuple(self.run.states[max(mark.state for mark in marks) :])

    def _refuses_writes(self) -> None:
        """A store that failed still shows what it held, takes no transaction, and says why."""
        run = self.run
        if not any(holds(contents(run.store), state) for state in self._possible()):
            raise Wrong("a store that failed shows what never was")
        run.drop_views()
        written = len(self.device.log)
        try:
            run.store.transaction().abort()
        except cowfs.FailedError as error:
            if "open it anew" not in str(error):
                raise Wrong(f"an error that does not help: {error}") from error
        else:
            raise Wrong("a store that failed takes a transaction")
        run.store.close()
        if len(self.device.log) != written:
            raise Wrong("a store that failed wrote to the device when it was closed")

    def _power_cuts(self) -> None:
        """The machine stops now; what was not flushed may be lost."""
        *_, epoch = self.run.epochs()
        for _ in range(_CUTS):
            image = epoch.image(random_cut(epoch, self.chance))
            Run(self.run.world, image, self._possible())

    def _reopen(self) -> None:
        """The process ends, and another finds what there is."""
        run, possible = self.run, self._possible()
        run.drop_views()
        run.open_anew()
        run.propose(verify(run.store, possible))
        run.acknowledge(durable=True)
