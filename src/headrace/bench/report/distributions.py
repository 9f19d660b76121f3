"""Charts of how often each time came: histograms, cumulative shares, and the heat over time."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from headrace.bench.report import words
from headrace.bench.report.svg import WIDE, Chart, Scale, linear, logarithmic
from headrace.contracts.load_report import Columns, Distribution, LoadReport
from headrace.numbers.histogram import LogHistogram

_BINS = 60
_HEAT_COLUMNS = 120
_HEAT_SHADES = 5


def distribution(title: str, d: Distribution | None, exact: Sequence[float | None]) -> Chart | None:
    """Bars of how many came, and the share that was at most so long; None where there are none."""
    values = _values(d, exact)
    if d is None or not values:
        return None
    total = sum(n for _, n in values)
    least, most = values[0][0], values[-1][0]
    told = {p: d.percentiles.get(p) for p in words.SHOWN}
    chart = Chart(
        title,
        _said(d, told, total, most),
        height=290,
        right=40,
        marks=sum(v is not None for v in told.values()),
    )
    # A tail that is far longer than what is usual would press the rest against the edge.
    if most > 12 * max(least, 1e-6):
        x = logarithmic(max(least, most / 1e5), most, *chart.x)
    else:
        x = linear(most, *chart.x, low=min(least, most * 0.999))
    counts = _binned(values, x)
    y = linear(max(counts), *chart.y)
    chart.axis_x(x, _time, f"{title}, {d.unit}" + (" (logarithmic)" if x.log else ""))
    chart.axis_y(y, words.count, "requests" if exact else "gaps")
    wide = (chart.x[1] - chart.x[0]) / _BINS
    lefts = [chart.x[0] + n * wide for n in range(_BINS)]
    chart.bars(
        (
            (left + 0.5, y.at(n), wide - 1, chart.y[0] - y.at(n))
            for left, n in zip(lefts, counts, strict=True)
        ),
        "out-soft",
    )
    reached = list(accumulate(counts))
    share = linear(1.0, *chart.y)
    chart.line(
        ((left + wide, share.at(n / total)) for left, n in zip(lefts, reached, strict=True)), "ink"
    )
    chart.axis_right(share, lambda part: f"{part:.0%}", (0.0, 0.25, 0.5, 0.75, 1.0))
    known = [(name, value) for name, value in told.items() if value is not None]
    for row, (name, value) in enumerate(known):
        chart.mark_x(x.at(value), f"{name} {words.time_ms(value)}", row, "in")
    chart.tips(
        (left, wide, _bin_words(x, left, wide, n, upto / total))
        for left, n, upto in zip(lefts, counts, reached, strict=True)
    )
    return chart


def _values(d: Distribution | None, exact: Sequence[float | None]) -> list[tuple[float, int]]:
    if known := sorted(value for value in exact if value is not None):
        return [(value, 1) for value in known]
    if d is None or not d.histogram:
        return []
    return list(LogHistogram.from_plain(d.histogram).values())


def _binned(values: Sequence[tuple[float, int]], x: Scale) -> list[int]:
    counts = [0] * _BINS
    for value, n in values:
        part = (x.at(value) - x.begin) / (x.end - x.begin)
        counts[min(_BINS - 1, int(part * _BINS))] += n
    return counts


def _bin_words(x: Scale, left: float, wide: float, n: int, reached: float) -> str:
    low, high = (_value(x, edge) for edge in (left, left + wide))
    return (
        f"{words.time_ms(low)} to {words.time_ms(high)}: {words.count(n)}; "
        f"{words.share(reached)} are at most so long"
    )


def _value(x: Scale, coordinate: float) -> float:
    part = (coordinate - x.begin) / (x.end - x.begin)
    return float(x.low * (x.high / x.low) ** part) if x.log else x.low + (x.high - x.low) * part


def _said(d: Distribution, told: dict[str, float | None], total: int, most: float) -> str:
    known = ", ".join(f"{name} {words.time_ms(v)}" for name, v in told.items() if v is not None)
    unknown = ", ".join(f"{name} {words.missing(name, d)}" for name, v in told.items() if v is None)
    said = f"{words.count(total)} values, at most {words.time_ms(most)}"
    return f"{said}. {known}." + (f" Not told: {unknown}." if unknown else "")


def _time(ms: float) -> str:
    if ms >= 10_000:
        return f"{ms / 1000:,.10g} s"
    return f"{ms:,.10g}" if ms >= 0.001 or ms == 0 else f"{ms:.0e}"


def heat(report: LoadReport) -> Chart | None:
    """Latency against time: the darker, the more requests ended there and then."""
    cells, bounds, span = _heat_cells(report)
    used = [row for counts in cells for row, n in enumerate(counts) if n]
    if not used:
        return None
    low, high = min(used), max(used)
    most = max(max(counts) for counts in cells)
    total = sum(sum(counts) for counts in cells)
    chart = Chart(
        "Latency over time",
        f"{words.count(total)} requests over {words.seconds(span)}, between "
        f"{words.time_ms(_edge(bounds, low))} and {words.time_ms(_edge(bounds, high + 1))}; "
        f"at most {words.count(most)} of them in one cell.",
        height=300,
        width=WIDE,
    )
    x = linear(span, *chart.x)
    bottom, top = chart.y
    tall = (bottom - top) / (high - low + 1)
    wide = (chart.x[1] - chart.x[0]) / len(cells)
    shades: list[list[tuple[float, float, float, float]]] = [[] for _ in range(_HEAT_SHADES)]
    for column, counts in enumerate(cells):
        for row in range(low, high + 1):
            if n := counts[row]:
                part = math.log1p(n) / math.log1p(most)
                shade = min(_HEAT_SHADES - 1, int(part * _HEAT_SHADES))
                y = bottom - tall * (row - low + 1)
                shades[shade].append((chart.x[0] + wide * column, y, wide, tall))
    for shade, boxes in enumerate(shades):
        chart.bars(boxes, f"heat-{shade}")
    every = math.ceil((high - low + 1) / 8)
    for row in range(low, high + 2, every):
        y = bottom - tall * (row - low)
        chart.words(chart.x[0] - 6, y + 4, words.time_ms(_edge(bounds, row)), "end")
    chart.axis_x(x, _seconds, "seconds since the beginning")
    step = span / len(cells)
    chart.tips(
        (chart.x[0] + wide * column, wide, _column_words(bounds, counts, column * step, step))
        for column, counts in enumerate(cells)
        if any(counts)
    )
    return chart


def heat_legend(report: LoadReport) -> list[str]:
    """How many requests each shade stands for, from the lightest to the darkest."""
    cells, _, _ = _heat_cells(report)
    most = max((max(counts, default=0) for counts in cells), default=0)
    edges = [
        max(1, math.ceil(math.expm1(n / _HEAT_SHADES * math.log1p(most))))
        for n in range(_HEAT_SHADES)
    ]
    ends = [*(e - 1 for e in edges[1:]), most]
    return [
        "" if end < begin else str(begin) if end == begin else f"{begin}–{end}"
        for begin, end in zip(edges, ends, strict=True)
    ]


def _heat_cells(report: LoadReport) -> tuple[list[list[int]], Sequence[float], float]:
    """Counts by column of time and row of latency, the rows' upper bounds, and the whole time."""
    moments = [m for m in report.series if m.heat]
    bounds = report.heat_bounds_ms
    if bounds and moments:
        span = max(m.at + m.seconds for m in report.series)
        columns = min(_HEAT_COLUMNS, max(1, len(report.series)))
        cells = [[0] * (len(bounds) + 1) for _ in range(columns)]
        for m in moments:
            mine = cells[min(columns - 1, int((m.at + m.seconds / 2) / span * columns))]
            for row, n in enumerate(m.heat[: len(mine)]):
                mine[row] += n
        return cells, bounds, span
    return _heat_of(report.requests)


