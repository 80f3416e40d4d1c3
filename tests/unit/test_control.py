"""Live control: who asks the holder of an image gets what the image itself would have given."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import cowfs
from cowfs.control import Holder, RemoteStore, Server, listen, open_store, wire
from cowfs.errors import (
    BusyError,
    CorruptionError,
    Error,
    ExistsError,
    NotFoundError,
    PathNotFoundError,
    UsageError,
)


@pytest.fixture
def image(tmp_path: Path) -> str:
    return str(tmp_path / "t.cow")


@pytest.fixture
def held(image: str) -> Iterator[cowfs.Store]:
    """A store that is held, with some content."""
    with cowfs.open(image, "n") as store:
        with store.create("data") as data:
            data[b"key"] = b"one"
            store.snapshot("data@one")
            data[b"key"] = b"two"
            data[b"more"] = bytes(300_000)
        yield store


@pytest.fixture
def server(held: cowfs.Store) -> Iterator[Server]:
    with listen(held) as server:
        yield server


@pytest.fixture
def remote(image: str, server: Server) -> RemoteStore:
    store = open_store(image, "w")
    assert isinstance(store, RemoteStore)
    return store


def test_without_a_holder_it_is_the_store_itself(image: str) -> None:
    with open_store(image, "n") as store:
        assert isinstance(store, cowfs.Store)


def test_where_nobody_listens_the_image_is_busy(image: str, held: cowfs.Store) -> None:
    with pytest.raises(BusyError):
        open_store(image, "w")


def test_records_are_those_of_the_store(remote: RemoteStore, held: cowfs.Store) -> None:
    assert remote.list() == held.list()
    assert remote.space() == held.space()
    assert list(remote.diff("data@one", "data")) == list(held.diff("data@one", "data"))
    assert remote.scrub() == held.scrub()
    assert remote.check() == held.check()
    assert list(remote) == list(held)
    assert "data" in remote and "other" not in remote


def test_changes_are_made_by_the_holder(remote: RemoteStore, held: cowfs.Store) -> None:
    remote.create("files", "fs")
    remote.create("disk", "volume", 1 << 20)
    assert held["files"].kind == "fs"
    assert held["disk"].size == 1 << 20
    remote.snapshot("data@two", "files@two")
    remote.clone("data@one", "clone")
    assert held["clone"][b"key"] == b"one"
    remote.rollback("data@one", keep="kept")
    assert held["data"][b"key"] == b"one"
    remote.rename("clone", "renamed")
    remote.destroy("data@two", "data@kept")
    names = [entry.name for entry in held.list()]
    assert names == ["data", "data@one", "disk", "files", "files@two", "renamed"]
    remote.destroy("data", "renamed", recursive=True)
    assert list(held) == ["disk", "files"]
    assert held.check().ok


def test_destroying_is_all_or_nothing(remote: RemoteStore, held: cowfs.Store) -> None:
    with pytest.raises(NotFoundError):
        remote.destroy("data@one", "data@none")
    assert [entry.name for entry in held.list()] == ["data", "data@one"]


def test_errors_have_the_class_and_the_text_of_the_store(
    remote: RemoteStore, held: cowfs.Store
) -> None:
    for store in (remote, held):
        with pytest.raises(ExistsError, match="already"):
            store.snapshot("data@one")
        with pytest.raises(UsageError, match="has 1 snapshots"):
            store.destroy("data")
        with pytest.raises(NotFoundError, match="none"):
            store.clone("data@none", "clone")


@pytest.mark.parametrize(
    "error",
    [
        CorruptionError("data", 7, "checksum"),
        PathNotFoundError("a path", "reason"),
        BusyError("text"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_come_over_whole(error: Error) -> None:
    back = wire.unpack_error(json.loads(json.dumps(wire.pack_error(error))))
    assert (type(back), str(back)) == (type(error), str(error))


def test_errors_of_the_system_come_over_as_text() -> None:
    back = wire.unpack_error(wire.pack_error(OSError(2, "No such file", "name")))
    assert (type(back), str(back)) == (Error, "name: No such file")


def test_progress_is_told(remote: RemoteStore) -> None:
    told: list[tuple[int, int]] = []
    remote.scrub(lambda done, total: told.append((done, total)))
    assert told and all(0 <= done <= total for done, total in told)


def test_the_socket_is_the_owners_alone(image: str, server: Server) -> None:
    state = os.stat(image + ".control")
    assert stat.S_ISSOCK(state.st_mode)
    assert stat.S_IMODE(state.st_mode) == 0o600
    assert state.st_uid == os.stat(image).st_uid


def test_the_socket_goes_with_the_holder(image: str, held: cowfs.Store) -> None:
    server = listen(held)
    held.close()
    server.close()
    assert not os.path.exists(image + ".control")
    assert isinstance(open_store(image, "w"), cowfs.Store)


def test_a_socket_that_a_killed_holder_left_is_replaced(image: str, held: cowfs.Store) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(image + ".control")
    with listen(held):
        assert isinstance(open_store(image, "w"), RemoteStore)


def test_the_socket_of_the_next_holder_stays(image: str, held: cowfs.Store) -> None:
    server = listen(held)
    held.close()
    with cowfs.open(image, "w") as store, listen(store):
        server.close()
        assert isinstance(open_store(image, "w"), RemoteStore)


def test_who_asks_while_the_holder_ends_gets_the_image(image: str, held: cowfs.Store) -> None:
    server = listen(held)
    server.pause()
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.append(open_store(image, "w")))
    thread.start()
    while not server._waiting:
        thread.join(0.001)
    held.close()
    server.close()
    thread.join()
    (store,) = got
    assert isinstance(store, cowfs.Store)
    store.close()


def test_names_of_any_length_are_in_order(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 200)
    directory.mkdir()
    path = str(directory / "t.cow")
    with cowfs.open(path, "n") as store, listen(store):
        assert isinstance(open_store(path, "w"), RemoteStore)


@pytest.mark.parametrize(
    "line",
    [
        b"no json\n",
        b"[]\n",
        b"{}\n",
        b'{"do": 1}\n',
        b'{"do": "list", "with": 1}\n',
        b'{"do": "snapshot", "with": {"names": 3}}\n',
        b'{"do": "destroy", "with": {"names": ["data"]}}\n',
        b'{"do": "unknown", "with": {}}\n',
        b'{"do": "list", "with": {}}',
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
    ],
)
def test_bad_questions_end_their_own_conversation_only(
    remote: RemoteStore, held: cowfs.Store, line: bytes
) -> None:
    with remote.connect() as connection:
        connection.sendall(line)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer == b"" or b"error" in answer
    assert "data" in remote


def test_a_holder_without_mounts_says_so(remote: RemoteStore, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="mounts nothing"):
        remote.mount("data", str(tmp_path), False)


def test_what_a_holder_looks_after_is_asked_first(held: cowfs.Store, image: str) -> None:
    class Careful(Holder):
        def check_unused(self, dataset: str) -> None:
            raise BusyError(f"{dataset} is in use")

    with listen(held, Careful(held)):
        remote = open_store(image, "w")
        with pytest.raises(BusyError, match="data is in use"):
            remote.rollback("data@one")
        with pytest.raises(BusyError, match="data is in use"):
            remote.destroy("data", recursive=True)
        with pytest.raises(BusyError, match="data is in use"):
            remote.rename("data", "other")
    assert held["data"][b"key"] == b"two"
