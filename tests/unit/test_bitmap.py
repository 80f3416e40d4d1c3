"""The bitmap of blocks against a list of bools."""

from __future__ import annotations

import sys
from itertools import groupby
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowfs.bitmap import Bitmap

GROUP = 128

Change = tuple[bool, int, int]
CHANGES = st.lists(
    st.tuples(st.booleans(), st.integers(0, 399), st.integers(0, 150)), min_size=1, max_size=12
)


def made(size: int, changes: list[Change]) -> tuple[Bitmap, list[bool]]:
    """A bitmap and its model after the same changes."""
    bitmap, model = Bitmap(size, GROUP), [False] * size
    for on, start, length in changes:
        start = min(start, size)
        stop = min(start + length, size)
        changed = sum(model[i] != on for i in range(start, stop))
        assert (bitmap.set if on else bitmap.clear)(start, stop - start) == changed
        model[start:stop] = [on] * (stop - start)
    return bitmap, model


def runs(model: list[bool], start: int, stop: int) -> list[tuple[int, int]]:
    """(position, length) of each run of clear bits."""
    found = []
    at = start
    for value, group in groupby(model[start:stop]):
        length = sum(1 for _ in group)
        if not value:
            found.append((at, length))
        at += length
    return found


@given(st.integers(1, 400), CHANGES, st.integers(0, 400), st.integers(0, 400), st.integers(1, 200))
def test_counting_and_finding(
    size: int, changes: list[Change], start: int, stop: int, goal: int
) -> None:
    bitmap, model = made(size, changes)
    assert [bitmap.test(i) for i in range(size)] == model
    assert not bitmap.test(size) and not bitmap.test(-1)
    start, stop = min(start, size), min(stop, size)
    if start <= stop:
        assert bitmap.count(start, stop) == sum(model[start:stop])
    clear = runs(model, start, stop)
    position, length = bitmap.find(start, stop, goal)
    long = [at for at, run in clear if run >= goal]
    if long:
        assert (position, length) == (long[0], goal)
    else:
        assert length == max((run for _, run in clear), default=0)
        assert length == 0 or (position, length) in clear


