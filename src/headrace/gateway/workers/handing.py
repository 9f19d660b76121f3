"""What a worker does not answer by itself it hands to its supervisor, byte for byte both ways."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from pathlib import Path as File
from typing import Any

import msgspec
from attrs import evolve
from starlette.routing import Route as Path
from starlette.types import ASGIApp, Receive, Scope, Send

from headrace.contracts.errors import LLMError, LLMModelNotFoundError, LLMUnavailableError
from headrace.gateway.asgi import again, read_body, while_connected
from headrace.gateway.batches.bodies import FORM_ROOM, LargeBody, check_length
from headrace.gateway.batches.uploads import next_piece
from headrace.gateway.counting import TokenCount
from headrace.gateway.embeddings import Embeddings
from headrace.gateway.generation import Generation
from headrace.gateway.responses import Responses
from headrace.gateway.routes import Routes
from headrace.gateway.standing import standing_of
from headrace.gateway.workers.elsewhere import is_elsewhere
from headrace.net.transport import HttpRequest, TimeLimits, Transport, Url

# Written anew for each connection (RFC 9110, 7.6.1, and what the transport writes itself).
_OF_THE_CONNECTION = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade"),
        *(b"transfer-encoding", b"content-length", b"expect", b"host", b"x-request-id"),
    )
)
_NOT_PASSED_BACK = frozenset(("connection", "keep-alive", "transfer-encoding"))
# An answer may take as long as its backend and its caller like.
_LIMITS = TimeLimits(connect_s=10.0, first_byte_s=None, idle_s=None)
_HERE = frozenset({"/health"})


class Handing:
    """An ASGI application that passes a request to the supervisor at a unix socket.

    Its answer comes back as it comes, and a caller that leaves ends it there too. ``transport`` is
    for that alone. The request's id goes along, so that it is one request in both processes' words;
    the supervisor writes the log line.
    """

    def __init__(self, transport: Transport, socket_path: File) -> None:
        self._transport = transport
        self._url = Url(unix_path=str(socket_path))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(scope, receive, standing_of(scope).config.server)
        await self.pass_on(scope, receive, send, body)

    async def pass_on(self, scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
        """As a call, of a request whose ``body`` was read already."""
        await while_connected(receive, self.hand(scope, send, body))

    def in_place_of(self, path: Path) -> ASGIApp:
        """What answers at ``path`` in a worker."""
        usual: Any = path.endpoint
        if path.path in _HERE:
            return path.app
        if isinstance(usual, LargeBody):
            return _AsItComes(self)
        # What the Responses face keeps is kept once.
        if isinstance(usual, Responses) or not isinstance(
            usual, Generation | TokenCount | Embeddings
        ):
            return self
        return _ByModel(usual, self)

    async def hand(self, scope: Scope, send: Send, body: bytes | AsyncIterable[bytes]) -> None:
        """Send a request on, and its answer back."""
        scope["headrace.handed"] = True
        try:
            reply = await self._transport.send(self._request(scope, body), _LIMITS)
        except LLMError as error:
            scope["headrace.handed"] = False
            raise LLMUnavailableError(
                "the process that has this server's models does not answer now",
                retry_after_s=1.0,
            ) from error
        async with aclosing(reply):
            headers = [
                (name.encode("latin-1"), value.encode("latin-1"))
                for name, value in reply.headers.items()
                if name not in _NOT_PASSED_BACK
            ]
            start = {"type": "http.response.start", "status": reply.status, "headers": headers}
            await send(start)
            async for piece in reply:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    def _request(self, scope: Scope, body: bytes | AsyncIterable[bytes]) -> HttpRequest:
        target, query = scope["raw_path"], scope["query_string"]
        if query:
            target = target + b"?" + query
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in scope["headers"]
            if name not in _OF_THE_CONNECTION
        ]
        return HttpRequest(
            method=scope["method"],
            url=evolve(self._url, target=target.decode("latin-1")),
            headers=(*headers, ("x-request-id", scope["headrace.request_id"])),
            body=body,
        )


class _AsItComes:
    """An ASGI application: what may be large is handed on piece by piece."""

    def __init__(self, handing: Handing) -> None:
        self._handing = handing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        config = standing_of(scope).config
        # Said here, where all of it is still to come: the process behind would cut the connection.
        check_length(scope, config.batches.max_file_bytes + FORM_ROOM)
        silence_s = config.server.body_timeout_ms / 1000
        await self._handing.hand(scope, send, _pieces(receive, silence_s))


async def _pieces(receive: Receive, silence_s: float) -> AsyncGenerator[bytes, None]:
    more = True
    while more:
        piece, more = await next_piece(receive, silence_s)
        if piece:
            yield piece


class _ByModel:
    """An ASGI application: a model that is asked by this process is, any other is handed on."""

    def __init__(self, here: ASGIApp, handing: Handing) -> None:
        self._here, self._handing = here, handing
        # Whose embeddings are meant where nobody's are named is the supervisor's to know.
        self._needs_name = isinstance(here, Embeddings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("headrace.chosen"):  # whom to ask was settled already
            await self._here(scope, receive, send)
            return
        standing = standing_of(scope)
        body = await read_body(scope, receive, standing.config.server)
        if self._is_elsewhere(standing.routes, body):
            await self._handing.pass_on(scope, receive, send, body)
        else:
            await self._here(scope, again(body, receive), send)

    def _is_elsewhere(self, routes: Routes, body: bytes) -> bool:
        try:
            model = _named.decode(body).model
            return (model is None and self._needs_name) or is_elsewhere(routes.pick(model))
        except (msgspec.MsgspecError, UnicodeError, RecursionError, LLMModelNotFoundError):
            return False  # what is wrong with it is told here as well as there


class _Named(msgspec.Struct):
    model: str | None = None


_named = msgspec.json.Decoder(_Named)
