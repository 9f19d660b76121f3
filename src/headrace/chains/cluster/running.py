"""A run on a cluster: what a run on this machine is to whoever looks at it and writes its results."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from decimal import Decimal
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path

from attrs import evolve

from headrace.chains.cluster.crew import Crew, Places
from headrace.chains.cluster.partitions import Partitions, partitions_of
from headrace.chains.cluster.reports import Report, before_at, failure, since, sum_of
from headrace.chains.cluster.worker import Job
from headrace.chains.graph import Chain
from headrace.chains.journal import Journal
from headrace.chains.nodes import Step
from headrace.chains.reading import Row
from headrace.chains.running import Run, RunSettings
from headrace.chains.runs import Earlier, Notes
from headrace.chains.spending import Spent
from headrace.chains.walk import Came
from headrace.contracts.errors import LLMError, LLMInvalidRequestError

_HEARS_EVERY_S = 0.5


class ClusterRun(Run):
    """One run of ``chain`` over rows, in partitions, by the workers of a Ray cluster.

    ``settings.concurrency`` and limits a minute are those of all workers together. The folder of the
    run must be one that every machine of the cluster can reach by the same path.
    """

    def __init__(
        self,
        chain: Chain,
        settings: RunSettings,
        places: Places | None = None,
        *,
        partition_rows: int | None = None,
    ) -> None:
        super().__init__(chain, evolve(settings, run_dir=settings.run_dir.absolute()))
        self._places, self._partition_rows = places or Places(), partition_rows
        self._reports: dict[int, Report] = {}
        self._before: dict[int, Earlier] = {}
        _check(self)

    @property
    def takes_turns(self) -> bool:
        """Whether the rows are gone through more than once: here they are counted first."""
        return True

    @property
    def usd_at_most(self) -> Decimal:
        """What this attempt may have cost."""
        return sum(
            (
                each.usd_at_most - self._before[number].usd_at_most
                for number, each in self._reports.items()
            ),
            Decimal(0),
        )

    async def over(
        self, rows: Callable[[], Iterable[Row]]
    ) -> AsyncGenerator[tuple[Row, Came], None]:
        """Each row with what became of it, in their order, as soon as its partition is done."""
        run_dir = self.settings.run_dir
        with Journal(run_dir):  # which holds the run, and has nothing of its own
            notes = Notes(self)
            self.earlier = notes.earlier
            async with notes:
                partitions = await asyncio.to_thread(
                    partitions_of, run_dir, rows, self._partition_rows
                )
                going_on = takewhile(lambda _: not self.stopped, rows())
                count, self.rows_known = await asyncio.to_thread(partitions.cut, going_on)
                if not count or self.stopped:
                    return
                self._before = {
                    number: await asyncio.to_thread(before_at, partitions.at(number))
                    for number in range(count)
                }
                async for row, came in self._carried(partitions, count):
                    yield row, came
                partitions.clear(count)

    async def _carried(
        self, partitions: Partitions, count: int
    ) -> AsyncGenerator[tuple[Row, Came], None]:
        limit = self.settings.max_cost
        left = None if limit is None else limit - sum(b.usd_at_most for b in self._before.values())
        crew = Crew(
            self._places,
            count,
            self.settings.concurrency,
            lambda workers: self._job(partitions, workers),
            left,
        )
        listening = asyncio.create_task(self._listen(crew))
        done: set[int] = set()
        written = 0
        failed: LLMError | None = None
        out_of_money = False
        try:
            async for number, report in crew.ended():
                self._take({number: report})
                if report.state == "failed":
                    failed = failed or failure(report)
                    crew.stop = "finish"
                elif report.state == "done":
                    done.add(number)
                elif report.reason == "max_cost":
                    out_of_money = True
                while written in done:
                    for row, came in partitions.results(written):
                        yield row, came
                    written += 1
            if failed is not None:
                raise failed
            if out_of_money:
                self.stop("max_cost")
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            await crew.close()

    async def _listen(self, crew: Crew) -> None:
        while True:
            await asyncio.sleep(_HEARS_EVERY_S)
            if self.stopped and not crew.stop:
                crew.stop = "finish"
            self._take(await crew.heard(), only_new=True)

    def _take(self, reports: dict[int, Report], *, only_new: bool = False) -> None:
        for number, report in reports.items():
            known = self._reports.get(number)
            if only_new and known is not None and known.state != "running":
                continue  # it had come to its end before this was heard
            if known is not None and not report.standing.rows and not report.spent:
                continue  # it ended before it was taken up again, and tells of nothing
            self._reports[number] = report
        self.standing = sum_of(each.standing for each in self._reports.values())
        by_step: dict[str, Spent] = {}
        for number, report in self._reports.items():
            before = self._before[number].spent
            for step, each in report.spent.items():
                by_step.setdefault(step, Spent()).add(since(each, before.get(step)))
        self.spending.by_step = by_step

    def _job(self, partitions: Partitions, workers: int) -> Job:
        import ray.cloudpickle

        settings = self.settings
        shared = evolve(
            settings,
            concurrency=max(1, settings.concurrency // workers),
            requests_per_minute=_part(settings.requests_per_minute, workers),
            tokens_per_minute=_part(settings.tokens_per_minute, workers),
            engines=tuple(
                evolve(
                    each,
                    requests_per_minute=_part(each.requests_per_minute, workers),
                    tokens_per_minute=_part(each.tokens_per_minute, workers),
                )
                for each in settings.engines
            ),
        )
        try:
            code = ray.cloudpickle.dumps((self.chain, shared, self.abilities))
        except Exception as error:  # whatever holds what cannot be sent has its own kind
            raise LLMInvalidRequestError(
                f"the chain cannot be sent to workers ({error}): its functions and types must be "
                "those of a module, and hold no files, locks or connections",
                param="chain",
            ) from error
        return Job(version("headrace"), code, self.chain.whole_mark, str(Path.cwd()), partitions)


def _check(run: ClusterRun) -> None:
    parts = run.chain.parts()
    if len(parts) > 1:
        reduce = parts[1].reduce
        assert reduce is not None
        raise LLMInvalidRequestError(
            f"{reduce.id} brings together values of many rows, and each worker sees those of its own "
            "partition; run what stands before it with --on, and the rest without",
            param=reduce.id,
        )
    for node in parts[0].nodes:
        if isinstance(node, Step) and node.mode == "batch":
            raise LLMInvalidRequestError(
                f"{node.id} is asked in batches, and each partition would make small ones of its own; "
                "leave out --on, for a batch is worked on elsewhere anyway, or ask it live",
                param=node.id,
            )
    lazy = parts[0].segments(run._lazy())[1]
    if len(lazy) > 1:
        names = " and ".join(repr(each) for each in lazy if each is not None)
        raise LLMInvalidRequestError(
            f"engines {names} take turns, and workers of one machine would start them side by side; "
            "start them yourself and give each its endpoint, or leave out --on",
            param="engines",
        )


def _part(limit: float | None, workers: int) -> float | None:
    return None if limit is None else limit / workers
