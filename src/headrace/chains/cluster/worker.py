"""What runs on each machine of a cluster: partitions through the chain, one after the other.

It keeps its clients, and with them its connections and engines, from one partition to the next.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import sys
from contextlib import aclosing
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any

from attrs import evolve, frozen

from headrace.chains.abilities import Ability
from headrace.chains.cluster.partitions import CameFile, Partitions, rows_at
from headrace.chains.cluster.reports import Report, before_at, report_to_plain
from headrace.chains.engines import open_clients
from headrace.chains.graph import Chain
from headrace.chains.running import Run, RunSettings
from headrace.chains.runs import is_held
from headrace.chains.spending import Spending, Spent
from headrace.chains.values import Item
from headrace.chains.walk import Came, Failed
from headrace.client.async_client import AsyncClient
from headrace.contracts.errors import LLMError, LLMInvalidRequestError, LLMUnavailableError

_TELLS_EVERY_S = 0.5
_FREE_WITHIN_S = 120.0
_MOST_BEGUN = 3


@frozen
class Job:
    """What a worker does. ``code`` is the chain, its settings and what its engines can do, pickled,
    and ``mark`` stands for the chain. Modules are looked for in ``folder`` too, where the command was
    given."""

    version: str
    code: bytes
    mark: bytes
    folder: str
    partitions: Partitions


class Worker:
    """One of several; ``desk`` is an actor, the ``Desk`` of the run."""

    def __init__(self, job: Job, desk: Any) -> None:
        self._job, self._desk = job, desk
        self._clients: dict[str, AsyncClient] = {}
        self._code: tuple[Chain, RunSettings, dict[str, Ability]] | None = None
        self._runner: asyncio.Runner | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The report on the partition that ``batch`` names."""
        number = int(batch["partition"][0])
        if self._runner is None:
            import uvloop

            self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        try:
            report = self._runner.run(self._carried(number))
        except Exception as error:  # noqa: BLE001 - told to the command, which ends with it
            report = Report(state="failed", error=type(error).__name__, reason=_said(error))
            self._end()
        return {"partition": [number], "report": [report_to_plain(report)]}

    def __del__(self) -> None:
        # Ray drops a worker whose work is over; one that is killed leaves its engines to others.
        if not sys.is_finalizing():  # no thread could be waited for any more
            self._end()

    def _end(self) -> None:
        """Leave the engines; the run is over, or ends with what failed."""
        runner, self._runner = self._runner, None
        if runner is not None:
            with runner:
                runner.run(self._closed())

    async def _closed(self) -> None:
        clients, self._clients, self._code = self._clients, {}, None
        for client in clients.values():
            await client.aclose()

    async def _carried(self, number: int) -> Report:
        here = version("headrace")
        if here != self._job.version:
            raise LLMUnavailableError(
                f"headrace is {here} there, and {self._job.version} where the command was given; "
                "install the same on each machine"
            )
        begun, stop = await _answer(self._desk.begin.remote(number))
        if begun > _MOST_BEGUN:
            raise LLMUnavailableError(
                f"partition {number} ended {_MOST_BEGUN} workers that had taken it up, as a function "
                "that crashes or takes all memory does; look at Ray's logs, or run it without --on"
            )
        if stop:
            return Report(state="stopped")
        chain, settings, abilities = self._loaded()
        folder = self._job.partitions.at(number)
        await _freed(folder)
        settings = evolve(settings, run_dir=folder, clients=self._clients)
        fruitless: Decimal | None = None
        report = Report(state="stopped", reason="max_cost")
        while True:
            share: Decimal | None = None
            if settings.max_cost is not None:
                share = await _answer(self._desk.take.remote(fruitless))
                if share is None:
                    return report
                before = before_at(folder).usd_at_most
                settings = evolve(settings, max_cost=before + share)
            run = Run(chain, settings)
            run.abilities = abilities
            report = await self._run(number, run)
            if share is None:
                return report
            await _answer(self._desk.give_back.remote(share - run.usd_at_most))
            if report.reason != "max_cost":
                return report
            fruitless = None if run.usd_at_most else share

    async def _run(self, number: int, run: Run) -> Report:
        work = asyncio.create_task(_through(run))
        while not work.done():
            await asyncio.wait({work}, timeout=_TELLS_EVERY_S)
            told = self._desk.tell.remote(number, report_to_plain(_report(run, Report())))
            stop = await _answer(told)
            if stop == "finish":
                run.stop()
            elif stop == "now":
                work.cancel()
        if work.cancelled():
            return _report(run, Report(state="stopped", reason="interrupt"))
        error = work.exception()
        if error is not None:
            failed = Report(state="failed", error=type(error).__name__, reason=_said(error))
            return _report(run, failed)
        if run.stopped:
            return _report(run, Report(state="stopped", reason=run.why_stopped))
        return _report(run, Report(state="done"))

    def _loaded(self) -> tuple[Chain, RunSettings, dict[str, Ability]]:
        if self._code is None:
            folder = self._job.folder
            if Path(folder).is_dir():
                os.chdir(folder)
            sys.path.insert(0, folder)
            try:
                # What Ray runs comes from the same command.
                chain, settings, abilities = pickle.loads(self._job.code)  # noqa: S301
            except (ImportError, AttributeError) as error:
                raise LLMInvalidRequestError(
                    f"the chain cannot be loaded ({error}): its modules must be importable on each "
                    f"machine, so install them there, or keep them in {folder!r} on a disk that all "
                    "share",
                    param="chain",
                ) from error
            if chain.whole_mark != self._job.mark:
                raise LLMInvalidRequestError(
                    "the chain is another than where the command was given: the code of its "
                    "functions or types differs; put the same on each machine",
                    param="chain",
                )
            # Whoever makes a call has its own bill, which any of these finds.
            self._clients = open_clients(
                chain.engines(),
                settings.engines,
                concurrency=settings.concurrency,
                sinks=(Spending(),),
            )
            self._code = chain, settings, abilities
        return self._code


