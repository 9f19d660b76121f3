"""Which requests go the fast way."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from headrace.contracts.errors import LLMAuthError
from headrace.gateway.asgi import id_for
from headrace.gateway.config import ServerConfig
from headrace.gateway.head import Head
from headrace.gateway.hot.asked import Asked, Declined
from headrace.gateway.hot.course import HotRoutes
from headrace.gateway.hot.exchange import Caller, Exchange
from headrace.gateway.hot.faces import HotFace, face_at
from headrace.gateway.hot.head import HotHead
from headrace.gateway.hot.manner import AsItCame
from headrace.gateway.hot.stream import CollectedExchange, StreamExchange
from headrace.gateway.hot.translating import translated
from headrace.gateway.hot.way import HotWays
from headrace.gateway.hot.words import Words
from headrace.gateway.standing import Standing
from headrace.gateway.tasks import TASK_HEADER
from headrace.traffic.passage import Passage, may_begin, rated_tokens
from headrace.wire.passing import PassingRequest

if TYPE_CHECKING:
    from headrace.gateway.app import Gateway

# Larger ones are few, and are better read while they come.
_MOST_BODY_BYTES = 1 << 20


class HotDoor:
    """Looks at requests as the HTTP class has them, and begins those that may be asked at once.

    ``running`` are those under way.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._ways = HotWays()
        self._routes_of: dict[str, HotRoutes] = {}
        self.running: set[Exchange] = set()
        # A span's parent is looked up by the application, which is not asked here.
        self._is_traced = gateway.config.records.opentelemetry

    @property
    def server(self) -> ServerConfig:
        """What is let in."""
        return self._gateway.standing.config.server

    @property
    def logs_requests(self) -> bool:
        """Whether each request gets a line in the log."""
        return self._gateway.standing.config.logging.requests

    def look_at(self, head: Head, fields: Mapping[bytes, bytes]) -> HotHead | None:
        """What a request with this head is, if it may go the fast way once its body is here.

        ``fields`` are its headers, none of which stands there twice.
        """
        found = face_at(head.url)
        if found is None or head.method != b"POST" or head.version != "1.1" or self._is_traced:
            return None
        face, model = found
        standing = self._gateway.standing
        server = standing.config.server
        most_bytes = min(_MOST_BODY_BYTES, server.max_body_bytes)
        length = fields.get(b"content-length")
        if (
            not server.pass_through
            or length is None
            or len(length) > 7
            or int(length) > most_bytes
            or b"expect" in fields
            # What its caller wants of the choice is read there.
            or TASK_HEADER.encode() in fields
            # Whose clients are told errors in their form.
            or (face.format != "anthropic" and b"anthropic-version" in fields)
        ):
            return None
        return HotHead(
            head=head,
            fields=fields,
            face=face,
            most_body_bytes=most_bytes,
            standing=standing,
            model=model,
        )

    def knows(self, hot: HotHead, body: bytes) -> bool:
        """Whether what was found of a head holds now, for a request with this body."""
        return hot.standing is self._gateway.standing and len(body) <= hot.most_body_bytes

    def begin(
        self, caller: Caller, loop: asyncio.AbstractEventLoop, hot: HotHead, body: bytes
    ) -> Exchange | Declined:
        """Make ready to ask for an answer to the request, or leave it alone."""
        gateway = self._gateway
        queued, standing = gateway.clock.monotonic(), gateway.standing
        if gateway.draining or not _may_come_in(hot, standing):
            return Declined(standing)
        asked = self._passing(hot, standing, body) or translated(
            hot, standing, body, self._ways, gateway.clock.wall
        )
        if isinstance(asked, Declined):
            return asked
        ticket = asked.course.ticket
        if not may_begin(ticket.lane, asked.rated_tokens):
            return Declined(standing, asked.chosen, asked.inbound)
        given = hot.fields.get(b"x-request-id")
        passage = Passage(
            gateway.traffic,
            ticket,
            queued=queued,
            rated_tokens=asked.rated_tokens,
            request_id=None if given is None else id_for(given),
            stream=asked.stream,
            decision=asked.chosen.decision,
            dropped=asked.dropped,
        )
        asked.manner.words.passage = passage
        kind: type[Exchange] = Exchange
        if asked.in_pieces:
            kind = StreamExchange if asked.stream else CollectedExchange
        exchange = kind(caller, loop, passage, asked)
        self.running.add(exchange)
        return exchange

    def _passing(self, hot: HotHead, standing: Standing, body: bytes) -> Asked | Declined | None:
        """A request that goes on as its caller put it; ``None`` where it cannot."""
        face = hot.face
        if face.passing is None:
            return None
        request: PassingRequest | None = face.passing.read_passing(body)
        if request is None:
            return None
        route = self._routes(face, standing).to(request.model)
        if route is None or not route.takes(request):
            return None
        chosen = route.choose(request, body, hot.fields)
        course = route.course(chosen.ways[0])
        ticket, way = course.ticket, course.way
        row = way.remote.provider
        rated = rated_tokens(ticket.lane, len(body), request.answer_tokens)
        wants_usage, is_stream = request.wants_usage, bool(request.stream)
        sent = face.passing.write_passing(
            request, ticket.model, row.dialect, include_usage=row.stream_usage
        )
        if sent is None:
            return Declined(standing, chosen)
        words = Words(face.codec, course.model, self._gateway.clock.wall, include_usage=wants_usage)
        assert row.chat_path is not None
        return Asked(
            hot,
            standing,
            body,
            chosen=chosen,
            course=course,
            head=way.head(row.chat_path),
            sent=sent,
            stream=is_stream,
            rated_tokens=rated,
            manner=AsItCame(face, words, course.renamed),
        )

    def _routes(self, face: HotFace, standing: Standing) -> HotRoutes:
        routes = self._routes_of.get(face.format)
        if routes is None or routes.standing is not standing:
            routes = self._routes_of[face.format] = HotRoutes(standing, face.format, self._ways)
        return routes


def _may_come_in(hot: HotHead, standing: Standing) -> bool:
    """Whether the caller shows a key that ``standing`` knows."""
    guard = standing.guard
    if hot.let_in_by is guard:
        return True
    try:
        guard.check(hot.fields.get(b"authorization"), hot.face.key_in(hot.fields))
    except LLMAuthError:
        return False
    hot.let_in_by = guard
    return True
