"""A whole load test: look at the target, drive the load, count what comes, report."""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from time import monotonic

from attrs import evolve

from headrace.bench.load.bounds import check
from headrace.bench.load.drive import Stop
from headrace.bench.load.line import Place
from headrace.bench.load.preflight import Sight, look
from headrace.bench.load.process import drive
from headrace.bench.load.shares import Driven, Share
from headrace.bench.load.target import Target, target_of, tls_of
from headrace.contracts.load import LoadPlan
from headrace.contracts.load_report import LoadReport, Moment, ServerSeries

__all__ = ["Stop", "load", "run"]


async def run(
    plan: LoadPlan,
    *,
    on_moment: Callable[[Moment], None] | None = None,
    stop: Stop | None = None,
) -> LoadReport:
    """Carry out ``plan`` in this process and report.

    ``on_moment`` is told of every second that is over. ``stop`` ends the run early; its report is
    whole all the same. Raises an LLMError where the plan is wrong, or the target cannot be reached,
    refuses the key, or does not know the model.
    """
    check(plan)
    stop = stop or Stop()
    run_id = new_run_id()
    target = target_of(plan)
    found = await look_at(plan, target, stop)
    if found is None:
        return report_of(run_id, nothing_driven(plan))
    from headrace.bench.load.beside import Beside

    beside = Beside(plan, target)

    async def when() -> float:
        begin = monotonic()
        beside.begin(begin)
        return begin

    try:
        driven = await drive(
            plan,
            target,
            found,
            run_id=run_id,
            share=Share(),
            when=when,
            stop=stop,
            on_moment=on_moment,
        )
    finally:
        server, notes = await beside.end()
    return report_of(run_id, evolve(driven, notes=driven.notes + notes), server)


def load(
    plan: LoadPlan,
    *,
    on_moment: Callable[[Moment], None] | None = None,
    stop: Stop | None = None,
) -> LoadReport:
    """``run`` for those who have no event loop: with ``plan.workers`` processes, and Ctrl-C.

    The first Ctrl-C ends the load and waits a moment for what is in flight; the second does not.
    """
    check(plan)
    stop = stop or Stop()
    with interrupts_ask(stop):
        if plan.workers > 1:
            from headrace.bench.load.workers import load_by_workers

            return load_by_workers(plan, on_moment=on_moment, stop=stop)
        with runner() as loop_runner:
            return loop_runner.run(run(plan, on_moment=on_moment, stop=stop))


def runner() -> asyncio.Runner:
    """Runs on uvloop where there is one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


def interrupts_ask(stop: Stop) -> AbstractContextManager[object]:
    """While it lasts, SIGINT asks ``stop``; only the main thread can have that."""
    import signal
    import threading
    from contextlib import contextmanager

    if threading.current_thread() is not threading.main_thread():
        return nullcontext()

    @contextmanager
    def asking() -> Iterator[None]:
        before = signal.signal(signal.SIGINT, lambda *_: stop.ask())
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    return asking()


def new_run_id() -> str:
    """A name for a run: when it was, and a word that no other run has."""
    return time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + secrets.token_hex(3)


async def look_at(plan: LoadPlan, target: Target, stop: Stop) -> Sight | None:
    """What the target says of itself; None where ``stop`` was asked for first."""
    tls = tls_of(plan, target)

    def place_at(family: socket.AddressFamily, address: tuple[object, ...]) -> Place:
        return Place(family, address, target.peer, target.host, tls, kernel_times=plan.kernel_times)

    return await look(plan, target, place_at, lambda: stop.level > 0)


def nothing_driven(plan: LoadPlan) -> Driven:
    """What there is to tell of a run that was ended before it began."""
    from headrace.numbers.load_tally import LoadTally
    from headrace.numbers.trust_facts import SenderFacts

    now = monotonic()
    tally = LoadTally(plan)
    tally.began(now)
    return Driven(
        tally=tally,
        facts=SenderFacts(),
        ended="interrupted",
        started=time.time(),
        notes=("it was interrupted before the first request was sent",),
    )


def report_of(run_id: str, driven: Driven, server: tuple[ServerSeries, ...] = ()) -> LoadReport:
    """The report of a run that was driven."""
    from datetime import datetime, timezone
    from importlib.metadata import version

    started = datetime.fromtimestamp(driven.started, timezone.utc)
    return driven.tally.report(
        run_id=run_id,
        started=started.isoformat(timespec="milliseconds"),
        ended=driven.ended,
        facts=driven.facts,
        server=server,
        notes=driven.notes,
        version=version("headrace"),
    )