async def _through(run: Run) -> None:
    folder = run.settings.run_dir
    file = CameFile(folder)
    try:
        async with aclosing(run.over(lambda: rows_at(folder))) as over:
            async for _, came in over:
                file.add(_slim(came))
    except BaseException:
        file.abandon()
        raise
    if run.stopped:
        file.abandon()
    else:
        file.finish()


def _slim(came: Came) -> Came:
    """``came`` without what led to it, which is in the journal."""
    return evolve(
        came,
        items=tuple(_bare(item) for item in came.items),
        failed=tuple(Failed(f.node, f.error, f.message, _bare(f.item)) for f in came.failed),
    )


def _bare(item: Item) -> Item:
    return Item(item.number, {}, item.path, item.value, {})


def _report(run: Run, report: Report) -> Report:
    spent = {step: evolve(each) for step, each in run.earlier.spent.items()}
    for step, each in run.spending.by_step.items():
        spent.setdefault(step, Spent()).add(each)
    return evolve(
        report,
        standing=run.standing,
        spent=spent,
        usd_at_most=run.earlier.usd_at_most + run.usd_at_most,
    )


async def _freed(folder: Path) -> None:
    """Wait for one that worked here before: on a shared disk the lock of a machine that is gone is
    held for a minute and more."""
    until = monotonic() + _FREE_WITHIN_S
    while is_held(folder):
        if monotonic() > until:
            raise LLMUnavailableError(
                f"another process holds the partition in {str(folder)!r} for more than "
                f"{_FREE_WITHIN_S:g} s; see that no other run works there, and run it again"
            )
        await asyncio.sleep(_TELLS_EVERY_S)


async def _answer(asked: Any) -> Any:
    return await asyncio.wrap_future(asked.future())


def _said(error: BaseException) -> str:
    said = error.message if isinstance(error, LLMError) else str(error)
    return f"on host {socket.gethostname()}: {said}"
