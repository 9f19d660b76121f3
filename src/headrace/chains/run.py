"""Runs a chain over rows: a bounded number on their way, results in the order of the input."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from attrs import frozen

from headrace.chains.asking import Askers
from headrace.chains.engines import open_clients
from headrace.chains.graph import Chain
from headrace.chains.journal import Journal
from headrace.chains.reading import Row, rows_of
from headrace.chains.standing import Standing
from headrace.chains.values import Item
from headrace.chains.walk import Came, Failed, Walk
from headrace.client.async_client import AsyncClient
from headrace.contracts.engines import EngineConfig

_ROWS_A_PLACE = 4


@frozen(kw_only=True)
class RunSettings:
    """How a chain is run. ``run_dir`` keeps what was done: run again there, only the rest is done.

    ``concurrency`` requests are under way at each engine at most. One that failed for a reason that
    may pass is made again ``retries`` times at most.
    """

    run_dir: Path
    concurrency: int = 64
    retries: int = 5
    engines: tuple[EngineConfig, ...] = ()
    clients: Mapping[str, AsyncClient] | None = None


class Run:
    """One run of ``chain`` over ``rows``. ``stop`` asks it to take up no more rows."""

    def __init__(self, chain: Chain, settings: RunSettings) -> None:
        self.chain, self.settings = chain, settings
        self.standing = Standing()
        self._stopped = False

    def stop(self) -> None:
        """Finish what is under way, and take up no more."""
        self._stopped = True

    @property
    def stopped(self) -> bool:
        """Whether it was asked to stop."""
        return self._stopped

    async def over(self, rows: Iterable[Row]) -> AsyncIterator[tuple[Row, Came]]:
        """Each row with what became of it, in their order."""
        settings = self.settings
        async with AsyncExitStack() as stack:
            journal = stack.enter_context(Journal(settings.run_dir))
            clients = settings.clients
            if clients is None:
                opened = open_clients(
                    self.chain.engines(),
                    settings.engines,
                    concurrency=settings.concurrency,
                    retries=settings.retries,
                )
                clients = opened
                for client in opened.values():
                    stack.push_async_callback(client.aclose)
            walk = Walk(self.chain, journal, Askers(clients, settings.concurrency), self.standing)
            on_their_way: deque[tuple[Row, asyncio.Task[Came]]] = deque()
            stack.push_async_callback(_end, on_their_way)
            most = _ROWS_A_PLACE * settings.concurrency
            for row in rows:
                if self._stopped:
                    break
                on_their_way.append((row, asyncio.create_task(_of_row(walk, row))))
                if len(on_their_way) >= most:
                    yield await self._next(on_their_way)
            while on_their_way:
                yield await self._next(on_their_way)

    async def _next(self, on_their_way: deque[tuple[Row, asyncio.Task[Came]]]) -> tuple[Row, Came]:
        row, task = on_their_way[0]
        came = await task
        on_their_way.popleft()
        standing = self.standing
        standing.rows += 1
        standing.results += len(came.items)
        standing.failed += len(came.failed)
        return row, came


async def _of_row(walk: Walk, row: Row) -> Came:
    item = Item(row.number, row.value, (), row.value, {})
    if row.wrong is not None:
        return Came((), (Failed("input", "LLMInvalidRequestError", row.wrong, item),))
    return await walk.row(item)


async def _end(tasks: deque[tuple[Row, asyncio.Task[Came]]]) -> None:
    for _, task in tasks:
        task.cancel()
    await asyncio.gather(*(task for _, task in tasks), return_exceptions=True)


@frozen
class Result:
    """What became of one row: its ``values``, and its ``errors``."""

    id: str | int
    values: tuple[Any, ...]
    errors: tuple[Failed, ...]


async def arun(
    chain: Chain,
    rows: Iterable[Mapping[str, Any]],
    *,
    settings: RunSettings,
    on_standing: Callable[[Standing], None] | None = None,
) -> AsyncIterator[Result]:
    """What ``chain`` makes of each of ``rows``, in their order."""
    run = Run(chain, settings)
    async for row, came in run.over(rows_of(rows)):
        if on_standing is not None:
            on_standing(run.standing)
        yield Result(row.id, tuple(item.value for item in came.items), came.failed)
