"""Counts in the form in which they are stored, against a dict."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowfs import limits
from cowfs.counts import CountMap

TOTAL = 3 * limits.GROUP_BLOCKS
BLOCKS = st.sampled_from([0, 1, limits.GROUP_BLOCKS - 1, limits.GROUP_BLOCKS, TOTAL - 1])
COUNTS = st.dictionaries(BLOCKS, st.integers(0, 5), max_size=5)


def stored(counts: CountMap) -> dict[int, int]:
    """All counts, by way of what is stored of each group."""
    again, found = CountMap(TOTAL), dict[int, int]()
    for group in range(3):
        found |= again.load(TOTAL, group, *counts.group(group))
    return found


@given(st.lists(COUNTS, max_size=4), COUNTS)
def test_what_is_applied_is_stored_and_what_comes_after_changes_nothing(
    changes: list[dict[int, int]], later: dict[int, int]
) -> None:
    counts, model = CountMap(TOTAL), dict[int, int]()
    for change in changes:
        counts.apply(TOTAL, change)
        model |= change
    after, groups = counts.after(TOTAL, later)
    assert groups == {block // limits.GROUP_BLOCKS for block in later}
    for found, expected in ((after, model | later), (counts, model)):
        assert stored(found) == {block: n for block, n in expected.items() if n > 1}


@pytest.mark.parametrize("many", [[(1, 3)], [(0, 2)], [(0, limits.MAX_COUNT + 1)]])
def test_a_count_that_cannot_be_is_refused(many: list[tuple[int, int]]) -> None:
    shared = b"\1" + bytes(limits.GROUP_BLOCKS // 8 - 1)
    with pytest.raises(ValueError, match="an impossible count"):
        CountMap(TOTAL).load(TOTAL, 0, shared, many)
