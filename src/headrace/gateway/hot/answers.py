"""What a caller on the fast way gets: the bytes of answers, and the general way where that goes on."""

from __future__ import annotations

from typing import Any

from starlette.types import Receive, Scope, Send

from headrace.gateway.asgi import dropped_header
from headrace.gateway.hot.exchange import Exchange
from headrace.gateway.tasks import ROUTE_HEADER, route_header
from headrace.traffic.fallback import Earlier

_WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b%b\r\n%b"
_CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
_CLOSE = b"connection: close\r\n"


def write_whole(exchange: Exchange, body: bytes) -> bytes:
    """All of a good answer."""
    close = b"" if exchange.keep_alive else _CLOSE
    return _WHOLE % (len(body), _told(exchange), close, body)


def write_stream_head(exchange: Exchange) -> bytes:
    """What comes before the first chunk of a stream."""
    close = b"" if exchange.keep_alive else _CLOSE
    return b"".join((exchange.face.stream_head, _told(exchange), close, _CHUNKED))


def _told(exchange: Exchange) -> bytes:
    """The header lines that name the request, and say how its backend was chosen and what it could
    not be given."""
    told, decision = exchange.face.id_lines(exchange.passage.request_id), exchange.passage.decision
    if decision is not None:
        told = b"%b%b: %b\r\n" % (told, ROUTE_HEADER, route_header(decision))
    if exchange.asked.told_dropped:
        told = b"%b%b: %b\r\n" % (told, *dropped_header(exchange.asked.told_dropped))
    return told


def going_on(app: Any, exchange: Exchange, earlier: Earlier) -> Any:
    """``app``, after which the attempt of ``exchange`` is written down if that was all."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        finally:
            if not earlier.taken:
                exchange.passage.record(earlier)

    return application
