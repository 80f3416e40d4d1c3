"""A mount does what Linux's system calls promise, as seen by programs."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import io
import mmap
import os
import random
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

import cowfs

from ..trees import host_tree
from .conftest import Image, run

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
SYMLINK_FOLLOW = 0x400
NOREPLACE, EXCHANGE = 1, 2
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, COLLAPSE = 1, 2, 0x10, 0x08


def check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def renameat2(old: Path, new: Path, flags: int) -> None:
    check(libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags))


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    check(libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)))


def orphans(image: Image) -> list[int]:
    """The numbers of the files that the image keeps without a name."""
    with cowfs.open(image.path) as store, store.at("files").reading() as nodes:
        return list(nodes.orphans())


@contextlib.contextmanager
def refused(number: int) -> Iterator[None]:
    """It must raise an OSError of that number."""
    with pytest.raises(OSError) as raised:
        yield
    assert raised.value.errno == number


def test_files_directories_and_links(mnt: Path) -> None:
    (mnt / "file").write_bytes(b"content")
    (mnt / "directory").mkdir()
    os.link(mnt / "file", mnt / "directory" / "link")
    (mnt / "symlink").symlink_to("directory/link")
    assert (mnt / "symlink").read_bytes() == b"content"
    assert (mnt / "file").stat().st_nlink == 2
    assert (mnt / "file").stat().st_ino == (mnt / "symlink").stat().st_ino
    assert mnt.stat().st_nlink == 3
    (mnt / "file").unlink()
    assert (mnt / "symlink").read_bytes() == b"content"
    with refused(errno.ENOTEMPTY):
        (mnt / "directory").rmdir()
    with refused(errno.EPERM):
        os.link(mnt / "directory", mnt / "another")
    shutil.rmtree(mnt / "directory")
    assert os.listdir(mnt) == ["symlink"]
    assert mnt.stat().st_nlink == 2


def test_what_was_written_is_there_after_unmounting(image: Image) -> None:
    mnt = image.mount()
    (mnt / "file").write_bytes(b"content")
    os.utime(mnt / "file", ns=(1, 2_000_000_003))
    image.unmount(mnt)
    assert image.cowfs("list").count("files") == 1
    mnt = image.mount()
    assert (mnt / "file").read_bytes() == b"content"
    assert (mnt / "file").stat().st_mtime_ns == 2_000_000_003


def test_fifos_sockets_and_devices(mnt: Path) -> None:
    os.mkfifo(mnt / "fifo", 0o600)
    assert stat.S_ISFIFO((mnt / "fifo").stat().st_mode)
    reader = os.open(mnt / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    with open(mnt / "fifo", "wb") as writer:
        writer.write(b"through")
        writer.flush()
        assert os.read(reader, 10) == b"through"
    os.close(reader)
    with contextlib.chdir(mnt), socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        server.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect("socket")
    if os.geteuid() == 0:
        number = os.makedev(300, 70_000)
        os.mknod(mnt / "device", stat.S_IFCHR | 0o600, number)
        assert (mnt / "device").stat().st_rdev == number


def test_extended_attributes(mnt: Path) -> None:
    file = mnt / "file"
    file.touch()
    os.setxattr(file, "user.one", b"1")
    os.setxattr(file, "user.large", bytes(range(256)) * 200)
    with refused(errno.EEXIST):
        os.setxattr(file, "user.one", b"2", os.XATTR_CREATE)
    with refused(errno.ENODATA):
        os.setxattr(file, "user.two", b"2", os.XATTR_REPLACE)
    assert sorted(os.listxattr(file)) == ["user.large", "user.one"]
    assert os.getxattr(file, "user.large") == bytes(range(256)) * 200
    os.removexattr(file, "user.one")
    with refused(errno.ENODATA):
        os.getxattr(file, "user.one")
    with refused(errno.EOPNOTSUPP):
        os.setxattr(file, "system.posix_acl_access", b"\2\0\0\0")


def test_rename_replaces_refuses_and_exchanges(mnt: Path) -> None:
    one, two, directory = mnt / "one", mnt / "two", mnt / "directory"
    one.write_text("1")
    two.write_text("2")
    directory.mkdir()
    with refused(errno.EEXIST):
        renameat2(one, two, NOREPLACE)
    renameat2(one, directory / "one", NOREPLACE)
    renameat2(directory / "one", two, EXCHANGE)
    assert (two.read_text(), (directory / "one").read_text()) == ("1", "2")
    renameat2(two, directory, EXCHANGE)
    assert (directory.read_text(), os.listdir(two)) == ("1", ["one"])
    os.rename(two / "one", directory)
    assert directory.read_text() == "2"
    with refused(errno.EINVAL):
        os.rename(two, two / "inside")


def test_holes_are_found_made_and_filled(mnt: Path) -> None:
    record = 128 << 10
    with open(mnt / "sparse", "w+b", buffering=0) as file:
        fd = file.fileno()
        file.seek(4 * record)
        file.write(b"x" * record)
        # Not synced: the kernel holds it back, and knows no holes itself.
        assert os.lseek(fd, 0, os.SEEK_DATA) == 4 * record
        assert os.lseek(fd, 0, os.SEEK_HOLE) == 0
        assert os.lseek(fd, 4 * record, os.SEEK_HOLE) == 5 * record
        with refused(errno.ENXIO):
            os.lseek(fd, 5 * record, os.SEEK_DATA)
        fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 4 * record, record)
        with refused(errno.ENXIO):
            os.lseek(fd, 0, os.SEEK_DATA)
        assert os.pread(fd, record, 4 * record) == bytes(record)
        fallocate(fd, 0, 0, 6 * record)
        assert os.fstat(fd).st_size == 6 * record
        fallocate(fd, KEEP_SIZE, 0, 7 * record)
        assert os.fstat(fd).st_size == 6 * record
        os.pwrite(fd, b"x" * 100, 0)
        fallocate(fd, ZERO_RANGE, 10, 80)
        assert os.pread(fd, 100, 0) == b"x" * 10 + bytes(80) + b"x" * 10
        with refused(errno.EOPNOTSUPP):
            fallocate(fd, COLLAPSE, 0, record)
        os.fsync(fd)
        assert os.fstat(fd).st_blocks * 512 < record
    run("cp", "--sparse=always", mnt / "sparse", mnt / "copy")
    assert (mnt / "copy").read_bytes() == (mnt / "sparse").read_bytes()


def test_a_file_without_a_name_lives_as_long_as_it_is_open(image: Image, mnt: Path) -> None:
    with open(mnt / "file", "w+b", buffering=0) as file:
        file.write(b"content")
        (mnt / "file").unlink()
        assert os.listdir(mnt) == []
        file.write(b", and more")
        os.fsync(file.fileno())
        assert os.pread(file.fileno(), 100, 0) == b"content, and more"
        assert os.fstat(file.fileno()).st_nlink == 0
    image.unmount(mnt)
    assert orphans(image) == []


def test_a_file_without_a_name_is_gone_after_a_crash(image: Image) -> None:
    mnt = image.mount()
    fd = os.open(mnt / "file", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"content")
    (mnt / "file").unlink()
    os.fsync(fd)
    image.end(mnt, signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.close(fd)
    assert len(orphans(image)) == 1
    image.unmount(image.mount())
    assert orphans(image) == []


def test_a_temporary_file_can_be_given_a_name(mnt: Path) -> None:
    fd = os.open(mnt, os.O_TMPFILE | os.O_RDWR, 0o600)
    try:
        os.write(fd, b"content")
        assert os.listdir(mnt) == []
        link = os.fsencode(f"/proc/self/fd/{fd}")
        check(libc.linkat(AT_FDCWD, link, AT_FDCWD, os.fsencode(mnt / "named"), SYMLINK_FOLLOW))
    finally:
        os.close(fd)
    assert (mnt / "named").read_bytes() == b"content"
    assert (mnt / "named").stat().st_nlink == 1


def test_what_happens_to_removed_files_hinders_no_snapshot(mnt: Path) -> None:
    for number in range(10):
        with open(mnt / "journal", "wb", buffering=0) as file:
            file.write(b"content")
            os.fsync(file.fileno())
        (mnt / "journal").unlink()
        (mnt / ".cowfs" / "snapshots" / str(number)).mkdir()


@pytest.mark.parametrize("sync", [True, False])
def test_copies_of_whole_files_share_what_is_stored(image: Image, mnt: Path, sync: bool) -> None:
    """Written and synced, or in the kernel's cache; from a snapshot, too."""
    data = os.urandom(32 << 20)
    with open(mnt / "file", "wb") as file:
        file.write(data)
        file.flush()
        if sync:
            os.fsync(file.fileno())
    run("cp", "--reflink=auto", mnt / "file", mnt / "copy")
    (mnt / ".cowfs" / "snapshots" / "one").mkdir()
    (mnt / "file").write_bytes(b"short")
    run("cp", mnt / ".cowfs" / "snapshots" / "one" / "file", mnt / "again")
    with open(mnt / "again", "r+b") as file:
        file.write(b"changed")
    for name, start in (("copy", data[:7]), ("again", b"changed")):
        assert (mnt / name).read_bytes() == start + data[7:]
    image.unmount(mnt)
    assert image.path.stat().st_blocks * 512 < 2 * len(data)
    mnt = image.mount()
    assert (mnt / "copy").read_bytes() == data


