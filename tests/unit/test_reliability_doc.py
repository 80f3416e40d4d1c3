"""What docs/reliability.md names is there: the steps of the model, and what does them in cowfs."""

from __future__ import annotations

import re
from pathlib import Path

from model.protocol import Protocol

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "reliability.md").read_text()


def sources(directory: str) -> str:
    """All source text below a directory."""
    paths = sorted((ROOT / directory).rglob("*"))
    return "\n".join(path.read_text() for path in paths if path.suffix in (".py", ".pyx"))


def test_each_step_of_the_model_has_its_function() -> None:
    rows = [line.split("|") for line in TEXT[TEXT.index("| step of the model") :].splitlines()[2:]]
    source = sources("cowfs")
    assert len(rows) > 8
    for _, steps, _, functions, _ in rows:
        for step in re.findall(r"`(\w+)`", steps):
            assert hasattr(Protocol, step), step
        for name in re.findall(r"`([\w.]+)`", functions):
            owner, _, method = name.rpartition(".")
            assert re.search(rf"\bdef {method}\b", source), name
            assert not owner[0].isupper() or re.search(rf"^(cdef )?class {owner}\b", source, re.M)


def test_the_tests_it_names_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    assert named
    assert not named - set(re.findall(r"def (test_\w+)", sources("tests")))


def test_the_files_it_names_exist() -> None:
    named = set(re.findall(r"`((?:tests|tools)/[\w/.]+)`", TEXT))
    assert named
    assert not {name for name in named if not (ROOT / name).exists()}
