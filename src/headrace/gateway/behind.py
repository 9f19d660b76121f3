"""Requests that no connection brought: those of a batch, which the gateway asks itself for.

They take the way of every other, by the same application. What stands in their scope says whose
they are; no caller can write there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from attrs import frozen
from starlette.types import ASGIApp, Message, Scope

_OWNER = "headrace.owner"


@frozen(kw_only=True)
class Answer:
    """What came of a request."""

    status: int
    headers: Mapping[bytes, bytes]
    body: bytes


def is_behind(scope: Scope) -> bool:
    """Whether nobody waits for the answer, so that everybody else goes first."""
    return _OWNER in scope


def owner_behind(scope: Scope) -> str | None:
    """Whose request it is, where it came by no connection."""
    owner: str | None = scope.get(_OWNER)
    return owner


async def ask(
    application: ASGIApp, path: str, body: bytes, *, owner: str, request_id: str
) -> Answer:
    """``POST`` of ``body`` to ``path`` in the name of ``owner``; its whole answer."""
    told, status = False, 0
    headers: dict[bytes, bytes] = {}
    pieces: list[bytes] = []

    async def receive() -> Message:
        nonlocal told
        if told:
            await asyncio.Event().wait()  # it never leaves; who has lost interest cancels
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            headers.update(message["headers"])
        else:
            pieces.append(message.get("body", b""))

    scope: Scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [
            (b"content-type", b"application/json"),
            (b"x-request-id", request_id.encode()),
        ],
        "client": None,
        "server": None,
        _OWNER: owner,
    }
    await application(scope, receive, send)
    return Answer(status=status, headers=headers, body=b"".join(pieces))
