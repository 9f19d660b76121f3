"""What there is to watch: the snapshot as JSON, and as events four times a second.

All who watch are shown the same instant, which is computed once for all of them, and only while
somebody watches.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, cast

from attrs import define, evolve, field
from starlette.types import Receive, Scope, Send

from headrace import __version__
from headrace.backends.managed.opening import Started
from headrace.contracts.engine_metrics import EngineMetrics
from headrace.contracts.errors import LLMCancelledError, LLMRateLimitError
from headrace.contracts.snapshot import (
    CircuitState,
    EngineSnapshot,
    LaneSnapshot,
    Snapshot,
    WorkerSnapshot,
)
from headrace.gateway.asgi import Headers, answer, while_connected
from headrace.gateway.generation import STREAM_HEADERS
from headrace.gateway.routes import Routes
from headrace.gateway.standing import standing_of
from headrace.net.clock import Clock
from headrace.numbers.history import History
from headrace.numbers.live import Tally
from headrace.traffic.lane import Lane
from headrace.wire import json as wire_json

SNAPSHOT_PATH = "/snapshot"
STREAM_PATH = "/snapshot/stream"
TICK_S = 0.25

_RETRY_AFTER_S = 5.0
_TIMER_S = 0.001
_ENGINES_S = 0.5
_SAFETY: Headers = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]


class Others(Protocol):
    """Other processes of the same server, whose calls are counted with ours."""

    async def gather(self) -> None:
        """Have all that they have counted until now counted here."""

    def lanes(self) -> Iterable[LaneSnapshot]:
        """How their lanes stand; those of one name are parts of one."""

    def workers(self) -> tuple[WorkerSnapshot, ...]:
        """The processes that live."""


@define(kw_only=True, eq=False)
class Watch:
    """An ASGI application: one watcher's stream of snapshots.

    Its first event holds the whole history, each later one what came since the one before. A reader
    that is slow is given fewer events, and none is made for it meanwhile; one that takes nothing
    for ``slowest_s`` seconds is dropped. The stream ends with an event ``end`` once the server drains.
    """

    tally: Tally
    history: History
    routes: Callable[[], Routes]
    clock: Clock
    draining: Callable[[], bool]
    others: Others | None = None
    slowest_s: float = 10.0
    watchers: int = field(default=0, init=False)
    _tick: int = field(default=-1, init=False)
    _now: Snapshot | None = field(default=None, init=False)
    _events: dict[int, tuple[bytes, int]] = field(factory=dict, init=False)
    """This tick's events, by what their readers had seen, with what they will have seen then."""

    async def snapshot(self, scope: Scope, send: Send) -> None:
        """The snapshot of now, with its whole history."""
        if self.others is not None:
            await self.others.gather()
        await read_engines(self.routes())
        now = self.clock.monotonic()
        whole = evolve(self._taken(now), history=self.history.snapshot(now))
        await answer(send, 200, wire_json.encode(whole), [*scope["headrace.headers"], *_SAFETY])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.watchers >= standing_of(scope).config.server.max_watchers:
            raise LLMRateLimitError(
                f"{self.watchers} watch already, which is the most that may "
                "(server.max_watchers); /snapshot answers once",
                retry_after_s=_RETRY_AFTER_S,
                code="too_many_watchers",
            )
        self.watchers += 1
        try:
            await while_connected(receive, self._stream(scope, send))
        finally:
            self.watchers -= 1

    async def _stream(self, scope: Scope, send: Send) -> None:
        headers = [
            *STREAM_HEADERS,
            *scope["headrace.headers"],
            (b"x-content-type-options", b"nosniff"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        seen = 0
        while not self.draining():
            event, seen = self._event(seen)
            tick = self._tick
            try:
                async with asyncio.timeout(self.slowest_s):
                    await send({"type": "http.response.body", "body": event, "more_body": True})
            except TimeoutError:
                raise LLMCancelledError(
                    f"a watcher took nothing for {self.slowest_s:g} s"
                ) from None
            await self._after(tick)
        await send({"type": "http.response.body", "body": b"event: end\ndata: {}\n\n"})

    async def _after(self, tick: int) -> None:
        """Wait until ``tick`` is over; timers may go off a little early."""
        while (left := (tick + 1) * TICK_S - self.clock.monotonic()) > 0:
            await self.clock.sleep(left + _TIMER_S)

    def _event(self, seen: int) -> tuple[bytes, int]:
        """This tick's event for who has seen the history's revision ``seen``; what it has then."""
        now = self.clock.monotonic()
        tick = math.floor(now / TICK_S)
        if tick != self._tick or self._now is None:
            self._tick, self._now, self._events = tick, self._taken(now), {}
        if seen not in self._events:
            history = self.history.snapshot(self._now.taken, since=seen)
            body = wire_json.encode(evolve(self._now, history=history))
            event = b"event: snapshot\ndata: " + body + b"\n\n"
            self._events[seen] = event, history.revision
        return self._events[seen]

    def _taken(self, now: float) -> Snapshot:
        lanes = tuple(_lane(lane, names) for lane, names in self.routes().lanes())
        if self.others is not None:
            lanes = _together(lanes, self.others.lanes())
        return evolve(
            self.tally.snapshot(now),
            version=__version__,
            draining=self.draining(),
            lanes=lanes,
            workers=() if self.others is None else self.others.workers(),
        )


async def read_engines(routes: Routes) -> dict[str, tuple[EngineMetrics, ...]]:
    """What every backend's engines tell now, by the backend's name; it takes half a second at most."""
    lanes = [lane for lane, _ in routes.lanes()]
    told = await asyncio.gather(*(lane.read_metrics(_ENGINES_S) for lane in lanes))
    return {lane.name: metrics for lane, metrics in zip(lanes, told, strict=True)}


def _lane(lane: Lane, names: tuple[str, ...]) -> LaneSnapshot:
    backend: Any = lane.backend
    provider = getattr(backend, "provider", None)
    return evolve(
        lane.snapshot(),
        models=names,
        provider=getattr(provider, "name", None),
        engines=_engines(backend),
        metrics=lane.metrics(),
        server=backend.snapshot() if isinstance(backend, Started) else None,
    )


_WORST: tuple[CircuitState | None, ...] = (None, "closed", "half_open", "open")


def _together(
    lanes: tuple[LaneSnapshot, ...], others: Iterable[LaneSnapshot]
) -> tuple[LaneSnapshot, ...]:
    """``lanes``, each with the parts of it that are elsewhere; of their circuits the worst is told."""
    parts: dict[str, list[LaneSnapshot]] = {}
    for part in others:
        parts.setdefault(part.name, []).append(part)
    whole = []
    for lane in lanes:
        of = [lane, *parts.pop(lane.name, ())]
        whole.append(
            evolve(
                lane,
                running=sum(part.running for part in of),
                places=sum(part.places for part in of),
                waiting=sum(part.waiting for part in of),
                max_waiting=sum(part.max_waiting for part in of),
                circuit=max((part.circuit for part in of), key=_WORST.index),
            )
        )
    return tuple(whole)


def _engines(backend: Any) -> tuple[EngineSnapshot, ...]:
    """What a backend in the box says of its processes; others are told of elsewhere."""
    tell = getattr(backend, "snapshot", None)
    if tell is None or isinstance(backend, Started):
        return ()
    told = cast("Mapping[str, Any]", tell())
    return tuple(
        EngineSnapshot(
            name=str(engine["engine"]),
            ready=bool(engine["ready"]),
            restarts=int(engine["restarts"]),
        )
        for engine in told.get("engines", (told,) if told else ())
    )
