"""The endpoint for embeddings: read, route, run, write."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from attrs import evolve, frozen
from starlette.types import Receive, Scope, Send

from headrace.contracts.errors import LLMCapabilityError
from headrace.contracts.protocols import Embedder
from headrace.contracts.record import Marks
from headrace.contracts.requests import EmbeddingRequest
from headrace.contracts.responses import EmbeddingResult
from headrace.gateway.asgi import Headers, answer, read_body, while_connected
from headrace.gateway.behind import is_behind
from headrace.gateway.routes import Route, Routes, Way
from headrace.gateway.standing import standing_of
from headrace.gateway.tasks import (
    ROUTE_HEADER,
    headers_of,
    route_header,
    task_profile,
    without_profile,
)
from headrace.net.clock import Clock
from headrace.traffic.call import CallSheet, Traffic
from headrace.traffic.embedding import EmbeddingLane, embed
from headrace.traffic.routing.asking import AsEmbedding
from headrace.wire import openai_embeddings


@frozen(kw_only=True)
class Embeddings:
    """An ASGI application that answers requests for embeddings."""

    traffic: Traffic
    clock: Clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        queued, standing = self.clock.monotonic(), standing_of(scope)
        body = await read_body(scope, receive, standing.config.server)
        inbound = self._read(scope, body)
        del body
        route = _pick(standing.routes, inbound.request.model)
        scope["headrace.model"] = route.model
        await while_connected(receive, self._answer(inbound, route, queued, scope, send))

    # A face with words of its own replaces the three that follow.

    def _read(self, scope: Scope, body: bytes) -> Any:
        """The request in ``body``: what has it as its ``request``."""
        return openai_embeddings.read_request(body)

    def _body(self, inbound: Any, result: EmbeddingResult, model: str, queued: float) -> bytes:
        """The answer's body; ``queued`` is when the request had come."""
        return openai_embeddings.write_response(result, model=model, encoding=inbound.encoding)

    def _carried(
        self, request: EmbeddingRequest, ways: Sequence[Way]
    ) -> tuple[EmbeddingRequest, tuple[str, ...]]:
        """``request`` as all of ``ways`` can be asked it, and what it goes without."""
        return request, ()

    async def _answer(
        self, inbound: Any, route: Route, queued: float, scope: Scope, send: Send
    ) -> None:
        marks, asked = Marks(), inbound.request
        model, headers = route.asked(asked.model), headers_of(scope)
        profile = task_profile(asked, headers)
        asked = without_profile(asked)
        chosen = route.choose(AsEmbedding(request=asked, model=model, profile=profile))
        able = [way for way in chosen.ways if isinstance(way.lane.backend, Embedder)]
        # One that makes no embeddings is no fallback; as the only one it is refused by name.
        chosen = chosen.among(able or chosen.ways[:1], "it makes no embeddings")
        first, *others = chosen.ways
        asked, left_out = self._carried(asked, chosen.ways)
        marks.dropped += left_out
        told: Headers = scope["headrace.headers"]
        if chosen.decision is not None:
            told.append((ROUTE_HEADER, route_header(chosen.decision)))
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
                decision=chosen.decision,
            ),
            marks,
            fallbacks=[evolve(way, model=way.model or model) for way in others],
            priority="idle" if is_behind(scope) else "normal",
        )
        body = self._body(inbound, result, model, queued)
        if marks.dropped:
            dropped = ", ".join(dict.fromkeys(marks.dropped)).encode()
            told = [*told, (b"x-headrace-dropped", dropped)]
        await answer(send, 200, body, told)


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
