"""Datasets mounted for real programs: `cowfs mount` as a process, on a directory of the test's."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def need(program: str, package: str) -> str:
    """The path of a program; the test is skipped where it is not installed."""
    path = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{package} is not installed")
    return path


def need_fuse() -> None:
    """The test is skipped where nothing can be mounted."""
    need("fusermount3", "fuse3")
    if not os.path.exists("/dev/fuse"):
        pytest.skip("the kernel has no FUSE")


def run(*command: str | Path, cwd: Path | None = None, input: str | None = None) -> str:
    """What a program prints; it must end well."""
    done = subprocess.run(
        command, cwd=cwd, input=input, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


class Image:
    """An image, the command line for it, and what is mounted from it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "t.cow"
        self.directory = directory
        self.mounts: dict[Path, subprocess.Popen[str]] = {}

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Begin a command."""
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "cowfs.cli", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )

    def cowfs(self, command: str, *arguments: str | Path, code: int = 0) -> str:
        """What a command for this image prints; for one that fails, its line on stderr."""
        process = self.start(command, self.path, *arguments)
        out, err = process.communicate()
        assert process.returncode == code, f"{process.returncode}: {out}{err}"
        return out if code == 0 or not err else err

    def mount(self, dataset: str = "files", name: str = "mnt", *options: str) -> Path:
        """Mount a dataset at a new directory; as soon as it is."""
        directory = self.directory / name
        directory.mkdir(exist_ok=True)
        process = self.start("mount", "-v", self.path, dataset, directory, *options)
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "mounted" in line, line + process.stderr.read()
        self.mounts[directory] = process
        return directory

    def end(self, directory: Path, number: int = signal.SIGTERM) -> None:
        """End the process of a mount by a signal."""
        process = self.mounts.pop(directory)
        process.send_signal(number)
        process.communicate()
        if number == signal.SIGKILL:
            run("fusermount3", "-u", "-z", directory)  # files may be open
        else:
            assert process.returncode == 0

    def unmount(self, directory: Path) -> None:
        """As people unmount; as soon as the process has ended, too."""
        run("fusermount3", "-u", directory)
        process = self.mounts.pop(directory)
        _, err = process.communicate()
        assert process.returncode == 0, err


@contextlib.contextmanager
def made(directory: Path) -> Iterator[Image]:
    """An image with an empty dataset of files, to be mounted; it is sound at the end."""
    need_fuse()
    image = Image(directory)
    image.cowfs("mkfs")
    image.cowfs("create", "files")
    try:
        yield image
        for place in list(image.mounts):
            image.end(place)
        image.cowfs("check")
    finally:
        # Where a test failed: its directories are to be removed.
        for process in image.mounts.values():
            process.kill()
            process.communicate()
        for line in Path("/proc/self/mounts").read_bytes().split(b"\n")[:-1]:  # names may hold "\r"
            mounted = os.fsdecode(line.split(b" ")[1])
            if Path(mounted).is_relative_to(directory):
                run("fusermount3", "-u", "-z", mounted)


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Image]:
    """As `made`, in the test's directory."""
    with made(tmp_path) as image:
        yield image


@pytest.fixture
def mnt(image: Image) -> Path:
    """The dataset, mounted."""
    return image.mount()


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Begin a program; it is ended with the test."""
    running: list[subprocess.Popen[str]] = []

    def begin(*command: str | Path, cwd: Path | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()
