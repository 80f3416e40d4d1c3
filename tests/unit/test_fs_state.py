"""Modes, owners, times and extended attributes."""

from __future__ import annotations

import errno
import os
import stat
import time

import pytest

from cowfs import UsageError
from cowfs.errors import (
    AttributeExistsError,
    AttributeNotFoundError,
    PathInvalidError,
    PathPermissionError,
)
from cowfs.fs import FS


def test_chmod_changes_the_permissions_only(fs: FS) -> None:
    fs.write_bytes("f", b"")
    fs.symlink("f", "s")
    fs.chmod("s", 0o4751)
    assert fs.stat("f").st_mode == stat.S_IFREG | 0o4751
    with pytest.raises(PathPermissionError):
        fs.chmod("s", 0o600, follow_symlinks=False)
    for mode in (-1, 0o10000, stat.S_IFREG | 0o644):
        with pytest.raises(PathInvalidError):
            fs.chmod("f", mode)
    assert fs.stat("f").st_mode == stat.S_IFREG | 0o4751


def test_new_files_have_the_modes_that_are_asked_for(fs: FS) -> None:
    fs.open("f", "w", permissions=0o600).close()
    fs.mkdir("d", 0o1777)
    fs.mkdir("e")
    fs.write_bytes("g", b"")
    modes = [stat.S_IMODE(fs.stat(name).st_mode) for name in "fdeg"]
    assert modes == [0o600, 0o1777, 0o755, 0o644]
    info = fs.stat("f")
    assert (info.st_uid, info.st_gid) == (os.geteuid(), os.getegid())
    with pytest.raises(UsageError):
        fs.mkdir("x", 0o10000)


def test_the_group_of_a_setgid_directory_is_inherited(fs: FS) -> None:
    fs.mkdir("d")
    fs.chown("d", 1, 77)
    fs.chmod("d", 0o2755)
    fs.mkdir("d/e")
    fs.write_bytes("d/e/f", b"")
    assert (fs.stat("d/e").st_gid, fs.stat("d/e/f").st_gid) == (77, 77)
    assert stat.S_IMODE(fs.stat("d/e").st_mode) == 0o2755
    assert stat.S_IMODE(fs.stat("d/e/f").st_mode) == 0o644


def test_chown_changes_what_is_given(fs: FS) -> None:
    fs.write_bytes("f", b"")
    fs.symlink("f", "s")
    fs.chown("f", 1, 2)
    fs.chown("f", -1, 3)
    assert (fs.stat("f").st_uid, fs.stat("f").st_gid) == (1, 3)
    fs.chown("s", 4, -1, follow_symlinks=False)
    assert (fs.stat("f").st_uid, fs.lstat("s").st_uid) == (1, 4)
    fs.chmod("f", 0o6755)
    fs.chown("f", 5, 5)
    assert stat.S_IMODE(fs.stat("f").st_mode) == 0o755
    for uid in (-2, 1 << 32, (1 << 32) - 1):
        with pytest.raises(PathInvalidError):
            fs.chown("f", uid, 0)


def test_times_are_kept_to_the_nanosecond(fs: FS) -> None:
    fs.write_bytes("f", b"")
    fs.symlink("f", "s")
    fs.utime("f", ns=(1_234_567_890_123_456_789, -987_654_321))
    info = fs.stat("f")
    assert (info.st_atime_ns, info.st_mtime_ns) == (1_234_567_890_123_456_789, -987_654_321)
    assert info.st_mtime == -0.987654321
    fs.utime("f", (1.5, 2))
    assert (fs.stat("f").st_atime_ns, fs.stat("f").st_mtime_ns) == (1_500_000_000, 2_000_000_000)
    fs.utime("s", ns=(3, 4), follow_symlinks=False)
    assert fs.lstat("s").st_mtime_ns == 4
    before = time.time_ns()
    fs.utime("f")
    assert before <= fs.stat("f").st_mtime_ns <= time.time_ns()
    with pytest.raises(UsageError):
        fs.utime("f", (1, 2), ns=(1, 2))


