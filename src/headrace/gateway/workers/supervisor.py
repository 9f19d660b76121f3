"""Serve with several workers: the models and all that is shared here, the port there."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Callable

from headrace.contracts.profiling import ProfileService
from headrace.gateway.config import Config
from headrace.gateway.server import serve_on
from headrace.gateway.source import Source
from headrace.gateway.workers.crew import Crew, Port
from headrace.net.frames import PrivateFolder, listen
from headrace.stores.models import ModelFile


async def supervise(
    listener: socket.socket,
    config: Config,
    model: ModelFile | None,
    announce: Callable[[list[str]], None],
    source: Source,
    text: str | None,
    profiles: ProfileService | None = None,
) -> None:
    """As ``serve_on``, by way of ``server.workers`` processes that share the port of ``listener``.

    ``text`` is what stood in the file of ``source`` when ``config`` was read.
    """
    folder = PrivateFolder()
    path = folder.path / "supervisor"
    with contextlib.ExitStack() as stack:
        stack.callback(folder.close)
        private = stack.enter_context(listen(path))
        crew = Crew(
            size=config.server.workers,
            port=_shared(listener, config.server.host),
            socket_path=str(path),
            source=source,
            text=text,
        )
        await serve_on(private, config, model, announce, source, crew, profiles)


def shares_port() -> bool:
    """Whether the system deals a port's connections out among the sockets that listen on it."""
    return sys.platform == "linux"


def _shared(listener: socket.socket, host: str) -> Port:
    number = listener.getsockname()[1]
    if shares_port():
        return Port(host=host, number=number)
    listener.listen(2048)
    return Port(host=host, number=number, inherited=listener)
