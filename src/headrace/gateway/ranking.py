"""The endpoints that rank documents and put texts in classes: read, route, run, write."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TypeVar

from attrs import evolve, frozen
from starlette.types import Receive, Scope, Send

from headrace.backends.one_answer import classifies, ranks
from headrace.backends.remote import Remote
from headrace.contracts.errors import LLMCapabilityError
from headrace.contracts.protocols import Backend
from headrace.contracts.ranking import ClassificationRequest, RerankRequest
from headrace.contracts.record import Marks, Operation
from headrace.contracts.requests import EmbeddingRequest
from headrace.gateway.asgi import (
    CODEC,
    Headers,
    answer,
    dropped_header,
    read_body,
    while_connected,
)
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
from headrace.traffic.ranking import classify, rerank
from headrace.traffic.routing.asking import AsTexts
from headrace.traffic.routing.choice import Chosen
from headrace.wire import rerank as shared
from headrace.wire import tei, tei_predict, tei_rerank
from headrace.wire.json import decode_object
from headrace.wire.rerank import Inbound

R = TypeVar("R", RerankRequest, ClassificationRequest)


@frozen(kw_only=True)
class Ranking:
    """An ASGI application that ranks documents.

    Cohere's and Jina's requests have ``documents``, TEI's have ``texts``: at a path that they share,
    the body tells whose it is. ``version`` is the one of Cohere's API.
    """

    traffic: Traffic
    clock: Clock
    version: str = "1"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        queued, standing = self.clock.monotonic(), standing_of(scope)
        wire = decode_object(await read_body(scope, receive, standing.config.server))
        is_tei = "texts" in wire and "documents" not in wire
        scope[CODEC] = tei if is_tei else shared
        inbound = (tei_rerank if is_tei else shared).read_fields(wire)
        del wire
        route = pick(standing.routes, inbound.request.model, ranks, "ranks documents")
        scope["headrace.model"] = route.model
        work = self._answer(inbound, route, queued, scope, send, is_tei=is_tei)
        await while_connected(receive, work)

    async def _answer(
        self,
        inbound: Inbound,
        route: Route,
        queued: float,
        scope: Scope,
        send: Send,
        *,
        is_tei: bool,
    ) -> None:
        asked, marks = inbound.request, Marks()
        texts = (asked.query, *asked.documents)
        asked, chosen = settle(scope, route, asked, texts, ranks, "it ranks no documents")
        own, codec = ("tei", tei_rerank) if is_tei else ("cohere", shared)
        asked = for_backends(asked, chosen.ways, own, codec, marks)
        first, *others = chosen.ways
        model = route.asked(inbound.request.model)
        result = await rerank(
            self.traffic,
            evolve(asked, model=first.model or model),
            first.lane,
            sheet_of("rerank", inbound.request.model, route, chosen, queued),
            marks,
            fallbacks=[evolve(way, model=way.model or model) for way in others],
            priority="idle" if is_behind(scope) else "normal",
        )
        headers = answer_headers(scope, marks)
        if is_tei:
            body = tei_rerank.write_response(result, inbound)
            headers += tei.usage_to_headers(result.usage)
        else:
            named = result.response_id or scope["headrace.request_id"]
            body = shared.write_response(
                result, inbound, model=model, response_id=named, version=self.version
            )
        await answer(send, 200, body, headers)


@frozen(kw_only=True)
class Classes:
    """An ASGI application that puts texts in classes, as TEI does."""

    traffic: Traffic
    clock: Clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        queued, standing = self.clock.monotonic(), standing_of(scope)
        body = await read_body(scope, receive, standing.config.server)
        inbound = tei_predict.read_request(body)
        del body
        name = inbound.request.model
        route = pick(standing.routes, name, classifies, "puts texts in classes")
        scope["headrace.model"] = route.model
        await while_connected(receive, self._answer(inbound, route, queued, scope, send))

    async def _answer(
        self, inbound: tei_predict.Inbound, route: Route, queued: float, scope: Scope, send: Send
    ) -> None:
        asked, marks = inbound.request, Marks()
        texts = ["".join(each) for each in asked.inputs]
        why = "it puts no texts in classes"
        asked, chosen = settle(scope, route, asked, texts, classifies, why)
        asked = for_backends(asked, chosen.ways, "tei", tei_predict, marks)
        first, *others = chosen.ways
        model = route.asked(inbound.request.model)
        result = await classify(
            self.traffic,
            evolve(asked, model=first.model or model),
            first.lane,
            sheet_of("classification", inbound.request.model, route, chosen, queued),
            marks,
            fallbacks=[evolve(way, model=way.model or model) for way in others],
            priority="idle" if is_behind(scope) else "normal",
        )
        body = tei_predict.write_response(result, is_batch=inbound.is_batch)
        headers = [*answer_headers(scope, marks), *tei.usage_to_headers(result.usage)]
        await answer(send, 200, body, headers)


def pick(routes: Routes, model: str | None, able: Callable[[Backend], bool], what: str) -> Route:
    """The route of ``model``; where none is named, the first with a backend that is ``able``."""
    if model is not None:
        return routes.pick(model)
    for route in routes:
        if any(able(lane.backend) for lane in route.lanes()):
            return route
    raise LLMCapabilityError(f"no model of this server {what}", param="model")


def settle(
    scope: Scope,
    route: Route,
    asked: R,
    texts: Sequence[str],
    able: Callable[[Backend], bool],
    why_not: str,
) -> tuple[R, Chosen[Way]]:
    """``asked`` as backends may see it, and those of ``route`` that are able, the best first."""
    profile = task_profile(asked, headers_of(scope))
    asked = evolve(without_profile(asked), request_id=scope["headrace.request_id"])
    chosen = route.choose(AsTexts(texts=texts, model=route.asked(asked.model), profile=profile))
    found = [way for way in chosen.ways if able(way.lane.backend)]
    # One that is not able is no fallback; as the only one it is refused by name.
    chosen = chosen.among(found or chosen.ways[:1], why_not)
    if chosen.decision is not None:
        scope["headrace.headers"].append((ROUTE_HEADER, route_header(chosen.decision)))
    return asked, chosen


def for_backends(asked: R, ways: Sequence[Way], own: str, codec: ModuleType, marks: Marks) -> R:
    """``asked`` without the fields of its face's ``own`` format that mean nothing to one of ``ways``,
    which are told as dropped; raises LLMCapabilityError for one that another cannot carry."""
    options: Mapping[str, object] = asked.provider_options
    if not options or all(way.format == own for way in ways):
        return asked
    idle: frozenset[str] = getattr(codec, "OWN_FIELDS", frozenset())
    marks.dropped += [name for name in options if name in idle and options[name] is not None]
    kept = {name: value for name, value in options.items() if name not in idle}
    for way in ways:
        refuse_options(kept, way)
    return evolve(asked, provider_options=kept)


def refuse_options(options: Mapping[str, object], way: Way) -> None:
    """Raises LLMCapabilityError for one of TEI's options that a backend of another format has no
    place for; an engine of ours says itself what it does not know."""
    if way.format == "tei" or not isinstance(way.lane.backend, Remote):
        return
    for name in tei.OPTIONS:
        if options.get(name) is not None:
            raise LLMCapabilityError(
                f"{way.lane.name} is asked in another format than TEI's, which has no place for "
                f"{name!r}; leave it out, or ask a model of another backend",
                param=name,
            )


def check_embedding(asked: EmbeddingRequest, ways: Sequence[Way], _: Marks) -> EmbeddingRequest:
    """Raises LLMCapabilityError where a backend has no place for an option of TEI's."""
    for way in ways:
        refuse_options(asked.provider_options, way)
    return asked


def sheet_of(
    operation: Operation, requested: str | None, route: Route, chosen: Chosen[Way], queued: float
) -> CallSheet:
    """What is known of a call that begins now."""
    return CallSheet(
        call_id=uuid.uuid4().hex,
        operation=operation,
        queued=queued,
        requested_model=requested,
        route=route.model,
        decision=chosen.decision,
    )


def answer_headers(scope: Scope, marks: Marks) -> Headers:
    """Every answer's headers, and the list of what the backend could not be given."""
    headers: Headers = [*scope["headrace.headers"]]
    if marks.dropped:
        headers.append(dropped_header(marks.dropped))
    return headers