@given(st.integers(1, 400), CHANGES, st.lists(st.tuples(st.integers(-1, 500), st.integers(1, 130))))
def test_searching_finds_a_run_within_a_group_wherever_there_is_one(
    size: int, changes: list[Change], searches: list[tuple[int, int]]
) -> None:
    bitmap, model = made(size, changes)
    for near, goal in searches:
        position, length = bitmap.search(near, goal)
        by_group = [
            run
            for first in range(0, size, GROUP)
            for run in runs(model, first, min(first + GROUP, size))
        ]
        assert (length == goal) == any(run >= goal for _, run in by_group)
        if length:
            assert not any(model[position : position + goal])
            bitmap.set(position, goal // 2 + 1)
            model[position : position + goal // 2 + 1] = [True] * (goal // 2 + 1)


@given(CHANGES, st.lists(st.tuples(st.integers(1, 700), CHANGES), max_size=4))
def test_growing_and_shrinking_keep_the_bits(
    changes: list[Change], steps: list[tuple[int, list[Change]]]
) -> None:
    bitmap, model = made(300, changes)
    for size, more in steps:
        while len(model) > size and not model[-1]:  # only what is clear is ever cut off
            model.pop()
        size = max(size, len(model))
        bitmap.resize(size)
        model.extend([False] * (size - len(model)))
        assert bitmap.size == size
        for on, start, length in more:
            start = min(start, size)
            length = min(length, size - start)
            (bitmap.set if on else bitmap.clear)(start, length)
            model[start : start + length] = [on] * length
        assert [bitmap.test(i) for i in range(size)] == model
        # No run is overlooked: what is found until nothing is left are all the clear bits.
        probe = bitmap.copy()
        left = model.count(False)
        while left:
            position, length = probe.search(0, 1)
            assert length == 1
            probe.set(position, 1)
            left -= 1
        assert probe.search(0, 1) == (0, 0)


def test_growing_across_a_group_makes_its_new_bits_found() -> None:
    bitmap = Bitmap(GROUP - 28, GROUP)
    bitmap.set(0, GROUP - 28)
    assert bitmap.search(0, 10) == (0, 0)
    bitmap.resize(GROUP + 8)
    assert bitmap.search(0, 10) == (GROUP - 28, 10)


class Interrupt:
    """Raises KeyboardInterrupt at the `left`th line of `Bitmap.resize` that is begun."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self, frame: FrameType, event: str, arg: object) -> Interrupt | None:
        if frame.f_code is not Bitmap.resize.__code__:
            return None
        if event == "line":
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt
        return self


@pytest.mark.parametrize("size", [0, 100, 200, 300, 500])
def test_resizing_can_be_interrupted_and_done_again(size: int) -> None:
    finished = False
    for line in range(1, 50):
        bitmap = Bitmap(300, GROUP)
        bitmap.set(0, min(size, 300))
        before = sys.gettrace()
        sys.settrace(Interrupt(line))
        try:
            bitmap.resize(size)
            finished = True
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        # What the compiled part reads without a look at bounds is there.
        groups = -(-bitmap.size // GROUP)
        assert len(bitmap.words) >= groups * GROUP // 8
        assert min(len(bitmap.dirty), len(bitmap.longest)) >= groups
        assert max(bitmap.clean(), default=-1) < groups
        bitmap.resize(size)
        assert bitmap.size == size and bitmap.used == min(size, 300)
        assert bitmap.search(0, 1) == ((300, 1) if size > 300 else (0, 0))
        if finished:
            return
    raise AssertionError("it was never left to finish")


@given(st.integers(1, 400), CHANGES)
def test_groups_are_stored_and_loaded(size: int, changes: list[Change]) -> None:
    bitmap, model = made(size, changes)
    other = Bitmap(size, GROUP)
    for group in range(-(-size // GROUP)):
        found = other.set_group_bytes(group, bitmap.group_bytes(group))
        assert found == sum(model[group * GROUP : (group + 1) * GROUP])
    assert [other.test(i) for i in range(size)] == model
    assert other.count(0, size) == sum(model)
    with pytest.raises(ValueError, match="bytes for a group"):
        other.set_group_bytes(0, b"x")


@given(st.integers(1, 400), CHANGES)
def test_groups_that_changed_are_told_once(size: int, changes: list[Change]) -> None:
    bitmap, _ = made(size, [])
    bitmap.clean()
    touched = set()
    for on, start, length in changes:
        start = min(start, size)
        length = min(length, size - start)
        (bitmap.set if on else bitmap.clear)(start, length)
        touched |= {block // GROUP for block in range(start, start + length)}
    bitmap.mark([0])
    assert set(bitmap.clean()) == touched | {0}
    assert bitmap.clean() == []


@given(st.integers(1, 400), CHANGES, st.integers(0, 400), st.integers(0, 500))
def test_next_set_and_next_clear(size: int, changes: list[Change], at: int, stop: int) -> None:
    bitmap, model = made(size, changes)
    end = min(stop, size)
    assert bitmap.next_set(at, stop) == next((i for i in range(at, end) if model[i]), end)
    assert bitmap.next_set(at) == next((i for i in range(at, size) if model[i]), size)
    assert bitmap.next_clear(at) == next((i for i in range(at, size) if not model[i]), size)


@given(st.integers(1, 400), CHANGES, st.lists(st.tuples(st.integers(0, 399), st.integers(0, 99))))
def test_packed_runs_are_cleared(
    size: int, changes: list[Change], packed: list[tuple[int, int]]
) -> None:
    bitmap, model = made(size, changes)
    words = b""
    expected = 0
    for start, length in packed:
        start = min(start, size)
        length = min(length, size - start)
        words += (start << 16 | length).to_bytes(8, "little")
        expected += sum(model[start : start + length])
        model[start : start + length] = [False] * length
    assert bitmap.clear_packed(words) == expected
    assert [bitmap.test(i) for i in range(size)] == model


@pytest.mark.parametrize(("start", "length"), [(-1, 2), (0, 101), (100, 1), (5, -1), (1 << 40, 1)])
def test_blocks_outside_of_the_image_are_refused(start: int, length: int) -> None:
    bitmap = Bitmap(100, GROUP)
    with pytest.raises(ValueError, match="of 100"):
        bitmap.set(start, length)
    if length >= 0 and start >= 0:
        with pytest.raises(ValueError, match="of 100"):
            bitmap.clear_packed((start << 16 | length).to_bytes(8, "little"))
    assert bitmap.count(0, 100) == 0


def test_a_copy_has_the_same_bits_and_none_has_changed() -> None:
    bitmap = Bitmap(1000, 128)
    bitmap.set(300, 200)
    copy = bitmap.copy()
    assert (copy.used, copy.group_bytes(3)) == (bitmap.used, bitmap.group_bytes(3))
    assert copy.clean() == []
    copy.clear(300, 1)
    assert copy.clean() == [2] and bitmap.test(300)
