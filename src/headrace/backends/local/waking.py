"""An engine that is started by the first who asks, for all who come meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from copy import copy
from typing import Generic, TypeVar

from headrace.contracts.errors import LLMError, LLMUnavailableError
from headrace.net.clock import Clock

E = TypeVar("E")

log = logging.getLogger(__name__)

_RETRY_START_S = 30.0


class Waking(Generic[E]):
    """``engine`` is what ``start`` gave, once somebody has asked for it; ``what`` names it in the log."""

    def __init__(
        self, name: str, what: str, start: Callable[[], Awaitable[E]], clock: Clock
    ) -> None:
        self.engine: E | None = None
        self._name, self._what, self._start, self._clock = name, what, start, clock
        self._waking: asyncio.Task[E] | None = None
        self._failure: tuple[float, LLMError] | None = None
        self._closed = False

    @property
    def failure(self) -> LLMError | None:
        """Why the last start failed."""
        return None if self._failure is None else self._failure[1]

    async def wake(self) -> E:
        """The engine, once it runs; whoever comes meanwhile waits for the same start.

        Raises the LLMError with which the start failed; another one is tried after 30 s.
        """
        if self.engine is not None:
            return self.engine
        if self._closed:
            raise self._stopped()
        if self._waking is None:
            if self._failure is not None:
                self._refuse_for_now(*self._failure)
            self._waking = asyncio.create_task(self._started(), name=f"start {self._name}")
            self._waking.add_done_callback(self._woken)
        waking = self._waking
        try:
            # Whoever leaves does not end what others wait for.
            return await asyncio.shield(waking)
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if waking.cancelled() and not (me and me.cancelling()):
                raise self._stopped() from None
            raise

    async def close(self) -> E | None:
        """Give a start up; the engine, where there is one, for its owner to end."""
        self._closed = True
        if self._waking is not None:
            self._waking.cancel()
            with contextlib.suppress(asyncio.CancelledError, LLMError):
                await self._waking
        engine, self.engine = self.engine, None
        return engine

    async def _started(self) -> E:
        begin = self._clock.monotonic()
        log.info("%s %s is being started", self._what, self._name)
        self.engine = engine = await self._start()
        took_s = self._clock.monotonic() - begin
        log.info("%s %s is ready (%.1f s)", self._what, self._name, took_s)
        return engine

    def _woken(self, task: asyncio.Task[E]) -> None:
        self._waking = None
        if task.cancelled():
            return
        failure = task.exception()
        if isinstance(failure, LLMError):
            self._failure = (self._clock.monotonic(), failure)
            log.error("%s %s did not start: %s", self._what, self._name, failure)
        else:
            self._failure = None

    def _stopped(self) -> LLMUnavailableError:
        return LLMUnavailableError(f"{self._name} was stopped")

    def _refuse_for_now(self, at: float, failure: LLMError) -> None:
        left = at + _RETRY_START_S - self._clock.monotonic()
        if left > 0:
            again = copy(failure)
            again.retry_after_s = left
            raise again from failure
