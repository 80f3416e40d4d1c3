"""One store at work on a recording device, and beside it the model of each state that it went
through. The log and the states together say what may be found after a power cut at any place.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .device import RecordingDevice
from .image import Image
from .judge import Wrong, verify
from .losses import Epoch, Losses, epochs
from .model import Items, PlainStore, view_items
from .world import World

if TYPE_CHECKING:
    from .changes import Change
    from .steps import Step


class Run:
    """A store, its device and its states. To be used while the world is entered.

    Without `image` it is a new store, on `device` if one is given; otherwise it is found there, and
    must hold one of `allowed`.
    """

    def __init__(
        self,
        world: World,
        image: Image | None = None,
        allowed: tuple[PlainStore, ...] = (),
        *,
        device: RecordingDevice | None = None,
    ) -> None:
        self.world = world
        self.changes: dict[int, tuple[Change, ...]] = {}
        """By the number of a state: what led to it."""
        self._held: list[tuple[str, Any, Items]] = []
        if image is None:
            self.device = device or RecordingDevice(turns=world.turns())
            self.store = world.make(self.device)
            self.device.log.clear()
            self._base = self.device.image.copy()
            self.states = [PlainStore()]
            self.device.mark(0, durable=True)
        else:
            self.device = RecordingDevice(image.copy(), world.turns())
            self._base = image
            # Whatever the opening finds stays: a cut while it settles the log changes nothing.
            self.device.mark(0, durable=True)
            self.store = world.open(self.device)
            self.states = [verify(self.store, allowed)]
        weakref.finalize(self, self.device.end)  # what waits for its turn keeps the store alive

    @property
    def model(self) -> PlainStore:
        """What the store should hold now."""
        return self.states[-1]

    def take(self, steps: Sequence[Step]) -> None:
        """Do all the steps."""
        for step in steps:
            step.do(self)
        self.look()

    def look(self) -> None:
        """The store holds what it should, and so do open views."""
        self.let_go()
        verify(self.store, [self.model])

    # --- states ---------------------------------------------------------------------------------

    def propose(self, model: PlainStore, changes: tuple[Change, ...] = ()) -> None:
        """From now on, this state is in flight."""
        self.changes[len(self.states)] = changes
        self.states.append(model)

    def withdraw(self) -> None:
        """The state in flight will not be: its transaction failed."""
        self.states.pop()

    def acknowledge(self, durable: bool) -> None:
        """The newest state is acknowledged."""
        self.device.mark(len(self.states) - 1, durable)

    def epochs(self) -> Iterator[Epoch]:
        """All that was done to the device, from flush to flush."""
        return epochs(self.device.log, self._base, len(self.states))

    def allowed(self, epoch: Epoch) -> tuple[PlainStore, ...]:
        """What may be found after a power cut in an epoch."""
        return tuple(self.states[epoch.oldest : epoch.newest + 1])

    def with_late(self, epoch: Epoch, losses: Losses) -> Image:
        """The image of this run, which is only just opened, with what was lost there after all."""
        image = self.device.image.copy()
        for write in epoch.late_writes(losses):
            if write.end <= image.size:
                image.write(write.offset, write.data)
        return image

    # --- what steps need ------------------------------------------------------------------------

    def open_anew(self) -> None:
        """The process ended, and another opens the image."""
        self.device.end()
        self.store = self.world.open(self.device)

    def cut(self, epoch: Epoch, losses: Losses) -> None:
        """The power failed, back in an epoch of this run; go on with what is left."""
        self.let_go()
        image = epoch.image(losses)
        found = Run(self.world, image, self.allowed(epoch)).model
        self.device.cut(image)
        self.propose(found)
        self.acknowledge(durable=True)
        self.open_anew()

    def scribble(self) -> None:
        """Overwrite every block that the next transaction might be given."""
        self.store.transaction().abort()  # what waited to be free is free at its beginning
        space = self.store.io.space
        ranges = []
        at = space.bitmap.next_clear(0)
        while at < space.total:
            stop = space.bitmap.next_set(at)
            ranges.append((at * space.block_size, (stop - at) * space.block_size))
            at = space.bitmap.next_clear(stop)
        self.device.scribble(tuple(ranges))

    def hold(self, name: str) -> None:
        """Open a view, to be looked at later."""
        view = self.store.at(name)
        self._held.append((name, view, dict(self.model.everything()[name])))

    def let_go(self) -> None:
        """Close all views; none has changed, whatever is in free blocks."""
        if self._held:
            self.scribble()
        for name, view, items in self._held:
            if view_items(view) != items:
                raise Wrong(f"an open view of {name} has changed")
            view.close()
        self._held.clear()

    def drop_views(self) -> None:
        """Close all views, whatever they show."""
        for _, view, _ in self._held:
            view.close()
        self._held.clear()
