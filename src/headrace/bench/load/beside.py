"""What goes on beside a load: the server's own metrics are looked at, once a second."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from headrace.bench.load.scrape import Scrape, metrics_urls
from headrace.bench.load.target import Target, tls_of
from headrace.contracts.load import LoadPlan
from headrace.contracts.load_report import ServerSeries
from headrace.net.clock import World
from headrace.net.pool import PooledTransport


class Beside:
    """Looks for the metrics of the target and keeps them, from ``begin`` to ``end``."""

    def __init__(self, plan: LoadPlan, target: Target) -> None:
        self._transport = PooledTransport(tls=tls_of(plan, target))
        self._scrape = Scrape(
            metrics_urls(plan.url, plan.metrics_url),
            World(transport=self._transport),
            names=plan.metrics,
            headers=plan.headers,
        )
        self._task: asyncio.Task[None] | None = None

    def begin(self, at: float) -> None:
        """The load begins at ``at``."""
        self._task = asyncio.get_running_loop().create_task(self._go(at))

    async def end(self) -> tuple[tuple[ServerSeries, ...], tuple[str, ...]]:
        """What the server told, and what is to be said about that."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._transport.aclose()
        return self._scrape.series(), tuple(self._scrape.notes)

    async def _go(self, at: float) -> None:
        if await self._scrape.look():
            await self._scrape.run(at)