def test_parts_of_files_are_copied(mnt: Path) -> None:
    data = os.urandom(400_000)
    (mnt / "file").write_bytes(data)
    for name, (offset, to, length) in {"a": (0, 0, 70_000), "b": (5, 9, 400_000)}.items():
        with open(mnt / "file", "rb") as source, open(mnt / name, "wb") as target:
            done = os.copy_file_range(source.fileno(), target.fileno(), length, offset, to)
        assert done == min(length, len(data) - offset)
        assert (mnt / name).read_bytes() == bytes(to) + data[offset : offset + done]


def test_memory_maps_are_shared_with_files(mnt: Path) -> None:
    size = 300_000
    with open(mnt / "file", "w+b", buffering=0) as file:
        file.truncate(size)
        with mmap.mmap(file.fileno(), size) as area:
            area[200_000:200_007] = b"through"
            assert os.pread(file.fileno(), 7, 200_000) == b"through"
            os.pwrite(file.fileno(), b"back", 100_000)
            assert area[100_000:100_004] == b"back"
            area.flush()
    assert (mnt / "file").read_bytes()[200_000:200_007] == b"through"


def test_locks_of_both_kinds_hold(mnt: Path) -> None:
    with open(mnt / "file", "w+b") as one, open(mnt / "file", "r+b") as two:
        fcntl.flock(one, fcntl.LOCK_EX)
        with refused(errno.EAGAIN):
            fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(one, fcntl.LOCK_UN)
        fcntl.lockf(one, fcntl.LOCK_EX, 10, 5)
        script = "import fcntl, sys; fcntl.lockf(sys.stdin, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)"
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, stdin=two, capture_output=True, text=True, check=False)
        assert done.returncode == 1 and "BlockingIOError" in done.stderr


