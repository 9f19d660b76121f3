"""What is going on now: records in, a Snapshot out, in memory that does not grow with the calls.

The clock is the caller's: every instant handed in is of the records' monotonic clock, in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TypeAlias

from attrs import define, frozen

from headrace.contracts.record import CallRecord, Timeline
from headrace.contracts.snapshot import GroupSnapshot, LatencySummary, Outcome, Snapshot
from headrace.numbers import timeline
from headrace.numbers.histogram import FixedBuckets, LogHistogram

MAX_NAMES = 200
"""Distinct models, and distinct backends, told apart; further ones are counted as ``other``."""

MAX_SERIES = 400
"""Distinct combinations of labels told apart; further ones are counted as all ``other``."""

MAX_ERRORS = 64

MAX_FRESH = 64
"""Calls that are taken in before they are counted."""

WINDOW_S = 10.0
OTHER = "other"

# The bounds that vLLM and the OpenTelemetry GenAI conventions prescribe, together: the counts at
# either one's bounds are then exact.
FIRST_TOKEN_BOUNDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
PER_TOKEN_BOUNDS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0),
)
VLLM_REQUEST_BOUNDS = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0),
    *(240.0, 480.0, 960.0, 1920.0, 7680.0),
)
OTEL_DURATION_BOUNDS = tuple(0.01 * 2**i for i in range(14))
DURATION_BOUNDS = tuple(sorted({*VLLM_REQUEST_BOUNDS, *OTEL_DURATION_BOUNDS}))
TOKEN_BOUNDS = tuple(float(4**i) for i in range(14))


Gauges: TypeAlias = tuple[dict[str, int], dict[str, int], dict[str, int]]
"""What waits and runs, by model, and what runs, by backend."""


@frozen
class Labels:
    """What tells one series of calls from another."""

    operation: str
    requested_model: str
    model: str
    provider: str
    backend: str


class Series:
    """The counts of all calls with the same labels."""

    def __init__(self) -> None:
        self.ended: dict[tuple[int | None, str], int] = {}
        """Calls by HTTP status and error class (empty where there was none)."""
        self.finished: dict[str, int] = {}
        """Calls without an error by finish reason."""
        self.hedges: dict[str, int] = {}
        """Calls whose first token was late, by what became of a second request."""
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.price_usd = Decimal(0)
        self.priced = 0
        self.ttft = LogHistogram()
        self.tpot = LogHistogram()
        self.e2e = LogHistogram()
        self.queue = LogHistogram()
        self.sent_to_first = FixedBuckets(FIRST_TOKEN_BOUNDS)
        self.arrival_to_first = FixedBuckets(FIRST_TOKEN_BOUNDS)
        self.per_token = FixedBuckets(PER_TOKEN_BOUNDS)
        self.queued = FixedBuckets(VLLM_REQUEST_BOUNDS)
        self.durations: dict[str, FixedBuckets] = {}
        """Arrival to end, by error class (empty where there was none)."""
        self.input_tokens = FixedBuckets(TOKEN_BOUNDS)
        self.output_tokens = FixedBuckets(TOKEN_BOUNDS)

    def add_durations(self, by_error: Mapping[str, Sequence[float]]) -> None:
        """Count how long calls took, by error class (empty where there was none)."""
        self.e2e.add_all(by_error.get("", ()))
        for error, seconds in by_error.items():
            if error not in self.durations:
                self.durations[error] = FixedBuckets(DURATION_BOUNDS)
            self.durations[error].add_all(seconds)

    def distributions(self) -> tuple[LogHistogram, ...]:
        """Every distribution that quantiles are told of."""
        return (self.ttft, self.tpot, self.e2e, self.queue)

    def buckets(self) -> tuple[FixedBuckets, ...]:
        """Every distribution in fixed buckets but the durations, of which there is one an error."""
        return (
            *(self.sent_to_first, self.arrival_to_first, self.per_token, self.queued),
            *(self.input_tokens, self.output_tokens),
        )


class LiveCall:
    """One call under way, as ``Tally.began`` gave it: waiting, then running, then ended."""

    __slots__ = ("_backend", "_model", "_state", "_tally")

    def __init__(self, tally: Tally, model: str, backend: str | None = None) -> None:
        self._tally = tally
        self._model = model
        self._backend = backend
        if backend is None:
            self._state = "waiting"
            tally._gauge(tally.waiting, model, 1)
        else:
            self._state = "running"
            running, running_at = tally.running, tally.running_at
            running[model] = running.get(model, 0) + 1
            running_at[backend] = running_at.get(backend, 0) + 1

    def admitted(self, backend: str | None = None) -> None:
        """The call may run now, at ``backend`` where that is known; again: it goes on at another."""
        if self._state == "waiting":
            self._state = "running"
            self._tally._gauge(self._tally.waiting, self._model, -1)
            self._tally._gauge(self._tally.running, self._model, 1)
        if self._state == "running" and backend is not None:
            if self._backend is not None:
                self._tally._gauge(self._tally.running_at, self._backend, -1)
            self._backend = self._tally._backend_name(backend)
            self._tally._gauge(self._tally.running_at, self._backend, 1)

    def ended(self) -> None:
        """The call is over, however; a second time does nothing."""
        state, self._state = self._state, "ended"
        if state == "waiting":
            self._tally._gauge(self._tally.waiting, self._model, -1)
        elif state == "running":
            self._tally.running[self._model] -= 1
            if self._backend is not None:
                self._tally.running_at[self._backend] -= 1


class Tally:
    """Counts records as they come; ``add`` is a RecordSink.

    ``started`` is the instant it began to count. ``models`` are names that are always told apart;
    a further one is learnt from calls that reached a backend, so that callers who invent model
    names cannot use up the places. Not safe for threads: one event loop owns it.
    """

    def __init__(self, started: float, models: Iterable[str] = ()) -> None:
        self.started = started
        self.models = tuple(models)
        self._known_models: dict[str, None] = dict.fromkeys(self.models)
        self._known_backends: dict[str, None] = {}
        self._known_errors: dict[str, None] = {}
        self._by_labels: dict[Labels, Series] = {}
        self._fresh: list[CallRecord] = []
        """Taken in and not counted yet: counted together they cost half of what each alone does,
        in the middle of all else that a request needs."""
        self.waiting: dict[str, int] = {}
        self.running: dict[str, int] = {}
        self.running_at: dict[str, int] = {}
        self._window = _Window()
        self._found: dict[tuple[str | None, ...], Series] = {}

    def declare(self, models: Iterable[str]) -> None:
        """Show these before their first call from now on; what others counted stays."""
        self.models = tuple(models)
        self._known_models |= dict.fromkeys(self.models)

    def began(self, model: str | None = None) -> LiveCall:
        """A call for ``model`` has arrived and waits; tell the LiveCall how it goes on."""
        return LiveCall(self, self._name_of(model))

    def began_at(self, model: str, backend: str) -> LiveCall:
        """As ``began``, for a call that runs at ``backend`` at once."""
        if model not in self._known_models:
            model = self._name_of(model)
        if backend not in self._known_backends:
            backend = self._backend_name(backend)
        return LiveCall(self, model, backend)

    @property
    def series(self) -> dict[Labels, Series]:
        """What was counted, by what tells calls apart."""
        self.count()
        return self._by_labels

    @property
    def window(self) -> _Window:
        """What ended lately."""
        self.count()
        return self._window

    def add(self, record: CallRecord) -> None:
        """Take a finished call in."""
        fresh = self._fresh
        fresh.append(record)
        if len(fresh) >= MAX_FRESH:
            self.count()

    def count(self) -> None:
        """Count what was taken in; whoever reads has it done."""
        fresh, self._fresh = self._fresh, []
        together: dict[Series, list[CallRecord]] = {}
        for record in fresh:
            together.setdefault(self._series_of(record), []).append(record)
        for series, records in together.items():
            self._count(series, records)

    def _count(self, s: Series, records: list[CallRecord]) -> None:
        prompts: list[int] = []
        completions: list[int] = []
        queued: list[float] = []
        durations: dict[str, list[float]] = {}
        for record in records:
            t, usage = record.timeline, record.usage
            prompt = completion = None
            if usage is not None:
                prompt, completion = usage.prompt_tokens, usage.completion_tokens
                if prompt is not None:
                    prompts.append(prompt)
                if completion is not None:
                    completions.append(completion)
            error = record.error_kind or ""
            if error:
                error = _learn(self._known_errors, error, MAX_ERRORS)
            s.ended[record.status, error] = s.ended.get((record.status, error), 0) + 1
            if record.hedge is not None:
                outcome = record.hedge.outcome
                s.hedges[outcome] = s.hedges.get(outcome, 0) + 1
            if record.price_usd is not None:
                s.price_usd += record.price_usd
                s.priced += 1
            if t.done is not None:
                self._window.add(t.done, prompt or 0, completion or 0, record.batch_occupancy)
            if (seconds := _counted(timeline.queue_time(t))) is not None:
                queued.append(seconds)
            if (seconds := _counted(timeline.end_to_end(t))) is not None:
                durations.setdefault(error, []).append(seconds)
            if not error:
                reason = record.finish_reason if record.finish_reason in _REASONS else OTHER
                s.finished[reason] = s.finished.get(reason, 0) + 1
                if t.first_token is not None:
                    self._add_first_token(s, t, completion)
        s.prompt_tokens += sum(prompts)
        s.input_tokens.add_all(prompts)
        s.completion_tokens += sum(completions)
        s.output_tokens.add_all(completions)
        s.queue.add_all(queued)
        s.queued.add_all(queued)
        s.add_durations(durations)

    @staticmethod
    def _add_first_token(s: Series, t: Timeline, completion: int | None) -> None:
        if (ttft := _counted(timeline.time_to_first_token(t))) is not None:
            s.ttft.add(ttft)
            s.sent_to_first.add(ttft)
        if (first := _counted(timeline.arrival_to_first_token(t))) is not None:
            s.arrival_to_first.add(first)
        if (tpot := _counted(timeline.time_per_output_token(t, completion))) is not None:
            s.tpot.add(tpot)
            s.per_token.add(tpot)

    def snapshot(self, now: float) -> Snapshot:
        """How things stand at the instant ``now``."""
        uptime = max(0.0, now - self.started)
        window = min(WINDOW_S, uptime)
        ended, tokens_in, tokens_out, batched, occupancy = self.window.sums(now)
        by_model: dict[str, list[Series]] = {}
        by_backend: dict[str, list[Series]] = {}
        for labels, series in self.series.items():
            by_model.setdefault(model_name(labels), []).append(series)
            by_backend.setdefault(labels.backend, []).append(series)
        every = _group("", self.series.values(), 0, 0)
        priced = sum(s.priced for s in self.series.values())
        return Snapshot(
            taken=now,
            uptime_s=uptime,
            running=sum(self.running.values()),
            queued=sum(self.waiting.values()),
            requests=every.requests,
            prompt_tokens=every.prompt_tokens,
            completion_tokens=every.completion_tokens,
            window_s=window,
            requests_per_s=ended / window if window else None,
            prompt_tokens_per_s=tokens_in / window if window else None,
            completion_tokens_per_s=tokens_out / window if window else None,
            batch_occupancy=occupancy / batched if batched else None,
            price_usd=sum((s.price_usd for s in self.series.values()), Decimal(0))
            if priced
            else None,
            priced=priced,
            ttft=every.ttft,
            tpot=every.tpot,
            e2e=every.e2e,
            queue=every.queue,
            errors=every.errors,
            models=tuple(
                _group(
                    name,
                    by_model.get(name, ()),
                    self.running.get(name, 0),
                    self.waiting.get(name, 0),
                )
                for name in self.model_names()
            ),
            backends=tuple(
                _group(name, by_backend.get(name, ()), self.running_at.get(name, 0), 0)
                for name in sorted({*self.running_at, *by_backend} - {""})
            ),
        )

    def model_names(self) -> list[str]:
        """Every model that was declared, asked for or answered."""
        seen = {*self.models, *self.waiting, *self.running, *map(model_name, self.series)}
        return sorted(seen)

    def change_gauges(self, before: Gauges, now: Gauges) -> None:
        """Of what is counted in another process ``before`` was the last that we heard."""
        mine = (self.waiting, self.running, self.running_at)
        for gauge, was, is_now in zip(mine, before, now, strict=True):
            for name in was.keys() | is_now.keys():
                self._gauge(gauge, name, is_now.get(name, 0) - was.get(name, 0))

    def gauges(self) -> Gauges:
        """What waits and runs now by model, and what runs by backend."""
        of = (self.waiting, self.running, self.running_at)
        waiting, running, at = ({name: n for name, n in each.items() if n} for each in of)
        return waiting, running, at

    def begin_anew(self) -> None:
        """Forget what was counted, but neither what waits and runs nor any name."""
        self._by_labels, self._found, self._window, self._fresh = {}, {}, _Window(), []

    def _series_of(self, record: CallRecord) -> Series:
        names = record.operation, record.requested_model, record.model
        key = (*names, record.provider, record.backend)
        found = self._found.get(key)
        if found is None:
            reached = record.backend is not None or record.model is not None
            found = self._labelled(record, reached=reached)
            # What nobody was reached by may get a name of its own later.
            if reached and len(self._found) < MAX_SERIES:
                self._found[key] = found
        return found

    def _labelled(self, record: CallRecord, *, reached: bool) -> Series:
        return self._series(
            Labels(
                operation=record.operation,
                requested_model=self._model_name(record.requested_model, reached=reached),
                model=self._model_name(record.model, reached=reached),
                provider=self._backend_name(record.provider or ""),
                backend=self._backend_name(record.backend or ""),
            )
        )

    def series_of(self, labels: Labels) -> Series:
        """The counts of calls that another process has put under ``labels``."""
        told = (labels.requested_model, labels.model)
        requested, model = (
            name if name == OTHER else self._model_name(name, reached=True) for name in told
        )
        return self._series(
            Labels(
                operation=labels.operation,
                requested_model=requested,
                model=model,
                provider=self._backend_name(labels.provider),
                backend=self._backend_name(labels.backend),
            )
        )

    def _series(self, labels: Labels) -> Series:
        found = self._by_labels.get(labels)
        if found is None:
            if len(self._by_labels) >= MAX_SERIES:
                labels = Labels(labels.operation, OTHER, OTHER, OTHER, OTHER)
            found = self._by_labels.setdefault(labels, Series())
        return found

    def _name_of(self, model: str | None) -> str:
        """What a call under way is counted as."""
        if model is not None and model in self._known_models:
            return model
        self.count()  # which may make it known
        return model if model is not None and model in self._known_models else OTHER

    def _model_name(self, name: str | None, *, reached: bool) -> str:
        if not name or name in self._known_models:
            return name or ""
        return _learn(self._known_models, name, MAX_NAMES) if reached else OTHER

    def _backend_name(self, name: str) -> str:
        return _learn(self._known_backends, name, MAX_NAMES)

    @staticmethod
    def _gauge(gauge: dict[str, int], name: str, change: int) -> None:
        gauge[name] = gauge.get(name, 0) + change


def model_name(labels: Labels) -> str:
    """The one name for a series' model: what callers ask for, or else what answered."""
    return labels.requested_model or labels.model or OTHER


