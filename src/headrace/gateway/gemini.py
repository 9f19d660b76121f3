"""The Gemini face: the model, the method and whether to stream stand in the address."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

from attrs import evolve, frozen
from starlette.types import Receive, Scope, Send

from headrace.contracts.capabilities import ModelInfo
from headrace.contracts.errors import LLMModelNotFoundError
from headrace.contracts.record import Marks
from headrace.contracts.requests import EmbeddingRequest, LLMRequest
from headrace.contracts.responses import EmbeddingResult, LLMDelta, LLMResponse
from headrace.gateway.asgi import answer
from headrace.gateway.counting import TokenCount
from headrace.gateway.embeddings import Embeddings
from headrace.gateway.faces.gemini import METHODS
from headrace.gateway.generation import Asked, Generation
from headrace.gateway.query import Query
from headrace.gateway.routes import Routes, Way
from headrace.gateway.standing import standing_of
from headrace.traffic.embedding import EmbeddingLane
from headrace.wire import gemini, gemini_array, gemini_embeddings, gemini_models
from headrace.wire.inbound import Inbound
from headrace.wire.openai_fields import refuse

FORMAT = "gemini"
without_thoughts = gemini.without_thoughts


@frozen(kw_only=True)
class Generate(Generation):
    """An ASGI application for ``:generateContent``, and for ``:streamGenerateContent``."""

    streams: bool = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.streams and self.codec is gemini and not _wants_events(scope):
            await evolve(self, codec=gemini_array)(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def _read(self, scope: Scope, body: bytes) -> Inbound:
        inbound = await super()._read(scope, body)
        dropped = inbound.dropped
        if Query(scope).first("fields") is not None:
            dropped += ("fields",)  # all of an answer is told
        request = _asked(inbound, scope)
        return evolve(inbound, request=request, stream=self.streams, dropped=dropped)

    async def _body(self, asked: Asked, response: LLMResponse) -> bytes:
        if not asked.inbound.tells_reasoning:
            response = without_thoughts(response)
        return await super()._body(asked, response)

    def _writer(self, asked: Asked, first: LLMDelta | None) -> Any:
        writer = super()._writer(asked, first)
        writer.shows_thoughts = asked.inbound.tells_reasoning
        return writer


@frozen(kw_only=True)
class Count(TokenCount):
    """An ASGI application for ``:countTokens``."""

    def _read(self, scope: Scope, body: bytes) -> Inbound:
        inbound = super()._read(scope, body)
        return evolve(inbound, request=_asked(inbound, scope))


@frozen(kw_only=True)
class Embed(Embeddings):
    """An ASGI application for ``:embedContent``, and for ``:batchEmbedContents``."""

    batch: bool = False

    def _read(self, scope: Scope, body: bytes) -> gemini_embeddings.Inbound:
        read = (
            gemini_embeddings.read_batch_request if self.batch else gemini_embeddings.read_request
        )
        inbound = read(body)
        return evolve(inbound, request=evolve(inbound.request, model=_model_in(scope)))

    def _fitting(
        self, request: EmbeddingRequest, ways: Sequence[Way], marks: Marks
    ) -> EmbeddingRequest:
        options = request.provider_options
        if not options or all(way.format == FORMAT for way in ways):
            return request
        marks.dropped += sorted(options)
        return evolve(request, provider_options={})

    def _body(self, inbound: Any, result: EmbeddingResult, model: str, queued: float) -> bytes:
        return gemini_embeddings.write_response(result, alone=inbound.alone)


async def list_models(scope: Scope, send: Send) -> None:
    """The models, the default one first."""
    routes = standing_of(scope).routes
    page = gemini_models.read_page(parse_qs(scope["query_string"].decode("latin-1")))
    body = gemini_models.write_models(
        routes.models(), page, lambda model: _methods_of(routes, model)
    )
    await answer(send, 200, body, scope["headrace.headers"])


async def get_model(scope: Scope, send: Send) -> None:
    """One model."""
    routes = standing_of(scope).routes
    route = routes.pick(_model_in(scope))
    found = next(info for info in routes.models() if info.model_id == route.model)
    body = gemini_models.write_model(found, _methods_of(routes, found))
    await answer(send, 200, body, scope["headrace.headers"])


async def no_method(scope: Scope, send: Send) -> None:
    """Refuses what no model can be asked for."""
    name, _, method = scope["path_params"]["model"].rpartition(":")
    what = f"no method {method[:100]!r}" if name else "a method missing behind the model's name"
    raise LLMModelNotFoundError(
        f"there is {what}; known: {', '.join(METHODS)}", code="unknown_path"
    )


def _methods_of(routes: Routes, model: ModelInfo) -> Sequence[str]:
    lanes = routes.pick(model.model_id).lanes()
    embeds = all(isinstance(lane, EmbeddingLane) for lane in lanes)
    return gemini_models.EMBEDS if embeds else gemini_models.GENERATES


def _asked(inbound: Inbound, scope: Scope) -> LLMRequest:
    return of_model(inbound.request, _model_in(scope))


def of_model(request: LLMRequest, model: str) -> LLMRequest:
    """``request`` for the model that stands in the address."""
    return evolve(request, model=model, messages=gemini.joined(request.messages))


def _model_in(scope: Scope) -> str:
    model: str = scope["path_params"]["model"]
    return model


def _wants_events(scope: Scope) -> bool:
    """Whether a stream is asked for as events; a growing array is what Google gives otherwise."""
    query = Query(scope)
    given = query.first("alt") or query.first("$alt") or "json"
    if given not in ("sse", "json"):
        refuse("alt", given, "'sse' for events, or 'json' for an array")
    return given == "sse"
