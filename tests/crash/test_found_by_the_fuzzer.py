"""Power cuts that the crash fuzzer found a bug with, as it printed them."""

from __future__ import annotations

from crashfuzzer.case import Case, Crash
from crashfuzzer.changes import Create, Destroy, Fill, Put
from crashfuzzer.losses import Loss
from crashfuzzer.steps import Abandon, Commit, Reclaim, Reopen
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
