"""Text Generation Inference's paths: a prompt in, its continuation out, whole or token by token.

``/`` is what Hugging Face's own client asks: TGI answers either way there, in an array where whole, and
TEI makes vectors or rankings there. So the body tells which is meant.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen
from starlette.routing import Route as Path
from starlette.types import Receive, Scope, Send

from headrace.backends.managed.engine import Managed
from headrace.backends.remote import Remote
from headrace.backends.row import Provider
from headrace.contracts.errors import LLMCapabilityError
from headrace.contracts.protocols import Backend
from headrace.contracts.responses import LLMDelta, LLMResponse, Usage
from headrace.gateway.asgi import CODEC, Handler, again, read_body
from headrace.gateway.faces.face import Face
from headrace.gateway.faces.hf_info import info, kind_of
from headrace.gateway.faces.hf_openapi import schemas, tgi_paths
from headrace.gateway.faces.tei import Embed
from headrace.gateway.generation import Asked, Generation
from headrace.gateway.ranking import Ranking
from headrace.gateway.routes import Route, Way
from headrace.gateway.standing import standing_of
from headrace.traffic.routing.choice import Chosen
from headrace.wire import inbound as inbounds
from headrace.wire import tei, tgi
from headrace.wire.json import decode_object

if TYPE_CHECKING:
    from headrace.gateway.app import Gateway

NO_IDS = "token.id"
"""What a caller is told was left out where tokens go without the numbers that TGI gives them."""


@frozen(kw_only=True)
class Continuation(Generation):
    """An ASGI application that answers TGI's requests.

    ``streams`` says how it answers, where the body does not; ``in_array`` that a whole answer stands
    in an array.
    """

    streams: bool | None = None
    in_array: bool = False

    async def _read(self, scope: Scope, body: bytes) -> inbounds.Inbound:
        inbound = tgi.read_request(body)
        request = inbound.request
        assert isinstance(request.prompt, str)
        return evolve(
            inbound,
            # The prompt goes before the text here: not every backend could do it.
            request=evolve(request, echo=None),
            before=request.prompt if request.echo else "",
            stream=inbound.stream if self.streams is None else self.streams,
        )

    def _calls(
        self, inbound: inbounds.Inbound, route: Route, chosen: Chosen[Way], *more: Any
    ) -> AsyncGenerator[LLMDelta, None]:
        assert isinstance(inbound, tgi.Inbound)
        able, why = [], None
        for way in chosen.ways:
            lack = _lack(inbound, way)
            why = why or lack
            if lack is None:
                able.append(way)
        if not able:
            assert why is not None
            raise why
        chosen = chosen.among(able, str(why))
        # A caller who wants details wants what is known of each token.
        if inbound.details and all(_tells_logprobs(way.lane.backend) for way in able):
            inbound = evolve(inbound, request=evolve(inbound.request, logprobs=True))
        return super()._calls(inbound, route, chosen, *more)

    async def _body(self, asked: Asked, response: LLMResponse) -> bytes:
        inbound = asked.inbound
        assert isinstance(inbound, tgi.Inbound)
        if inbound.details and any(each.token_id is None for each in response.logprobs or ()):
            asked.marks.dropped.append(NO_IDS)
        usage = response.usage
        if isinstance(usage, Usage):
            for name, count in (
                (b"x-prompt-tokens", usage.prompt_tokens),
                (b"x-generated-tokens", usage.completion_tokens),
            ):
                if count is not None:
                    asked.headers.append((name, str(count).encode()))
        body = tgi.write_response(
            response,
            details=inbound.details,
            before=inbound.before,
            seed=inbound.request.seed,
        )
        return b"[%b]" % body if self.in_array else body

    def _writer(self, asked: Asked, first: LLMDelta | None) -> Any:
        inbound = asked.inbound
        assert isinstance(inbound, tgi.Inbound)
        tokens = None if first is None else first.logprobs
        if not tokens or any(each.token_id is None for each in tokens):
            asked.marks.dropped.append(NO_IDS)
        return tgi.stream_writer(
            details=inbound.details, before=inbound.before, seed=inbound.request.seed
        )


def _lack(inbound: tgi.Inbound, way: Way) -> LLMCapabilityError | None:
    """Why ``way`` cannot be asked for ``inbound``."""
    request = inbound.request
    if way.format == "tgi":
        return None
    for name in sorted(tgi.ONLY_THERE & request.provider_options.keys()):
        what = "a grammar that is a regular expression" if name == "grammar" else repr(name)
        return LLMCapabilityError(
            f"{way.lane.name} is no TGI server, and {what} means nothing to others; leave it out, "
            "or ask a model of another backend",
            param=f"parameters.{name}",
        )
    if request.response_schema is not None and isinstance(way.lane.backend, Remote | Managed):
        return LLMCapabilityError(
            f"{way.lane.name} holds no text completion to a schema; leave 'grammar' out, or ask for "
            "a chat completion with a response_format",
            param="parameters.grammar",
        )
    return None


def _tells_logprobs(backend: Backend) -> bool:
    """Whether ``backend`` gives log probabilities of a text completion."""
    row = getattr(backend, "provider", None)
    if isinstance(row, Provider):
        has_text = row.completions is not None and row.completions_path is not None
        return has_text and "logprobs" not in row.unsupported | row.ignored
    capabilities = getattr(backend, "capabilities", None)
    return bool(capabilities is not None and capabilities().logprobs)


@frozen(kw_only=True)
class Root:
    """An ASGI application that answers at ``/`` what Hugging Face's servers do there."""

    continuation: Continuation
    embed: Embed
    compare: Embed
    ranking: Ranking

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        standing = standing_of(scope)
        body = await read_body(scope, receive, standing.config.server)
        wire = decode_object(body)
        inputs, model = wire.get("inputs"), wire.get("model")
        if "texts" in wire and "inputs" not in wire:
            await self.ranking(scope, again(body, receive), send)
        elif isinstance(inputs, dict):
            scope[CODEC] = tei
            await self.compare.answer_to(wire, scope, receive, send)
        elif isinstance(inputs, list) or (
            isinstance(model, str | None)
            and kind_of(standing.routes.pick(model)) == "feature-extraction"
        ):
            scope[CODEC] = tei
            await self.embed.answer_to(wire, scope, receive, send)
        else:
            await self.continuation(scope, again(body, receive), send)


def _paths(gateway: Gateway) -> list[Path]:
    shared: dict[str, Any] = {"traffic": gateway.traffic, "clock": gateway.clock}
    kind: dict[str, Any] = {**shared, "codec": tgi, "operation": "completion", "format": "tgi"}
    root = Root(
        continuation=Continuation(in_array=True, **kind),
        embed=Embed(**shared),
        compare=Embed(compares=True, **shared),
        ranking=Ranking(**shared),
    )
    return [
        Path("/", root, methods=["POST"]),
        Path("/generate", Continuation(streams=False, **kind), methods=["POST"]),
        Path("/generate_stream", Continuation(streams=True, **kind), methods=["POST"]),
        Path("/info", Handler(info), methods=["GET"]),
    ]


TGI = Face(
    name="tgi",
    codec=tgi,
    exact=frozenset({"/", "/generate", "/generate_stream"}),
    paths=_paths,
    openapi=tgi_paths,
    schemas=schemas,
)
