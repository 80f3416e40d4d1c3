"""Open files: modes, buffers, holes, and what the standard library makes of them."""

from __future__ import annotations

import errno
import io
import os
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cowfs
from cowfs import UsageError
from cowfs.device import MemoryDevice
from cowfs.errors import FileTooBigError, PathInvalidError, StaleFileError
from cowfs.fs import FS
from cowfs.limits import RECORD_SIZE

from .conftest import assert_sound

SIZES = [0, 1, 1919, 1920, 1921, 4096, RECORD_SIZE - 1, RECORD_SIZE, RECORD_SIZE + 1, 1_000_000]


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("size", SIZES)
def test_bytes_come_back_as_they_were(fs: FS, size: int) -> None:
    data = noise(size)
    assert fs.write_bytes("f", data) == size
    assert fs.read_bytes("f") == data
    assert fs.stat("f").st_size == size
    with fs.open("f", "rb") as file:
        assert file.read() == data
        assert file.seek(size // 2) == size // 2
        assert file.read(10) == data[size // 2 :][:10]
    with fs.open("f", "wb") as file:
        assert file.write(data[::-1]) == size
    assert fs.read_bytes("f") == data[::-1]


@pytest.mark.parametrize("mode", ["r", "w", "x", "a", "r+", "w+", "x+", "a+"])
def test_modes_do_as_those_of_open(fs: FS, mode: str, tmp_path: Path) -> None:
    def trial(opened: Callable[..., Any], place: Any) -> list[Any]:
        seen: list[Any] = []
        try:
            with opened(place, mode + "b") as file:
                seen += [file.mode, file.readable(), file.writable(), file.tell()]
                for act in (
                    lambda: file.read(3),
                    lambda: file.write(b"new"),
                    file.tell,
                    lambda: file.seek(-2, os.SEEK_END),
                    file.read,
                    lambda: file.truncate(7),
                    lambda: file.seek(0),
                    file.read,
                ):
                    try:
                        seen.append(act())
                    except (io.UnsupportedOperation, FileNotFoundError) as error:
                        seen.append(type(error))
        except OSError as error:
            seen.append(error.errno)
        return seen

    host = tmp_path / "f"
    for content in (None, b"", b"0123456789"):
        if content is not None:
            host.write_bytes(content)
            fs.write_bytes("f", content)
        assert trial(fs.open, "f") == trial(open, host)
        assert fs.exists("f") == host.exists()
        if host.exists():
            assert fs.read_bytes("f") == host.read_bytes()


def test_text_is_read_and_written(fs: FS) -> None:
    with fs.open("f", "w") as file:
        file.write("eins\nzwei é\n")
        print("drei", file=file)
    assert fs.read_bytes("f") == "eins\nzwei é\ndrei\n".encode()
    with fs.open("f") as file:
        assert (file.name, file.mode, file.encoding) == ("f", "r", "utf-8")
        assert list(file) == ["eins\n", "zwei é\n", "drei\n"]
    assert fs.write_text("g", "a\r\nb", encoding="utf-16") == 4
    assert fs.read_text("g", encoding="utf-16") == "a\nb"
    with fs.open("g", encoding="utf-16", newline="") as file:
        assert file.read() == "a\r\nb"


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("", {}),
        ("rw", {}),
        ("q", {}),
        ("rr", {}),
        ("b", {}),
        ("rbt", {}),
        ("r", {"buffering": 0}),
        ("rb", {"encoding": "utf-8"}),
        ("rb", {"newline": ""}),
        ("w", {"newline": "x"}),
        ("w", {"encoding": "no-such"}),
        ("w", {"errors": "no-such"}),
        ("w", {"permissions": 0o10000}),
    ],
)
def test_wrong_arguments_of_open_change_nothing(fs: FS, mode: str, options: dict[str, Any]) -> None:
    fs.write_bytes("f", b"stays")
    for path in ("f", "new"):
        with pytest.raises(UsageError):
            fs.open(path, mode, **options)
    assert fs.listdir() == ["f"]
    assert fs.read_bytes("f") == b"stays"


def test_what_is_no_regular_file_cannot_be_opened(fs: FS) -> None:
    fs.mkdir("d")
    fs.mkfifo("p")
    for mode in ("r", "w", "a", "r+"):
        with pytest.raises(IsADirectoryError):
            fs.open("d", mode)
        with pytest.raises(PathInvalidError):
            fs.open("p", mode)
    with pytest.raises(FileExistsError):
        fs.open("d", "x")


def test_raw_files_write_at_once(fs: FS) -> None:
    with fs.open("f", "wb", buffering=0) as file:
        assert file.write(b"abc") == 3
        assert fs.read_bytes("f") == b"abc"
        assert file.seek(5) == 5
        file.write(memoryview(bytearray(b"xy")))
    assert fs.read_bytes("f") == b"abc\0\0xy"
    with fs.open("f", "rb", buffering=0) as file:
        buffer = bytearray(4)
        assert file.readinto(buffer) == 4
        assert buffer == b"abc\0"
        assert file.readall() == b"\0xy"
        assert file.read(1) == b""
        assert file.seek(100) == 100
        assert file.read() == b""


