"""Images, datasets, snapshots and what is shown of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Cowfs

KIB = 1024
MIB = KIB * KIB


def entries(cowfs: Cowfs, image: str) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in json.loads(cowfs("list", image, "--json").out)}


def fact(cowfs: Cowfs, image: str, name: str) -> Any:
    return json.loads(cowfs("info", image, "--json").out)[name]


# --- mkfs and info ------------------------------------------------------------------------------


def test_a_label_cannot_write_to_the_terminal(cowfs: Cowfs, tmp_path: Path) -> None:
    cowfs("mkfs", tmp_path / "a.cow", "--label", "a\n\x1b[31m")
    assert r"label         a\x0a\x1b[31m" in cowfs("info", tmp_path / "a.cow").lines


def test_mkfs_makes_what_it_is_asked_for(cowfs: Cowfs, tmp_path: Path) -> None:
    image = tmp_path / "a.cow"
    cowfs(
        "mkfs", image, "--size", "64M", "--block-size", "16K", "--node-size", "32KiB",
        "--compression", "none", "--label", "größe",
    )  # fmt: skip
    facts = json.loads(cowfs("info", image, "--json").out)
    assert facts["size_limit"] == 64 * MIB
    assert (facts["block_size"], facts["node_size"]) == (16 * KIB, 32 * KIB)
    assert (facts["compression"], facts["label"]) == ("none", "größe")
    assert facts["image"] == str(image)
    lines = dict(line.split("  ", 1) for line in cowfs("info", image).lines)
    assert lines["size limit"].strip() == "64M"
    assert lines["uuid        ".strip()].strip() == facts["uuid"]


def test_mkfs_without_size_makes_an_image_that_grows(cowfs: Cowfs, image: str) -> None:
    assert fact(cowfs, image, "size_limit") is None
    assert "grows as needed" in cowfs("info", image).out


def test_mkfs_keeps_what_is_there_unless_forced(cowfs: Cowfs, image: str) -> None:
    cowfs("create", image, "a")
    before = fact(cowfs, image, "uuid")
    assert "--force" in cowfs.fails("mkfs", image)
    assert fact(cowfs, image, "uuid") == before
    cowfs("mkfs", image, "--force")
    assert fact(cowfs, image, "uuid") != before
    assert entries(cowfs, image) == {}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--size", "1"], "size"),
        (["--size", "0"], "size"),
        (["--size", "7.9E"], "size"),
        (["--block-size", "5000"], "4K, 8K, 16K, 32K, 64K"),
        (["--block-size", "0"], "4K, 8K, 16K, 32K, 64K"),
        (["--node-size", "1M"], "4K, 8K, 16K, 32K"),
        (["--label", "x" * 65], "label"),
    ],
)
def test_mkfs_refuses_absurd_sizes_and_leaves_nothing(
    cowfs: Cowfs, tmp_path: Path, arguments: list[str], line: str
) -> None:
    assert line in cowfs.fails("mkfs", tmp_path / "a.cow", *arguments, code=2)
    assert os.listdir(tmp_path) == []


def test_a_refused_mkfs_leaves_the_file_that_is_there(cowfs: Cowfs, image: str) -> None:
    before = Path(image).read_bytes()
    cowfs.fails("mkfs", image, "--force", "--size", "1", code=2)
    assert Path(image).read_bytes() == before


def test_mkfs_writes_over_files_only(cowfs: Cowfs, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("dir", "fifo", "/dev/null"):
        assert "file" in cowfs.fails("mkfs", tmp_path / name, "--force", code=2)
    assert "link" in cowfs.fails("mkfs", tmp_path / "link", "--force")
    assert "the directory does not exist" in cowfs.fails("mkfs", tmp_path / "no" / "a.cow")


# --- datasets and snapshots ---------------------------------------------------------------------


def test_create_makes_each_kind(cowfs: Cowfs, image: str) -> None:
    cowfs("create", image, "files")
    cowfs("create", image, "map", "--kind", "kv")
    cowfs("create", image, "disk", "--kind", "volume", "--size", "1G")
    kinds = {name: entry["kind"] for name, entry in entries(cowfs, image).items()}
    assert kinds == {"files": "fs", "map": "kv", "disk": "volume"}
    assert entries(cowfs, image)["disk"]["logical"] >= 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["a", "--kind", "volume"], "--size"),
        (["a", "--size", "1G"], "--size is for volumes"),
        (["a", "--kind", "volume", "--size", "0"], "size"),
        (["a b"], "allowed are"),
        (["a@x"], "allowed are"),
        (["/a"], "allowed are"),
        (["a//b"], "allowed are"),
        (["a/"], "allowed are"),
        ([""], "allowed are"),
        (["ä"], "allowed are"),
        (["x" * 201], "allowed are"),
    ],
)
def test_create_says_what_is_allowed(
    cowfs: Cowfs, image: str, arguments: list[str], line: str
) -> None:
    assert line in cowfs.fails("create", image, *arguments, code=2)
    assert entries(cowfs, image) == {}


def test_a_name_is_taken_once(cowfs: Cowfs, image: str) -> None:
    cowfs("create", image, "a")
    assert "'a' exists" in cowfs.fails("create", image, "a")
    cowfs("snapshot", image, "a@x")
    assert "a@x" in cowfs.fails("snapshot", image, "a@x")
    assert "'a' exists" in cowfs.fails("clone", image, "a@x", "a")


def test_snapshots_of_one_call_are_all_made_or_none(cowfs: Cowfs, image: str) -> None:
    cowfs("create", image, "a")
    cowfs("create", image, "b")
    cowfs("snapshot", image, "a@x", "b@x")
    assert {"a", "a@x", "b", "b@x"} == entries(cowfs, image).keys()
    cowfs.fails("snapshot", image, "a@y", "b@x")
    cowfs.fails("snapshot", image, "a@y", "nothing@y")
    cowfs.fails("snapshot", image, "a@y", "b", code=2)
    assert {"a", "a@x", "b", "b@x"} == entries(cowfs, image).keys()


def test_rollback_keeps_later_snapshots_and_what_is_asked_for(cowfs: Cowfs, image: str) -> None:
    cowfs("create", image, "a", "--kind", "kv")
    for moment in ("first", "second"):
        cowfs("put", image, "a", "k", moment)
        cowfs("snapshot", image, f"a@{moment}")
    cowfs("put", image, "a", "k", "third")
    cowfs("rollback", image, "a@first", "--keep", "third")
    assert cowfs("get", image, "a", "k").out == "first"
    assert cowfs("get", image, "a@second", "k").out == "second"
    cowfs("rollback", image, "a@third")
    assert cowfs("get", image, "a", "k").out == "third"


def test_a_clone_outlives_where_it_came_from(cowfs: Cowfs, image: str) -> None:
    cowfs("create", image, "a", "--kind", "kv")
    cowfs("put", image, "a", "k", "v")
    cowfs("snapshot", image, "a@x")
    cowfs("clone", image, "a@x", "b")
    cowfs("put", image, "b", "k", "w")
    assert cowfs("get", image, "a", "k").out == "v"
    cowfs("destroy", image, "a@x", "a")
    assert cowfs("get", image, "b", "k").out == "w"
    assert entries(cowfs, image).keys() == {"b"}


def test_rename_takes_snapshots_along(cowfs: Cowfs, image: str) -> None:
    cowfs("create", image, "a")
    cowfs("snapshot", image, "a@x")
    cowfs("rename", image, "a", "b")
    assert entries(cowfs, image).keys() == {"b", "b@x"}
    cowfs("rename", image, "b@x", "b@y")
    assert entries(cowfs, image).keys() == {"b", "b@y"}


def test_destroy_takes_snapshots_only_when_asked(cowfs: Cowfs, image: str) -> None:
    cowfs("create", image, "a")
    cowfs("create", image, "b")
    cowfs("snapshot", image, "a@x")
    assert "snapshot" in cowfs.fails("destroy", image, "b", "a", code=2)
    assert entries(cowfs, image).keys() == {"a", "a@x", "b"}
    cowfs("destroy", image, "-r", "a")
    assert entries(cowfs, image).keys() == {"b"}


@pytest.mark.parametrize(
    "command",
    [
        ["snapshot", "IMAGE", "homes@x"],
        ["rollback", "IMAGE", "homes@x"],
        ["clone", "IMAGE", "homes@x", "new"],
        ["rename", "IMAGE", "homes", "new"],
        ["destroy", "IMAGE", "homes"],
        ["diff", "IMAGE", "homes@x"],
        ["get", "IMAGE", "homes", "k"],
        ["scan", "IMAGE", "homes"],
        ["put", "IMAGE", "homes", "k", "v"],
        ["ls", "IMAGE:homes/x"],
        ["rm", "IMAGE:homes/x"],
        ["cp", "IMAGE:homes/x", "."],
    ],
    ids=lambda command: command[0],
)
def test_a_wrong_dataset_name_brings_the_nearest_ones(
    cowfs: Cowfs, image: str, command: list[str]
) -> None:
    cowfs("create", image, "home")
    cowfs("create", image, "other")
    line = cowfs.fails(
        *(word.replace("IMAGE", image) for word in command), code=2 if command[0] == "diff" else 1
    )
    assert line == f"{image}: no dataset 'homes'; did you mean 'home'?"


@pytest.mark.parametrize(
    "command",
    [
        ["rollback", "IMAGE", "a@friday"],
        ["clone", "IMAGE", "a@friday", "new"],
        ["destroy", "IMAGE", "a@friday"],
        ["diff", "IMAGE", "a@friday"],
        ["get", "IMAGE", "a@friday", "k"],
    ],
    ids=lambda command: command[0],
)
def test_a_missing_snapshot_brings_those_that_there_are(
    cowfs: Cowfs, image: str, command: list[str]
) -> None:
    cowfs("create", image, "a", "--kind", "kv")
    cowfs("snapshot", image, "a@monday")
    line = cowfs.fails(
        *(word.replace("IMAGE", image) for word in command), code=2 if command[0] == "diff" else 1
    )
    assert "friday" in line and "monday" in line


# --- list and df --------------------------------------------------------------------------------


def test_list_shows_sizes_short_or_exact(cowfs: Cowfs, image: str) -> None:
    cowfs("create", image, "a", "--kind", "kv")
    cowfs("put", image, "a", "k", input=os.urandom(3 * MIB // 2))
    cowfs("snapshot", image, "a@x")
    head, line, _ = cowfs("list", image).lines
    cells = dict(zip(head.split(), line.split(), strict=False))
    assert cells["NAME"] == "a" and cells["LOGICAL"] == "1.5M"
    exact = dict(zip(head.split(), cowfs("list", image, "--bytes").lines[1].split(), strict=False))
    assert int(exact["LOGICAL"]) == entries(cowfs, image)["a"]["logical"]
    assert 3 * MIB // 2 <= int(exact["LOGICAL"]) < 3 * MIB // 2 + 100


def test_df_shows_what_snapshots_pin_and_what_destroying_them_frees(
    cowfs: Cowfs, image: str
) -> None:
    def space() -> Any:
        return json.loads(cowfs("df", image, "--json").out)

    cowfs("create", image, "a", "--kind", "kv")
    cowfs("put", image, "a", "k", input=os.urandom(4 * MIB))
    assert 4 * MIB <= space()["live"] < 5 * MIB and space()["pinned"] == 0
    cowfs("snapshot", image, "a@x")
    cowfs("del", image, "a", "k")
    assert 4 * MIB <= space()["pinned"] < 5 * MIB and space()["live"] < MIB
    assert entries(cowfs, image)["a@x"]["exclusive"] >= 4 * MIB
    cowfs("destroy", image, "a@x")
    assert space()["pinned"] == 0
    lines = cowfs("df", image).lines
    assert lines[0].split() == ["SPACE", "SIZE", "SHARE", "WHAT"]
    assert {"live", "pinned", "reclaimable", "metadata", "free", "reserve"} <= {
        line.split()[0] for line in lines
    }
    assert int(cowfs("df", image, "--bytes").lines[1].split()[1]) == space()["live"]


# --- diff ---------------------------------------------------------------------------------------


def test_diff_lists_changes_by_key_and_says_by_its_exit_code(cowfs: Cowfs, image: str) -> None:
    cowfs("create", image, "a", "--kind", "kv")
    for key in ("changed", "gone", "same"):
        cowfs("put", image, "a", key, "1")
    cowfs("snapshot", image, "a@x")
    assert cowfs("diff", image, "a@x").out == ""
    assert (
        cowfs("diff", image, "a@x", "--stat").out == "0 added, 0 removed, 0 modified, 0 renamed\n"
    )
    cowfs("put", image, "a", r"new\x00", "1")
    cowfs("put", image, "a", "changed", "2")
    cowfs("del", image, "a", "gone")
    lines = ["M changed", "- gone", r"+ new\x00"]
    assert cowfs("diff", image, "a@x", code=1).lines == lines
    cowfs("snapshot", image, "a@y")
    assert cowfs("diff", image, "a@x", "a@y", code=1).lines == lines
    assert cowfs("diff", image, "a@y", "a@x", code=1).lines == [
        "M changed", "+ gone", r"- new\x00",
    ]  # fmt: skip
    assert cowfs("diff", image, "a@x", "--stat", code=1).out == (
        "1 added, 1 removed, 1 modified, 0 renamed\n"
    )
    assert json.loads(cowfs("diff", image, "a@x", "--stat", "--json", code=1).out) == {
        "added": 1,
        "removed": 1,
        "modified": 1,
        "renamed": 0,
    }
    assert [
        (change["op"], change["path"])
        for change in json.loads(cowfs("diff", image, "a@x", "--json", code=1).out)
    ] == [("M", "changed"), ("-", "gone"), ("+", r"new\x00")]
    assert json.loads(cowfs("diff", image, "a@y", "--json").out) == []


def test_trouble_of_diff_is_exit_code_2(cowfs: Cowfs, image: str) -> None:
    cowfs("create", image, "a")
    cowfs("create", image, "b", "--kind", "kv")
    cowfs("snapshot", image, "a@x", "b@x")
    assert "a@NAME" in cowfs.fails("diff", image, "a", code=2)
    assert "kind" in cowfs.fails("diff", image, "a@x", "b@x", code=2)
    cowfs.fails("diff", "nothing.cow", "a@x", code=2)
    cowfs.fails("diff", image, code=2)


# --- check and scrub ----------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["check", "scrub"])
def test_damage_is_a_line_by_dataset_and_block_and_exit_code_1(
    cowfs: Cowfs, image: str, command: str
) -> None:
    cowfs("create", image, "a", "--kind", "kv")
    secret = os.urandom(MIB)
    cowfs("put", image, "a", "k", input=secret)
    assert cowfs(command, image).out == ""
    data = bytearray(Path(image).read_bytes())
    at = data.index(secret[: 4 * KIB])
    data[at] ^= 1
    Path(image).write_bytes(data)
    result = cowfs.result(command, image)
    assert result.code == 1
    assert result.err == f"cowfs: {image}: 1 fault found\n"
    (line,) = result.lines
    assert line.startswith(f"a: block {at // (4 * KIB)}: ")
    report = json.loads(cowfs.result(command, image, "--json").out)
    assert report["faults"][0]["dataset"] == "a" and not report["ok"]
    assert "corrupt" in cowfs.fails("get", image, "a", "k")
