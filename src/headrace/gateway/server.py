"""Run a gateway on a socket: load the engine, serve, drain, end what was started."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from headrace.contracts.errors import LLMError
from headrace.contracts.profiling import ProfileService
from headrace.gateway.app import Gateway
from headrace.gateway.build import assemble
from headrace.gateway.config import Config
from headrace.gateway.grpc import GrpcServer
from headrace.gateway.hot.door import HotDoor
from headrace.gateway.protocol import http_class
from headrace.gateway.reload import Reload
from headrace.gateway.share import WHOLE
from headrace.gateway.source import Source
from headrace.gateway.sweep import Sweep
from headrace.gateway.terminal import Terminal
from headrace.gateway.workers.crew import Crew
from headrace.net.clock import World
from headrace.net.pool import PooledTransport
from headrace.stores.models import ModelFile

log = logging.getLogger(__name__)

_DRAIN_POLL_S = 0.05
MOST_CONNECTIONS = 16_384
_CREW_ENDS_WITHIN_S = 3.0


class Server(uvicorn.Server):
    """uvicorn, which tells the gateway when it begins to drain."""

    def __init__(
        self, config: uvicorn.Config, gateway: Gateway, door: HotDoor, crew: Crew | None = None
    ) -> None:
        super().__init__(config)
        self._gateway, self._door, self._crew = gateway, door, crew
        self._loop = asyncio.get_running_loop()
        self._sweep = Sweep(
            self.server_state.connections, lambda: door.server, config.timeout_keep_alive
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and look after connections that say nothing."""
        await super().startup(sockets)
        self._sweep.begin()

    def on_hangup(self, terminal: Terminal, reload: Callable[[], None]) -> None:
        """From now on SIGHUP calls ``reload``, but ends the server where its terminal was closed."""

        def hung_up() -> None:
            if terminal.was_closed():
                self.handle_exit(signal.SIGHUP, None)
            else:
                reload()

        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hung_up)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: finish what is in flight. Ctrl-C again: stop at once."""
        was_asked = self.should_exit
        if not was_asked:
            running = self._gateway.running()
            log.info("%s: finishing %d requests, then ending", signal.Signals(sig).name, running)
        self.drain()
        # Not uvicorn's own, which raises the signal once more at the end: a drained server's end is
        # no failure, and we have an engine to end after it.
        self.force_exit = was_asked and sig == signal.SIGINT

    def drain(self) -> None:
        """Finish what is in flight, then end; to be called from a signal's handler as well."""
        if self._crew is None:
            self._gateway.draining = True
        else:
            self._loop.call_soon_threadsafe(self._drain_with, self._crew)
        self.should_exit = True

    def _drain_with(self, crew: Crew) -> None:
        # They first: who has heard from us that we drain is to find no worker that does not.
        crew.drain()
        self._gateway.draining = True

    def _is_busy(self) -> bool:
        others = 0 if self._crew is None else self._crew.living
        return bool(self.server_state.tasks or self._door.running or others)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is in flight, then close the port: until then /ready says that we drain."""
        gateway, crew = self._gateway, self._crew
        time_s = gateway.config.server.drain_timeout_ms / 1000
        if crew is None:
            gateway.draining = True
        else:
            self._drain_with(crew)
            time_s += _CREW_ENDS_WITHIN_S  # they have the same time, and callers are theirs to tell
        try:
            async with asyncio.timeout(time_s):
                while self._is_busy() and not self.force_exit:  # noqa: ASYNC110  no event
                    await asyncio.sleep(_DRAIN_POLL_S)
        except TimeoutError:
            self.config.timeout_graceful_shutdown = 0  # they had their time
            for exchange in tuple(self._door.running):
                exchange.stop()
        self._sweep.end()
        await super().shutdown(sockets)


async def serve_on(
    listener: socket.socket,
    config: Config,
    model: ModelFile | None,
    announce: Callable[[list[str]], None],
    source: Source | None = None,
    crew: Crew | None = None,
    profiles: ProfileService | None = None,
) -> None:
    """Serve until a signal ends it; ``announce`` is called with the models once they answer.

    SIGHUP reads the configuration again from its ``source``. With a ``crew`` callers come by way of
    its workers. ``profiles`` makes what is asked for at /v1/profiles. Raises the LLMError with which the engine failed to start.
    """
    # The backends' own limits bound the connections to each; ours only bounds a mistake.
    transport = PooledTransport(max_connections=MOST_CONNECTIONS)
    world = World(transport=transport)
    share = WHOLE if crew is None else crew.rest
    also, tell = (None, None) if crew is None else (crew.reread, crew.lay)
    assembly = assemble(config, model, world, share=share, guarded=crew is None)
    gateway = assembly.gateway
    gateway.others = crew
    gateway.profiles = profiles
    door = HotDoor(gateway)
    server = Server(server_config(config, gateway, door), gateway, door, crew)
    reload = Reload(gateway, assembly.own, world, source or Source(), config, also, tell)
    gateway.changes = reload
    failures: list[LLMError] = []
    by_grpc = GrpcServer(cast(ASGIApp, server.config.app), lambda: gateway.config)

    async def load() -> None:
        # The port is open meanwhile: early requests wait for the engine instead of failing.
        try:
            await by_grpc.start()
            assembly.engines.stand(gateway.standing.engines)
            if crew is not None:
                await crew.start(gateway, assembly.own)
            if assembly.engine is not None:
                await assembly.engine.start()
        except LLMError as failure:
            failures.append(failure)
            server.should_exit = True
            return
        announce([route.model for route in gateway.routes])
        await gateway.batches.begin()
        if assembly.embedder is not None and config.embeddings.at_start:
            with contextlib.suppress(LLMError):  # logged where it happened; chat goes on
                await assembly.embedder.wake()

    spare_the_collector()
    tasks = [asyncio.create_task(load()), asyncio.create_task(reload.run())]
    server.on_hangup(Terminal(), reload.ask)
    try:
        await server.serve(sockets=[listener])
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await gateway.batches.aclose()
        if crew is not None:
            await crew.aclose()
        for engine in (
            by_grpc,
            assembly.engines,
            assembly.whisper,
            assembly.embedder,
            assembly.engine,
        ):
            if engine is not None:
                await engine.aclose()
        await transport.aclose()
        assembly.records.close()
    if failures:
        raise failures[0]


def spare_the_collector() -> None:
    """Have the garbage collector leave alone what stays, and come less often: requests leave next
    to no circles behind, and looking for them took a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 10, 10)


def server_config(config: Config, gateway: Gateway, door: HotDoor) -> uvicorn.Config:
    """How uvicorn serves ``gateway``."""
    application: ASGIApp = gateway.application()
    if config.records.opentelemetry:
        from headrace.gateway.tracing import traced

        application = traced(application)
    return uvicorn.Config(
        application,
        http=http_class(door),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        # Who comes by way of a worker was counted there.
        limit_concurrency=None if gateway.others else config.server.max_connections,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=config.server.drain_timeout_ms // 1000,
    )
