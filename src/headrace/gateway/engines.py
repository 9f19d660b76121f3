"""The engines of the configuration: their routes, and their processes' lives beside the gateway's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Protocol

from attrs import evolve, frozen

from headrace.backends.local.folders.engine import FolderEngine
from headrace.backends.managed.ending import end_orphans
from headrace.backends.managed.opening import Started, key_of_engine, open_engine
from headrace.contracts.errors import LLMError, LLMUnavailableError
from headrace.gateway.config import Config
from headrace.gateway.engines_config import EngineEntry
from headrace.gateway.remotes import queue_of
from headrace.gateway.routes import Route
from headrace.net.clock import World
from headrace.net.transport import TimeLimits
from headrace.stores.credentials import Credentials
from headrace.traffic.breaker import BreakerPolicy
from headrace.traffic.endpoint import open_lane
from headrace.traffic.retry import RetryPolicy

log = logging.getLogger(__name__)

# A call that an engine lost before it gave anything away waits for its next start. One whose engine
# does not start is not made again, for that says so by itself.
_AFTER_DEATH = RetryPolicy(retries=2, first_delay_s=0.1, kinds=(LLMUnavailableError,))


@frozen(kw_only=True)
class PlacedEngine:
    """An engine: what the configuration says of it, and the route that was made of that."""

    entry: EngineEntry
    route: Route


class EngineHome(Protocol):
    """Where the engines are: in this process, or in another one of the same server."""

    def place(
        self, config: Config, world: World, before: Sequence[PlacedEngine]
    ) -> tuple[PlacedEngine, ...]:
        """Every engine of ``config``; one of which the same was said ``before`` is the same."""

    def stand(self, placed: tuple[PlacedEngine, ...], patience_s: float) -> None:
        """Have ``placed`` answer from now on, and no others.

        Those are given ``patience_s`` seconds to finish what they have.
        """


class EnginesHere:
    """The engines of a gateway in its own process; nothing runs before ``stand``."""

    def __init__(self) -> None:
        self._standing: tuple[PlacedEngine, ...] = ()
        self._tasks: set[asyncio.Task[None]] = set()

    def place(
        self, config: Config, world: World, before: Sequence[PlacedEngine]
    ) -> tuple[PlacedEngine, ...]:
        """As EngineHome's; raises LLMAuthError where an engine's key is not to be found."""
        known = {each.entry.name: each for each in before}
        return tuple(
            same
            if (same := known.get(entry.name)) is not None and same.entry == entry
            else PlacedEngine(entry=entry, route=_route(config, entry, world))
            for entry in config.engines
        )

    def stand(self, placed: tuple[PlacedEngine, ...], patience_s: float = 0.0) -> None:
        """As EngineHome's: those that are not lazy are started.

        An engine that takes the place of one of the same name starts only when that has ended. What
        a gateway that was killed has left behind is ended, too.
        """
        self._begin(_end_orphans())
        ending: dict[str, asyncio.Task[None]] = {}
        kept = {id(each) for each in placed}
        for old in self._standing:
            engine = _started(old)
            if id(old) not in kept and engine is not None:
                ending[old.entry.name] = self._begin(engine.life.retire(patience_s))
        before = {id(each) for each in self._standing}
        self._standing = placed
        for new in placed:
            engine = _started(new)
            if id(new) in before or engine is None:
                continue
            if new.entry.name in ending:
                engine.life.starts_after(ending[new.entry.name])
            if not new.entry.lazy:
                self._begin(_start(engine))

    async def aclose(self) -> None:
        """End them all."""
        ends = [each.route.lane.backend.aclose() for each in self._standing]
        self._standing = ()
        for result in await asyncio.gather(*ends, *self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                log.error("an engine could not be ended: %s", result)

    def _begin(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def engine_route(entry: EngineEntry, route: Route) -> Route:
    """``route`` under the names of ``entry``."""
    plain = [name for name in entry.models if not set(name) & set("*?")]
    return evolve(
        route,
        model=plain[0] if plain else entry.name,
        patterns=entry.models or (entry.model,),
    )


def _route(config: Config, entry: EngineEntry, world: World) -> Route:
    engine = open_engine(
        entry,
        world,
        key=key_of_engine(entry, Credentials()),
        limits=TimeLimits(
            connect_s=5.0, first_byte_s=entry.first_token_timeout_ms / 1000, idle_s=120.0
        ),
    )
    queue = queue_of(config, entry)
    if isinstance(engine, FolderEngine):
        # Who waits, waits here, by priority: in the child nobody passes anybody.
        queue = evolve(queue, max_running=min(queue.max_running, engine.slots))
    lane = open_lane(
        engine,
        world.clock,
        evolve(
            queue,
            retry=_AFTER_DEATH,
            # One of ours knows by itself whether it runs, and when it may be tried again.
            breaker=None if isinstance(engine, Started) else BreakerPolicy(),
            total_s=None,
        ),
    )
    if isinstance(engine, Started):
        engine.life.is_used_besides(lambda: (lane.running, lane.stats().requests))
    route = Route(
        model=entry.name,
        lane=lane,
        passes_names=True,
        format=engine.provider.format,
        created=int(world.clock.wall()),
    )
    return engine_route(entry, route)


def _started(placed: PlacedEngine) -> Started | None:
    """Its process' keeper; ``None`` where somebody else runs it."""
    backend = placed.route.lane.backend
    return backend if isinstance(backend, Started) else None


async def _start(engine: Started) -> None:
    try:
        await engine.ensure_running()
    except LLMError:
        # It has said so, and is tried again.
        return


async def _end_orphans() -> None:
    try:
        await end_orphans()
    except LLMError as left:
        log.error("what earlier processes left behind could not all be ended: %s", left)
