"""The course of a load test: what happened in each second, in memory that does not grow.

Instants are seconds from the run's beginning. A run that is longer than ``MOST`` intervals has them
twice as long, as often as it takes.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping

from msgspec import Struct, convert, to_builtins

from headrace.contracts.load_report import Moment
from headrace.numbers.histogram import LogHistogram

MOST = 600

HEAT_BOUNDS_MS = tuple(round(10 ** (i / 5), 6) for i in range(31))
"""Five to a decade, from a millisecond to 1,000 s; a latency equal to a bound is within it."""


class _Interval:
    __slots__ = (
        "done",
        "ended",
        "failed",
        "heat",
        "input_tokens",
        "itl",
        "latency",
        "output_tokens",
        "taken",
        "ttft",
        "waiting",
    )

    def __init__(self) -> None:
        self.taken = 0
        self.done = 0
        self.failed = 0
        self.ended = 0
        """With those that were cut or given up: what is in flight no longer."""
        self.waiting: int | None = None
        self.input_tokens = 0
        self.output_tokens = 0
        self.ttft = LogHistogram()
        self.itl = LogHistogram()
        self.latency = LogHistogram()
        self.heat: list[int] = []

    def add(self, later: _Interval, *, follows: bool) -> None:
        """Take in ``later``: the interval after this one (``follows``), or the same elsewhere."""
        self.taken += later.taken
        self.done += later.done
        self.failed += later.failed
        self.ended += later.ended
        if later.waiting is not None:
            self.waiting = later.waiting + (0 if follows else self.waiting or 0)
        self.input_tokens += later.input_tokens
        self.output_tokens += later.output_tokens
        self.ttft.merge(later.ttft)
        self.itl.merge(later.itl)
        self.latency.merge(later.latency)
        if later.heat:
            self.heat = [a + b for a, b in zip(self.heat or _cold(), later.heat, strict=True)]


class _IntervalPart(Struct, array_like=True):
    """An _Interval that travels."""

    place: int
    taken: int
    done: int
    failed: int
    ended: int
    waiting: int | None
    input_tokens: int
    output_tokens: int
    heat: list[int]
    ttft: dict[str, object]
    itl: dict[str, object]
    latency: dict[str, object]


class _CoursePart(Struct):
    """A Course that travels."""

    base_s: float
    doublings: int
    intervals: list[_IntervalPart]


class Course:
    """Counts by interval of ``bucket_s`` seconds; ``taken``, ``ended`` and ``answered`` fill it."""

    def __init__(self, bucket_s: float = 1.0) -> None:
        if not bucket_s > 0:
            raise ValueError(f"bucket_s is {bucket_s}; an interval is longer than 0 seconds")
        self.base_s = bucket_s
        self.doublings = 0
        self._bucket_s = bucket_s
        self._intervals: dict[int, _Interval] = {}

    @property
    def bucket_s(self) -> float:
        """How long an interval is now."""
        return self._bucket_s

    def taken(self, at: float) -> None:
        """A request was taken up at ``at``: it is in flight from now on, or waits."""
        self._interval(at).taken += 1

    def first_token(self, at: float, ttft_ms: float) -> None:
        """A first token came at ``at``."""
        self._interval(at).ttft.add(max(0.0, ttft_ms))

    def waits(self, at: float, count: int) -> None:
        """So many requests were taken up and not sent at ``at``.

        The last word in an interval holds for it; without one nobody waited.
        """
        self._interval(at).waiting = count

    def ended(self, at: float, *, failed: bool, cut: bool) -> None:
        """A request ended at ``at``, well or not."""
        interval = self._interval(at)
        interval.ended += 1
        if cut:
            return
        interval.failed += failed
        interval.done += not failed

    def given_up(self, count: int) -> None:
        """So many requests that waited to the end are waited for no longer."""
        if count and self._intervals:
            last = self._intervals[max(self._intervals)]
            last.taken -= count  # else their waiting would seem to end by being sent
            last.waiting = None

    def answered(
        self, at: float, *, latency_ms: float | None, gaps: LogHistogram, tokens: tuple[int, int]
    ) -> None:
        """What a request that ended well at ``at`` has to tell; tokens are input and output."""
        interval = self._interval(at)
        interval.input_tokens += tokens[0]
        interval.output_tokens += tokens[1]
        if gaps.count:
            interval.itl.merge(gaps)
        if latency_ms is not None:
            interval.latency.add(max(0.0, latency_ms))
            if not interval.heat:
                interval.heat = _cold()
            interval.heat[bisect_left(HEAT_BOUNDS_MS, latency_ms)] += 1

    def moments(self) -> tuple[Moment, ...]:
        """Every interval from the first to the last in which something happened."""
        return self._moments(max(self._intervals, default=-1) + 1)

    def moment(self, at: float) -> Moment | None:
        """The last interval that was over at ``at``; None in the first."""
        last = math.floor(at / self._bucket_s) - 1
        return self._moments(last + 1)[-1] if last >= 0 else None

    def piece(self, at: float) -> Course:
        """What a process has to tell while it runs: the last interval that was over at ``at``."""
        last = math.floor(at / self._bucket_s) - 1
        made = Course(self.base_s)
        made.doublings, made._bucket_s = self.doublings, self._bucket_s
        if last in self._intervals:
            made._intervals[last] = self._intervals[last]
        return made

    def merge(self, other: Course) -> None:
        """Count here what ``other``, which began at the same instant, counted."""
        if other.base_s != self.base_s:
            raise ValueError(
                f"intervals of {other.base_s} s cannot be merged into intervals of {self.base_s} s"
            )
        while self.doublings < other.doublings:
            self._double()
        shift = self.doublings - other.doublings
        theirs: dict[int, _Interval] = {}
        for place, interval in sorted(other._intervals.items()):
            theirs.setdefault(place >> shift, _Interval()).add(interval, follows=True)
        for place, interval in theirs.items():
            self._intervals.setdefault(place, _Interval()).add(interval, follows=False)

    def to_plain(self) -> dict[str, object]:
        """All of it in values that JSON knows."""
        part = _CoursePart(
            base_s=self.base_s,
            doublings=self.doublings,
            intervals=[
                _IntervalPart(
                    place=place,
                    taken=v.taken,
                    done=v.done,
                    failed=v.failed,
                    ended=v.ended,
                    waiting=v.waiting,
                    input_tokens=v.input_tokens,
                    output_tokens=v.output_tokens,
                    heat=v.heat,
                    ttft=v.ttft.to_plain(),
                    itl=v.itl.to_plain(),
                    latency=v.latency.to_plain(),
                )
                for place, v in sorted(self._intervals.items())
            ],
        )
        plain: dict[str, object] = to_builtins(part)
        return plain

    @classmethod
    def from_plain(cls, plain: Mapping[str, object]) -> Course:
        """What ``to_plain`` wrote; ValueError where it is something else."""
        part = convert(plain, _CoursePart)
        made = cls(part.base_s)
        made.doublings = part.doublings
        made._bucket_s = part.base_s * 2**part.doublings
        for each in part.intervals:
            if each.heat and len(each.heat) != len(HEAT_BOUNDS_MS) + 1:
                raise ValueError(
                    f"heat has {len(each.heat)} counts; {len(HEAT_BOUNDS_MS) + 1} are expected"
                )
            interval = made._intervals[each.place] = _Interval()
            interval.taken, interval.done, interval.failed = each.taken, each.done, each.failed
            interval.ended, interval.waiting = each.ended, each.waiting
            interval.input_tokens = each.input_tokens
            interval.output_tokens = each.output_tokens
            interval.heat = each.heat
            interval.ttft = LogHistogram.from_plain(each.ttft)
            interval.itl = LogHistogram.from_plain(each.itl)
            interval.latency = LogHistogram.from_plain(each.latency)
        return made

    def _interval(self, at: float) -> _Interval:
        place = int(at / self._bucket_s) if at > 0 else 0
        while place >= MOST:
            self._double()
            place = int(at / self._bucket_s)
        interval = self._intervals.get(place)
        if interval is None:
            interval = self._intervals[place] = _Interval()
        return interval

    def _double(self) -> None:
        halves, self._intervals = self._intervals, {}
        self.doublings += 1
        self._bucket_s = self.base_s * 2**self.doublings
        for place, interval in sorted(halves.items()):
            self._intervals.setdefault(place >> 1, _Interval()).add(interval, follows=True)

    def _moments(self, count: int) -> tuple[Moment, ...]:
        found: list[Moment] = []
        begun, waiting, nothing = 0, 0, _Interval()
        for place in range(count):
            v = self._intervals.get(place, nothing)
            waited, waiting = waiting, v.waiting or 0
            begun += v.taken - v.ended
            ttft_p50, ttft_p95 = v.ttft.quantiles((0.5, 0.95))
            latency_p50, latency_p95 = v.latency.quantiles((0.5, 0.95))
            found.append(
                Moment(
                    at=place * self._bucket_s,
                    seconds=self._bucket_s,
                    sent=max(0, v.taken + waited - waiting),
                    done=v.done,
                    failed=v.failed,
                    in_flight=max(0, begun - waiting),
                    waiting=waiting,
                    input_tokens=v.input_tokens,
                    output_tokens=v.output_tokens,
                    ttft_p50=ttft_p50,
                    ttft_p95=ttft_p95,
                    itl_p50=v.itl.quantile(0.5),
                    latency_p50=latency_p50,
                    latency_p95=latency_p95,
                    latency_max=v.latency.maximum,
                    heat=tuple(v.heat),
                )
            )
        return tuple(found)


def _cold() -> list[int]:
    return [0] * (len(HEAT_BOUNDS_MS) + 1)
