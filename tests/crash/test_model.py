"""The commit protocol as a model: its properties hold in every state within small bounds, and in a
state of each mutation one of them does not. `make model` visits more.
"""

from __future__ import annotations

import pytest

from model.__main__ import MUTATION_BOUNDS, bounded
from model.disk import NOTHING, Disk, Unknown
from model.explore import explore
from model.mutations import MUTATIONS
from model.protocol import Protocol


@pytest.mark.parametrize("bounds", [(10, 2, 2), (9, 3, 1)])
def test_the_protocol_holds_in_every_state(bounds: tuple[int, int, int]) -> None:
    result = explore(bounded(Protocol, bounds))
    assert not result.wrong, "\n".join([result.wrong, *result.trace])
    assert result.states > 10_000


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_mutation_of_the_protocol_is_noticed(mutation: type[Protocol]) -> None:
    assert explore(bounded(mutation, MUTATION_BOUNDS)).wrong


def test_until_a_flush_a_block_may_be_what_it_was_or_torn_or_what_was_written() -> None:
    disk = Disk((("old",),)).write(0, "new", tears=True)
    with pytest.raises(Unknown):
        disk.stopped().read(0)
    assert set(disk.stopped().blocks[0]) == {"old", NOTHING, "new"}
    assert disk.flushed(disk.asked()).read(0) == "new"


def test_a_flush_covers_what_was_written_before_it_began() -> None:
    disk = Disk((("old",),)).write(0, "first")
    asked = disk.asked()
    disk = disk.write(0, "second").flushed(asked)
    assert set(disk.blocks[0]) == {"first", "second"}


def test_what_a_failed_flush_dropped_is_not_flushed_by_the_next() -> None:
    disk = Disk((("old",),)).write(0, "new")
    disk = disk.dropped(disk.asked())
    assert disk.asked() == ()
    assert set(disk.flushed(disk.asked()).blocks[0]) == {"old", "new"}
