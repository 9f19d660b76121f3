"""Counts a load test while it runs, in bounded memory and at little cost, and reports at its end.

It stands beside the sender in its process. Tallies of several processes, or machines, add up: what
is merged reports as if one had counted everything, but for the rounding of sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan

from msgspec import convert, to_builtins

from headrace.contracts.load import Closed, LoadPlan, Promise
from headrace.contracts.load_report import (
    Counts,
    Ended,
    ErrorCount,
    LoadReport,
    Moment,
    PromiseResult,
    Sample,
    ServerSeries,
)
from headrace.contracts.record import CallRecord
from headrace.numbers import timeline
from headrace.numbers.histogram import LogHistogram
from headrace.numbers.load_course import HEAT_BOUNDS_MS, Course
from headrace.numbers.load_figures import METRICS, Sums, figures, judge_histogram, of_values
from headrace.numbers.load_parts import (
    ErrorsPart,
    Odds,
    TallyPart,
    sums_of_part,
    sums_part,
)
from headrace.numbers.load_rows import CUT, FAILED, OK, UNKNOWN, Rows
from headrace.numbers.promises import judge, met
from headrace.numbers.trust import judge_trust
from headrace.numbers.trust_facts import RunFacts, SenderFacts

MOST_ROWS = 1_000_000
"""What comes after is counted in histograms: 1% instead of exact, and no longer row by row."""

MOST_LISTED = 200_000
"""A report of more requests than this (some 20 MB of JSON) does not list them one by one."""

_LARGEST_COUNT = 1 << 53


class LoadTally:
    """Takes in what a sender of ``plan`` sees. Instants handed in are of the records' clock.

    ``began`` says which instant is the run's beginning. For each request the sender says ``sent``
    as it takes it up and ``add`` when it is over; ``first_token`` is for a view while it runs:
    without it the time line knows a first token only when its request is over.
    """

    def __init__(
        self, plan: LoadPlan, bucket_s: float = 1.0, *, most_rows: int = MOST_ROWS
    ) -> None:
        self.plan = plan
        self.course = Course(bucket_s)
        self._most_rows = most_rows
        self._begin = 0.0
        self._rows = Rows()
        self._sums: dict[str | None, Sums] = {}
        self._schedule_lag = LogHistogram()
        self._read_lag = LogHistogram()
        self._loop_lag = LogHistogram()
        self._errors: dict[tuple[str, int | None], ErrorsPart] = {}
        self._odds = Odds()
        self._hears_first_tokens = False

    # What a sender says.

    def began(self, at: float) -> None:
        """The run begins at ``at``."""
        self._begin = at

    def sent(self, at: float) -> None:
        """A request was taken up: from now on it is in flight, or waits for its turn."""
        self.course.taken(at - self._begin)

    def first_token(self, at: float, ttft_s: float) -> None:
        """A request had its first token at ``at``, ``ttft_s`` after it was intended (or sent)."""
        self._hears_first_tokens = True
        self.course.first_token(at - self._begin, ttft_s * 1e3)

    def waits(self, at: float, count: int) -> None:
        """At ``at`` so many requests are due and wait for their turn."""
        self.course.waits(at - self._begin, count)

    def late(self, seconds: float) -> None:
        """A request was sent so long after it could be."""
        self._schedule_lag.add(seconds * 1e3 if seconds > 0.0 else 0.0)

    def read_late(self, seconds: float) -> None:
        """Bytes were read so long after they had arrived, by the kernel's word."""
        self._read_lag.add(seconds * 1e3 if seconds > 0.0 else 0.0)

    def loop_late(self, seconds: float) -> None:
        """The sender's loop came so long after a tick was due."""
        self._loop_lag.add(seconds * 1e3 if seconds > 0.0 else 0.0)

    def never_sent(self, count: int, longest_wait_s: float = 0.0) -> None:
        """So many requests that were due waited until the end, one of them ``longest_wait_s``."""
        self._odds.never_sent += count
        self._odds.longest_wait_s = max(self._odds.longest_wait_s, longest_wait_s)
        self.course.given_up(count)

    def add(self, sample: Sample) -> None:
        """A request is over."""
        record, odds = sample.record, self._odds
        t, failed, cut = record.timeline, record.error_kind is not None, sample.cut
        ended = t.done if t.done is not None else self._begin
        at = ended - self._begin
        self.course.ended(at, failed=failed, cut=cut)
        gaps = LogHistogram()
        gaps_ms: list[float] = []
        output_tokens = None
        well = not (failed or cut)
        intended = t.sent if t.intended is None else t.intended
        service, service_ttft = _ms(timeline.backend_time(t)), _ms(timeline.time_to_first_token(t))
        if t.intended is None:
            latency, ttft = service, service_ttft
        else:
            latency = _ms(timeline.latency_from_intended(t))
            ttft = _ms(timeline.first_token_from_intended(t))
        if well:
            if sample.gaps_s:
                # Two clocks are behind the instants, so a gap can come out just below zero.
                gaps_ms = [g * 1e3 if g > 0.0 else 0.0 for g in sample.gaps_s]
                gaps.add_all(gaps_ms)
            input_tokens, output_tokens = self._tokens(record, sample)
            known = (input_tokens or 0, output_tokens or 0)
            self.course.answered(at, latency_ms=latency, gaps=gaps, tokens=known)
            if ttft is not None and not self._hears_first_tokens and t.first_token is not None:
                self.course.first_token(t.first_token - self._begin, ttft)
            odds.all_tokens += known[1]
        else:
            input_tokens = self._whole(sample.input_tokens)
        self._pieces(sample)
        if sample.phase != "measured":
            self._beside(sample, failed=failed and not cut)
            return
        if failed and not cut:
            self._failed(record, sample, at)
        sums = self._sums_of(sample.scenario)
        sums.sent += t.sent is not None
        sums.ok += well
        sums.cut += cut
        sums.failed += failed and not cut
        sums.span(None if intended is None else intended - self._begin, at)
        if well:
            sums.input_tokens += input_tokens or 0
            sums.output_tokens += output_tokens or 0
            sums.itl.add_all(gaps_ms)
        tpot_s = timeline.time_per_output_token(t, output_tokens)
        tpot = None if tpot_s is None or not well else tpot_s * 1e3
        if well and self.plan.promises:
            sums.good += met(
                self.plan.promises,
                ttft_ms=ttft,
                tpot_ms=tpot,
                latency_ms=latency,
                worst_gap_ms=gaps.maximum,
                failed=False,
            )
        self._keep(
            sums,
            (
                UNKNOWN if t.intended is None else t.intended - self._begin,
                UNKNOWN if t.sent is None else t.sent - self._begin,
                _known(latency if well else None),
                _known(service if well else None),
                _known(ttft if well else None),
                _known(service_ttft if well else None),
                _known(tpot),
                _known(gaps.maximum),
                _known(None if sample.connect_s is None else sample.connect_s * 1e3),
                _known(timeline.output_tokens_per_s(t, output_tokens) if well else None),
                sample.index,
                -1 if input_tokens is None else input_tokens,
                -1 if output_tokens is None else output_tokens,
                record.chunks,
                -1 if record.status is None else record.status,
                self._rows.errors.number("cut" if cut else record.error_kind),
                self._rows.scenarios.number(sample.scenario),
                OK if well else CUT if cut else FAILED,
            ),
        )

    # What others ask.

    def moments(self) -> tuple[Moment, ...]:
        """The time line so far."""
        return self.course.moments()

    def moment(self, now: float) -> Moment | None:
        """The last interval that was over at the instant ``now``; None in the first."""
        return self.course.moment(now - self._begin)

    def merge(self, other: LoadTally) -> None:
        """Count here all that ``other``, of a run that began at the same time, counted."""
        for name, sums in other._sums.items():
            self._sums_of(name).add(sums)
        for row in self._rows.translated(other._rows):
            self._keep(self._sums_of(self._rows.scenarios.text(int(row[_SCENARIO]))), row)
        self.course.merge(other.course)
        self._schedule_lag.merge(other._schedule_lag)
        self._read_lag.merge(other._read_lag)
        self._loop_lag.merge(other._loop_lag)
        for errors in other._errors.values():
            self._count_errors(errors)
        mine, theirs = self._odds, other._odds
        for field in Odds.__struct_fields__:
            if field != "longest_wait_s":
                setattr(mine, field, getattr(mine, field) + getattr(theirs, field))
        mine.longest_wait_s = max(mine.longest_wait_s, theirs.longest_wait_s)

    def to_plain(self) -> dict[str, object]:
        """All of it in values that msgspec's formats know (the rows are bytes)."""
        part = TallyPart(
            rows=self._rows.to_plain(),
            sums=[(name, sums_part(sums)) for name, sums in self._sums.items()],
            course=self.course.to_plain(),
            schedule_lag=self._schedule_lag.to_plain(),
            read_lag=self._read_lag.to_plain(),
            loop_lag=self._loop_lag.to_plain(),
            errors=list(self._errors.values()),
            odds=self._odds,
        )
        plain: dict[str, object] = to_builtins(part, builtin_types=(bytes,))
        return plain

    @classmethod
    def from_plain(cls, plan: LoadPlan, plain: Mapping[str, object]) -> LoadTally:
        """What ``to_plain`` wrote; ValueError where it is something else."""
        part = convert(plain, TallyPart)
        made = cls(plan)
        made._rows = Rows.from_plain(part.rows)
        for name, each in part.sums:
            made._sums[name] = sums_of_part(each)
        made.course = Course.from_plain(part.course)
        made._schedule_lag = LogHistogram.from_plain(part.schedule_lag)
        made._read_lag = LogHistogram.from_plain(part.read_lag)
        made._loop_lag = LogHistogram.from_plain(part.loop_lag)
        made._errors = {(e.kind, e.status): e for e in part.errors}
        made._odds = part.odds
        return made

    def report(
        self,
        *,
        run_id: str,
        started: str,
        ended: Ended,
        facts: SenderFacts,
        server: tuple[ServerSeries, ...] = (),
        notes: Sequence[str] = (),
        version: str = "",
    ) -> LoadReport:
        """The whole report; ``started`` is the time of day in ISO 8601."""
        rows, odds, plan = self._rows, self._odds, self.plan
        whole = Sums()
        for sums in self._sums.values():
            whole.add(sums)
        judged = bool(plan.promises)
        overall = figures(
            rows,
            whole,
            judged=judged,
            counts=_counts(
                whole,
                sent=whole.sent + odds.sent_beside,
                warmup=odds.warmup,
                cooldown=odds.cooldown,
                never_sent=odds.never_sent,
            ),
        )
        closed = isinstance(plan.arrivals, Closed)
        ttft = overall.ttft or overall.latency
        trust = judge_trust(
            RunFacts(
                sender=facts,
                schedule_lag=self._schedule_lag,
                read_lag=self._read_lag,
                loop_lag=self._loop_lag,
                closed_loop=closed,
                ttft_p50_ms=ttft.percentiles.get("p50") if ttft is not None else None,
                itl_p50_ms=overall.itl.percentiles.get("p50") if overall.itl is not None else None,
                sent=overall.counts.sent,
                ok=whole.ok,
                failed=whole.failed,
                cut=whole.cut,
                never_sent=odds.never_sent,
                longest_wait_s=odds.longest_wait_s,
                pieces=odds.pieces,
                coalesced=odds.coalesced,
                first_together=odds.first_together,
                output_tokens=odds.all_tokens,
            )
        )
        listed = len(rows) <= MOST_LISTED and not whole.beyond
        return LoadReport(
            run_id=run_id,
            started=started,
            plan=plan,
            ended=ended,
            closed_loop=closed,
            figures=overall,
            trust=trust,
            version=version,
            errors=tuple(
                ErrorCount(kind=e.kind, count=e.count, status=e.status, example=e.example)
                for e in sorted(
                    self._errors.values(), key=lambda e: (-e.count, e.kind, e.status or 0)
                )
            ),
            connect=of_values([v for v in rows.data["connect"] if not isnan(v)], "ms"),
            promises=tuple(self._judged(p, whole, ended) for p in plan.promises),
            scenarios={
                name: figures(
                    rows,
                    sums,
                    judged=judged,
                    counts=_counts(sums, sent=sums.sent),
                    scenario=rows.scenarios.number(name),
                )
                for name, sums in sorted(self._sums.items(), key=lambda pair: pair[0] or "")
                if name is not None
            },
            series=self.course.moments(),
            heat_bounds_ms=HEAT_BOUNDS_MS,
            server=server,
            requests=rows.columns() if listed else None,
            notes=(*notes, *self._notes(whole, listed=listed)),
        )

    # How it is done.

    def _judged(self, promise: Promise, whole: Sums, ended: Ended) -> PromiseResult:
        """Requests that were still not through after ``drain_s`` have missed it, like the failed."""
        missed = whole.failed
        if ended == "complete" and self.plan.drain_s * 1e3 >= promise.below:
            missed += self._odds.never_sent + (whole.cut if promise.metric == "latency" else 0)
        if promise.metric == "itl":
            return judge_histogram(promise, whole.itl, whole.failed)
        beyond = whole.beyond.get(promise.metric)
        values = self._rows.values(promise.metric) if promise.metric in METRICS else []
        if beyond is not None and beyond.count:
            together = LogHistogram()
            together.add_all([max(0.0, v) for v in values])
            together.merge(beyond)
            return judge_histogram(promise, together, missed)
        if promise.metric == "errors":
            return judge(promise, (), failed=whole.failed, total=whole.ok + whole.failed)
        return judge(promise, values, failed=missed, total=whole.ok + missed)

    def _pieces(self, sample: Sample) -> None:
        odds = self._odds
        odds.pieces += sample.record.chunks
        odds.coalesced += sample.coalesced
        # Of what was read together the kernel tells one instant: that of the last to come.
        odds.first_together += bool(sample.coalesced and sample.gaps_s and sample.gaps_s[0] <= 0.0)

    def _beside(self, sample: Sample, *, failed: bool) -> None:
        """A request of the warm-up or the cool-down."""
        odds = self._odds
        odds.warmup += sample.phase == "warmup"
        odds.cooldown += sample.phase == "cooldown"
        odds.sent_beside += sample.record.timeline.sent is not None
        odds.failed_beside += failed

    def _tokens(self, record: CallRecord, sample: Sample) -> tuple[int | None, int | None]:
        """Input and output tokens: by usage, else as the workload counted, else by pieces."""
        usage, odds = record.usage, self._odds
        given = self._whole(usage.prompt_tokens) if usage is not None else None
        made = self._whole(usage.completion_tokens) if usage is not None else None
        if given is None:
            given = self._whole(sample.input_tokens)
        if made is None and record.operation in ("chat", "completion"):
            if record.stream and record.chunks:
                made = record.chunks
                odds.by_pieces += 1
            else:
                odds.no_tokens += 1
        return given, made

    def _whole(self, count: int | None) -> int | None:
        """``count`` where it can be one: a server may say anything."""
        if count is None or 0 <= count < _LARGEST_COUNT:
            return count
        self._odds.strange_counts += 1
        return None

    def _failed(self, record: CallRecord, sample: Sample, at: float) -> None:
        assert record.error_kind is not None
        self._count_errors(ErrorsPart(record.error_kind, record.status, 1, at, sample.error or ""))

    def _count_errors(self, some: ErrorsPart) -> None:
        known = self._errors.get((some.kind, some.status))
        if known is None:
            self._errors[some.kind, some.status] = ErrorsPart(
                some.kind, some.status, some.count, some.first, some.example
            )
            return
        known.count += some.count
        if some.first < known.first:
            known.first, known.example = some.first, some.example

    def _sums_of(self, scenario: str | None) -> Sums:
        found = self._sums.get(scenario)
        if found is None:
            found = self._sums[scenario] = Sums()
        return found

    def _keep(self, sums: Sums, row: tuple[float, ...]) -> None:
        if len(self._rows) < self._most_rows:
            self._rows.append(row)
            return
        if row[_FATE] != OK:
            return  # it is in the sums already, and has no values
        for name in METRICS:
            value = row[_PLACES[name]]
            if not isnan(value) and value != -1:
                sums.beyond.setdefault(name, LogHistogram()).add(max(0.0, value))

    def _notes(self, whole: Sums, *, listed: bool) -> list[str]:
        odds, notes = self._odds, []
        if odds.by_pieces:
            notes.append(
                f"tokens counted by pieces: the server gave no usage for {odds.by_pieces} requests"
            )
        if odds.no_tokens:
            notes.append(
                f"output tokens unknown for {odds.no_tokens} requests: neither usage nor a stream"
            )
        if odds.strange_counts:
            notes.append(
                f"{odds.strange_counts} token counts were below 0 or above 2^53 and are left out"
            )
        if odds.failed_beside:
            notes.append(
                f"{odds.failed_beside} requests of the warm-up or cool-down failed; they are in no"
                " figure"
            )
        if whole.itl.count:
            notes.append("percentiles of the gaps between tokens are within 0.1%; the others exact")
        if whole.beyond:
            notes.append(
                f"past {self._most_rows} requests all percentiles are within 1% instead of exact"
            )
        if not listed:
            notes.append(f"more than {MOST_LISTED} requests: not listed one by one")
        return notes


_NAMES = tuple(Rows().data)
_PLACES = {name: i for i, name in enumerate(_NAMES)}
_SCENARIO = _PLACES["scenario"]
_FATE = _PLACES["fate"]


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3


def _known(value: float | None) -> float:
    return UNKNOWN if value is None else value


def _counts(
    sums: Sums, *, sent: int, warmup: int = 0, cooldown: int = 0, never_sent: int = 0
) -> Counts:
    return Counts(
        sent=sent,
        measured=sums.ok + sums.failed + sums.cut,
        ok=sums.ok,
        failed=sums.failed,
        cut=sums.cut,
        warmup=warmup,
        cooldown=cooldown,
        never_sent=never_sent,
    )
