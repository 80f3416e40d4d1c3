"""The steps of a workload: transactions, and what is done to the store between them."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass
from typing import Protocol

from cowfs.errors import OutOfSpaceError

from .changes import Change
from .judge import verify
from .losses import random_cut
from .rot import rot
from .run import Run


class Step(Protocol):
    """One thing that a program does."""

    def do(self, run: Run) -> None:
        """Do it, and tell the run which state it leads to."""


@dataclass(frozen=True, slots=True)
class Commit:
    """A transaction. One that does not fit changes nothing."""

    changes: tuple[Change, ...]
    durable: bool = True

    def do(self, run: Run) -> None:
        model = run.model.copy()
        run.propose(model, self.changes)
        try:
            with run.store.transaction(durable=self.durable) as tx:
                for change in self.changes:
                    if change.possible(model):
                        change.apply(tx, model)
        except OutOfSpaceError:
            run.withdraw()
        else:
            run.acknowledge(self.durable)


@dataclass(frozen=True, slots=True)
class Abandon:
    """A transaction that is given up at its end."""

    changes: tuple[Change, ...]

    def do(self, run: Run) -> None:
        model = run.model.copy()
        tx = run.store.transaction()
        try:
            with contextlib.suppress(OutOfSpaceError):
                for change in self.changes:
                    if change.possible(model):
                        change.apply(tx, model)
        finally:
            tx.abort()


@dataclass(frozen=True, slots=True)
class Reclaim:
    """Release what was destroyed, step by step."""

    def do(self, run: Run) -> None:
        with contextlib.suppress(OutOfSpaceError):
            run.store.reclaim()


@dataclass(frozen=True, slots=True)
class Scribble:
    """Transactions that were never committed have overwritten every free block."""

    def do(self, run: Run) -> None:
        run.scribble()


@dataclass(frozen=True, slots=True)
class Rot:
    """Copies of metadata rot, on a copy of the image."""

    seed: int = 0
    """Of which."""

    def do(self, run: Run) -> None:
        if run.world.metadata_copies == 2:
            rot(run.world, run.store, run.device.image, run.model, self.seed)


@dataclass(frozen=True, slots=True)
class Sync:
    """Make commits durable that were not."""

    def do(self, run: Run) -> None:
        run.store.sync()
        run.acknowledge(durable=True)


@dataclass(frozen=True, slots=True)
class Hold:
    """Open a view of a dataset or snapshot."""

    name: str

    def do(self, run: Run) -> None:
        if self.name in run.model.everything():
            run.hold(self.name)


@dataclass(frozen=True, slots=True)
class LetGo:
    """Look at all open views, and close them."""

    def do(self, run: Run) -> None:
        run.let_go()


@dataclass(frozen=True, slots=True)
class Reopen:
    """Close the store, and open it."""

    def do(self, run: Run) -> None:
        run.let_go()
        run.store.close()
        run.acknowledge(durable=True)
        run.open_anew()


@dataclass(frozen=True, slots=True)
class Kill:
    """The process ends without closing the store; the host still has all that it wrote."""

    def do(self, run: Run) -> None:
        run.let_go()
        run.open_anew()
        verify(run.store, [run.model])
        run.acknowledge(durable=True)


@dataclass(frozen=True, slots=True)
class Cut:
    """A transaction during which, or soon after which, the power fails."""

    changes: tuple[Change, ...]
    durable: bool = True
    seed: int = 0
    """Of where it fails, and what is lost."""

    def do(self, run: Run) -> None:
        chance = random.Random(self.seed)
        before = sum(1 for _ in run.epochs()) - 1
        Commit(self.changes, self.durable).do(run)
        epoch = chance.choice(list(run.epochs())[before:])
        run.cut(epoch, random_cut(epoch, chance))
