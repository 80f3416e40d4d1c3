"""Keys and values: what goes in comes out, whatever its bytes."""

from __future__ import annotations

import json
import os
import pty
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import cowfs as library
from cowfs.cli import run
from cowfs.cli.escapes import show_text
from cowfs.cli.scan import PIECE
from cowfs.limits import WHOLE

if TYPE_CHECKING:
    from tests.cli.conftest import Cowfs, Start


@pytest.fixture
def kv(cowfs: Cowfs, image: str) -> str:
    cowfs("create", image, "a", "--kind", "kv")
    return image


def test_put_takes_its_value_from_where_it_is_told(cowfs: Cowfs, kv: str, tmp_path: Path) -> None:
    data = os.urandom(300_000)
    (tmp_path / "file").write_bytes(data)
    cowfs("put", kv, "a", "argument", "größe")
    cowfs("put", kv, "a", "input", input=data)
    cowfs("put", kv, "a", "dash", "-", input=b"")
    cowfs("put", kv, "a", "file", "--file", tmp_path / "file")
    cowfs("put", kv, "a", "empty", "")
    assert cowfs("get", kv, "a", "argument").raw == "größe".encode()
    assert cowfs("get", kv, "a", "input").raw == data
    assert cowfs("get", kv, "a", "dash").raw == b""
    assert cowfs("get", kv, "a", "file").raw == data
    assert cowfs("get", kv, "a", "empty").raw == b""


def test_put_replaces(cowfs: Cowfs, kv: str) -> None:
    for value in (b"x" * 200_000, b"short", b"y" * 5_000, b""):
        cowfs("put", kv, "a", "k", input=value)
        assert cowfs("get", kv, "a", "k").raw == value
    assert cowfs("scan", kv, "a").out == "k\t\n"


def test_odd_keys_are_given_as_they_are_shown(cowfs: Cowfs, kv: str) -> None:
    cowfs("put", kv, "a", r"a\x00\xff", r"literal \x41")
    cowfs("put", kv, "a", r"C:\temp", "path")
    assert cowfs("scan", kv, "a").lines == [
        r"C:\temp" + "\tpath",
        r"a\x00\xff" + "\t" + r"literal \x5cx41",
    ]
    assert cowfs("get", kv, "a", r"a\x00\xff").raw == rb"literal \x41"
    assert cowfs("scan", kv, "a", "--hex", "--prefix", "6100").out == (
        "6100ff\t6c69746572616c205c783431\n"
    )
    cowfs("put", kv, "a", "--hex", "00 01", "ff")
    assert cowfs("get", kv, "a", r"\x00\x01").raw == b"\xff"
    assert cowfs("get", kv, "a", "--hex", "0001").out == "ff\n"
    cowfs("del", kv, "a", "--hex", "0001", "6100ff")
    assert cowfs("scan", kv, "a", "--keys").lines == [r"C:\temp"]


def test_scan_shows_ranges_in_order(cowfs: Cowfs, kv: str) -> None:
    for key in ("a", "ab", "b", "c"):
        cowfs("put", kv, "a", key, key.upper())

    def keys(*options: str) -> str:
        return " ".join(cowfs("scan", kv, "a", "--keys", *options).lines)

    assert keys() == "a ab b c"
    assert keys("--reverse") == "c b ab a"
    assert keys("--prefix", "a") == "a ab"
    assert keys("--prefix", "a", "--reverse", "--limit", "1") == "ab"
    assert keys("--from", "ab", "--to", "c") == "ab b"
    assert keys("--from", "b") == "b c"
    assert keys("--to", "b") == "a ab"
    assert keys("--limit", "2") == "a ab"
    assert keys("--limit", "0") == ""
    assert json.loads(cowfs("scan", kv, "a", "--json", "--from", "b").out) == [
        {"key": "b", "value": "B"},
        {"key": "c", "value": "C"},
    ]
    assert json.loads(cowfs("scan", kv, "a", "--json", "--keys", "--limit", "1").out) == [
        {"key": "a"}
    ]
    cowfs.fails("scan", kv, "a", "--prefix", "a", "--from", "b", code=2)


def test_scan_shows_values_piece_by_piece(cowfs: Cowfs, kv: str) -> None:
    piece = PIECE
    for odd in (b"\\x41", "ö✓😀".encode(), b"\xff\xc3", b'"\n'):
        for before in range(len(odd) + 1):
            value = b"v" * (piece - before) + odd + b"w" * (piece - len(odd)) + odd
            cowfs("put", kv, "a", "k", input=value)
            shown = show_text(value)
            assert cowfs("scan", kv, "a").out == f"k\t{shown}\n"
            assert json.loads(cowfs("scan", kv, "a", "--json").out) == [
                {"key": "k", "value": shown}
            ]
    assert cowfs("scan", kv, "a", "--hex").out == f"6b\t{value.hex()}\n"
    assert cowfs("get", kv, "a", "--hex", "6b").out == f"{value.hex()}\n"


