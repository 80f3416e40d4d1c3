"""Requests of a mount gathered in one transaction: what is seen, what is durable, what is lost."""

from __future__ import annotations

import logging
import os
import stat
import threading
from pathlib import Path
from typing import NoReturn

import pytest

import cowfs
from cowfs.device import MemoryDevice
from cowfs.errors import CorruptionError, Error, FailedError, OutOfSpaceError
from cowfs.fs.inode import ROOT
from cowfs.limits import KIB, MIB
from cowfs.mount import gathering as module
from cowfs.mount.gathering import Gathering
from cowfs.mount.told import LostChangesError, Subject

from ..conftest import MakeStore
from ..devices import FailingDevice, ThinDevice
from ..plain import noise


@pytest.fixture
def gathering(store: cowfs.Store) -> Gathering:
    store.create("files", "fs")
    return Gathering(store)


def create(gathering: Gathering, name: bytes, data: bytes = b"") -> int:
    with gathering:
        nodes = gathering.write("files", ROOT, name, len(data))
        number = nodes.create(ROOT, name, stat.S_IFREG | 0o644, 0, 0)
        nodes.write(number, data, 0)
    return number


def write(gathering: Gathering, number: int, content: bytes, at: int, length: int) -> None:
    with gathering:
        gathering.write_content("files", number, memoryview(content)[at : at + length], at)


def names(gathering: Gathering) -> list[bytes]:
    with gathering:
        return [name for name, _, _ in gathering.read("files").entries(ROOT)]


def test_reads_see_what_was_gathered_and_others_do_not(
    gathering: Gathering, store: cowfs.Store
) -> None:
    create(gathering, b"one")
    assert names(gathering) == [b"one"]
    assert store.at("files").listdir() == []
    assert gathering.pending
    gathering.commit()
    assert not gathering.pending
    assert store.at("files").listdir() == ["one"]
    assert names(gathering) == [b"one"]


def test_many_requests_are_one_transaction(gathering: Gathering, store: cowfs.Store) -> None:
    before = store.txid
    for number in range(100):
        create(gathering, b"%d" % number)
    gathering.commit()
    assert store.txid == before + 1


def test_a_commit_makes_durable_what_was_not(gathering: Gathering, store: cowfs.Store) -> None:
    create(gathering, b"one")
    gathering.commit(durable=False)
    assert store.durable_txid < store.txid and gathering.pending
    gathering.commit()
    assert store.durable_txid == store.txid


def test_others_write_between_two_transactions(gathering: Gathering, store: cowfs.Store) -> None:
    create(gathering, b"one")
    entered = threading.Event()

    def request() -> None:
        entered.wait()
        create(gathering, b"two")

    thread = threading.Thread(target=request)
    thread.start()
    with gathering.exclusively():
        entered.set()
        store.snapshot("files@snapshot")
        store["files"].mkdir("made")
    thread.join()
    assert store.at("files@snapshot").listdir() == ["one"]
    assert names(gathering) == [b"made", b"one", b"two"]


def test_a_refused_request_leaves_the_others_in_place(
    gathering: Gathering, store: cowfs.Store
) -> None:
    create(gathering, b"one")
    with pytest.raises(FileExistsError):
        create(gathering, b"one")
    gathering.commit()
    assert store.at("files").listdir() == ["one"]


def test_the_tree_of_a_file_that_comes_in_many_writes_is_stored_once(
    gathering: Gathering, store: cowfs.Store
) -> None:
    number = create(gathering, b"large")
    content = noise(9 * MIB)
    write(gathering, number, content, 0, MIB)
    before = store.io.writer.written
    for at in range(MIB, len(content), MIB):
        write(gathering, number, content, at, MIB)
    assert store.io.writer.written == before + 8 * MIB, "records, and nothing else"
    with gathering:
        assert gathering.read("files").read(number, len(content), 0) == content
    gathering.commit()
    assert store.at("files").read_bytes("large") == content
    assert store.check().ok


