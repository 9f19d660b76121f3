"""From rows and sums of a load test to its figures.

Percentiles are exact (``stats.percentile``, type 7) where every value is in a row. Those of the gaps
between tokens are read from a histogram and within 0.1% of the value at their rank; those past
``load_tally.MOST_ROWS`` requests within 1%.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

from attrs import define, field

from headrace.contracts.load import Promise
from headrace.contracts.load_report import Counts, Distribution, Figures, PromiseResult
from headrace.numbers import stats
from headrace.numbers.histogram import FINE, LogHistogram
from headrace.numbers.intervals import percentile_interval, rank_bounds
from headrace.numbers.load_rows import Rows

Unit: TypeAlias = Literal["ms", "tokens", "tokens/s"]

PERCENTILES = {"p50": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}

METRICS: dict[str, Unit] = {
    "latency": "ms",
    "service": "ms",
    "ttft": "ms",
    "service_ttft": "ms",
    "tpot": "ms",
    "input_tokens": "tokens",
    "output_tokens": "tokens",
    "speed": "tokens/s",
}
"""The columns that become distributions."""


@define(kw_only=True)
class Sums:
    """What is counted of a scenario's measured requests; ``itl`` holds their gaps in ms.

    ``begin`` and ``end`` are the first intended (or sent) instant and the last end. ``beyond`` has
    the values of those requests that have no row any more, by column.
    """

    ok: int = 0
    failed: int = 0
    cut: int = 0
    sent: int = 0
    good: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    begin: float | None = None
    end: float | None = None
    itl: LogHistogram = field(factory=lambda: LogHistogram(FINE))
    beyond: dict[str, LogHistogram] = field(factory=dict)

    def span(self, begin: float | None, end: float | None) -> None:
        """Make the measured time reach from ``begin`` to ``end`` at least."""
        if begin is not None and (self.begin is None or begin < self.begin):
            self.begin = begin
        if end is not None and (self.end is None or end > self.end):
            self.end = end

    def add(self, other: Sums) -> None:
        """Count here all that ``other`` counted."""
        for name in ("ok", "failed", "cut", "sent", "good", "input_tokens", "output_tokens"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.span(other.begin, other.end)
        self.itl.merge(other.itl)
        for name, histogram in other.beyond.items():
            self.beyond.setdefault(name, LogHistogram()).merge(histogram)

    @property
    def seconds(self) -> float:
        """The measured time: last end - first intended (sent, in a closed loop).

        All of the time that these requests took, and no more than these requests, so a rate is
        never above what was done: neither by answers to earlier requests nor by leaving out how long
        the last answers took. In a short run it is a little below the rate at which requests went
        out, since the last answers' time counts.
        """
        return 0.0 if self.begin is None or self.end is None else max(0.0, self.end - self.begin)

    def rate(self, count: float) -> float | None:
        """``count`` per second of the measured time; None where no time passed."""
        return count / self.seconds if self.seconds > 0 else None


def figures(
    rows: Rows, sums: Sums, *, counts: Counts, judged: bool, scenario: int | None = None
) -> Figures:
    """The figures of all rows, or of one scenario's. ``judged``: there are promises to be good by."""
    of = {name: distribution(rows, sums, name, scenario) for name in METRICS}
    ended = sums.ok + sums.failed
    return Figures(
        counts=counts,
        seconds=sums.seconds,
        requests_per_s=sums.rate(sums.ok),
        input_tokens_per_s=sums.rate(sums.input_tokens) if of["input_tokens"] else None,
        output_tokens_per_s=sums.rate(sums.output_tokens) if of["output_tokens"] else None,
        goodput_per_s=sums.rate(sums.good) if judged else None,
        error_share=sums.failed / ended if ended else None,
        latency=of["latency"],
        service=of["service"],
        ttft=of["ttft"],
        service_ttft=of["service_ttft"],
        tpot=of["tpot"],
        itl=of_histogram(sums.itl, "ms"),
        input_tokens=of["input_tokens"],
        output_tokens=of["output_tokens"],
        output_speed=of["speed"],
    )


def distribution(
    rows: Rows, sums: Sums, name: str, scenario: int | None = None
) -> Distribution | None:
    """The distribution of one column over the requests that ended well."""
    values, unit = rows.values(name, scenario), METRICS[name]
    beyond = sums.beyond.get(name)
    if beyond is None or not beyond.count:
        return of_values(values, unit)
    whole = LogHistogram()
    whole.add_all([max(0.0, v) for v in values])
    whole.merge(beyond)
    return of_histogram(whole, unit)


def of_values(values: Sequence[float], unit: Unit) -> Distribution | None:
    """The distribution of ``values``; None of none."""
    if not values:
        return None
    ordered = sorted(values)
    histogram = LogHistogram()
    histogram.add_all([max(0.0, v) for v in ordered])
    return Distribution(
        unit=unit,
        count=len(ordered),
        mean=stats.mean(ordered),
        std=stats.sample_std(ordered),
        minimum=ordered[0],
        maximum=ordered[-1],
        percentiles={n: stats.supported_percentile(ordered, p) for n, p in PERCENTILES.items()},
        intervals={n: percentile_interval(ordered, p) for n, p in PERCENTILES.items()},
        histogram=histogram.to_plain(),
    )


def of_histogram(histogram: LogHistogram, unit: Unit) -> Distribution | None:
    """The distribution that ``histogram`` has counted, without intervals; None of an empty one."""
    if not histogram.count:
        return None
    told = {
        name: histogram.quantile(p) if histogram.count >= stats.percentile_needs(p) else None
        for name, p in PERCENTILES.items()
    }
    return Distribution(
        unit=unit,
        count=histogram.count,
        mean=histogram.mean(),
        minimum=histogram.minimum,
        maximum=histogram.maximum,
        percentiles=told,
        histogram=histogram.to_plain(),
    )


def judge_histogram(promise: Promise, histogram: LogHistogram, failed: int) -> PromiseResult:
    """As ``promises.judge``, of values that only a histogram knows; they are within its accuracy."""
    assert promise.p is not None
    counted = histogram.count + failed
    if not counted:
        return PromiseResult(promise=promise, value=None, kept=None, text="nothing was measured")
    low, high = rank_bounds(counted, promise.p, confidence=0.90)  # 95% to each side

    def at(rank: int) -> float:
        """Those who failed come after all others, and are infinitely late."""
        if rank >= histogram.count:
            return math.inf
        found = histogram.quantile(
            (rank + 0.5) / (histogram.count - 1) if histogram.count > 1 else 0
        )
        return math.inf if found is None else found

    value = at(math.ceil(promise.p * counted) - 1)
    kept = None
    if high is not None and at(high) < promise.below:
        kept = True
    elif low is not None and at(low) >= promise.below:
        kept = False
    return PromiseResult(
        promise=promise,
        value=None if math.isinf(value) else value,
        kept=kept,
        text="" if kept is not None else f"within what chance does to a sample of {counted}",
    )
