"""An engine that we start as a backend: it runs while somebody uses it, and is asked over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar

from attrs import evolve

from headrace.backends.managed import processes
from headrace.backends.managed.adapters import adapter_for
from headrace.backends.managed.launch import Adapter
from headrace.backends.managed.life import Life
from headrace.backends.managed.server import Server, Serving
from headrace.backends.managed.state import Started
from headrace.backends.providers import Provider, provider
from headrace.backends.remote import Remote
from headrace.contracts.capabilities import BackendStatus, ModelInfo
from headrace.contracts.engine_metrics import EngineMetrics
from headrace.contracts.engines import EngineConfig, ServerSnapshot
from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMError,
    LLMInvalidRequestError,
    LLMUnavailableError,
)
from headrace.contracts.ranking import RerankRequest, RerankResult
from headrace.contracts.record import Marks
from headrace.contracts.requests import EmbeddingRequest, LLMRequest
from headrace.contracts.responses import EmbeddingResult, LLMDelta, Provenance
from headrace.net.clock import World
from headrace.net.transport import TimeLimits
from headrace.stores.secret import Secret

PATIENT = TimeLimits(connect_s=5.0, first_byte_s=600.0, idle_s=120.0)
"""For a server of ours: a prompt of any length may be computed before the first byte comes."""

T = TypeVar("T")

_RETRY_AFTER_S = 1.0
_MEMORY_EVERY_S = 2.0


class EngineDiedError(LLMUnavailableError):
    """The engine's process ended while it answered; the next call has it started again."""