def test_closed_files_refuse(fs: FS) -> None:
    file = fs.open("f", "wb", buffering=0)
    file.close()
    file.close()
    for act in (file.read, file.tell, file.readable, lambda: file.write(b""), file.truncate):
        with pytest.raises(ValueError, match="closed"):
            act()


def test_positions_and_sizes_have_limits(fs: FS) -> None:
    with fs.open("f", "wb", buffering=0) as file:
        with pytest.raises(PathInvalidError):
            file.seek(-1)
        with pytest.raises(UsageError):
            file.seek(0, 77)
        file.seek(1 << 62)
        with pytest.raises(FileTooBigError):
            file.write(b"x")
        with pytest.raises(PathInvalidError):
            file.truncate(-1)
        with pytest.raises(FileTooBigError):
            file.truncate((1 << 62) + 1)
    assert fs.stat("f").st_size == 0


def test_appending_goes_to_the_end_whoever_else_writes(fs: FS) -> None:
    with fs.open("f", "ab", buffering=0) as first, fs.open("f", "ab", buffering=0) as second:
        for number in range(5):
            first.write(b"%d" % number)
            second.write(b"-")
    assert fs.read_bytes("f") == b"0-1-2-3-4-"


def test_holes_cost_nothing_and_are_found(fs: FS) -> None:
    record = RECORD_SIZE
    with fs.open("f", "wb") as file:
        file.seek(10 * record)
        file.write(noise(record))
        file.seek(1 << 40)
        file.write(noise(100))
        file.truncate(1 << 41)
    info = fs.stat("f")
    assert info.st_size == 1 << 41
    assert info.st_blocks * 512 < 3 * record
    with fs.open("f", "rb") as file:
        assert file.seek(0, os.SEEK_DATA) == 10 * record
        assert file.seek(10 * record + 5, os.SEEK_DATA) == 10 * record + 5
        assert file.seek(10 * record, os.SEEK_HOLE) == 11 * record
        assert file.seek(0, os.SEEK_HOLE) == 0
        assert file.seek(11 * record, os.SEEK_DATA) == 1 << 40
        for offset in ((1 << 40) + record, 1 << 41, (1 << 41) + 1):
            with pytest.raises(OSError) as caught:
                file.seek(offset, os.SEEK_DATA)
            assert caught.value.errno == errno.ENXIO
        file.seek(10 * record - 10)
        assert file.read(20) == bytes(10) + noise(record)[:10]
        file.seek(-5, os.SEEK_END)
        assert file.read() == bytes(5)


def test_truncating_cuts_and_grows(fs: FS) -> None:
    data = noise(300_000)
    fs.write_bytes("f", data)
    for size in (200_000, 131_072, 131_071, 1_000, 0, 500, 400_000):
        fs.truncate("f", size)
        expected = fs.read_bytes("f")
        assert len(expected) == size == fs.stat("f").st_size
        data = data[:size].ljust(size, b"\0")
        assert expected == data


def test_small_files_live_in_the_tree(live: FS) -> None:
    for number in range(100):
        live.write_bytes(f"{number}", bytes([number]) * 1920)
        assert live.stat(f"{number}").st_blocks == 4
    with live.reading() as nodes:
        kinds = {kind for _, kind, _ in nodes.tree.items_between(what=3)}
    assert kinds == {0}


def test_removed_files_can_be_used_while_they_are_open(fs: FS) -> None:
    data = noise(500_000)
    fs.write_bytes("f", data)
    fs.write_bytes("g", b"g")
    fs.write_bytes("other", b"other")
    with fs.open("f", "r+b") as file, fs.open("f", "rb") as again, fs.open("g", "rb") as g:
        fs.unlink("f")
        fs.rename("other", "g")
        assert fs.listdir() == ["g"]
        assert fs.read_bytes("g") == b"other"
        assert file.read() == data
        file.write(b"more")
        file.flush()
        assert again.read() == data + b"more"
        again.close()
        file.seek(0)
        assert file.read(3) == data[:3]
        assert g.read() == b"g"
        with fs.reading() as nodes:
            assert len(list(nodes.orphans())) == 2
    with fs.reading() as nodes:
        assert list(nodes.orphans()) == []
        assert len(nodes.tree) == 6


def test_files_of_a_removed_tree_can_be_used_while_they_are_open(fs: FS) -> None:
    fs.makedirs("d/e")
    fs.write_bytes("d/e/f", b"f")
    with fs.open("d/e/f", "rb") as file:
        fs.remove_tree("d")
        assert fs.listdir() == []
        assert file.read() == b"f"
    with fs.reading() as nodes:
        assert len(nodes.tree) == 2


