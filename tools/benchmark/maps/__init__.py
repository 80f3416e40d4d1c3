"""The maps of the `pause` suite, which change while a snapshot is taken: one module each."""

from importlib import import_module

from benchmark.maps.base import ChangingMap

NAMES = ("cowfs", "redis")


def map_class(name: str) -> type[ChangingMap]:
    """The adapter of that name."""
    found: type[ChangingMap] = import_module(f"benchmark.maps.{name}").MAP
    return found