class _Window:
    """Calls and tokens of the last ten seconds, in slots of a tenth of a second.

    Of ten seconds' calls it leaves out at most the oldest tenth of a second's.
    """

    __slots__ = ("_slots",)
    _SLOT_S = 0.1
    _SLOTS = round(WINDOW_S / _SLOT_S)

    def __init__(self) -> None:
        self._slots = [_Slot(-1) for _ in range(self._SLOTS)]

    def add(
        self, instant: float, tokens_in: int, tokens_out: int, occupancy: float | None = None
    ) -> None:
        slot = self._slot(math.floor(instant / self._SLOT_S))
        if slot is None:
            return
        slot.calls += 1
        slot.tokens_in += tokens_in
        slot.tokens_out += tokens_out
        if occupancy is not None:
            slot.batched += 1
            slot.occupancy += occupancy

    def slots(self) -> list[tuple[int, int, int, int, int, float]]:
        """What every slot that is not empty holds, its place first."""
        return [
            (s.at, s.calls, s.tokens_in, s.tokens_out, s.batched, s.occupancy)
            for s in self._slots
            if s.calls
        ]

    def add_slot(
        self, at: int, calls: int, tokens_in: int, tokens_out: int, batched: int, occupancy: float
    ) -> None:
        """Add to the slot at that place what another window's holds, unless that time is over."""
        slot = self._slot(at)
        if slot is not None:
            slot.calls += calls
            slot.tokens_in += tokens_in
            slot.tokens_out += tokens_out
            slot.batched += batched
            slot.occupancy += occupancy

    def _slot(self, at: int) -> _Slot | None:
        slot = self._slots[at % self._SLOTS]
        if slot.at > at:
            return None
        if slot.at < at:
            slot = self._slots[at % self._SLOTS] = _Slot(at)
        return slot

    def sums(self, now: float) -> tuple[int, int, int, int, float]:
        """Calls, input tokens, output tokens; calls in a batch, and the sum of its occupancy."""
        last = math.floor(now / self._SLOT_S)
        live = [slot for slot in self._slots if last - self._SLOTS < slot.at <= last]
        return (
            sum(slot.calls for slot in live),
            sum(slot.tokens_in for slot in live),
            sum(slot.tokens_out for slot in live),
            sum(slot.batched for slot in live),
            sum(slot.occupancy for slot in live),
        )


