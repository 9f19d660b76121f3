"""HdrHistogram's text form of a distribution (``.hgrm``), which its plotters and diff tools read.

The text is what ``outputPercentileDistribution`` of HdrHistogram 2.1 (Java) prints for a histogram
of microseconds with three significant digits, scaled to milliseconds: the same buckets, the same
percentile steps (five for each halving of the distance to 100%), the same three lines at the end.
https://github.com/HdrHistogram/HdrHistogram
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from headrace.contracts.load_report import Columns, Distribution, LoadReport
from headrace.numbers.histogram import LogHistogram

_SUB_BUCKETS = 2048  # the first power of two that tells 2 * 10^3 values apart
_LEAST_RANGE = 3_600_000_000  # an hour, which is as far as such histograms usually reach
_TICKS = 5
_US_PER_MS = 1000.0


def distributions(report: LoadReport) -> Mapping[str, str]:
    """The text of each distribution of times by the name of its file; none for one without values.

    Latency and TTFT are exact where the report has its requests; else, and always for the gaps
    between pieces (ITL), within the 0.1% of the report's own histogram.
    """
    columns = report.requests
    f = report.figures
    found = {
        "latency": _values(columns, "latency_ms", f.latency),
        "service": _values(columns, "service_ms", f.service),
        "ttft": _values(columns, "ttft_ms", f.ttft),
        "tpot": _values(columns, "tpot_ms", f.tpot),
        "itl": _values(None, "", f.itl),
    }
    return {f"{name}.hgrm": hgrm(values) for name, values in found.items() if values}


def hgrm(values_ms: Iterable[tuple[float, int]]) -> str:
    """The text for values in milliseconds and how often each came."""
    counts: dict[int, int] = {}
    for value, n in values_ms:
        if n:
            microseconds = round(value * _US_PER_MS)
            bucket = _lowest_alike(microseconds)
            counts[bucket] = counts.get(bucket, 0) + n
    ascending = sorted(counts.items())
    total = sum(counts.values())
    heads = ("Value", "Percentile", "TotalCount", "1/(1-Percentile)")
    lines = [" ".join(f"{h:>{n}}" for h, n in zip(heads, (12, 14, 10, 14), strict=True)), ""]
    for value, percentile, reached in _steps(ascending, total):
        line = f"{value / _US_PER_MS:12.3f} {percentile / 100:2.12f} {reached:10d}"
        inverse = "" if percentile == 100 else f" {1 / (1 - percentile / 100):14.2f}"
        lines.append(line + inverse)
    middle, spread = _mean_and_deviation(ascending, total)
    most = _highest_alike(ascending[-1][0]) if ascending else 0
    buckets = (max(most, _LEAST_RANGE) // _SUB_BUCKETS).bit_length() + 1
    return "\n".join(
        [
            *lines,
            f"#[Mean    = {middle / _US_PER_MS:12.3f}, StdDeviation   = {spread / _US_PER_MS:12.3f}]",
            f"#[Max     = {most / _US_PER_MS:12.3f}, Total count    = {total:12d}]",
            f"#[Buckets = {buckets:12d}, SubBuckets     = {_SUB_BUCKETS:12d}]",
            "",
        ]
    )


def _steps(ascending: list[tuple[int, int]], total: int) -> Iterator[tuple[int, float, int]]:
    """(value, per cent, how many are at most that) of each line."""
    level, reached = 0.0, 0
    for bucket, n in ascending:
        reached += n
        value = _highest_alike(bucket)
        # A bucket that holds several steps has a line for each; the last one ends at 100%.
        while 100.0 * reached / total >= level:
            if level >= 100.0:
                return
            yield value, level, reached
            if reached == total:
                break
            level += 100.0 / (_TICKS * 2 ** (math.floor(math.log2(100.0 / (100.0 - level))) + 1))
    if ascending:
        yield _highest_alike(ascending[-1][0]), 100.0, total


def _shift(value: int) -> int:
    return max(0, value.bit_length() - _SUB_BUCKETS.bit_length() + 1)


def _lowest_alike(value: int) -> int:
    shift = _shift(value)
    return value >> shift << shift


def _highest_alike(value: int) -> int:
    return value | ((1 << _shift(value)) - 1)


def _mean_and_deviation(ascending: list[tuple[int, int]], total: int) -> tuple[float, float]:
    if not total:
        return 0.0, 0.0
    middles = [(bucket + ((1 << _shift(bucket)) >> 1), n) for bucket, n in ascending]
    mean = sum(value * n for value, n in middles) / total
    return mean, math.sqrt(sum((value - mean) ** 2 * n for value, n in middles) / total)


def _values(columns: Columns | None, name: str, d: Distribution | None) -> list[tuple[float, int]]:
    exact: tuple[float | None, ...] = () if columns is None else getattr(columns, name)
    if told := [(value, 1) for value in exact if value is not None]:
        return told
    if d is None or not d.histogram:
        return []
    return list(LogHistogram.from_plain(d.histogram).values())
