"""Batches as the client hands them in, waits for them, and reads what came."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Collection,
    Container,
    Iterable,
    Mapping,
)
from contextlib import aclosing, suppress
from random import Random
from typing import TypeVar
from uuid import uuid4

from attrs import frozen

from headrace.backends.batches import BatchApi
from headrace.client.portal import Pieces, portal
from headrace.contracts.batches import Batch, BatchItem
from headrace.contracts.errors import LLMError, LLMInvalidRequestError, LLMRateLimitError
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMResponse
from headrace.net.clock import Clock
from headrace.traffic.retry import RetryPolicy

T = TypeVar("T")

_CLOCKS_DIFFER_S = 300.0


@frozen(kw_only=True)
class Polling:
    """How often a provider is asked how a batch stands: after ``first_s``, then ever more seldom.

    ``most_failures`` calls in a row may fail in ways that may pass.
    """

    first_s: float = 0.25
    factor: float = 1.5
    most_s: float = 60.0
    most_failures: int = 30


@frozen(kw_only=True)
class BatchAnswer:
    """What became of one request of a batch: ``response`` or ``error``."""

    custom_id: str
    response: LLMResponse | None = None
    error: LLMError | None = None


class Batches:
    """Batches at the provider of one model. ``retry`` says how calls that failed are made again."""

    def __init__(
        self,
        api: BatchApi,
        clock: Clock,
        random: Random,
        *,
        retry: RetryPolicy | None = None,
        polling: Polling | None = None,
    ) -> None:
        self.api = api
        self._clock, self._random = clock, random
        self._retry = RetryPolicy(retries=0) if retry is None else retry
        self._polling = polling or Polling()

    async def submit(self, requests: Mapping[str, LLMRequest]) -> Batch:
        """Hand in ``requests``, each under an id of its own; raises an LLMError.

        An id is 1 to 64 letters, digits, ``-`` and ``_``, as all providers take it.
        """
        _check(requests)
        marks = Marks()
        held = [
            BatchItem(custom_id=name, body=self.api.write(request, marks))
            for name, request in requests.items()
        ]
        return await self.submit_items(lambda: held, requests)

    async def submit_items(
        self, items: Callable[[], Iterable[BatchItem]], ids: Collection[str]
    ) -> Batch:
        """Hand in what ``items`` gives each time that it is called: requests under ``ids``."""
        if len(ids) > self.api.limits.requests:
            raise LLMInvalidRequestError(
                f"{len(ids)} requests are given, a batch there holds {self.api.limits.requests}; "
                "hand in several",
                param="requests",
            )
        mark, since = uuid4().hex, self._clock.wall()
        upload = await self.upload(f"{mark}.jsonl", items) if self.api.uploads else None
        return await self.begin(upload, mark, items, total=len(ids), since=since, owns=ids)

    async def get(self, batch_id: str) -> Batch:
        """How it stands."""
        return (await self._again(lambda: self.api.get(batch_id))).batch

    async def cancel(self, batch_id: str) -> Batch:
        """Have no more of it done. What was done until then can be read once it has ended."""
        return await self._again(lambda: self.api.cancel(batch_id))

    async def wait(
        self,
        batch_id: str,
        *,
        until: float | None = None,
        on_batch: Callable[[Batch], None] | None = None,
    ) -> Batch:
        """The batch, when it has ended; at ``until``, in Unix seconds, it is cancelled.

        ``on_batch`` is told how it stands each time that its provider was asked.
        """
        polling, delay, failures, cancelled = self._polling, self._polling.first_s, 0, False
        while True:
            wait_s: float | None
            try:
                told = await self.api.get(batch_id)
            except LLMError as error:
                failures += 1
                if not error.transient or failures > polling.most_failures:
                    raise
                wait_s = error.retry_after_s
            else:
                failures, wait_s = 0, told.retry_after_s
                if on_batch is not None:
                    on_batch(told.batch)
                if told.batch.has_ended:
                    return told.batch
            wait_s = delay if wait_s is None else wait_s
            delay = min(delay * polling.factor, polling.most_s)
            if until is not None and not cancelled:
                left_s = until - self._clock.wall()
                if left_s <= 0:
                    with suppress(LLMInvalidRequestError):  # it has ended meanwhile
                        await self.cancel(batch_id)
                    cancelled = True
                wait_s = min(wait_s, max(left_s, 0.0))
            await self._clock.sleep(wait_s)

    async def results(self, batch: Batch) -> AsyncGenerator[BatchAnswer, None]:
        """What became of each request of ``batch``, which has ended; in no order.

        A request that is missing was not done.
        """
        plain = LLMRequest(messages=())
        async with aclosing(self.api.lines(batch)) as lines:
            async for line in lines:
                result = self.api.read_line(line)
                error, answer = self.api.error_of(result), None
                if error is None:
                    try:
                        answer = self.api.read(plain, result.body or b"", batch.created)
                    except LLMError as wrong:  # that one's alone
                        error = wrong
                yield BatchAnswer(custom_id=result.custom_id or "", response=answer, error=error)

    def delay_s(self, attempt: int, error: LLMError) -> float | None:
        """How long to wait before something is tried again that failed; None: not at all."""
        return self._retry.delay_s(attempt, error, self._random)

    async def upload(self, name: str, items: Callable[[], Iterable[BatchItem]]) -> str:
        """The id of the file with ``items``, which are gone through again where it failed."""
        return await self._again(lambda: self.api.upload(name, items))

    async def begin(
        self,
        upload: str | None,
        mark: str,
        items: Callable[[], Iterable[BatchItem]],
        *,
        total: int,
        since: float,
        owns: Container[str],
        others: Container[str] = (),
        may_exist: bool = False,
    ) -> Batch:
        """The batch of ``upload``, or of ``items``, which are ``total``; begun once and no more.

        Where it ``may_exist``, or a call to begin it ended in doubt, it is looked for first: by
        ``mark``, or where that is not kept among those since ``since`` but for ``others``, as the one
        with the same number of requests whose results ``owns`` the ids of.
        """
        retry = 0
        while True:
            try:
                if may_exist:
                    found = await self._find(mark, total, since, owns, others)
                    if found is not None:
                        return found
                return await self.api.create(upload, mark, items)
            except LLMError as error:
                retry += 1
                delay = self.delay_s(retry, error)
                if delay is None:
                    raise
                may_exist = may_exist or not isinstance(error, LLMRateLimitError)
                await self._clock.sleep(delay)

    async def _find(
        self, mark: str, total: int, since: float, owns: Container[str], others: Container[str]
    ) -> Batch | None:
        async with aclosing(self.api.newest()) as newest:
            async for batch in newest:
                if batch.created < since - _CLOCKS_DIFFER_S:
                    return None
                if batch.batch_id in others:
                    continue
                if self.api.keeps_metadata:
                    if (batch.metadata or {}).get("headrace") == mark:
                        return batch
                elif batch.counts.total == total and await self._is_of(batch, owns):
                    return batch
        return None

    async def _is_of(self, batch: Batch, owns: Container[str]) -> bool:
        """Whether its results are those of ``owns``, which is seen when it has ended."""
        ended = await self.wait(batch.batch_id)
        async with aclosing(self.api.lines(ended)) as lines:
            async for line in lines:
                return self.api.read_line(line).custom_id in owns
        return False

    async def _again(self, call: Callable[[], Awaitable[T]]) -> T:
        """What ``call`` gives, which may be made twice without harm."""
        retry = 0
        while True:
            try:
                return await call()
            except LLMError as error:
                retry += 1
                delay = self.delay_s(retry, error)
                if delay is None:
                    raise
                await self._clock.sleep(delay)


def _check(requests: Mapping[str, LLMRequest]) -> None:
    if not requests:
        raise LLMInvalidRequestError("requests are empty, must be one at least", param="requests")
    for name in requests:
        plain = name.replace("-", "a").replace("_", "a")
        if not (0 < len(name) <= 64 and plain.isascii() and plain.isalnum()):
            raise LLMInvalidRequestError(
                f"an id is {name!r}, must be 1 to 64 letters, digits, '-' and '_'",
                param="requests",
            )


class SyncBatches:
    """The same for those who do not ``await``."""

    def __init__(self, batches: Callable[[], Batches]) -> None:
        self._batches = batches

    def submit(self, requests: Mapping[str, LLMRequest]) -> Batch:
        """Hand in ``requests``, each under an id of its own; raises an LLMError."""
        return portal().run(lambda: self._batches().submit(requests))

    def get(self, batch_id: str) -> Batch:
        """How it stands."""
        return portal().run(lambda: self._batches().get(batch_id))

    def cancel(self, batch_id: str) -> Batch:
        """Have no more of it done."""
        return portal().run(lambda: self._batches().cancel(batch_id))

    def wait(
        self,
        batch_id: str,
        *,
        until: float | None = None,
        on_batch: Callable[[Batch], None] | None = None,
    ) -> Batch:
        """The batch, when it has ended; ``on_batch`` is called on another thread."""
        return portal().run(lambda: self._batches().wait(batch_id, until=until, on_batch=on_batch))

    def results(self, batch: Batch) -> Pieces[BatchAnswer]:
        """What became of each request of ``batch``, which has ended; in no order."""
        return portal().iterate(lambda: self._batches().results(batch))
