"""An engine that we start as a backend: it runs while somebody uses it, and is asked over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import TypeAlias

from attrs import evolve

from headrace.backends.managed import processes
from headrace.backends.managed.adapters import adapter_for
from headrace.backends.managed.launch import Adapter
from headrace.backends.managed.server import Server, Serving, how_ended
from headrace.backends.providers import Provider, provider
from headrace.backends.remote import Remote
from headrace.contracts.capabilities import BackendStatus, ModelInfo
from headrace.contracts.engine_metrics import EngineMetrics
from headrace.contracts.engines import EngineConfig, ServerSnapshot, ServerState
from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMError,
    LLMInvalidRequestError,
    LLMUnavailableError,
)
from headrace.contracts.record import Marks
from headrace.contracts.requests import EmbeddingRequest, LLMRequest
from headrace.contracts.responses import EmbeddingResult, LLMDelta, Provenance
from headrace.net.clock import Timer, World
from headrace.net.transport import TimeLimits
from headrace.stores.secret import Secret

log = logging.getLogger(__name__)

# A prompt of any length may be computed before the first byte comes.
_LIMITS = TimeLimits(connect_s=5.0, first_byte_s=600.0, idle_s=120.0)
_AGAIN_FIRST_S, _AGAIN_MOST_S = 0.5, 30.0
_LONG_LIFE_S = 60.0
_RETRY_AFTER_S = 1.0
_DEATH_SHOWS_WITHIN_S = 0.25
_MEMORY_EVERY_S = 2.0
_RETIRE_LOOK_S = 0.05

UsesBesides: TypeAlias = Callable[[], tuple[int, int]]
"""How many requests run, and how many there were in all, that did not come by ``stream``."""


def _none_besides() -> tuple[int, int]:
    return 0, 0


class EngineDiedError(LLMUnavailableError):
    """The engine's process ended while it answered; it is being started again."""


