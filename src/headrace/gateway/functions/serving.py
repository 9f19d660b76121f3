"""Functions on a socket, until a signal ends it."""

from __future__ import annotations

import importlib
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import uvicorn

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.gateway.app import Gateway
from headrace.gateway.config import ServerConfig
from headrace.gateway.functions.app import FunctionServer
from headrace.gateway.functions.function import Function
from headrace.gateway.head import Head
from headrace.gateway.hot.door import HotDoor
from headrace.gateway.hot.exchange import Exchange
from headrace.gateway.hot.head import HotHead
from headrace.gateway.protocol import http_class
from headrace.gateway.server import Server


class NoDoor:
    """Where nothing goes the fast way: all requests go to the application."""

    def __init__(self, server: ServerConfig) -> None:
        self.server = server
        self.running: set[Exchange] = set()
        self.logs_requests = False

    def look_at(self, head: Head, fields: Mapping[bytes, bytes]) -> HotHead | None:
        """Nothing that it wants."""
        return None

    def knows(self, hot: HotHead, body: bytes) -> bool:
        """Nothing that it has seen before."""
        return False


async def serve_on(
    listener: socket.socket, functions: FunctionServer, announce: Callable[[], None]
) -> None:
    """Serve until a signal ends it; what is in flight is finished first."""
    settings = functions.config.server
    # Both have of their like what is used of them here.
    door = cast(HotDoor, NoDoor(settings))
    config = uvicorn.Config(
        functions.application(),
        http=http_class(door),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        limit_concurrency=settings.max_connections,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=settings.drain_timeout_ms // 1000,
    )
    server = Server(config, cast(Gateway, functions), door)
    announce()
    await server.serve(sockets=[listener])


def find(named: str) -> tuple[str, Callable[..., Any] | Function]:
    """The name and function that ``[NAME=]MODULE:FUNCTION`` says.

    Modules are looked for where Python does, and in the working directory. Raises
    LLMInvalidRequestError where there is none.
    """
    name, equals, place = named.rpartition("=")
    module_name, colon, path = place.partition(":")
    if not colon or not module_name or not path:
        raise LLMInvalidRequestError(
            f"{named!r} names no function; expected MODULE:FUNCTION or NAME=MODULE:FUNCTION, such "
            "as upper=shout.text:upper",
            param="functions",
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # a module that it needs itself
        raise LLMInvalidRequestError(
            f"there is no module {module_name!r} (of {named!r})", param="functions"
        ) from error
    for part in path.split("."):
        found = getattr(found, part, None)
        if found is None:
            raise LLMInvalidRequestError(
                f"the module {module_name!r} has no {path!r}", param="functions"
            )
    if not callable(found) and not isinstance(found, Function):
        raise LLMInvalidRequestError(
            f"{place!r} is a {type(found).__name__}, and no function", param="functions"
        )
    return (name if equals else path.rpartition(".")[2]), found
