"""Paths: how they are read, and what is refused."""

from __future__ import annotations

import errno
from pathlib import PurePosixPath
from typing import Any

import pytest

from cowfs import FileError, KeyTypeError
from cowfs.errors import (
    PathInvalidError,
    PathNameTooLongError,
    PathNotADirectoryError,
    PathNotFoundError,
    SymlinkLoopError,
)
from cowfs.fs import FS


def test_paths_start_at_the_root_with_or_without_a_slash(fs: FS) -> None:
    fs.makedirs("a/b")
    fs.write_bytes("a/b/c", b"x")
    for path in ("a/b/c", "/a/b/c", "//a///b/c", "./a/./b/c", b"a/b/c", PurePosixPath("/a/b/c")):
        assert fs.read_bytes(path) == b"x"


def test_answers_are_of_the_type_of_the_question(fs: FS) -> None:
    fs.write_bytes(b"\xff", b"")
    fs.symlink(b"\xff", "link")
    assert fs.listdir("/") == ["link", "\udcff"]
    assert fs.listdir(b"/") == [b"link", b"\xff"]
    assert fs.listdir() == fs.listdir(PurePosixPath("/"))
    assert fs.readlink("link") == "\udcff"
    assert fs.readlink(b"link") == b"\xff"
    assert [entry.path for entry in fs.scandir(b"/")] == [b"/link", b"/\xff"]
    assert list(fs.walk(b"/")) == [(b"/", [], [b"link", b"\xff"])]


def test_dots_lead_up_but_not_out(fs: FS) -> None:
    fs.makedirs("a/b")
    fs.write_bytes("x", b"x")
    assert fs.stat("..").st_ino == fs.stat("/").st_ino
    assert fs.stat("../../a/b/..").st_ino == fs.stat("a").st_ino
    assert fs.read_bytes("a/b/../../../../x") == b"x"
    with pytest.raises(PathNotFoundError):
        fs.stat("missing/..")
    with pytest.raises(PathNotADirectoryError):
        fs.stat("x/..")


def test_symbolic_links_lead_within_the_dataset(fs: FS) -> None:
    fs.makedirs("a/b")
    fs.write_bytes("a/x", b"x")
    fs.symlink("/a/x", "absolute")
    fs.symlink("../x", "a/b/relative")
    fs.symlink("a/b", "directory")
    fs.symlink("nowhere", "dangling")
    assert fs.read_bytes("absolute") == b"x"
    assert fs.read_bytes("directory/relative") == b"x"
    assert fs.stat("directory/..").st_ino == fs.stat("a").st_ino
    assert fs.lexists("dangling")
    assert not fs.exists("dangling")
    assert fs.lstat("directory/").st_ino == fs.stat("a/b").st_ino
    assert fs.islink("directory")
    fs.write_bytes("dangling", b"made")
    assert fs.read_bytes("nowhere") == b"made"


def test_loops_of_symbolic_links_end(fs: FS) -> None:
    fs.symlink("b", "a")
    fs.symlink("a", "b")
    fs.symlink("self/x", "self")
    for path in ("a", "a/x", "self"):
        with pytest.raises(SymlinkLoopError) as caught:
            fs.stat(path)
        assert caught.value.errno == errno.ELOOP
    assert not fs.exists("a")
    assert fs.lexists("a")


def test_errors_name_the_path_as_it_was_given(fs: FS) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        fs.open("no/such/file")
    assert str(caught.value) == "no/such/file: No such file or directory"
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, "no/such/file")
    fs.mkdir("d")
    fs.mkdir("d/e")
    fs.mkdir("x")
    with pytest.raises(FileError) as error:
        fs.rename("x", "d")
    assert str(error.value) == "x -> d: Directory not empty"
    assert error.value.filename2 == "d"


@pytest.mark.parametrize("path", ["a\0b", "\ud800"])
def test_paths_that_are_none_are_refused(fs: FS, path: str) -> None:
    for call in (fs.stat, fs.open, fs.mkdir, fs.unlink, fs.listdir):
        with pytest.raises(PathInvalidError):
            call(path)
    assert not fs.exists(path)


@pytest.mark.parametrize("path", [None, 1, ["a"]])
def test_paths_of_another_type_are_refused(fs: FS, path: Any) -> None:
    for call in (fs.stat, fs.open, fs.mkdir, fs.unlink, fs.listdir, fs.exists):
        with pytest.raises(KeyTypeError, match="paths are str, bytes or"):
            call(path)


def test_an_empty_path_is_none(fs: FS) -> None:
    with pytest.raises(PathNotFoundError):
        fs.listdir("")
    with pytest.raises(PathNotFoundError):
        fs.remove_tree("")


def test_names_have_up_to_255_bytes(fs: FS) -> None:
    longest = "é" * 127 + "e"
    fs.write_bytes(longest, b"")
    assert fs.listdir() == [longest]
    with pytest.raises(PathNameTooLongError) as caught:
        fs.write_bytes(longest + "e", b"")
    assert caught.value.errno == errno.ENAMETOOLONG
    with pytest.raises(PathNameTooLongError):
        fs.rename(longest, longest + "e")
    assert fs.listdir() == [longest]


def test_a_slash_at_the_end_means_a_directory(fs: FS) -> None:
    fs.mkdir("d/")
    fs.write_bytes("f", b"")
    assert fs.isdir("d/")
    assert not fs.exists("f/")
    for call in (fs.stat, fs.unlink, fs.read_bytes, fs.rmdir):
        with pytest.raises(PathNotADirectoryError):
            call("f/")
    with pytest.raises(IsADirectoryError):
        fs.write_bytes("new/", b"")
    with pytest.raises(PathNotADirectoryError):
        fs.rename("f", "g/")
    assert fs.listdir() == ["d", "f"]
