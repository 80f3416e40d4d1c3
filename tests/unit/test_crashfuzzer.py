"""The parts of the crash fuzzer that decide what it looks at: images, losses, epochs."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crashfuzzer.case import Case, Crash
from crashfuzzer.device import Flush, RecordingDevice, Write
from crashfuzzer.image import CHUNK, Image
from crashfuzzer.losses import SECTOR, Epoch, Left, Loss, epochs, power_cuts
from crashfuzzer.threads import Lock, Thread, Turns
from crashfuzzer.world import World

from ..plain import noise

PLACES = st.integers(0, 5 * CHUNK)


@given(st.lists(st.tuples(st.sampled_from("wrz"), PLACES, st.integers(0, 2 * CHUNK))))
def test_an_image_is_a_bytearray(operations: list[tuple[str, int, int]]) -> None:
    image, model = Image(), bytearray()
    for kind, at, length in operations:
        before, copied = image.copy(), bytes(model)
        if kind == "r":
            image.resize(at)
            del model[at:]
            model.extend(bytes(at - len(model)))
        else:
            data = noise(length, at) if kind == "w" else bytes(length)
            image.write(at, data)
            model.extend(bytes(max(0, at + length - len(model))))
            model[at : at + length] = data
        assert image.size == len(model)
        assert image.read(0, len(model) + 1) == model
        assert image.read(at, length) == model[at : at + length]
        assert before.read(0, before.size) == copied
        assert (before.fingerprint == image.fingerprint) == (copied == model)


def test_equal_images_have_equal_fingerprints_whatever_led_to_them() -> None:
    one, other = Image(), Image()
    one.write(100, noise(3 * CHUNK))
    other.resize(9 * CHUNK)
    other.write(0, noise(5 * CHUNK, 1))
    other.write(0, bytes(5 * CHUNK))
    other.write(100, noise(3 * CHUNK))
    other.resize(one.size)
    assert one.fingerprint == other.fingerprint


def writes(*offsets: int) -> Epoch:
    """An epoch of writes of a block each, over an image of 0xff."""
    image = Image()
    image.write(0, b"\xff" * (1 << 16))
    return Epoch(image, 0, changes=[Write(at, noise(4096, at)) for at in offsets])


def test_every_subset_of_a_few_writes_is_tried() -> None:
    epoch = writes(0, 8192, 16384)
    found = set()
    for losses in power_cuts(epoch, random.Random(1), 0):
        image = epoch.image(losses)
        found.add(
            tuple(image.read(change.offset, 1) != b"\xff" for change in epoch.changes)  # type: ignore[union-attr]
        )
    assert len(found) == 8


def test_a_later_write_may_be_lost_and_an_earlier_one_to_the_same_place_not() -> None:
    epoch = writes(4096, 0)
    epoch.changes.append(Write(4096, bytes(4096)))
    assert epoch.image((Loss(2),)).read(4096, 4096) == noise(4096, 4096)


@pytest.mark.parametrize(
    ("left", "expected"), [(Left.OLD, b"\xff"), (Left.ZERO, b"\0"), (Left.GARBAGE, None)]
)
def test_sectors_are_torn_alone(left: Left, expected: bytes | None) -> None:
    epoch = writes(4096)
    image = epoch.image((Loss(0, left, (1, 3)),))
    for sector in range(8):
        got = image.read(4096 + sector * SECTOR, SECTOR)
        arrived = noise(4096, 4096)[sector * SECTOR :][:SECTOR]
        assert (got == arrived) == (sector not in (1, 3))
        if sector in (1, 3) and expected is not None:
            assert got == expected * SECTOR


def test_losses_of_what_was_never_asked_for_are_none() -> None:
    """A case that is made shorter keeps its losses, and there may be fewer operations then."""
    epoch = writes(0)
    beyond = (Loss(7), Loss(1, sectors=(0,)))
    assert epoch.image(beyond).fingerprint == epoch.image(()).fingerprint
    assert epoch.late_writes(beyond) == []
    Case(World(), (), crash=Crash(4, beyond), late=True).replay()


def test_what_was_acknowledged_as_durable_is_the_oldest_that_may_be_found() -> None:
    device = RecordingDevice()
    device.mark(0, durable=True)
    device.write(0, b"1")
    device.mark(1, durable=False)
    device.write(0, b"2")
    device.flush()
    device.mark(2, durable=True)
    device.write(0, b"3")
    found = [(e.oldest, e.newest, e.base.read(0, 1)) for e in epochs(device.log, Image(), 4)]
    assert found == [(0, 2, b""), (2, 2, b"2")]


def test_a_discarded_range_reads_as_anything() -> None:
    device = RecordingDevice()
    device.write(0, b"x" * 8192)
    base = device.image.copy()
    device.log.clear()
    device.discard(0, 4096)
    (epoch,) = epochs(device.log, base, 1)
    found = {epoch.image(losses).read(0, 1) for losses in power_cuts(epoch, random.Random(1), 3)}
    assert len(found) == 3


def test_what_is_written_during_a_flush_may_be_lost_after_it() -> None:
    device = RecordingDevice()
    device.write(0, b"before")
    device.log += [Write(8, b"during"), Flush(late=1)]
    first, second = epochs(device.log, Image(), 1)
    assert [change.offset for change in first.changes if isinstance(change, Write)] == [0, 8]
    assert second.base.read(0, 6) == b"before"
    assert second.changes == [Write(8, b"during")]


def test_a_seed_has_the_program_and_its_thread_take_the_same_turns() -> None:
    def said(seed: int) -> list[str]:
        turns, words = Turns(seed), list[str]()

        class Owner:
            device = SimpleNamespace(turns=turns)
            lock = Lock()

            def work(self, whose: str) -> None:
                for number in range(5):
                    turns.take()
                    with self.lock:
                        words.append(f"{whose} begins {number}")
                        turns.take()
                        words.append(f"{whose} ends {number}")

        owner = Owner()
        thread = Thread(target=owner.work, args=("thread",), name="", daemon=True)
        thread.start()
        owner.work("program")
        thread.join()
        assert not thread.is_alive()
        return words

    orders = {tuple(said(seed)) for seed in range(20)}
    assert orders == {tuple(said(seed)) for seed in range(20)}
    assert len(orders) > 5
    for words in orders:
        for begin, end in zip(words[::2], words[1::2], strict=True):
            assert begin.replace("begins", "ends") == end, "a lock was not held"
