"""The images of block devices in the `blocks` suite: one module each, behind `base`."""

from importlib import import_module

from benchmark.volumes.base import Volume

NAMES = ("cowfs", "qcow2")


def volume_class(name: str) -> type[Volume]:
    """The adapter of that name."""
    found: type[Volume] = import_module(f"benchmark.volumes.{name}").VOLUME
    return found
