"""The endpoints of the KServe face: what each model takes, and asking it by tensors or by a text."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from attrs import evolve, frozen
from starlette.types import Message, Receive, Scope, Send

from headrace.backends.capabilities import capabilities_of
from headrace.backends.inferring import metadata, takes_tensors
from headrace.backends.remote import Remote
from headrace.contracts.errors import LLMInvalidRequestError, LLMModelNotFoundError
from headrace.contracts.inference import InferResult, ModelMetadata
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import EmbeddingResult, LLMResponse
from headrace.gateway.asgi import Headers, answer, header, read_body, while_connected
from headrace.gateway.embeddings import Embeddings
from headrace.gateway.generation import Asked, Generation
from headrace.gateway.routes import Route
from headrace.gateway.standing import standing_of
from headrace.gateway.tasks import ROUTE_HEADER, headers_of, route_header
from headrace.net.clock import Clock
from headrace.traffic.call import CallSheet, Traffic, new_call_id
from headrace.traffic.embedding import EmbeddingLane
from headrace.traffic.inferring import infer
from headrace.traffic.routing.asking import AsRequest
from headrace.wire import json as wire_json
from headrace.wire import kserve, kserve_text
from headrace.wire.assemble import Assembler
from headrace.wire.inbound import Inbound
from headrace.wire.openai_embeddings import Inbound as EmbeddingInbound

if TYPE_CHECKING:
    from headrace.gateway.app import Gateway

_HEADER = kserve.HEADER_LENGTH.encode()
_INFER = "headrace.infer"
EXTENSIONS = ("binary_tensor_data", "generate", "parameters")
# What the choice among several backends looks at: nobody counts a tensor's tokens.
_AS_TEXT = LLMRequest(messages=(), prompt="", max_tokens=1)


@frozen(kw_only=True)
class Generate(Generation):
    """``/generate`` and ``/generate_stream``: a text, and what follows it."""

    streams: bool

    async def _read(self, scope: Scope, body: bytes) -> Inbound:
        inbound: Inbound = self.codec.read_request(body)
        if inbound.stream and not self.streams:
            raise LLMInvalidRequestError(
                "'stream' is true; ask at /generate_stream, where answers come in pieces",
                param="stream",
            )
        model = _model_in(scope)
        _check_version(scope, model)
        return evolve(inbound, request=evolve(inbound.request, model=model), stream=self.streams)


@frozen(kw_only=True)
class TextByTensors(Generation):
    """``/infer`` of a model that continues texts."""

    async def _read(self, scope: Scope, body: bytes) -> Inbound:
        return kserve_text.prompts_of(scope[_INFER].request)

    async def _whole(self, asked: Asked) -> None:
        assembler = Assembler()
        async with aclosing(asked.calls):
            async for delta in asked.calls:
                assembler.add(asked.told(delta))
        result = self._result(asked, assembler.response())
        await _send_result(result, asked.scope, asked.send, asked.answer_headers())

    def _result(self, asked: Asked, response: LLMResponse) -> InferResult:
        request = asked.scope[_INFER].request
        (prompts,) = (t for t in request.inputs if t.name == kserve_text.TEXT_INPUT)
        model = asked.route.asked(asked.inbound.request.model)
        return kserve_text.response_to_result(response, prompts.shape, model=model)


@frozen(kw_only=True)
class EmbeddingByTensors(Embeddings):
    """``/infer`` of a model that makes vectors."""

    def _read(self, scope: Scope, body: bytes) -> EmbeddingInbound:
        return EmbeddingInbound(request=kserve_text.embedding_of(scope[_INFER].request))

    async def _send(
        self,
        inbound: EmbeddingInbound,
        result: EmbeddingResult,
        model: str,
        queued: float,
        headers: Headers,
        scope: Scope,
        send: Send,
    ) -> None:
        vectors = kserve_text.vectors_to_result(result, model=model)
        await _send_result(vectors, scope, send, headers)


@frozen(kw_only=True)
class Infer:
    """``/infer``: tensors go on as they are to a backend that speaks of them; others are asked for
    what a text or a vector is to them."""

    traffic: Traffic
    clock: Clock
    texts: TextByTensors
    embeddings: EmbeddingByTensors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        queued, standing = self.clock.monotonic(), standing_of(scope)
        body = await read_body(scope, receive, standing.config.server)
        length = header(scope, _HEADER)
        model = _model_in(scope)
        inbound = scope[_INFER] = kserve.read_infer(
            body,
            None if length is None else length.decode("latin-1"),
            model=model,
            version=scope["path_params"].get("version"),
        )
        del body
        route = standing.routes.pick(model)
        scope["headrace.model"] = route.model
        names = [each.name for each in inbound.request.inputs]
        by_text = kserve_text.TEXT_INPUT in names
        if takes_tensors(route.lane.backend) and not (by_text and _completes(route)):
            await while_connected(receive, self._pass_on(inbound, route, queued, scope, send))
            return
        _check_version(scope, model)
        if by_text:
            kserve.check_outputs(inbound.request.outputs, kserve_text.TEXT_OUTPUTS)
            await self.texts(scope, _read_already(receive), send)
        elif kserve_text.TEXT in names:
            kserve.check_outputs(inbound.request.outputs, (kserve_text.EMBEDDING,))
            await self.embeddings(scope, _read_already(receive), send)
        else:
            told = ", ".join(repr(name[:60]) for name in names[:8])
            raise LLMInvalidRequestError(
                f"{route.model} takes a BYTES tensor {kserve_text.TEXT_INPUT!r}, or, for vectors, "
                f"{kserve_text.TEXT!r}; there are: {told}",
                param="inputs",
            )

    async def _pass_on(
        self, inbound: kserve.Inbound, route: Route, queued: float, scope: Scope, send: Send
    ) -> None:
        request = inbound.request
        model = route.asked(request.model)
        headers = headers_of(scope)
        asking = AsRequest(request=_AS_TEXT, model=model, headers=headers)
        chosen = route.choose(asking)
        able = [way for way in chosen.ways if takes_tensors(way.lane.backend)]
        chosen = chosen.among(able or chosen.ways[:1], "it is asked by no tensors")
        first, *others = chosen.ways
        told: Headers = scope["headrace.headers"]
        if chosen.decision is not None:
            told.append((ROUTE_HEADER, route_header(chosen.decision)))
        result = await infer(
            self.traffic,
            evolve(request, model=first.model or model),
            first.lane,
            CallSheet(
                call_id=new_call_id(),
                operation="inference",
                queued=queued,
                requested_model=request.model,
                route=route.model,
                decision=chosen.decision,
            ),
            Marks(),
            fallbacks=[evolve(way, model=way.model or model) for way in others],
        )
        await _send_result(evolve(result, model_id=model), scope, send, told)


@frozen(kw_only=True)
class Models:
    """What can be asked about the server and its models."""

    gateway: Gateway

    async def live(self, scope: Scope, send: Send) -> None:
        """This process answers."""
        await answer(send, 200, wire_json.encode({"live": True}), scope["headrace.headers"])

    async def ready(self, scope: Scope, send: Send) -> None:
        """Whether every model is answered for now; 503 where one is not, and while draining."""
        ready = not self.gateway.draining and (await self.gateway.standing_of_backends())[0]
        body = wire_json.encode({"ready": ready})
        await answer(send, 200 if ready else 503, body, scope["headrace.headers"])

    async def server(self, scope: Scope, send: Send) -> None:
        """What this server is."""
        from headrace import __version__

        told = {"name": "headrace", "version": __version__, "extensions": list(EXTENSIONS)}
        await answer(send, 200, wire_json.encode(told), scope["headrace.headers"])

    async def index(self, scope: Scope, send: Send) -> None:
        """Every model."""
        body = kserve.write_models(self.gateway.routes.models())
        await answer(send, 200, body, scope["headrace.headers"])

    async def model(self, scope: Scope, send: Send) -> None:
        """What one model takes and gives; of one that is asked by tensors, its backend tells."""
        model, version = _model_in(scope), scope["path_params"].get("version")
        route = self.gateway.routes.pick(model)
        found = await self._described(route, route.asked(model), version)
        if found.platform == "headrace":
            _check_version(scope, model)
        body = kserve.write_metadata(found)
        await answer(send, 200, body, scope["headrace.headers"])

    async def model_ready(self, scope: Scope, send: Send) -> None:
        """Whether one model is answered for now."""
        model = _model_in(scope)
        route = self.gateway.routes.pick(model)
        if not takes_tensors(route.lane.backend):
            _check_version(scope, model)
        ready = False
        for lane in route.lanes():
            ready = ready or (await lane.backend.status()).ok
        body = wire_json.encode({"name": route.asked(model), "ready": ready})
        await answer(send, 200 if ready else 503, body, scope["headrace.headers"])

    async def _described(self, route: Route, name: str, version: str | None) -> ModelMetadata:
        lane = route.lane
        if isinstance(lane, EmbeddingLane):
            return kserve_text.embedding_model(name)
        backend = lane.backend
        if not isinstance(backend, Remote):
            return kserve_text.text_model(name)
        if takes_tensors(backend) and not _completes(route):
            own = await metadata(backend, name, version)
            return evolve(own, name=name)
        provider = backend.provider
        able = capabilities_of(provider, backend.model or name)
        if able.embeddings or (provider.chat_path is None and provider.completions_path is None):
            return kserve_text.embedding_model(name)
        return kserve_text.text_model(name)


def _completes(route: Route) -> bool:
    """Whether the route's first backend has a way of its own to continue texts."""
    backend = route.lane.backend
    return isinstance(backend, Remote) and backend.provider.completions_path is not None


def _model_in(scope: Scope) -> str:
    model: str = scope["path_params"]["model"]
    return model


def _check_version(scope: Scope, model: str) -> None:
    version = scope["path_params"].get("version")
    if version is not None and version != kserve_text.VERSION:
        raise LLMModelNotFoundError(
            f"{model[:200]!r} has no version {version[:40]!r}; it has {kserve_text.VERSION!r} alone",
            param="model",
        )


async def _send_result(result: InferResult, scope: Scope, send: Send, headers: Headers) -> None:
    inbound: kserve.Inbound = scope[_INFER]
    asked = kserve.wanted(result, inbound.request.outputs)
    body, length = kserve.write_result(asked, inbound)
    if length is None:
        await answer(send, 200, body, headers)
        return
    told = [*headers, (_HEADER, str(length).encode())]
    await answer(send, 200, body, told, content_type=b"application/octet-stream")


def _read_already(receive: Receive) -> Receive:
    """``receive`` for those who read a body again that was read before, and kept in the scope."""
    told = False

    async def after_the_body() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": b"", "more_body": False}

    return after_the_body
