"""What the image holds is shown for people who debug, even where it is damaged."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Cowfs

BLOCK = 4096


@pytest.fixture
def full(cowfs: Cowfs, image: str) -> str:
    """An image with a tree of some height, and a large value."""
    cowfs("create", image, "a", "--kind", "kv")
    for number in range(30):
        cowfs("put", image, "a", f"key{number:02}", input=os.urandom(1000))
    cowfs("put", image, "a", "large", input=os.urandom(300_000))
    cowfs("snapshot", image, "a@x")
    return image


def test_superblocks_are_shown_slot_by_slot(cowfs: Cowfs, full: str) -> None:
    lines = cowfs("dump", full, "superblocks").lines
    start = next(n for n, line in enumerate(lines) if line.split()[0] == "BLOCK")
    states = [line.split()[-1] for line in lines[start + 1 :]]
    assert len(states) == 16 and states.count("newest") == 2
    assert set(states) <= {"newest", "sound", "empty"}


def test_the_log_is_shown_record_by_record(cowfs: Cowfs, full: str) -> None:
    head, first, *_ = cowfs("dump", full, "log").lines
    assert head.split()[:3] == ["BLOCK", "TRANSACTION", "DURABLE"]
    assert "checkpoint" in first


def test_a_tree_is_shown_down_to_its_data(cowfs: Cowfs, full: str) -> None:
    lines = cowfs("dump", full, "tree", "a").lines
    assert lines[0].startswith("level 1 at block ") and "31 items" in lines[0]
    assert any(re.match(r"  level 0 at block \d+", line) for line in lines)
    assert sum("data at block" in line for line in lines) == 3
    assert cowfs("dump", full, "tree", "a@x").lines == lines
    assert cowfs("dump", full, "tree", "(catalog)").out
    assert cowfs("dump", full, "tree", "(space map)").out
    cowfs("create", full, "empty")
    assert cowfs("dump", full, "tree", "empty").out == "empty: no nodes\n"


def test_a_block_is_shown_with_what_is_in_it(cowfs: Cowfs, full: str) -> None:
    lines = cowfs("dump", full, "tree", "a").lines
    for text, expected in ((lines[0], "level 0"), (lines[1], "'key00'"), (lines[-1], "checksum")):
        found = re.search(r"block (\d+)", text)
        assert found
        assert expected in cowfs("dump", full, "node", found[1]).out
    assert "no node" in cowfs.fails("dump", full, "node", "0")


def test_what_is_damaged_is_shown_as_such(cowfs: Cowfs, full: str) -> None:
    line = next(s for s in cowfs("dump", full, "tree", "a").lines if "level 0" in s)
    found = re.search(r"block (\d+)", line)
    assert found
    with Path(full).open("r+b") as file:
        file.seek(int(found[1]) * BLOCK)
        file.write(bytes(100))
        file.seek(256 * BLOCK + 100)
        file.write(b"damage")
    assert "DAMAGED: the checksum does not match" in cowfs("dump", full, "tree", "a").out
    assert "DAMAGED" in cowfs("dump", full, "node", found[1]).out
    assert "damaged" in cowfs("dump", full, "superblocks").out


def test_wrong_usage_of_dump(cowfs: Cowfs, full: str) -> None:
    for arguments in (["tree"], ["node"], ["log", "x"], ["node", "x"], ["node", "-1"], ["blocks"]):
        cowfs.fails("dump", full, *arguments, code=2)
    assert "no dataset 'b'" in cowfs.fails("dump", full, "tree", "b")
    assert "no snapshot 'y'" in cowfs.fails("dump", full, "tree", "a@y")
