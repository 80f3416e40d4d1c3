"""Salvage of forged images: nothing outside of its directory, and an end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import cowfs
from cowfs.device import MemoryDevice
from cowfs.fs.inode import DATA, INODE, NAME, Inode, make_key, make_name_key
from cowfs.report import Loss
from cowfs.salvage import Salvage

OLD = Inode(stat.S_IFREG | 0o644, os.getuid(), os.getgid(), 1, 0, 0, 0, 0, 0)


def rescue(items: dict[bytes, bytes], out: Path) -> list[Loss]:
    """Salvage a dataset of files that has these items."""
    device = MemoryDevice()
    store = cowfs.open_device(device, parameters=cowfs.Parameters())
    with store.transaction() as tx:
        tx.create("files", kind="fs")
        for key, value in items.items():
            tx.tree("files").put(key, value)
    return list(Salvage(device, out))


def file(number: int, mode: int, parent: int, name: bytes, data: bytes) -> dict[bytes, bytes]:
    """The items of a file."""
    inode = Inode(mode, os.getuid(), os.getgid(), 2, len(data), 0, 0, 0, 0)
    return {
        make_key(number, INODE): inode.pack(),
        make_key(number, DATA): data,
        make_name_key(number, NAME, parent) + name: b"",
    }


def test_a_link_that_is_a_directory_as_well_leads_nowhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = file(5, stat.S_IFLNK | 0o777, 1, b"x", os.fsencode(outside))
    directory = file(6, stat.S_IFDIR | 0o755, 1, b"x", b"")
    del directory[make_key(6, DATA)]
    losses = rescue(
        {**link, **directory, **file(7, stat.S_IFREG | 0o644, 6, b"evil", b"evil")},
        tmp_path / "out",
    )
    assert any("something else has the name of its directory" in loss.reason for loss in losses)
    assert not list(outside.iterdir())


def test_names_that_lead_elsewhere_are_refused(tmp_path: Path) -> None:
    for number, name in enumerate((b"..", b"../up", b"/tmp/absolute", b".", b"nul\0"), 5):
        losses = rescue(
            file(number, stat.S_IFREG | 0o644, 1, name, b"evil"), tmp_path / str(number)
        )
        assert [loss.reason for loss in losses] == ["no file can have that name"]
    assert {path.name for path in tmp_path.iterdir()} == {"5", "6", "7", "8", "9"}


def test_directories_in_each_other_come_to_an_end(tmp_path: Path) -> None:
    items: dict[bytes, bytes] = {}
    for number, parent in ((5, 6), (6, 7), (7, 5)):
        items |= file(number, stat.S_IFDIR | 0o755, parent, b"d%d" % number, b"")
        del items[make_key(number, DATA)]
    losses = rescue(items, tmp_path / "out")
    assert any("its name is lost" in loss.reason for loss in losses)


def test_a_file_larger_than_any_host_has_is_named(tmp_path: Path) -> None:
    device = MemoryDevice()
    store = cowfs.open_device(device, parameters=cowfs.Parameters())
    with store.transaction() as tx:
        files = tx.create("files", kind="fs")
        files.write_bytes("/large", b"data")
        files.truncate("/large", 1 << 62)
        files.write_bytes("/small", b"data")
    losses = list(Salvage(device, tmp_path / "out"))
    assert [loss.what for loss in losses] == [b"/large"]
    assert "the host refuses it" in losses[0].reason
    assert [path.name for path in (tmp_path / "out/files/@/files").iterdir()] == ["small"]
