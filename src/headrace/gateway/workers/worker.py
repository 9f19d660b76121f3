"""The program of one worker: it listens with the others, and tells its supervisor what it counted.

It is started with the descriptor of a socket to the supervisor, whose first message is Begin. When
that socket ends so does the worker: however the supervisor dies, no worker is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable
from pathlib import Path

import uvloop
from attrs import define, evolve, field

from headrace.contracts.errors import LLMError, LLMUnavailableError
from headrace.gateway.app import Gateway
from headrace.gateway.build import Own, gateway_of
from headrace.gateway.hot.door import HotDoor
from headrace.gateway.logs import set_up
from headrace.gateway.overlay import overlay_of
from headrace.gateway.reload import Reload
from headrace.gateway.server import (
    MOST_CONNECTIONS,
    Server,
    server_config,
    spare_the_collector,
)
from headrace.gateway.share import Share
from headrace.gateway.source import Source
from headrace.gateway.workers.elsewhere import Elsewhere, EnginesElsewhere, elsewhere
from headrace.gateway.workers.handing import Handing
from headrace.gateway.workers.messages import (
    Begin,
    Drain,
    Failed,
    LaneState,
    Lay,
    Ready,
    Report,
    Reread,
    Stands,
    Tell,
    ToWorker,
)
from headrace.net.clock import World
from headrace.net.frames import FrameLink, FrameReader
from headrace.net.pool import PooledTransport
from headrace.numbers.parts import take_calls, take_history
from headrace.traffic.counts_parts import take_endpoint

log = logging.getLogger(__name__)

_REPORT_EVERY_S = 0.25
_ORPHAN_ENDS_WITHIN_S = 3.0


def main() -> None:
    """Work until told to end, or left alone."""
    # The supervisor reads the configuration again and tells us; whoever means all workers means it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    uvloop.run(_work(socket.socket(fileno=int(sys.argv[1]))))


async def _work(sock: socket.socket) -> None:
    line = Line()
    async with line.open(sock):
        begin = await line.next()
        if not isinstance(begin, Begin):
            return
        try:
            await _serve(begin, line)
        except LLMError as error:
            line.say(Failed(str(error)))


class Line:
    """The connection to the supervisor."""

    def __init__(self) -> None:
        self._link: FrameLink[ToWorker] = FrameLink(FrameReader(ToWorker), self._heard, self._gone)
        self._inbox: asyncio.Queue[ToWorker | None] = asyncio.Queue()
        self._lost = asyncio.Event()
        self.teller: Teller | None = None

    @contextlib.asynccontextmanager
    async def open(self, sock: socket.socket) -> AsyncGenerator[None, None]:
        """Within the block it is connected; at its end what was said is sent before it closes."""
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: self._link, sock=sock)
        try:
            yield
        finally:
            self._link.close()
            await self._lost.wait()

    async def next(self) -> ToWorker | None:
        """What the supervisor says next; ``None`` once it is gone."""
        return await self._inbox.get()

    def say(self, message: object) -> None:
        """Tell the supervisor."""
        self._link.send(message)

    def _heard(self, message: ToWorker) -> None:
        # These not by way of the inbox: they are waited for, and a configuration may take a while.
        if isinstance(message, Tell) and self.teller is not None:
            self.say(self.teller.report(message.number))
        elif isinstance(message, Drain) and self.teller is not None:
            self.teller.server.drain()
        else:
            self._inbox.put_nowait(message)

    def _gone(self, error: Exception | None) -> None:
        if error is not None:
            log.error("the supervisor does not say what we understand: %s", error)
        self._lost.set()
        self._inbox.put_nowait(None)


@define(eq=False)
class Teller:
    """What there is to report of one worker."""

    gateway: Gateway
    server: Server
    _last: tuple[object, ...] = field(default=(), init=False)

    def report(self, number: int | None = None) -> Report:
        """All that was counted since the last report, and how things stand."""
        tally = self.gateway.tally
        waiting, running, running_at = tally.gauges()
        self._last = self._standing()
        return Report(
            number=number,
            calls=take_calls(tally),
            history=take_history(self.gateway.history),
            waiting=waiting,
            running=running,
            running_at=running_at,
            lanes=self._lanes(),
            endpoints=[
                part
                for each in self.gateway.standing.placed
                if (part := take_endpoint(each.lane)) is not None
            ],
            requests=self.server.server_state.total_requests,
            rss_bytes=_rss_bytes(),
        )

    def news(self) -> Report | None:
        """A report, where anything has changed since the last."""
        changed = self.gateway.tally.series or self._standing() != self._last
        return self.report() if changed else None

    def _standing(self) -> tuple[object, ...]:
        requests = self.server.server_state.total_requests
        return (requests, self.gateway.tally.gauges(), self._lanes())

    def _lanes(self) -> list[LaneState]:
        lanes = [
            lane.snapshot()
            for lane, _ in self.gateway.routes.lanes()
            if not isinstance(lane.backend, Elsewhere)
        ]
        # Those of endpoints that were changed, on which calls still run: their places are gone.
        lanes += [
            evolve(lane.snapshot(), places=0, max_waiting=0)
            for placed in self.gateway.standing.placed
            for lane in placed.leaving
        ]
        return [
            LaneState(
                lane.name,
                lane.running,
                lane.places,
                lane.waiting,
                lane.max_waiting,
                lane.circuit,
            )
            for lane in lanes
        ]


async def _serve(begin: Begin, line: Line) -> None:
    source = Source(
        path=None if begin.path is None else Path(begin.path),
        overrides={(section, name): value for section, name, value in begin.overrides},
    )
    config, overlay = source.config(begin.text), overlay_of(begin.endpoints)
    set_up(config.logging)
    listener = _listener(begin)
    # The supervisor lets in whom it likes; here nobody shall wait for a connection to it.
    to_supervisor = PooledTransport(max_connections=2 * config.server.max_connections)
    transport = PooledTransport(max_connections=MOST_CONNECTIONS)
    world = World(transport=transport)
    own = Own(
        chat=elsewhere(begin.chat),
        embeddings=elsewhere(begin.embeddings),
        audio=elsewhere(begin.audio),
        engines=EnginesElsewhere(),
        share=Share(begin.place, begin.processes),
    )
    gateway, records = gateway_of(overlay.over(config), own, world)
    gateway.in_place_of = Handing(to_supervisor, Path(begin.socket_path)).in_place_of
    door = HotDoor(gateway)
    server = Server(server_config(config, gateway, door), gateway, door)
    line.teller = Teller(gateway, server)
    reload = Reload(gateway, own, world, source, config, overlay=overlay)
    tasks = [
        asyncio.create_task(_obey(line, server, reload)),
        asyncio.create_task(_tell(line, line.teller)),
        asyncio.create_task(_say_ready(line, server)),
    ]
    spare_the_collector()
    try:
        await server.serve(sockets=[listener])
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        line.say(line.teller.report())
        await transport.aclose()
        await to_supervisor.aclose()
        records.close()


async def _obey(line: Line, server: Server, reload: Reload) -> None:
    """Stand on what the supervisor says, until it is gone."""
    while True:
        match await line.next():
            case Reread(number=number, text=text):
                await _stand(line, number, reload.stand_on(text))
            case Lay(number=number, endpoints=endpoints):
                await _stand(line, number, reload.lay(overlay_of(endpoints)))
            case Drain():  # it came before we could
                server.drain()
            case None:
                server.drain()
                # Nothing is left to wait for: the models are gone, and nobody counts.
                server.force_exit = True
                loop = asyncio.get_running_loop()
                loop.call_later(_ORPHAN_ENDS_WITHIN_S, os._exit, 1)
                return


async def _stand(line: Line, number: int, work: Awaitable[object]) -> None:
    try:
        await work
        line.say(Stands(number))
    except LLMError as error:
        line.say(Stands(number, str(error)))


async def _tell(line: Line, teller: Teller) -> None:
    while True:
        await asyncio.sleep(_REPORT_EVERY_S)
        report = teller.news()
        if report is not None:
            line.say(report)


async def _say_ready(line: Line, server: Server) -> None:
    while not server.started:  # noqa: ASYNC110  uvicorn has no event for it
        await asyncio.sleep(0.01)
    line.say(Ready())


def _listener(begin: Begin) -> socket.socket:
    if begin.listener is not None:
        return socket.socket(fileno=begin.listener)
    family = socket.AF_INET6 if ":" in begin.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((begin.host, begin.port))
    except OSError as refused:
        listener.close()
        raise LLMUnavailableError(
            f"cannot listen on {begin.host}:{begin.port}: {refused.strerror or refused}"
        ) from refused
    return listener


def _rss_bytes() -> int | None:
    """What this process holds in memory, where that can be read for little."""
    try:
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGESIZE")


if __name__ == "__main__":
    main()