def test_times_have_nanoseconds_and_access_is_relative(mnt: Path) -> None:
    file = mnt / "file"
    file.write_bytes(b"content")
    os.utime(file, ns=(1_000_000_001, 2_000_000_002))
    assert file.stat().st_mtime_ns == 2_000_000_002
    assert file.stat().st_atime_ns == 1_000_000_001
    with open(file, "rb", buffering=0) as opened:  # not from the kernel's cache
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        opened.read()
    accessed = file.stat().st_atime_ns
    assert accessed > file.stat().st_ctime_ns > 2_000_000_002
    with open(file, "rb", buffering=0) as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        opened.read()
    assert file.stat().st_atime_ns == accessed


def test_permissions_are_checked_by_the_kernel(image: Image, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    mnt = image.mount("files", "mnt", "--allow-other")
    for above in (tmp_path, *tmp_path.parents):
        if above.owner() == "root" and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o011)
    (mnt / "secret").write_text("secret")
    (mnt / "secret").chmod(0o600)
    (mnt / "open").write_text("open")
    command: list[str | Path] = ["cat", mnt / "open", mnt / "secret"]
    done = subprocess.run(command, user=1234, capture_output=True, text=True, check=False)
    assert done.stdout == "open"
    assert "Permission denied" in done.stderr


