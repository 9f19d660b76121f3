"""Several sending processes on one machine, each on a core of its own where there are enough.

Each is a fresh interpreter that is told its share over its standard input, begins at the same
instant as the others, and tells over its standard output what it measured. It ends when its input
does, so that none outlives whoever started it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic

from attrs import evolve
from msgspec import msgpack

from headrace.bench.load import run as running
from headrace.bench.load.beside import Beside
from headrace.bench.load.crew import Heard, Job, Told, drive_all, put_together, with_notes
from headrace.bench.load.drive import Stop
from headrace.bench.load.process import drive
from headrace.bench.load.shares import Driven, Share, split, write_driven
from headrace.bench.load.target import target_of
from headrace.contracts.convert import from_json, to_json
from headrace.contracts.errors import LLMError, LLMProviderError
from headrace.contracts.load import LoadPlan
from headrace.contracts.load_report import LoadReport, Moment
from headrace.numbers.load_course import Course

_BEGIN_IN_S = 0.1
COMMAND = (sys.executable, "-c", "from headrace.bench.load.workers import main; main()")
"""How a worker is started."""


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
    return await drive(
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
    job = from_json(await _frame(reader), Job)
    if job.core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {job.core})
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
        driven = await _drive(job.plan, job.share, stop, when, on_course, job.run_id)
    except LLMError as error:
        _tell(out, {"error": [type(error).__name__, error.message, error.status]})
    else:
        _tell(out, {"driven": write_driven(driven)})
    listening.cancel()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    size = int.from_bytes(await reader.readexactly(4), "big")
    return await reader.readexactly(size)


def framed(data: bytes) -> bytes:
    """``data`` as it goes through a pipe: its length before it."""
    return len(data).to_bytes(4, "big") + data


def _tell(out: int, said: Told) -> None:
    data = memoryview(framed(msgpack.encode(said)))
    while data:
        data = data[os.write(out, data) :]


# The side of who starts them.


class _Worker:
    """One process on this machine, and its pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.heard = Heard()

    async def listen(self) -> None:
        out = self.process.stdout
        assert out is not None
        try:
            while True:
                self.heard.hear(await _frame(out))
        except asyncio.IncompleteReadError:
            self.heard.end()

    def begin(self, at: float) -> None:
        self._tell({"begin": at})

    def stop(self) -> None:
        self._tell({"stop": True})

    def _tell(self, said: Told) -> None:
        pipe = self.process.stdin
        assert pipe is not None
        if not self.heard.over:
            pipe.write(framed(msgpack.encode(said)))


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
            workers.append(await _start(Job(plan=plan, share=share, run_id=run_id, core=core)))
            listening.append(asyncio.create_task(workers[-1].listen()))
        await drive_all(workers, beside, instant=_soon, on_moment=on_moment, stop=stop)
    finally:
        server, notes = await beside.end()
        for worker in workers:
            if worker.process.returncode is None:
                with suppress(ProcessLookupError):
                    worker.process.kill()
        for worker in workers:
            await worker.process.wait()
        await asyncio.gather(*listening)
    whole = put_together(plan, workers)
    if whole is None:
        raise LLMProviderError(
            f"all {plan.workers} workers died before they could tell anything; what they said "
            "last stands above, on standard error",
            transient=False,
        )
    return running.report_of(
        run_id, with_notes(whole, found.notes + _core_notes(plan), notes), server
    )


async def _soon() -> float:
    return monotonic() + _BEGIN_IN_S


async def _start(job: Job) -> _Worker:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**30
    )
    assert process.stdin is not None
    process.stdin.write(framed(to_json(job)))
    return _Worker(process)


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
