"""A window in which single requests gather, so that a backend is asked once for many of them.

It opens with the first item and closes when enough have come or the first has waited long enough;
while the backend is busy it stays open. It knows nothing of what it carries.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from typing import Generic, TypeVar

from attrs import define, field

from headrace.contracts.errors import (
    LLMAuthError,
    LLMError,
    LLMRateLimitError,
    LLMUnavailableError,
)
from headrace.net.clock import Clock

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_RETRY_AFTER_S = 1.0


@define(eq=False)
class _Waiting(Generic[Item, Answer]):
    item: Item
    weight: int
    since: float
    answer: asyncio.Future[Answer]


@define(kw_only=True, eq=False)
class BatchWindow(Generic[Item, Answer]):
    """Gathers items and hands them to ``ask``, which gives their answers in the same order.

    A batch weighs at most ``max_batch_size``, but for an item that alone weighs more; none of its
    items has been kept waiting for others longer than ``max_wait_s`` seconds. ``max_waiting`` items
    may wait; at most ``max_asking`` batches are asked at once. Items are taken in order of arrival.

    Where ``ask`` fails because of what is in the batch, each item is asked again by itself, so that
    the failure is only whose it is. A failure of the backend's own is everybody's, and asking again
    is left to those who have waited.
    """

    ask: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]]
    clock: Clock
    max_batch_size: int = 32
    max_wait_s: float = 0.01
    max_waiting: int = 512
    max_asking: int = 1
    _waiting: deque[_Waiting[Item, Answer]] = field(factory=deque, init=False)
    _weight: int = field(default=0, init=False)
    _gatherer: asyncio.Task[None] | None = field(default=None, init=False)
    _asking: set[asyncio.Task[None]] = field(factory=set, init=False)
    _changed: asyncio.Event = field(factory=asyncio.Event, init=False)
    _closed: bool = field(default=False, init=False)

    async def submit(self, item: Item, weight: int = 1) -> Answer:
        """The answer to ``item``. Cancelling the wait leaves the others in the batch as they are.

        Raises LLMRateLimitError where too many wait already, and what ``ask`` raises.
        """
        if self._closed:
            raise LLMUnavailableError("this server is being stopped and takes no new requests")
        if len(self._waiting) >= self.max_waiting:
            raise LLMRateLimitError(
                f"{len(self._waiting)} requests wait for a batch, which is the most that this "
                "server accepts",
                retry_after_s=_RETRY_AFTER_S,
                code="queue_full",
            )
        loop = asyncio.get_running_loop()
        mine = _Waiting[Item, Answer](item, weight, self.clock.monotonic(), loop.create_future())
        self._waiting.append(mine)
        self._weight += weight
        if self._gatherer is None or self._gatherer.done():
            self._gatherer = asyncio.create_task(self._gather(), name="batch window")
        elif self._is_full():
            self._changed.set()
        try:
            return await mine.answer
        except asyncio.CancelledError:
            self._leave(mine)
            raise

    async def aclose(self) -> None:
        """Cancel what is being asked and fail those who wait."""
        self._closed = True
        tasks = [task for task in (self._gatherer, *self._asking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._fail(self._waiting, LLMUnavailableError("this server is being stopped"))
        self._waiting.clear()
        self._weight = 0

    def _is_full(self) -> bool:
        return self._weight >= self.max_batch_size

    def _leave(self, mine: _Waiting[Item, Answer]) -> None:
        with contextlib.suppress(ValueError):  # it is being asked already
            self._waiting.remove(mine)
            self._weight -= mine.weight

    async def _gather(self) -> None:
        """Form batches until nobody waits."""
        while self._waiting:
            await self._until_closed()
            while len(self._asking) >= self.max_asking:
                await asyncio.wait(self._asking, return_when=asyncio.FIRST_COMPLETED)
            batch = self._take()
            if batch:
                self._begin(batch)

    async def _until_closed(self) -> None:
        """Wait until the batch is full or its first item has waited long enough."""
        self._changed.clear()
        wait = self._waiting[0].since + self.max_wait_s - self.clock.monotonic()
        if wait <= 0 or self._is_full():
            return
        timer = asyncio.create_task(self.clock.sleep(wait))
        full = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait({timer, full}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            full.cancel()

    def _take(self) -> list[_Waiting[Item, Answer]]:
        batch: list[_Waiting[Item, Answer]] = []
        weight = 0
        while self._waiting:
            following = self._waiting[0]
            if batch and weight + following.weight > self.max_batch_size:
                break
            batch.append(self._waiting.popleft())
            weight += following.weight
        self._weight -= weight
        return batch

    def _begin(self, batch: list[_Waiting[Item, Answer]]) -> None:
        task = asyncio.create_task(self._answer(batch), name="batch")
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

        def gone(_: asyncio.Future[Answer]) -> None:
            if all(each.answer.cancelled() for each in batch):
                task.cancel()  # nobody is left who would want an answer

        for each in batch:
            each.answer.add_done_callback(gone)

    async def _answer(self, batch: Sequence[_Waiting[Item, Answer]]) -> None:
        try:
            try:
                answers = await self.ask([each.item for each in batch])
            except LLMError as error:
                if len(batch) == 1 or error.transient or isinstance(error, LLMAuthError):
                    raise
                for each in batch:
                    if not each.answer.done():
                        await self._answer([each])
                return
            assert len(answers) == len(batch), f"{len(answers)} answers to {len(batch)} items"
            for each, answer in zip(batch, answers, strict=True):
                if not each.answer.done():
                    each.answer.set_result(answer)
        except asyncio.CancelledError:
            self._fail(batch, LLMUnavailableError("the batch was cancelled"))
            raise
        except Exception as error:  # noqa: BLE001  whoever waits raises it
            self._fail(batch, error)

    def _fail(self, batch: Sequence[_Waiting[Item, Answer]], error: Exception) -> None:
        for each in batch:
            if not each.answer.done():
                each.answer.set_exception(_own(error))


def _own(error: Exception) -> Exception:
    """A copy of an error of ours: who catches one writes into it, and has a traceback of their own."""
    if not isinstance(error, LLMError):
        return error
    mine = copy(error)
    mine.__cause__ = error
    return mine