def test_writing_takes_setuid_away(mnt: Path) -> None:
    file = mnt / "program"
    file.write_bytes(b"one")
    file.chmod(0o4755)
    if os.geteuid() == 0:
        os.chown(file, 1234, 1234)
        assert stat.S_IMODE(file.stat().st_mode) == 0o755
    else:
        file.write_bytes(b"two")
        assert stat.S_IMODE(file.stat().st_mode) == 0o755


def test_a_large_directory_is_read_whole_while_it_changes(mnt: Path) -> None:
    names = {f"file {number:05}" for number in range(3_000)}
    for name in names:
        (mnt / name).touch()
    assert set(os.listdir(mnt)) == names
    seen = set()
    with os.scandir(mnt) as entries:
        for entry in entries:
            assert entry.is_file()
            seen.add(entry.name)
            os.unlink(entry.path)
    assert seen == names
    assert os.listdir(mnt) == []


def test_free_space_is_told(image: Image, mnt: Path) -> None:
    state = os.statvfs(mnt)
    host = os.statvfs(image.directory)
    assert state.f_namemax == 255
    assert 0 < state.f_bavail * state.f_frsize <= host.f_bavail * host.f_frsize * 2


def test_names_that_are_no_text_and_names_that_are_too_long(mnt: Path) -> None:
    name = os.fsencode(mnt) + b"/\xff\xfe name"
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
    assert os.listdir(os.fsencode(mnt)) == [b"\xff\xfe name"]
    with refused(errno.ENAMETOOLONG):
        (mnt / ("x" * 256)).touch()


def test_snapshots_in_the_hidden_directory(image: Image, mnt: Path) -> None:
    snapshots = mnt / ".cowfs" / "snapshots"
    (mnt / "file").write_text("before")
    assert os.listdir(mnt) == ["file"]
    (snapshots / "one").mkdir()
    (mnt / "file").write_text("after")
    image.cowfs("snapshot", "files@two")
    assert sorted(os.listdir(snapshots)) == ["one", "two"]
    assert (snapshots / "one" / "file").read_text() == "before"
    assert (snapshots / "two" / "file").read_text() == "after"
    assert (snapshots / "one" / "file").stat().st_ino != (mnt / "file").stat().st_ino
    with refused(errno.EROFS):
        (snapshots / "one" / "file").write_text("no")
    with refused(errno.EROFS):
        (snapshots / "one" / "new").mkdir()
    with refused(errno.EROFS):
        (snapshots / "one" / "file").unlink()
    with refused(errno.EROFS):
        os.rename(snapshots / "one" / "file", snapshots / "one" / "other")
    with refused(errno.EROFS):
        (snapshots / "one" / "file").chmod(0o600)
    with refused(errno.EEXIST):
        (snapshots / "one").mkdir()
    with refused(errno.EINVAL):
        (snapshots / "no@name").mkdir()
    (snapshots / "one").rmdir()
    assert os.listdir(snapshots) == ["two"]
    (mnt / "file").write_text("anew")
    (snapshots / "one").mkdir()
    assert (snapshots / "one" / "file").read_text() == "anew"


