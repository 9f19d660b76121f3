"""``/info`` for the clients of TGI and of TEI, who ask at the same path."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from starlette.types import Scope, Send

from headrace.backends.local.folders.engine import FolderEngine
from headrace.backends.one_answer import classifies, ranks
from headrace.backends.remote import Remote
from headrace.contracts.capabilities import BackendCapabilities
from headrace.contracts.protocols import Embedder
from headrace.gateway.asgi import answer
from headrace.gateway.routes import Route, Routes
from headrace.gateway.standing import standing_of
from headrace.wire import hf_info, tei


async def info(scope: Scope, send: Send) -> None:
    """What there is to tell of one model: the one named in the query, or the default one.

    What nobody knows of it is left out, as its type of numbers, or how its vectors are pooled.
    """
    standing = standing_of(scope)
    query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
    route = standing.routes.pick(query.get("model"))
    body = hf_info.write_info(described(route, standing.routes))
    await answer(send, 200, body, scope["headrace.headers"])


def described(route: Route, routes: Routes) -> dict[str, Any]:
    """``route``'s model, in the words of both."""
    from headrace import __version__

    lane = route.lane.snapshot()
    most = route.defaults.context_tokens
    told: dict[str, Any] = {
        "model_id": route.model,
        "model_sha": None,
        "router": "headrace",
        "version": __version__,
        "sha": None,
        "docker_label": None,
        "max_concurrent_requests": lane.places + lane.max_waiting,
        "max_client_batch_size": tei.MOST_INPUTS,
        "models": [each.model for each in routes],
    }
    kind = kind_of(route)
    if kind == "text-generation":
        told |= {"max_best_of": 1, "validation_workers": 1}
        told |= {"model_pipeline_tag": kind, "max_client_batch_size": 1}
        if most is not None:
            told |= {"max_total_tokens": most, "max_input_tokens": most - 1}
        return told
    told |= {"served_model_name": route.model, "auto_truncate": False, "tokenization_workers": 1}
    told["model_pipeline_tag"] = kind
    told["model_type"] = {_TYPES[kind]: {}}
    if most is not None:
        told["max_input_length"] = most
    return told


_TYPES = {
    "feature-extraction": "embedding",
    "text-ranking": "reranker",
    "text-classification": "classifier",
}


_KINDS = {
    "embed": "feature-extraction",
    "rerank": "text-ranking",
    "classify": "text-classification",
}


def kind_of(route: Route) -> str:
    """What the model does, as Hugging Face calls it."""
    backend = route.lane.backend
    if isinstance(backend, Remote):
        row = backend.provider
        if row.chat_path is not None or row.completions_path is not None:
            return "text-generation"
        return "feature-extraction" if row.embeddings_path is not None else "text-ranking"
    if isinstance(backend, FolderEngine):
        return _KINDS.get(backend.kind or "", "text-generation")
    capabilities = getattr(backend, "capabilities", None)
    can = None if capabilities is None else capabilities()
    if isinstance(can, BackendCapabilities) and can.embeddings and not can.streaming:
        return "feature-extraction"
    if not isinstance(backend, Embedder):
        for able, kind in ((ranks, "text-ranking"), (classifies, "text-classification")):
            if able(backend):
                return kind
    return "text-generation"
