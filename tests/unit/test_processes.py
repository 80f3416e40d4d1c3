"""One process writes, or any number read; who comes second is told who was first."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import cowfs
from cowfs import limits

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


def in_fork(work: Callable[[], None]) -> None:
    """Do something in a fork of this process, which ends with it; it must not raise."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_fork_that_ends_leaves_the_image_to_the_process_that_opened_it(tmp_path: Path) -> None:
    path = tmp_path / "f.cow"
    store = cowfs.open(path, "n")
    a = store.create("a")
    for i in range(300):
        a[b"%d" % i] = b"x" * 500
    before = path.read_bytes()

    def end() -> None:
        store.close()  # as the end of `with cowfs.open(...)` does
        assert path.read_bytes() == before

    in_fork(end)
    for i in range(300, 600):
        a[b"%d" % i] = b"y" * 500
    store.device.close()  # killed
    with cowfs.open(path) as store:
        assert len(store["a"]) == 600
        assert store.check().ok


def test_a_transaction_that_is_open_stays_with_the_process_that_began_it(tmp_path: Path) -> None:
    path = tmp_path / "t.cow"
    value = os.urandom(2 * limits.ONE_FLUSH_LIMIT)
    with cowfs.open(path, "n") as store:
        store.create("a")
        with store.transaction() as tx:
            tx["a"][b"k"] = value
            in_fork(tx.abort)
            in_fork(store.close)
        assert store["a"][b"k"] == value
        assert store.check().ok


def test_a_fork_is_told_to_open_the_image_itself(tmp_path: Path) -> None:
    with cowfs.open(tmp_path / "f.cow", "n") as store:
        a = store.create("a")
        a[b"k"] = b"v"

        def refused() -> None:
            uses: list[Callable[[], object]] = [
                lambda: a[b"k"],
                lambda: a.update({b"k": b"w"}),
                lambda: store.create("b"),
                lambda: store.at("a"),
                store.sync,
                store.check,
                store.scrub,
                lambda: a.__setitem__(b"k", b"w"),
            ]
            for use in uses:
                with pytest.raises(cowfs.ClosedError, match="fork"):
                    use()

        with store.transaction():  # no lock of another thread is waited for either
            in_fork(refused)
        in_fork(refused)
        a[b"k"] = b"w"


def test_a_fork_reads_on_what_is_open_for_reading(image: Path) -> None:
    with cowfs.open(image, "r") as store:

        def read() -> None:
            assert store["a"][b"k"] == b"v"
            store.close()

        in_fork(read)
        assert store["a"][b"k"] == b"v"
