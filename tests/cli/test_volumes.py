"""Volumes from the command line: made, resized, copied to and from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..plain import noise

if TYPE_CHECKING:
    from tests.cli.conftest import Cowfs

MIB = 1 << 20


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """An image of a disk, mostly holes."""
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(64 * MIB + 512)
        file.seek(5 * MIB)
        file.write(noise(300_000))
    return path


def size_of(cowfs: Cowfs, image: str, name: str) -> int:
    entries = json.loads(cowfs("list", image, "--json").out)
    (size,) = (entry["size"] for entry in entries if entry["name"] == name)
    assert isinstance(size, int)
    return size


def test_a_raw_file_goes_in_and_comes_out_as_it_was(cowfs: Cowfs, image: str, raw: Path) -> None:
    cowfs("create", image, "vm/disk", "--kind", "volume", "--size", "1M", "--record-size", "4K")
    cowfs("cp", raw, f"{image}:vm/disk")
    assert size_of(cowfs, image, "vm/disk") == raw.stat().st_size
    cowfs("snapshot", image, "vm/disk@one")
    cowfs("cp", f"{image}:vm/disk", "copy.raw")
    assert Path("copy.raw").read_bytes() == raw.read_bytes()
    assert Path("copy.raw").stat().st_blocks * 512 < MIB
    Path("dir").mkdir()
    cowfs("cp", f"{image}:vm/disk@one", "dir")
    assert Path("dir/disk@one").read_bytes() == raw.read_bytes()
    cowfs("check", image)


@pytest.mark.parametrize("other", [False, True])
def test_a_volume_is_copied_to_another(cowfs: Cowfs, image: str, raw: Path, other: bool) -> None:
    target = "other.cow" if other else image
    if other:
        cowfs("mkfs", target)
    cowfs("create", image, "a", "--kind", "volume", "--size", "1M")
    cowfs("cp", raw, f"{image}:a")
    cowfs("create", target, "b", "--kind", "volume", "--size", "999M", "--record-size", "64K")
    cowfs("cp", f"{image}:a", f"{target}:b")
    cowfs("cp", f"{target}:b", "copy.raw")
    assert Path("copy.raw").read_bytes() == raw.read_bytes()
    assert size_of(cowfs, target, "b") == raw.stat().st_size


def test_resize_cuts_and_grows(cowfs: Cowfs, image: str, raw: Path) -> None:
    cowfs("create", image, "a", "--kind", "volume", "--size", "1M")
    cowfs("cp", raw, f"{image}:a")
    cowfs("snapshot", image, "a@before")
    cowfs("resize", image, "a", "5.125M")
    cowfs("resize", image, "a", "6M")
    cowfs("cp", f"{image}:a", "copy.raw")
    left = raw.read_bytes()[: 5 * MIB + MIB // 8]
    assert Path("copy.raw").read_bytes() == left.ljust(6 * MIB, b"\0")
    cowfs("rollback", image, "a@before")
    assert size_of(cowfs, image, "a") == raw.stat().st_size


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["cp", "disk.raw", "t.cow:a/x"], 2, "a volume has no files"),
        (["cp", "t.cow:a/x", "copy"], 2, "a volume has no files"),
        (["cp", "disk.raw", "disk.raw", "t.cow:a"], 2, "of one source only"),
        (["cp", "t.cow:a", "t.cow:a"], 2, "onto itself"),
        (["cp", "t.cow:files/x", "t.cow:a"], 2, "a volume has no files"),
        (["cp", "t.cow:files", "t.cow:a"], 1, "files is no volume"),
        (["cp", "/dev/null", "t.cow:a"], 2, "from a file or a disk"),
        (["cp", ".", "t.cow:a"], 1, "Is a directory"),
        (["cp", "disk.raw", "t.cow:a@x"], 1, "a@x is a snapshot"),
        (["resize", "t.cow", "a", "0"], 2, "a volume has 1 byte to 4E"),
        (["resize", "t.cow", "a@x", "1G"], 1, "a@x is a snapshot"),
        (["resize", "t.cow", "files", "1G"], 1, "files is no volume"),
        (["resize", "t.cow", "b", "1G"], 1, "no dataset 'b'"),
        (["create", "t.cow", "b", "--record-size", "4K"], 2, "--record-size is for volumes"),
        (
            ["create", "t.cow", "b", "--kind", "volume", "--size", "1", "--record-size", "3K"],
            2,
            "4K",
        ),
    ],
)
def test_what_cannot_be_is_one_clear_line(
    cowfs: Cowfs, image: str, raw: Path, words: list[str], code: int, expected: str
) -> None:
    cowfs("create", image, "a", "--kind", "volume", "--size", "1M")
    cowfs("create", image, "files")
    cowfs("snapshot", image, "a@x")
    assert expected in cowfs.fails(*words, code=code)
    assert size_of(cowfs, image, "a") == MIB
