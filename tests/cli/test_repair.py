"""Images with two copies of their trees, at the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import cowfs as library

if TYPE_CHECKING:
    from tests.cli.conftest import Cowfs


def test_scrub_repairs_what_has_a_second_copy(
    cowfs: Cowfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image = tmp_path / "two.cow"
    cowfs("mkfs", image, "--metadata-copies", "2")
    cowfs("create", image, "map", "--kind", "kv")
    cowfs("put", image, "map", "key", "value")
    assert "copies        2" in cowfs("info", image).lines
    with library.open(image, "r") as store:
        ref = store.catalog_tree.ref
        assert ref is not None
        block = int.from_bytes(ref[:8], "little")
    with image.open("r+b") as file:
        file.seek(block * 4096 + 40)
        file.write(b"damage")
    assert cowfs.result("get", image, "map", "key").raw.startswith(b"value")
    checked = cowfs.result("check", image)
    assert checked.code == 1 and "'cowfs scrub' repairs it" in checked.out
    scrubbed = cowfs.result("scrub", image)
    assert scrubbed.code == 0 and scrubbed.lines == [
        f"(catalog): block {block}: the checksum does not match: repaired from the second copy",
        "1 repaired",
    ]
    cowfs("check", image)
