"""One connection: HTTP/1.1 requests in, ready bytes out."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import unquote

import httptools
from attrs import define, field

if TYPE_CHECKING:
    from headrace.bench.mock.server import Mock

MOST_BODY = 64 << 20
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_REASONS = {
    200: b"OK",
    400: b"Bad Request",
    401: b"Unauthorized",
    404: b"Not Found",
    405: b"Method Not Allowed",
    413: b"Content Too Large",
    429: b"Too Many Requests",
    500: b"Internal Server Error",
    503: b"Service Unavailable",
}


@define
class Request:
    """A request as it came; ``arrival`` is when its last byte was read."""

    method: str = ""
    path: str = ""
    headers: dict[bytes, bytes] = field(factory=dict)
    body: bytes = b""
    arrival: float = 0.0
    keep: bool = True


class Answering(Protocol):
    """What an answer in progress is told."""

    def leave(self) -> None:
        """The caller has gone."""


def head(
    status: int,
    content_type: bytes,
    length: int | None,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> bytes:
    """Status line and headers; without ``length`` the body comes in chunks."""
    lines = [
        b"HTTP/1.1 %d %b" % (status, _REASONS.get(status, b"Status")),
        b"content-type: " + content_type,
        b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length,
        *(name + b": " + value for name, value in headers),
        b"\r\n",
    ]
    return b"\r\n".join(lines)


class Connection(asyncio.Protocol):
    """Reads requests one after another; the next is begun when the last has its answer."""

    def __init__(self, mock: Mock) -> None:
        self._mock = mock
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._fd = -1
        self._parser: Any = httptools.HttpRequestParser(self)
        self._request = Request()
        self._body: list[bytes] = []
        self._size = 0
        self._waiting: deque[Request] = deque()
        self._now: Request | None = None
        self._beginning = False
        self._held: Callable[[], None] | None = None
        self.answer: Answering | None = None
        self.paused = False

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._fd = sock.fileno()
        self._mock.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fd = -1
        self._mock.connections.discard(self)
        self._leave()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._transport.close()
        except httptools.HttpParserError as error:
            self._mock.refuse(self, f"not HTTP/1.1: {error}")
            self.close()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        held, self._held = self._held, None
        if held is not None:
            held()

    # What the parser calls

    def on_message_begin(self) -> None:
        self._request = Request()
        self._body, self._size = [], 0

    def on_url(self, url: bytes) -> None:
        self._request.path += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._request.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if self._request.headers.get(b"expect", b"").lower() == b"100-continue":
            self.send(_CONTINUE)

    def on_body(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= MOST_BODY:
            self._body.append(data)

    def on_message_complete(self) -> None:
        request = self._request
        request.arrival = self._mock.clock()
        request.method = self._parser.get_method().decode("latin-1")
        request.path = unquote(request.path.partition("?")[0])
        request.keep = self._parser.should_keep_alive()
        request.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        if self._size > MOST_BODY:
            self._mock.refuse(self, f"the body is longer than {MOST_BODY} bytes", status=413)
            self.close()
        elif self._now is None:
            self._begin(request)
        else:
            self._waiting.append(request)

    # What answers call

    def send(self, data: bytes) -> None:
        """Write now: the transport would wait for the end of the loop's turn."""
        if self._fd < 0:
            return
        if self._transport.get_write_buffer_size():
            self._transport.write(data)
            return
        try:
            written = os.write(self._fd, data)
        except BlockingIOError:
            written = 0
        except OSError:
            # The peer is gone; the loop tells the rest.
            self.abort()
            return
        if written < len(data):
            self._transport.write(data[written:])

    def when_writable(self, act: Callable[[], None]) -> None:
        """Do ``act`` when the peer has read what was written before."""
        self._held = act

    def finished(self) -> None:
        """The answer is written; the next request's turn."""
        done, self._now, self.answer = self._now, None, None
        if done is not None and not done.keep:
            self.close()
        elif not self._beginning:
            self._begin_waiting()

    def close(self) -> None:
        """End in good order, when all is written."""
        self._leave()
        self._transport.close()

    def abort(self) -> None:
        """End at once."""
        self._fd = -1
        self._leave()
        self._transport.abort()

    def reset(self) -> None:
        """End by RST, as a server does that has crashed."""
        if self._fd >= 0:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.abort()

    def _begin_waiting(self) -> None:
        # Not each from within the end of the one before: there may be many, answered at once.
        self._beginning = True
        try:
            while self._waiting and self._now is None:
                self._begin(self._waiting.popleft())
        finally:
            self._beginning = False

    def _begin(self, request: Request) -> None:
        self._now = request
        self._mock.take(self, request)

    def _leave(self) -> None:
        self._waiting.clear()
        self._held = None
        answer, self.answer = self.answer, None
        if answer is not None:
            answer.leave()
