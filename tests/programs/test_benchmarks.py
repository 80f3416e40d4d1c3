"""Every suite of `tools/bench` runs to its end, at toy sizes, and reports what it promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark import blocks, filetrees, guard, kernels, kv, maps, pause, trees, volumes
from benchmark.measure import Sample
from benchmark.report import Figure, Goal, Race

ROOT = Path(__file__).parents[2]

Bench = Callable[..., dict[str, Any]]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Run a suite as `tools/bench` does; what it wrote as JSON."""
    stores = tmp_path / "stores"
    stores.mkdir()

    def run(*arguments: str) -> dict[str, Any]:
        written = tmp_path / "report.json"
        done = subprocess.run(
            [sys.executable, "-m", "benchmark", *arguments, "--dir", stores, "--json", written],
            env=os.environ | {"PYTHONPATH": f"{ROOT / 'tools'}:{ROOT}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert os.listdir(stores) == []
        report: dict[str, Any] = json.loads(written.read_text())
        return report

    return run


def engines_of(race: dict[str, Any]) -> set[str]:
    return set(race["seconds"])


@pytest.mark.slow
def test_kv_runs_every_workload_on_every_engine(bench: Bench) -> None:
    report = bench("kv", "--items", "2000", "--rounds", "1")
    assert [race["workload"] for race in report["races"]] == [each.title for each in kv.WORKLOADS]
    for race in report["races"]:
        assert engines_of(race) == {"cowfs", "lmdb", "sqlite", "rocksdb", "raw"}
    judged = {figure["what"] for figure in report["figures"] if figure["met"] is not None}
    assert {"allocated : live", "cowfs : LMDB", "16 threads : one"} <= judged


def test_cp_runs(bench: Bench) -> None:
    report = bench("cp", "--mib", "1", "--rounds", "1")
    assert all(engines_of(race) == {"cowfs", "cp"} for race in report["races"])


def test_trees_runs_on_what_this_machine_has(bench: Bench) -> None:
    report = bench("trees", "--files", "300", "--rounds", "1")
    classes = [filetrees.file_trees_class(name) for name in filetrees.NAMES]
    there = {each.name for each in classes if each.unavailable() is None}
    assert {"cowfs", "host"} <= there
    assert engines_of(report["races"][0]) == there
    for each in classes:
        if each.unavailable() is not None:
            assert any(note.startswith(f"{each.name} is left out") for note in report["notes"])
    assert len(report["races"]) == len(trees.ROWS)
    assert report["figures"][0]["at_most"] == trees.BLOCKED_AT_MOST


def test_blocks_runs(bench: Bench) -> None:
    report = bench("blocks", "--mib", "2", "--writes", "20", "--rounds", "1")
    there = {name for name in volumes.NAMES if volumes.volume_class(name).unavailable() is None}
    assert [engines_of(race) for race in report["races"]] == [there] * len(blocks.rows(1, 1))


def test_pause_runs(bench: Bench) -> None:
    report = bench("pause", "--mib", "1", "--mib", "2", "--rounds", "1")
    there = [name for name in maps.NAMES if maps.map_class(name).unavailable() is None]
    assert [curve["line"] for curve in report["curves"]] == there
    predicted = [each for each in report["figures"] if each["what"].endswith("disk : predicted")]
    assert len(predicted) == 2
    assert all(each["at_most"] == pause.PREDICTED for each in predicted)


def test_scale_draws_a_curve_for_each_operation(bench: Bench, tmp_path: Path) -> None:
    sizes = ["--keys=300", "--keys=600", "--files=100", "--files=200", "--snapshots=1"]
    ages = ["--snapshots=4", "--cached=2000", "--full-mib=4", "--age=1", "--age=2"]
    report = bench("scale", *sizes, *ages)
    charts = {curve["chart"] for curve in report["curves"]}
    assert len(charts) == 5
    assert all(len(curve["points"]) >= 2 for curve in report["curves"])
    assert {"snapshot, 600 : 300 keys", "open, 200 : 100 files"} <= {
        figure["what"] for figure in report["figures"]
    }


def test_pictures_are_the_same_for_the_same_figures(bench: Bench, tmp_path: Path) -> None:
    from benchmark import plot

    sizes = ("--mib", "1", "--mib", "2", "--rounds", "1")
    report = tmp_path / "report.json"
    bench("pause", *sizes)
    content = json.loads(report.read_text())
    content["races"] = [
        {
            "workload": "gets",
            "verdicts": [{"peer": "lmdb", "ratio": {"values": [1.5]}, "at_least": 1, "met": True}],
        }
    ]
    report.write_text(json.dumps(content))
    first = plot.draw([report], tmp_path / "first")
    second = plot.draw([report], tmp_path / "second")
    assert {path.name for path in first} == {
        "longest-pause-of-a-writer-a-snapshot-taken-and-all-keys-rewritten.svg",
        "pause-ratios.svg",
    }
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


# --- what is judged -----------------------------------------------------------------------------


def race(own: float, peer: float, at_least: float | None) -> Race:
    seconds = {"cowfs": Sample((own, own)), "lmdb": Sample((peer, peer))}
    return Race("gets", 10, seconds, (Goal("lmdb", at_least), Goal("absent", 1)))


def test_a_goal_is_judged_by_the_ratio_to_its_peer() -> None:
    (met,) = race(own=1, peer=2, at_least=2).verdicts
    assert met.ratio.median == 2
    assert met.met is True
    (missed,) = race(own=1, peer=2, at_least=2.1).verdicts
    assert missed.met is False
    (only_compared,) = race(own=1, peer=2, at_least=None).verdicts
    assert only_compared.met is None


def test_a_figure_is_judged_by_its_limits() -> None:
    sample = Sample((1.0, 2.0, 3.0))
    assert Figure("f", sample, "ms").met is None
    assert Figure("f", sample, "ms", at_most=2).met is True
    assert Figure("f", sample, "ms", at_most=1.9).met is False
    assert Figure("f", sample, "ms", at_least=2).met is True
    assert Figure("f", sample, "ms", at_least=2.1).met is False


# --- the guard ----------------------------------------------------------------------------------


def test_every_kernel_does_its_work(tmp_path: Path) -> None:
    called: list[object] = []

    def call(kernel: Callable[[], object]) -> None:
        called.append(kernel)
        kernel()

    kernels.run_all(tmp_path, call)
    assert len(called) == len(kernels.KERNELS)


def test_the_guard_tells_slower_from_faster_and_new() -> None:
    before = {"get": 1000.0, "put": 1000.0, "scan": 1000.0}
    now = {"get": 1090.0, "put": 910.0, "scan": 1010.0, "new": 5.0}
    found = {each.kernel: each for each in guard.compare(now, {"here": before}, "here")}
    assert [name for name, each in found.items() if each.slower] == ["get"]
    assert [name for name, each in found.items() if each.faster] == ["put"]
    assert found["new"].change is None


def test_the_guard_refuses_to_compare_with_another_environment() -> None:
    with pytest.raises(guard.GuardError, match="no baseline for there"):
        guard.compare({}, {"here": {}}, "there")


def test_the_baseline_has_every_kernel() -> None:
    titles = {title for title, _, _ in kernels.KERNELS}
    for counts in guard.read_baselines().values():
        assert counts.keys() == titles
