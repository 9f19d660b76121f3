"""Which requests go the fast way."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from headrace.contracts.errors import LLMAuthError, LLMModelNotFoundError
from headrace.gateway.asgi import id_for
from headrace.gateway.config import ServerConfig
from headrace.gateway.hot.exchange import Asked, Caller, Exchange, StreamExchange
from headrace.gateway.hot.faces import FACES, HotFace
from headrace.gateway.hot.way import HotWay, HotWays
from headrace.gateway.routes import Route, Way
from headrace.gateway.standing import Standing
from headrace.traffic.passage import Passage, may_begin, rated_tokens
from headrace.wire.json import encode
from headrace.wire.passing import PassingRequest

if TYPE_CHECKING:
    from headrace.gateway.app import Gateway

# Larger ones are few, and are better read while they come.
_MOST_BODY_BYTES = 1 << 20


@frozen
class Declined:
    """The general way shall have the request, with whatever may be wrong with it.

    ``standing`` is what it began with; ``ways`` are whom to ask, where that was settled already: a
    turn among them has been taken.
    """

    standing: Standing
    ways: Sequence[Way] = ()


class HotDoor:
    """Looks at requests as the HTTP class has them, and begins those that need no translation.

    ``running`` are those under way.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._ways = HotWays()
        self.running: set[Exchange] = set()
        # A span's parent is looked up by the application, which is not asked here.
        self._is_traced = gateway.config.records.opentelemetry

    @property
    def server(self) -> ServerConfig:
        """What is let in."""
        return self._gateway.config.server

    @property
    def logs_requests(self) -> bool:
        """Whether each request gets a line in the log."""
        return self._gateway.config.logging.requests

    def wants(self, url: bytes, method: bytes, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a request with this head may go the fast way, once its body is here."""
        face = FACES.get(url)
        if face is None or method != b"POST" or self._is_traced:
            return False
        server = self.server
        length = headers.get(b"content-length")
        return (
            server.pass_through
            and length is not None
            and len(length) <= 7
            and int(length) <= min(_MOST_BODY_BYTES, server.max_body_bytes)
            and b"expect" not in headers
            # Whose clients are told errors in their form.
            and (face.format == "anthropic" or b"anthropic-version" not in headers)
        )

    def begin(
        self,
        caller: Caller,
        loop: asyncio.AbstractEventLoop,
        url: bytes,
        headers: Mapping[bytes, bytes],
        body: bytes,
        *,
        keep_alive: bool,
    ) -> Exchange | Declined:
        """Make ready to ask for an answer to the request, or leave it alone."""
        gateway = self._gateway
        queued, standing = gateway.clock.monotonic(), gateway.standing
        face = FACES[url]
        request = self._read(face, standing, headers, body)
        route = None if request is None else self._route_for(face, standing, request)
        if request is None or route is None:
            return Declined(standing)
        ways = route.ways()
        first = ways[0]
        way = self._ways.to(first.lane)
        assert way is not None
        requested, is_stream = request.model, bool(request.stream)
        asked_name = route.asked(requested)
        name = first.model or way.remote.model or asked_name
        rated = rated_tokens(first.lane, len(body), request.answer_tokens)
        row, wants_usage = way.remote.provider, request.wants_usage
        sent = face.passing.write_passing(
            request, name, row.dialect, include_usage=row.stream_usage
        )
        if sent is None or not may_begin(first.lane, rated):
            return Declined(standing, ways)
        passage = Passage(
            gateway.traffic,
            first.lane,
            queued=queued,
            rated_tokens=rated,
            model=name,
            requested_model=requested,
            route=route.model,
            provider=row.name,
            request_id=id_for(headers.get(b"x-request-id")),
            stream=is_stream,
        )
        asked = Asked(
            face=face,
            standing=standing,
            body=body,
            sent=sent,
            ways=ways,
            include_usage=wants_usage,
            hides_usage=not wants_usage,
            model=asked_name,
            renamed=None if name == asked_name else encode(asked_name),
        )
        kind = StreamExchange if is_stream else Exchange
        exchange = kind(caller, loop, way, passage, asked, keep_alive=keep_alive)
        self.running.add(exchange)
        return exchange

    def _read(
        self, face: HotFace, standing: Standing, headers: Mapping[bytes, bytes], body: bytes
    ) -> PassingRequest | None:
        if self._gateway.draining:
            return None
        try:
            standing.guard.check(headers.get(b"authorization"), headers.get(b"x-api-key"))
        except LLMAuthError:
            return None
        request: PassingRequest | None = face.passing.read_passing(body)
        return request

    def _route_for(
        self, face: HotFace, standing: Standing, request: PassingRequest
    ) -> Route | None:
        """The request's route, where all of its backends can be asked for it as it is."""
        try:
            route = standing.routes.pick(request.model)
        except LLMModelNotFoundError:
            return None
        for lane in route.lanes():
            way = self._ways.to(lane)
            if way is None or way.format != face.format or not _takes(way, request):
                return None
        return route


def _takes(way: HotWay, request: PassingRequest) -> bool:
    """Whether the backend may be asked for ``request`` without a change in its meaning."""
    if not request.stream and not way.remote.provider.asked_whole:
        return False
    return not any(map(request.sets, way.barred))