def test_values_too_large_for_memory_are_scanned(cowfs: Cowfs, kv: str) -> None:
    with library.open(kv, "w") as store, store["a"].open(b"k", "wb") as target:
        for _ in range(WHOLE // PIECE + 1):
            target.write(bytes(PIECE))
    with open(os.devnull, "w") as nowhere:
        cowfs.monkeypatch.setattr(sys, "stdout", nowhere)
        assert run(["scan", kv, "a", "--hex"]) == 0


def test_a_missing_key_is_an_error_and_deletes_nothing(cowfs: Cowfs, kv: str) -> None:
    cowfs("put", kv, "a", "k", "v")
    assert cowfs.fails("get", kv, "a", "nothing") == "a has no key 'nothing'"
    assert cowfs.fails("del", kv, "a", "k", "nothing") == "a has no key 'nothing'"
    assert cowfs("get", kv, "a", "k").out == "v"
    cowfs("del", kv, "a", "k")
    assert cowfs("scan", kv, "a").out == ""


@pytest.mark.parametrize("key", ["", "x" * 1025])
def test_keys_have_1_to_1024_bytes(cowfs: Cowfs, kv: str, key: str) -> None:
    for value in (["v"], []):
        assert "1 to 1024 bytes" in cowfs.fails("put", kv, "a", key, *value, code=2).replace(
            ",", ""
        )
    cowfs.fails("get", kv, "a", key, code=2)
    cowfs.fails("del", kv, "a", key, code=2)
    cowfs("put", kv, "a", "x" * 1024, "v")
    assert cowfs("get", kv, "a", "x" * 1024).out == "v"


def test_snapshots_are_read_and_not_written(cowfs: Cowfs, kv: str) -> None:
    cowfs("put", kv, "a", "k", "old")
    cowfs("snapshot", kv, "a@x")
    cowfs("put", kv, "a", "k", "new")
    assert cowfs("get", kv, "a@x", "k").out == "old"
    assert cowfs("scan", kv, "a@x").out == "k\told\n"
    assert "snapshot" in cowfs.fails("put", kv, "a@x", "k", "v")
    assert "snapshot" in cowfs.fails("del", kv, "a@x", "k")


def test_a_dataset_of_another_kind_is_refused(cowfs: Cowfs, image: str) -> None:
    cowfs("create", image, "files")
    for command in (
        ["put", image, "files", "k", "v"],
        ["get", image, "files", "k"],
        ["del", image, "files", "k"],
        ["scan", image, "files"],
    ):
        assert cowfs.fails(*command) == (
            "files is no dataset of keys and values (kind kv); see 'cowfs list'"
        )


def test_wrong_arguments_of_put(cowfs: Cowfs, kv: str) -> None:
    cowfs.fails("put", kv, "a", "k", "v", "--file", "f", code=2)
    assert "hex" in cowfs.fails("put", kv, "a", "xyz", "--hex", code=2)
    assert "hex" in cowfs.fails("put", kv, "a", "00", "xyz", "--hex", code=2)
    assert cowfs.fails("put", kv, "a", "k", "--file", "nothing") == (
        "nothing: No such file or directory"
    )
    assert cowfs.fails("put", kv, "a", "k", "--file", ".") == ".: Is a directory"
    assert cowfs("scan", kv, "a").out == ""


def test_a_value_on_a_terminal_ends_its_line(cowfs: Cowfs, kv: str, start: Start) -> None:
    cowfs("put", kv, "a", "k", "v")
    ours, theirs = pty.openpty()
    process = start("get", kv, "a", "k", stdout=theirs)
    assert process.wait() == 0
    os.close(theirs)
    assert os.read(ours, 100) == b"v\r\n"
    os.close(ours)


def test_a_full_image_refuses_and_then_deletes(cowfs: Cowfs, tmp_path: Path) -> None:
    image = tmp_path / "small.cow"
    cowfs("mkfs", image, "--size", "8M")
    cowfs("create", image, "a", "--kind", "kv")
    cowfs("put", image, "a", "first", input=os.urandom(2 << 20))
    before = cowfs("df", image, "--json").out
    line = cowfs.fails("put", image, "a", "second", input=os.urandom(16 << 20))
    assert "full" in line
    assert cowfs("scan", image, "a", "--keys").lines == ["first"]
    number = 0
    while cowfs.result("put", image, "a", f"more{number}", input=os.urandom(100_000)).code == 0:
        number += 1
    assert number > 10
    for key in ["first", *(f"more{i}" for i in range(number))]:
        cowfs("del", image, "a", key)
    assert json.loads(cowfs("df", image, "--json").out)["free"] >= json.loads(before)["free"]
    cowfs("check", image)
