"""Several sending processes on one machine, each on a core of its own where there are enough.

Each is a fresh interpreter that is told its share over its standard input, begins at the same
instant as the others, and tells over its standard output what it measured. It ends when its input
does, so that none outlives whoever started it.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic
from typing import Any

from attrs import evolve
from msgspec import msgpack

from headrace.bench.load import run as running
from headrace.bench.load.beside import Beside
from headrace.bench.load.drive import Stop
from headrace.bench.load.shares import (
    Driven,
    Share,
    all_together,
    read_driven,
    split,
    write_driven,
)
from headrace.bench.load.target import target_of
from headrace.contracts import errors
from headrace.contracts.errors import LLMError, LLMProviderError
from headrace.contracts.load import LoadPlan
from headrace.contracts.load_report import LoadReport, Moment
from headrace.numbers.load_course import Course

_READY_WITHIN_S = 60.0
_BEGIN_IN_S = 0.1
_ASKED_EVERY_S = 0.05
_MOMENT_AFTER_S = 0.5
"""How long after its end an interval is told: by then all have told their part of it."""

Told = dict[str, Any]


def work(plan: LoadPlan, share: Share, begin_at: float) -> bytes:
    """Drive a share of ``plan`` from the time of day ``begin_at`` on; ``read_driven`` reads it.

    For those who have ways of their own to other machines: the clocks there need to agree as well
    as the load's beginning is to.
    """

    async def when() -> float:
        return begin_at - time.time() + monotonic()

    with running.runner() as runner:
        return write_driven(runner.run(_drive(plan, share, Stop(), when, None, "")))


async def _drive(
    plan: LoadPlan,
    share: Share,
    stop: Stop,
    when: Callable[[], Awaitable[float]],
    on_course: Callable[[Course], None] | None,
    run_id: str,
) -> Driven:
    target = target_of(plan)
    found = await running.look_at(plan, target, stop)
    if found is None:
        return running.nothing_driven(plan)
    return await running.drive(
        plan, target, found, run_id=run_id, share=share, when=when, stop=stop, on_course=on_course
    )


# The worker's side.


def main() -> None:
    """What a worker runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # its parent hears it and tells
    with running.runner() as runner:
        runner.run(_serve())


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**30)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    out = sys.stdout.buffer.fileno()
    # Whatever prints must not print between our frames.
    sys.stdout = sys.stderr
    job = pickle.loads(await _frame(reader))  # noqa: S301 - from the process that started this one
    plan, share, run_id, core = job["plan"], job["share"], job["run_id"], job["core"]
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    stop = Stop()
    begin: asyncio.Future[float] = loop.create_future()

    async def listen() -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                said = msgpack.decode(await _frame(reader))
                if "begin" in said and not begin.done():
                    begin.set_result(said["begin"])
                elif "stop" in said:
                    stop.ask()
                    if not begin.done():
                        begin.set_result(monotonic())
        os._exit(1)  # nobody is there to be told of anything

    async def when() -> float:
        _tell(out, {"ready": True})
        return await begin

    def on_course(course: Course) -> None:
        _tell(out, {"course": course.to_plain()})

    listening = loop.create_task(listen())
    try:
        driven = await _drive(plan, share, stop, when, on_course, run_id)
    except LLMError as error:
        _tell(out, {"error": [type(error).__name__, error.message, error.status]})
    else:
        _tell(out, {"driven": write_driven(driven)})
    listening.cancel()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    size = int.from_bytes(await reader.readexactly(4), "big")
    return await reader.readexactly(size)


def _framed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _tell(out: int, said: Told) -> None:
    data = memoryview(_framed(msgpack.encode(said)))
    while data:
        data = data[os.write(out, data) :]


# The side of who starts them.


