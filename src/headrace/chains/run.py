"""Runs a chain over rows: a bounded number on their way, results in the order of the input."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from headrace.chains.asking import Askers
from headrace.chains.graph import Chain
from headrace.chains.journal import Journal
from headrace.chains.values import Item
from headrace.chains.walk import Came, Walk
from headrace.client.async_client import AsyncClient

_ROWS_A_PLACE = 4


async def arun(
    chain: Chain,
    rows: Iterable[Mapping[str, Any]],
    *,
    clients: Mapping[str, AsyncClient],
    run_dir: Path,
    concurrency: int = 64,
) -> AsyncIterator[Came]:
    """What ``chain`` makes of each of ``rows``, in their order.

    ``run_dir`` keeps what was done: run again, only the rest is done.
    """
    async with AsyncExitStack() as stack:
        journal = stack.enter_context(Journal(run_dir))
        walk = Walk(chain, journal, Askers(clients, concurrency))
        on_their_way: deque[asyncio.Task[Came]] = deque()
        stack.push_async_callback(_end, on_their_way)
        for number, row in enumerate(rows):
            item = Item(number, row, (), row, {})
            on_their_way.append(asyncio.create_task(walk.row(item)))
            if len(on_their_way) >= _ROWS_A_PLACE * concurrency:
                yield await on_their_way.popleft()
        while on_their_way:
            yield await on_their_way.popleft()


async def _end(tasks: deque[asyncio.Task[Came]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
