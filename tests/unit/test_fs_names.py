"""Directories, names, and what happens to files when names come and go."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest

import cowfs
from cowfs import FileError
from cowfs.errors import (
    DirectoryNotEmptyError,
    PathBusyError,
    PathExistsError,
    PathInvalidError,
    PathIsADirectoryError,
    PathNotADirectoryError,
    PathNotFoundError,
    PathPermissionError,
)
from cowfs.fs import FS

from .conftest import assert_sound


def test_an_empty_dataset_is_an_empty_directory(live: FS, store: cowfs.Store) -> None:
    assert live.listdir() == []
    info = live.stat("/")
    assert stat.S_ISDIR(info.st_mode)
    assert (info.st_ino, info.st_nlink, info.st_size) == (1, 2, 0)
    live.chmod("/", 0o700)
    live.utime("/", ns=(1, 2))
    live.setxattr("/", "user.a", b"1")
    assert stat.S_IMODE(live.stat("/").st_mode) == 0o700
    assert live.stat("/").st_mtime_ns == 2
    store.snapshot("files@s")
    assert store.at("files@s").listdir() == []


def test_directories_count_what_is_in_them(fs: FS) -> None:
    fs.makedirs("a/b")
    fs.mkdir("a/c")
    fs.write_bytes("a/f", b"")
    info = fs.stat("a")
    assert (info.st_nlink, info.st_size) == (4, 3)
    fs.rename("a/b", "b")
    fs.rmdir("a/c")
    fs.unlink("a/f")
    info = fs.stat("a")
    assert (info.st_nlink, info.st_size) == (2, 0)
    assert fs.stat("/").st_nlink == 4


def test_makedirs_makes_what_is_missing(fs: FS) -> None:
    fs.mkdir("a")
    fs.makedirs("a/./b//c/", mode=0o700)
    assert stat.S_IMODE(fs.stat("a/b").st_mode) == 0o700
    fs.makedirs("a/b/c", exist_ok=True)
    fs.makedirs("/", exist_ok=True)
    fs.symlink("a/b", "link")
    fs.makedirs("link/d")
    assert fs.isdir("a/b/d")
    fs.symlink("nowhere", "dangling")
    for path in ("a/b/c", "dangling", "dangling/x"):
        with pytest.raises(PathExistsError):
            fs.makedirs(path)
    fs.write_bytes("f", b"")
    with pytest.raises(PathNotADirectoryError):
        fs.makedirs("f/x")
    with pytest.raises(PathExistsError):
        fs.makedirs("f", exist_ok=True)


def test_makedirs_makes_all_or_nothing(fs: FS) -> None:
    for path in ("new/" + "x" * 256, "new/../x", "new/a/../../y"):
        with pytest.raises(FileError):
            fs.makedirs(path)
    assert fs.listdir() == []


def test_a_large_directory_is_listed_in_order(store: cowfs.Store) -> None:
    store.create("files", kind="fs")
    names = [f"{number * 7919 % 5000:05d}" for number in range(5000)]
    with store.transaction() as tx:
        for name in names:
            tx["files"].write_bytes(f"d{name}", b"")
    fs: FS = store["files"]
    assert fs.listdir() == [f"d{name}" for name in sorted(names)]
    with fs.scandir("/") as entries:
        assert [entry.name for entry in entries] == [f"d{name}" for name in sorted(names)]
        assert list(entries) == []
    for entry in islice(fs.scandir("/"), 30):
        fs.rename(entry.path, f"a{entry.name}")
    assert fs.stat("/").st_size == 5000
    assert_sound(store)


def test_scandir_knows_types_without_looking(fs: FS) -> None:
    fs.mkdir("d")
    fs.write_bytes("f", b"1234")
    fs.symlink("d", "to_d")
    fs.symlink("f", "to_f")
    fs.symlink("x", "to_x")
    fs.mkfifo("p")
    found = {
        entry.name: (
            entry.is_dir(),
            entry.is_file(),
            entry.is_symlink(),
            entry.is_dir(follow_symlinks=False),
            entry.is_file(follow_symlinks=False),
        )
        for entry in fs.scandir()
    }
    assert found == {
        "d": (True, False, False, True, False),
        "f": (False, True, False, False, True),
        "p": (False, False, False, False, False),
        "to_d": (True, False, True, False, False),
        "to_f": (False, True, True, False, False),
        "to_x": (False, False, True, False, False),
    }
    with fs.scandir("/") as entries:
        entry = next(entries)
        assert (entry.name, entry.path, os.fspath(entry)) == ("d", "/d", "/d")
        assert entry.inode() == entry.stat().st_ino == fs.stat("d").st_ino
    assert list(entries) == []
    by_name = {entry.name: entry for entry in fs.scandir("/")}
    assert by_name["to_f"].stat().st_size == 4
    assert stat.S_ISLNK(by_name["to_f"].stat(follow_symlinks=False).st_mode)
    with pytest.raises(FileNotFoundError):
        by_name["to_x"].stat()


def test_walk_goes_as_os_walk(fs: FS, tmp_path: Any) -> None:
    def make(
        mkdir: Callable[..., Any], touch: Callable[[Any], Any], link: Callable[..., Any]
    ) -> None:
        for path in ("a", "a/b", "a/b/c", "d", "e"):
            mkdir(path)
        for path in ("x", "a/y", "a/b/z", "e/w"):
            touch(path)
        link("d", "link")
        link("../a/b/c", "e/up")
        link("nowhere", "dangling")

    make(fs.mkdir, lambda path: fs.write_bytes(path, b""), fs.symlink)
    make(
        lambda path: os.mkdir(tmp_path / path),
        lambda path: (tmp_path / path).touch(),
        lambda to, path: os.symlink(to, tmp_path / path),
    )
    os.symlink("/nowhere", tmp_path / "self")
    fs.symlink("self", "self")

    def host(**options: Any) -> list[Any]:
        found = []
        for path, directories, files in os.walk(tmp_path, **options):
            found.append(
                ("/" + os.path.relpath(path, tmp_path), sorted(directories), sorted(files))
            )
        return sorted(found)

    def ours(**options: Any) -> list[Any]:
        found = []
        for path, directories, files in fs.walk("/.", **options):
            found.append((path if path == "/." else path.replace("/./", "/"), directories, files))
        return sorted(found)

    for options in ({}, {"topdown": False}, {"followlinks": True}):
        assert ours(**options) == host(**options)
    order = [path for path, _, _ in fs.walk()]
    assert order == ["/", "/a", "/a/b", "/a/b/c", "/d", "/e"]
    order = [path for path, _, _ in fs.walk(topdown=False)]
    assert order == ["/a/b/c", "/a/b", "/a", "/d", "/e", "/"]


def test_walk_goes_where_it_is_told(fs: FS) -> None:
    fs.makedirs("a/b")
    fs.makedirs("c/d")
    seen = []
    for path, directories, _ in fs.walk("/"):
        seen.append(path)
        if path == "/":
            directories.remove("a")
    assert seen == ["/", "/c", "/c/d"]
    errors: list[OSError] = []
    assert list(fs.walk("missing", onerror=errors.append)) == []
    assert [error.errno for error in errors] == [errno.ENOENT]


def test_rename_replaces_at_once(fs: FS) -> None:
    fs.write_bytes("a", b"a")
    fs.write_bytes("b", b"b")
    number = fs.stat("a").st_ino
    fs.rename("a", "b")
    assert fs.listdir() == ["b"]
    assert fs.read_bytes("b") == b"a"
    assert fs.stat("b").st_ino == number
    fs.makedirs("d/e")
    fs.mkdir("empty")
    fs.rename("d", "empty")
    assert fs.listdir("empty") == ["e"]
    fs.rename("empty/e", "e")
    assert fs.stat("..").st_ino == fs.stat("e/..").st_ino


@pytest.mark.parametrize(
    ("source", "target", "error"),
    [
        ("missing", "x", PathNotFoundError),
        ("f", "missing/x", PathNotFoundError),
        ("f", "d", PathIsADirectoryError),
        ("d", "f", PathNotADirectoryError),
        ("d", "full", DirectoryNotEmptyError),
        ("full/e", "full", DirectoryNotEmptyError),
        ("full", "full/e/x", PathInvalidError),
        ("full", "full/x", PathInvalidError),
        ("/", "x", PathBusyError),
        ("d", "/", PathBusyError),
        ("d", ".", PathBusyError),
        ("d", "full/..", PathBusyError),
        ("f/x", "x", PathNotADirectoryError),
        ("f", "f/x", PathNotADirectoryError),
    ],
)
def test_refused_renames_change_nothing(
    fs: FS, source: str, target: str, error: type[Exception]
) -> None:
    fs.mkdir("d")
    fs.makedirs("full/e")
    fs.write_bytes("f", b"f")
    before = list(fs.walk())
    with pytest.raises(error):
        fs.rename(source, target)
    assert list(fs.walk()) == before


def test_renaming_a_name_of_the_same_file_does_nothing(fs: FS) -> None:
    fs.write_bytes("a", b"a")
    fs.link("a", "b")
    fs.rename("a", "b")
    fs.rename("a", "a")
    assert fs.listdir() == ["a", "b"]
    assert fs.stat("a").st_nlink == 2


def test_hard_links_are_one_file(fs: FS) -> None:
    fs.write_bytes("a", b"a")
    fs.mkdir("d")
    fs.link("a", "d/b")
    fs.symlink("a", "s")
    fs.link("s", "t")
    assert fs.islink("t")
    assert fs.stat("a").st_ino == fs.stat("d/b").st_ino
    with fs.open("d/b", "ab") as file:
        file.write(b"b")
    assert fs.read_bytes("a") == b"ab"
    fs.unlink("a")
    assert fs.read_bytes("d/b") == b"ab"
    assert fs.stat("d/b").st_nlink == 1
    for source, target, error in (
        ("d", "x", PathPermissionError),
        ("d", "s", PathExistsError),
        ("missing", "x", PathNotFoundError),
        ("d/b", "missing/x", PathNotFoundError),
    ):
        with pytest.raises(error):
            fs.link(source, target)


def test_rmdir_and_unlink_refuse(fs: FS) -> None:
    fs.makedirs("d/e")
    fs.write_bytes("f", b"")
    fs.symlink("d", "link")
    for call, path, error in (
        (fs.rmdir, "d", DirectoryNotEmptyError),
        (fs.rmdir, "f", PathNotADirectoryError),
        (fs.rmdir, "link", PathNotADirectoryError),
        (fs.rmdir, "link/", PathNotADirectoryError),
        (fs.rmdir, "missing", PathNotFoundError),
        (fs.rmdir, "/", PathBusyError),
        (fs.rmdir, "d/.", PathInvalidError),
        (fs.unlink, "d", PathIsADirectoryError),
        (fs.unlink, "/", PathIsADirectoryError),
        (fs.unlink, "missing", PathNotFoundError),
        (fs.unlink, "link/", PathNotADirectoryError),
        (fs.remove_tree, "f", PathNotADirectoryError),
        (fs.remove_tree, "link", PathNotADirectoryError),
        (fs.remove_tree, "/", PathBusyError),
        (fs.remove_tree, "missing", PathNotFoundError),
        (fs.mkdir, "d", PathExistsError),
        (fs.mkdir, "f", PathExistsError),
        (fs.mkdir, "/", PathExistsError),
        (fs.mkdir, "f/x", PathNotADirectoryError),
    ):
        with pytest.raises(error):
            call(path)
    assert fs.listdir() == ["d", "f", "link"]


def test_remove_tree_leaves_nothing(fs: FS) -> None:
    for number in range(300):
        fs.makedirs(f"d/{number % 7}/{number}")
        fs.write_bytes(f"d/{number % 7}/{number}/f", b"x" * number * 20)
    fs.write_bytes("kept", b"kept")
    fs.link("kept", "d/link")
    fs.setxattr("d/0", "user.a", b"1")
    fs.remove_tree("d")
    assert fs.listdir() == ["kept"]
    assert fs.stat("kept").st_nlink == 1
    assert fs.stat("/").st_nlink == 2
    with fs.reading() as nodes:
        assert len(nodes.tree) == 6


@pytest.mark.parametrize("count", [0, 1, 4095, 4096, 4097])
def test_remove_tree_removes_large_directories(store: cowfs.Store, count: int) -> None:
    store.create("files", kind="fs")
    with store.transaction() as tx:
        fs = tx["files"]
        fs.mkdir("d")
        for number in range(count):
            fs.mknod(f"d/{number}")
        fs.mkdir("after")
    store["files"].remove_tree("d")
    assert store["files"].listdir() == ["after"]
    assert_sound(store)


def test_symlinks_hold_what_they_are_given(fs: FS) -> None:
    longest = "x/" * 2047 + "x"
    fs.symlink(longest, "s")
    assert fs.readlink("s") == longest
    assert fs.lstat("s").st_size == len(longest)
    for target, error in ((longest + "x", errno.ENAMETOOLONG), ("", errno.ENOENT)):
        with pytest.raises(FileError) as caught:
            fs.symlink(target, "t")
        assert caught.value.errno == error
    fs.mkdir("d")
    with pytest.raises(PathInvalidError):
        fs.readlink("d")
    assert fs.listdir() == ["d", "s"]


def test_special_files_are_names_with_a_state(fs: FS) -> None:
    fs.mkfifo("fifo", 0o600)
    fs.mknod("socket", stat.S_IFSOCK | 0o755)
    fs.mknod("device", stat.S_IFBLK | 0o660, os.makedev(8, 1))
    fs.mknod("plain")
    assert stat.S_ISFIFO(fs.stat("fifo").st_mode)
    assert stat.S_ISSOCK(fs.stat("socket").st_mode)
    info = fs.stat("device")
    assert (stat.S_ISBLK(info.st_mode), info.st_rdev) == (True, os.makedev(8, 1))
    assert fs.read_bytes("plain") == b""
    for mode in (stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777):
        with pytest.raises(PathInvalidError):
            fs.mknod("x", mode)


def test_statvfs_tells_the_room(make_store: Any) -> None:
    store = make_store(size=64 << 20)
    fs = store.create("files", kind="fs")
    before = fs.statvfs("/")
    fs.write_bytes("f", os.urandom(8 << 20))
    after = fs.statvfs("/")
    assert before.f_blocks * before.f_frsize == 64 << 20
    assert 8 << 20 <= (before.f_bavail - after.f_bavail) * before.f_frsize <= 16 << 20
    assert after.f_bavail <= after.f_bfree
    assert after.f_namemax == 255
