"""Bodies that may be larger than a usual request's, and files on their way out."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from starlette.types import Receive, Scope, Send

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.gateway.asgi import Headers, header
from headrace.gateway.batches.uploads import next_piece, too_large

_PIECE = 1 << 18
FORM_ROOM = 64 << 10
"""Bytes that a form may take beside its file."""


class LargeBody:
    """The handler of a path whose requests may be as large as a file that may be brought."""


def check_length(scope: Scope, most: int) -> None:
    """Refuse a body that says that it is too large."""
    declared = header(scope, b"content-length")
    if declared is not None and int(declared) > most:
        raise too_large(most)


async def read_large(scope: Scope, receive: Receive, *, most: int, silence_s: float) -> bytes:
    """A request's whole body; raises as ``receive_form``."""
    check_length(scope, most)
    body, more = bytearray(), True
    while more:
        piece, more = await next_piece(receive, silence_s)
        body += piece
        if len(body) > most:
            raise too_large(most)
    return bytes(body)


async def send_file(send: Send, path: Path, headers: Headers, content_type: bytes) -> None:
    """The file at ``path``, piece by piece; 404 where it is gone."""
    try:
        file = await asyncio.to_thread(path.open, "rb")
    except FileNotFoundError as gone:
        raise LLMInvalidRequestError(
            "The file is not here any more.", status=404, code="file_not_found"
        ) from gone
    with file:
        size = os.fstat(file.fileno()).st_size
        about = [
            (b"content-type", content_type),
            (b"content-length", str(size).encode()),
            (b"x-content-type-options", b"nosniff"),
            *headers,
        ]
        await send({"type": "http.response.start", "status": 200, "headers": about})
        while size > 0:
            piece = await asyncio.to_thread(file.read, min(size, _PIECE))
            if not piece:
                raise OSError(f"{path.name} became shorter while it was sent")
            size -= len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
