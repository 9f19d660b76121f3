"""Text Embeddings Inference's paths, and those of rankings in Cohere's and Jina's form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen
from starlette.routing import Route as Path
from starlette.types import Receive, Scope, Send

from headrace.contracts.errors import LLMCapabilityError
from headrace.gateway.asgi import Handler, answer, read_body, while_connected
from headrace.gateway.embeddings import pick_embedder, vectors_for
from headrace.gateway.faces.face import Face
from headrace.gateway.faces.hf_openapi import ranking_paths, tei_paths
from headrace.gateway.faces.hf_tokens import Tokens
from headrace.gateway.ranking import Classes, Ranking, check_embedding
from headrace.gateway.standing import standing_of
from headrace.net.clock import Clock
from headrace.numbers.ranking import cosine
from headrace.traffic.call import Traffic
from headrace.wire import json as wire_json
from headrace.wire import rerank, tei
from headrace.wire.json import decode_object

if TYPE_CHECKING:
    from headrace.gateway.app import Gateway

_NOT_OURS = {
    "/embed_all": "vectors of single tokens",
    "/embed_sparse": "sparse vectors",
}


@frozen(kw_only=True)
class Embed:
    """An ASGI application that makes vectors, as TEI does; or tells how alike sentences are."""

    traffic: Traffic
    clock: Clock
    compares: bool = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(scope, receive, standing_of(scope).config.server)
        wire = decode_object(body)
        del body
        await self.answer_to(wire, scope, receive, send)

    async def answer_to(
        self, wire: dict[str, Any], scope: Scope, receive: Receive, send: Send
    ) -> None:
        """As a call, of a request whose body was decoded already."""
        queued, standing = self.clock.monotonic(), standing_of(scope)
        asked = tei.read_similarity(wire).request if self.compares else tei.read_fields(wire)
        route = pick_embedder(standing.routes, asked.model)
        scope["headrace.model"] = route.model

        async def work() -> None:
            result, told = await vectors_for(
                self.traffic, asked, route, queued, scope, check_embedding
            )
            if self.compares:
                one, *others = result.vectors
                said = wire_json.encode([cosine(one, other) for other in others])
            else:
                said = tei.write_response(result)
            await answer(send, 200, said, [*told, *tei.usage_to_headers(result.usage)])

        await while_connected(receive, work())


async def _refuse(scope: Scope, send: Send) -> None:
    path = scope["path"]
    raise LLMCapabilityError(
        f"{path!r} is not served here: no engine behind this server gives {_NOT_OURS[path]}",
        status=501,
        code="not_implemented",
    )


def _paths(gateway: Gateway) -> list[Path]:
    shared: dict[str, Any] = {"traffic": gateway.traffic, "clock": gateway.clock}
    return [
        Path("/embed", Embed(**shared), methods=["POST"]),
        Path("/similarity", Embed(compares=True, **shared), methods=["POST"]),
        Path("/rerank", Ranking(**shared), methods=["POST"]),
        Path("/predict", Classes(**shared), methods=["POST"]),
        Path("/tokenize", Tokens(), methods=["POST"]),
        Path("/decode", Tokens(decodes=True), methods=["POST"]),
        *(Path(path, Handler(_refuse), methods=["POST"]) for path in _NOT_OURS),
    ]


def _ranking_paths(gateway: Gateway) -> list[Path]:
    shared: dict[str, Any] = {"traffic": gateway.traffic, "clock": gateway.clock}
    return [
        Path(f"/v{version}/rerank", Ranking(version=version, **shared), methods=["POST"])
        for version in ("1", "2")
    ]


TEI = Face(
    name="tei",
    codec=tei,
    exact=frozenset(
        {
            *("/embed", "/similarity", "/rerank", "/predict", "/tokenize", "/decode", "/info"),
            *_NOT_OURS,
        }
    ),
    paths=_paths,
    openapi=tei_paths,
)
RANKING = Face(
    name="rerank",
    codec=rerank,
    exact=frozenset({"/v1/rerank", "/v2/rerank"}),
    paths=_ranking_paths,
    openapi=ranking_paths,
)
