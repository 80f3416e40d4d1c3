"""What a mount needs of files beyond what `os` asks for: by number, below the paths."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

import pytest

import cowfs
from cowfs.errors import PathInvalidError, PathNotFoundError
from cowfs.fs import FS
from cowfs.fs.file import open_files
from cowfs.fs.inode import ROOT
from cowfs.fs.nodes import Inodes, access_is_due

DAY_NS = 24 * 3600 * 1_000_000_000


@pytest.fixture
def nodes(live: FS) -> Iterator[Inodes]:
    """An empty file system by number, in a transaction; sound at the end."""
    with live.writing() as nodes:
        yield nodes


def make(nodes: Inodes, name: bytes, parent: int = ROOT, mode: int = stat.S_IFREG | 0o644) -> int:
    return nodes.create(parent, name, mode, 0, 0)


def make_directory(nodes: Inodes, name: bytes, parent: int = ROOT) -> int:
    return make(nodes, name, parent, stat.S_IFDIR | 0o755)


def entries(nodes: Inodes, parent: int) -> dict[bytes, int]:
    return {name: number for name, number, _ in nodes.entries(parent)}


def test_exchange_lets_names_change_places_and_links_follow(nodes: Inodes) -> None:
    here, there = make_directory(nodes, b"here"), make_directory(nodes, b"there")
    file, directory = make(nodes, b"file", here), make_directory(nodes, b"directory", there)
    nodes.exchange(here, b"file", there, b"directory")
    assert entries(nodes, here) == {b"file": directory}
    assert entries(nodes, there) == {b"directory": file}
    assert nodes.parent(directory) == here
    assert (nodes.get(here).nlink, nodes.get(there).nlink) == (3, 2)


def test_exchange_within_one_directory(nodes: Inodes) -> None:
    first, second = make(nodes, b"first"), make_directory(nodes, b"second")
    nodes.exchange(ROOT, b"first", ROOT, b"second")
    assert entries(nodes, ROOT) == {b"first": second, b"second": first}
    assert nodes.get(ROOT).nlink == 3


def test_exchange_of_two_names_of_one_file_changes_nothing(nodes: Inodes) -> None:
    number = make(nodes, b"one")
    nodes.link(number, ROOT, b"two")
    nodes.exchange(ROOT, b"one", ROOT, b"two")
    assert entries(nodes, ROOT) == {b"one": number, b"two": number}


@pytest.mark.parametrize("upside_down", [False, True])
def test_exchange_moves_no_directory_into_itself(nodes: Inodes, upside_down: bool) -> None:
    outer = make_directory(nodes, b"outer")
    make(nodes, b"inner", outer)
    places = [(ROOT, b"outer"), (outer, b"inner")]
    first, second = reversed(places) if upside_down else places
    with pytest.raises(PathInvalidError):
        nodes.exchange(*first, *second)
    assert entries(nodes, ROOT) == {b"outer": outer}


def test_exchange_needs_both_names(nodes: Inodes) -> None:
    number = make(nodes, b"one")
    for names in ((b"one", b"none"), (b"none", b"one")):
        with pytest.raises(PathNotFoundError):
            nodes.exchange(ROOT, names[0], ROOT, names[1])
    assert entries(nodes, ROOT) == {b"one": number}


def test_a_nameless_file_is_gone_with_its_last_close(store: cowfs.Store, live: FS) -> None:
    with live.writing() as nodes:
        files = open_files(nodes)
        number = nodes.create_nameless(ROOT, 0o600, 5, 6)
        files.hold(number)
        files.keep(number)
        nodes.write(number, b"content", 0)
        assert list(nodes.orphans()) == [number]
    with live.writing() as nodes:
        assert nodes.read(number, 10, 0) == b"content"
        assert files.let_go(number)
        nodes.forget(number)
        assert nodes.find(number) is None
        assert list(nodes.orphans()) == []


def test_a_nameless_file_that_a_crash_left_is_tidied_up(live: FS, store: cowfs.Store) -> None:
    with live.writing() as nodes:
        number = nodes.create_nameless(ROOT, 0o600, 0, 0)
    with store["files"].writing() as nodes:
        assert nodes.find(number) is None


def test_a_nameless_file_gets_a_name(live: FS) -> None:
    with live.writing() as nodes:
        number = nodes.create_nameless(ROOT, 0o600, 0, 0)
        nodes.write(number, b"content", 0)
        nodes.link(number, ROOT, b"named")
        assert list(nodes.orphans()) == []
        nodes.forget(number)
    assert live.read_bytes("named") == b"content"
    assert live.stat("named").st_nlink == 1


def test_punching_keeps_the_size_and_makes_a_hole(nodes: Inodes) -> None:
    number = make(nodes, b"file")
    size = 512 << 10
    nodes.write(number, os.urandom(size), 0)
    nodes.punch(number, 128 << 10, 128 << 10)
    assert nodes.get(number).size == size
    assert nodes.read(number, 128 << 10, 128 << 10) == bytes(128 << 10)
    assert nodes.next_hole(number, 0) == 128 << 10
    assert nodes.next_data(number, 128 << 10) == 256 << 10
    with pytest.raises(PathInvalidError):
        nodes.punch(number, 0, 0)


def test_time_of_access_is_relative_to_changes_and_the_day(nodes: Inodes) -> None:
    number = make(nodes, b"file")
    nodes.note_access(number)
    inode = nodes.get(number)
    assert inode.atime_ns > inode.ctime_ns  # not so when it was made
    nodes.note_access(number)
    assert nodes.get(number) == inode
    assert not access_is_due(inode, inode.atime_ns + DAY_NS - 1)
    assert access_is_due(inode, inode.atime_ns + DAY_NS)
    nodes.set_attributes(number, mode=0o600)
    assert access_is_due(nodes.get(number), inode.atime_ns)


def test_the_time_of_change_can_be_given(nodes: Inodes) -> None:
    number = make(nodes, b"file")
    nodes.set_attributes(number, mtime_ns=5, ctime_ns=6)
    inode = nodes.get(number)
    assert (inode.mtime_ns, inode.ctime_ns) == (5, 6)


def test_what_lets_a_file_run_as_another_user_can_be_dropped(nodes: Inodes) -> None:
    number = make(nodes, b"file", mode=stat.S_IFREG | 0o6755)
    nodes.set_attribute(number, b"security.capability", b"all")
    nodes.drop_powers(number)
    assert nodes.get(number).mode == stat.S_IFREG | 0o755
    assert list(nodes.attributes(number)) == []
    locking = make(nodes, b"locking", mode=stat.S_IFREG | 0o2644)
    nodes.drop_powers(locking)
    assert nodes.get(locking).mode == stat.S_IFREG | 0o2644
