"""The places that hold trees of files in the `trees` suite: one module each, behind `base`."""

from importlib import import_module

from benchmark.filetrees.base import FileTrees

NAMES = ("cowfs", "btrfs", "archive", "host")


def file_trees_class(name: str) -> type[FileTrees]:
    """The adapter of that name."""
    found: type[FileTrees] = import_module(f"benchmark.filetrees.{name}").FILE_TREES
    return found
