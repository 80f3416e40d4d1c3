"""What came out: records, their table for people, their JSON for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from benchmark.measure import Sample

OWN = "cowfs"
WIDTH_WHEN_PIPED = 230
DECIMAL_PREFIXES = (("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0))
TIMES = (("", 1.0), ("m", 1e-3), ("µ", 1e-6))


@dataclass(frozen=True)
class Goal:
    """What a workload owes: so many times the rate of the peer; None: it is only compared."""

    peer: str
    at_least: float | None = None


@dataclass(frozen=True)
class Verdict:
    """How one goal came out: the ratio round by round. `met` is None where nothing was promised."""

    peer: str
    ratio: Sample
    at_least: float | None

    @property
    def met(self) -> bool | None:
        return None if self.at_least is None else self.ratio.median >= self.at_least


@dataclass(frozen=True)
class Race:
    """One workload on several engines, judged by cowfs's rate over that of each goal's peer.

    One operation is shown as a time, several as a rate.
    """

    workload: str
    operations: int
    seconds: dict[str, Sample]
    goals: tuple[Goal, ...] = ()
    unit: str = ""

    @property
    def verdicts(self) -> list[Verdict]:
        """What came of each goal whose peer ran."""
        if OWN not in self.seconds:
            return []
        return [
            Verdict(goal.peer, self.seconds[goal.peer].over(self.seconds[OWN]), goal.at_least)
            for goal in self.goals
            if goal.peer in self.seconds
        ]

    def speed(self, engine: str) -> str:
        """Operations a second: 1.27 M/s (1.21–1.30); or a time: 5.2 ms (5.1–5.4)."""
        spent = self.seconds[engine]
        if self.operations == 1:
            return scaled(spent, TIMES, "s")
        rates = Sample(tuple(self.operations / seconds for seconds in spent.values))
        return scaled(rates, DECIMAL_PREFIXES, f"{self.unit}/s")


@dataclass(frozen=True)
class Figure:
    """One measured property, judged by an upper or a lower limit."""

    what: str
    sample: Sample
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def met(self) -> bool | None:
        if self.at_most is None and self.at_least is None:
            return None
        above = self.at_least is None or self.sample.median >= self.at_least
        return above and (self.at_most is None or self.sample.median <= self.at_most)

    @property
    def limit(self) -> str:
        if self.at_least is not None:
            return f"≥ {self.at_least:g} {self.unit}"
        return "" if self.at_most is None else f"≤ {self.at_most:g} {self.unit}"


@dataclass(frozen=True)
class Curve:
    """How a figure changes with a size: one point for each size that was measured."""

    chart: str
    line: str
    across: str
    """What the sizes are of, with the unit."""
    up: str
    """What was measured, with the unit."""
    points: tuple[tuple[float, float], ...]


@dataclass
class Report:
    """All that one run of a suite has to say."""

    title: str
    machine: list[str]
    races: list[Race] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def write_json(self, path: Path) -> None:
        """Every figure of every round, and what came of each goal."""
        content = asdict(self)
        for race, written in zip(self.races, content["races"], strict=True):
            written["verdicts"] = [
                asdict(verdict) | {"met": verdict.met} for verdict in race.verdicts
            ]
        for figure, written in zip(self.figures, content["figures"], strict=True):
            written["met"] = figure.met
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def print(self) -> None:
        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = WIDTH_WHEN_PIPED
        console.print(self.title, style="bold")
        for line in self.machine:
            console.print(line, soft_wrap=True)
        tables = (_race_table(self.races), _figure_table(self.figures), *_curves(self.curves))
        for table in tables:
            if table.row_count:
                console.print()
                console.print(table)
        console.print()
        for note in self.notes:
            console.print(f"- {note}")


def three_digits(value: float) -> str:
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{decimals}f}"


def spread(sample: Sample, unit: str = "") -> str:
    """The median with its unit, and from where to where when there were several rounds."""
    text = three_digits(sample.median) + unit
    if len(sample.values) > 1:
        text += f" ({three_digits(sample.low)}–{three_digits(sample.high)})"
    return text


def scaled(sample: Sample, prefixes: Sequence[tuple[str, float]], unit: str) -> str:
    """The spread, in the largest of the units that the median reaches."""
    prefix, size = next((pair for pair in prefixes if sample.median >= pair[1]), prefixes[-1])
    return spread(Sample(tuple(value / size for value in sample.values)), f" {prefix}{unit}")


def _verdict(met: bool | None) -> str:
    return {True: "[green]met[/]", False: "[bold red]missed[/]", None: ""}[met]


def _race_table(races: Sequence[Race]) -> Table:
    engines = list(dict.fromkeys(engine for race in races for engine in race.seconds))
    table = Table("workload", *engines, "cowfs to", "at least", "", box=box.MARKDOWN)
    for race in races:
        speeds = [race.speed(engine) if engine in race.seconds else "" for engine in engines]
        title, verdicts = race.workload, race.verdicts
        if not verdicts:
            table.add_row(title, *speeds)
        for verdict in verdicts:
            table.add_row(
                title,
                *speeds,
                f"{verdict.peer}: {spread(verdict.ratio)}",
                "" if verdict.at_least is None else f"{verdict.at_least:g}",
                _verdict(verdict.met),
            )
            title, speeds = "", [""] * len(engines)
    return table


def _figure_table(figures: Sequence[Figure]) -> Table:
    table = Table("figure", "measured", "goal", "", box=box.MARKDOWN)
    for figure in figures:
        table.add_row(
            figure.what,
            spread(figure.sample, f" {figure.unit}"),
            figure.limit,
            _verdict(figure.met),
        )
    return table


def _curves(curves: Sequence[Curve]) -> list[Table]:
    """A table a chart: a line for each size, a column for each curve."""
    tables = []
    for chart in dict.fromkeys(curve.chart for curve in curves):
        lines = [curve for curve in curves if curve.chart == chart]
        sizes = sorted({size for curve in lines for size, _ in curve.points})
        table = Table(
            f"{chart}: {lines[0].across}",
            *(f"{curve.line}, {curve.up}" for curve in lines),
            box=box.MARKDOWN,
        )
        for size in sizes:
            measured = [dict(curve.points).get(size) for curve in lines]
            table.add_row(
                f"{size:,g}" if size < 1e4 else f"{size:,.0f}",
                *("" if value is None else three_digits(value) for value in measured),
            )
        tables.append(table)
    return tables
