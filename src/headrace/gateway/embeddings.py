"""The endpoint for embeddings: read, route, run, write."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from attrs import evolve, frozen
from starlette.types import Receive, Scope, Send

from headrace.contracts.errors import LLMCapabilityError
from headrace.contracts.protocols import Embedder
from headrace.contracts.record import Marks
from headrace.contracts.requests import EmbeddingRequest
from headrace.contracts.responses import EmbeddingResult
from headrace.gateway.asgi import Headers, answer, dropped_header, read_body, while_connected
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

Fitting: TypeAlias = Callable[[EmbeddingRequest, Sequence[Way], Marks], EmbeddingRequest]
"""Gives a request without what means nothing to who is asked, which it writes into the marks; raises
what one of them cannot be asked."""


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
        route = pick_embedder(standing.routes, inbound.request.model)
        scope["headrace.model"] = route.model
        await while_connected(receive, self._answer(inbound, route, queued, scope, send))

    # A face of another format replaces the three that follow.

    def _read(self, scope: Scope, body: bytes) -> Any:
        """The request in ``body``; its ``request`` is ours."""
        return openai_embeddings.read_request(body)

    def _fitting(
        self, request: EmbeddingRequest, ways: Sequence[Way], marks: Marks
    ) -> EmbeddingRequest:
        """``request`` without what means nothing to who is asked, which is written into ``marks``."""
        return request

    def _body(self, inbound: Any, result: EmbeddingResult, model: str, queued: float) -> bytes:
        """The answer's body; ``queued`` is when the request had come."""
        return openai_embeddings.write_response(
            result,
            model=model,
            encoding=inbound.encoding,
            response_id=f"embd-{uuid.uuid4().hex}",
        )

    async def _answer(
        self, inbound: Any, route: Route, queued: float, scope: Scope, send: Send
    ) -> None:
        asked = inbound.request
        result, told = await vectors_for(self.traffic, asked, route, queued, scope, self._fitting)
        await self._send(inbound, result, route.asked(asked.model), queued, told, scope, send)

    async def _send(
        self,
        inbound: Any,
        result: EmbeddingResult,
        model: str,
        queued: float,
        headers: Headers,
        scope: Scope,
        send: Send,
    ) -> None:
        """Send the answer; a face whose answers are more than a body replaces this."""
        await answer(send, 200, self._body(inbound, result, model, queued), headers)


async def vectors_for(
    traffic: Traffic,
    asked: EmbeddingRequest,
    route: Route,
    queued: float,
    scope: Scope,
    fitting: Fitting,
) -> tuple[EmbeddingResult, Headers]:
    """One vector for each input, by ``route``, and the answer's headers."""
    marks = Marks()
    model, headers = route.asked(asked.model), headers_of(scope)
    profile = task_profile(asked, headers)
    asked = without_profile(asked)
    chosen = route.choose(AsEmbedding(request=asked, model=model, profile=profile))
    able = [way for way in chosen.ways if isinstance(way.lane.backend, Embedder)]
    # One that makes no embeddings is no fallback; as the only one it is refused by name.
    chosen = chosen.among(able or chosen.ways[:1], "it makes no embeddings")
    asked = fitting(asked, chosen.ways, marks)
    first, *others = chosen.ways
    told: Headers = scope["headrace.headers"]
    if chosen.decision is not None:
        told.append((ROUTE_HEADER, route_header(chosen.decision)))
    result = await embed(
        traffic,
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
    if marks.dropped:
        told = [*told, dropped_header(marks.dropped)]
    return result, told


def pick_embedder(routes: Routes, model: str | None) -> Route:
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
