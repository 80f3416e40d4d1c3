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
    lines = cowfs("rewind", image).lines
    assert len([line for line in lines if line[0] != " "]) == len(found)
    values = set()
    for one in found:
        if not one["intact"]:
            assert "damaged" in cowfs.fails("rewind", image, "--to", str(one["sequence"]))
            continue
        shutil.copy(image, "copy.cow")  # going back may overwrite what others led to
        lines = cowfs("rewind", "copy.cow", "--to", str(one["sequence"])).lines
        assert lines[0] == f"went back to transaction {one['txid']}; all after it are lost"
        cowfs("check", "copy.cow")
        with library.open("copy.cow") as store:
            values.add(store["a"][b"k"] if "a" in store and b"k" in store["a"] else b"")
    assert {b"new", b"old"} <= values


def test_an_unknown_superblock_is_refused(cowfs: Cowfs, image: str) -> None:
    assert "no superblock 777" in cowfs.fails("rewind", image, "--to", "777")


def test_says_what_is_lost(cowfs: Cowfs, image: str) -> None:
    cowfs("create", image, "a", "--kind", "kv")
    cowfs("snapshot", image, "a@x")
    cowfs("create", image, "b", "--kind", "kv")
    newest, before, *_ = json.loads(cowfs("rewind", image, "--json").out)
    assert newest["loses"] == newest["brings_back"] == []
    assert before["loses"] == ["b"]
    lost = f"transactions {before['txid'] + 1} to {newest['txid']}"
    lines = cowfs("rewind", image).lines
    at = next(n for n, line in enumerate(lines) if line.startswith(f"{before['sequence']}  "))
    assert lines[at + 1 : at + 3] == [f"    loses: {lost}", "    without: b"]
    lines = cowfs("rewind", image, "--to", str(before["sequence"])).lines
    assert lines[1:] == [f"    lost: {lost}", "    without: b"]
    with library.open(image) as store:
        assert list(store) == ["a"]


def test_an_image_that_is_held_is_left_alone(cowfs: Cowfs, image: str) -> None:
    (found, *_) = json.loads(cowfs("rewind", image, "--json").out)
    with library.open(image):
        assert "holds the image" in cowfs.fails("rewind", image, "--to", str(found["sequence"]))
    with library.open(image, "w"):
        assert "holds the image" in cowfs.fails("rewind", image)
