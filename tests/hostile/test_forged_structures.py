"""What forging found, each by itself: structures that are proven by checksums, and are none."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

import cowfs
from cowfs import limits
from cowfs.blob import Blob
from cowfs.catalog import CATALOG_OWNER, FIRST_DATASET
from cowfs.errors import CorruptionError
from cowfs.format import (
    CATALOG_META,
    FLAG_COPIES,
    NO_REF,
    RECORD_MAGIC,
    REF_SIZE,
    name_key,
    pack_blob,
    pack_meta,
    unpack_meta,
)
from cowfs.fs.inode import DIRECTORY, ENTRY, REGULAR, XATTR, make_key, pack_entry
from cowfs.limits import MIB
from hostile.images import make, memory_device
from hostile.page import INLINE, TREE, Cell, Page
from hostile.seal import Forgery, seal_block

from ..plain import noise

MakeForged = Callable[[Forgery], cowfs.Store]


@pytest.fixture
def forgery() -> Forgery:
    return Forgery(make("plain").data)


@pytest.fixture
def opened(tmp_path: Path) -> MakeForged:
    """Seals a forgery, and opens it for writing."""

    def opened(forgery: Forgery) -> cowfs.Store:
        path = tmp_path / "forged.cow"
        path.write_bytes(forgery.seal())
        return cowfs.open(path, "w", punch=False)

    return opened


def edit_items(forgery: Forgery, owner: int, edit: Callable[[Cell], None]) -> None:
    """Do something to every item in the leaves of a tree."""

    def edit_page(page: Page) -> None:
        for cell in page.cells:
            edit(cell)

    for spot in forgery.spots.values():
        if spot.owner == owner and spot.is_node and not spot.level:
            forgery.pages[spot.block] = [edit_page]


def replace_roots(forgery: Forgery, ref: bytes) -> None:
    """Make `ref` the root of every dataset and snapshot."""

    def edit(cell: Cell) -> None:
        if cell.key[:1] in (b"D", b"S"):
            cell.value = cell.value[:-REF_SIZE] + ref

    edit_items(forgery, CATALOG_OWNER, edit)


def ladder(forgery: Forgery, levels: int) -> bytes:
    """A tree of 20 ** (levels + 1) items in levels + 1 blocks."""
    leaf = [Cell(b"k%03d" % n, INLINE, b"value") for n in range(20)]
    ref = forgery.add_node(Page(0, FIRST_DATASET, 1, leaf))
    for level in range(1, levels + 1):
        cells = [Cell(b"k%03d" % n if n else b"", INLINE, ref) for n in range(20)]
        ref = forgery.add_node(Page(level, FIRST_DATASET, 1, cells))
    return ref


def test_a_node_that_is_referred_to_without_end_ends_every_walk(
    forgery: Forgery, opened: MakeForged
) -> None:
    replace_roots(forgery, ladder(forgery, 8))
    with opened(forgery) as store:
        assert not store.check().ok
        assert not store.scrub().ok
        with store.at("keys") as view:
            for reverse in (False, True):
                with pytest.raises(cowfs.CorruptionError, match=r"bound|beyond"):
                    list(view.keys(reverse=reverse))
        for operation in (
            store.list,
            store.space,
            lambda: store.destroy("keys@x"),
            store["keys"].clear,
        ):
            with pytest.raises(cowfs.CorruptionError):
                operation()


def test_a_diff_of_trees_of_few_nodes_and_many_items_ends(
    forgery: Forgery, opened: MakeForged
) -> None:
    refs = [ladder(forgery, 8), ladder(forgery, 8)]

    def edit(cell: Cell) -> None:
        if cell.key[:1] in (b"D", b"S"):
            cell.value = cell.value[:-REF_SIZE] + refs[cell.key[:1] == b"S"]

    edit_items(forgery, CATALOG_OWNER, edit)
    with opened(forgery) as store, pytest.raises(cowfs.CorruptionError, match="bounds"):
        list(store.diff("keys@x", "keys"))


def test_a_summary_that_lies_is_no_length(forgery: Forgery, opened: MakeForged) -> None:
    def lie(cell: Cell) -> None:
        if cell.key[:1] == b"D":
            at = len(cell.value) - REF_SIZE + 44
            cell.value = cell.value[:at] + (7).to_bytes(8, "little") + cell.value[at + 8 :]

    edit_items(forgery, CATALOG_OWNER, lie)
    with opened(forgery) as store, store.at("keys") as view:
        with pytest.raises(cowfs.CorruptionError, match="its parent says"):
            len(view)
        assert any("its parent says" in fault.reason for fault in store.check().faults)


def test_values_within_values_are_refused(forgery: Forgery, opened: MakeForged) -> None:
    ref = NO_REF
    for _ in range(2000):
        cell = Cell(bytes(8), TREE, pack_blob(ref, 1000, 512))
        ref = forgery.add_node(Page(0, FIRST_DATASET, 1, [cell]))
    replace_roots(forgery, ref)
    with opened(forgery) as store, store.at("keys") as view:
        assert any("no record" in fault.reason for fault in store.check().faults)
        with pytest.raises(cowfs.CorruptionError, match="a tree within a tree"):
            view[bytes(8)]


def test_a_hole_larger_than_memory_is_not_read_in_one_piece(
    forgery: Forgery, opened: MakeForged
) -> None:
    hole = pack_blob(NO_REF, limits.MAX_VALUE, limits.RECORD_SIZE)
    page = Page(0, FIRST_DATASET, 1, [Cell(b"hole", TREE, hole)])
    replace_roots(forgery, forgery.add_node(page))
    with opened(forgery) as store, store.at("keys") as view:
        with pytest.raises(cowfs.TooLargeError, match="piece by piece"):
            view[b"hole"]
        with view.open(b"hole") as file:
            assert file.read(1000) == bytes(1000)
            file.seek(-10, 2)
            assert file.read() == bytes(10)


@pytest.mark.parametrize("target", [2, 3])
def test_directories_in_themselves_are_not_walked(
    forgery: Forgery, opened: MakeForged, target: int
) -> None:
    def edit(cell: Cell) -> None:
        if cell.key.startswith(make_key(3, ENTRY)):
            cell.value = pack_entry(target, DIRECTORY)

    owner = next(s.owner for s in forgery.spots.values() if _is_files(forgery, s.block))
    edit_items(forgery, owner, edit)
    with opened(forgery) as store, store.at("files") as view:
        assert not store.check().ok
        for walk in (
            lambda: list(view.walk("/")),
            lambda: list(view.walk("/dir/deep/3")),
            lambda: store["files"].remove_tree("/dir"),
            lambda: view.copy_out("/dir", store.path + ".out"),
        ):
            with pytest.raises(cowfs.CorruptionError):
                walk()


def test_a_directory_that_its_entry_takes_for_a_file_is_not_opened(
    forgery: Forgery, opened: MakeForged
) -> None:
    def edit(cell: Cell) -> None:
        if cell.key.startswith(make_key(3, ENTRY)):
            cell.value = pack_entry(2, REGULAR)

    owner = next(s.owner for s in forgery.spots.values() if _is_files(forgery, s.block))
    edit_items(forgery, owner, edit)
    with opened(forgery) as store, store.at("files") as view:
        assert not store.check().ok
        names = view.listdir("/dir/deep")
        assert names
        for name in names:
            with pytest.raises(cowfs.CorruptionError, match="of another type than its entry"):
                view.open(f"/dir/deep/{name}", "rb")


def test_check_goes_on_behind_a_value_whose_records_are_none(
    forgery: Forgery, opened: MakeForged
) -> None:
    ref = ladder(forgery, 0)
    value = Cell(b"value", TREE, pack_blob(ref, 1 << 20, limits.RECORD_SIZE))
    replace_roots(forgery, forgery.add_node(Page(0, FIRST_DATASET, 1, [value])))
    with opened(forgery) as store:
        for report in (store.check(), store.scrub()):
            assert any("no record" in fault.reason for fault in report.faults)
            assert any("has records that do not fit it" in fault.reason for fault in report.faults)
            assert not any(fault.dataset == "(catalog)" for fault in report.faults)


def _is_files(forgery: Forgery, block: int) -> bool:
    spot = forgery.spots[block]
    if not spot.is_node or spot.level:
        return False
    cells = forgery.page(forgery.pointer(block)).cells
    return any(cell.key.startswith(make_key(3, ENTRY)) for cell in cells)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"N\xff\xfe", (16).to_bytes(8, "big"), "a name"),
        (name_key("../up"), (16).to_bytes(8, "big"), "a name"),
        (name_key("other"), (16).to_bytes(8, "big"), "listed as"),
        (name_key("short"), b"\x10", "number"),
        (b"Sxx", b"", "belongs to no dataset"),
        (b"\0", pack_meta(17, 0), "next dataset"),
    ],
)
def test_a_catalog_that_does_not_fit_together_is_found(
    forgery: Forgery, opened: MakeForged, key: bytes, value: bytes, reason: str
) -> None:
    def edit(page: Page) -> None:
        page.cells = [cell for cell in page.cells if cell.key != key]
        page.cells.append(Cell(key, INLINE, value))
        page.cells.sort(key=lambda cell: cell.key)

    for spot in forgery.spots.values():
        if spot.owner == CATALOG_OWNER and spot.is_node and not spot.level:
            forgery.pages[spot.block] = [edit]
    with opened(forgery) as store:
        assert [f for f in store.check().faults if reason in f.reason], store.check().faults


def test_a_snapshot_is_of_the_kind_of_its_dataset(forgery: Forgery, opened: MakeForged) -> None:
    def edit(page: Page) -> None:
        snapshots = [cell for cell in page.cells if cell.key[:1] == b"S"]
        assert len(snapshots) > 1
        snapshots[0].value, snapshots[-1].value = snapshots[-1].value, snapshots[0].value

    for spot in forgery.spots.values():
        if spot.owner == CATALOG_OWNER and spot.is_node and not spot.level:
            forgery.pages[spot.block] = [edit]
    with opened(forgery) as store:
        assert any("of kind" in fault.reason for fault in store.check().faults)
        with pytest.raises(cowfs.CorruptionError, match="a snapshot 'x' of kind"):
            list(store.diff("keys@x", "keys"))


def test_a_new_dataset_takes_over_no_snapshots(forgery: Forgery, opened: MakeForged) -> None:
    def edit(cell: Cell) -> None:
        if cell.key[:1] == b"S":  # of a dataset that is made next
            cell.key = b"S" + next_id.to_bytes(8, "big") + b"%d" % len(edited)
            edited.append(cell)

    edited: list[Cell] = []
    sound = cowfs.open_device(memory_device(make("plain").data), readonly=True)
    with sound.pinned("test") as catalog:
        next_id, _ = unpack_meta(catalog.tree.get(CATALOG_META))
    edit_items(forgery, CATALOG_OWNER, edit)
    store = opened(forgery)
    assert any("belongs to no dataset" in fault.reason for fault in store.check().faults)
    with pytest.raises(cowfs.CorruptionError, match=f"number {next_id}, of which there are"):
        store.create("new")
    assert edited
    store.close()


@pytest.mark.parametrize("block", [0, 3, 256, 1 << 40, (1 << 64) - 1])
def test_the_next_record_does_not_go_where_something_is(
    forgery: Forgery, opened: MakeForged, block: int
) -> None:
    place, record = forgery.records[-1]
    forgery.records[-1] = place, replace(record, next_block=block)
    with pytest.raises(cowfs.CorruptionError):
        opened(forgery)


def test_what_looks_like_a_record_that_follows_is_not_wiped_where_it_is_in_use(
    tmp_path: Path, store: cowfs.Store
) -> None:
    value = RECORD_MAGIC + noise(50_000)
    store.create("keys")[b"value"] = value
    store.sync()
    store.close()
    data = store.device.read(0, store.device.size())
    forgery = Forgery(data)
    place, record = forgery.records[-1]
    forgery.records[-1] = place, replace(record, next_block=data.index(value[:5000]) // 4096)
    path = tmp_path / "forged.cow"
    path.write_bytes(forgery.seal())
    before = path.read_bytes()
    with pytest.raises(cowfs.CorruptionError, match="in use"):
        cowfs.open(path, "w", punch=False)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "changes",
    [
        {"total_blocks": 1 << 50},
        {"total_blocks": 0},
        {"compression": 7},
        {"node_size": 12345},
        {"sequence": (1 << 64) - 1},
        {"limit_blocks": 5},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_superblock_that_asks_for_the_impossible_is_refused(
    forgery: Forgery, tmp_path: Path, changes: dict[str, int]
) -> None:
    body = replace(forgery.superblock, **changes).pack()[:-16]  # type: ignore[arg-type]
    for slot in range(limits.SUPERBLOCK_SLOTS):
        for place in (0, limits.SECOND_PLACE_BLOCK):
            forgery.data[(place + slot) * 4096 : (place + slot + 1) * 4096] = seal_block(body)
    path = tmp_path / "forged.cow"
    path.write_bytes(forgery.data)
    for flag in "rw":
        with pytest.raises((cowfs.FormatError, cowfs.CorruptionError)):
            cowfs.open(path, flag)


@pytest.mark.parametrize("which", [0, 1], ids=["own", "next"])
@pytest.mark.parametrize("block", [3, 1 << 31, 1 << 40, 1 << 62])
def test_the_copy_of_a_record_is_not_where_it_cannot_be(
    opened: MakeForged, which: int, block: int
) -> None:
    forgery = Forgery(make("twins").data)
    forgery.records[-1][1].copies[which] = block
    # Its own is at an impossible place, or in use by something else, which check tells.
    with pytest.raises(cowfs.CorruptionError) if block != 3 or which else nullcontext():
        assert not opened(forgery).check().ok


def test_no_record_has_a_copy_where_an_image_has_one_of_everything(opened: MakeForged) -> None:
    forgery = Forgery(make("plain").data)
    record = forgery.records[-1][1]
    record.copies = [0, 264, *(0 for _ in record.overflow)]
    record.flags |= FLAG_COPIES
    with pytest.raises(cowfs.CorruptionError):
        opened(forgery)


def test_check_finds_attributes_with_names_that_none_can_have(
    forgery: Forgery, opened: MakeForged
) -> None:
    def edit(cell: Cell) -> None:
        if cell.key[8:9] == bytes([XATTR]):
            cell.key = cell.key[:9] + b"user.\x80\x00"

    for owner in {spot.owner for spot in forgery.spots.values() if spot.owner >= FIRST_DATASET}:
        edit_items(forgery, owner, edit)
    store = opened(forgery)
    assert any("an attribute named" in fault.reason for fault in store.check().faults)


def test_records_with_keys_of_any_length_take_no_memory(store: cowfs.Store) -> None:
    with store.transaction() as tx:
        tx.create("d")
        blob = Blob(tx.io, tx.tree("d"), b"large", deferred=True)
        blob.pwrite(bytes(MIB), 0)
        records = blob._written
        assert records is not None
        for number in range(20_000):
            records.put(bytes(8) + number.to_bytes(1000, "big"), b"x")
        blob.store()
    tracemalloc.start()
    try:
        with pytest.raises(CorruptionError), store.transaction() as tx:
            Blob(tx.io, tx.tree("d"), b"large").pread(2 * limits.RECORD_SIZE, 0)
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()
