"""Today's code reads the committed image: the format cannot change unseen.

The image is that of a machine that stopped; see tools/golden.py for what is in it, and why.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

import cowfs
import golden
from cowfs.format import unpack_record

FIXTURE = Path(__file__).parents[2] / "fixtures" / golden.NAME


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "golden.cow"
    path.write_bytes(gzip.decompress(FIXTURE.read_bytes()))
    return path


@pytest.fixture
def store(image: Path) -> Iterator[cowfs.Store]:
    with cowfs.open(image, "r") as store:
        yield store


def verify_contents(store: cowfs.Store) -> None:
    """Everything in the image is as it was when the machine stopped."""
    assert {entry.name: entry.kind for entry in store.list()} == golden.DATASETS
    for name, items in {
        "keys@first": golden.first_items(),
        "keys@second": golden.second_items(),
        "keys": golden.last_items(),
        "clone": golden.cloned_items(),
        "empty": {},
        "empty@nothing": {},
        "renamed/to:this": {b"key": b"value"},
    }.items():
        with store.at(name) as view:
            assert dict(view.items()) == items, name
            assert len(view) == len(items)
    for name, files in {
        "files@before": golden.first_files(),
        "files": golden.last_files(),
    }.items():
        with store.at(name) as view:
            found = golden.read_files(view)
            assert found.keys() == files.keys()
            assert [path for path in files if found[path] != files[path]] == []
    first, later = golden.VOLUME_WRITES, golden.VOLUME_LATER
    for name, writes in {"disk@clean": [first], "disk": [first, later]}.items():
        with store.at(name) as view:
            assert view.pread(golden.VOLUME_SIZE, 0) == golden.volume_bytes(*writes), name


def test_the_image_is_read_as_it_was_written(store: cowfs.Store) -> None:
    assert store.label == golden.LABEL
    verify_contents(store)


def test_the_image_has_what_it_is_there_for(store: cowfs.Store) -> None:
    with store.pinned("test") as catalog:
        assert any(done for _, stack in catalog.drops() for _, done in stack), (
            "no part is destroyed"
        )
    assert store.log.records >= 8, "the log is folded"
    assert len(store.log.blocks) > store.log.records, "no delta overflows"
    assert store.io.space.shared, "nothing is shared"
    assert store.versions.newest.heads, "no operations are left to do again"
    tail = store.device.read(store.log.next_block * store.io.block_size, store.io.block_size)
    assert unpack_record(tail) is not None, "no commit is in flight"


def test_the_image_is_sound(store: cowfs.Store) -> None:
    assert store.check().faults == []
    assert store.scrub().faults == []


def test_diffs_in_the_image_are_as_they_were_made(store: cowfs.Store) -> None:
    for old, new in (("keys@first", "keys@second"), ("keys@first", "clone")):
        with store.at(old) as view:
            before = dict(view.items())
        with store.at(new) as view:
            after = dict(view.items())
        differ = sorted(k for k in before | after if before.get(k) != after.get(k))
        assert [change.path for change in store.diff(old, new)] == differ
    changes = [(item.op, item.path, item.new_path) for item in store.diff("files@before", "files")]
    assert changes == golden.FILE_CHANGES
    assert {item.op for item in store.diff("disk@clean", "disk")} == {"M"}


def test_reading_leaves_the_image_as_it_is(image: Path) -> None:
    before = image.read_bytes()
    with cowfs.open(image, "r") as store:
        verify_contents(store)
    assert image.read_bytes() == before


def test_a_copy_opens_for_writing_and_goes_on(image: Path) -> None:
    with cowfs.open(image, "w") as store:
        verify_contents(store)
        assert store.check().faults == []
        store.reclaim()
        store["keys"][b"added"] = b"today"
        assert store.space().reclaimable < store.space().total // 4
        assert store.check().faults == []
    with cowfs.open(image, "w") as store:
        assert store["keys"].pop(b"added") == b"today"
        verify_contents(store)
        assert store.check().faults == []


def test_what_the_fixture_is_made_of_can_still_be_made(tmp_path: Path) -> None:
    path = tmp_path / "again.cow"
    made = golden.build(tmp_path / "made.cow")
    path.write_bytes(made)
    with cowfs.open(path, "r") as store:
        verify_contents(store)
        assert store.check().faults == []
