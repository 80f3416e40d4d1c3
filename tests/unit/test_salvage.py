"""Salvage: what comes out of a damaged image is what was in it, and what does not is named."""

from __future__ import annotations

import errno
import os
import random
import re
from binascii import unhexlify
from collections.abc import Iterator
from pathlib import Path

import pytest

import cowfs
from cowfs import limits
from cowfs._view import node_items
from cowfs.device import MemoryDevice
from cowfs.format import unpack_pointer
from cowfs.log import read_superblocks
from cowfs.report import Loss
from cowfs.salvage import Salvage
from hostile.images import NAMES, make

from ..devices import device_of
from ..plain import noise, text

BLOCK = 4096
SMALL = cowfs.Parameters(node_size=4096, compression="none")
ONE_FILE = b"/dir/large", b"/other-name"
"""Two names of a file: what is lost of it is said of the first that comes."""

Found = dict[str, dict[bytes, bytes]]
"""By dataset or snapshot: keys and values; paths, and what is there; of a volume, its bytes."""


def rescue(device: MemoryDevice, out: Path) -> tuple[list[Loss], Found]:
    """What salvage says, and what it left in a directory."""
    before = device.read(0, device.size())
    losses = list(Salvage(device, out))
    assert device.read(0, device.size()) == before
    return losses, found_in(out)


def found_in(out: Path) -> Found:
    """All versions in a directory."""
    found: Found = {}
    for top in out.rglob("@*"):
        name = f"{top.parent.relative_to(out)}{top.name if top.name != '@' else ''}"
        assert found.setdefault(name, {}) == {}
        if (top / "map.dump").exists():
            found[name] = read_dump(top)
        elif (top / "disk.raw").exists():
            found[name] = {b"": (top / "disk.raw").read_bytes()}
        else:
            found[name] = dict(read_files(os.fsencode(top)))
    return found


def read_dump(top: Path) -> dict[bytes, bytes]:
    """Keys and values of a dump, and of the values beside it."""
    lines = (top / "map.dump").read_bytes().split(b"\n")
    assert lines[3] == b"HEADER=END" and lines[-2:] == [b"DATA=END", b""]
    items = map(unhexlify, (line[1:] for line in lines[4:-2]))
    found = dict(zip(items, items, strict=True))
    if (top / "values").exists():
        for line in (top / "values" / "keys").read_text().splitlines():
            number, key = line.split("\t")
            found[unhexlify(key)] = (top / "values" / number).read_bytes()
    return found