def test_nothing_is_put_in_the_place_of_the_hidden_directory(mnt: Path) -> None:
    (mnt / "directory").mkdir()
    (mnt / "directory" / "file").write_text("x")
    with refused(errno.EPERM):
        (mnt / "directory").rename(mnt / ".cowfs")
    assert (mnt / "directory" / "file").read_text() == "x"
    (mnt / ".cowfs" / "snapshots" / "one").mkdir()
    (mnt / "directory").rename(mnt / "directory2")
    (mnt / "directory2" / ".cowfs").mkdir()  # elsewhere it is a name like any other


def test_a_name_that_no_snapshot_can_have_is_just_not_there(mnt: Path) -> None:
    name = os.fsencode(mnt) + b"/.cowfs/snapshots/\xff"
    with refused(errno.ENOENT):
        os.stat(name)
    with refused(errno.EINVAL):
        os.mkdir(name)
    assert os.listdir(mnt / ".cowfs" / "snapshots") == []


def test_a_snapshot_made_anew_under_its_name_is_another(image: Image, mnt: Path) -> None:
    (mnt / "file").write_text("one")
    image.cowfs("snapshot", "files@latest")
    latest = os.open(mnt / ".cowfs" / "snapshots" / "latest", os.O_RDONLY)
    try:
        os.stat("file", dir_fd=latest)
        image.cowfs("destroy", "files@latest")
        (mnt / "file").write_text("two")
        image.cowfs("snapshot", "files@latest")
        with refused(errno.ESTALE):
            os.close(os.open("file", os.O_RDONLY, dir_fd=latest))
    finally:
        os.close(latest)
    assert (mnt / ".cowfs" / "snapshots" / "latest" / "file").read_text() == "two"


def test_a_snapshot_that_is_mounted_is_busy(image: Image, mnt: Path) -> None:
    snapshot = mnt / ".cowfs" / "snapshots" / "one"
    snapshot.mkdir()
    other = image.directory / "other"
    other.mkdir()
    image.cowfs("mount", "-d", "files@one", other)
    with refused(errno.EBUSY):
        snapshot.rmdir()
    run("fusermount3", "-u", other)
    snapshot.rmdir()


def test_the_hidden_directory_is_of_the_owner_of_the_root(mnt: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("root is needed")
    os.chown(mnt, 1234, 2345)
    for hidden in (mnt / ".cowfs", mnt / ".cowfs" / "snapshots"):
        assert (hidden.stat().st_uid, hidden.stat().st_gid) == (1234, 2345)


def test_a_snapshot_holds_what_is_written_and_not_yet_synced(mnt: Path) -> None:
    with open(mnt / "file", "wb", buffering=0) as file:
        file.write(b"held back by the kernel")
        (mnt / ".cowfs" / "snapshots" / "one").mkdir()
        file.write(b", and more")
    held = mnt / ".cowfs" / "snapshots" / "one" / "file"
    assert held.read_bytes() == b"held back by the kernel"


def test_a_mounted_snapshot_is_read_only(image: Image) -> None:
    mnt = image.mount()
    (mnt / "file").write_text("before")
    image.cowfs("snapshot", "files@one")
    (mnt / "file").write_text("after")
    other = image.directory / "other"
    other.mkdir()
    image.cowfs("mount", "-d", "files@one", other)
    assert (other / "file").read_text() == "before"
    with refused(errno.EROFS):
        (other / "file").write_text("no")
    run("fusermount3", "-u", other)


def random_action(rng: random.Random, size: int) -> Callable[[int], object]:
    """Something to be done to an open file; its result is the same for every good file system."""
    offset, length = rng.randrange(size), rng.choice((1, 100, 4096, 10_000, 200_000))
    data = rng.randbytes(length)
    return rng.choice(
        [
            lambda fd: os.ftruncate(fd, offset),
            lambda fd: fallocate(fd, PUNCH_HOLE | KEEP_SIZE, offset, length),
            lambda fd: fallocate(fd, 0, offset, length),
            os.fsync,
            lambda fd: os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED),
            *[lambda fd: os.pread(fd, length, offset)] * 2,
            *[lambda fd: os.pwrite(fd, data, offset)] * 3,
        ]
    )


