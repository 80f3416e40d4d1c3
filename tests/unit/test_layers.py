"""The layers of cowfs point one way: a module imports from its own layer and from those below.

LAYERS is the list, lowest first. A new module is given its place there.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "cowfs"

# One line a layer, lowest first. A package (cowfs/cli/) stands here under its own name.
# `__init__` is the public library: front ends use it, the engine never does.
LAYERS = [
    "errors limits report sizes host",
    "direct device",
    "codec",
    "format _bytes _pointer",
    "space spacemap counts bitmap _bitmap _ledger ledger",
    "_node _writer writer _view _tree",
    "blockio values blob treediff filecopy",
    "log secondlog reaper catalog session parameters recovery version durability transaction "
    "commit group engine",
    "kv fs volume diff stream check usage",
    "writeback",
    "store",
    "rewind salvage",
    "__init__",
    "control signals",
    "cli mount serve __main__",
]
LEVEL = {module: level for level, names in enumerate(LAYERS) for module in names.split()}

IMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+)?c?import\s+(\([^)]*\)|[^\n#]+)", re.MULTILINE)


def source_files() -> list[Path]:
    """Every module of cowfs, compiled ones and their declarations included."""
    return sorted(path for suffix in ("py", "pyx", "pxd") for path in PACKAGE.rglob(f"*.{suffix}"))


def module_name(path: Path) -> str:
    """The first name below cowfs, which has a place in LAYERS: `cli` for cowfs/cli/list.py."""
    return path.relative_to(PACKAGE).parts[0].split(".")[0]


def absolute_names(path: Path) -> Iterator[str]:
    """The full names that a source imports: `cowfs.tree.Tree` for `from .tree import Tree`."""
    package = ("cowfs", *path.relative_to(PACKAGE).parent.parts)
    for base, level, names in imports(path):
        parents = list(package[: len(package) - level + 1]) if level else []
        start = ".".join([*parents, *filter(None, [base])])
        yield from (f"{start}.{name}" if start else name for name in names)


def imports(path: Path) -> Iterator[tuple[str, int, list[str]]]:
    """(module, count of leading dots, names) for each import; Cython's by the shape of the line."""
    text = path.read_text()
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text, path)):
            if isinstance(node, ast.Import):
                yield "", 0, [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                yield node.module or "", node.level, [alias.name for alias in node.names]
        return
    for base, names in IMPORT.findall(text):
        listed = [name.split()[0] for name in names.strip("() \n").split(",") if name.strip()]
        yield base.lstrip("."), len(base) - len(base.lstrip(".")), listed


def imported_modules(path: Path) -> set[str]:
    """The modules of cowfs, as LAYERS names them, that a source imports."""
    known = {module_name(source) for source in source_files()}
    modules = set()
    for name in absolute_names(path):
        first, *rest = name.split(".")
        if first == "cowfs":
            modules.add(rest[0] if rest and rest[0] in known else "__init__")
    return modules


def test_every_module_has_a_layer() -> None:
    unknown = sorted({module_name(path) for path in source_files()} - LEVEL.keys())
    assert not unknown, f"Give these a layer in LAYERS of {Path(__file__).name}: {unknown}"


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    module = module_name(path)
    upward = {
        name: LAYERS[LEVEL[name]]
        for name in imported_modules(path)
        if LEVEL.get(name, 0) > LEVEL.get(module, len(LAYERS))
    }
    assert not upward, f"{module} (layer: {LAYERS[LEVEL[module]]}) reaches up to {upward}"
