"""When an engine's server runs: from its first use to its last, and again after it has died."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeAlias, TypeVar

from headrace.backends.managed.server import how_ended
from headrace.contracts.capabilities import BackendStatus
from headrace.contracts.engines import ServerState
from headrace.contracts.errors import LLMError, LLMUnavailableError
from headrace.net.clock import Clock, Timer

log = logging.getLogger(__name__)

_AGAIN_FIRST_S, _AGAIN_MOST_S = 0.5, 30.0
_LONG_LIFE_S = 60.0
_LEAST_RETRY_AFTER_S = 1.0
_DEATH_SHOWS_WITHIN_S = 0.25
_RETIRE_LOOK_S = 0.05

UsesBesides: TypeAlias = Callable[[], tuple[int, int]]
"""How many requests run, and how many there were in all, that did not come by ``Life.use``."""


def _none_besides() -> tuple[int, int]:
    return 0, 0


class Answers(Protocol):
    """The way to a server that answers."""

    async def status(self) -> BackendStatus:
        """Whether it answers now."""


class Serves(Protocol):
    """A server that answers at ``base_url``; without ``started`` it is somebody else's."""

    @property
    def base_url(self) -> str: ...

    @property
    def started(self) -> object: ...


_W = TypeVar("_W", bound=Answers)
_S = TypeVar("_S", bound=Serves)
_S_co = TypeVar("_S_co", bound=Serves, covariant=True)


class Starts(Protocol[_S_co]):
    """What has a server run."""

    async def start(self) -> _S_co:
        """Have it run, and wait until it answers; raises an LLMError where it does not."""

    async def ended(self) -> int | None:
        """Wait until it has ended by itself; its exit status, where that is known."""

    async def leave(self) -> None:
        """Use it no more, which ends it where nobody else does."""

    def tail(self) -> str:
        """The end of what it said."""


