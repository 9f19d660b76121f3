"""What one trial at one rate says of the promises: kept, broken, or not yet known."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from attrs import define, field

from headrace.contracts.load import Promise
from headrace.contracts.load_find import Outcome
from headrace.contracts.load_report import Columns, LoadReport
from headrace.numbers.early_stopping import decide, queries_needed

_LATENCIES = {"ttft": "ttft_ms", "tpot": "tpot_ms", "latency": "latency_ms"}
# Latencies that grow through a trial are a queue that does: no steady state whose percentile could hold.
_GROWN = 2.0
_GROWN_SHARE_OF_LIMIT = 0.1
_LEAST_FOR_TREND = 60


@define
class Evidence:
    """What the rounds of one trial have seen so far, added up."""

    promises: Sequence[Promise]
    requests: int = 0
    failed: int = 0
    misses: list[int] = field(factory=list)
    counted: list[int] = field(factory=list)
    told: list[str] = field(factory=list)
    by_report: dict[int, bool | None] = field(factory=dict)
    broken: str | None = None

    def __attrs_post_init__(self) -> None:
        self.misses = [0] * len(self.promises)
        self.counted = [0] * len(self.promises)

    def add(self, report: LoadReport) -> None:
        """Count what ``report`` saw."""
        counts, columns = report.figures.counts, report.requests
        self.requests += counts.measured
        lost = counts.failed + counts.cut
        self.failed += counts.failed
        for at, promise in enumerate(self.promises):
            name = _LATENCIES.get(promise.metric)
            if name is None or columns is None:
                found = next((r for r in report.promises if r.promise == promise), None)
                self.by_report[at] = _as_measured(found.value, promise) if found else None
                continue
            values = [v for v in getattr(columns, name) if v is not None]
            self.counted[at] += len(values) + lost
            self.misses[at] += sum(v >= promise.below for v in values) + lost
            if grows(columns, name, promise.below):
                self.broken = f"{promise.metric} was still growing at the end: the load is more than it can do"

    def wanted(self, *, most_misses: int = 20) -> int:
        """How many more requests might decide what is open; 0 when all is decided, or will not be."""
        more = 0
        for at, promise in enumerate(self.promises):
            if promise.p is None or promise.metric not in _LATENCIES or at in self.by_report:
                continue
            n, t = self.counted[at], self.misses[at]
            if decide(n, t, promise.p) is None and t <= most_misses:
                more = max(more, queries_needed(t, promise.p) - n)
        return max(0, more)

    def outcome(self, *, quick: bool) -> tuple[Outcome, str]:
        """What it all says: by the early-stopping rule, or as measured where only ``quick``."""
        if self.broken is not None:
            return "broken", self.broken
        if not self.requests:
            return "undecided", "no request was measured"
        said = [self._of(at, promise, quick=quick) for at, promise in enumerate(self.promises)]
        for worst in ("broken", "undecided"):
            for outcome, text in said:
                if outcome == worst:
                    return outcome, text
        return "kept", "every promise held"

    def _of(self, at: int, promise: Promise, *, quick: bool) -> tuple[Outcome, str]:
        if promise.metric == "errors":
            broken = self.failed / self.requests >= promise.below
            text = f"{promise.text}: {self.failed} of {self.requests} failed"
            return ("broken" if broken else "kept"), text
        if at in self.by_report:
            held = self.by_report[at]
            if held is None:
                return "undecided", f"{promise.text}: nothing to judge it by"
            return ("kept", "") if held else ("broken", f"{promise.text} does not hold")
        assert promise.p is not None
        n, t = self.counted[at], self.misses[at]
        said = decide(n, t, promise.p)
        if quick:
            said = "broken" if t > (1 - promise.p) * n else "kept"
        seen = f"{promise.text}: {t} of {n} were later"
        if said is None:
            return "undecided", f"{seen}; to be sure takes {queries_needed(t, promise.p)} requests"
        return said, seen


def grows(columns: Columns, name: str, limit: float) -> bool:
    """Whether the metric of the last third of the requests is far above that of the first."""
    pairs = [
        (at, v)
        for at, v in zip(columns.sent_s, getattr(columns, name), strict=True)
        if v is not None and at is not None
    ]
    if len(pairs) < _LEAST_FOR_TREND:
        return False
    pairs.sort()
    third = len(pairs) // 3
    first = median(v for _, v in pairs[:third])
    last = median(v for _, v in pairs[-third:])
    return bool(last > _GROWN * first and last - first > _GROWN_SHARE_OF_LIMIT * limit)


def _as_measured(value: float | None, promise: Promise) -> bool | None:
    return None if value is None else value < promise.below
