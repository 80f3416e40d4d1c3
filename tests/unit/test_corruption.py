"""Bad bytes on the image: the right data, or an error that names the place; never anything else."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

import cowfs
from cowfs import limits
from cowfs.device import MemoryDevice

from ..devices import LyingReader, copy_device, device_of
from ..plain import Items, contents, noise, text

BLOCK = 4096
REFUSED = (cowfs.CorruptionError, cowfs.FormatError)


Contents = dict[str, Items]


def image(closed: bool) -> tuple[bytes, list[Contents]]:
    """A small image with everything in it: high trees, values of all forms, snapshots, a log; and
    what may be found on it."""
    device = MemoryDevice()
    store = cowfs.open_device(device, parameters=cowfs.Parameters(node_size=4096))
    store.create("a").update((b"%d" % n, text(n * 7 % 800, n)) for n in range(150))
    store["a"][b"extent"] = noise(9000)
    store["a"][b"records"] = noise(300_000)
    store.snapshot("a@x")
    store["a"].update({b"%d" % n: noise(50, n) for n in range(0, 150, 10)})
    store.clone("a@x", "b")
    # The newest commit of a store that was not closed is told from one in flight by being whole.
    expected = [] if closed else [contents(store)]
    store["b"].delete_range(b"5", b"6")
    expected.append(contents(store))
    if closed:
        store.close()
    return device.read(0, device.size()), expected


Case = tuple[bytes, list[Contents | None], list[int]]


@pytest.fixture(scope="module", params=[True, False], ids=["closed", "crashed"])
def case(request: pytest.FixtureRequest) -> Case:
    """An image, what may be found on it, and its blocks in use."""
    data, expected = image(request.param)
    store = cowfs.open_device(device_of(data), readonly=True)
    bitmap = store.io.space.bitmap
    used = [
        block
        for block in range(bitmap.size)
        if bitmap.test(block) and any(data[block * BLOCK : (block + 1) * BLOCK])
    ]
    return data, [None, *expected], used


def read_all(device: MemoryDevice) -> Contents | None:
    """Everything on an image; None where an error says that it is damaged."""
    try:
        with cowfs.open_device(device, readonly=True) as store:
            report = store.check()
            scrubbed = store.scrub()
            for fault in (*report.faults, *scrubbed.faults):
                assert fault.reason
            try:
                found = contents(store)
            except cowfs.CorruptionError as error:
                assert error.reason and "corrupt image" in str(error)
                assert not report.ok, "check found nothing wrong"
                return None
            return found
    except REFUSED as error:
        assert str(error) and "\n" not in str(error)
        return None


def offsets(chance: random.Random) -> list[int]:
    """Places in a block: all of the start, some of the rest, the checksum at the end."""
    return [
        *chance.sample(range(130), 6),
        *chance.sample(range(130, BLOCK - 16), 3),
        *chance.sample(range(BLOCK - 16, BLOCK), 1),
    ]


def test_a_flipped_byte_is_found_or_harmless(case: Case) -> None:
    data, expected, used = case
    chance = random.Random(1)
    device = LyingReader(data)
    assert read_all(device) == expected[-1]
    refused = 0
    for block in used:
        if limits.SUPERBLOCK_SLOTS <= block < limits.SECOND_PLACE_BLOCK or block > 300:
            places = offsets(chance)
        else:
            places = chance.sample(offsets(chance), 4)
        for at in places:
            device.flips = {block * BLOCK + at: 1 << chance.randrange(8)}
            found = read_all(device)
            refused += found is None
            assert found in expected, f"block {block}, byte {at}"
    assert refused > len(used)


@pytest.mark.parametrize(
    "damage",
    [
        lambda block: bytes(BLOCK),
        lambda block: b"\xff" * BLOCK,
        lambda block: block[:512] + bytes(BLOCK - 512),
        lambda block: block[::-1],
        lambda block: noise(BLOCK),
    ],
    ids=["zeros", "ones", "torn", "reversed", "noise"],
)
def test_a_lost_block_is_found_or_harmless(case: Case, damage: Callable[[bytes], bytes]) -> None:
    data, expected, used = case
    for block in used:
        device = device_of(data)
        start = block * BLOCK
        device.write(start, damage(data[start : start + BLOCK]))
        assert read_all(device) in expected, f"block {block}"


def test_two_blocks_that_changed_places_are_found(case: Case) -> None:
    data, expected, used = case
    chance = random.Random(2)
    blocks = [block for block in used if block >= limits.SUPERBLOCK_SLOTS]
    for _ in range(60):
        one, other = chance.sample(blocks, 2)
        device = device_of(data)
        for source, target in ((one, other), (other, one)):
            device.write(target * BLOCK, data[source * BLOCK : (source + 1) * BLOCK])
        assert read_all(device) in expected, f"blocks {one} and {other}"


@pytest.mark.parametrize("closed", [True, False])
def test_a_damaged_superblock_never_brings_back_an_older_state(closed: bool) -> None:
    """One copy does; with both gone, the image is refused, or opens as of the newest commit."""
    device = MemoryDevice()
    store = cowfs.open_device(device, parameters=cowfs.Parameters())
    store.create("a")
    for number in range(40):
        with store.transaction() as tx:
            tx["a"][b"count"] = b"%d" % number
            tx.checkpoint = number % 4 == 0
    expected = contents(store)
    if closed:
        store.close()
    data = device.read(0, device.size())
    for slot in range(limits.SUPERBLOCK_SLOTS):
        for places in ((0,), (limits.SECOND_PLACE_BLOCK,), (0, limits.SECOND_PLACE_BLOCK)):
            damaged = device_of(data)
            for place in places:
                damaged.write((place + slot) * BLOCK + 100, b"damage")
            found = read_all(damaged)
            assert found == expected or (found is None and len(places) == 2), f"{places} + {slot}"


def test_all_superblocks_lost_is_a_clear_error() -> None:
    data, _ = image(True)
    device = device_of(data)
    for slot in range(limits.SUPERBLOCK_SLOTS):
        for place in (0, limits.SECOND_PLACE_BLOCK):
            device.write((place + slot) * BLOCK + 100, b"damage")
    with pytest.raises(cowfs.FormatError, match="no superblock"):
        cowfs.open_device(device)


def test_the_error_names_dataset_and_block() -> None:
    device = MemoryDevice()
    store = cowfs.open_device(device, parameters=cowfs.Parameters(compression="none"))
    store.create("sound")[b"k"] = b"v"
    store.create("damaged/one")[b"k"] = noise(5000)
    at = device.read(0, device.size()).index(noise(5000)[:100])
    device.write(at + 10, b"!")
    with pytest.raises(cowfs.CorruptionError) as caught, store.at("damaged/one") as view:
        view[b"k"]
    error = caught.value
    assert (error.dataset, error.block) == ("damaged/one", at // BLOCK)
    assert "checksum" in error.reason
    assert "damaged/one" in str(error) and str(at // BLOCK) in str(error)
    for report in (store.check(), store.scrub()):
        assert [(fault.dataset, fault.block) for fault in report.faults] == [
            ("damaged/one", at // BLOCK)
        ]
    assert store["sound"][b"k"] == b"v"
    store.destroy("damaged/one")
    assert store.check().ok


def with_a_damaged_leaf() -> tuple[MemoryDevice, bytes]:
    """A device with 3,000 keys, and one of those in a leaf that is damaged."""
    device = MemoryDevice()
    with cowfs.open_device(device, parameters=cowfs.Parameters(compression="none")) as store:
        store.create("a").update((b"%06d" % n, noise(50, n)) for n in range(3000))
    image = device.read(0, device.size())
    at = image.rindex(noise(50, 1500))  # not in the log, where it may be as well
    device.write(at, b"damage")
    return device, b"001500"


@pytest.mark.parametrize("change", ["put", "delete"])
def test_what_damage_refused_is_not_done_again_after_a_crash(change: str) -> None:
    device, lost = with_a_damaged_leaf()
    store = cowfs.open_device(device)
    with store.transaction() as tx:
        tx["a"][b"000001"] = b"new"
        with pytest.raises(cowfs.CorruptionError):
            if change == "put":
                tx["a"][lost] = b"refused"
            else:
                del tx["a"][lost]
    crashed = cowfs.open_device(copy_device(device))
    assert crashed["a"][b"000001"] == store["a"][b"000001"] == b"new"


def test_a_range_that_could_not_be_deleted_whole_breaks_the_transaction() -> None:
    device, _ = with_a_damaged_leaf()
    store = cowfs.open_device(device)
    tx = store.transaction()
    with pytest.raises(cowfs.CorruptionError):
        tx["a"].delete_range(b"000002", b"001500")
    with pytest.raises(cowfs.ClosedError, match="an earlier error broke this transaction"):
        tx.commit()
    assert store["a"][b"000002"] == noise(50, 2)


def test_check_finds_counts_and_maps_that_are_wrong(store: cowfs.Store) -> None:
    """What no checksum covers: the space map itself, as a bug would leave it."""
    store.create("a").update((b"%d" % n, noise(900, n)) for n in range(200))
    store.snapshot("a@x")
    assert store.check().ok
    space = store.io.space
    shared = next(iter(space.shared))
    space.shared[shared] += 1
    assert any(fault.block == shared for fault in store.check().faults)
    space.shared[shared] -= 1
    free = space.bitmap.next_clear(300)
    space.bitmap.set(free, 1)
    assert any("lost" in fault.reason for fault in store.check().faults)
    space.bitmap.clear(free, 1)
    space.bitmap.clear(shared, 1)
    assert any(
        fault.block == shared and "marked free" in fault.reason for fault in store.check().faults
    )
    space.bitmap.set(shared, 1)
    space.shared[free] = 2
    assert any(fault.block == free for fault in store.check().faults)
    del space.shared[free]
    assert store.check().ok