@define
class _Slot:
    at: int
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    batched: int = 0
    occupancy: float = 0.0


_REASONS = frozenset(
    ("stop", "length", "tool_calls", "content_filter", "error", "cancelled", "other")
)


def _learn(known: dict[str, None], name: str, limit: int) -> str:
    if name in known or not name:
        return name
    if len(known) >= limit:
        return OTHER
    known[name] = None
    return name


def _counted(seconds: float | None) -> float | None:
    """A time as it can be counted: an answer that began before its request was wholly sent, or
    was recorded so, waited no time at all."""
    return None if seconds is None or not math.isfinite(seconds) else max(0.0, seconds)


def outcome_of(error: str) -> Outcome:
    """How a call ended whose error's class has this name; empty where it had none."""
    if not error:
        return "ok"
    return "cancelled" if error == "LLMCancelledError" else "error"


def _group(name: str, series: Iterable[Series], running: int, queued: int) -> GroupSnapshot:
    requests: dict[Outcome, int] = {}
    errors: dict[str, int] = {}
    prompt = completion = 0
    series = tuple(series)
    for s in series:
        for (_, error), n in s.ended.items():
            requests[outcome_of(error)] = requests.get(outcome_of(error), 0) + n
            if error:
                errors[error] = errors.get(error, 0) + n
        prompt += s.prompt_tokens
        completion += s.completion_tokens
    return GroupSnapshot(
        name=name,
        running=running,
        queued=queued,
        requests=requests,
        prompt_tokens=prompt,
        completion_tokens=completion,
        ttft=_summary_of([s.ttft for s in series]),
        tpot=_summary_of([s.tpot for s in series]),
        e2e=_summary_of([s.e2e for s in series]),
        queue=_summary_of([s.queue for s in series]),
        errors=errors,
    )


def _summary_of(parts: list[LogHistogram]) -> LatencySummary:
    if len(parts) == 1:
        return summary(parts[0])
    whole = LogHistogram()
    for part in parts:
        whole.merge(part)
    return summary(whole)


# Below these counts a quantile is not told: stats.percentile_needs at 95% confidence.
_NEEDS = {0.5: 5, 0.9: 29, 0.95: 59, 0.99: 299}


def summary(h: LogHistogram) -> LatencySummary:
    """The distribution that ``h`` counted; what too few values would say is ``None``."""
    values = h.quantiles(tuple(_NEEDS))
    p50, p90, p95, p99 = (
        v if h.count >= needed else None for v, needed in zip(values, _NEEDS.values(), strict=True)
    )
    return LatencySummary(
        count=h.count,
        mean_s=h.mean(),
        min_s=h.minimum,
        p50_s=p50,
        p90_s=p90,
        p95_s=p95,
        p99_s=p99,
        max_s=h.maximum,
    )
