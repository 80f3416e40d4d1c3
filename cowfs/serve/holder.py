"""Live control of an image that is served: what others ask for, with care for the clients.

What clients have written and nobody has committed is in no snapshot and no diff: `settle` commits
it. What is served stays as it is known to clients: nobody replaces, renames or destroys it, and it
may grow, which those that connect later see, but does not shrink.
"""

from __future__ import annotations

from cowfs.control import Holder

from .exports import Exports


class ServingHolder(Holder):
    """A store of which volumes are served. Everything here runs in threads of live control."""

    def __init__(self, exports: Exports) -> None:
        super().__init__(exports.store)
        self._exports = exports

    def settle(self, datasets: set[str]) -> None:
        self._exports.settle()

    def resize(self, name: str, size: int) -> None:
        if name in self._exports.volumes:
            self._exports.grow(name, size)
        else:
            super().resize(name, size)

    def check_unused(self, dataset: str) -> None:
        self._exports.check_unused(dataset)
