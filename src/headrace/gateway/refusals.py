"""How a connection refuses what it will not read or cannot go on with: one answer, and it closes."""

from __future__ import annotations

from http import HTTPStatus
from types import ModuleType
from typing import Literal

from starlette.types import Receive, Scope, Send

from headrace.contracts.errors import LLMError, LLMInvalidRequestError, LLMUnavailableError
from headrace.gateway.asgi import answer, id_for
from headrace.gateway.config import ServerConfig
from headrace.wire import openai_chat

_REFUSAL = (
    b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
    b"x-request-id: %b\r\nconnection: close\r\n\r\n%b"
)


def write_refusal(error: LLMError, codec: ModuleType = openai_chat) -> bytes:
    """The answer that says ``error``, to be the last on its connection."""
    status: int = codec.status_of(error)
    body, phrase = codec.write_error(error), HTTPStatus(status).phrase.encode()
    return _REFUSAL % (status, phrase, len(body), (error.request_id or "").encode(), body)


def not_http(cause: Exception) -> LLMError:
    """What came is no request."""
    return LLMInvalidRequestError(
        f"this is no HTTP/1.1 request that this server can read: {cause}", code="bad_http"
    )


def head_too_large(server: ServerConfig) -> LLMError:
    """The request's head has more bytes than the server takes."""
    return LLMInvalidRequestError(
        "the request's headers are larger than this server takes "
        f"({server.max_header_bytes} bytes)",
        status=431,
        code="headers_too_large",
    )


def not_in_time(what: Literal["head", "body"], server: ServerConfig) -> LLMError:
    """The rest of the request did not come."""
    limit_ms = server.body_timeout_ms if what == "body" else server.header_timeout_ms
    return LLMInvalidRequestError(
        f"the request's {what} did not arrive within {limit_ms / 1000:g} s",
        status=408,
        code="request_timeout",
    )


async def refuse_as_full(scope: Scope, receive: Receive, send: Send) -> None:
    """The application that answers where there are as many connections as there may be."""
    error = LLMUnavailableError(
        "this server has as many connections as it may have; try again in a moment",
        retry_after_s=1.0,
        code="too_many_connections",
    )
    error.request_id = id_for(None)
    headers = [(b"x-request-id", error.request_id.encode()), (b"retry-after", b"1")]
    body = openai_chat.write_error(error)
    await answer(send, 503, body, [*headers, (b"connection", b"close")])
