"""Hostile images: whatever the bytes are, there is the right data or a clear error, in bounded
time and memory. A sample of what `make flip`, `make forge` and `make fuzz` do at length.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import cowfs
from hostile import bounds, damage, flips, forge, parse
from hostile.damage import Damage
from hostile.images import NAMES, make, memory_device
from hostile.judge import Wrong, judge
from hostile.seal import Forgery

JOBS = 1  # pytest-xdist has the other core


@pytest.mark.parametrize("part", range(4))
def test_a_flipped_byte_is_found_out_or_makes_no_difference(part: int) -> None:
    cases = list(flips.stretches())[part::4]
    chosen = random.Random(part).sample(cases, 20)
    outcomes = list(bounds.run(flips.flip, iter(chosen), JOBS))
    assert [outcome.problem for outcome in outcomes if outcome.problem] == []
    assert sum(noticed for _, noticed in (o.result for o in outcomes if o.result)) > 0


@pytest.mark.parametrize("part", range(5))
def test_forged_images_with_right_checksums_are_used_safely(part: int) -> None:
    seeds = range(1000 * part, 1000 * part + 60)
    outcomes = list(bounds.run(forge.attack, iter(seeds), JOBS))
    problems = [f"seed {o.case}: {o.problem}" for o in outcomes if o.problem]
    assert problems == []
    assert {o.result[1] for o in outcomes if o.result} == {"refused", "found", "sound"}


@pytest.mark.parametrize("kind", damage.KINDS, ids=lambda kind: kind.__name__)
def test_each_kind_of_damage_is_done(kind: Damage, tmp_path: Path) -> None:
    """None of them misses its aim: of ten images, some are no longer sound."""
    verdicts = set()
    for seed in range(10):
        forgery = Forgery(make("plain").data)
        kind(forgery, random.Random(seed))
        image = forgery.seal()
        assert image != make("plain").data
        path = tmp_path / f"{seed}.cow"
        path.write_bytes(image)
        verdicts.add(judge(path, cut=True).kind)
    assert verdicts != {"sound"} or kind is damage.extent_bytes


@pytest.mark.parametrize("name", NAMES)
def test_sealing_without_damage_changes_nothing_that_is_found(name: str, tmp_path: Path) -> None:
    """Checksums are computed as cowfs does: otherwise all damage would be found for that reason."""
    sample = make(name)
    sealed = Forgery(sample.data).seal()
    assert flips.find(memory_device(sealed)) == sample.allowed[-1]
    path = tmp_path / "sealed.cow"
    path.write_bytes(sealed)
    assert judge(path).kind == "sound"


def test_parsers_take_any_bytes_apart_or_refuse_them() -> None:
    chance = random.Random(1)
    for data in parse.seeds():
        parse.try_bytes(data)
        for _ in range(40):
            change = chance.choice((damage.scribble, damage.scribble, damage.resize))
            parse.try_bytes(change(data, chance))


# --- the judge is judged ------------------------------------------------------------------------


def _wrong_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cowfs.KV, "__len__", lambda self: 7)


def _escape(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, *_: object) -> None:
        raise IndexError("planted")

    monkeypatch.setattr(cowfs.FS, "lstat", fail)


def _blind_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cowfs.Store, "check", lambda self: cowfs.Report())


@pytest.mark.parametrize("plant", [_wrong_keys, _escape, _blind_check])
def test_the_judge_finds_a_planted_fault(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        forge.sample(name)
    plant(monkeypatch)
    with pytest.raises(Wrong):
        for seed in range(40):
            forge.attack(seed)


def test_a_process_that_takes_too_much_is_ended_and_told_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bounds, "SECONDS", 1)
    outcomes = {
        o.case: o.problem for o in bounds.run(_misbehave, iter(["", "loop", "eat", "die"]), 1)
    }
    assert outcomes[""] == ""
    assert "more than 1 s" in outcomes["loop"]
    assert "MemoryError" in outcomes["eat"]
    assert "SIGKILL" in outcomes["die"]


def _misbehave(how: str) -> str:
    while how == "loop":
        pass
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return how if how != "eat" else str(len(bytearray(2 * bounds.MEMORY)))
