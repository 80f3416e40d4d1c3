"""cowfs rewind: what it lists, and the way back."""

from __future__ import annotations

import json
import shutil

import cowfs as library

from .conftest import Cowfs


def test_lists_superblocks_and_goes_back(cowfs: Cowfs, image: str) -> None:
    cowfs("create", image, "a", "--kind", "kv")
    cowfs("put", image, "a", "k", "old")
    cowfs("put", image, "a", "k", "new")
    found = json.loads(cowfs("rewind", image, "--json").out)
    assert [one["sequence"] for one in found] == sorted(
        (one["sequence"] for one in found), reverse=True
    )
    assert found[0]["intact"]
    assert len(cowfs("rewind", image).lines) == len(found)
    values = set()
    for one in found:
        if not one["intact"]:
            assert "damaged" in cowfs.fails("rewind", image, "--to", str(one["sequence"]))
            continue
        shutil.copy(image, "copy.cow")  # going back may overwrite what others led to
        out = cowfs("rewind", "copy.cow", "--to", str(one["sequence"])).out
        assert out == f"went back to transaction {one['txid']}; all after it are lost\n"
        cowfs("check", "copy.cow")
        with library.open("copy.cow") as store:
            values.add(store["a"][b"k"] if "a" in store and b"k" in store["a"] else b"")
    assert {b"new", b"old"} <= values


def test_an_unknown_superblock_is_refused(cowfs: Cowfs, image: str) -> None:
    assert "no superblock 777" in cowfs.fails("rewind", image, "--to", "777")
