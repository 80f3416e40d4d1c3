"""Power cuts at every place of random workloads: an image opens as of the last acknowledged commit,
or the one in flight, whole; `check` finds nothing; and it goes on from there through another cut.

tools/crashfuzzer/ does it. `make crashfuzz` goes on where these tests stop.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from crashfuzzer.explore import Failure, explore
from crashfuzzer.shrink import shrink

from . import planted

PARTS = 10
STATES = 20_000
"""Distinct crash states, in all parts together."""

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.mark.parametrize("part", range(PARTS))
def test_every_power_cut_leaves_the_last_commit_or_the_one_in_flight(part: int) -> None:
    states, seed = 0, 1000 * part
    while states < STATES // PARTS:
        states += explore(seed)
        seed += 1


@pytest.mark.parametrize("plant", planted.BUGS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(plant: planted.Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises(Failure):
        for seed in planted.SEEDS:
            explore(seed, **planted.CONDITIONS.get(plant, {}))


def test_a_failure_is_shortened_to_a_test_that_fails_as_long_as_the_bug_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planted.the_newest_commit_is_not_proven(monkeypatch)
    with pytest.raises(Failure) as found:
        explore(1)
    case = shrink(found.value.case)
    assert len(case.steps) <= 2
    crashes = [crash for crash in (case.crash, case.second) if crash is not None]
    assert sum(len(crash.losses) for crash in crashes) == 1
    source = case.source("power_cut", str(found.value))
    scope: dict[str, object] = {}
    exec(source, scope)
    test = scope["test_power_cut"]
    assert callable(test)
    with pytest.raises(Exception, match=r"."):
        test()
    monkeypatch.undo()
    test()


def test_a_seed_gives_the_same_crash_states_every_time() -> None:
    program = """
from crashfuzzer.explore import explore
print(explore(12), explore(12))
"""
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=TOOLS,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
    first, second = said.pop().split()
    assert first == second
