"""Copying trees: from the host, to the host, and within a store."""

from __future__ import annotations

import errno
import logging
import os
import random
import socket
import stat
import sysconfig
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import cowfs
from cowfs import UsageError
from cowfs.errors import (
    PathInvalidError,
    PathIsADirectoryError,
    PathNotADirectoryError,
    PathNotFoundError,
)
from cowfs.fs import FS

from ..trees import ATTRIBUTES, cowfs_tree, host_tree
from .conftest import assert_sound

MIB = 1 << 20


def times(root: str | Path) -> dict[str, tuple[int, int]]:
    """Owner-independent times of all that is on the host below `root`."""
    found = {".": (os.lstat(root).st_mode, os.lstat(root).st_mtime_ns)}
    for path, directories, files in os.walk(root):
        for name in directories + files:
            info = os.lstat(os.path.join(path, name))
            own = os.path.relpath(os.path.join(path, name), root)
            found[own] = (info.st_mode, info.st_mtime_ns)
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tree with one of everything."""
    root = tmp_path / "source"
    (root / "a/b/c").mkdir(parents=True)
    (root / "empty").mkdir(mode=0o700)
    rng = random.Random(1)
    for size in (0, 1, 1920, 1921, 100_000, 131_072, 131_073, 5 * MIB + 17):
        (root / f"a/{size}").write_bytes(rng.randbytes(size))
    (root / "a/text").write_text("line\n" * 50_000)
    (root / "a/b/link").symlink_to("../text")
    (root / "a/b/nowhere").symlink_to("/no/such/place")
    os.link(root / "a/text", root / "a/b/c/hard")
    os.link(root / "a/b/nowhere", root / "hard-symlink")
    os.mkfifo(root / "fifo", 0o640)
    (root / "a/1").chmod(0o4711)
    with open(root / "sparse", "wb") as file:
        file.write(b"start")
        file.seek(40 * MIB)
        file.write(b"middle")
        file.truncate(200 * MIB)
    os.mkdir(os.path.join(os.fsencode(root), b"\xff\xfe"))
    if ATTRIBUTES:
        os.setxattr(root / "a/text", "user.a", b"1")
        os.setxattr(root / "a/b", "user.b", b"x" * 3000)
    for number, (path, directories, files) in enumerate(os.walk(root, topdown=False)):
        for name in [*directories, *files, "."]:
            ns = 1_500_000_000_123_456_789 + number * 1000
            os.utime(os.path.join(path, name), ns=(ns, ns), follow_symlinks=False)
    return root


def test_a_tree_goes_in_and_out_as_it_was(fs: FS, source: Path, tmp_path: Path) -> None:
    host = os.stat(source / "a/text")
    fs.copy_in(source, "tree")
    assert cowfs_tree(fs, b"/tree") == host_tree(os.fsencode(source))
    fs.copy_out("tree", tmp_path / "out")
    assert host_tree(os.fsencode(tmp_path / "out")) == host_tree(os.fsencode(source))
    assert times(tmp_path / "out") == times(source)
    old, new = os.stat(source / "sparse"), os.stat(tmp_path / "out/sparse")
    assert new.st_blocks <= old.st_blocks + 512
    info = fs.stat("tree/a/text")
    assert (info.st_uid, info.st_gid, info.st_atime_ns) == (
        host.st_uid,
        host.st_gid,
        host.st_atime_ns,
    )
    assert fs.stat("tree/sparse").st_blocks * 512 <= MIB


def test_the_root_can_be_copied_into_and_out_of(live: FS, source: Path, tmp_path: Path) -> None:
    live.copy_in(source, "/")
    assert cowfs_tree(live) == host_tree(os.fsencode(source))
    (tmp_path / "out").mkdir()
    live.copy_out("/", tmp_path / "out")
    assert times(tmp_path / "out") == times(source)


def test_copying_again_changes_only_what_differs(
    store: cowfs.Store, source: Path, tmp_path: Path
) -> None:
    fs = store.create("files", kind="fs")
    (source / "a/b/c/hard").unlink()
    (source / "hard-symlink").unlink()
    fs.copy_in(source, "/")
    store.snapshot("files@before")
    fs.copy_in(source, "/")
    assert list(store.diff("files@before", "files")) == []
    (source / "a/100000").write_bytes(b"new")
    (source / "a/new").write_bytes(b"new")
    (source / "a/b/link").unlink()
    (source / "a/b/link").symlink_to("elsewhere")
    (source / "a/b").touch()
    (source / "a").touch()
    fs.write_bytes("stays", b"")
    fs.utime("/", ns=(0, os.stat(source).st_mtime_ns))
    fs.copy_in(source, "/")
    assert {(change.op, change.path) for change in store.diff("files@before", "files")} == {
        ("M", b"/"),
        ("M", b"/a"),
        ("M", b"/a/100000"),
        ("M", b"/a/b"),
        ("M", b"/a/b/link"),
        ("+", b"/a/new"),
        ("+", b"/stays"),
    }
    assert_sound(store)
    fs.copy_out("/", tmp_path / "out")
    (tmp_path / "out/a/b/link").unlink()
    (tmp_path / "out/a/b/link").write_bytes(b"in the way")
    (tmp_path / "out/a/100000").unlink()
    os.link(tmp_path / "out/a/1920", tmp_path / "out/a/100000")
    fs.copy_out("/", tmp_path / "out")
    assert host_tree(os.fsencode(tmp_path / "out")) == cowfs_tree(fs)


def test_single_files_are_copied(fs: FS, source: Path, tmp_path: Path) -> None:
    fs.copy_in(source / "a/100000", "one")
    fs.copy_in(source / "a/b/link", "link")
    fs.copy_in(source / "a/b/link", "followed", follow_symlinks=True)
    fs.copy_in(source / "fifo", "fifo")
    assert fs.read_bytes("one") == (source / "a/100000").read_bytes()
    assert fs.stat("one").st_mtime_ns == os.stat(source / "a/100000").st_mtime_ns
    assert fs.readlink("link") == "../text"
    assert fs.read_bytes("followed") == (source / "a/text").read_bytes()
    assert stat.S_ISFIFO(fs.stat("fifo").st_mode)
    assert fs.stat("/").st_size == 4
    fs.copy_in(source / "a/1", "one")
    assert fs.read_bytes("one") == (source / "a/1").read_bytes()
    assert fs.stat("/").st_size == 4
    fs.copy_out("one", tmp_path / "one")
    assert (tmp_path / "one").read_bytes() == (source / "a/1").read_bytes()
    assert stat.S_IMODE(os.stat(tmp_path / "one").st_mode) == 0o4711
    (tmp_path / "target").write_bytes(b"x" * 10_000)
    (tmp_path / "way").symlink_to("target")
    fs.copy_out("one", tmp_path / "way")
    assert (tmp_path / "target").read_bytes() == (source / "a/1").read_bytes()
    fs.copy_out("link", tmp_path / "link")
    assert os.readlink(tmp_path / "link") == "../text"
    fs.copy_out("one", "/dev/null")


def test_a_copy_that_fails_leaves_no_trace(live: FS, source: Path, tmp_path: Path) -> None:
    live.mkdir("d")
    live.write_bytes("f", b"f")
    live.makedirs("t/a/text")
    before = cowfs_tree(live)
    cases: list[tuple[Callable[[], None], type[OSError]]] = [
        (lambda: live.copy_in(tmp_path / "missing", "x"), FileNotFoundError),
        (lambda: live.copy_in(source, "missing/x"), PathNotFoundError),
        (lambda: live.copy_in(source, "f"), PathNotADirectoryError),
        (lambda: live.copy_in(source / "a/1", "d"), PathIsADirectoryError),
        (lambda: live.copy_in(source / "a/1", "x/"), PathNotFoundError),
        (lambda: live.copy_in(source / "a/1", "f/"), PathNotADirectoryError),
        (lambda: live.copy_in(source / "a/1", "f/x"), PathNotADirectoryError),
        (lambda: live.copy_in(source, "t"), PathIsADirectoryError),
        (lambda: live.copy_out("missing", tmp_path / "out"), PathNotFoundError),
        (lambda: live.copy_out("f", tmp_path), IsADirectoryError),
        (lambda: live.copy_out("d", source / "fifo"), FileExistsError),
        (lambda: live.copy_out("f", tmp_path / "no/such"), FileNotFoundError),
    ]
    for call, error in cases:
        with pytest.raises(error):
            call()
        assert cowfs_tree(live) == before
    with pytest.raises(PathIsADirectoryError, match="/t/a/text: Is a dir"):
        live.copy_in(source, "t")


def test_sockets_are_left_out_with_a_warning(
    fs: FS, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "d").mkdir()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "d/s"))
    with caplog.at_level(logging.WARNING, logger="cowfs"):
        fs.copy_in(tmp_path / "d", "d")
    assert fs.listdir("d") == []
    assert "a socket, left out" in caplog.text
    fs.mknod("s", stat.S_IFSOCK | 0o600)
    fs.copy_out("s", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_progress_counts_every_byte(live: FS, source: Path, tmp_path: Path) -> None:
    for copy, places in (
        (live.copy_in, (source, "tree")),
        (live.copy_out, ("tree", tmp_path / "out")),
    ):
        calls: list[tuple[int, int]] = []
        copy(*places, progress=lambda *call: calls.append(call))  # noqa: B023
        total = calls[0][1]
        assert total > 205 * MIB
        assert calls[0][0] == 0
        assert calls[-1] == (total, total)
        assert all(a[0] <= b[0] for a, b in pairwise(calls))


def test_holes_within_records_come_out_as_holes(live: FS, tmp_path: Path) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        for number in range(64):
            file.seek(number * 64 * 1024)
            file.write(b"x" * 4096)
        file.truncate(5 * MIB)
    live.copy_in(tmp_path / "sparse", "sparse")
    live.copy_out("sparse", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == (tmp_path / "sparse").read_bytes()
    assert os.stat(tmp_path / "out").st_blocks <= os.stat(tmp_path / "sparse").st_blocks + 16


def test_deep_trees_are_copied(live: FS, tmp_path: Path) -> None:
    path = tmp_path / "deep"
    path.mkdir()
    inner = path
    for _ in range(300):
        inner = inner / "d"
        inner.mkdir()
    (inner / "f").write_bytes(b"deep")
    live.copy_in(path, "deep")
    live.copy("deep", "copy", recursive=True)
    live.copy_out("copy", tmp_path / "out")
    assert (tmp_path / "out").joinpath(*["d"] * 300, "f").read_bytes() == b"deep"
    live.remove_tree("deep")
    live.remove_tree("copy")
    assert live.listdir() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away and makes devices")
def test_owners_and_devices_are_kept_for_root(fs: FS, tmp_path: Path) -> None:
    fs.write_bytes("f", b"")
    fs.chown("f", 12, 34)
    fs.chmod("f", 0o6755)
    fs.symlink("f", "s")
    fs.chown("s", 56, 78, follow_symlinks=False)
    fs.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    fs.copy_out("/", tmp_path / "out")
    info = os.stat(tmp_path / "out/f")
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (12, 34, 0o6755)
    assert os.lstat(tmp_path / "out/s").st_gid == 78
    device = os.stat(tmp_path / "out/null")
    assert (stat.S_ISCHR(device.st_mode), device.st_rdev) == (True, os.makedev(1, 3))
    fs.copy_in(tmp_path / "out", "in")
    assert fs.stat("in/null").st_rdev == os.makedev(1, 3)
    assert fs.stat("in/f").st_uid == 12


# --- within a store -----------------------------------------------------------------------------


def reached(store: cowfs.Store) -> int:
    """Bytes that some dataset or snapshot holds."""
    space = store.space()
    return space.live + space.pinned


def test_copies_share_their_content(store: cowfs.Store) -> None:
    fs = store.create("files", kind="fs")
    fs.write_bytes("f", os.urandom(4 * MIB))
    fs.setxattr("f", "user.a", b"1")
    fs.utime("f", ns=(1, 2))
    before = reached(store)
    for number in range(20):
        fs.copy("f", f"copy{number}")
    assert reached(store) - before < MIB
    fs.unlink("f")
    info = fs.stat("copy7")
    assert (info.st_size, info.st_mtime_ns, fs.getxattr("copy7", "user.a")) == (4 * MIB, 2, b"1")
    with fs.open("copy7", "r+b") as file:
        file.seek(MIB)
        file.write(b"changed")
    assert fs.read_bytes("copy6")[MIB:][:7] != b"changed"
    assert fs.read_bytes("copy7")[:MIB] == fs.read_bytes("copy6")[:MIB]
    assert_sound(store)


def test_trees_are_copied_within_a_dataset(fs: FS, source: Path) -> None:
    fs.copy_in(source, "tree")
    fs.copy("tree", "copy", recursive=True)
    assert cowfs_tree(fs, b"/copy") == host_tree(os.fsencode(source))
    assert fs.stat("copy/a").st_mtime_ns == os.stat(source / "a").st_mtime_ns
    assert fs.stat("copy/a/text").st_ino != fs.stat("tree/a/text").st_ino
    fs.remove_tree("tree")
    assert cowfs_tree(fs, b"/copy") == host_tree(os.fsencode(source))
    fs.mkdir("other")
    fs.write_bytes("other/stays", b"")
    fs.copy("copy", "other", recursive=True)
    fs.unlink("other/stays")
    assert cowfs_tree(fs, b"/other") == cowfs_tree(fs, b"/copy")


def test_files_come_back_from_a_snapshot(store: cowfs.Store, source: Path) -> None:
    fs = store.create("files", kind="fs")
    (source / "hard-symlink").unlink()
    fs.copy_in(source, "/")
    store.snapshot("files@s")
    fs.remove_tree("a")
    fs.write_bytes("sparse", b"overwritten")
    used = reached(store)
    with store.at("files@s") as view:
        fs.copy("a", "a", origin=view, recursive=True)
        fs.copy("sparse", "sparse", origin=view)
    assert reached(store) - used < MIB
    tree = cowfs_tree(fs)
    assert tree == host_tree(os.fsencode(source))
    assert_sound(store)
    other = store.create("other", kind="fs")
    with store.transaction() as tx:
        tx["other"].copy("/", "/", origin=tx["files"], recursive=True)
        tx["other"].copy("a/text", "again", origin=tx["files"])
    other.unlink("again")
    assert cowfs_tree(other) == tree
    store.destroy("files@s")
    store.destroy("files")
    assert cowfs_tree(other) == tree
    assert_sound(store, "other")


def test_copies_that_make_no_sense_are_refused(fs: FS, make_store: Any) -> None:
    fs.makedirs("d/e")
    fs.write_bytes("f", b"f")
    fs.symlink("f", "s")
    before = cowfs_tree(fs)
    cases: list[tuple[str, str, dict[str, Any], type[OSError]]] = [
        ("d", "x", {}, PathIsADirectoryError),
        ("d", "d", {"recursive": True}, PathInvalidError),
        ("d", "d/e/x", {"recursive": True}, PathInvalidError),
        ("/", "d/x", {"recursive": True}, PathInvalidError),
        ("d", "f", {"recursive": True}, PathNotADirectoryError),
        ("f", "d", {}, PathIsADirectoryError),
        ("f", "f", {}, PathInvalidError),
        ("s", "f", {}, PathInvalidError),
        ("f", "x/y", {}, PathNotFoundError),
        ("missing", "x", {}, PathNotFoundError),
    ]
    for source, target, options, error in cases:
        with pytest.raises(error):
            fs.copy(source, target, **options)
        assert cowfs_tree(fs) == before
    elsewhere = make_store().create("files", kind="fs")
    with pytest.raises(UsageError):
        fs.copy("f", "x", origin=elsewhere)


def test_overwriting_a_link_leaves_its_other_names(fs: FS, tmp_path: Path) -> None:
    fs.write_bytes("a", b"both")
    fs.link("a", "b")
    fs.write_bytes("c", b"new")
    fs.copy("c", "a")
    assert (fs.read_bytes("a"), fs.read_bytes("b"), fs.stat("b").st_nlink) == (b"new", b"both", 1)
    fs.link("b", "d")
    (tmp_path / "f").write_bytes(b"host")
    fs.copy_in(tmp_path / "f", "d")
    assert (fs.read_bytes("b"), fs.read_bytes("d")) == (b"both", b"host")


# --- on real data -------------------------------------------------------------------------------


def library_files(root: str) -> Iterator[str]:
    for path, directories, files in os.walk(root):
        directories[:] = [
            name for name in directories if name not in ("site-packages", "__pycache__", "test")
        ]
        yield from (os.path.join(path, name) for name in files)


def test_the_standard_library_goes_in_and_out(store: cowfs.Store, tmp_path: Path) -> None:
    library = sysconfig.get_path("stdlib")
    fs = store.create("files", kind="fs")
    paths = list(library_files(library))
    assert len(paths) > 300
    with store.transaction() as tx:
        for path in paths:
            target = os.path.relpath(path, library)
            tx["files"].makedirs(os.path.dirname(target) or "/", exist_ok=True)
            tx["files"].copy_in(path, target, follow_symlinks=True)
    assert_sound(store)
    fs.copy_out("/", tmp_path / "out")
    for path in paths:
        copy = tmp_path / "out" / os.path.relpath(path, library)
        assert copy.read_bytes() == Path(path).read_bytes()
        old, new = os.stat(path), os.stat(copy)
        assert (old.st_mode, old.st_mtime_ns) == (new.st_mode, new.st_mtime_ns)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_the_host_refuses_is_named(live: FS, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").touch(mode=0)
    with pytest.raises(PermissionError) as caught:
        live.copy_in(tmp_path / "d", "d")
    assert (caught.value.errno, caught.value.filename) == (errno.EACCES, str(tmp_path / "d/f"))
    assert live.listdir() == []


def test_what_cannot_be_read_is_named(live: FS) -> None:
    with pytest.raises(OSError, match="error") as caught:
        live.copy_in("/proc/self/mem", "memory")  # nothing is at address 0
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, "/proc/self/mem")
    assert live.listdir() == []


def test_the_image_is_spared_by_whatever_name_it_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with cowfs.open("a.cow", "c") as store:
        files = store.create("files", kind="fs")
        files.write_bytes("/a.cow", b"content")
        volume = store.create("disk", kind="volume", size=4096)
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        for copy_out in (partial(files.copy_out, "/a.cow"), volume.copy_out):
            with pytest.raises(cowfs.UsageError, match="is the image itself"):
                copy_out(tmp_path / "a.cow")
        for copy_in in (partial(files.copy_in, target="/copy"), volume.copy_in):
            with pytest.raises(cowfs.UsageError, match="is the image itself"):
                copy_in(tmp_path / "a.cow")
        assert store.check().ok