def test_changes_move_the_times_that_posix_says(fs: FS) -> None:
    fs.mkdir("d")
    fs.mkdir("e")
    fs.write_bytes("d/f", b"1")

    def moved(*paths: str) -> set[str]:
        """Which times of `paths` moved since the last call; all are set back."""
        found = set()
        for path in paths:
            info = fs.stat(path)
            if info.st_mtime_ns != 1:
                found.add(f"{path} m")
            if info.st_atime_ns != 1:
                found.add(f"{path} a")
            if info.st_ctime_ns != changed.get(path):
                found.add(f"{path} c")
            fs.utime(path, ns=(1, 1))
            changed[path] = fs.stat(path).st_ctime_ns
        return found

    changed: dict[str, int] = {}
    moved("d", "e", "d/f")
    fs.read_bytes("d/f")
    fs.listdir("d")
    assert moved("d", "e", "d/f") == set()
    fs.chmod("d/f", 0o600)
    assert moved("d", "e", "d/f") == {"d/f c"}
    fs.setxattr("d/f", "user.a", b"")
    assert moved("d", "e", "d/f") == {"d/f c"}
    fs.write_bytes("d/f", b"2")
    assert moved("d", "e", "d/f") == {"d/f m", "d/f c"}
    fs.truncate("d/f", 0)
    assert moved("d", "e", "d/f") == {"d/f m", "d/f c"}
    fs.link("d/f", "e/g")
    assert moved("d", "e", "d/f") == {"e m", "e c", "d/f c"}
    fs.unlink("e/g")
    assert moved("d", "e", "d/f") == {"e m", "e c", "d/f c"}
    fs.rename("d/f", "e/f")
    assert moved("d", "e") == {"d m", "d c", "e m", "e c"}
    assert fs.stat("e/f").st_ctime_ns != changed["d/f"]
    fs.mkdir("d/x")
    assert moved("d") == {"d m", "d c"}
    fs.rmdir("d/x")
    assert moved("d") == {"d m", "d c"}
    with fs.open("e/f", "wb") as file:
        moved("e/f")
        file.write(b"late")
    assert moved("e/f") == {"e/f m", "e/f c"}


def test_the_time_of_birth_stays(fs: FS) -> None:
    before = time.time_ns()
    fs.write_bytes("f", b"")
    born = fs.stat("f").st_birthtime_ns
    assert before <= born <= time.time_ns()
    fs.write_bytes("f", b"x")
    fs.rename("f", "g")
    assert fs.stat("g").st_birthtime_ns == born


def test_attributes_are_set_and_removed(fs: FS) -> None:
    fs.write_bytes("f", b"")
    fs.symlink("f", "s")
    large = os.urandom(64 << 10)
    fs.setxattr("f", "user.a", b"1")
    fs.setxattr("s", b"user.\xff", bytearray(large))
    fs.setxattr("s", "trusted.x", b"link", follow_symlinks=False)
    assert fs.listxattr("f") == ["user.a", "user.\udcff"]
    assert fs.getxattr("f", "user.a") == b"1"
    assert fs.getxattr("f", b"user.\xff") == large
    assert fs.listxattr("s", follow_symlinks=False) == ["trusted.x"]
    fs.setxattr("f", "user.a", b"2", os.XATTR_REPLACE)
    fs.setxattr("f", "user.b", b"", os.XATTR_CREATE)
    fs.removexattr("f", b"user.\xff")
    assert {name: fs.getxattr("f", name) for name in fs.listxattr("f")} == {
        "user.a": b"2",
        "user.b": b"",
    }


def test_attributes_have_limits(fs: FS) -> None:
    fs.write_bytes("f", b"")
    fs.setxattr("f", "user.a", b"1")
    with pytest.raises(AttributeNotFoundError) as missing:
        fs.getxattr("f", "user.b")
    assert missing.value.errno == errno.ENODATA
    with pytest.raises(AttributeNotFoundError):
        fs.removexattr("f", "user.b")
    with pytest.raises(AttributeNotFoundError):
        fs.setxattr("f", "user.b", b"", os.XATTR_REPLACE)
    with pytest.raises(AttributeExistsError):
        fs.setxattr("f", "user.a", b"", os.XATTR_CREATE)
    for name, value in (("", b""), ("x" * 256, b""), ("a\0b", b""), ("user.c", bytes(65537))):
        with pytest.raises(PathInvalidError):
            fs.setxattr("f", name, value)
    assert fs.listxattr("f") == ["user.a"]
    assert fs.getxattr("f", "user.a") == b"1"


def test_attributes_go_with_their_file(fs: FS) -> None:
    fs.write_bytes("f", b"")
    fs.setxattr("f", "user.a", os.urandom(50_000))
    fs.unlink("f")
    fs.write_bytes("f", b"")
    assert fs.listxattr("f") == []
