"""`cowfs mount` as a command: how it begins and ends, what it refuses; other commands meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import cowfs
from cowfs import limits
from cowfs.device import FileDevice
from cowfs.mount import Mounts, attach, mounts

from ..conftest import MakeStore
from .conftest import Image, Start, run

# --- how it ends ----------------------------------------------------------------------------------


def test_in_the_background_it_is_there_when_the_command_returns(image: Image) -> None:
    mnt = image.directory / "mnt"
    mnt.mkdir()
    assert image.cowfs("mount", "-d", "files", mnt) == ""
    (mnt / "file").write_text("content")
    run("fusermount3", "-u", mnt)
    assert image.cowfs("cat", code=2).startswith("cowfs:")
    with cowfs.open(image.path) as store:
        assert store["files"].read_text("file") == "content"


def test_in_the_background_a_failure_is_said_all_the_same(image: Image) -> None:
    line = image.cowfs("mount", "-d", "files", image.directory / "none", code=1)
    assert line == f"cowfs: {image.directory}/none: no such directory; make it first\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_without_loss(image: Image, mnt: Path, number: int) -> None:
    fd = os.open(mnt / "file", os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"held back by the kernel, in a file that is open")
    (mnt / "directory").mkdir()
    process = image.mounts[mnt]
    process.send_signal(number)
    while os.path.ismount(mnt):  # it ends when the file is closed, or after a while
        os.sched_yield()
    os.close(fd)
    _, err = image.mounts.pop(mnt).communicate()
    assert (process.returncode, err) == (0, "")
    with cowfs.open(image.path) as store:
        assert store["files"].read_bytes("file").startswith(b"held back")
        assert store["files"].isdir("directory")


WRITER = """
import os, sys
number = 0
while True:
    with open(f"file{number % 50}", "wb") as file:
        file.write(b"%d " % number * 1000)
        file.flush()
        os.fsync(file.fileno())
    os.write(1, b"%d\\n" % number)
    number += 1
