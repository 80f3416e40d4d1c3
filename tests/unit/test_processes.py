"""One process writes, or any number read; who comes second is told who was first."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import cowfs

HOLDER = """
import sys
import cowfs
with cowfs.open(sys.argv[1], sys.argv[2]) as store:
    print(len(store["a"]), flush=True)
    sys.stdin.readline()
"""


@contextmanager
def holder(image: Path, flag: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the image open meanwhile."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(image), flag],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "1\n"
        yield process
        process.stdin.close()
        assert process.wait() == 0


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "p.cow"
    with cowfs.open(path, "n") as store:
        store.create("a")[b"k"] = b"v"
    return path


@pytest.mark.parametrize("flag", ["r", "w", "c", "n"])
def test_a_second_process_is_told_who_writes(image: Path, flag: str) -> None:
    before = image.read_bytes()
    with (
        holder(image, "w") as writer,
        pytest.raises(cowfs.BusyError, match=rf"p\.cow.*\b{writer.pid}\b"),
    ):
        cowfs.open(image, flag)
    assert len(image.read_bytes()) == len(before)
    with cowfs.open(image, "r") as store:
        assert store["a"][b"k"] == b"v"


def test_several_processes_read_at_the_same_time(image: Path) -> None:
    with holder(image, "r"), holder(image, "r"), cowfs.open(image, "r") as store:
        assert store["a"][b"k"] == b"v"
        assert store.check().ok


def test_a_writer_is_told_who_reads(image: Path) -> None:
    with holder(image, "r") as reader, pytest.raises(cowfs.BusyError, match=rf"\b{reader.pid}\b"):
        cowfs.open(image, "w")
    with cowfs.open(image, "w") as store:
        store["a"][b"k"] = b"w"


def test_a_second_handle_in_one_process_is_refused(image: Path) -> None:
    with cowfs.open(image, "w"), pytest.raises(cowfs.BusyError, match="this one"):
        cowfs.open(image, "w")


def test_a_process_that_ended_holds_nothing(image: Path) -> None:
    with holder(image, "w") as writer:
        writer.kill()
        writer.wait()
        with cowfs.open(image, "w") as store:
            store["a"][b"k"] = b"w"
        writer.returncode = 0