class _Worker:
    """One process, and what it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.ready = asyncio.Event()
        self.over = False
        self.driven: bytes | None = None
        self.error: LLMError | None = None
        self.courses: list[Told] = []

    async def listen(self) -> None:
        out = self.process.stdout
        assert out is not None
        try:
            while True:
                said = msgpack.decode(await _frame(out))
                if "ready" in said:
                    self.ready.set()
                elif "course" in said:
                    self.courses.append(said["course"])
                elif "driven" in said:
                    self.driven = said["driven"]
                else:
                    name, message, status = said["error"]
                    self.error = getattr(errors, name)(message, status=status)
        except asyncio.IncompleteReadError:
            self.over = True
            self.ready.set()

    def tell(self, said: Told) -> None:
        pipe = self.process.stdin
        assert pipe is not None
        if not self.over:
            pipe.write(_framed(msgpack.encode(said)))


def load_by_workers(
    plan: LoadPlan, *, on_moment: Callable[[Moment], None] | None, stop: Stop
) -> LoadReport:
    """Carry out ``plan`` by ``plan.workers`` processes."""
    with running.runner() as runner:
        return runner.run(_load(plan, on_moment, stop))


async def _load(
    plan: LoadPlan, on_moment: Callable[[Moment], None] | None, stop: Stop
) -> LoadReport:
    shares = [Share(part, plan.workers) for part in range(plan.workers)]
    for share in shares:
        split(plan, share)  # says what does not divide before anything is started
    run_id = running.new_run_id()
    target = target_of(plan)
    found = await running.look_at(plan, target, stop)
    if found is None:
        return running.report_of(run_id, running.nothing_driven(plan))
    plan = evolve(plan, model=found.model)
    beside = Beside(plan, target)
    workers: list[_Worker] = []
    listening: list[asyncio.Task[None]] = []
    try:
        for share, core in zip(shares, _cores(plan.workers), strict=True):
            workers.append(await _start(plan, share, run_id, core))
            listening.append(asyncio.create_task(workers[-1].listen()))
        await _drive_all(workers, beside, on_moment, stop)
    finally:
        server, notes = await beside.end()
        for worker in workers:
            if worker.process.returncode is None:
                with suppress(ProcessLookupError):
                    worker.process.kill()
        for worker in workers:
            await worker.process.wait()
        await asyncio.gather(*listening)
    failed = next((worker.error for worker in workers if worker.error is not None), None)
    if failed is not None:
        raise failed
    parts = [read_driven(plan, each.driven) for each in workers if each.driven is not None]
    if not parts:
        raise LLMProviderError(
            f"all {plan.workers} workers died before they could tell anything; what they said "
            "last stands above, on standard error",
            transient=False,
        )
    whole = all_together(plan, parts, lost=len(workers) - len(parts))
    said = found.notes + _core_notes(plan) + whole.notes + notes
    return running.report_of(run_id, evolve(whole, notes=tuple(dict.fromkeys(said))), server)


async def _start(plan: LoadPlan, share: Share, run_id: str, core: int | None) -> _Worker:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from headrace.bench.load.workers import main; main()",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**30,
    )
    assert process.stdin is not None
    job = {"plan": plan, "share": share, "run_id": run_id, "core": core}
    process.stdin.write(_framed(pickle.dumps(job)))
    return _Worker(process)


async def _drive_all(
    workers: list[_Worker], beside: Beside, on_moment: Callable[[Moment], None] | None, stop: Stop
) -> None:
    """From the first of them that is ready to the last that has told what it measured."""
    until = monotonic() + _READY_WITHIN_S
    while not all(worker.ready.is_set() for worker in workers) and monotonic() < until:
        if stop.level:
            break
        await asyncio.sleep(_ASKED_EVERY_S / 5)
    begin = monotonic() + _BEGIN_IN_S
    for worker in workers:
        worker.tell({"begin": begin})
    beside.begin(begin)
    course, told, asked = Course(), -1.0, 0
    while not all(worker.over for worker in workers):
        await asyncio.sleep(_ASKED_EVERY_S)
        while asked < stop.level:
            asked += 1
            for worker in workers:
                worker.tell({"stop": True})
        for worker in workers:
            for each in worker.courses:
                course.merge(Course.from_plain(each))
            worker.courses.clear()
        if on_moment is not None:
            moment = course.moment(monotonic() - begin - _MOMENT_AFTER_S)
            if moment is not None and moment.at != told:
                told = moment.at
                on_moment(moment)


def _cores(workers: int) -> list[int | None]:
    """A core for each, where this process may use as many."""
    free = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(free) < workers:
        return [None] * workers
    return list(free[:workers])


def _core_notes(plan: LoadPlan) -> tuple[str, ...]:
    if hasattr(os, "sched_getaffinity"):
        free = len(os.sched_getaffinity(0))
        if free < plan.workers:
            return (f"{plan.workers} workers share {free} cores: more workers measure no better",)
    return ()