class Managed:
    """A Backend whose server is started when it is first used, and stopped when it is not any more.

    Who comes while it starts waits for it (``life`` says when it runs). ``key`` is shown to it,
    where it asks for one. ``state`` is the folder in which processes of ours tell one another what
    they have started. ``adapter`` is the one of ``config.backend``, unless given.
    """

    def __init__(
        self,
        config: EngineConfig,
        world: World,
        *,
        adapter: Adapter | None = None,
        key: Secret | None = None,
        state: Path | None = None,
        limits: TimeLimits = PATIENT,
    ) -> None:
        self.config = config
        self.name = config.name
        self._adapter = adapter or adapter_for(config.backend)
        self._world, self._key, self._limits = world, key, limits
        self._server = Server(config, self._adapter, world, key=key, state=state)
        self.life = Life(
            config.name,
            self._server,
            self._way,
            world.clock,
            lazy=config.lazy,
            idle_s=config.idle_timeout_s,
        )
        self._memory: tuple[int | None, int | None, float] = None, None, 0.0
        self._weighing: asyncio.Task[None] | None = None

    @property
    def provider(self) -> Provider:
        """The row by which its server is asked."""
        return provider(self._adapter.provider)

    @property
    def remote(self) -> Remote | None:
        """The way to its server, while that answers."""
        return self.life.remote

    async def ensure_running(self) -> str:
        """Have it run; where it is then, up to and including /v1.

        Raises LLMUnavailableError with the end of its log where it does not start, and
        LLMInvalidRequestError where it cannot with this configuration.
        """
        with self.life.use():
            return (await self.life.ready()).base_url

    async def keep(self) -> None:
        """Start it, and let it run on after us until it is told to stop."""
        with self.life.use():
            await self.life.ready()
            await self._server.keep()

    async def stop(self) -> None:
        """End it, where nobody else uses it; what is in flight fails. The next use starts it anew."""
        await self.life.stop()

    async def aclose(self) -> None:
        """As ``stop``, for good."""
        await self.life.close()

    async def stream(self, request: LLMRequest, marks: Marks) -> AsyncGenerator[LLMDelta, None]:
        """The answer's pieces, once its server is there."""
        marks.backend, marks.provider = self.name, self._adapter.provider
        with self.life.use():
            remote = await self._for_a_call()
            try:
                async with aclosing(remote.stream(request, marks)) as pieces:
                    async for delta in pieces:
                        yield delta
            except (LLMUnavailableError, LLMBadResponseError) as error:
                await self._explain(error, remote)
                raise

    async def embed(self, request: EmbeddingRequest, marks: Marks) -> EmbeddingResult:
        """One vector for each input, once its server is there."""
        return await self._once(lambda remote: remote.embed(request, marks), marks)

    async def rerank(self, request: RerankRequest, marks: Marks) -> RerankResult:
        """The documents, the most relevant first, once its server is there."""
        return await self._once(lambda remote: remote.rerank(request, marks), marks)

    async def _once(self, ask: Callable[[Remote], Awaitable[T]], marks: Marks) -> T:
        """What ``ask`` gets from its server, in one piece."""
        marks.backend, marks.provider = self.name, self._adapter.provider
        with self.life.use():
            remote = await self._for_a_call()
            try:
                return await ask(remote)
            except (LLMUnavailableError, LLMBadResponseError) as error:
                await self._explain(error, remote)
                raise

    async def models(self) -> tuple[ModelInfo, ...]:
        """What its server lists, or the model that it would serve."""
        if self.remote is None:
            return (ModelInfo(model_id=self.config.model),)
        return await self.remote.models()

    async def status(self) -> BackendStatus:
        """Whether it answers now, or will once it is asked: nothing is started to find out."""
        state, failure = self.life.state, self.life.failure
        if self.remote is not None:
            now = await self.remote.status()
            return evolve(now, details={**(now.details or {}), "state": state})
        return BackendStatus(
            ok=self.life.will_start,
            message=str(failure) if failure else f"the engine is {state}",
            details={"state": state},
            checked_at=Provenance.now_iso(),
        )

    @property
    def tells_metrics(self) -> bool:
        """Whether its program tells how full it is."""
        return self.provider.metrics_path is not None

    async def metrics(self) -> tuple[EngineMetrics, ...]:
        """What it tells of itself while it runs; nothing is started to find out."""
        return () if self.remote is None else await self.remote.metrics()

    def snapshot(self) -> ServerSnapshot:
        """How its server stands."""
        serving, started, failure = self.life.serving, self._server.started, self.life.failure
        began = None if started is None else started.started
        return ServerSnapshot(
            name=self.name,
            model=self.config.model,
            backend=self.config.backend,
            state=self.life.state,
            url=None if serving is None else serving.base_url,
            port=None if started is None else started.port,
            pid=None if started is None else started.pid,
            command=() if started is None else started.command,
            started=began,
            uptime_s=None if began is None else max(0.0, self._world.clock.wall() - began),
            restarts=self.life.restarts,
            memory_bytes=self._memory_bytes(),
            reused=serving is not None and serving.started is None,
            log=None if started is None else started.log,
            error=None if failure is None else str(failure),
        )

    def _way(self, serving: Serving) -> Remote:
        return Remote(
            name=self.name,
            provider=self.provider,
            base_url=serving.base_url,
            world=self._world,
            key=self._key,
            model=serving.model,
            metrics_url=None if serving.started is None else serving.started.metrics_url,
            limits=self._limits,
        )

    async def _for_a_call(self) -> Remote:
        """The way to its server; what is wrong with our own settings is no fault of the call's."""
        try:
            return await self.life.ready()
        except LLMInvalidRequestError as wrong:
            raise LLMUnavailableError(
                wrong.message, provider=self.provider.name, transient=False
            ) from wrong

    async def _explain(self, error: LLMError, remote: Remote) -> None:
        """Raise EngineDiedError where that is what ``error`` of ``remote`` comes from."""
        if await self.life.is_gone(remote):
            raise EngineDiedError(
                f"engine {self.name!r} ended while it answered; the next call has it started again",
                retry_after_s=_RETRY_AFTER_S,
                provider=self.provider.name,
            ) from error

    def _memory_bytes(self) -> int | None:
        """What its processes hold, as it was found within the last seconds.

        Who asks first waits for that, and so does who asks outside of an event loop; else it is
        looked at aside, for there may be thousands of processes.
        """
        started, now = self._server.started, self._world.clock.monotonic()
        if started is None:
            return None
        seen, _, at = self._memory
        is_old = seen == started.pid and now - at > _MEMORY_EVERY_S
        if seen != started.pid or (is_old and not _in_a_loop()):
            self._memory = started.pid, _held_bytes(started), now
        elif is_old and self._weighing is None:
            self._weighing = asyncio.create_task(self._weigh(started))
        return self._memory[1]

    async def _weigh(self, started: Started) -> None:
        try:
            held = await asyncio.to_thread(_held_bytes, started)
            self._memory = started.pid, held, self._world.clock.monotonic()
        finally:
            self._weighing = None


def _held_bytes(started: Started) -> int | None:
    held = processes.members(started.pid, started.born)
    return sum(each.rss_bytes for each in held) or None


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
