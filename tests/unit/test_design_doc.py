"""What docs/design.md names is there: functions, files and tests."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "design.md").read_text()
QUOTED = re.findall(r"`([^`\n]+)`", TEXT)


def files(directory: str) -> list[str]:
    """The source files below a directory; what a compiled module declares is part of it."""
    paths = sorted((ROOT / directory).rglob("*"))
    texts = [path.read_text() for path in paths if path.suffix == ".py"]
    for path in paths:
        if path.suffix == ".pyx":
            declared = path.with_suffix(".pxd")
            texts.append(path.read_text() + (declared.read_text() if declared.exists() else ""))
    return texts


def sources(directory: str) -> str:
    """All source text below a directory."""
    return "\n".join(files(directory))


def test_tests_that_the_design_names_exist() -> None:
    known = set(re.findall(r"def (test_\w+)", sources("tests")))
    named = {name for name in QUOTED if re.fullmatch(r"test_\w+", name)}
    assert len(named) > 15
    assert not named - known


def test_files_that_the_design_names_exist() -> None:
    named = {name for name in QUOTED if re.fullmatch(r"[\w/]+\.(py|pyx)|\w+/", name)}
    missing = {n for n in named if not (ROOT / "cowfs" / n).exists() and not (ROOT / n).exists()}
    assert not missing


def test_functions_that_the_design_names_exist() -> None:
    texts = files("cowfs")
    named = {name for name in QUOTED if re.fullmatch(r"(\w+\.)+\w+", name)} - {
        name for name in QUOTED if re.search(r"\.(py|pyx)$", name)
    }
    assert len(named) > 20
    missing = set()
    for name in named:
        owner, _, attribute = name.rpartition(".")
        where = rf"class {owner}\b" if owner[:1].isupper() else ""
        known = (rf"def {attribute}\b", rf"\b{attribute}\(", rf"^\s*(self\.)?{attribute}\b.*[:=]")
        if not any(
            re.search(pattern, text, re.MULTILINE)
            for text in texts
            if re.search(where, text)
            for pattern in (*known, rf"^\s*cdef .*\b{attribute}$")
        ):
            missing.add(name)
    assert not missing


def test_every_module_has_a_place_in_the_order_of_reading() -> None:
    table = TEXT[TEXT.index("## The order in which") : TEXT.index("## Nodes")]
    modules = {path.name for path in (ROOT / "cowfs").glob("*.py*") if path.suffix != ".pyi"}
    missing = {name for name in modules if f"`{name}`" not in table} - {"__main__.py"}
    assert not {name for name in missing if name.endswith((".py", ".pyx"))}
