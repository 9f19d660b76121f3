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

import uvicorn
from starlette.types import ASGIApp

from headrace.contracts.errors import LLMError
from headrace.gateway.build import Assembly, assemble
from headrace.gateway.config import Config
from headrace.gateway.hot.door import HotDoor
from headrace.gateway.protocol import http_class
from headrace.gateway.reload import Reload
from headrace.gateway.source import Source
from headrace.gateway.sweep import Sweep
from headrace.gateway.terminal import Terminal
from headrace.net.clock import World
from headrace.net.pool import PooledTransport
from headrace.stores.models import ModelFile

log = logging.getLogger(__name__)

_DRAIN_POLL_S = 0.05
_MOST_CONNECTIONS = 16_384


class Server(uvicorn.Server):
    """uvicorn, which tells the gateway when it begins to drain."""

    def __init__(self, config: uvicorn.Config, assembly: Assembly, door: HotDoor) -> None:
        super().__init__(config)
        self._assembly = assembly
        self._door = door
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
        if not self._assembly.gateway.draining:
            running = self._assembly.gateway.running()
            log.info("%s: finishing %d requests, then ending", signal.Signals(sig).name, running)
        self._assembly.gateway.draining = True
        # Not uvicorn's own, which raises the signal once more at the end: a drained server's end is
        # no failure, and we have an engine to end after it.
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is in flight, then close the port: until then /ready says that we drain."""
        gateway = self._assembly.gateway
        gateway.draining = True
        try:
            async with asyncio.timeout(gateway.config.server.drain_timeout_ms / 1000):
                while self._is_busy() and not self.force_exit:  # noqa: ASYNC110  no event
                    await asyncio.sleep(_DRAIN_POLL_S)
        except TimeoutError:
            self.config.timeout_graceful_shutdown = 0  # they had their time
            for exchange in tuple(self._door.running):
                exchange.stop()
        self._sweep.end()
        await super().shutdown(sockets)

    def _is_busy(self) -> bool:
        return bool(self.server_state.tasks or self._door.running)


async def serve_on(
    listener: socket.socket,
    config: Config,
    model: ModelFile | None,
    announce: Callable[[list[str]], None],
    source: Source | None = None,
) -> None:
    """Serve until a signal ends it; ``announce`` is called with the models once they answer.

    SIGHUP reads the configuration again from its ``source``. Raises the LLMError with
    which the engine failed to start.
    """
    # The backends' own limits bound the connections to each; ours only bounds a mistake.
    transport = PooledTransport(max_connections=_MOST_CONNECTIONS)
    world = World(transport=transport)
    assembly = assemble(config, model, world)
    door = HotDoor(assembly.gateway)
    server = Server(_server_config(config, assembly, door), assembly, door)
    reload = Reload(assembly.gateway, assembly.own, world, source or Source())
    failures: list[LLMError] = []

    async def load() -> None:
        # The port is open meanwhile: early requests wait for the engine instead of failing.
        try:
            if assembly.engine is not None:
                await assembly.engine.start()
        except LLMError as failure:
            failures.append(failure)
            server.should_exit = True
            return
        announce([route.model for route in assembly.gateway.routes])
        if assembly.embedder is not None and config.embeddings.at_start:
            with contextlib.suppress(LLMError):  # logged where it happened; chat goes on
                await assembly.embedder.wake()

    _spare_the_collector()
    tasks = [asyncio.create_task(load()), asyncio.create_task(reload.run())]
    server.on_hangup(Terminal(), reload.ask)
    try:
        await server.serve(sockets=[listener])
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for engine in (assembly.embedder, assembly.engine):
            if engine is not None:
                await engine.aclose()
        await transport.aclose()
        assembly.records.close()
    if failures:
        raise failures[0]


def _spare_the_collector() -> None:
    """Have the garbage collector leave alone what stays, and come less often: requests leave next
    to no circles behind, and looking for them took a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _server_config(config: Config, assembly: Assembly, door: HotDoor) -> uvicorn.Config:
    application: ASGIApp = assembly.gateway.application()
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
        limit_concurrency=config.server.max_connections,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=config.server.drain_timeout_ms // 1000,
    )