@pytest.mark.parametrize("seed", range(3))
def test_random_reads_and_writes_are_those_of_the_host(
    image: Image, mnt: Path, tmp_path: Path, seed: int
) -> None:
    file, other = mnt / "file", tmp_path / "file"
    file.touch()
    other.touch()
    rng = random.Random(seed)
    with open(file, "r+b", buffering=0) as one, open(other, "r+b", buffering=0) as two:
        for _ in range(400):
            action = random_action(rng, 1 << 20)
            assert action(one.fileno()) == action(two.fileno())
            assert os.fstat(one.fileno()).st_size == os.fstat(two.fileno()).st_size
    image.unmount(mnt)
    mnt = image.mount()
    assert file.read_bytes() == other.read_bytes()


def result(action: Callable[[], object]) -> int:
    """The errno of what is refused; 0 of what is done."""
    try:
        action()
    except OSError as error:
        return error.errno or -1
    return 0


def put(path: Path, data: bytes) -> None:
    """Write a file; a fifo that nobody reads is refused, rather than waited for."""
    fd = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_NONBLOCK, 0o644)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def random_change(root: Path, rng: random.Random) -> int:
    """Something done to names in a directory; its errno. With the same `rng`, the same."""
    paths = [root / "/".join(rng.choices("abc", k=rng.randint(1, 3))) for _ in range(2)]
    one, two = paths
    data = rng.randbytes(rng.choice((0, 10, 5_000, 200_000)))
    mode = rng.choice((0o600, 0o755, 0o4711, 0o2775, 0o1777))
    flags = rng.choice((0, NOREPLACE, EXCHANGE))
    return result(
        rng.choice(
            [
                lambda: one.mkdir(mode),
                lambda: one.mkdir(mode),
                lambda: put(one, data),
                lambda: put(one, data),
                lambda: os.rename(one, two),
                lambda: renameat2(one, two, flags),
                lambda: renameat2(one, two, flags),
                lambda: os.link(one, two, follow_symlinks=False),
                lambda: os.symlink(two.name, one),
                lambda: os.mkfifo(one, mode),
                one.unlink,
                one.rmdir,
                lambda: os.truncate(one, len(data)),
                lambda: one.chmod(mode),
                lambda: os.setxattr(one, f"user.{two.name}", data[:100]),
                lambda: os.removexattr(one, f"user.{two.name}"),
                lambda: os.utime(one, ns=(1, 2)),
            ]
        )
    )


@pytest.mark.parametrize("seed", range(3))
def test_random_changes_of_names_are_those_of_the_host(
    image: Image, mnt: Path, tmp_path: Path, seed: int
) -> None:
    other = tmp_path / "host"
    other.mkdir(mode=0o755)
    steps = random.Random(seed)
    for step in range(600):
        number = steps.random()
        here, there = (random_change(root, random.Random(number)) for root in (mnt, other))
        assert here == there, f"step {step}"
        if step % 60 == 0:
            assert host_tree(os.fsencode(mnt)) == host_tree(os.fsencode(other)), f"step {step}"
    assert host_tree(os.fsencode(mnt)) == host_tree(os.fsencode(other))
    image.unmount(mnt)
    image.mount()
    assert host_tree(os.fsencode(mnt)) == host_tree(os.fsencode(other))


def send(file: IO[bytes]) -> None:
    """Have the kernel send what it holds back of a file, and wait for that: no commit."""
    check(libc.sync_file_range(file.fileno(), ctypes.c_int64(0), ctypes.c_int64(0), 7))


