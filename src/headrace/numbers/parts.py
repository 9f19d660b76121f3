"""What was counted in one process, as values that travel to another and add up there.

A part is what came since the part before it: ``take_calls`` and ``take_history`` give it and begin
anew, ``add_calls`` and ``add_history`` count it as if its calls had been made here. Counts and
buckets add up exactly, sums of seconds but for floating-point rounding. Instants are of one clock,
which all processes of a machine share.
"""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct

from headrace.contracts.snapshot import Outcome, RecentCall
from headrace.numbers.histogram import FixedBuckets, LogHistogram
from headrace.numbers.history import History
from headrace.numbers.live import DURATION_BOUNDS, Labels, Series, Tally


class Spread(Struct, array_like=True, frozen=True):
    """A LogHistogram."""

    buckets: dict[int, int]
    zeros: int
    total: float
    minimum: float | None
    maximum: float | None


class Counted(Struct, array_like=True, frozen=True):
    """FixedBuckets, whose bounds both sides know."""

    counts: list[int]
    total: float


class SeriesPart(Struct, array_like=True, frozen=True):
    """A Series and its labels; ``ended`` is status, error and number of calls."""

    labels: tuple[str, str, str, str, str]
    ended: list[tuple[int | None, str, int]]
    finished: dict[str, int]
    prompt_tokens: int
    completion_tokens: int
    price_usd: Decimal
    priced: int
    spreads: list[Spread]
    counted: list[Counted]
    durations: dict[str, Counted]
    hedges: dict[str, int] = {}


class CallsPart(Struct, array_like=True, frozen=True):
    """What a Tally counted; ``slots`` are those of the last seconds."""

    series: list[SeriesPart]
    slots: list[tuple[int, int, int, int, int, float]]


class IntervalPart(Struct, array_like=True, frozen=True):
    """One interval of a History, by its place."""

    place: int
    requests: dict[Outcome, int]
    prompt_tokens: int
    completion_tokens: int
    counted: list[Counted]


class HistoryPart(Struct, array_like=True, frozen=True):
    """What a History took in: how many calls, their intervals, and the last of them."""

    calls: int
    intervals: list[IntervalPart]
    recent: list[RecentCall]


def take_calls(tally: Tally) -> CallsPart:
    """What ``tally`` counted since it was last taken; what runs and waits stays as it is."""
    part = CallsPart(
        series=[_series_part(labels, series) for labels, series in tally.series.items()],
        slots=tally.window.slots(),
    )
    tally.begin_anew()
    return part


def add_calls(tally: Tally, part: CallsPart) -> None:
    """Count in ``tally`` what ``part`` holds."""
    for series in part.series:
        _add_series(tally.series_of(Labels(*series.labels)), series)
    for slot in part.slots:
        tally.window.add_slot(*slot)


def take_history(history: History) -> HistoryPart:
    """What ``history`` took in since it was last taken."""
    part = HistoryPart(
        calls=history.revision,
        intervals=[
            IntervalPart(
                place=each.place,
                requests=each.requests,
                prompt_tokens=each.prompt_tokens,
                completion_tokens=each.completion_tokens,
                counted=[_counted(b) for b in (each.ttft, each.tpot, each.e2e)],
            )
            for each in history.intervals()
        ],
        recent=history.recent(),
    )
    history.begin_anew()
    return part


def add_history(history: History, part: HistoryPart) -> None:
    """Take into ``history`` what ``part`` holds."""
    history.add_recent(part.calls, part.recent)
    for each in part.intervals:
        interval = history.interval(each.place)
        if interval is None:
            continue
        for outcome, n in each.requests.items():
            interval.requests[outcome] = interval.requests.get(outcome, 0) + n
        interval.prompt_tokens += each.prompt_tokens
        interval.completion_tokens += each.completion_tokens
        mine = (interval.ttft, interval.tpot, interval.e2e)
        for buckets, counted in zip(mine, each.counted, strict=True):
            buckets.merge(_buckets(buckets.bounds, counted))


def _series_part(labels: Labels, s: Series) -> SeriesPart:
    return SeriesPart(
        labels=(
            labels.operation,
            labels.requested_model,
            labels.model,
            labels.provider,
            labels.backend,
        ),
        ended=[(status, error, n) for (status, error), n in s.ended.items()],
        finished=s.finished,
        prompt_tokens=s.prompt_tokens,
        completion_tokens=s.completion_tokens,
        price_usd=s.price_usd,
        priced=s.priced,
        spreads=[spread_of(each) for each in s.distributions()],
        counted=[_counted(buckets) for buckets in s.buckets()],
        durations={error: _counted(buckets) for error, buckets in s.durations.items()},
        hedges=s.hedges,
    )


def _add_series(s: Series, part: SeriesPart) -> None:
    for status, error, n in part.ended:
        s.ended[status, error] = s.ended.get((status, error), 0) + n
    for reason, n in part.finished.items():
        s.finished[reason] = s.finished.get(reason, 0) + n
    for outcome, n in part.hedges.items():
        s.hedges[outcome] = s.hedges.get(outcome, 0) + n
    s.prompt_tokens += part.prompt_tokens
    s.completion_tokens += part.completion_tokens
    s.price_usd += part.price_usd
    s.priced += part.priced
    for histogram, spread in zip(s.distributions(), part.spreads, strict=True):
        histogram.merge(histogram_of(spread))
    for buckets, counted in zip(s.buckets(), part.counted, strict=True):
        buckets.merge(_buckets(buckets.bounds, counted))
    for error, counted in part.durations.items():
        s.durations.setdefault(error, FixedBuckets(DURATION_BOUNDS)).merge(
            _buckets(DURATION_BOUNDS, counted)
        )


def _counted(buckets: FixedBuckets) -> Counted:
    return Counted(buckets.counts, buckets.total)


def _buckets(bounds: tuple[float, ...], counted: Counted) -> FixedBuckets:
    made = FixedBuckets(bounds)
    made.counts, made.total = counted.counts, counted.total
    return made


def spread_of(histogram: LogHistogram) -> Spread:
    """``histogram`` as it travels."""
    h = histogram
    return Spread(h.buckets, h.zeros, h.total, h.minimum, h.maximum)


def histogram_of(spread: Spread) -> LogHistogram:
    """What ``spread_of`` was given."""
    made = LogHistogram()
    made.buckets, made.zeros, made.total = spread.buckets, spread.zeros, spread.total
    made.count = spread.zeros + sum(spread.buckets.values())
    made.minimum, made.maximum = spread.minimum, spread.maximum
    return made
