"""The last minutes in intervals, and the last calls: records in, a HistorySnapshot out.

Its memory does not grow with the calls. Instants are of the records' monotonic clock, in seconds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

from headrace.contracts.record import CallRecord
from headrace.contracts.snapshot import HistorySnapshot, IntervalSnapshot, Outcome, RecentCall
from headrace.numbers import timeline
from headrace.numbers.histogram import FixedBuckets
from headrace.numbers.live import outcome_of

INTERVAL_S = 5.0
INTERVALS = 120
RECENT_CALLS = 50

# Five to a decade, from a millisecond to 1,000 s.
BOUNDS = tuple(round(10 ** (i / 5), 6) for i in range(-15, 16))
_MOST_TEXT = 200


class _Interval:
    """What ended between ``place`` and ``place + 1`` times INTERVAL_S."""

    __slots__ = ("completion_tokens", "e2e", "place", "prompt_tokens", "requests", "tpot", "ttft")

    def __init__(self, place: int) -> None:
        self.place = place
        self.requests: dict[Outcome, int] = {}
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.ttft = FixedBuckets(BOUNDS)
        self.tpot = FixedBuckets(BOUNDS)
        self.e2e = FixedBuckets(BOUNDS)

    def snapshot(self) -> IntervalSnapshot:
        return IntervalSnapshot(
            begin=self.place * INTERVAL_S,
            requests=dict(self.requests),
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            ttft=tuple(self.ttft.counts),
            tpot=tuple(self.tpot.counts),
            e2e=tuple(self.e2e.counts),
        )


class History:
    """Keeps the last INTERVALS intervals and RECENT_CALLS calls; ``add`` is a RecordSink.

    Not safe for threads: one event loop owns it.
    """

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget everything."""
        self.revision = 0
        """How many calls were taken in."""
        self._slots: list[tuple[int, _Interval] | None] = [None] * INTERVALS
        """By place, each with the revision that last changed it."""
        self._recent: deque[CallRecord | RecentCall] = deque(maxlen=RECENT_CALLS)

    def add(self, record: CallRecord) -> None:
        """Take a finished call in."""
        self.revision += 1
        self._recent.append(record)
        t, usage = record.timeline, record.usage
        if t.done is None:
            return
        interval = self.interval(math.floor(t.done / INTERVAL_S))
        if interval is None:
            return
        outcome = outcome_of(record.error_kind) if record.error_kind else "ok"
        interval.requests[outcome] = interval.requests.get(outcome, 0) + 1
        completion = None
        if usage is not None:
            completion = usage.completion_tokens
            interval.completion_tokens += completion or 0
            interval.prompt_tokens += usage.prompt_tokens or 0
        if outcome != "ok":
            return
        _add(interval.e2e, timeline.end_to_end(t))
        if t.first_token is not None:
            _add(interval.ttft, timeline.time_to_first_token(t))
            _add(interval.tpot, timeline.time_per_output_token(t, completion))

    def snapshot(self, now: float, since: int = 0) -> HistorySnapshot:
        """How it stands at the instant ``now``, but for what was there at the revision ``since``."""
        new = min(max(0, self.revision - since), len(self._recent))
        return HistorySnapshot(
            interval_s=INTERVAL_S,
            kept_s=INTERVAL_S * INTERVALS,
            bounds=BOUNDS,
            revision=self.revision,
            intervals=tuple(i.snapshot() for i in self._changed(now, since)),
            recent=tuple(_line(self._recent[i]) for i in range(-new, 0)),
        )

    def intervals(self) -> list[_Interval]:
        """Every interval with a call in it."""
        return [slot[1] for slot in self._slots if slot is not None]

    def recent(self) -> list[RecentCall]:
        """The last calls."""
        return [_line(each) for each in self._recent]

    def add_recent(self, calls: int, recent: list[RecentCall]) -> None:
        """Take in that another process had ``calls`` calls, the last of which were ``recent``."""
        self.revision += calls
        self._recent.extend(recent)

    def _changed(self, now: float, since: int) -> Iterator[_Interval]:
        oldest = math.floor(now / INTERVAL_S) - INTERVALS
        held = (slot for slot in self._slots if slot is not None)
        for revision, interval in sorted(held, key=lambda slot: slot[1].place):
            if revision > since and interval.place > oldest:
                yield interval

    def interval(self, place: int) -> _Interval | None:
        """The interval at ``place``, changed now; ``None`` where a later one has taken its slot."""
        slot = self._slots[place % INTERVALS]
        if slot is not None and slot[1].place > place:
            return None
        interval = slot[1] if slot is not None and slot[1].place == place else _Interval(place)
        self._slots[place % INTERVALS] = (self.revision, interval)
        return interval


def _add(buckets: FixedBuckets, seconds: float | None) -> None:
    if seconds is not None and math.isfinite(seconds):
        buckets.add(max(0.0, seconds))


def _line(call: CallRecord | RecentCall) -> RecentCall:
    return call if isinstance(call, RecentCall) else recent_call(call)


def recent_call(record: CallRecord) -> RecentCall:
    """``record`` in a line, its names cut to a bounded length."""
    t, usage = record.timeline, record.usage
    completion = usage.completion_tokens if usage is not None else None
    decision = record.decision
    ended = timeline.wall_time(t, t.done)
    return RecentCall(
        ended=t.wall_anchor if ended is None else ended,
        operation=record.operation,
        outcome=outcome_of(record.error_kind or ""),
        request_id=_cut(record.request_id),
        model=_cut(record.requested_model or record.route or record.model),
        backend=_cut(record.backend),
        provider=_cut(record.provider),
        policy=None if decision is None else decision.policy,
        reason=None if decision is None else _cut(decision.reason),
        stream=record.stream,
        status=record.status,
        error=record.error_kind,
        finish_reason=_cut(record.finish_reason),
        attempts=len(record.attempts),
        hedge=None if record.hedge is None else record.hedge.outcome,
        queue_s=timeline.queue_time(t),
        ttft_s=timeline.time_to_first_token(t),
        tpot_s=timeline.time_per_output_token(t, completion),
        e2e_s=timeline.end_to_end(t),
        prompt_tokens=usage.prompt_tokens if usage is not None else None,
        completion_tokens=completion,
        price_usd=record.price_usd,
    )


def _cut(text: str | None) -> str | None:
    """A lone surrogate has no UTF-8 form either."""
    if text is None:
        return None
    return text[:_MOST_TEXT].encode("utf-8", "replace").decode()