"""


@pytest.mark.parametrize("acknowledged", [1, 40, 130])
def test_a_kill_loses_nothing_that_was_synced(
    image: Image, mnt: Path, start: Start, acknowledged: int
) -> None:
    writer = start(sys.executable, "-c", WRITER, cwd=mnt)
    assert writer.stdout is not None
    for _ in range(acknowledged):
        last = int(writer.stdout.readline())
    process = image.mounts[mnt]
    process.kill()
    for line in writer.stdout:
        if not line.strip().isdigit():
            break  # its last words
        last = int(line)
    image.end(mnt, signal.SIGKILL)
    image.cowfs("check")
    mnt = image.mount()
    for number in range(max(0, last - 40), last + 1):
        content = (mnt / f"file{number % 50}").read_bytes()
        written = {b"%d " % n * 1000 for n in (number, number + 50)}
        assert content in written or number + 50 == last + 1


def test_all_else_is_durable_after_a_while(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "COMMIT_EVERY_S", 0.001)
    assert mounts.COMMIT_EVERY_S < 5
    store = make_store()
    store.create("files", "fs")
    with Mounts(store) as held:
        with held.gathering:
            held.gathering.write("files", 1, b"file").create(1, b"file", 0o100644, 0, 0)
        while held.gathering.pending:
            os.sched_yield()
        assert store.at("files").listdir() == ["file"]
        assert store.durable_txid == store.txid


def test_the_host_begins_to_write_before_a_commit_waits_for_it(tmp_path: Path) -> None:
    begun = threading.Event()

    class Told(FileDevice):
        def begin_writing(self) -> None:
            super().begin_writing()
            begun.set()

    device = Told(str(tmp_path / "image"), writable=True, create=True)
    store = cowfs.open_device(device, parameters=cowfs.Parameters())
    with store, Mounts(store):
        assert device.patient
        assert begun.wait(60)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may")
def test_the_kernel_reads_ahead_as_it_is_told(image: Image) -> None:
    device = os.stat(image.mount(name="with blanks, and\ta tab")).st_dev
    knob = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    assert int(knob.read_text()) == attach.READ_AHEAD // limits.KIB


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a tmpfs")
def test_it_reads_the_kernels_table_whatever_else_is_mounted(image: Image) -> None:
    other = image.directory / "other"
    other.mkdir()
    run("mount", "-t", "tmpfs", "of two\rlines", other)
    try:
        image.mount()
        snapshot = image.directory / "mnt" / ".cowfs" / "snapshots" / "one"
        snapshot.mkdir()
        snapshot.rmdir()
    finally:
        run("umount", other)


# --- what it refuses ------------------------------------------------------------------------------


def test_bad_input_is_one_clear_line(image: Image, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    file = tmp_path / "file"
    file.touch()
    image.cowfs("create", "keys", "--kind", "kv")
    for arguments, code, line in (
        (("files", tmp_path / "none"), 1, f"{tmp_path}/none: no such directory; make it first"),
        (("files", file), 2, f"{file}: not a directory, and only at one can be mounted"),
        (("file", place), 1, f"{image.path}: no dataset 'file'; did you mean 'files'?"),
        (("files@none", place), 1, "dataset 'files' has no snapshot 'none'"),
        (("keys", place), 1, "keys is of kind kv; only files (kind fs) are mounted"),
    ):
        assert line in image.cowfs("mount", *arguments, code=code)
    line = image.cowfs("mount", "files", code=2)
    assert "missing argument" in line.lower()


def test_a_directory_is_mounted_at_once_only(image: Image, mnt: Path) -> None:
    line = image.cowfs("mount", "files", mnt, code=1)
    assert "something is mounted here already" in line
    other = image.directory / "other"
    other.mkdir()
    assert f"files is mounted at {mnt} already" in image.cowfs("mount", "files", other, code=1)


def test_a_directory_whose_program_was_killed_is_named(image: Image, mnt: Path) -> None:
    process = image.mounts.pop(mnt)
    process.kill()
    process.communicate()
    line = image.cowfs("mount", "files", mnt, code=1)
    assert "the program that mounted something here is gone; 'fusermount3 -u" in line
    run("fusermount3", "-u", mnt)


def test_an_image_that_a_program_holds_is_busy(image: Image, tmp_path: Path) -> None:
    with cowfs.open(image.path, "w"):
        line = image.cowfs("mount", "files", tmp_path, code=1)
    assert f"process {os.getpid()} holds the image" in line


def test_without_fusermount3_the_package_is_named(image: Image, tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "cowfs.cli", "mount", image.path, "files", tmp_path / "place"],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        1,
        "cowfs: fusermount3 is missing; install the package fuse3\n",
    )


# --- live control ---------------------------------------------------------------------------------


def test_commands_say_the_same_of_a_mounted_image(image: Image) -> None:
    """Each command twice: of the image while it is mounted, and afterwards."""
    mnt = image.mount()
    for number in range(20):
        (mnt / f"file{number}").write_text(f"{number}")
    image.cowfs("snapshot", "files@one")
    for number in range(5):
        (mnt / f"file{number}").unlink()
    image.cowfs("snapshot", "files@two")
    commands: list[tuple[str, tuple[str, ...], int]] = [
        ("list", ("--json",), 0),
        ("list", (), 0),
        ("diff", ("files@one", "files@two"), 1),
        ("diff", ("files@one", "--json"), 1),
        ("diff", ("files@one", "--stat"), 1),
        ("diff", ("files@two",), 0),
        ("diff", ("files@none",), 2),
        ("scrub", (), 0),
        ("check", (), 0),
        ("snapshot", ("files@one",), 1),
        ("snapshot", ("file@one",), 1),
        ("clone", ("files@none", "copy"), 1),
        ("destroy", ("files@none",), 1),
        ("rollback", ("none@one",), 1),
        ("create", ("files",), 1),
        ("rename", ("files@one", "two"), 1),
    ]
    live = [image.cowfs(name, *arguments, code=code) for name, arguments, code in commands]
    df = json.loads(image.cowfs("df", "--json"))
    image.unmount(mnt)
    assert live == [image.cowfs(name, *arguments, code=code) for name, arguments, code in commands]
    assert df["live"] == json.loads(image.cowfs("df", "--json"))["live"]


def test_what_is_mounted_is_neither_rolled_back_nor_destroyed(image: Image, mnt: Path) -> None:
    image.cowfs("snapshot", "files@one")
    for arguments in (
        ("rollback", "files@one"),
        ("destroy", "-r", "files"),
        ("rename", "files", "other"),
    ):
        line = image.cowfs(*arguments, code=1)
        assert line == f"cowfs: files is mounted at {mnt}; unmount it first\n"


def test_other_datasets_change_while_one_is_mounted(image: Image, mnt: Path) -> None:
    (mnt / "file").write_text("one")
    image.cowfs("snapshot", "files@one")
    image.cowfs("clone", "files@one", "copy")
    image.cowfs("snapshot", "copy@kept")
    other = image.directory / "other"
    other.mkdir()
    image.cowfs("mount", "-d", "copy", other)
    (other / "file").write_text("two")
    run("fusermount3", "-u", other)
    assert image.cowfs("diff", "copy@kept", code=1) == "M /file\n"
    image.cowfs("rollback", "copy@kept")
    assert image.cowfs("diff", "copy@kept") == ""
    image.cowfs("rename", "copy", "renamed")
    image.cowfs("destroy", "-r", "renamed")
    assert (mnt / "file").read_text() == "one"


def test_a_second_mount_lives_as_long_as_the_command_for_it(image: Image, mnt: Path) -> None:
    image.cowfs("snapshot", "files@one")
    other = image.mount("files@one", "other", "-v")
    assert os.path.ismount(other)
    image.end(other)
    assert not os.path.ismount(other)
    other = image.mount("files@one", "other")
    image.unmount(other)
    assert os.path.ismount(mnt)


def test_commands_wait_for_a_mount_that_is_about_to_end(image: Image) -> None:
    for number in range(5):
        mnt = image.mount()
        (mnt / "file").write_text("x" * 100_000)
        run("fusermount3", "-u", mnt)
        image.cowfs("snapshot", f"files@{number}")
        assert image.mounts.pop(mnt).communicate()
    assert image.cowfs("list").count("files@") == 5


def test_hooks_around_a_snapshot(image: Image, mnt: Path) -> None:
    quiesce, resume = f"echo before > {mnt}/file", f"echo after > {mnt}/file"
    image.cowfs("snapshot", "files@one", "--quiesce", quiesce, "--resume", resume)
    assert (mnt / ".cowfs" / "snapshots" / "one" / "file").read_text() == "before\n"
    assert (mnt / "file").read_text() == "after\n"
    (mnt / "file").unlink()
    line = image.cowfs("snapshot", "files@two", "--quiesce", "false", "--resume", resume, code=1)
    assert line == "cowfs: --quiesce 'false' failed with code 1\n"
    assert (mnt / "file").read_text() == "after\n"
    assert "files@two" not in image.cowfs("list")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_program_is_told_to_go_on_though_a_signal_ends_the_command(
    image: Image, tmp_path: Path, number: signal.Signals
) -> None:
    os.mkfifo(tmp_path / "paused")
    quiesce = f"echo > {tmp_path}/paused; exec sleep 1000 >&- 2>&-"
    resume = f"touch {tmp_path}/resumed"
    hooks = ("--quiesce", quiesce, "--resume", resume)
    process = image.start("snapshot", image.path, "files@one", *hooks)
    (tmp_path / "paused").read_text()
    process.send_signal(number)
    process.communicate()
    assert process.returncode == 128 + number
    assert (tmp_path / "resumed").exists()
    assert "files@one" not in image.cowfs("list")


def test_an_image_may_lie_below_what_is_mounted(image: Image) -> None:
    process = image.start("mount", "-v", image.path, "files", image.directory)
    assert process.stderr is not None
    assert "mounted" in process.stderr.readline()
    image.mounts[image.directory] = process
    script = 'echo x > "$0/file" && stat -f "$0"'
    subprocess.run(["sh", "-c", script, image.directory], check=True, timeout=60)
    image.end(image.directory)
    assert image.start("cat", f"{image.path}:files/file").communicate() == ("x\n", "")


def test_a_program_is_told_to_go_on_whatever_became_of_the_snapshot(
    image: Image, mnt: Path
) -> None:
    resume = f"echo on >> {mnt}/file"
    image.cowfs("snapshot", "files@one")
    line = image.cowfs("snapshot", "files@one", "--quiesce", "true", "--resume", resume, code=1)
    assert "files@one" in line or "'one'" in line
    assert (mnt / "file").read_text() == "on\n"
    line = image.cowfs("snapshot", "files@two", "--resume", "exit 3", code=1)
    assert line == "cowfs: --resume 'exit 3' failed with code 3\n"
    assert "files@two" in image.cowfs("list")