def read_files(top: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(path, what is there) of each file."""
    for directory, directories, files in os.walk(top):
        for name in directories + files:
            path = os.path.join(directory, name)
            shown = os.path.relpath(path, top).removeprefix(b"files") or b"/"
            if os.path.islink(path):
                yield shown, b"-> " + os.readlink(path)
            elif os.path.isdir(path):
                yield shown, b"a directory"
            else:
                yield shown, Path(os.fsdecode(path)).read_bytes()


def image() -> bytes:
    """An image with a checkpoint, a log behind it, and everything in it, in trees of some height;
    what it holds comes from salvage itself, compared with the store."""
    device = MemoryDevice()
    store = cowfs.open_device(device, parameters=SMALL)
    with store.transaction() as tx:
        keys = tx.create("keys/deep")
        keys.update((b"%03d" % n, text(n * 7 % 400, n)) for n in range(150))
        keys[b"extent"] = noise(6000)
        keys[b"records"] = noise(300_000)
        files = tx.create("files", kind="fs")
        files.makedirs("/dir/deep")
        files.symlink("dir/large", "/link")
        files.write_bytes("/dir/large", noise(400_000))
        files.link("/dir/large", "/other-name")
        for number in range(100):
            files.write_bytes(f"/dir/deep/{number}", text(100 + number * 3, number))
        files.setxattr("/dir/deep/7", "user.note", b"an attribute")
        disk = tx.create("disk", kind="volume", size=1 << 20)
        disk.pwrite(text(5000), 100_000)
        disk.pwrite(noise(20_000), 700_000)
    store.snapshot("keys/deep@x", "files@x", "disk@x")
    with store.transaction() as tx:
        tx["disk"].pwrite(b"changed", 100_100)
        tx["files"].remove_tree("/dir/deep")
        tx["keys/deep"].update((b"%03d" % n, noise(50, n)) for n in range(0, 150, 10))
        tx.checkpoint = True
    store["keys/deep"].delete_range(b"04", b"06")
    store["keys/deep"][b"050"] = b"put again"
    del store["keys/deep"][b"100"]
    store["files"].write_bytes("/small", b"a few bytes")
    return device.read(0, device.size())


@pytest.fixture(scope="module")
def sound() -> bytes:
    return image()


def stored(device: MemoryDevice) -> Found:
    """What the store itself gives."""
    found: Found = {}
    with cowfs.open_device(device, readonly=True) as store:
        for entry in store.list():
            with store.at(entry.name) as view:
                if entry.kind == "kv":
                    found[entry.name] = dict(view.items())
                elif entry.kind == "volume":
                    found[entry.name] = {b"": view.pread(view.size, 0)}
                else:
                    found[entry.name] = dict(files_of(view))
    return found


def files_of(view: cowfs.FS) -> Iterator[tuple[bytes, bytes]]:
    yield b"/", b"a directory"
    for directory, directories, files in view.walk(b"/"):
        for name in directories + files:
            path = os.path.join(directory, name)
            if view.islink(path):
                yield path, b"-> " + view.readlink(path)
            elif view.isdir(path):
                yield path, b"a directory"
            else:
                yield path, view.read_bytes(path)


def numbers(device: MemoryDevice, name: str) -> dict[bytes, int]:
    """Inode numbers by path."""
    with cowfs.open_device(device, readonly=True) as store, store.at(name) as view:
        return {path: view.lstat(path).st_ino for path, _ in files_of(view)}


def compare(sound: bytes, expected: Found, found: Found, losses: list[Loss]) -> None:
    """What came out is right, and of what did not come out a loss says so."""
    assert found.keys() <= expected.keys()
    for name, items in expected.items():
        own = [loss for loss in losses if loss.dataset == name]
        if name not in found:
            assert any(not loss.dataset for loss in losses), f"{name} is missing"
            continue
        for key, data in found[name].items():
            if not key.startswith(b"lost+found"):
                names = ONE_FILE if key in ONE_FILE else (key,)
                assert_same(items[key], data, [loss for loss in own if loss.what in names])
        missing = items.keys() - found[name].keys()
        if missing and b"/" in items:
            assert_named_files(sound, name, missing, own)
        else:
            assert all(any(covers(loss.what, key) for loss in own) for key in missing)


def assert_same(data: bytes, found: bytes, losses: list[Loss]) -> None:
    """All bytes are the same, but for those that are named, and are zeros."""
    patched = bytearray(found)
    for loss in losses:
        if loss.start is not None and loss.stop is not None:
            assert not any(found[loss.start : loss.stop])
            patched[loss.start : loss.stop] = data[loss.start : loss.stop]
    assert bytes(patched) == data


def covers(what: bytes, key: bytes) -> bool:
    """Whether a loss is that of a key."""
    if what in (key, b"all keys"):
        return True
    if not what.startswith(b"keys from "):
        return False
    low, _, high = what.removeprefix(b"keys from ").removesuffix(b" on").partition(b" to ")
    return low <= key and (not high or key < high)


def assert_named_files(sound: bytes, name: str, missing: set[bytes], losses: list[Loss]) -> None:
    """Each file that is missing is named; or what could name it, its directory, is lost as well."""
    number = numbers(device_of(sound), name)
    gaps = []
    for loss in losses:
        if loss.what.startswith(b"inodes "):
            first, *last = map(int, re.findall(rb"\d+", loss.what))
            gaps.append((first, last[0] if last else limits.MAX_NUMBER))
    for path in missing:
        parent = number[os.path.dirname(path)]
        assert any(loss.what == path for loss in losses) or any(
            first <= parent <= last for first, last in gaps
        ), path


def test_all_of_a_sound_image_comes_out(sound: bytes, tmp_path: Path) -> None:
    losses, found = rescue(device_of(sound), tmp_path / "out")
    assert not losses
    assert found == stored(device_of(sound))
    here = tmp_path / "out" / "files"
    assert os.getxattr(here / "@x/files/dir/deep/7", "user.note") == b"an attribute"
    assert (here / "@/files/dir/large").samefile(here / "@/files/other-name")
    assert not (here / "@/lost+found").exists()


@pytest.mark.parametrize("name", NAMES)
def test_all_of_the_samples_comes_out(name: str, tmp_path: Path) -> None:
    losses, found = rescue(device_of(make(name).data), tmp_path / "out")
    assert (losses, found) == ([], stored(device_of(make(name).data)))


def damaged(data: bytes, *blocks: int) -> MemoryDevice:
    """A device with an image of which some bytes of these blocks are others."""
    device = device_of(data)
    for block in blocks:
        device.write(block * BLOCK + 20, b"damage")
    return device


def test_whatever_block_is_lost_the_rest_comes_out_and_what_does_not_is_named(
    sound: bytes, tmp_path: Path
) -> None:
    expected = stored(device_of(sound))
    store = cowfs.open_device(device_of(sound), readonly=True)
    own = {at for start, length in store.own_blocks() for at in range(start, start + length)}
    bitmap = store.io.space.bitmap
    used = [at for at in range(bitmap.size) if bitmap.test(at) and at not in own]
    whole = older = 0
    for block in random.Random(1).sample(used, 150):
        losses, found = rescue(damaged(sound, block), tmp_path / str(block))
        if any("catalog of transaction" in loss.reason for loss in losses):
            older += 1
            continue
        whole += not losses
        compare(sound, expected, found, losses)
    assert older < 3
    assert whole < 15  # of the map of space, and what only the newest commit had


def test_a_map_of_space_that_is_lost_loses_nothing(sound: bytes, tmp_path: Path) -> None:
    store = cowfs.open_device(device_of(sound), readonly=True)
    assert store.space_tree.ref is not None
    device = damaged(sound, unpack_pointer(store.space_tree.ref).block)
    with pytest.raises(cowfs.CorruptionError, match="the checksum does not match"):
        cowfs.open_device(device, readonly=True)
    assert rescue(device, tmp_path / "out") == ([], stored(device_of(sound)))


def test_a_catalog_that_is_lost_is_that_of_the_checkpoint_before(tmp_path: Path) -> None:
    device = MemoryDevice()
    store = cowfs.open_device(device, parameters=SMALL)
    store.create("a")[b"k"] = b"old"
    for value in (b"older", b"old", b"new"):
        with store.transaction() as tx:
            tx["a"][b"k"] = value
            tx.checkpoint = True
    assert store.catalog_tree.ref is not None
    device = damaged(device.read(0, device.size()), unpack_pointer(store.catalog_tree.ref).block)
    losses, found = rescue(device, tmp_path / "out")
    assert [loss.reason for loss in losses] == [
        f"the catalog of transaction {store.txid}: corrupt image: dataset '(catalog)', block "
        f"{unpack_pointer(store.catalog_tree.ref).block}: the checksum does not match"
    ]
    assert found == {"a": {b"k": b"old"}}


def test_a_catalog_that_is_lost_is_that_of_an_older_superblock(tmp_path: Path) -> None:
    """Also where the log behind that one leads to the damaged one again."""
    device = MemoryDevice()
    store = cowfs.open_device(device, parameters=SMALL)
    store.create("a")[b"k"] = b"old"
    with store.transaction() as tx:
        tx["a"][b"other"] = b"old"
        tx.checkpoint = True
    with store.transaction() as tx:
        tx["a"][b"k"] = b"new"
        tx.checkpoint = True
    checkpoint = store.txid
    for number in range(2):  # the second says that the first, and all before, were durable
        store["a"][b"k"] = b"newer %d" % number
    assert store.catalog_tree.ref is not None
    newest, _ = read_superblocks(device)[:2]
    slot = newest.sequence % limits.SUPERBLOCK_SLOTS
    lost = unpack_pointer(store.catalog_tree.ref).block
    device = damaged(device.read(0, device.size()), lost, slot, slot + limits.SECOND_PLACE_BLOCK)
    losses, found = rescue(device, tmp_path / "out")
    assert [loss.reason.split(":")[0] for loss in losses] == [
        f"superblock slot {slot}",
        f"the catalog of transaction {checkpoint}",
    ]
    assert found == {"a": {b"k": b"old", b"other": b"old"}}


def test_a_leaf_of_the_catalog_that_is_lost_costs_the_datasets_in_it(tmp_path: Path) -> None:
    device = MemoryDevice()
    store = cowfs.open_device(device, parameters=SMALL)
    with store.transaction() as tx:
        for number in range(200):
            tx.create(f"data/{number}")[b"k"] = b"%d" % number
    store.snapshot(*(f"data/{number}@x" for number in range(200)))
    store["data/7"][b"k"] = b"7"  # the newest commit would be one that never arrived
    ref = store.catalog_tree.ref
    assert ref is not None
    level, items = node_items(store.io, 4096, ref, "")
    assert level == 1
    data = device.read(0, device.size())
    for at, (_, _, child) in enumerate(items):
        losses, found = rescue(damaged(data, unpack_pointer(child).block), tmp_path / str(at))
        assert [loss.block for loss in losses] == [unpack_pointer(child).block]
        assert len(found) > 300
        for name, values in found.items():
            number = re.findall(r"data/(\d+)|^@(\d+)", name)[0]
            assert values in (
                {b"k": number[0].encode()},
                {b"k": b"%d" % (int(number[1] or 16) - 16)},
            )


def test_a_record_of_the_log_that_is_lost_costs_what_came_after(tmp_path: Path) -> None:
    device = MemoryDevice()
    store = cowfs.open_device(device, parameters=SMALL)
    store.create("a")
    places = []
    for number in range(6):
        places.append(store.log.next_block)
        store["a"][b"%d" % number] = b"v"
    damage = damaged(device.read(0, device.size()), places[3])
    with pytest.raises(cowfs.CorruptionError, match="record of commit"):
        cowfs.open_device(damage, readonly=True)
    losses, found = rescue(damage, tmp_path / "out")
    assert len(losses) == 1 and "record of commit" in losses[0].reason
    assert found == {"a": dict.fromkeys((b"0", b"1", b"2"), b"v")}


def test_a_superblock_that_is_lost_is_named(sound: bytes, tmp_path: Path) -> None:
    slot = read_superblocks(device_of(sound))[0].sequence % limits.SUPERBLOCK_SLOTS
    device = damaged(sound, slot, slot + limits.SECOND_PLACE_BLOCK)
    losses, found = rescue(device, tmp_path / "out")
    assert losses[0].reason.startswith(f"superblock slot {slot}: damaged in both places")
    assert found.keys() <= stored(device_of(sound)).keys()


@pytest.mark.parametrize("part", [0.2, 0.5, 0.8, 0.99])
def test_of_an_image_that_was_cut_short_comes_what_is_there(
    sound: bytes, tmp_path: Path, part: float
) -> None:
    device = device_of(sound[: int(len(sound) * part)])
    try:
        losses, found = rescue(device, tmp_path / "out")
    except cowfs.CorruptionError as error:
        assert part < 0.5 and "none that verifies is left" in error.reason
        return
    assert losses
    expected = stored(device_of(sound))
    if all(loss.dataset for loss in losses):  # what the log holds as well
        compare(sound, expected, found, losses)


def test_a_large_value_has_a_file_of_its_own(tmp_path: Path) -> None:
    device = MemoryDevice()
    store = cowfs.open_device(device, parameters=SMALL)
    data = {b"small": b"s", b"large": noise(3 << 20)}
    store.create("a").update(data)
    assert rescue(device, tmp_path / "out") == ([], {"a": data})
    assert (tmp_path / "out/a/@/values/1").stat().st_size == 3 << 20


def test_nothing_is_written_over(sound: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path, tmp_path / "file", tmp_path / "no" / "where"):
        with pytest.raises(cowfs.UsageError):
            list(Salvage(device_of(sound), out))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(cowfs.FormatError, match="not a cowfs image"):
        list(Salvage(device_of(bytes(1 << 20)), tmp_path / "out"))


def test_what_the_disk_cannot_read_is_lost_like_what_it_gives_wrong(
    sound: bytes, tmp_path: Path
) -> None:
    class BadSectors(MemoryDevice):
        block = 0

        def read(self, offset: int, length: int) -> bytes:
            if self.block and offset <= self.block * BLOCK < offset + length:
                raise cowfs.DeviceError(errno.EIO, "bad sectors")
            return super().read(offset, length)

    store = cowfs.open_device(device_of(sound), readonly=True)
    with store.pinned("test") as catalog:
        ref = catalog.resolve("files@x").ref
    assert ref is not None
    device = BadSectors(len(sound))
    device.write(0, sound)
    device.block = unpack_pointer(ref).block
    losses = list(Salvage(device, tmp_path / "out"))
    assert [(loss.dataset, loss.what, loss.reason) for loss in losses] == [
        ("files@x", b"inodes from 0 on", "bad sectors")
    ]
    assert found_in(tmp_path / "out")["keys/deep@x"] == stored(device_of(sound))["keys/deep@x"]
