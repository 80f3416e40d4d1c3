"""Opening: the flags of dbm, the parameters of mkfs, and a clear error for what is no image."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cowfs
from cowfs import limits

from ..plain import assert_sound, noise


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "o.cow"


@pytest.fixture
def image(path: Path) -> Path:
    """An image with one dataset."""
    with cowfs.open(path, "n", label="first") as store:
        store.create("a")[b"k"] = b"v"
    return path


def test_c_makes_an_image_and_then_opens_it(path: Path) -> None:
    with cowfs.open(path, "c", label="mine", node_size=16384) as store:
        store.create("a")[b"k"] = b"v"
        uuid = store.uuid
    with cowfs.open(path, "c", label="ignored") as store:
        assert (store.uuid, store.label, store.path) == (uuid, "mine", str(path))
        assert store["a"][b"k"] == b"v"
        assert not store.readonly


def test_c_makes_an_image_of_an_empty_file(path: Path) -> None:
    path.touch()
    with cowfs.open(path, "c") as store:
        assert list(store) == []


def test_n_always_makes_a_new_image(image: Path) -> None:
    with cowfs.open(image, "r") as store:
        uuid = store.uuid
    with cowfs.open(image, "n") as store:
        assert list(store) == []
        assert store.uuid != uuid


def test_r_is_the_default_and_changes_nothing(image: Path) -> None:
    before = image.read_bytes()
    with cowfs.open(image) as store:
        assert store.readonly
        assert store["a"][b"k"] == b"v"
        assert store.check().ok
        for change in (
            lambda: store["a"].__setitem__(b"k", b"w"),
            lambda: store.create("b"),
            lambda: store.snapshot("a@x"),
            lambda: store.destroy("a"),
            lambda: store.rename("a", "b"),
            store.transaction,
        ):
            with pytest.raises(cowfs.ReadOnlyError, match="'w'"):
                change()
    assert image.read_bytes() == before


def test_reading_needs_no_permission_to_write(image: Path) -> None:
    image.chmod(0o444)
    with cowfs.open(image) as store:
        assert store["a"][b"k"] == b"v"


@pytest.mark.parametrize("flag", ["r", "w"])
def test_a_missing_image_is_not_found(path: Path, flag: str) -> None:
    with pytest.raises(cowfs.NotFoundError, match="no such image"):
        cowfs.open(path, flag)
    assert not path.exists()


def test_a_directory_is_no_image(tmp_path: Path) -> None:
    for flag in "rwcn":
        with pytest.raises(cowfs.FormatError, match="is a directory"):
            cowfs.open(tmp_path, flag)


def test_a_fifo_or_device_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(cowfs.FormatError, match="not an ordinary file"):
        cowfs.open("/dev/null", "w")


def test_an_empty_file_is_no_image(path: Path) -> None:
    path.touch()
    for flag in "rw":
        with pytest.raises(cowfs.FormatError, match="empty"):
            cowfs.open(path, flag)


@pytest.mark.parametrize("size", [1, 100, 4096, 1 << 20, 3 << 20])
def test_a_foreign_file_is_no_image(path: Path, size: int) -> None:
    path.write_bytes(noise(size))
    for flag in "rwc":
        with pytest.raises(cowfs.FormatError, match="not a cowfs image"):
            cowfs.open(path, flag)
    assert path.read_bytes() == noise(size)


def test_an_image_that_is_cut_short_says_so(image: Path) -> None:
    with cowfs.open(image, "w") as store:
        store["a"].update((b"%d" % n, noise(5000, n)) for n in range(1000))
    whole = image.read_bytes()
    for size in (len(whole) - 4096, len(whole) // 2, 600 * 4096):
        image.write_bytes(whole[:size])
        for flag in "rw":
            with pytest.raises(cowfs.FormatError, match="cut short"):
                cowfs.open(image, flag)
    for size in (4096, 5000, 16 * 4096):
        image.write_bytes(whole[:size])
        with pytest.raises((cowfs.FormatError, cowfs.CorruptionError)):
            cowfs.open(image)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"flag": "x"}, "flag"),
        ({"flag": ""}, "flag"),
        ({"flag": "rw"}, "flag"),
        ({"cache": 0}, "cache"),
        ({"cache": -1}, "cache"),
        ({"cache": limits.MIN_CACHE - 1}, "cache"),
        ({"cache": "64M"}, "cache"),
        ({"size": 0}, "size"),
        ({"size": -1}, "size"),
        ({"size": 1000}, "size"),
        ({"size": 512 * 4096 - 1}, "size"),
        ({"size": 1 << 80}, "size"),
        ({"size": "10G"}, "size"),
        ({"size": 1e9}, "size"),
        ({"block_size": 512}, "block size"),
        ({"block_size": 4097}, "block size"),
        ({"block_size": 1 << 20}, "block size"),
        ({"node_size": 2048}, "node size"),
        ({"node_size": 1 << 16}, "node size"),
        ({"compression": "zstd"}, "compression"),
        ({"compression": None}, "compression"),
        ({"label": "x" * 65}, "label"),
        ({"label": "ä" * 33}, "label"),
        ({"label": "a\0b"}, "label"),
    ],
)
def test_wrong_arguments_make_no_image(path: Path, arguments: dict[str, Any], word: str) -> None:
    with pytest.raises(cowfs.UsageError, match=word):
        cowfs.open(path, **{"flag": "n", **arguments})
    assert not path.exists()


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_a_path_that_no_file_can_have_is_refused(name: str) -> None:
    with pytest.raises(cowfs.UsageError):
        cowfs.open(name, "n")


@pytest.mark.parametrize("block_size", limits.BLOCK_SIZES)
@pytest.mark.parametrize("node_size", limits.NODE_SIZES)
def test_every_geometry_works(path: Path, block_size: int, node_size: int) -> None:
    items = {b"%d" % n: noise(n * n // 3, n) for n in range(200)}
    with cowfs.open(path, "n", block_size=block_size, node_size=node_size) as store:
        store.create("a").update(items)
        store.snapshot("a@x")
        del store["a"][b"7"]
        assert_sound(store)
    with cowfs.open(path, "w") as store:
        with store.at("a@x") as view:
            assert dict(view.items()) == items
        assert b"7" not in store["a"]
        assert_sound(store)


def test_a_limited_image_never_grows_beyond_its_size(path: Path) -> None:
    with cowfs.open(path, "n", size=3_000_000) as store:
        store.create("a")
        with pytest.raises(cowfs.OutOfSpaceError):
            for number in range(1000):
                store["a"][b"%d" % number] = noise(10_000, number)
        assert store.space().total <= 3_000_000
    assert path.stat().st_size <= 3_000_000


def test_deleting_makes_the_file_small_again(path: Path) -> None:
    with cowfs.open(path, "n") as store:
        store.create("a").update((b"%d" % n, noise(100_000, n)) for n in range(300))
        store["a"][b"k"] = b"v"
    assert path.stat().st_size > 30_000_000
    with cowfs.open(path, "w") as store:
        store["a"].delete_range(b"0", b"a")
        store.reclaim()
    with cowfs.open(path, "w") as store:
        assert dict(store["a"].items()) == {b"k": b"v"}
        assert_sound(store)
    assert path.stat().st_blocks * 512 < 4_000_000


@pytest.mark.parametrize("groups", [1, 3])
def test_an_image_that_shrinks_at_its_end_opens(path: Path, groups: int) -> None:
    """Several allocation groups are filled, and given back from the last one on."""
    count = groups * limits.GROUP_BLOCKS * 4096 // 100_000 + 50
    with cowfs.open(path, "n", compression="none") as store:
        store.create("a")
        for name in ("a", "b"):
            if name == "b":
                store.create("b")
            with store.transaction() as tx:
                for n in range(count if name == "b" else 20):
                    tx[name][b"%d" % n] = noise(100_000, n)
    full = path.stat().st_size
    for _ in range(4):
        with cowfs.open(path, "w") as store:
            if "b" in store:
                store.destroy("b")
            for n in range(5):
                store["a"][b"more %d" % n] = noise(3000, n)
        with cowfs.open(path, "w") as store:
            assert len(store["a"]) == 25
            assert_sound(store)
    assert path.stat().st_size < full // 2


def test_no_punching_leaves_no_holes(path: Path) -> None:
    with cowfs.open(path, "n", punch=False) as store:
        store.create("a").update((b"%d" % n, noise(100_000, n)) for n in range(50))
        store["a"].clear()
        store["a"][b"last"] = noise(100_000)
        blocks = os.stat(path).st_blocks
    assert os.stat(path).st_blocks >= blocks * 0.5


FULL_DISK = """
import resource, sys
import cowfs
store = cowfs.open(sys.argv[1], "w")
resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))
try:
    for number in range(1000):
        store["a"][b"%d" % number] = bytes(range(256)) * 40 + number.to_bytes(8, "big") * 1000
except cowfs.OutOfSpaceError as error:
    print(len(store["a"]), error)
store["a"][b"small"] = b"fits"
assert store.check().ok
store.close()
"""


def test_a_full_disk_under_the_image_is_out_of_space_and_nothing_is_lost(image: Path) -> None:
    with cowfs.open(image, "n", compression="none") as store:
        store.create("a")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(image)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    count, _, message = done.stdout.partition(" ")
    assert "disk under the image is full" in message
    with cowfs.open(image, "w") as store:
        assert store["a"][b"small"] == b"fits"
        assert len(store["a"]) == int(count) + 1
        assert_sound(store)
