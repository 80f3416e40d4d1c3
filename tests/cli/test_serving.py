"""Commands for an image that `cowfs serve` holds: they do and say what they do without it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cowfs import open as open_image
from cowfs.serve.protocol import Command

from ..nbd import Client, Served
from ..plain import noise
from .conftest import Cowfs

SIZE = 4 << 20


@pytest.fixture
def image(image: str, cowfs: Cowfs) -> str:
    """With a volume `disk` that has a snapshot, and one, `spare`, that is not served."""
    for name in ("disk", "spare"):
        cowfs("create", image, name, "--kind", "volume", "--size", "4M", "--record-size", "4K")
    cowfs("create", image, "keys")
    cowfs("snapshot", image, "disk@one", "spare@one")
    return image


@pytest.fixture
def served(image: str, cowfs: Cowfs) -> Iterator[Served]:
    served = Served(image, "disk")
    yield served
    assert served.end() == 0
    assert "Traceback" not in served.log
    assert not Path(f"{image}.control").exists()
    cowfs("check", image)


def test_commands_do_and_say_what_they_do_without_a_server(image: str, cowfs: Cowfs) -> None:
    """A model: the same commands for a copy of the image that nobody serves."""
    Path("plain").mkdir()
    shutil.copy(image, "plain/t.cow")
    commands = [
        ("df", "IMAGE"),
        ("create", "IMAGE", "more", "--kind", "volume", "--size", "1M"),
        ("snapshot", "IMAGE", "disk@two", "spare@two"),
        ("snapshot", "IMAGE", "disk@two"),
        ("clone", "IMAGE", "disk@two", "copy"),
        ("clone", "IMAGE", "disk@none", "other"),
        ("resize", "IMAGE", "copy", "8M"),
        ("resize", "IMAGE", "keys", "8M"),
        ("resize", "IMAGE", "none", "8M"),
        ("resize", "IMAGE", "disk@one", "8M"),
        ("resize", "IMAGE", "copy", "0"),
        ("rename", "IMAGE", "copy", "renamed"),
        ("rename", "IMAGE", "disk@two", "three"),
        ("rollback", "IMAGE", "spare@one", "--keep", "before"),
        ("rollback", "IMAGE", "spare@none"),
        ("diff", "IMAGE", "disk@one", "disk@three", "--json"),
        ("destroy", "IMAGE", "disk@three"),
        ("destroy", "IMAGE", "spare"),
        ("destroy", "IMAGE", "-r", "spare", "renamed"),
        ("scrub", "IMAGE"),
        ("check", "IMAGE"),
        ("list", "IMAGE"),
    ]
    served = Served(image, "disk")

    def results(path: str) -> list[tuple[int, str, str]]:
        found = []
        for words in commands:
            result = cowfs.result(*(path if word == "IMAGE" else word for word in words))
            found.append((result.code, result.out, result.err.replace(path, "IMAGE")))
        return found

    live = results(image)
    assert served.end() == 0
    for words, one, other in zip(commands, live, results("plain/t.cow"), strict=True):
        if words[0] not in ("df", "list", "scrub", "check"):  # these count, and tell times
            assert one == other, words
        else:
            assert one[0] == other[0] == 0, words


@pytest.mark.parametrize(
    "words",
    [
        ("rollback", "disk@one"),
        ("destroy", "-r", "disk"),
        ("rename", "disk", "other"),
    ],
)
def test_what_is_served_stays_as_its_clients_know_it(
    image: str, served: Served, cowfs: Cowfs, words: tuple[str, ...]
) -> None:
    name, *rest = words
    assert cowfs.fails(name, image, *rest) == "disk: disk is being served; end that first"


def test_a_served_volume_grows_for_those_that_connect_later(
    image: str, served: Served, cowfs: Cowfs
) -> None:
    with Client(served).go("disk") as before:
        assert before.request(Command.WRITE, 0, data=noise(4096)) == 0
        cowfs("resize", image, "disk", "8M")
        with Client(served).go("disk") as after:
            assert after.request(Command.WRITE, SIZE, data=noise(4096)) == 0
            assert after.read(0, 4096) == noise(4096)
        assert before.read(0, 4096) == noise(4096)
    line = cowfs.fails("resize", image, "disk", "7M")
    assert line.startswith(f"disk is being served and has {2 * SIZE} bytes; it can grow")
    assert "kind volume" in cowfs.fails("resize", image, "keys", "8M")
    cowfs("resize", image, "spare", "1M")  # which nobody knows


def test_a_served_snapshot_is_neither_renamed_nor_destroyed(image: str, cowfs: Cowfs) -> None:
    served = Served(image, "disk@one", "spare")
    line = "disk@one: disk@one is being served; end that first"
    assert cowfs.fails("rename", image, "disk@one", "two") == line
    assert cowfs.fails("destroy", image, "disk@one") == line
    assert served.end() == 0


def test_a_snapshot_has_what_was_written_before_it(image: str, cowfs: Cowfs) -> None:
    served = Served(image, "disk")
    with Client(served).go("disk") as client:
        assert client.request(Command.WRITE, 8192, data=noise(4096)) == 0  # without a flush
        cowfs("snapshot", image, "disk@two")
        assert client.request(Command.WRITE, 8192, data=bytes(4096)) == 0
        cowfs("diff", image, "disk@two", code=1)  # has that, too
        assert client.read(8192, 4096) == bytes(4096)
    cowfs("clone", image, "disk@two", "copy")
    assert served.end() == 0
    cowfs("cp", f"{image}:copy", "raw")
    assert Path("raw").read_bytes()[8192 : 8192 + 4096] == noise(4096)


def test_snapshots_while_a_client_writes_have_what_it_flushed(image: str, cowfs: Cowfs) -> None:
    """The client writes round by round its number into records, in order, and flushes. A snapshot
    has at least the last round that was flushed when it was asked for, and nothing out of order."""
    served = Served(image, "disk")
    offsets = range(0, SIZE, 40960)
    flushed = 0
    stop = threading.Event()
    rounds = threading.Semaphore(0)

    def write() -> None:
        nonlocal flushed
        with Client(served).go("disk") as client:
            while not stop.is_set():
                number = flushed % 250 + 1
                for offset in offsets:
                    assert client.request(Command.WRITE, offset, data=bytes([number]) * 4096) == 0
                assert client.request(Command.FLUSH) == 0
                flushed = number
                rounds.release()
                if number == 250:
                    return

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        asked = []
        try:
            for number in range(5):
                assert rounds.acquire(timeout=60)
                asked.append(flushed)
                cowfs("snapshot", image, f"disk@live{number}")
        finally:
            stop.set()
        writing.result()
    assert served.end() == 0
    with open_image(image) as store:
        for number, before in enumerate(asked):
            with store.at(f"disk@live{number}") as disk:
                found = [disk.pread(1, offset)[0] for offset in offsets]
            assert found == sorted(found, reverse=True)
            assert found[0] - found[-1] <= 1 and found[-1] >= before
