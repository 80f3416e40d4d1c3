"""What came out: records, their table for people, their JSON for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from benchmark.measure import Sample

WIDTH_WHEN_PIPED = 150
DECIMAL_PREFIXES = (("G", 1e9), ("M", 1e6), ("k", 1e3))


@dataclass(frozen=True)
class Race:
    """One workload on several engines, judged by cowfs's rate over that of the baseline."""

    workload: str
    operations: int
    seconds: dict[str, Sample]
    baseline: str
    at_least: float | None = None
    unit: str = ""

    @property
    def ratio(self) -> Sample | None:
        if "cowfs" in self.seconds and self.baseline in self.seconds:
            return self.seconds[self.baseline].over(self.seconds["cowfs"])
        return None

    @property
    def met(self) -> bool | None:
        ratio = self.ratio
        if ratio is None or self.at_least is None:
            return None
        return ratio.median >= self.at_least

    def rate(self, engine: str) -> str:
        """Operations a second: 1.27 M/s (1.21 to 1.30)."""
        rates = Sample(tuple(self.operations / spent for spent in self.seconds[engine].values))
        prefix, size = next(
            (prefix for prefix in DECIMAL_PREFIXES if rates.median >= prefix[1]), ("", 1)
        )
        return spread(
            Sample(tuple(rate / size for rate in rates.values)), f" {prefix}{self.unit}/s"
        )


@dataclass(frozen=True)
class Figure:
    """One measured property of cowfs alone, judged by an upper limit."""

    what: str
    sample: Sample
    unit: str
    at_most: float | None = None

    @property
    def met(self) -> bool | None:
        return None if self.at_most is None else self.sample.median <= self.at_most


@dataclass
class Report:
    """All that one run of a suite has to say."""

    title: str
    machine: list[str]
    races: list[Race] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def write_json(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    def print(self) -> None:
        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = WIDTH_WHEN_PIPED
        console.print(self.title, style="bold")
        for line in self.machine:
            console.print(line)
        for table in (_race_table(self.races), _figure_table(self.figures)):
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


def _verdict(met: bool | None) -> str:
    return {True: "[green]met[/]", False: "[bold red]missed[/]", None: ""}[met]


def _race_table(races: Sequence[Race]) -> Table:
    engines = list(dict.fromkeys(engine for race in races for engine in race.seconds))
    baselines = dict.fromkeys(race.baseline for race in races)
    headings = ["workload", *engines, f"cowfs : {', '.join(baselines)}", "at least", ""]
    table = Table(*headings, box=box.MARKDOWN)
    for race in races:
        table.add_row(
            race.workload,
            *(race.rate(engine) if engine in race.seconds else "" for engine in engines),
            spread(race.ratio) if race.ratio else "",
            "" if race.at_least is None else f"{race.at_least:g}",
            _verdict(race.met),
        )
    return table


def _figure_table(figures: Sequence[Figure]) -> Table:
    table = Table("cowfs alone", "measured", "at most", "", box=box.MARKDOWN)
    for figure in figures:
        table.add_row(
            figure.what,
            spread(figure.sample, f" {figure.unit}"),
            "" if figure.at_most is None else f"{figure.at_most:g} {figure.unit}",
            _verdict(figure.met),
        )
    return table
