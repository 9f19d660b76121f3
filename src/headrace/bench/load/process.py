"""What one sending process does: make all ready, drive its share of the load, count what comes."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from time import monotonic
from typing import TYPE_CHECKING

from attrs import evolve

from headrace.bench.load.drive import Drive, Stop
from headrace.bench.load.own import Account
from headrace.bench.load.preflight import Sight, explained
from headrace.bench.load.pulse import Pulse
from headrace.bench.load.samples import Sampling
from headrace.bench.load.sender import Call, Sender
from headrace.bench.load.shares import Driven, Share, split
from headrace.bench.load.target import Target, tls_of
from headrace.bench.load.writing import Ahead, Writer, fetched
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.load import Asked, Closed, LoadPlan, Replay, Synthetic
from headrace.contracts.load_report import Moment

if TYPE_CHECKING:
    import ssl

    from headrace.numbers.load_course import Course
    from headrace.numbers.load_tally import LoadTally

_WRITING_FIRST_S = 0.1
_CONNECTED_FIRST_S = 2.0


class _Watch:
    """Brings what happens to the tally, and every second that is over to who looks on."""

    def __init__(
        self,
        tally: LoadTally,
        pulse: Pulse,
        on_moment: Callable[[Moment], None] | None,
        on_course: Callable[[Course], None] | None,
    ) -> None:
        self.tally = tally
        self.begin = 0.0
        self.sender: Sender | None = None
        self.pulse = pulse
        self._on_moment, self._on_course = on_moment, on_course
        self._told = -1.0

    def sent(self, at: float) -> None:
        self.tally.sent(at)

    def looked(self, now: float) -> None:
        sender = self.sender
        assert sender is not None
        lags, sender.read_lags = sender.read_lags, []
        for lag in lags:
            self.tally.read_late(lag)
        lags, sender.schedule_lags = sender.schedule_lags, []
        for lag in lags:
            self.tally.late(lag)
        lags, self.pulse.late = self.pulse.late, []
        for lag in lags:
            self.tally.loop_late(lag)
        self.tally.waits(now, len(sender.waiting))
        if self._on_moment is None and self._on_course is None:
            return
        moment = self.tally.moment(now)
        if moment is None or moment.at == self._told:
            return
        self._told = moment.at
        if self._on_moment is not None:
            self._on_moment(moment)
        if self._on_course is not None:
            self._on_course(self.tally.course.piece(now - self.begin))


async def drive(
    plan: LoadPlan,
    target: Target,
    found: Sight,
    *,
    run_id: str,
    share: Share,
    stop: Stop,
    when: Callable[[], Awaitable[float]],
    on_moment: Callable[[Moment], None] | None = None,
    on_course: Callable[[Course], None] | None = None,
) -> Driven:
    """Drive one share of the load.

    ``when`` is asked once all is ready, and says at which instant to begin. ``on_course`` is told of each interval that is over, to be added to those of others.
    """
    from headrace.numbers.load_tally import LoadTally

    loop = asyncio.get_running_loop()
    plan = evolve(plan, model=found.model)
    allow_open_files()
    writer = Writer(plan, target, found.model)
    seconds, wanted = arrivals_of(plan, share, tls_of(plan, target))
    tally = LoadTally(plan)
    plan = split(plan, share)
    ahead = Ahead(wanted, writer.write, most=plan.requests)
    pulse = Pulse(loop)
    watch = _Watch(tally, pulse, on_moment, on_course)
    mine = Drive(
        plan, loop=loop, ahead=ahead, writer=writer, seconds=seconds, watcher=watch, stop=stop
    )
    wall_less_monotonic = time.time() - monotonic()
    sampling = Sampling(
        plan,
        run_id=run_id,
        share=share,
        model=found.model,
        backend=target.peer,
        wall_less_monotonic=wall_less_monotonic,
    )
    with records_of(plan) as keep:

        def count(call: Call) -> None:
            sample = sampling.sample(call)
            tally.add(sample)
            if keep is not None:
                keep(sample.record)

        def finished(call: Call) -> None:
            sender.inbox.put_last(count, call)
            mine.finished(call)

        sender = Sender(
            loop,
            found.place,
            plan.kind,
            at_most=_most_at_once(plan),
            timeout_s=plan.timeout_s,
            finished=finished,
        )
        watch.sender = sender
        first = most_at_first(plan)
        ahead.fill(_WRITING_FIRST_S, most=min(first + 16, 256))
        sender.prepare(first)
        await _until_ready(sender, first, stop)
        gc.collect()
        gc.freeze()
        begin = await when()
        tally.began(begin)
        watch.begin = begin
        account = Account()
        pulse.begin(begin, sender.inbox.behind_s)
        try:
            await mine.run(sender, begin)
        finally:
            pulse.close()
            gc.unfreeze()
            sender.inbox.count_all()
            watch.looked(monotonic())
            facts = account.facts(
                sender, mine.end - begin, kernel_times=found.place.clock is not None
            )
            sender.close()
    if mine.fatal is not None:
        raise explained(mine.fatal, target, found.model, found.models)
    tally.never_sent(mine.never_sent, mine.longest_wait_s)
    return Driven(
        tally=tally,
        facts=facts,
        ended=mine.ended,
        started=wall_less_monotonic + begin,
        notes=found.notes + notes_of(plan, mine, ahead),
    )


def _most_at_once(plan: LoadPlan) -> int | None:
    return plan.arrivals.concurrency if isinstance(plan.arrivals, Closed) else plan.at_most


def most_at_first(plan: LoadPlan) -> int:
    """How many connections are made before the load begins."""
    arrivals = plan.arrivals
    if isinstance(arrivals, Closed):
        first = arrivals.concurrency
    else:
        rate = getattr(arrivals, "rate", None) or getattr(arrivals, "begin", None) or 1.0
        first = max(getattr(arrivals, "size", 0), int(rate))
        if plan.at_most is not None:
            first = min(first, plan.at_most)
    if plan.requests is not None:
        first = min(first, plan.requests)
    return max(1, min(first, 256 if not isinstance(arrivals, Closed) else first))


async def _until_ready(sender: Sender, lines: int, stop: Stop) -> None:
    """Wait for the first connections; a target that lets in fewer is told of by what follows."""
    until = monotonic() + _CONNECTED_FIRST_S
    while sender.ready < lines and monotonic() < until and not stop.level:
        if sender.refused_since is not None:
            return
        await asyncio.sleep(0.001)


def arrivals_of(
    plan: LoadPlan, share: Share, tls: ssl.SSLContext | None
) -> tuple[Iterator[float] | None, Iterator[Asked]]:
    """When this share of the load is sent (None: as answers come), and what it says."""
    from headrace.bench.load.arrivals import schedule
    from headrace.bench.load.arrivals import share as part_of
    from headrace.bench.load.workload import asked

    try:
        if isinstance(plan.workload, Synthetic) or isinstance(plan.arrivals, Replay):
            from headrace.bench.load.tokenizers import TargetTokenizer, find_tokenizer

            counter = find_tokenizer(
                plan.model, plan.url, named=plan.tokenizer, headers=plan.headers, tls=tls
            )
            wanted = asked(plan, counter, part=share.part, parts=share.parts)
            if isinstance(counter, TargetTokenizer):
                wanted = fetched(wanted)
        else:
            wanted = asked(plan, part=share.part, parts=share.parts)
        if isinstance(plan.arrivals, Closed):
            return None, wanted
        return part_of(schedule(plan.arrivals, plan.seed), share.part, share.parts), wanted
    except ValueError as error:
        raise LLMInvalidRequestError(str(error)) from error


def records_of(plan: LoadPlan) -> AbstractContextManager[Callable[..., None] | None]:
    """The file of records, where the plan names one."""
    if plan.records is None:
        return nullcontext()
    from headrace.traffic.sinks import JsonlFile

    try:
        return JsonlFile(str(plan.records))
    except OSError as error:
        raise LLMInvalidRequestError(
            f"records is {str(plan.records)!r}, which cannot be written: {error.strerror}",
            param="records",
        ) from error


def notes_of(plan: LoadPlan, mine: Drive, ahead: Ahead) -> tuple[str, ...]:
    """What a reader of the report should know beside its figures."""
    notes = []
    if mine.ended == "target lost":
        notes.append("the target let nobody in any more, so the run ended before its time")
    if ahead.late > 1:
        notes.append(f"{ahead.late} requests were written only when they were due")
    return tuple(notes)


def allow_open_files() -> None:
    """Take as many open files as this process may have: each connection is one."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft not in (hard, resource.RLIM_INFINITY):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):
            return  # where it is too few, the connection that fails says so
