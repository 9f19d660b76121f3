"""How long the answers of one backend took lately: records in, percentiles out.

Newer answers count for more: after HALF_LIFE_S seconds one counts half as much. The clock is the
caller's: every instant handed in is of the records' monotonic clock, in seconds.
"""

from __future__ import annotations

from collections import deque
from typing import Literal, TypeAlias

from headrace.contracts.record import CallRecord
from headrace.numbers.timeline import attempt_time, end_to_end, time_to_first_token

Measure: TypeAlias = Literal["answer", "first_token"]

HALF_LIFE_S = 60.0
FRESH_S = 300.0
"""What is older says how it was, not how it is."""

KEPT = 256
LEAST = 3
"""So few answers say nothing yet."""

_MANY = 32
_TOLD_FOR_S = 1.0


class Pace:
    """The times of the last KEPT good answers; one event loop owns it.

    ``answer`` is from the call's arrival to the end of its answer, waiting included; for a call that
    was tried elsewhere before, from when it was asked here. ``first_token`` is from sending.
    """

    __slots__ = ("_answers", "_first_tokens", "_seen", "_told")

    def __init__(self) -> None:
        self._answers: deque[tuple[float, float]] = deque(maxlen=KEPT)
        self._first_tokens: deque[tuple[float, float]] = deque(maxlen=KEPT)
        self._seen = 0
        self._told: dict[tuple[Measure, float], tuple[float, float, int]] = {}
        """A quantile, when it was reckoned, and how many answers were seen by then."""

    def add(self, record: CallRecord) -> None:
        """Take in a call that this backend answered."""
        t, attempts = record.timeline, record.attempts
        if record.error_kind is not None or t.done is None:
            return
        self._seen += 1
        elsewhere_before = len(attempts) > 1
        # Of two that raced, the one that was left says nothing of this backend.
        answered = [each for each in attempts if each.error_kind is None]
        answer_s = attempt_time(answered[-1]) if elsewhere_before and answered else end_to_end(t)
        if answer_s is not None:
            self._answers.append((t.done, answer_s))
        first_s = time_to_first_token(t)
        if first_s is not None:
            self._first_tokens.append((t.done, first_s))

    def last(self, measure: Measure) -> float | None:
        """The instant of the latest answer that was measured; ``None`` before LEAST of them."""
        kept = self._kept(measure)
        return kept[-1][0] if len(kept) >= LEAST else None

    def is_fresh(self, measure: Measure, now: float) -> bool:
        """Whether what it tells is of the last FRESH_S seconds."""
        last = self.last(measure)
        return last is not None and now - last <= FRESH_S

    def quantile(self, measure: Measure, q: float, now: float) -> float | None:
        """The time within which the share ``q`` of the answers came, in seconds; ``None`` before
        LEAST of them.

        It is one that was seen: of few answers a high quantile is the longest.
        """
        kept = self._kept(measure)
        if len(kept) < LEAST:
            return None
        told = self._told.get((measure, q))
        if told is not None:
            value, at, seen = told
            # Of many answers a few more change little, and to sort them takes its time.
            if seen == self._seen or (len(kept) >= _MANY and now - at < _TOLD_FOR_S):
                return value
        value = _weighted(kept, q)
        self._told[measure, q] = value, now, self._seen
        return value

    def _kept(self, measure: Measure) -> deque[tuple[float, float]]:
        return self._answers if measure == "answer" else self._first_tokens


def _weighted(kept: deque[tuple[float, float]], q: float) -> float:
    newest = kept[-1][0]
    weighed = sorted((took_s, 2.0 ** ((at - newest) / HALF_LIFE_S)) for at, took_s in kept)
    left = q * sum(weight for _, weight in weighed)
    for took_s, weight in weighed:
        left -= weight
        if left <= 0:
            return took_s
    return weighed[-1][0]


class Paces:
    """The Pace of each backend on each route; ``add`` is a RecordSink."""

    def __init__(self) -> None:
        self._paces: dict[tuple[str | None, str | None], Pace] = {}

    def of(self, backend: str, route: str) -> Pace:
        """That of ``backend`` for calls by ``route``, from now on."""
        return self._paces.setdefault((backend, route), Pace())

    def add(self, record: CallRecord) -> None:
        """Take in a finished call."""
        pace = self._paces.get((record.backend, record.route))
        if pace is not None:
            pace.add(record)