def _heat_of(columns: Columns | None) -> tuple[list[list[int]], Sequence[float], float]:
    ends = (
        [
            (begin + latency / 1000, latency)
            for begin, latency in zip(columns.intended_s, columns.latency_ms, strict=False)
            if begin is not None and latency is not None
        ]
        if columns is not None
        else []
    )
    if not ends:
        return [], (), 0.0
    least, most = min(v for _, v in ends), max(v for _, v in ends)
    least, most = max(least, most / 1e4, 1e-3), max(most, 2e-3)
    ratio = max(1.1, (most / least) ** (1 / 28))
    bounds = [least * ratio**n for n in range(29)]
    span = max([1e-3, *(at for at, _ in ends)])
    number = min(_HEAT_COLUMNS, max(1, math.ceil(span)))
    cells = [[0] * (len(bounds) + 1) for _ in range(number)]
    for at, latency in ends:
        cells[min(number - 1, int(at / span * number))][bisect_right(bounds, latency)] += 1
    return cells, bounds, span


def _edge(bounds: Sequence[float], row: int) -> float:
    """The lower bound of ``row``."""
    return 0.0 if row <= 0 else bounds[min(row, len(bounds)) - 1]


def _column_words(bounds: Sequence[float], counts: Sequence[int], at: float, step: float) -> str:
    used = [row for row, n in enumerate(counts) if n]
    fullest = max(used, key=lambda row: counts[row])
    return (
        f"{words.seconds(at)} to {words.seconds(at + step)}: {words.count(sum(counts))} requests, "
        f"{words.time_ms(_edge(bounds, used[0]))} to {words.time_ms(_edge(bounds, used[-1] + 1))}, "
        f"most of them from {words.time_ms(_edge(bounds, fullest))}"
    )


def _seconds(s: float) -> str:
    return f"{s:,.10g}"
