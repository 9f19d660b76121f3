"""All that there is of batches in a gateway: their paths, the work on them, and their end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from starlette.routing import Route as Path
from starlette.types import ASGIApp, Scope, Send

from headrace.contracts.errors import LLMError, LLMInvalidRequestError
from headrace.gateway.asgi import Handler
from headrace.gateway.batches.anthropic import AnthropicBatches
from headrace.gateway.batches.desk import Desk, forget
from headrace.gateway.batches.files import Files
from headrace.gateway.batches.home import Home
from headrace.gateway.batches.mistral import MistralJobs
from headrace.gateway.batches.openai import OpenAIBatches
from headrace.gateway.batches.work import Work
from headrace.gateway.batches_config import BatchesConfig
from headrace.net.clock import Clock
from headrace.stores.batches import BatchStore

log = logging.getLogger(__name__)

_BASES = ("/files", "/batches", "/messages/batches", "/batch/jobs")
_LOOK_EVERY_S = 60.0


class Batches:
    """The batches of one gateway; ``application`` answers their requests."""

    def __init__(
        self,
        settings: BatchesConfig,
        clock: Clock,
        application: ASGIApp,
        *,
        may_run: Callable[[str], bool],
        stops: Callable[[], bool],
    ) -> None:
        self._home = Home(settings.folder)
        self._settings, self._clock = settings, clock
        self._work = Work(
            home=self._home,
            application=application,
            settings=settings,
            clock=clock,
            may_run=may_run,
            stops=stops,
        )
        self._desk = Desk(home=self._home, work=self._work, settings=settings, clock=clock)
        self._looking: asyncio.Task[None] | None = None

    def paths(self, prefix: str) -> list[Path]:
        """Every path, behind ``prefix``."""
        if not self._settings.enabled:
            every = ["GET", "POST", "DELETE"]
            return [
                Path(path, Handler(_is_off), methods=every)
                for base in _BASES
                for path in (prefix + base, prefix + base + "/{rest:path}")
            ]
        files = Files(home=self._home, settings=self._settings, clock=self._clock)
        return [
            *files.paths(f"{prefix}/files"),
            *OpenAIBatches(self._desk).paths(f"{prefix}/batches"),
            *AnthropicBatches(self._desk).paths(f"{prefix}/messages/batches"),
            *MistralJobs(self._desk).paths(f"{prefix}/batch/jobs"),
        ]

    async def begin(self) -> None:
        """Go on with what an earlier process left, and look now and then for what is too old."""
        if self._settings.enabled:
            self._looking = asyncio.create_task(self._look())

    async def aclose(self) -> None:
        """Leave all as it is, for the next process to go on with."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
        await self._work.aclose()
        await self._home.aclose()

    async def _look(self) -> None:
        told = False
        while True:
            try:
                if self._home.has_any():
                    self._work.go_on_with(await self._home.do(self._look_through))
                told = False
            except LLMError as elsewhere:  # another gateway may have it, and may leave it
                if not told:
                    log.warning("no batches here for now: %s", elsewhere)
                told = True
            await self._clock.sleep(_LOOK_EVERY_S)

    def _look_through(self, store: BatchStore) -> list[str]:
        """Forget what is old; the batches that have not ended."""
        self._forget_old(store)
        return [each.batch.batch_id for each in store.batches.unfinished()]

    def _forget_old(self, store: BatchStore) -> None:
        now = self._clock.wall()
        for batch_id in store.batches.ended_before(now - self._settings.keep_ms / 1000):
            forget(store, batch_id)
        for file_id in store.files.expired(now):
            if not store.batches.users_of(file_id):
                store.files.delete(file_id)


async def _is_off(scope: Scope, send: Send) -> None:
    raise LLMInvalidRequestError(
        "this server keeps no batches and files; batches.enabled: true in its configuration has it "
        "keep them",
        status=404,
        code="batches_disabled",
    )