def test_a_write_to_a_damaged_record_fails_alone(image: Image) -> None:
    content = random.Random(1).randbytes(1 << 20)
    with cowfs.open(image.path, "w") as store:
        store["files"].write_bytes("large", content)
    whole = image.path.read_bytes()
    damaged = whole.index(content[5 << 17 : (5 << 17) + 4096]) + 4096
    image.path.write_bytes(whole[:damaged] + b"damage" + whole[damaged + 6 :])
    mnt = image.mount()
    with (mnt / "other").open("wb", 0) as other, (mnt / "large").open("r+b", 0) as large:
        other.write(b"content")
        send(other)
        os.pwrite(large.fileno(), bytes(4096), (5 << 17) + (16 << 10))
        with refused(errno.EIO):
            os.fsync(large.fileno())
        os.fsync(other.fileno())
        os.pwrite(large.fileno(), content[5 << 17 : 6 << 17], 5 << 17)
        os.fsync(large.fileno())
    image.unmount(mnt)
    with cowfs.open(image.path) as store:
        assert store["files"].read_bytes("other") == b"content"
        assert store["files"].read_bytes("large") == content


@contextlib.contextmanager
def full_disk(image: Image, mnt: Path) -> Iterator[None]:
    """The image cannot grow, as on a disk that is full, and nothing tells so before."""
    pid = image.mounts[mnt].pid
    limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (image.path.stat().st_size, limits[1]))
    yield
    resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


def lose(image: Image, mnt: Path) -> None:
    """Write more than there is room for, so that all is lost that was changed since a commit."""
    with full_disk(image, mnt), pytest.raises(OSError), (mnt / "too large").open("wb", 0) as file:
        file.write(os.urandom(24 << 20))
        os.fsync(file.fileno())


@contextlib.contextmanager
def doomed(path: Path, mode: str) -> Iterator[IO[bytes]]:
    """An open file of which changes will be lost: closing it may tell so."""
    file = io.FileIO(path, mode)
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):
            file.close()


def test_fsync_tells_whoever_had_a_file_open_when_changes_were_lost(
    image: Image, mnt: Path
) -> None:
    with doomed(mnt / "lost", "wb") as lost:
        lost.write(b"content")
        send(lost)
        lose(image, mnt)
        with refused(errno.EIO):
            os.fsync(lost.fileno())
    with (mnt / "lost").open("wb", 0) as again:
        again.write(b"content")
        os.fsync(again.fileno())
    assert (mnt / "lost").read_bytes() == b"content"


def test_what_was_lost_is_not_shown_any_more(image: Image, mnt: Path) -> None:
    (mnt / "changed").write_bytes(b"before" * 1000)
    (mnt / "renamed").write_bytes(b"content")
    with doomed(mnt / "changed", "r+b") as file:
        os.fsync(file.fileno())
        file.write(b"after!" * 1000)
        send(file)
        (mnt / "renamed").rename(mnt / "new name")
        (mnt / "made").write_bytes(b"new")
        os.link(mnt / "changed", mnt / "link")
        lose(image, mnt)
        found: list[object] = []
        for _ in range(10_000):  # the kernel is told by another thread
            there = [name for name in ("made", "new name", "link") if (mnt / name).exists()]
            found = [there, (mnt / "changed").read_bytes()[:6]]
            if found == [[], b"before"]:
                break
    assert found == [[], b"before"]
    assert (mnt / "renamed").read_bytes() == b"content"
    (mnt / "another").write_bytes(b"another")
    assert not (mnt / "made").exists()
    assert (mnt / "changed").stat().st_nlink == 1


@pytest.mark.parametrize("live", [False, True])
def test_a_snapshot_has_all_that_was_written_before(image: Image, mnt: Path, live: bool) -> None:
    """Many pages here and there: the kernel sends them in more requests than it has under way."""
    pages = range(3, 900, 3)
    with (mnt / "file").open("w+b", 0) as file:
        file.write(bytes(4 << 20))
        os.fsync(file.fileno())
        for page in pages:
            os.pwrite(file.fileno(), b"new" * 1000, page << 12)
        if live:
            image.cowfs("snapshot", "files@one")
        else:
            (mnt / ".cowfs/snapshots/one").mkdir()
    content = (mnt / ".cowfs/snapshots/one/file").read_bytes()
    assert all(content[page << 12 :].startswith(b"new" * 1000) for page in pages)


