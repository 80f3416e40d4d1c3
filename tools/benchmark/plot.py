"""Pictures of what suites wrote with --json: growth by size, and ratios beside their goals.

The same JSON gives the same bytes, so that a picture in docs/ changes only with its figures.
"""

import json
import re
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

WIDTH = 7.0
"""Inches, as all sizes here."""
CURVES_HEIGHT = 3.6
BAR_HEIGHT = 0.32
MARGIN = 1.0
MET, MISSED = "#2a7f62", "#b3423a"
MARKERS = "osd^v<>*PX"


def draw(reports: Iterable[Path], directory: Path) -> list[Path]:
    """One SVG for each chart of curves, and for the ratios of each report; what was written."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    with mpl.rc_context(
        {
            "svg.hashsalt": "cowfs",
            "svg.fonttype": "none",
            "font.size": 8,
            "axes.grid": True,
            "grid.alpha": 0.3,
        }
    ):
        for path in reports:
            report = json.loads(path.read_text())
            for chart, curves in groupby(report["curves"], key=lambda curve: curve["chart"]):
                written.append(save(draw_curves(chart, list(curves)), directory / slug(chart)))
            judged = [
                (race["workload"], verdict)
                for race in report["races"]
                for verdict in race["verdicts"]
                if verdict["at_least"] is not None
            ]
            if judged:
                suite = report["title"].partition(",")[0]
                written.append(save(draw_ratios(judged), directory / f"{suite}-ratios"))
    return written


def draw_curves(chart: str, curves: list[dict[str, Any]]) -> Figure:
    """Lines over sizes; both axes are logarithmic, so that what does not grow is level."""
    figure = Figure(figsize=(WIDTH, CURVES_HEIGHT), layout="constrained")
    axes = figure.subplots()
    for marker, curve in zip(MARKERS * len(curves), curves, strict=False):
        points = sorted(curve["points"])
        sizes, values = zip(*points, strict=True)
        axes.plot(sizes, values, marker=marker, markersize=4, label=curve["line"])
    axes.set(xscale="log", yscale="log", xlabel=curves[0]["across"], ylabel=curves[0]["up"])
    axes.set_title(chart)
    plain_numbers(axes.xaxis)
    plain_numbers(axes.yaxis)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def draw_ratios(judged: list[tuple[str, dict[str, Any]]]) -> Figure:
    """A bar for each goal: the ratio, its spread, and a mark where the goal is."""
    figure = Figure(figsize=(WIDTH, MARGIN + BAR_HEIGHT * len(judged)), layout="constrained")
    axes = figure.subplots()
    for at, (_, verdict) in enumerate(judged):
        values = verdict["ratio"]["values"]
        axes.barh(at, median(values), color=MET if verdict["met"] else MISSED, height=0.6)
        axes.plot([min(values), max(values)], [at, at], color="black", linewidth=1)
        axes.plot(verdict["at_least"], at, marker="|", color="black", markersize=12)
    axes.set_yticks(
        range(len(judged)), [f"{workload} : {verdict['peer']}" for workload, verdict in judged]
    )
    axes.invert_yaxis()
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.set(xscale="log", xlabel="times as fast as the peer; | is the goal")
    plain_numbers(axes.xaxis)
    return figure


def plain_numbers(axis: Axis) -> None:
    """Ticks of a logarithmic axis at 1, 2, 5, 10 …, as people write them."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def save(figure: Figure, stem: Path) -> Path:
    path = stem.with_name(stem.name + ".svg")
    figure.savefig(path, metadata={"Date": None})
    return path


def slug(text: str) -> str:
    """A file name for a title: what is in brackets, and figures, are left out."""
    words = re.findall(r"[a-z]+", re.sub(r"\(.*?\)", "", text.lower()))
    return "-".join(words)
