"""The endpoint for embeddings: read, route, run, write."""

from __future__ import annotations

import uuid

from attrs import evolve, frozen
from starlette.types import Receive, Scope, Send

from headrace.contracts.errors import LLMCapabilityError
from headrace.contracts.protocols import Embedder
from headrace.contracts.record import Marks
from headrace.gateway.asgi import Headers, answer, read_body, while_connected
from headrace.gateway.routes import Route, Routes
from headrace.gateway.standing import standing_of
from headrace.net.clock import Clock
from headrace.traffic.call import CallSheet, Traffic
from headrace.traffic.embedding import EmbeddingLane, embed
from headrace.wire import openai_embeddings
from headrace.wire.openai_embeddings import Inbound


@frozen(kw_only=True)
class Embeddings:
    """An ASGI application that answers requests for embeddings."""

    traffic: Traffic
    clock: Clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        queued, standing = self.clock.monotonic(), standing_of(scope)
        body = await read_body(scope, receive, standing.config.server)
        inbound = openai_embeddings.read_request(body)
        del body
        route = _pick(standing.routes, inbound.request.model)
        scope["headrace.model"] = route.model
        await while_connected(receive, self._answer(inbound, route, queued, scope, send))

    async def _answer(
        self, inbound: Inbound, route: Route, queued: float, scope: Scope, send: Send
    ) -> None:
        marks, asked = Marks(), inbound.request
        ways = route.ways()
        # One that makes no embeddings is no fallback; as the only one it is refused by name.
        first, *others = [way for way in ways if isinstance(way.lane.backend, Embedder)] or ways[:1]
        model = route.asked(asked.model)
        result = await embed(
            self.traffic,
            evolve(asked, model=first.model or model, request_id=scope["headrace.request_id"]),
            first.lane,
            CallSheet(
                call_id=uuid.uuid4().hex,
                operation="embeddings",
                queued=queued,
                requested_model=asked.model,
                route=route.model,
            ),
            marks,
            fallbacks=[evolve(way, model=way.model or model) for way in others],
        )
        body = openai_embeddings.write_response(result, model=model, encoding=inbound.encoding)
        headers: Headers = scope["headrace.headers"]
        if marks.dropped:
            dropped = ", ".join(dict.fromkeys(marks.dropped)).encode()
            headers = [*headers, (b"x-headrace-dropped", dropped)]
        await answer(send, 200, body, headers)


def _pick(routes: Routes, model: str | None) -> Route:
    """The route of ``model``; where none is named, our own embedding model's, or the first."""
    if model is not None:
        return routes.pick(model)
    able = [
        route
        for route in routes
        if any(isinstance(lane.backend, Embedder) for lane in route.lanes())
    ]
    own = [
        route for route in able if any(isinstance(lane, EmbeddingLane) for lane in route.lanes())
    ]
    if not able:
        raise LLMCapabilityError("no model of this server makes embeddings", param="model")
    return (own or able)[0]
