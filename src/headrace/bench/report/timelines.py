"""Charts over the time of a run: percentiles, rates, what was in flight, errors, the server's word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby, pairwise

from attrs import frozen

from headrace.bench.report import words
from headrace.bench.report.svg import HALF, WIDE, Chart, Scale, Tell, linear, logarithmic
from headrace.contracts.load_report import LoadReport, Moment, ServerSeries

_MOST_POINTS = 240
_MOST_KINDS = 4
_COLOURS = ("out", "in", "ok", "left", "error")

MOST_SERVER_SERIES = 12


@frozen
class Line:
    """A line of a chart: a value for each stretch of the run, None where it is not known.

    Lines of one colour differ in their ``dash``, so that nothing is said by colour alone.
    """

    name: str
    values: tuple[float | None, ...]
    tell: Tell
    colour: str
    dash: int


@frozen
class Drawn:
    """A chart with its legend: each line's name, colour and dash."""

    chart: Chart
    legend: tuple[tuple[str, str, int], ...] = ()


def percentiles(report: LoadReport) -> Drawn | None:
    """TTFT, the time between pieces, and latency of what ended in each stretch."""
    moments = stretches(report.series)
    lines = [
        Line("latency p95", tuple(m.latency_p95 for m in moments), words.time_ms, "out", 0),
        Line("latency p50", tuple(m.latency_p50 for m in moments), words.time_ms, "out", 1),
        Line("TTFT p95", tuple(m.ttft_p95 for m in moments), words.time_ms, "in", 0),
        Line("TTFT p50", tuple(m.ttft_p50 for m in moments), words.time_ms, "in", 1),
        Line("ITL p50", tuple(m.itl_p50 for m in moments), words.time_ms, "ok", 2),
    ]
    return _over_time(
        report,
        moments,
        "Percentiles over time",
        "milliseconds (logarithmic)",
        lines,
        log=True,
        width=WIDE,
    )


def rates(report: LoadReport) -> Drawn | None:
    """Requests sent, answered and failed a second."""
    moments = stretches(report.series)
    lines = [
        Line("sent", _per_s(moments, lambda m: m.sent), _rate, "out", 0),
        Line("answered", _per_s(moments, lambda m: m.done), _rate, "in", 1),
    ]
    if any(m.failed for m in moments):
        lines.append(Line("failed", _per_s(moments, lambda m: m.failed), _rate, "error", 2))
    return _over_time(report, moments, "Throughput over time", "requests/s", lines)


def in_flight(report: LoadReport) -> Drawn | None:
    """Requests on their way, and those that waited for a place."""
    moments = stretches(report.series)
    lines = [Line("in flight", tuple(float(m.in_flight) for m in moments), words.count, "out", 0)]
    if any(m.waiting for m in moments):
        lines.append(
            Line(
                "waiting to be sent", tuple(float(m.waiting) for m in moments), words.count, "in", 1
            )
        )
    return _over_time(report, moments, "In flight over time", "requests", lines)


def tokens(report: LoadReport) -> Drawn | None:
    """Tokens out a second."""
    moments = stretches(report.series)
    if not any(m.output_tokens for m in moments):
        return None
    lines = [Line("output tokens", _per_s(moments, lambda m: m.output_tokens), _rate, "out", 0)]
    return _over_time(report, moments, "Tokens over time", "tokens/s", lines)


def errors(report: LoadReport) -> Drawn | None:
    """Failures a second: by kind where the single requests are known."""
    moments = stretches(report.series)
    if not any(m.failed for m in moments) and not report.errors:
        return None
    by_kind = _failures_by_kind(report, moments)
    lines = [
        Line(kind, values, _rate, _COLOURS[n], n)
        for n, (kind, values) in enumerate(by_kind.items())
    ] or [Line("failed", _per_s(moments, lambda m: m.failed), _rate, "error", 0)]
    return _over_time(report, moments, "Errors over time", "failed requests/s", lines)


def server(report: LoadReport) -> list[Drawn]:
    """What the server told of itself, a chart a metric, on the run's own time line."""
    drawn = []
    for series in report.server[:MOST_SERVER_SERIES]:
        points = list(_thinned(series))
        if not points:
            continue
        what = "a second" if series.kind == "counter" else ""
        title = " ".join(part for part in (series.name, series.labels, what) if part)
        values = [value for _, value in points]
        chart = Chart(
            title,
            f"From {words.number(min(values))} to {words.number(max(values))} over the run.",
            height=170,
        )
        x = linear(_span(report, points[-1][0]), *chart.x)
        y = linear(max(0.0, *values), *chart.y, low=min(0.0, *values))
        _frame(chart, report, x, y, "", _short)
        chart.line(((x.at(at), y.at(value)) for at, value in points), "out")
        chart.tips(_spots(x, [at for at, _ in points], [_short(value) for value in values]))
        drawn.append(Drawn(chart))
    return drawn