class Life(Generic[_W, _S]):
    """Starts ``server`` for the first who uses it, and stops it when nobody has for a while.

    Who comes while it starts waits for it. One that dies is started again, at once the first time
    and then after waits that double up to 30 s; a life of a minute resets them. Where ``idle_s`` is
    None it is never idle. A ``lazy`` one of which a start has failed is tried again by the first
    call after such a wait, any other by itself. ``way`` makes the way to one that answers.
    """

    def __init__(
        self,
        name: str,
        server: Starts[_S],
        way: Callable[[_S], _W],
        clock: Clock,
        *,
        lazy: bool,
        idle_s: float | None,
    ) -> None:
        self.restarts = 0
        self.failure: LLMError | None = None
        """Why it does not run; None where it does, or has not been asked to."""
        self.remote: _W | None = None
        """The way to it, while it answers."""
        self.serving: _S | None = None
        self._name, self._server, self._way, self._clock = name, server, way, clock
        self._lazy, self._idle_s = lazy, idle_s
        self._coming: asyncio.Future[_W | LLMError] | None = None
        self._course: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._idle: Timer | None = None
        self._not_before = 0.0
        self._wait_s = 0.0
        self._in_use = 0
        self._is_over = False
        self._predecessor: asyncio.Task[None] | None = None
        self._uses_besides: UsesBesides = _none_besides
        self._uses_seen = 0

    @property
    def state(self) -> ServerState:
        """How it stands now."""
        if self._ending is not None:
            return "stopping"
        if self.remote is not None:
            return "ready"
        if self._coming is not None:
            return "starting"
        return "stopped" if self.failure is None else "failed"

    @property
    def will_start(self) -> bool:
        """Whether a call would have it run."""
        return self._lazy and not self._is_over and self.state != "failed"

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        """Within the block it is not idle."""
        self._in_use += 1
        self._await_no_rest()
        try:
            yield
        finally:
            self._in_use -= 1
            if not self._in_use and self._course is not None:
                self._await_rest()

    def is_used_besides(self, uses: UsesBesides) -> None:
        """It is also asked by those who take the way of its ``remote``; ``uses`` knows of them."""
        self._uses_besides = uses

    def starts_after(self, predecessor: asyncio.Task[None]) -> None:
        """Do not start before ``predecessor`` is done, who has what this one needs."""
        self._predecessor = predecessor

    async def ready(self) -> _W:
        """The way to it, once it answers; raises the LLMError that its start came to."""
        while self._ending is not None:
            await asyncio.shield(self._ending)
        if self._is_over:
            raise LLMUnavailableError(f"engine {self._name!r} is closed")
        if self.remote is not None:
            return self.remote
        if self._coming is None:
            left_s = self._not_before - self._clock.monotonic()
            if self.failure is not None and left_s > 0:
                raise _again(self.failure, left_s)
            self._coming = asyncio.get_running_loop().create_future()
            if self._course is None:
                self._course = asyncio.create_task(self._run(), name=f"engine {self._name}")
        come = await asyncio.shield(self._coming)
        if isinstance(come, LLMError):
            raise _again(come, max(self._wait_s, _LEAST_RETRY_AFTER_S))
        return come

    async def is_gone(self, remote: _W) -> bool:
        """Whether what ``remote`` led to has ended; that may show a moment later than its errors."""
        if self.serving is not None and self.serving.started is None:
            # Somebody else's; the next call looks whether it is there again. Another call may have
            # found the same meanwhile, and what has come since then is not this one's to forget.
            if not (await remote.status()).ok and self.remote is remote:
                self.remote = self.serving = self._course = None
        else:
            until = self._clock.monotonic() + _DEATH_SHOWS_WITHIN_S
            while self.remote is remote and self._clock.monotonic() < until:
                await self._clock.sleep(0.01)
        return self.remote is not remote

    async def stop(self) -> None:
        """End it, where nobody else uses it; what is in flight fails. The next use starts it anew."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(), name=f"end engine {self._name}")
        await asyncio.shield(self._ending)

    async def close(self) -> None:
        """As ``stop``, for good."""
        self._is_over = True
        await self.stop()

    async def retire(self, patience_s: float) -> None:
        """As ``close``, once nothing is in flight any more or ``patience_s`` seconds are over."""
        until = self._clock.monotonic() + patience_s
        while (self._in_use or self._uses_besides()[0]) and self._clock.monotonic() < until:
            await self._clock.sleep(_RETIRE_LOOK_S)
        await self.close()

    async def _run(self) -> None:
        """Start it, and again when it has died."""
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
                if self._lazy or not failure.transient:
                    self._course = None
                    return
                await self._clock.sleep(self._not_before - self._clock.monotonic())
                continue
            except Exception as mistake:
                # Of ours, and all who wait should hear of it.
                log.exception("engine %s could not be started", self._name)
                self._failed(
                    LLMUnavailableError(f"engine {self._name!r} could not be started: {mistake}")
                )
                self._course = None
                return
            self._came(serving)
            if serving.started is None:
                return  # somebody else's: asking it shows whether it is there
            await self._until_dead()

    async def _until_dead(self) -> None:
        """Watch it until it dies, and wait for as long as it may not be started again."""
        born = self._clock.monotonic()
        status = await self._server.ended()
        said = self._server.tail()
        log.error("engine %s %s; the end of its log:\n%s", self._name, how_ended(status), said)
        self.remote = self.serving = None
        self._coming = asyncio.get_running_loop().create_future()
        try:
            # What it has left behind of its group would be in the way of the next.
            await self._server.leave()
        except LLMError as left:
            log.error("engine %s: %s", self._name, left)
        if self._clock.monotonic() - born > _LONG_LIFE_S:
            self._wait_s = 0.0
        await self._clock.sleep(self._wait_s)
        self._wait_longer()
        self.restarts += 1

    def _came(self, serving: _S) -> None:
        self.failure, self.serving = None, serving
        self.remote = self._way(serving)
        log.info("engine %s answers at %s", self._name, serving.base_url)
        self._tell(self.remote)

    def _failed(self, failure: LLMError) -> None:
        log.error("%s", failure)
        self.failure = failure
        self._wait_longer()
        self._not_before = self._clock.monotonic() + self._wait_s
        self._tell(failure)

    def _tell(self, come: _W | LLMError) -> None:
        coming, self._coming = self._coming, None
        if coming is not None and not coming.done():
            coming.set_result(come)

    def _wait_longer(self) -> None:
        self._wait_s = min(max(2 * self._wait_s, _AGAIN_FIRST_S), _AGAIN_MOST_S)

    def _await_rest(self) -> None:
        if self._lazy and self._idle_s is not None:
            self._uses_seen = self._uses_besides()[1]
            self._idle = self._clock.call_later(self._idle_s, self._rest)

    def _await_no_rest(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _rest(self) -> None:
        self._idle = None
        running, uses = self._uses_besides()
        if running or uses != self._uses_seen:
            self._await_rest()
        elif not self._in_use and self._ending is None:
            log.info("engine %s was not used for %g s", self._name, self._idle_s)
            self._ending = asyncio.create_task(self._end(), name=f"end engine {self._name}")
            self._ending.add_done_callback(_log_failure)

    async def _end(self) -> None:
        self._await_no_rest()
        try:
            course, self._course = self._course, None
            if course is not None:
                course.cancel()
                await asyncio.gather(course, return_exceptions=True)
            self.remote = self.serving = self.failure = None
            self._wait_s = self._not_before = 0.0
            self._tell(LLMUnavailableError(f"engine {self._name!r} is being stopped"))
            await self._server.leave()
        finally:
            self._ending = None


def _log_failure(ending: asyncio.Task[None]) -> None:
    if not ending.cancelled() and (failure := ending.exception()) is not None:
        log.error("%s", failure)


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
