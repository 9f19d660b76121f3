"""The work on batches: their requests are asked at idle priority, and what came is written down.

One task a batch. Whatever happens to it is written down before it is told, so that a process that
takes over goes on where this one was; a request that was on its way is asked again then.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from math import inf
from pathlib import Path

from attrs import define, field
from starlette.types import ASGIApp

from headrace.contracts.batches import BatchPhase, BatchResult, ItemFate
from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMInvalidRequestError,
    LLMUnavailableError,
)
from headrace.gateway.batches import lines
from headrace.gateway.batches.faces import FACES, FaceRow
from headrace.gateway.batches.home import Home
from headrace.gateway.batches.outputs import write_outputs
from headrace.gateway.batches_config import BatchesConfig
from headrace.gateway.behind import Answer, ask
from headrace.net.clock import Clock
from headrace.stores.batches.shelf import Settled, StoredBatch, StoredItem, requests_file
from headrace.wire.json import decode_object, encode

log = logging.getLogger(__name__)

_BUSY = frozenset({408, 429, 502, 503, 504, 529})
_FIRST_DELAY_S, _MOST_DELAY_S = 1.0, 60.0
_LOOK_AGAIN_S = 1.0
_TRIED_AGAIN_S = 5.0
_PAGE = 256
# What is asked for alone may do these; in a batch nobody would see it.
_NOT_IN_BATCHES = {"stream": "an answer is not streamed", "background": "it runs there anyway"}


@define(kw_only=True, eq=False)
class Work:
    """Works on every batch that it is told of, until closed.

    ``may_run`` says whether an owner's requests are asked now; ``stops`` whether the gateway is
    about to end, so that what it refuses is not the batch's to count.
    """

    home: Home
    application: ASGIApp
    settings: BatchesConfig
    clock: Clock
    may_run: Callable[[str], bool]
    stops: Callable[[], bool]
    _tasks: dict[str, asyncio.Task[None]] = field(factory=dict, init=False)
    _places: asyncio.Semaphore = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._places = asyncio.Semaphore(self.settings.max_running)

    def take(self, batch_id: str) -> None:
        """Work on this batch from now on, or see anew how it stands."""
        before = self._tasks.pop(batch_id, None)
        self._tasks[batch_id] = asyncio.create_task(self._go_on(batch_id, before))

    def go_on_with(self, batch_ids: Iterable[str]) -> None:
        """Work on these, as far as it is not done already."""
        left = [batch_id for batch_id in batch_ids if batch_id not in self._tasks]
        for batch_id in left:
            self.take(batch_id)
        if left:
            log.info("going on with %d batches", len(left))

    async def aclose(self) -> None:
        """Leave all as it is."""
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        for task in tasks:
            await _end(task)

    async def _go_on(self, batch_id: str, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await _end(before)
        while True:
            try:
                stored = await self.home.do(lambda store: store.batches.find(batch_id))
                if stored is None or stored.batch.has_ended:
                    break
                await self._step(_Batch(stored=stored, row=FACES[stored.face]))
            except Exception:
                # A full disk or a mistake of ours: others are worked on meanwhile, and it is tried
                # anew from what is written down.
                log.exception("batch %s is tried again in %g s", batch_id, _TRIED_AGAIN_S)
                await self.clock.sleep(_TRIED_AGAIN_S)
        if self._tasks.get(batch_id) is asyncio.current_task():
            del self._tasks[batch_id]

    async def _step(self, batch: _Batch) -> None:
        """From the phase that it is in to the next."""
        match batch.stored.batch.phase:
            case "validating":
                await self._validate(batch)
            case "in_progress":
                await self._ask_all(batch)
            case "cancelling":
                await self._settle_rest(batch, "cancelled")
                await self._finish(batch, "cancelled")
            case _:
                await self._finish(batch, "completed")

    async def _validate(self, batch: _Batch) -> None:
        known = batch.stored.batch
        names = known.input_files or (requests_file(known.batch_id),)
        files = [(name, self._path(name)) for name in names]
        found = await asyncio.to_thread(
            lines.find, batch.row, known.endpoint, files, self.settings.max_requests
        )
        now = self.clock.wall()
        if found.problems:
            await self.home.do(lambda store: store.batches.fail(batch.id, found.problems, now))
            log.info("batch %s failed: %s", batch.id, found.problems[0].message)
        else:
            await self.home.do(
                lambda store: store.batches.begin(batch.id, found.items, now, found.model)
            )
            log.info("batch %s begins: %d requests", batch.id, len(found.items))

    async def _ask_all(self, batch: _Batch) -> None:
        expires = batch.stored.batch.expires
        left_s = (self.clock.wall() if expires is None else expires) - self.clock.wall()
        asking = asyncio.create_task(self._ask_each(batch))
        expiry = asyncio.ensure_future(self.clock.sleep(max(0.0, left_s)))
        try:
            if left_s > 0:
                await asyncio.wait({asking, expiry}, return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                asking.result()
                now = self.clock.wall()
                await self.home.do(lambda store: store.batches.finalize(batch.id, now))
                return
        finally:
            for each in (asking, expiry):
                await _end(each)
        await self._settle_rest(batch, "expired")
        await self._finish(batch, "expired")

    async def _ask_each(self, batch: _Batch) -> None:
        after = -1
        async with asyncio.TaskGroup() as group:
            while True:
                page = await self._open_items(batch, after)
                for item in page:
                    after = item.place
                    await self._turn_of(batch)
                    place = _Place(self._places)
                    await place.take()
                    group.create_task(self._ask(batch, item, place))
                if len(page) < _PAGE:
                    return

    async def _turn_of(self, batch: _Batch) -> None:
        while self.stops() or not self.may_run(batch.stored.owner):
            await self.clock.sleep(_LOOK_AGAIN_S)
        while (wait_s := batch.paused_until - self.clock.monotonic()) > 0:
            await self.clock.sleep(wait_s)

    async def _ask(self, batch: _Batch, item: StoredItem, place: _Place) -> None:
        result_id = f"batch_req_{uuid.uuid4().hex}"
        try:
            answer = await self._answer(batch, item, place, result_id)
        finally:
            place.give_back()
        succeeded, usage = 200 <= answer.status < 300, None
        if succeeded:
            try:
                usage = batch.row.codec.usage_in(answer.body)
            except LLMBadResponseError as wrong:  # a line must be JSON, whatever a backend said
                succeeded = False
                answer = Answer(status=wrong.status, headers={}, body=batch.row.error_body(wrong))
        result = BatchResult(
            custom_id=item.custom_id,
            fate="succeeded" if succeeded else "errored",
            result_id=result_id,
            status=answer.status,
            body=answer.body,
            request_id=result_id,
        )
        line = batch.row.codec.write_result(result)
        await self._keep(batch, (item.place, result.fate, line, usage))

    async def _answer(
        self, batch: _Batch, item: StoredItem, place: _Place, result_id: str
    ) -> Answer:
        """The answer to one request; who is busy or gone is asked again, after longer and longer."""
        try:
            line = await asyncio.to_thread(lines.read, self._path(item.source), item)
            body = _body(batch, line)
        except LLMInvalidRequestError as wrong:
            wrong.request_id = result_id
            return Answer(status=400, headers={}, body=batch.row.error_body(wrong))
        endpoint, owner = batch.stored.batch.endpoint, batch.stored.owner
        delay_s = _FIRST_DELAY_S
        for tries in count(1):
            answer = await ask(self.application, endpoint, body, owner=owner, request_id=result_id)
            if self.stops() and answer.status >= 300:
                await asyncio.Event().wait()  # not its fault: who comes after us asks it again
            if answer.status not in _BUSY or tries >= self.settings.max_tries:
                return answer
            wait_s = max(delay_s, _retry_after_s(answer))
            batch.paused_until = self.clock.monotonic() + wait_s
            place.give_back()  # other batches may have better backends
            await self.clock.sleep(wait_s)
            await place.take()
            delay_s = min(2 * delay_s, _MOST_DELAY_S)
        raise AssertionError

    async def _keep(self, batch: _Batch, settled: Settled) -> None:
        """Write down what came, however long the disk is full."""
        while True:
            try:
                await self._settle(batch, [settled])
                return
            except LLMUnavailableError:
                await self.clock.sleep(_TRIED_AGAIN_S)

    async def _settle_rest(self, batch: _Batch, fate: ItemFate) -> None:
        """Give those the same fate that have none."""
        write = batch.row.codec.write_result
        while page := await self._open_items(batch):
            settled = [
                (
                    item.place,
                    fate,
                    write(
                        BatchResult(
                            custom_id=item.custom_id,
                            fate=fate,
                            result_id=f"batch_req_{uuid.uuid4().hex}",
                        )
                    ),
                    None,
                )
                for item in page
            ]
            await self._settle(batch, settled)

    async def _finish(self, batch: _Batch, phase: BatchPhase) -> None:
        now, keep_s = self.clock.wall(), self.settings.keep_ms / 1000
        await self.home.do(
            lambda store: write_outputs(
                store, batch.stored, batch.row, phase, now=now, keep_s=keep_s
            )
        )
        log.info("batch %s %s", batch.id, phase)

    async def _open_items(self, batch: _Batch, after: int = -1) -> Sequence[StoredItem]:
        return await self.home.do(lambda store: store.batches.open_items(batch.id, after, _PAGE))

    async def _settle(self, batch: _Batch, settled: Sequence[Settled]) -> None:
        await self.home.do(lambda store: store.batches.settle(batch.id, settled))

    def _path(self, name: str) -> Path:
        return self.home.folder / "files" / name


@define(kw_only=True, eq=False)
class _Batch:
    stored: StoredBatch
    row: FaceRow
    paused_until: float = -inf
    """An instant before which nothing more of it is asked: its backend was busy."""

    @property
    def id(self) -> str:
        return self.stored.batch.batch_id


@define(eq=False)
class _Place:
    """One of the places of all batches, taken and given back."""

    _all: asyncio.Semaphore
    _is_taken: bool = False

    async def take(self) -> None:
        await self._all.acquire()
        self._is_taken = True

    def give_back(self) -> None:
        if self._is_taken:
            self._is_taken = False
            self._all.release()


def _body(batch: _Batch, line: bytes) -> bytes:
    """What is asked for a line; LLMInvalidRequestError where it is nothing for a batch."""
    known = batch.stored.batch
    body: bytes = batch.row.codec.read_item(line, known.endpoint).body
    wire = decode_object(body)
    for name, why in _NOT_IN_BATCHES.items():
        if wire.get(name):
            raise LLMInvalidRequestError(
                f"'{name}' cannot be true in a batch: {why}; leave it out.", param=name
            )
    # Mistral's jobs name the model once, for all of their requests.
    if batch.stored.face == "mistral" and known.model is not None and "model" not in wire:
        return encode({**wire, "model": known.model})
    return body


def _retry_after_s(answer: Answer) -> float:
    try:
        return min(float(answer.headers.get(b"retry-after-ms", b"0")) / 1000, _MOST_DELAY_S)
    except ValueError:
        return 0.0


async def _end(task: asyncio.Future[None]) -> None:
    """Cancel a task and wait for its end; what went wrong in it was told there."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()
