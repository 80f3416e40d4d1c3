"""The stores that a suite can run on: one module each, behind the interface in `base`."""

from importlib import import_module

from benchmark.engines.base import Engine

NAMES = ("cowfs", "lmdb", "sqlite", "rocksdb", "raw")
BY_NAME_ONLY = ("twins",)
"""Engines that only run where they are asked for."""


def engine_class(name: str) -> type[Engine]:
    """The adapter of that name; imported only when asked for, as its package may not be there."""
    engine: type[Engine] = import_module(f"benchmark.engines.{name}").ENGINE
    return engine