class Managed:
    """A Backend whose server is started when it is first used, and stopped when it is not any more.

    Who comes while it starts waits for it. One that dies is started again, at once the first time
    and then after waits that double up to 30 s; a life of a minute resets them. A lazy one of which
    a start has failed is tried again by the first call after such a wait, any other by itself.

    ``key`` is shown to it, where it asks for one. ``state`` is the folder in which processes of
    ours tell one another what they have started. ``adapter`` is the one of ``config.backend``,
    unless given.
    """

    def __init__(
        self,
        config: EngineConfig,
        world: World,
        *,
        adapter: Adapter | None = None,
        key: Secret | None = None,
        state: Path | None = None,
        limits: TimeLimits = _LIMITS,
    ) -> None:
        self.config = config
        self.name = config.name
        self._adapter = adapter or adapter_for(config.backend)
        self._world, self._key, self._limits = world, key, limits
        self._server = Server(config, self._adapter, world, key=key, state=state)
        self._remote: Remote | None = None
        self._serving: Serving | None = None
        self._coming: asyncio.Future[Remote | LLMError] | None = None
        self._life: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._idle: Timer | None = None
        self._failure: LLMError | None = None
        self._not_before = 0.0
        self._wait_s = 0.0
        self._restarts = 0
        self._in_use = 0
        self._is_closed = False
        self._predecessor: asyncio.Task[None] | None = None
        self._uses_besides: UsesBesides = _none_besides
        self._uses_seen = 0
        self._memory: tuple[float, int | None] = (float("-inf"), None)

    @property
    def provider(self) -> Provider:
        """The row by which its server is asked."""
        return provider(self._adapter.provider)

    @property
    def remote(self) -> Remote | None:
        """The way to its server, while that answers."""
        return self._remote

    @property
    def state(self) -> ServerState:
        """How it stands now."""
        if self._ending is not None:
            return "stopping"
        if self._remote is not None:
            return "ready"
        if self._coming is not None:
            return "starting"
        return "stopped" if self._failure is None else "failed"

    async def ensure_running(self) -> str:
        """Have it run; where it is then, up to and including /v1.

        Raises LLMUnavailableError with the end of its log where it does not start, and
        LLMInvalidRequestError where it cannot with this configuration.
        """
        with self._use():
            return (await self._ready()).base_url

    async def keep(self) -> None:
        """Start it, and let it run on after us until it is told to stop."""
        with self._use():
            await self._ready()
            await self._server.keep()

    async def stop(self) -> None:
        """End it, where nobody else uses it; what is in flight fails. The next use starts it anew."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(), name=f"end engine {self.name}")
        await asyncio.shield(self._ending)

    async def retire(self, patience_s: float) -> None:
        """As ``aclose``, once nothing is in flight any more or ``patience_s`` seconds are over."""
        clock = self._world.clock
        until = clock.monotonic() + patience_s
        while (self._in_use or self._uses_besides()[0]) and clock.monotonic() < until:
            await clock.sleep(_RETIRE_LOOK_S)
        await self.aclose()

    def is_used_besides(self, uses: UsesBesides) -> None:
        """It is also asked by those who take the way of its ``remote``; ``uses`` knows of them."""
        self._uses_besides = uses

    def starts_after(self, predecessor: asyncio.Task[None]) -> None:
        """Do not start before ``predecessor`` is done, who has what this one needs."""
        self._predecessor = predecessor

    async def aclose(self) -> None:
        """As ``stop``, for good."""
        self._is_closed = True
        await self.stop()

    async def stream(self, request: LLMRequest, marks: Marks) -> AsyncGenerator[LLMDelta, None]:
        """The answer's pieces, once its server is there."""
        marks.backend, marks.provider = self.name, self._adapter.provider
        with self._use():
            remote = await self._for_a_call()
            try:
                async with aclosing(remote.stream(request, marks)) as pieces:
                    async for delta in pieces:
                        yield delta
            except (LLMUnavailableError, LLMBadResponseError) as error:
                await self._look_at(remote, error)
                raise

    async def embed(self, request: EmbeddingRequest, marks: Marks) -> EmbeddingResult:
        """One vector for each input, once its server is there."""
        marks.backend, marks.provider = self.name, self._adapter.provider
        with self._use():
            remote = await self._for_a_call()
            try:
                return await remote.embed(request, marks)
            except (LLMUnavailableError, LLMBadResponseError) as error:
                await self._look_at(remote, error)
                raise

    async def models(self) -> tuple[ModelInfo, ...]:
        """What its server lists, or the model that it would serve."""
        if self._remote is None:
            return (ModelInfo(model_id=self.config.model),)
        return await self._remote.models()

    async def status(self) -> BackendStatus:
        """Whether it answers now, or will once it is asked: nothing is started to find out."""
        checked_at, state = Provenance.now_iso(), self.state
        if self._remote is not None:
            now = await self._remote.status()
            return evolve(now, details={**(now.details or {}), "state": state})
        will = self.config.lazy and not self._is_closed and state != "failed"
        message = str(self._failure) if self._failure else f"the engine is {state}"
        return BackendStatus(
            ok=will, message=message, details={"state": state}, checked_at=checked_at
        )

    @property
    def tells_metrics(self) -> bool:
        """Whether its program tells how full it is."""
        return self.provider.metrics_path is not None

    async def metrics(self) -> tuple[EngineMetrics, ...]:
        """What it tells of itself while it runs; nothing is started to find out."""
        return () if self._remote is None else await self._remote.metrics()

    def snapshot(self) -> ServerSnapshot:
        """How its server stands."""
        serving, started = self._serving, self._server.started
        began = None if started is None else started.started
        return ServerSnapshot(
            name=self.name,
            model=self.config.model,
            backend=self.config.backend,
            state=self.state,
            url=None if serving is None else serving.base_url,
            port=None if started is None else started.port,
            pid=None if started is None else started.pid,
            command=() if started is None else started.command,
            started=began,
            uptime_s=None if began is None else max(0.0, self._world.clock.wall() - began),
            restarts=self._restarts,
            memory_bytes=self._memory_bytes(),
            reused=serving is not None and serving.started is None,
            log=None if started is None else started.log,
            error=None if self._failure is None else str(self._failure),
        )

    @contextlib.contextmanager
    def _use(self) -> Iterator[None]:
        """Within the block it is not idle."""
        self._in_use += 1
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        try:
            yield
        finally:
            self._in_use -= 1
            if not self._in_use and self._life is not None:
                self._await_rest()

    def _await_rest(self) -> None:
        after_s = self.config.idle_timeout_s
        if self.config.lazy and after_s is not None:
            self._uses_seen = self._uses_besides()[1]
            self._idle = self._world.clock.call_later(after_s, self._rest)

    def _rest(self) -> None:
        self._idle = None
        running, uses = self._uses_besides()
        if running or uses != self._uses_seen:
            self._await_rest()
        elif not self._in_use and self._ending is None:
            log.info("engine %s was not used for %g s", self.name, self.config.idle_timeout_s)
            self._ending = asyncio.create_task(self._end(), name=f"end engine {self.name}")

    async def _ready(self) -> Remote:
        """The way to it; raises as ``ensure_running``."""
        while self._ending is not None:
            await asyncio.shield(self._ending)
        if self._is_closed:
            raise LLMUnavailableError(
                f"engine {self.name!r} is closed", provider=self.provider.name
            )
        if self._remote is not None:
            return self._remote
        if self._coming is None:
            left_s = self._not_before - self._world.clock.monotonic()
            if self._failure is not None and left_s > 0:
                raise _again(self._failure, left_s)
            self._coming = asyncio.get_running_loop().create_future()
            if self._life is None:
                self._life = asyncio.create_task(self._live(), name=f"engine {self.name}")
        come = await asyncio.shield(self._coming)
        if isinstance(come, Remote):
            return come
        raise _again(come, max(self._wait_s, _RETRY_AFTER_S))

    async def _for_a_call(self) -> Remote:
        """As ``_ready``; what is wrong with our own settings is no fault of the call's."""
        try:
            return await self._ready()
        except LLMInvalidRequestError as wrong:
            raise LLMUnavailableError(wrong.message, provider=self.provider.name) from wrong

    async def _live(self) -> None:
        """Start it, and again when it has died."""
        clock = self._world.clock
        if self._predecessor is not None:
            await asyncio.wait({self._predecessor})
            self._predecessor = None
        while True:
            if self._coming is None:
                self._coming = asyncio.get_running_loop().create_future()
            try:
                serving = await self._server.start()
            except LLMError as failure:
                self._failed(failure)
                if self.config.lazy or not failure.transient:
                    self._life = None
                    return
                await clock.sleep(self._not_before - clock.monotonic())
                continue
            except Exception as mistake:
                log.exception("engine %s could not be started", self.name)
                self._failed(
                    LLMUnavailableError(f"engine {self.name!r} could not be started: {mistake}")
                )
                self._life = None
                return
            self._came(serving)
            if serving.started is None:
                return  # somebody else's: asking it shows whether it is there
            born = clock.monotonic()
            status = await self._server.ended()
            said = self._server.tail()
            log.error("engine %s %s; the end of its log:\n%s", self.name, how_ended(status), said)
            self._remote = self._serving = None
            self._coming = asyncio.get_running_loop().create_future()
            await self._bury()
            if clock.monotonic() - born > _LONG_LIFE_S:
                self._wait_s = 0.0
            await clock.sleep(self._wait_s)
            self._wait_longer()
            self._restarts += 1

    async def _bury(self) -> None:
        """End what it has left behind of its group, which would be in the way of the next."""
        try:
            await self._server.leave()
        except LLMError as left:
            log.error("engine %s: %s", self.name, left)

    def _came(self, serving: Serving) -> None:
        self._failure, self._serving = None, serving
        self._remote = remote = Remote(
            name=self.name,
            provider=self.provider,
            base_url=serving.base_url,
            world=self._world,
            key=self._key,
            model=serving.model,
            metrics_url=None if serving.started is None else serving.started.metrics_url,
            limits=self._limits,
        )
        log.info("engine %s answers at %s", self.name, serving.base_url)
        self._tell(remote)

    def _failed(self, failure: LLMError) -> None:
        log.error("%s", failure)
        self._failure = failure
        self._wait_longer()
        self._not_before = self._world.clock.monotonic() + self._wait_s
        self._tell(failure)

    def _tell(self, come: Remote | LLMError) -> None:
        coming, self._coming = self._coming, None
        if coming is not None and not coming.done():
            coming.set_result(come)

    def _wait_longer(self) -> None:
        self._wait_s = min(max(2 * self._wait_s, _AGAIN_FIRST_S), _AGAIN_MOST_S)

    async def _end(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        try:
            life, self._life = self._life, None
            if life is not None:
                life.cancel()
                await asyncio.gather(life, return_exceptions=True)
            self._remote = self._serving = self._failure = None
            self._wait_s = self._not_before = 0.0
            self._tell(LLMUnavailableError(f"engine {self.name!r} is being stopped"))
            await self._server.leave()
        finally:
            self._ending = None

    async def _look_at(self, remote: Remote, error: LLMError) -> None:
        """Raise what explains ``error``, where ``remote`` is gone; its death may show a moment later."""
        clock = self._world.clock
        if self._serving is not None and self._serving.started is None:
            if self._remote is remote and isinstance(error, LLMUnavailableError):
                self._remote = self._serving = self._life = None  # the next call looks again
            return
        until = clock.monotonic() + _DEATH_SHOWS_WITHIN_S
        while self._remote is remote and clock.monotonic() < until:
            await clock.sleep(0.01)
        if self._remote is not remote:
            raise EngineDiedError(
                f"engine {self.name!r} died while it answered; it is being started again",
                retry_after_s=_RETRY_AFTER_S,
                provider=self.provider.name,
            ) from error

    def _memory_bytes(self) -> int | None:
        """What its processes hold, looked at now and then: it takes some milliseconds."""
        started, now = self._server.started, self._world.clock.monotonic()
        if started is None:
            return None
        if now - self._memory[0] > _MEMORY_EVERY_S:
            held = processes.members(started.pid, started.born)
            self._memory = now, sum(each.rss_bytes for each in held) or None
        return self._memory[1]


def _again(failure: LLMError, retry_after_s: float) -> LLMError:
    """``failure`` for one more caller: an error that several raise gathers all their traces.

    It is not transient: to ask again at once would be to wait for another start, which is ours to
    decide.
    """
    again = type(failure)(
        failure.message,
        status=failure.status,
        transient=False,
        param=failure.param,
        code=failure.code,
        retry_after_s=retry_after_s if failure.transient else None,
    )
    again.__cause__ = failure
    return again
