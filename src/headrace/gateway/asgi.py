"""Small pieces between our handlers and the ASGI server: bodies, answers, callers that leave."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from random import getrandbits
from typing import Any, TypeAlias

from starlette.types import Message, Receive, Scope, Send

from headrace.contracts.errors import LLMCancelledError, LLMInvalidRequestError
from headrace.gateway.config import ServerConfig

Headers: TypeAlias = list[tuple[bytes, bytes]]

CODEC = "headrace.codec"
"""Where a request's scope holds the codec in whose form its caller is told what went wrong, where the
path alone did not tell whose request it is."""

DROPPED = b"x-headrace-dropped"
_UNSAID = re.compile(r"[^!-+\--~]")
_MOST_NAME = 100
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of that (lower-case) name."""
    found: Iterable[tuple[bytes, bytes]] = scope["headers"]
    return next((value for key, value in found if key == name), None)


def dropped_header(names: Iterable[str]) -> tuple[bytes, bytes]:
    """The header that names what an answer's backend could not be given.

    Some names are a caller's own: of what no header can hold, or what would part the names
    otherwise, nothing is told but that it was there.
    """
    told = ", ".join(_UNSAID.sub("?", name)[:_MOST_NAME] for name in dict.fromkeys(names))
    return DROPPED, told.encode()


def id_for(given: bytes | None) -> str:
    """A request's id: the caller's own ``x-request-id`` where it is a plain word, else a new one."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    # Chance enough to be no other's; it is no secret, so the system is not asked for it.
    return "req_" + getrandbits(96).to_bytes(12).hex()


async def read_body(scope: Scope, receive: Receive, server: ServerConfig) -> bytes:
    """The request's whole body.

    Raises LLMInvalidRequestError, status 413 above ``max_body_bytes`` and 408 when it does not come
    within ``body_timeout_ms``; LLMCancelledError when the caller leaves before it is complete.
    """
    limit, timeout_s = server.max_body_bytes, server.body_timeout_ms / 1000
    declared = header(scope, b"content-length")
    if declared is not None and int(declared) > limit:
        raise _too_large(limit)
    try:
        async with asyncio.timeout(timeout_s):
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                whole: bytes = message.get("body", b"")
                if len(whole) > limit:
                    raise _too_large(limit)
                return whole
            pieces = bytearray()
            while True:
                if message["type"] == "http.disconnect":
                    raise LLMCancelledError("the caller left before its request was complete")
                pieces += message.get("body", b"")
                if len(pieces) > limit:
                    raise _too_large(limit)
                if not message.get("more_body", False):
                    return bytes(pieces)
                message = await receive()
    except TimeoutError:
        raise LLMInvalidRequestError(
            f"the request's body did not arrive within {timeout_s:g} s",
            status=408,
            code="request_timeout",
        ) from None


def _too_large(limit: int) -> LLMInvalidRequestError:
    return LLMInvalidRequestError(
        f"the request's body is larger than this server takes ({limit} bytes)",
        status=413,
        code="request_too_large",
    )


async def answer(
    send: Send,
    status: int,
    body: bytes,
    headers: Headers,
    content_type: bytes = b"application/json",
) -> None:
    """Send a whole answer."""
    start: Message = {
        "type": "http.response.start",
        "status": status,
        "headers": [
            (b"content-type", content_type),
            (b"content-length", str(len(body)).encode()),
            *headers,
        ],
    }
    await send(start)
    await send({"type": "http.response.body", "body": body})


async def while_connected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` until it is done or the caller leaves; then it is cancelled at once."""
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_departure(receive))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            if task.cancelled() or isinstance(task.exception(), LLMCancelledError):
                return
        task.result()
    finally:
        watcher.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


async def _departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Handler:
    """A handler that needs no body, as the ASGI application that Starlette's routes take."""

    def __init__(self, handle: Callable[[Scope, Send], Awaitable[None]]) -> None:
        self._handle = handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._handle(scope, send)


def again(body: bytes, receive: Receive) -> Receive:
    """``receive`` as it was before ``body`` was taken from it."""
    told = False

    async def from_the_start() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return from_the_start
