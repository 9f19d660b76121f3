"""Which requests go the fast way."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from headrace.contracts.errors import LLMAuthError, LLMModelNotFoundError
from headrace.gateway.asgi import id_for
from headrace.gateway.hot.exchange import Asked, Caller, Exchange, StreamExchange
from headrace.gateway.hot.way import HotWays
from headrace.gateway.routes import NO_DEFAULTS
from headrace.traffic.passage import Passage, may_begin, rated_tokens
from headrace.wire.json import encode
from headrace.wire.openai_passing import read_passing, write_passing

if TYPE_CHECKING:
    from headrace.gateway.app import Gateway

_PATHS = frozenset((b"/v1/chat/completions", b"/chat/completions"))
# Larger ones are few, and are better read while they come.
_MOST_BODY_BYTES = 1 << 20


class HotDoor:
    """Looks at requests as the HTTP class has them, and begins those that need no translation.

    ``None`` from ``begin`` says nothing of the request but that the general way shall have it, with
    whatever is wrong with it.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._ways = HotWays()
        self.running: set[Exchange] = set()
        # A span's parent is looked up by the application, which is not asked here.
        self._is_shut = gateway.config.records.opentelemetry

    def wants(self, url: bytes, method: bytes, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a request with this head may go the fast way, once its body is here."""
        if url not in _PATHS or method != b"POST" or self._is_shut:
            return False
        if not self._gateway.config.server.pass_through:
            return False
        length = headers.get(b"content-length")
        return (
            length is not None
            and len(length) <= 7
            and int(length) <= min(_MOST_BODY_BYTES, self._gateway.config.server.max_body_bytes)
            and b"expect" not in headers
            and b"anthropic-version" not in headers  # whose clients are told errors in their form
        )

    def begin(
        self,
        caller: Caller,
        loop: asyncio.AbstractEventLoop,
        headers: Mapping[bytes, bytes],
        body: bytes,
        *,
        keep_alive: bool,
    ) -> Exchange | None:
        """Ask for an answer to the request, or leave it alone."""
        gateway = self._gateway
        if gateway.draining:
            return None
        queued = gateway.clock.monotonic()
        try:
            gateway.guard.check(headers.get(b"authorization"), headers.get(b"x-api-key"))
        except LLMAuthError:
            return None
        request = read_passing(body)
        if request is None:
            return None
        requested = request.model
        try:
            route = gateway.routes.pick(requested)
        except LLMModelNotFoundError:
            return None
        if route.defaults is not NO_DEFAULTS:
            return None
        ways = route.ways()
        first = ways[0]
        way = self._ways.to(first.lane)
        if way is None or any(getattr(request, name) is not None for name in way.barred):
            return None
        row = way.remote.provider
        is_stream = bool(request.stream)
        if not is_stream and not row.asked_whole:
            return None
        asked_name = route.asked(requested)
        name = first.model or way.remote.model or asked_name
        options = request.stream_options
        include_usage = is_stream and options is not None and bool(options.include_usage)
        most_tokens = request.answer_tokens
        sent = write_passing(request, name, row.dialect, include_usage=row.stream_usage)
        if sent is None:
            return None
        rated = rated_tokens(first.lane, len(body), most_tokens)
        if not may_begin(first.lane, rated):
            return None
        breaker = first.lane.breaker
        passage = Passage(
            gateway.traffic,
            first.lane,
            queued=queued,
            rated_tokens=rated,
            era=None if breaker is None else breaker.enter(),
            model=name,
            requested_model=requested,
            route=route.model,
            provider=row.name,
            request_id=id_for(headers.get(b"x-request-id")),
            stream=is_stream,
        )
        asked = Asked(
            body=body,
            sent=sent,
            ways=ways,
            include_usage=include_usage,
            hides_usage=not include_usage,
            model=asked_name,
            renamed=None if name == asked_name else encode(asked_name),
        )
        kind = StreamExchange if is_stream else Exchange
        exchange = kind(caller, loop, way, passage, asked, keep_alive=keep_alive)
        self.running.add(exchange)
        return exchange
