"""What differs between two versions, by path; and what makes a tree a sound file system."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

import pytest

import cowfs
from cowfs.errors import CorruptionError
from cowfs.fs import FS
from cowfs.fs.diff import diff_fs
from cowfs.fs.inode import ENTRY, INODE, NAME, make_key, make_name_key, pack_entry
from cowfs.fs.nodes import Inodes
from cowfs.fs.verify import faults

MIB = 1 << 20


@pytest.fixture
def fs(store: cowfs.Store) -> FS:
    files: FS = store.create("files", kind="fs")
    with store.transaction() as tx:
        made = tx["files"]
        made.makedirs("a/b/c")
        made.mkdir("d")
        made.write_bytes("a/small", b"small")
        made.write_bytes("a/b/large", os.urandom(MIB))
        made.write_bytes("d/medium", os.urandom(20_000))
        made.symlink("small", "a/link")
        tx.snapshot("files@old")
    return files


def changes(store: cowfs.Store) -> list[str]:
    """The lines of diff, without the directories that are only there because of their entries."""
    found = []
    for change in store.diff("files@old", "files"):
        line = f"{change.op} {os.fsdecode(change.path)}"
        found.append(line if change.new_path is None else f"{line} {os.fsdecode(change.new_path)}")
    return found


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda fs: None, []),
        (lambda fs: fs.write_bytes("a/new", b""), ["M /a", "+ /a/new"]),
        (lambda fs: fs.write_bytes("new", b""), ["M /", "+ /new"]),
        (lambda fs: fs.unlink("a/small"), ["M /a", "- /a/small"]),
        (lambda fs: fs.write_bytes("a/small", b"SMALL"), ["M /a/small"]),
        (lambda fs: fs.write_bytes("d/medium", b"inline now"), ["M /d/medium"]),
        (lambda fs: fs.chmod("a", 0o700), ["M /a"]),
        (lambda fs: fs.chown("a/small", 9, 9), ["M /a/small"]),
        (lambda fs: fs.utime("a/link", ns=(1, 1), follow_symlinks=False), ["M /a/link"]),
        (lambda fs: fs.setxattr("d", "user.a", b""), ["M /d"]),
        (lambda fs: fs.rename("a/small", "a/big"), ["M /a", "R /a/small /a/big"]),
        (lambda fs: fs.rename("a/small", "d/x"), ["M /a", "R /a/small /d/x", "M /d"]),
        (lambda fs: fs.rename("a/b", "b"), ["M /", "M /a", "R /a/b /b"]),
        (lambda fs: fs.link("a/small", "d/hard"), ["M /d", "+ /d/hard"]),
        (
            lambda fs: fs.remove_tree("a"),
            ["M /", "- /a", "- /a/b", "- /a/b/c", "- /a/b/large", "- /a/link", "- /a/small"],
        ),
        (lambda fs: fs.chmod("a/small", fs.stat("a/small").st_mode & 0o7777), []),
        (lambda fs: (fs.rename("a/small", "x"), fs.rename("x", "a/small")), ["M /", "M /a"]),
        (lambda fs: fs.utime("a/small", ns=(1, fs.stat("a/small").st_mtime_ns)), []),
    ],
)
def test_each_change_shows_as_what_it_is(
    store: cowfs.Store, fs: FS, change: Callable[[FS], object], expected: list[str]
) -> None:
    change(fs)
    assert changes(store) == expected


def test_a_file_replaced_by_another_is_modified(store: cowfs.Store, fs: FS) -> None:
    fs.write_bytes("a/new", b"new")
    fs.rename("a/new", "a/small")
    fs.unlink("a/link")
    fs.mkdir("a/link")
    assert changes(store) == ["M /a", "- /a/link", "+ /a/link", "M /a/small"]


def test_a_renamed_and_changed_file_is_both(store: cowfs.Store, fs: FS) -> None:
    fs.rename("d", "e")
    fs.write_bytes("e/medium", b"x")
    fs.write_bytes("e/new", b"x")
    assert changes(store) == ["M /", "R /d /e", "M /e", "M /e/medium", "+ /e/new"]


def test_swapped_names_are_two_renames(store: cowfs.Store, fs: FS) -> None:
    fs.rename("a/small", "t")
    fs.rename("d/medium", "a/small")
    fs.rename("t", "d/medium")
    assert changes(store) == [
        "M /",
        "M /a",
        "R /a/small /d/medium",
        "M /d",
        "R /d/medium /a/small",
    ]


def test_every_name_of_a_changed_file_is_told(store: cowfs.Store, fs: FS) -> None:
    fs.link("a/small", "x")
    fs.link("a/small", "y")
    store.rename("files@old", "files@older")
    store.snapshot("files@old")
    fs.write_bytes("x", b"changed")
    fs.link("x", "z")
    fs.unlink("y")
    assert changes(store) == ["M /", "M /a/small", "M /x", "R /y /z", "M /z"]


def test_one_changed_byte_of_a_large_file_is_found(store: cowfs.Store, fs: FS) -> None:
    info = fs.stat("a/b/large")
    with fs.open("a/b/large", "r+b") as file:
        file.seek(MIB // 2)
        byte = file.read(1)
        file.seek(MIB // 2)
        file.write(bytes([byte[0] ^ 1]))
    fs.utime("a/b/large", ns=(info.st_atime_ns, info.st_mtime_ns))
    assert changes(store) == ["M /a/b/large"]
    with fs.open("a/b/large", "r+b") as file:
        file.seek(MIB // 2)
        file.write(byte)
    fs.utime("a/b/large", ns=(info.st_atime_ns, info.st_mtime_ns))
    assert changes(store) == []


def test_files_of_other_histories_are_told_apart(store: cowfs.Store, fs: FS) -> None:
    store.clone("files@old", "clone")
    fs.write_bytes("here", b"1")
    store["clone"].write_bytes("there", b"2")
    assert fs.stat("here").st_ino == store["clone"].stat("there").st_ino
    found = [(change.op, change.path) for change in store.diff("files", "clone")]
    assert found == [("M", b"/"), ("-", b"/here"), ("+", b"/there")]


def test_it_costs_what_differs(store: cowfs.Store) -> None:
    store.create("files", kind="fs")
    with store.transaction() as tx:
        for number in range(20_000):
            if number % 100 == 0:
                tx["files"].mkdir(f"{number // 100}")
            tx["files"].write_bytes(f"{number // 100}/{number}", b"x" * 50)
    store.snapshot("files@old")
    fs = store["files"]
    fs.write_bytes("7/777", b"changed")
    fs.rename("150/15000", "3/moved")
    visited: list[int] = []
    with (
        store.at("files@old") as old,
        store.at("files") as new,
        old.reading() as before,
        new.reading() as after,
    ):
        found = list(diff_fs(before.io, before.tree, after.tree, visited))
    assert [change.op for change in found] == ["M", "R", "M", "M"]
    assert sum(visited) < 40


# --- soundness ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda n: n.tree.delete(make_key(2, INODE)), "items without an inode"),
        (lambda n: n.tree.delete(make_key(1, ENTRY) + b"d"), "which has no such entry"),
        (lambda n: n.tree.put(make_key(1, ENTRY) + b"x", pack_entry(77, 8)), "which there is not"),
        (lambda n: n.tree.put(make_key(1, ENTRY) + b"..", pack_entry(2, 4)), "entry named b'..'"),
        (lambda n: n.tree.put(make_key(1, ENTRY) + b"x", pack_entry(2, 4)), "knows no such name"),
        (lambda n: n.tree.put(make_key(1, ENTRY) + b"x", b"?"), "a directory entry of 1 bytes"),
        (lambda n: n.tree.put(make_key(2, INODE), b"short"), "an inode of 5 bytes"),
        (lambda n: n.tree.put(make_key(2, 9), b""), "unknown item"),
        (lambda n: n.tree.put(b"short", b""), "a key of 5 bytes"),
        (lambda n: n.tree.put(make_key(900, INODE), n.get(2).pack()), "above the counter"),
        (lambda n: n.tree.put(make_key(0, 5) + struct.pack(">Q", 2), b""), "removed while open"),
    ],
)
def test_damage_is_found(fs: FS, damage: Callable[[Inodes], object], expected: str) -> None:
    with fs.reading() as nodes:
        assert list(faults(nodes.io, nodes.tree)) == []
    with fs.writing() as nodes:
        damage(nodes)
    with fs.reading() as nodes:
        found = list(faults(nodes.io, nodes.tree))
    assert any(expected in fault for fault in found), found


def test_directories_in_themselves_are_found(fs: FS) -> None:
    a, b = fs.stat("a").st_ino, fs.stat("a/b").st_ino
    with fs.writing() as nodes:
        nodes.tree.delete(make_key(1, ENTRY) + b"a")
        nodes.tree.delete(make_name_key(a, NAME, 1) + b"a")
        nodes.tree.put(make_key(b, ENTRY) + b"a", pack_entry(a, 4))
        nodes.tree.put(make_name_key(a, NAME, b) + b"a", b"")
    with fs.reading() as nodes:
        assert any("is in itself" in fault for fault in faults(nodes.io, nodes.tree))
        with pytest.raises(CorruptionError, match="is in itself"):
            nodes.path(a, b"x")


def test_damaged_items_are_corruption_by_path(fs: FS) -> None:
    number = fs.stat("a/small").st_ino
    with fs.writing() as nodes:
        nodes.tree.delete(make_key(number, INODE))
        nodes.tree.put(make_key(1, ENTRY) + b"bad/name", pack_entry(2, 4))
        nodes.tree.put(make_key(1, ENTRY) + b"bad", b"?")
    for call in (
        lambda: fs.stat("a/small"),
        lambda: fs.stat("bad"),
        lambda: fs.listdir("/"),
        lambda: fs.write_bytes("a/small", b""),
    ):
        with pytest.raises(CorruptionError):
            call()
