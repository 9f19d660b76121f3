"""Which of two runs is faster: ratios with block-bootstrap intervals, and a verdict.

A run may come in several stretches (blocks of an alternation of two targets): each is resampled by
itself, so that what changed between them is not taken for noise within them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, get_args

from attrs import frozen

from headrace.contracts.load import Arrivals, Workload
from headrace.contracts.load_find import Comparison, Difference, Judgement
from headrace.contracts.load_report import Columns, LoadReport
from headrace.numbers.promises import met
from headrace.numbers.stats import percentile_needs

if TYPE_CHECKING:
    from headrace.numbers.bootstrap import Floats, Statistic

_TIMES = (
    ("TTFT", "ttft_ms"),
    ("TPOT", "tpot_ms"),
    ("longest gap", "worst_gap_ms"),
    ("latency", "latency_ms"),
)
_PERCENTILES = (0.5, 0.95, 0.99)
_CONFIDENCE = 0.95
_LEAST_REQUESTS = 30
_LEAST_BIN_S, _MOST_BINS = 0.25, 120


@frozen(kw_only=True)
class Side:
    """One of the two: its name, and its run in one or more stretches."""

    name: str
    reports: tuple[LoadReport, ...]


@frozen
class _Metric:
    name: str
    unit: str
    a: Sequence[Sequence[float]]
    b: Sequence[Sequence[float]]
    statistic: Statistic
    needs: int
    smaller_is_faster: bool


def compare(
    a: Side, b: Side, *, least: float = 0.01, seed: int = 0, resamples: int = 1000
) -> Comparison:
    """How ``b`` stands against ``a``. Equal inputs and ``seed`` give equal intervals.

    A ratio within ``least`` of 1 is no difference, however surely it is not quite 1.
    """
    metrics = _metrics(a, b)
    decided = [m for m in metrics if min(_count(m.a), _count(m.b)) >= m.needs]
    # Each metric is told with its own 95%; the overall verdict asks for as much of all together.
    together = 1 - (1 - _CONFIDENCE) / max(1, len(decided))
    differences, overall = [], []
    for at, metric in enumerate(metrics):
        if metric not in decided:
            differences.append(_too_little(metric))
            continue
        difference, strict = _difference(metric, together, least, seed + 7919 * at, resamples)
        differences.append(difference)
        overall.append(strict)
    return Comparison(
        a=a.name,
        b=b.name,
        judgement=_overall(overall),
        differences=tuple(differences),
        warnings=tuple(_warnings(a, b)),
        requests_a=sum(r.figures.counts.measured for r in a.reports),
        requests_b=sum(r.figures.counts.measured for r in b.reports),
    )


def _metrics(a: Side, b: Side) -> list[_Metric]:
    from headrace.numbers.bootstrap import mean_of, quantile_of

    found = []
    for title, column in _TIMES:
        of_a, of_b = _values(a, column), _values(b, column)
        if not _count(of_a) and not _count(of_b):
            continue
        for p in _PERCENTILES:
            needs = max(percentile_needs(p), _LEAST_REQUESTS)
            name = f"{title} p{p * 100:g}"
            found.append(_Metric(name, "ms", of_a, of_b, quantile_of(p), needs, True))
    rates: list[tuple[str, str, Callable[[LoadReport], list[float]]]] = [
        ("throughput", "requests/s", lambda r: _binned(r, lambda c, i: 1.0)),
        ("output", "tokens/s", lambda r: _binned(r, lambda c, i: float(c.output_tokens[i] or 0))),
    ]
    if all(r.plan.promises for s in (a, b) for r in s.reports):
        rates.append(("goodput", "requests/s", lambda r: _binned(r, _good(r))))
    for name, unit, of in rates:
        parts_a, parts_b = [of(r) for r in a.reports], [of(r) for r in b.reports]
        if any(map(sum, parts_a)) and any(map(sum, parts_b)):
            needs = 8  # intervals of time, not requests
            found.append(_Metric(name, unit, parts_a, parts_b, mean_of, needs, False))
    return found


def _values(side: Side, column: str) -> list[list[float]]:
    """The column of each stretch, in the order of sending."""
    parts: list[list[float]] = []
    for report in side.reports:
        columns = report.requests
        if columns is None:
            parts.append([])
            continue
        pairs = zip(columns.sent_s, getattr(columns, column), strict=True)
        known = sorted((s, v) for s, v in pairs if s is not None and v is not None)
        parts.append([v for _, v in known])
    return parts


def _good(report: LoadReport) -> Callable[[Columns, int], float]:
    promises = report.plan.promises

    def of(c: Columns, i: int) -> float:
        is_met = met(
            promises,
            ttft_ms=c.ttft_ms[i],
            tpot_ms=c.tpot_ms[i],
            latency_ms=c.latency_ms[i],
            worst_gap_ms=c.worst_gap_ms[i],
            failed=c.error[i] is not None,
        )
        return 1.0 if is_met else 0.0

    return of


def _binned(report: LoadReport, worth: Callable[[Columns, int], float]) -> list[float]:
    """What ended in each interval of time, a second; ``worth`` says what a request counts.

    The intervals are cut where the last request was sent: what ends after that ends under less load.
    """
    columns = report.requests
    if columns is None:
        return []
    ends = []
    for i, (sent, took) in enumerate(zip(columns.sent_s, columns.service_ms, strict=True)):
        if sent is not None and took is not None and columns.error[i] is None:
            ends.append((sent + took / 1000, worth(columns, i)))
    if not ends:
        return []
    known = [s for s in columns.sent_s if s is not None]
    begin = min(at for at, _ in ends)
    end = max(begin, *known)
    span = end - begin
    if span <= 0:
        return []
    # So many that each has about five requests, and is a quarter of a second at least.
    count = max(1, min(_MOST_BINS, int(span / _LEAST_BIN_S), len(ends) // 5))
    width = span / count
    bins = [0.0] * count
    for at, value in ends:
        if at <= end:
            bins[min(count - 1, int((at - begin) / width))] += value
    return [total / width for total in bins]


def _difference(
    metric: _Metric, together: float, least: float, seed: int, resamples: int
) -> tuple[Difference, Judgement]:
    import numpy as np

    from headrace.numbers.bootstrap import ratio_interval, resampled

    def measured(parts: Sequence[Sequence[float]]) -> float:
        row = np.concatenate([np.asarray(part, dtype=float) for part in parts])
        return float(metric.statistic(row[None])[0])

    a, b = measured(metric.a), measured(metric.b)
    if a <= 0 or b <= 0:
        text = "no ratio: one of the two is 0"
        return Difference(
            name=metric.name, unit=metric.unit, a=a, b=b, text=text
        ), "too little data"
    of_a: Floats = resampled(metric.a, metric.statistic, seed=seed, resamples=resamples)
    of_b: Floats = resampled(metric.b, metric.statistic, seed=seed + 1, resamples=resamples)
    ratio = b / a
    interval = ratio_interval(of_a, of_b, ratio=ratio, confidence=_CONFIDENCE)
    strict = ratio_interval(of_a, of_b, ratio=ratio, confidence=together)
    if interval is None or strict is None:
        text = "no interval: most resamples are 0"
        return Difference(
            name=metric.name, unit=metric.unit, a=a, b=b, text=text
        ), "too little data"
    return (
        Difference(
            name=metric.name,
            unit=metric.unit,
            a=a,
            b=b,
            ratio=ratio,
            low=interval[0],
            high=interval[1],
            judgement=_judged(metric, least, *interval),
        ),
        _judged(metric, least, *strict),
    )


def _judged(metric: _Metric, least: float, low: float, high: float) -> Judgement:
    middle = math.sqrt(low * high)
    if low <= 1 <= high or 1 - least < middle < 1 + least:
        return "no difference seen"
    return "faster" if (high < 1) is metric.smaller_is_faster else "slower"


def _too_little(metric: _Metric) -> Difference:
    n = min(_count(metric.a), _count(metric.b))
    what = "requests" if metric.unit == "ms" else "intervals of time"
    text = f"needs {metric.needs} {what} of each, there are {n}"
    return Difference(name=metric.name, unit=metric.unit, a=None, b=None, text=text)


def _overall(found: Sequence[Judgement]) -> Judgement:
    sides = {each for each in found if each in ("faster", "slower")}
    if len(sides) == 2:
        return "mixed"
    if sides:
        return sides.pop()
    return "no difference seen" if "no difference seen" in found else "too little data"


def _warnings(a: Side, b: Side) -> list[str]:
    said = []
    for side in (a, b):
        doubtful = [r for r in side.reports if r.trust.verdict != "VALID"]
        if doubtful:
            worst = "INVALID" if any(r.trust.verdict == "INVALID" for r in doubtful) else "SUSPECT"
            of = (
                f" in {len(doubtful)} of its {len(side.reports)} turns"
                if len(side.reports) > 1
                else ""
            )
            doubts = [d for r in doubtful for d in r.trust.doubts if d.verdict == worst]
            why = "; ".join({d.name: d.text for d in doubts}.values()) or "it does not say why"
            said.append(f"{side.name} is {worst}{of}: {why}")
        early = {r.ended for r in side.reports} - {"complete"}
        if early:
            said.append(f"{side.name} ended early: {', '.join(sorted(early))}")
        if any(r.requests is None for r in side.reports):
            said.append(f"{side.name} has no single requests in its report: nothing to compare by")
    if len(a.reports) == len(b.reports) == 1:
        said.append(
            "one run of each: what differs from run to run of the same server is not in the intervals; "
            "give two URLs to have them driven in turn"
        )
    one, other = a.reports[0], b.reports[0]
    if one.closed_loop != other.closed_loop:
        said.append(
            "one is a closed loop and the other is not: their latencies mean different things"
        )
    elif one.closed_loop:
        said.append("closed loops: a slower server was asked less, which flatters its latencies")
    for name in ("arrivals", "workload", "kind", "stream", "model", "seed"):
        x, y = getattr(one.plan, name), getattr(other.plan, name)
        if x != y and not (name == "model" and None in (x, y)):
            said.append(f"the plans differ in {name}: {_short(x)} and {_short(y)}")
    share_a, share_b = one.figures.error_share, other.figures.error_share
    if share_a != share_b and (share_a or share_b):
        said.append(
            f"errors differ: {share_a or 0:.2%} and {share_b or 0:.2%}; times are of those that did not fail"
        )
    return list(dict.fromkeys(said))


def _short(value: object) -> str:
    from headrace.bench.report.words import arrivals_words, workload_words

    if isinstance(value, get_args(Arrivals)):
        return arrivals_words(value)
    if isinstance(value, get_args(Workload)):
        return workload_words(value)
    return str(value)


def _count(parts: Sequence[Sequence[float]]) -> int:
    return sum(map(len, parts))
