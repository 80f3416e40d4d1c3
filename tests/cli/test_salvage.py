"""cowfs check --salvage: what is printed, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import cowfs as library
from cowfs.format import unpack_pointer

from .conftest import Cowfs


def damage(image: str, name: str) -> int:
    """Spoil the root of a dataset; its block."""
    with library.open(image) as store, store.pinned("test") as catalog:
        ref = catalog.resolve(name).ref
        assert ref is not None
        block = unpack_pointer(ref).block
    with open(image, "r+b") as file:
        file.seek(block * 4096)
        file.write(b"damage")
    return block


def test_a_sound_image_loses_nothing(cowfs: Cowfs, image: str) -> None:
    cowfs("create", image, "home")
    Path("file").write_text("content")
    cowfs("cp", "file", f"{image}:home/file")
    cowfs("snapshot", image, "home@x")
    lines = cowfs("check", "--salvage", "out", image).lines
    assert len(lines) == 1
    assert lines[0].startswith("2 datasets and snapshots as of transaction ")
    assert Path("out/home/@/files/file").read_text() == "content"
    assert Path("out/home/@x/files/file").read_text() == "content"


def test_what_is_lost_is_named_and_the_rest_comes(cowfs: Cowfs, image: str) -> None:
    for name in ("a", "b"):
        cowfs("create", image, name, "--kind", "kv")
        cowfs("put", image, name, "k", "v")
    block = damage(image, "a")
    result = cowfs.result("check", "--salvage", "out", image)
    assert result.code == 1
    assert result.lines[0] == f"a: all keys: block {block}: the checksum does not match"
    assert result.err == f"cowfs: {image}: 1 loss; what verifies is in out\n"
    assert Path("out/b/@/map.dump").read_bytes().splitlines()[-3:] == [b" 6b", b" 76", b"DATA=END"]
    result = cowfs.result("check", "--salvage", "again", image, "--json")
    assert result.code == 1
    found = json.loads(result.out)
    assert not found["ok"] and found["versions"] == 2
    assert found["losses"] == [
        {
            "dataset": "a",
            "what": "all keys",
            "start": None,
            "stop": None,
            "block": block,
            "reason": "the checksum does not match",
        }
    ]


def test_a_directory_with_something_in_it_is_refused(cowfs: Cowfs, image: str) -> None:
    message = cowfs.fails("check", "--salvage", ".", image, code=2)
    assert "name a directory that is new or empty" in message
