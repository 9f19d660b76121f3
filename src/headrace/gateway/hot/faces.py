"""The faces that have a fast way, one row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from attrs import field, frozen

from headrace.contracts.record import Operation
from headrace.gateway import responses
from headrace.gateway.routes import Route
from headrace.wire import (
    anthropic,
    anthropic_passing,
    openai_chat,
    openai_completions,
    openai_passing,
    openai_responses,
)
from headrace.wire.inbound import Inbound
from headrace.wire.sse import STREAM_TYPE as SSE

_STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"
)


def _any(_: Inbound) -> bool:
    return True


def _nothing(_: Inbound, __: Route) -> Mapping[str, Any]:
    return {}


@frozen(kw_only=True)
class HotFace:
    """Where requests of one format come in, and who reads them.

    ``codec`` reads requests and writes answers, and says errors. Where ``passing`` is there it looks
    at what goes through to a backend of the same format. ``id_headers`` are the names under which a
    caller gets the request's id. ``takes`` says whether a request may go the fast way at all;
    ``repeats`` has what an answer tells of its request, beyond the format's other words, and where
    ``dates_ends`` is set it tells when it ended.
    """

    format: str
    paths: tuple[bytes, ...]
    codec: ModuleType
    passing: ModuleType | None = None
    operation: Operation = "chat"
    id_headers: tuple[bytes, ...] = (b"x-request-id",)
    takes: Callable[[Inbound], bool] = _any
    repeats: Callable[[Inbound, Route], Mapping[str, Any]] = _nothing
    dates_ends: bool = False

    stream_head: bytes = field(init=False, repr=False)
    """What a streamed answer begins with, up to its own headers."""
    _id_lines: bytes = field(init=False, repr=False)

    @stream_head.default
    def _with_its_type(self) -> bytes:
        kind: str = self.codec.STREAM_TYPE
        return _STREAM % (f"{kind}; charset=utf-8" if kind == SSE else kind).encode()

    @_id_lines.default
    def _with_places(self) -> bytes:
        return b"".join(b"%b: %%b\r\n" % name for name in self.id_headers)

    def id_lines(self, request_id: str) -> bytes:
        """The header lines that name a request."""
        return self._id_lines % ((request_id.encode(),) * len(self.id_headers))


_ROWS = (
    HotFace(
        format="openai",
        paths=(b"/v1/chat/completions", b"/chat/completions", b"/openai/v1/chat/completions"),
        codec=openai_chat,
        passing=openai_passing,
    ),
    HotFace(
        format="anthropic",
        paths=(b"/v1/messages", b"/messages"),
        codec=anthropic,
        passing=anthropic_passing,
        id_headers=(b"x-request-id", b"request-id"),
    ),
    HotFace(
        format="openai",
        paths=(b"/v1/completions", b"/completions"),
        codec=openai_completions,
        operation="completion",
    ),
    HotFace(
        format="openai-responses",
        paths=(b"/v1/responses", b"/responses"),
        codec=openai_responses,
        takes=responses.stands_alone,
        repeats=responses.repeated,
        dates_ends=True,
    ),
)

FACES = {path: face for face in _ROWS for path in face.paths}
"""By path."""
