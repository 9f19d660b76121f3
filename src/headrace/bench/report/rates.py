"""Charts that lay figures side by side: throughput against latency, and scenario beside scenario."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from attrs import frozen

from headrace.bench.report import words
from headrace.bench.report.svg import WIDE, Chart, linear, logarithmic
from headrace.bench.report.timelines import Drawn
from headrace.contracts.load_find import Found
from headrace.contracts.load_report import LoadReport


@frozen(kw_only=True)
class RatePoint:
    """What came at one rate: requests a second, latencies in ms, whether the promises were kept."""

    rate: float
    p50: float | None
    p99: float | None
    kept: bool | None = None


def points_of(
    found: Found, metric: Literal["latency", "ttft", "tpot"] = "latency"
) -> list[RatePoint]:
    """A point for each rate that a search tried, but for those that the generator could not send."""
    points = []
    for trial in found.trials:
        d = getattr(trial.figures, metric)
        if trial.outcome != "generator" and d is not None:
            points.append(
                RatePoint(
                    rate=trial.rate,
                    p50=d.percentiles.get("p50"),
                    p99=d.percentiles.get("p99"),
                    kept={"kept": True, "broken": False}.get(trial.outcome),
                )
            )
    return points


def against_rate(points: Sequence[RatePoint], metric: str = "latency") -> Drawn | None:
    """The metric's p50 and p99 at each rate; a rate that broke a promise is a hollow ring."""
    ordered = sorted(points, key=lambda p: p.rate)
    known = [v for p in ordered for v in (p.p50, p.p99) if v is not None and v > 0]
    if len(ordered) < 2 or not known:
        return None
    kept = [p.rate for p in ordered if p.kept]
    held = (
        f"The highest rate that kept every promise is {words.number(max(kept))}/s." if kept else ""
    )
    told = "; ".join(
        f"{words.number(p.rate)}/s: p50 {words.time_ms(p.p50)}, p99 {words.time_ms(p.p99)}"
        f"{_kept_words(p)}"
        for p in ordered
    )
    chart = Chart(
        f"Throughput against {metric}", f"{held} {told}".strip(), height=300, width=WIDE, marks=1
    )
    x = linear(ordered[-1].rate * 1.04, *chart.x)
    y = logarithmic(min(known), max(known), *chart.y)
    chart.axis_x(x, lambda v: f"{v:,.10g}", "requests/s")
    chart.axis_y(y, lambda v: f"{v:,.10g}", f"{metric}, ms (logarithmic)")
    if kept:
        chart.mark_x(x.at(max(kept)), f"{words.number(max(kept))}/s held", 0, "ok")
    for n, (name, colour) in enumerate((("p50", "out"), ("p99", "in"))):
        mine = [(p, v) for p in ordered if (v := getattr(p, name)) is not None and v > 0]
        chart.line(((x.at(p.rate), y.at(v)) for p, v in mine), colour, n)
        for p, v in mine:
            said = f"{words.number(p.rate)}/s: {name} {words.time_ms(v)}{_kept_words(p)}"
            chart.dot(x.at(p.rate), y.at(v), colour, said, hollow=p.kept is False)
    return Drawn(chart, (("p50", "out", 0), ("p99", "in", 1)))


def _kept_words(p: RatePoint) -> str:
    return {True: ", promises kept", False: ", a promise broken", None: ""}[p.kept]


def scenarios(report: LoadReport) -> Chart | None:
    """A row a scenario: from p50 over p95 to p99 of its latency, and of its TTFT."""
    rows = []
    for name, figures in report.scenarios.items():
        for metric, d, colour in (
            ("latency", figures.latency, "out"),
            ("TTFT", figures.ttft, "in"),
        ):
            told = {} if d is None else d.percentiles
            known = {
                p: v for p in ("p50", "p95", "p99") if (v := told.get(p)) is not None and v > 0
            }
            if known:
                rows.append((f"{words.safe(name, 14)} {metric}", known, colour))
    values = [v for _, known, _ in rows for v in known.values()]
    if len(report.scenarios) < 2 or not rows:
        return None
    told_all = "; ".join(
        f"{name} " + ", ".join(f"{p} {words.time_ms(v)}" for p, v in known.items())
        for name, known, _ in rows
    )
    chart = Chart(
        "Times of each scenario", told_all + ".", height=62 + 26 * len(rows), left=150, width=WIDE
    )
    x = logarithmic(min(values), max(values), *chart.x)
    chart.axis_x(x, lambda v: f"{v:,.10g}", "milliseconds (logarithmic): p50, p95, p99")
    for n, (name, known, colour) in enumerate(rows):
        y = chart.y[1] + 18 + 26 * n
        chart.words(chart.x[0] - 8, y + 4, name, "end")
        chart.line(((x.at(v), y) for v in known.values()), colour)
        for p, v in known.items():
            said = f"{name} {p}: {words.time_ms(v)}"
            chart.dot(x.at(v), y, colour, said, hollow=p != "p50")
    return chart
