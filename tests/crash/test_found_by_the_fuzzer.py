"""Power cuts that the crash fuzzer found a bug with, as it printed them."""

from __future__ import annotations

from crashfuzzer.case import Case, Crash
from crashfuzzer.changes import (
    Create,
    Destroy,
    Fill,
    MakeDirectory,
    Put,
    Rename,
    Snapshot,
)
from crashfuzzer.losses import Left, Loss
from crashfuzzer.steps import Abandon, Commit, Cut, Reclaim, Reopen, Scribble
from crashfuzzer.world import World


def test_an_image_keeps_its_end_while_something_is_destroyed_in_part() -> None:
    """Its nodes refer to blocks that are free already, which were cut off."""
    Case(
        world=World(
            node_size=4096,
            one_flush_limit=40960,
            log_records=3,
            unstored_records=2,
            reap_blocks=3,
            seed=652485573,
        ),
        steps=(
            Commit(changes=(Create(name="b"),), durable=False),
            Commit(changes=(), durable=False),
            Abandon(changes=()),
            Commit(changes=(), durable=False),
            Commit(
                changes=(Fill(name="b", first=1, count=80, size=1500, seed=31),),
                durable=False,
            ),
            Commit(changes=(), durable=False),
            Commit(
                changes=(Fill(name="b", first=55, count=60, size=100, seed=10),),
            ),
            Commit(changes=(), durable=False),
            Commit(
                changes=(Put(name="b", key=b"ballast", size=150000, seed=10),),
                durable=False,
            ),
            Commit(
                changes=(
                    Fill(name="b", first=68, count=30, size=1500, seed=18),
                    Put(name="b", key=b"ballast", size=150000, seed=4),
                ),
                durable=False,
            ),
            Commit(changes=(), durable=False),
            Reopen(),
            Commit(changes=(Destroy(name="b"),)),
            Reclaim(),
        ),
        crash=Crash(epoch=60, losses=(Loss(number=1),)),
        further=(Reopen(),),
    ).replay()


def test_groups_that_were_cut_off_and_came_back_are_stored_anew() -> None:
    """An image that shrinks and grows in one transaction: the map still told of the old blocks."""
    Case(
        world=World(
            node_size=4096,
            one_flush_limit=40960,
            log_records=3,
            unstored_records=100,
            group_blocks=64,
            reap_blocks=10,
            seed=477344486,
        ),
        steps=(
            Commit(changes=(Create(name="a"), Create(name="f"))),
            Cut(changes=(Destroy(name="a"),), seed=506),
            Commit(changes=(Snapshot(name="f@7"),)),
            Commit(changes=(Snapshot(name="f@5"),), durable=False),
            Reopen(),
            Commit(changes=(Destroy(name="f@7"),), durable=False),
            Scribble(),
            Commit(changes=(Create(name="w"),), durable=False),
            Cut(changes=(Destroy(name="f@5"),), durable=False, seed=340),
            Commit(changes=(Snapshot(name="f@0"),), durable=False),
            Commit(changes=(Rename(old="w", new="v"),), durable=False),
            Commit(changes=(Destroy(name="v"),), durable=False),
        ),
        crash=Crash(epoch=32),
        further=(
            Commit(
                changes=(MakeDirectory(name="f", path=b"/d"),),
                durable=False,
            ),
            Reopen(),
        ),
    ).replay()


def test_wiping_a_torn_record_that_is_torn_itself_does_not_complete_it() -> None:
    """Zeros where the record has zeros, and what was there before the wiping elsewhere."""
    Case(
        world=World(
            compression="none",
            metadata_copies=2,
            one_flush_limit=153600,
            log_records=3,
            unstored_records=2,
            reap_blocks=3,
            waits=True,
            seed=7000,
        ),
        steps=(
            Commit(changes=(Create(name="a"),)),
            Scribble(),
            Commit(changes=(Snapshot(name="a@6"),), durable=False),
            Commit(
                changes=(Put(name="a", key=b"ballast", size=250000, seed=10),),
                durable=False,
            ),
        ),
        crash=Crash(
            epoch=41,
            losses=(
                Loss(number=0, left=Left.GARBAGE, sectors=(7,)),
                Loss(number=1, sectors=range(6, 7)),
            ),
        ),
        second=Crash(epoch=0, losses=(Loss(number=0, sectors=(0, 7)),)),
    ).replay()