def test_what_is_written_after_a_loss_is_put_where_the_file_ends(image: Image, mnt: Path) -> None:
    """The kernel keeps the size of a file that it wrote to, whatever it is told later."""
    log, cut, linked = mnt / "log", mnt / "cut", mnt / "linked"
    log.write_bytes(b"A" * 9_000)
    cut.write_bytes(b"T" * 9_000)
    os.link(log, linked)
    number = log.stat().st_ino
    for turn in range(2):  # the second time, of files that the kernel knows anew already
        with doomed(log, "r+b") as grown, doomed(cut, "r+b") as shortened:
            os.fsync(grown.fileno())
            os.pwrite(grown.fileno(), b"B" * 191_000, 9_000 + turn)
            send(grown)
            shortened.truncate(10)
            lose(image, mnt)
            for path in (linked, cut):
                with path.open("ab", 0) as after:
                    after.write(b"C")
                    os.fsync(after.fileno())
                assert path.stat().st_size == 9_001 + turn
            for file in (grown, shortened):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                with refused(errno.EIO):
                    os.pread(file.fileno(), 100, 0)
                with refused(errno.EIO):
                    os.pwrite(file.fileno(), b"D", 0)
                    os.fsync(file.fileno())
        sizes = {entry.name: entry.stat().st_size for entry in os.scandir(mnt)}
        assert sizes["log"] == sizes["linked"] == sizes["cut"] == 9_001 + turn
    assert log.read_bytes() == linked.read_bytes() == b"A" * 9_000 + b"CC"
    assert cut.read_bytes() == b"T" * 9_000 + b"CC"
    assert log.stat().st_ino == linked.stat().st_ino == number
    image.unmount(mnt)
    with cowfs.open(image.path) as store:
        assert store["files"].read_bytes("log") == b"A" * 9_000 + b"CC"
        assert store["files"].read_bytes("cut") == b"T" * 9_000 + b"CC"


def test_a_file_without_a_name_is_of_no_use_after_changes_of_it_were_lost(
    image: Image, mnt: Path
) -> None:
    with doomed(mnt / "file", "w+b") as file:
        (mnt / "file").unlink()
        file.write(b"content")
        os.fsync(file.fileno())
        file.write(b"lost" * 1000)
        send(file)
        lose(image, mnt)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with refused(errno.EIO):
            os.pread(file.fileno(), 7, 0)
        with refused(errno.EIO):
            os.pwrite(file.fileno(), b"more", 0)
            os.fsync(file.fileno())
    image.unmount(mnt)
    assert orphans(image) == []


def test_a_file_that_was_made_in_what_was_lost_says_so(image: Image, mnt: Path) -> None:
    with doomed(mnt / "new", "wb") as file:
        file.write(b"held back by the kernel")
        lose(image, mnt)
        with refused(errno.EIO):
            os.fsync(file.fileno())
    assert not (mnt / "new").exists()


def test_a_directory_that_is_removed_is_empty_for_who_has_it_open(mnt: Path) -> None:
    for name in ("removed", "replaced", "other"):
        (mnt / name).mkdir()
    fds = [os.open(mnt / name, os.O_RDONLY) for name in ("removed", "replaced")]
    here = Path.cwd()
    os.chdir(mnt / "removed")
    fds.append(os.open(".", os.O_RDONLY))
    try:
        (mnt / "removed").rmdir()
        (mnt / "other").rename(mnt / "replaced")
        for fd in fds:
            status = os.stat(fd)
            assert stat.S_ISDIR(status.st_mode) and status.st_nlink == 0
            assert os.listdir(fd) == []
        with refused(errno.ENOENT):
            Path("new").mkdir()
    finally:
        os.chdir(here)
        for fd in fds:
            os.close(fd)
    assert os.listdir(mnt) == ["replaced"]
