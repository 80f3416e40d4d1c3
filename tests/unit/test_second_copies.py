"""Images with two copies of their trees: what is damaged in one copy is no loss, and is mended."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

import pytest

import cowfs
import cowfs.check as check_module
from cowfs import blockio, limits
from cowfs._view import EXTENT, INLINE, node_items
from cowfs.catalog import Catalog
from cowfs.device import MemoryDevice
from cowfs.errors import DeviceError
from cowfs.format import NO_REF, REF_SIZE, Pointer, unpack_pointer, unpack_record
from cowfs.log import read_superblocks
from cowfs.rewind import rewind_device
from crashfuzzer.model import Items, contents, noise, text

BLOCK = limits.DEFAULT_BLOCK_SIZE


class Disk(MemoryDevice):
    """Blocks that cannot be read or written, as told; and whether anything was written."""

    def __init__(self, data: bytes) -> None:
        super().__init__(len(data))
        super().write(0, data)
        self.unreadable: set[int] = set()
        self.unwritable: set[int] = set()
        self.written = 0

    def read(self, offset: int, length: int) -> bytes:
        if offset // BLOCK in self.unreadable:
            raise DeviceError(errno.EIO, "cannot read the image")
        return super().read(offset, length)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        if offset // BLOCK in getattr(self, "unwritable", ()):
            raise DeviceError(errno.EIO, "cannot write the image")
        self.written = getattr(self, "written", 0) + 1
        super().write(offset, data)

    def flip(self, block: int) -> None:
        """Damage a block."""
        start = block * BLOCK
        self._bytes[start + 40] ^= 0xFF


@dataclass(frozen=True)
class Sample:
    """A closed image, what is in it, and the pointers to its nodes."""

    data: bytes
    items: dict[str, Items]
    nodes: list[Pointer]

    def disk(self) -> Disk:
        return Disk(self.data)


@pytest.fixture(scope="module")
def sample() -> Sample:
    device = MemoryDevice()
    parameters = cowfs.Parameters(node_size=4096, metadata_copies=2)
    with cowfs.open_device(device, parameters=parameters) as store:
        store.create("keys").update((b"%03d" % n, text(n * 7 % 400, n)) for n in range(300))
        store["keys"][b"large"] = noise(400_000)
        files = store.create("files", kind="fs")
        files.write_bytes("/file", noise(9000))
        store.snapshot("keys@x")
        store["keys"].update((b"%03d" % n, noise(80, n)) for n in range(0, 300, 7))
        items = contents(store)
    data = device.read(0, device.size())
    with cowfs.open_device(Disk(data), readonly=True) as store:
        nodes = list(node_pointers(store))
    assert len(nodes) > 20
    return Sample(data, items, nodes)


def node_pointers(store: cowfs.Store) -> list[Pointer]:
    """Of every node of every tree, once."""
    catalog = Catalog(store.catalog_tree.fork())
    roots = [root for head in catalog.datasets() for root in (head, *catalog.snapshots(head))]
    todo = [store.catalog_tree.ref, store.space_tree.ref, *(root.ref for root in roots)]
    found: dict[int, Pointer] = {}
    while todo:
        ref = todo.pop()
        if ref is None or ref == NO_REF or unpack_pointer(ref).block in found:
            continue
        found[unpack_pointer(ref).block] = unpack_pointer(ref)
        level, items = node_items(store.io, store.io.node_size, ref, "")
        todo += [
            value[:REF_SIZE] for _, kind, value in items if level or kind not in (INLINE, EXTENT)
        ]
    return list(found.values())


def copies_of(node: Pointer) -> tuple[int, int]:
    assert node.twin
    return node.block, node.block + node.twin


@pytest.mark.parametrize("damaged", [0, 1], ids=["first", "second"])
def test_a_damaged_copy_of_any_node_is_no_loss_and_scrub_repairs_it(
    sample: Sample, damaged: int
) -> None:
    for node in sample.nodes:
        block = copies_of(node)[damaged]
        disk = sample.disk()
        disk.flip(block)
        with cowfs.open_device(disk) as store:
            assert contents(store) == sample.items
            report = store.scrub()
            assert [fault.block for fault in report.repaired] == [block] * len(report.repaired)
            assert report.ok
            assert store.check().ok
        with cowfs.open_device(disk, readonly=True) as store:
            assert store.check().ok
            for copy in copies_of(node):
                length = node.blocks(BLOCK) * BLOCK
                stored = disk.read(copy * BLOCK, length)
                assert stored == sample.data[copy * BLOCK : copy * BLOCK + length]


def test_one_scrub_repairs_all_that_is_damaged(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (blockio, check_module):
        monkeypatch.setattr(module, "MAX_DAMAGED", 4)
    disk = sample.disk()
    with cowfs.open_device(disk) as store:
        store.io.cache.evict(store.io.cache.limit)
        for node in sample.nodes:
            disk.flip(copies_of(node)[0])
        report = store.scrub()
        assert report.ok
        assert len({fault.block for fault in report.repaired}) == len(sample.nodes)
        assert store.check().ok


@pytest.mark.parametrize("damaged", [0, 1], ids=["first", "second"])
def test_a_store_open_for_reading_reports_a_damaged_copy_and_writes_nothing(
    sample: Sample, damaged: int
) -> None:
    for node in sample.nodes:
        block = copies_of(node)[damaged]
        disk = sample.disk()
        disk.flip(block)
        disk.written = 0
        with cowfs.open_device(disk, readonly=True) as store:
            assert contents(store) == sample.items
            for report in (store.check(), store.scrub()):
                assert [(f.block, f.repairable) for f in report.faults] == [(block, True)]
                assert "cowfs scrub" in report.faults[0].reason
                assert not report.repaired
        assert not disk.written


def test_a_node_with_two_damaged_copies_is_an_error_that_names_both(sample: Sample) -> None:
    leaves = [node for node in sample.nodes if node.level == 0]
    named = 0
    for node in leaves:
        disk = sample.disk()
        for block in copies_of(node):
            disk.flip(block)
        try:
            with cowfs.open_device(disk) as store:
                report = store.scrub()
                assert [f.block for f in report.faults] == [node.block] and not report.repaired
                assert not report.faults[0].repairable
                contents(store)
        except cowfs.CorruptionError as error:
            assert error.block == node.block
            assert f"its second copy, in block {node.block + node.twin}" in error.reason
            named += 1
    assert named >= len(leaves) - 1, "only the space map is not read as content"


def leaf_of(store: cowfs.Store, name: str) -> Pointer:
    """A leaf of a dataset."""
    ref = Catalog(store.catalog_tree.fork()).dataset(name).ref
    while ref is not None and unpack_pointer(ref).level:
        ref = node_items(store.io, store.io.node_size, ref, "")[1][0][2]
    assert ref is not None
    return unpack_pointer(ref)


@pytest.fixture
def leaf(sample: Sample) -> Pointer:
    with cowfs.open_device(sample.disk(), readonly=True) as store:
        return leaf_of(store, "keys")


def test_what_a_read_found_damaged_is_written_anew_by_the_next_transaction(
    sample: Sample, leaf: Pointer, caplog: pytest.LogCaptureFixture
) -> None:
    disk = sample.disk()
    disk.flip(leaf.block)
    with cowfs.open_device(disk) as store:
        assert store["keys"][b"000"] == sample.items["keys"][b"000"]
        assert f"the copy in block {leaf.block + leaf.twin} is good" in caplog.text
        with store.transaction():
            pass
        stored = disk.read(leaf.block * BLOCK, leaf.stored)
        assert stored == sample.data[leaf.block * BLOCK :][: leaf.stored]
        assert store.check().ok


def test_a_copy_that_the_disk_cannot_read_is_read_from_the_other(
    sample: Sample, leaf: Pointer
) -> None:
    disk = sample.disk()
    disk.unreadable = {leaf.block}
    with cowfs.open_device(disk) as store:
        assert contents(store) == sample.items


def records_of(disk: Disk) -> tuple[int, int]:
    """Blocks of the checkpoint record, and of its copy."""
    superblock = read_superblocks(disk)[0]
    slot = superblock.sequence % limits.SUPERBLOCK_SLOTS
    return superblock.record_block, limits.RECORD_COPIES_BLOCK + slot


@pytest.mark.parametrize("which", [0, 1])
def test_the_checkpoint_record_of_a_closed_image_has_a_copy(sample: Sample, which: int) -> None:
    disk = sample.disk()
    block = records_of(disk)[which]
    disk.flip(block)
    written = disk.written
    with cowfs.open_device(disk, readonly=True) as store:
        assert contents(store) == sample.items
    assert disk.written == written
    cowfs.open_device(disk)
    first, copy = (disk.read(at * BLOCK, BLOCK) for at in records_of(disk))
    assert first == copy and unpack_record(first)
    with cowfs.open_device(disk) as store:
        assert contents(store) == sample.items
        assert store.check().ok


def test_one_can_go_back_to_a_checkpoint_with_a_damaged_copy(sample: Sample) -> None:
    disk = sample.disk()
    disk.flip(copies_of(sample.nodes[0])[0])
    superblock = read_superblocks(disk)[0]
    assert rewind_device(disk, superblock.sequence).intact
    with cowfs.open_device(disk) as store:
        assert contents(store) == sample.items


def test_a_checkpoint_record_that_the_disk_cannot_read_is_read_from_its_copy(
    sample: Sample,
) -> None:
    disk = sample.disk()
    disk.unreadable.add(records_of(disk)[0])
    with cowfs.open_device(disk, readonly=True) as store:
        assert contents(store) == sample.items


def test_a_checkpoint_record_without_a_sound_copy_is_damage(sample: Sample) -> None:
    disk = sample.disk()
    for block in records_of(disk):
        disk.flip(block)
    with pytest.raises(cowfs.CorruptionError, match="checkpoint record is damaged"):
        cowfs.open_device(disk)


def test_a_repair_that_fails_hides_nothing(sample: Sample, leaf: Pointer) -> None:
    disk = sample.disk()
    disk.flip(leaf.block)
    disk.unwritable = {leaf.block}
    with cowfs.open_device(disk) as store:
        assert contents(store) == sample.items
        store["files"].write_bytes("/other", b"written meanwhile")
        assert store.failure is None
        report = store.scrub()
        assert [(f.block, f.repairable) for f in report.faults] == [(leaf.block, True)]
        assert contents(store)["keys"] == sample.items["keys"]
        disk.unwritable = set()
        assert store.scrub().repaired and store.check().ok


def test_a_block_that_is_used_again_is_not_mended(
    sample: Sample, leaf: Pointer, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = sample.disk()
    disk.flip(leaf.block)
    with cowfs.open_device(disk) as store:
        space = store.io.space
        release = space.release
        left: list[int] = []

        def watched(durable: int, proven: int, oldest: int) -> None:
            left.extend(store.io.damaged)
            release(durable, proven, oldest)

        monkeypatch.setattr(space, "release", watched)
        view = store.at("keys")
        assert view[b"000"] and leaf.block in store.io.damaged
        store.destroy("keys@x")
        store["keys"].clear()
        view.close()
        for number in range(40):
            store["keys"].update((b"%d-%d" % (number, n), noise(90, n)) for n in range(60))
            store.snapshot(f"keys@{number}")
            assert store.check().ok
        assert not left, "blocks became reusable while they were to be mended"


def test_the_copies_are_in_different_allocation_groups() -> None:
    with cowfs.open_device(
        MemoryDevice(), parameters=cowfs.Parameters(compression="none", metadata_copies=2)
    ) as store:
        store.create("keys")
        store["keys"][b"large"] = noise(40 << 20)
        for number in range(30):
            store["keys"].update((b"%d-%d" % (number, n), noise(90, n)) for n in range(300))
            store.snapshot(f"keys@{number}")
        root = Catalog(store.catalog_tree.fork()).dataset("keys").ref
        assert root is not None and store.io.space.total > 2 * limits.GROUP_BLOCKS
        nodes = [unpack_pointer(root), leaf_of(store, "keys")]
        assert store.check().ok
    for node in nodes:
        first, second = copies_of(node)
        assert first // limits.GROUP_BLOCKS != second // limits.GROUP_BLOCKS


def test_both_copies_count_in_every_figure(make_store: Any) -> None:
    one, two = (make_store(metadata_copies=copies, compression="none") for copies in (1, 2))
    for store in (one, two):
        store.create("keys").update((b"%04d" % n, noise(100, n)) for n in range(2000))
        store.snapshot("keys@x")
        store["keys"].update((b"%04d" % n, b"new") for n in range(0, 2000, 9))
        store.sync()
        with store.transaction() as tx:
            tx.checkpoint = True
        assert store.check().ok
    for single, double in zip(one.list(), two.list(), strict=True):
        assert double.referenced == 2 * single.referenced
        assert double.exclusive == 2 * single.exclusive
    assert two.space().live == 2 * one.space().live


def test_a_full_image_can_be_emptied_and_filled_again(make_store: Any) -> None:
    store = make_store(metadata_copies=2, size=4 << 20)
    keys = store.create("keys")
    for _ in range(3):
        number = 0
        with pytest.raises(cowfs.OutOfSpaceError):
            for number in range(100_000):
                keys[b"%06d" % number] = noise(900, number)
        assert number > 500
        for start in range(0, number, 50):
            keys.delete_range(b"%06d" % start, b"%06d" % (start + 50))
        assert len(keys) == 0 and store.check().ok


def test_a_second_copy_that_cannot_be_is_refused(sample: Sample) -> None:
    """Forged: where the second copy of the catalog is said to be, proven by a checksum."""
    superblock = read_superblocks(sample.disk())[0]
    start = superblock.record_block * BLOCK
    record = unpack_record(sample.data[start : start + BLOCK])
    assert record is not None
    ref = record.catalog
    node, total = unpack_pointer(ref), superblock.total_blocks
    for twin in (total - node.block, -node.block, -node.block - 5, limits.MAX_TWIN):
        upper, lower = (part.to_bytes(2, "little") for part in (twin >> 16 & 0xFFFF, twin & 0xFFFF))
        record.catalog = ref[:22] + upper + ref[24:26] + lower + ref[28:]
        assert unpack_pointer(record.catalog).twin == twin
        forged = record.pack(BLOCK)
        assert forged is not None
        disk = sample.disk()
        disk.write(start, forged)
        with pytest.raises(cowfs.CorruptionError, match="cannot be a node"):
            cowfs.open_device(disk)


@pytest.mark.parametrize("copies", [0, 3, "2"])
def test_a_number_of_copies_that_is_not_allowed_is_refused(copies: Any) -> None:
    with pytest.raises(cowfs.UsageError, match="allowed are 1 and 2"):
        cowfs.open_device(MemoryDevice(), parameters=cowfs.Parameters(metadata_copies=copies))