def stretches(series: Sequence[Moment], most: int = _MOST_POINTS) -> list[Moment]:
    """The time line in at most ``most`` stretches.

    Of those put together counts are added, and of percentiles and what is in flight the highest is
    kept: a short trouble in a long run stays visible.
    """
    if len(series) <= most:
        return list(series)
    each = -(-len(series) // most)
    return [_together(series[n : n + each]) for n in range(0, len(series), each)]


def _together(moments: Sequence[Moment]) -> Moment:
    def highest(name: str) -> float | None:
        return max((v for m in moments if (v := getattr(m, name)) is not None), default=None)

    return Moment(
        at=moments[0].at,
        seconds=moments[-1].at + moments[-1].seconds - moments[0].at,
        sent=sum(m.sent for m in moments),
        done=sum(m.done for m in moments),
        failed=sum(m.failed for m in moments),
        in_flight=max(m.in_flight for m in moments),
        waiting=max(m.waiting for m in moments),
        input_tokens=sum(m.input_tokens for m in moments),
        output_tokens=sum(m.output_tokens for m in moments),
        ttft_p50=highest("ttft_p50"),
        ttft_p95=highest("ttft_p95"),
        itl_p50=highest("itl_p50"),
        latency_p50=highest("latency_p50"),
        latency_p95=highest("latency_p95"),
        latency_max=highest("latency_max"),
    )


def _over_time(
    report: LoadReport,
    moments: Sequence[Moment],
    title: str,
    unit: str,
    lines: Sequence[Line],
    *,
    log: bool = False,
    width: int = HALF,
) -> Drawn | None:
    lines = [line for line in lines if any(v is not None for v in line.values)]
    known = [v for line in lines for v in line.values if v is not None]
    if not known:
        return None
    told = "; ".join(
        f"{line.name} from {line.tell(min(mine))} to {line.tell(max(mine))}"
        for line in lines
        if (mine := [v for v in line.values if v is not None])
    )
    chart = Chart(title, f"{told}.", width=width)
    x = linear(_span(report, 0.0), *chart.x)
    log = log and max(known) > 0
    positive = [v for v in known if v > 0]
    y = logarithmic(min(positive), max(positive), *chart.y) if log else linear(max(known), *chart.y)
    _frame(chart, report, x, y, unit, _short)
    middles = [m.at + m.seconds / 2 for m in moments]
    for line in lines:
        chart.line(
            (
                None if v is None or (log and v <= 0) else (x.at(at), y.at(v))
                for at, v in zip(middles, line.values, strict=True)
            ),
            line.colour,
            line.dash,
        )
    said = [
        ", ".join(
            f"{line.name} {words.NOTHING if (v := line.values[n]) is None else line.tell(v)}"
            for line in lines
        )
        for n in range(len(moments))
    ]
    chart.tips(_spots(x, middles, said))
    return Drawn(chart, tuple((line.name, line.colour, line.dash) for line in lines))


def _frame(chart: Chart, report: LoadReport, x: Scale, y: Scale, unit: str, tell: Tell) -> None:
    plan = report.plan
    if plan.warmup_s:
        chart.shade(x.at(0.0), x.at(plan.warmup_s), "warm-up, left out of the figures")
    if plan.cooldown_s and plan.duration_s is not None:
        begin = x.at(plan.duration_s - plan.cooldown_s)
        chart.shade(begin, x.at(plan.duration_s), "cool-down, left out of the figures")
    chart.axis_y(y, tell, unit)
    chart.axis_x(x, lambda s: f"{s:,.10g}", "seconds since the beginning")


def _spots(
    x: Scale, at: Sequence[float], said: Sequence[str]
) -> Iterable[tuple[float, float, str]]:
    places = [x.at(t) for t in at]
    edges = [
        x.begin,
        *((a + b) / 2 for a, b in pairwise(places)),
        x.end,
    ]
    for left, right, t, telling in zip(edges, edges[1:], at, said, strict=False):
        yield left, right - left, f"{words.seconds(t)}: {telling}"


def _span(report: LoadReport, least: float) -> float:
    return max(least, max((m.at + m.seconds for m in report.series), default=0.0))


def _per_s(moments: Sequence[Moment], of: Callable[[Moment], int]) -> tuple[float | None, ...]:
    return tuple(of(m) / m.seconds if m.seconds > 0 else None for m in moments)


def _rate(value: float) -> str:
    return f"{words.number(value)}/s"


def _short(value: float) -> str:
    """A value on an axis: no more letters than there is room for."""
    size = abs(value)
    for least, by, unit in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if size >= least:
            return f"{value / by:.4g}{unit}"
    return f"{value:.4g}"


def _failures_by_kind(
    report: LoadReport, moments: Sequence[Moment]
) -> dict[str, tuple[float | None, ...]]:
    columns = report.requests
    if columns is None or not moments:
        return {}
    # A failed request has no latency, so it is told when it was sent.
    failures = [
        (at, kind)
        for at, kind in zip(columns.sent_s, columns.error, strict=False)
        if kind and at is not None
    ]
    kinds = Counter(kind for _, kind in failures).most_common()
    shown = [kind for kind, _ in kinds[:_MOST_KINDS]]
    if len(kinds) > _MOST_KINDS:
        shown.append("others")
    counts = {kind: [0] * len(moments) for kind in shown}
    ends = [m.at + m.seconds for m in moments]
    for at, kind in sorted(failures):
        n = next((i for i, end in enumerate(ends) if at < end), len(ends) - 1)
        counts[kind if kind in counts else "others"][n] += 1
    return {
        words.safe(kind, 40): tuple(
            n / m.seconds if m.seconds > 0 else None for n, m in zip(mine, moments, strict=True)
        )
        for kind, mine in counts.items()
    }


def _thinned(series: ServerSeries) -> Iterable[tuple[float, float]]:
    """Its points, of which the highest of each group stays where they are too many."""
    points = list(zip(series.at, series.values, strict=False))
    each = -(-len(points) // _MOST_POINTS) or 1
    for _, group in groupby(enumerate(points), key=lambda item: item[0] // each):
        yield max((point for _, point in group), key=lambda point: point[1])