def test_every_object_of_a_dataset_knows_the_open_files(store: cowfs.Store) -> None:
    fs = store.create("files", kind="fs")
    fs.write_bytes("f", b"f")
    with fs.open("f", "rb") as file:
        with store.transaction() as tx:
            tx["files"].unlink("f")
        store["files"].write_bytes("g", b"g")
        assert file.read() == b"f"
    assert_sound(store)


def test_files_that_a_crash_left_nameless_are_deleted(store: cowfs.Store) -> None:
    fs = store.create("files", kind="fs")
    fs.write_bytes("f", noise(10_000))
    file = fs.open("f", "rb")
    fs.unlink("f")
    store.snapshot("files@s")
    store.clone("files@s", "clone")
    clone = store["clone"]
    with clone.reading() as nodes:
        assert len(list(nodes.orphans())) == 1
    clone.mkdir("d")
    with clone.reading() as nodes:
        assert list(nodes.orphans()) == []
    assert file.read() == noise(10_000)
    file.close()
    assert_sound(store)
    assert_sound(store, "clone")


def test_files_keep_to_their_file_through_a_rollback(store: cowfs.Store) -> None:
    fs = store.create("files", kind="fs")
    store.snapshot("files@empty")
    fs.write_bytes("f", b"before")
    with fs.open("f", "r+b", buffering=0) as file:
        store.rollback("files@empty")
        fs.write_bytes("g", b"after")
        for act in (file.read, lambda: file.write(b"x"), file.truncate):
            with pytest.raises(StaleFileError):
                act()
    assert fs.read_bytes("g") == b"after"


def test_files_follow_their_file_through_renames(fs: FS) -> None:
    fs.mkdir("d")
    with fs.open("f", "wb") as file:
        file.write(b"one ")
        fs.rename("f", "d/g")
        file.flush()
        fs.write_bytes("f", b"another")
        file.write(b"two")
    assert fs.read_bytes("d/g") == b"one two"
    assert fs.read_bytes("f") == b"another"


def test_zip_files_can_be_made_and_read(fs: FS) -> None:
    members = {f"dir/{number}": noise(number * 5_000) for number in range(20)}
    with fs.open("a.zip", "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members.items():
            made.writestr(name, data)
    with fs.open("a.zip", "r+b") as file, zipfile.ZipFile(file, "a") as more:
        more.writestr("more", b"more")
    with fs.open("a.zip", "rb") as file, zipfile.ZipFile(file) as read:
        assert read.testzip() is None
        assert {name: read.read(name) for name in read.namelist()} == {**members, "more": b"more"}


@pytest.mark.parametrize("mode", ["w:", "w:gz", "w:xz"])
def test_tar_files_can_be_made_and_read(fs: FS, mode: Any) -> None:
    members = {f"dir/{number}": noise(number * 5_000) for number in range(20)}
    with (
        fs.open("a.tar", "wb") as file,
        tarfile.open(fileobj=file, mode=mode) as made,
    ):
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    with fs.open("a.tar", "rb") as file, tarfile.open(fileobj=file) as read:
        for name, data in members.items():
            member = read.extractfile(name)
            assert member is not None
            assert member.read() == data


def test_a_file_without_its_place_is_refused(fs: FS) -> None:
    with fs.open("f", "wb") as file, pytest.raises(io.UnsupportedOperation):
        file.fileno()


def test_views_are_for_reading_only(store: cowfs.Store) -> None:
    fs = store.create("files", kind="fs")
    fs.write_bytes("f", b"old")
    store.snapshot("files@s")
    with store.at("files@s") as view:
        fs.write_bytes("f", b"new")
        fs.unlink("f")
        with view.open("f", "rb") as file:
            assert file.read() == b"old"
        for mode in ("w", "a", "x", "r+"):
            with pytest.raises(cowfs.ReadOnlyError):
                view.open("f", mode)
        changes: list[Callable[[], Any]] = [
            lambda: view.write_bytes("f", b""),
            lambda: view.mkdir("d"),
            lambda: view.unlink("f"),
            lambda: view.chmod("f", 0),
        ]
        for change in changes:
            with pytest.raises(cowfs.ReadOnlyError):
                change()


def test_files_of_one_large_transaction(store: cowfs.Store) -> None:
    """More than the cache holds, through files, in one transaction."""
    store = cowfs.open_device(MemoryDevice(), parameters=cowfs.Parameters(), cache=1 << 20)
    store.create("files", kind="fs")
    with store.transaction() as tx:
        fs = tx["files"]
        for number in range(2_000):
            fs.write_bytes(f"small{number}", b"%d" % number * 100)
        with fs.open("large", "wb") as file:
            for number in range(200):
                file.write(noise(100_000 + number))
    fs = store["files"]
    assert len(fs.listdir()) == 2_001
    assert fs.read_bytes("small1999") == b"1999" * 100
    with fs.open("large", "rb") as file:
        for number in range(200):
            assert file.read(100_000 + number) == noise(100_000 + number)
    assert_sound(store)
    store.close()