def test_files_that_are_written_in_turns_and_looked_at_meanwhile_are_what_was_written(
    gathering: Gathering, store: cowfs.Store
) -> None:
    numbers = [create(gathering, b"%d" % n) for n in range(3)]
    contents = [noise(3 * MIB + n, n) for n in range(3)]
    for at in range(0, 4 * MIB, MIB // 2):
        for number, content in zip(numbers, contents, strict=True):
            write(gathering, number, content, at, MIB // 2)
        if at == MIB:
            gathering.commit(durable=False)
        with gathering:
            stop = min(at + MIB // 2, len(contents[1]))
            assert gathering.read("files").read(numbers[1], stop, 0) == contents[1][:stop]
    gathering.commit()
    assert [store.at("files").read_bytes(f"{n}") for n in range(3)] == contents
    assert store.check().ok


def test_no_reader_stays_behind(gathering: Gathering, store: cowfs.Store) -> None:
    names(gathering)
    create(gathering, b"one")
    assert store.readers() == []
    gathering.commit()
    names(gathering)
    with gathering.exclusively():
        assert store.readers() == []


def test_on_a_full_image_a_request_fails_alone(make_store: MakeStore) -> None:
    store = make_store(size=32 * MIB)
    store.create("files", "fs")
    gathering = Gathering(store)
    made = []
    with pytest.raises(OutOfSpaceError):
        for number in range(100):
            create(gathering, b"%03d" % number, os.urandom(MIB))
            made.append(b"%03d" % number)
    assert len(made) > 20
    assert names(gathering) == made
    for name in made:
        with gathering:
            gathering.write("files", ROOT, name).unlink(ROOT, name)
    gathering.commit()
    create(gathering, b"again", os.urandom(MIB))
    gathering.commit()
    assert store.at("files").listdir() == ["again"]
    assert store.check().ok


def test_parts_of_records_are_counted_as_the_whole_records_that_they_take(
    make_store: MakeStore,
) -> None:
    store = make_store(size=64 * MIB)
    store.create("files", "fs")
    gathering = Gathering(store)
    number = create(gathering, b"large")
    content = noise(24 * MIB)
    for at in range(0, len(content), MIB):
        write(gathering, number, content, at, MIB)
    gathering.commit()
    create(gathering, b"another", b"acknowledged")
    for turn in range(1000):
        at = turn * 37 % 192 * 128 * KIB
        write(gathering, number, content, at + 4 * KIB, 4 * KIB)
    gathering.commit()
    assert store.at("files").read_bytes("another") == b"acknowledged"
    assert store.at("files").read_bytes("large") == content
    assert store.check().ok


def test_where_room_is_misjudged_the_loss_is_told_and_the_store_goes_on(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(size=32 * MIB)
    store.create("files", "fs")
    gathering = Gathering(store)
    create(gathering, b"kept")
    gathering.commit()
    monkeypatch.setattr(module, "_SHORT", -(1 << 60))
    handle = gathering.told.handle()
    create(gathering, b"lost")
    with caplog.at_level(logging.ERROR), pytest.raises(OutOfSpaceError):
        for number in range(100):
            create(gathering, b"%03d" % number, os.urandom(MIB))
    assert "what was changed since the last commit is lost" in caplog.text
    assert names(gathering) == [b"kept"]
    create(gathering, b"more")
    gathering.commit()
    with pytest.raises(LostChangesError):
        gathering.told.check_kept(handle)
    gathering.told.check_kept(gathering.told.handle())
    assert store.at("files").listdir() == ["kept", "more"]


def test_a_file_that_runs_out_of_space_takes_nothing_with_it_that_was_committed(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(size=32 * MIB)
    store.create("files", "fs")
    gathering = Gathering(store)
    number = create(gathering, b"kept", b"small")
    gathering.commit()
    monkeypatch.setattr(module, "_SHORT", -(1 << 60))
    content = noise(64 * MIB)
    with caplog.at_level(logging.ERROR), pytest.raises(OutOfSpaceError):
        for at in range(0, len(content), MIB):
            write(gathering, number, content, at, MIB)
    assert "what was changed since the last commit is lost" in caplog.text
    write(gathering, number, content, 0, 2 * MIB)
    gathering.commit()
    assert store.at("files").read_bytes("kept") == content[: 2 * MIB]
    assert store.check().ok


def test_room_of_the_host_counts_where_an_image_may_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cowfs.open(tmp_path / "t.cow", "n") as store:
        store.create("files", "fs")
        gathering = Gathering(store)
        before = store.txid
        create(gathering, b"one")
        create(gathering, b"two")
        assert store.txid == before
        full = os.statvfs_result((4096, 4096, 1000, 0, 0, 0, 0, 0, 0, 255))
        monkeypatch.setattr(os, "statvfs", lambda _: full)
        gathering.commit()
        create(gathering, b"three")
        create(gathering, b"four")
        assert store.txid == before + 3


def test_room_of_the_host_is_known_wherever_the_image_has_gone(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    with cowfs.open(tmp_path / "here" / "t.cow", "n") as store:
        store.create("files", "fs")
        (tmp_path / "here").rename(tmp_path / "there")
        gathering = Gathering(store)
        create(gathering, b"one")
        assert names(gathering) == [b"one"]
        assert store["files"].statvfs().f_bavail > 0


def damaged(content: bytes, at: int) -> tuple[Gathering, int]:
    """A file with one of its bytes damaged on the image; its number."""
    device = MemoryDevice()
    with cowfs.open_device(device, parameters=cowfs.Parameters()) as store:
        store.create("files", "fs").write_bytes("large", content)
    place = device.read(0, device.size()).index(content[at : at + 64])
    device.write(place, b"damage")
    store = cowfs.open_device(device)
    return Gathering(store), store["files"].stat("large").st_ino


@pytest.mark.parametrize("change", ["write", "append", "truncate", "punch"])
def test_a_change_that_damage_refuses_takes_nothing_else_with_it(change: str) -> None:
    content = noise(3 * 128 * KIB + 1000)
    gathering, number = damaged(content, 3 * 128 * KIB + 10)
    create(gathering, b"another", b"acknowledged")
    write(gathering, number, content[::-1], 100, 1000)
    with pytest.raises(CorruptionError), gathering:
        if change == "write":
            gathering.write_content(
                "files", number, memoryview(content)[: 256 * KIB], 128 * KIB + 1
            )
        elif change == "append":
            gathering.write_content("files", number, memoryview(content), len(content))
        elif change == "truncate":
            gathering.write("files", number).truncate(number, len(content) - 1)
        else:
            gathering.write("files", number).punch(number, 128 * KIB, 2 * 128 * KIB + 20)
    gathering.commit()
    view = gathering.store.at("files")
    assert view.read_bytes("another") == b"acknowledged"
    with view.open("large", "rb", buffering=0) as file:
        expected = content[:100] + content[::-1][100:1100] + content[1100:]
        assert file.read(3 * 128 * KIB) == expected[: 3 * 128 * KIB]
    write(gathering, number, content, 3 * 128 * KIB, 1000)  # all of it: the rest is not needed
    gathering.commit()
    assert gathering.store.at("files").read_bytes("large")[3 * 128 * KIB :] == content[-1000:]
    assert gathering.store.check().ok


def test_half_of_an_operation_is_not_committed(
    gathering: Gathering, store: cowfs.Store, caplog: pytest.LogCaptureFixture
) -> None:
    create(gathering, b"kept")
    gathering.commit()
    create(gathering, b"lost")
    with caplog.at_level(logging.ERROR), pytest.raises(MemoryError), gathering:
        gathering.write("files", ROOT, b"half").create(ROOT, b"half", stat.S_IFREG, 0, 0)
        raise MemoryError
    gathering.commit()
    assert store.at("files").listdir() == ["kept"]
    assert "what was changed since the last commit is lost" in caplog.text


def test_what_is_written_is_stored_by_a_later_request_where_one_had_no_memory_for_it(
    gathering: Gathering, store: cowfs.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = create(gathering, b"large")
    content = noise(5 * 128 * KIB, 1)
    write(gathering, number, content, 0, len(content))
    gathering.commit()
    write(gathering, number, content[::-1], 0, len(content))

    def no_memory() -> NoReturn:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(store.io, "as_a_whole", no_memory)  # the first that it does
        with pytest.raises(MemoryError), gathering:
            gathering.read("files").get(number)
    gathering.commit()
    assert store.at("files").read_bytes("large") == content[::-1]
    assert store.check().ok


def test_a_number_that_was_lost_is_given_to_no_other_file(gathering: Gathering) -> None:
    """The kernel may know it still, with what is in the file."""
    lost = create(gathering, b"lost")
    with gathering:
        gathering.told.made("files", lost)
    with pytest.raises(MemoryError), gathering:
        gathering.write("files", ROOT).create(ROOT, b"half", stat.S_IFREG, 0, 0)
        raise MemoryError
    assert create(gathering, b"new") > lost


def test_free_space_counts_as_far_as_the_host_has_room_for_it(
    make_store: MakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    device = ThinDevice(room=6000)
    store = make_store(device)
    store.create("files", "fs")
    store.io.device.resize(64 * MIB)
    store.io.space.bitmap.resize(64 * MIB // 4096)
    gathering = Gathering(store)
    made = []
    with caplog.at_level(logging.ERROR), pytest.raises(OutOfSpaceError):
        for number in range(100):
            create(gathering, b"%03d" % number, noise(MIB, number))
            made.append(b"%03d" % number)
    assert len(made) > 10 and names(gathering) == made
    assert not caplog.records
    device.room = 20_000
    create(gathering, b"more", noise(MIB))
    gathering.commit()
    assert store.check().ok


def test_a_failed_flush_is_told_once_and_nothing_is_written_any_more(
    make_store: MakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    device = FailingDevice()
    store = make_store(device)
    store.create("files", "fs")
    gathering = Gathering(store)
    create(gathering, b"kept")
    gathering.commit()
    create(gathering, b"one")
    device.countdown = 0
    with caplog.at_level(logging.ERROR), pytest.raises((Error, OSError)):
        gathering.commit()
    assert "what was changed since the last commit is lost" in caplog.text
    device.countdown = None
    with pytest.raises(FailedError):
        create(gathering, b"two")
    assert b"kept" in names(gathering)


class InterruptedDevice(MemoryDevice):
    """A device that an interrupt comes upon in the next flush, once it is `armed`."""

    armed = False

    def flush(self) -> None:
        if self.armed:
            self.armed = False
            raise KeyboardInterrupt
        super().flush()


def test_a_commit_that_is_interrupted_tells_of_the_loss(
    make_store: MakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    device = InterruptedDevice()
    store = make_store(device)
    store.create("files", "fs")
    told: list[set[Subject]] = []
    gathering = Gathering(store, told.append)
    number = create(gathering, b"file")
    gathering.commit()
    handle = gathering.told.handle()
    write(gathering, number, b"content", 0, 7)
    device.armed = True
    with caplog.at_level(logging.ERROR), pytest.raises(KeyboardInterrupt):
        gathering.commit()
    assert told == [{Subject("files", number, b"")}]
    assert "what was changed since the last commit is lost" in caplog.text
    assert gathering.told.losses["files", number] == 1
    with pytest.raises(LostChangesError):
        gathering.told.check_kept(handle)


def test_losses_are_counted_of_what_the_kernel_was_told_of_a_file(make_store: MakeStore) -> None:
    store = make_store()
    store.create("files", "fs")
    told: list[set[Subject]] = []
    gathering = Gathering(store, told.append)
    numbers = [create(gathering, name) for name in (b"kept", b"written", b"cut", b"other")]
    kept, written, cut, other = numbers
    write(gathering, kept, b"content", 0, 7)
    gathering.commit()
    assert [gathering.told.losses["files", number] for number in numbers] == [0, 0, 0, 0]
    for turn in range(2):
        write(gathering, written, b"content", 0, 7)
        with gathering:
            gathering.write("files", cut).truncate(cut, 10)
            gathering.told.altered("files", cut)
        with gathering:
            gathering.write("files", other).set_attributes(other, mode=0o600)
        with pytest.raises(MemoryError), gathering:
            gathering.write("files", ROOT, b"half").create(ROOT, b"half", stat.S_IFREG, 0, 0)
            raise MemoryError
        assert [gathering.told.losses["files", number] for number in numbers] == [
            0,
            turn + 1,
            turn + 1,
            0,
        ]
        assert told.pop() == {
            Subject("files", written, b"", turn),
            Subject("files", cut, b"", turn),
            Subject("files", other, b"", 0),
            Subject("files", ROOT, b"half", 0),
        }
    assert store.at("files").read_bytes("kept") == b"content"
