"""docs/library.md has every public class, method, field and error."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

import cowfs

TEXT = (Path(__file__).parents[2] / "docs" / "library.md").read_text()
QUOTED = " ".join(re.findall(r"`([^`\n]+)`", TEXT))

INTERNAL = {
    "Store": "abandon begin begin_still catalog_tree change change_size check_idle "
    "check_stays_open durable_txid end failure load load_checkpoint make make_object "
    "mend mend_still open_change open_view own_blocks pinned pinned_version "
    "space_tree still tree_of view_root",
    "Transaction": "changed changed_otherwise changed_trees committed note_size "
    "note_volume_size prepare_space store_trees tree turn",
    "KV": "",
    "FS": "reading writing",
    "Volume": "write_records",
}
"""What layers below the user's use of each other."""


@pytest.mark.parametrize("name", INTERNAL)
def test_every_method_is_described(name: str) -> None:
    public = {method for method in dir(getattr(cowfs, name)) if not method.startswith("_")}
    internal = set(INTERNAL[name].split())
    assert not internal - public, "not there any more"
    missing = {m for m in public - internal if not re.search(rf"\b{m}\b", QUOTED)}
    assert not missing


def test_everything_that_can_be_imported_is_described() -> None:
    assert not {name for name in cowfs.__all__ if not re.search(rf"\b{name}\b", TEXT)}


@pytest.mark.parametrize(
    "name", ["Change", "Entry", "Fault", "Parameters", "Reader", "Report", "SpaceReport"]
)
def test_every_field_is_described(name: str) -> None:
    names = {field.name for field in dataclasses.fields(getattr(cowfs, name))}
    assert not {name for name in names if not re.search(rf"\b{name}\b", QUOTED)}
