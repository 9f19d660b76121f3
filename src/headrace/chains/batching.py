"""Steps that are asked in batches: what reaches one is collected, handed in, and read when it is there.

It fits the turns of a run (``turns``): in one, a request that has no answer yet is written down and
the rest of its row is left for later; then the batches run; in the next, the answers are there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from decimal import Decimal
from functools import partial
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from attrs import evolve

from headrace.chains.asking import Asked, Askers, failed
from headrace.chains.batch_store import BatchStore, Begun, Kept
from headrace.chains.budget import OutOfBudget
from headrace.chains.graph import Chain
from headrace.chains.journal import Done
from headrace.chains.nodes import Step
from headrace.chains.spending import Bill, Spent
from headrace.chains.standing import BatchStanding
from headrace.chains.turns import NotYet
from headrace.client.async_client import AsyncClient
from headrace.client.batches import Batches
from headrace.contracts.batches import Batch, BatchResult
from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMCancelledError,
    LLMError,
    LLMInvalidRequestError,
    LLMProviderError,
    LLMTimeoutError,
)
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest
from headrace.traffic.retry import RetryPolicy

if TYPE_CHECKING:
    from headrace.chains.running import Run

log = logging.getLogger(__name__)

_MOST_BATCHES = 2
"""How many batches a request is in at most, before it is given up."""
_UPLOADS_AT_ONCE = 2
_FIRST_DELAY_S = 0.5
_LINES_AT_ONCE = 500
_LOOKS_EVERY_S = 0.2
_GONE = 404


class Batching:
    """The batches of one run, which keeps what it knows of them in ``folder``.

    ``collects`` says that batches follow the turn that is under way.
    """

    def __init__(
        self,
        chain: Chain,
        folder: Path,
        askers: Askers,
        clients: Mapping[str, AsyncClient],
        run: Run,
    ) -> None:
        self.collects = False
        self._askers, self._run = askers, run
        steps = [each for each in chain.nodes if isinstance(each, Step) and each.mode == "batch"]
        self._steps = {chain.mark(step).hex(): step for step in steps}
        self._marks = {step.id: mark for mark, step in self._steps.items()}
        self._of: dict[str, Batches] = {}
        retry = RetryPolicy(retries=run.settings.retries, first_delay_s=_FIRST_DELAY_S)
        for step in steps:
            try:
                self._of[step.id] = clients[step.engine].batches(retry=retry)
            except LLMError as error:
                raise LLMInvalidRequestError(
                    f"{step.id}: mode is 'batch', and {error.message}", param=step.id
                ) from error
        self._store = BatchStore(folder) if steps else None
        self._uploading = asyncio.Semaphore(_UPLOADS_AT_ONCE)

    async def ask(self, key: bytes, asked: Asked) -> Done:
        """What a batch answered; raises NotYet where it has yet to be asked."""
        store, step, name = self._kept(), asked.step, key.hex()
        kept = store.find(name)
        if kept is None or not kept.is_over:
            if not self.collects:
                # A row that was not there when the batch was made; there is no other for it.
                return await self._askers.ask(asked)
            if kept is None:
                most = Decimal(0)
                try:
                    request = await self._askers.request_of(asked)
                    body = self._of[step.id].api.write(request, Marks())
                except LLMError as error:
                    return failed(error)
                if self._askers.budget is not None:
                    most = self._askers.budget[1].in_batch(step, request)
                store.add(name, self._marks[step.id], body, most)
            raise NotYet
        api = self._of[step.id].api
        result = None if kept.result is None else api.read_line(kept.result)
        if result is not None and result.fate == "succeeded":
            bare = evolve(asked, pictures=())  # how it was asked is all that is to be known
            try:
                came = api.read(
                    await self._askers.request_of(bare), result.body or b"", kept.created
                )
            except LLMError as error:
                return failed(error)
            return await self._askers.ask(asked, came)
        why = self._why(step, kept, result)
        if why.transient and step.batch_retry == "live" and not _was_stopped(step, why):
            return await self._askers.ask(asked)
        if why.transient:
            store.forget(name)  # for the next run, since this one gives it up
        return failed(why)

    async def resume(self) -> None:
        """Have the batches end that an earlier run began."""
        if self._store is None:
            return
        works = []
        for begun in self._store.open_ones():
            step = self._steps.get(begun.step)
            if step is not None:
                works.append(self._one(step, begun, resumed=True))
            elif begun.batch_id is not None:
                log.warning(
                    "batch %s was begun for a step that has changed since; it is left alone",
                    begun.batch_id,
                )
        await self._until_stopped(_each(works))

    async def run(self) -> None:
        """Have asked what was collected, where batches follow the turn that is over."""
        if self.collects and not self._run.stopped:
            await self._until_stopped(
                _each([self._of_step(mark, step) for mark, step in self._steps.items()])
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._store is not None:
            self._store.close()

    def _kept(self) -> BatchStore:
        assert self._store is not None
        return self._store

    async def _of_step(self, mark: str, step: Step) -> None:
        store, api = self._kept(), self._of[step.id].api
        while store.waits(mark):
            begun = []
            while store.waits(mark):
                begun.append(
                    store.intend(
                        mark,
                        uuid4().hex,
                        time(),
                        requests=api.limits.requests,
                        size=api.limits.bytes,
                        around=api.size_of(b""),
                    )
                )
            await _each([self._one(step, each) for each in begun])

    async def _one(self, step: Step, begun: Begun, *, resumed: bool = False) -> None:
        """One batch, from wherever it stands to its end; what it costs is set aside meanwhile."""
        budget = self._askers.budget
        if budget is None:
            await self._through(step, begun, None, resumed=resumed)
            return
        bill = Bill(step.id, Spent(), Spent())
        # One that has begun is paid whatever we do.
        most = begun.most_usd if begun.batch_id is None else Decimal(0)
        async with budget[0].aside(most, begun.most_usd / max(begun.total, 1), bill):
            await self._through(step, begun, bill.spent, resumed=resumed)

    async def _through(
        self, step: Step, begun: Begun, spent: Spent | None, *, resumed: bool
    ) -> None:
        store, batches = self._kept(), self._of[step.id]
        try:
            batch_id, created = begun.batch_id, begun.created
            if batch_id is None:
                async with self._uploading:
                    batch = await self._begin(batches, begun, resumed=resumed)
                batch_id, created = batch.batch_id, batch.created
                self._note(step, batch)
            ended = await batches.wait(
                batch_id,
                until=None if step.max_wait_s is None else created + step.max_wait_s,
                on_batch=partial(self._note, step),
            )
            if ended.phase == "failed" and not (ended.output_file or ended.error_file):
                store.undo(begun.number)
                told = "; ".join(each.message for each in ended.problems[:3]) or "no reason given"
                raise LLMProviderError(
                    f"batch {batch_id} failed before anything was asked: {told}", transient=False
                )
            await self._take(batches, begun.number, ended)
            if spent is not None:
                self._reckon(batches, begun.number, ended, spent)
        except LLMError as error:
            told = f"{step.id}: {error.message}"
            if error.status == _GONE:
                told += f" (remove {store.path}, and what was in batch {batch_id} is asked again)"
            error.message = told
            error.args = (told,)
            raise
        self._run.standing.batches.pop(batch_id, None)
        if step.batch_retry == "batch":
            self._have_again(step, begun.number)

    async def _begin(self, batches: Batches, begun: Begun, *, resumed: bool) -> Batch:
        store = self._kept()
        items = partial(store.items, begun.number)
        upload = begun.upload
        if upload is None and batches.api.uploads:
            upload = await batches.upload(f"{begun.mark}.jsonl", items)
            store.uploaded(begun.number, upload)
        batch = await batches.begin(
            upload,
            begun.mark,
            items,
            total=begun.total,
            since=begun.intended,
            owns=store.owns(begun.number),
            others=store.ids(),
            may_exist=resumed,
        )
        store.begun(begun.number, batch.batch_id, batch.created)
        return batch

    async def _take(self, batches: Batches, number: int, ended: Batch) -> None:
        """Take its results; all of them once more, where the way to them breaks."""
        store, attempt = self._kept(), 0
        while True:
            try:
                held: list[tuple[str, bytes]] = []
                async with aclosing(batches.api.lines(ended)) as lines:
                    async for line in lines:
                        try:
                            name = batches.api.read_line(line).custom_id or ""
                        except LLMBadResponseError as error:  # whose it is, nobody knows
                            log.warning("a line of batch %s is left out: %s", ended.batch_id, error)
                            continue
                        held.append((name, line))
                        if len(held) >= _LINES_AT_ONCE:
                            store.take(number, held)
                            held = []
                store.take(number, held)
                break
            except LLMError as error:
                attempt += 1
                if isinstance(error, LLMBadResponseError):
                    error.transient = True  # it was cut short, and may be whole the next time
                delay = batches.delay_s(attempt, error)
                if delay is None:
                    raise
                await asyncio.sleep(delay)
        store.end(number, ended.phase)

    def _reckon(self, batches: Batches, number: int, ended: Batch, spent: Spent) -> None:
        """Put what was paid for a batch's answers on ``spent``."""
        plain = LLMRequest(messages=())
        for _, line, _ in self._kept().over_ones(number):
            result = None if line is None else batches.api.read_line(line)
            if result is None or result.fate != "succeeded":
                continue
            try:
                price = batches.api.read(plain, result.body or b"", ended.created).price_usd
            except LLMError:  # an answer that cannot be read was paid all the same
                price = None
            spent.usd += price or Decimal(0)
            spent.unpriced += price is None

    def _have_again(self, step: Step, number: int) -> None:
        store, api = self._kept(), self._of[step.id].api
        keys = []
        for key, line, batches in store.over_ones(number):
            result = None if line is None else api.read_line(line)
            if batches >= _MOST_BATCHES or (result is not None and result.fate == "succeeded"):
                continue
            kept = store.find(key)
            assert kept is not None
            error = self._why(step, kept, result)
            if error.transient and not _was_stopped(step, error):
                keys.append(key)
        store.again(keys)

    def _why(self, step: Step, kept: Kept, result: BatchResult | None) -> LLMError:
        """Why a request has no answer."""
        error = None if result is None else self._of[step.id].api.error_of(result)
        if error is None:
            kind = LLMCancelledError if kept.phase == "cancelled" else LLMTimeoutError
            error = kind("the batch ended before the request was answered")
        if isinstance(error, LLMCancelledError | LLMTimeoutError):
            error.transient = True  # it was not asked, or not to the end
        return error

    def _note(self, step: Step, batch: Batch) -> None:
        counts = batch.counts
        self._run.standing.batches[batch.batch_id] = BatchStanding(
            step=step.id,
            provider=self._of[step.id].api.remote.name,
            id=batch.batch_id,
            phase=batch.phase,
            total=counts.total,
            done=counts.succeeded,
            failed=counts.errored,
        )

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Do ``work``, but leave it where the run is to stop: batches go on without us."""
        task = asyncio.create_task(work)
        try:
            while not task.done() and not self._run.stopped:
                await asyncio.wait({task}, timeout=_LOOKS_EVERY_S)
            if task.done():
                with suppress(OutOfBudget):  # who found that has stopped the run
                    await task
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


def _was_stopped(step: Step, error: LLMError) -> bool:
    """Whether somebody cancelled the batch: then nothing more is asked, for more money at that."""
    return isinstance(error, LLMCancelledError) and step.max_wait_s is None


async def _each(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Do all ``works``; where one fails, the others are ended."""
    tasks = [asyncio.create_task(each) for each in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
