"""TEI's ``/rerank``: documents put in order for a query, each way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.ranking import ClassificationRequest, RerankRequest, RerankResult
from headrace.wire.hf_errors import read_error, status_of
from headrace.wire.json import decode_object, encode
from headrace.wire.openai_fields import Check, array, boolean, refuse, refuse_absence, says, text
from headrace.wire.openai_params import read_settings
from headrace.wire.rerank import MOST_DOCUMENTS, Inbound, read_response
from headrace.wire.tei import TRUNCATION, options_in, usage_from_headers, write_error

__all__ = [
    "ALWAYS",
    "CARRIES",
    "read_error",
    "read_request",
    "read_response",
    "status_of",
    "usage_from_headers",
    "write_error",
    "write_request",
    "write_response",
]

CARRIES = frozenset({"truncate", "raw_scores", "top_n"})
"""It has no ``top_n``, and ranks all; whoever asked cuts what is too much."""

ALWAYS: Mapping[str, object] = {}
"""What it does without being asked."""

_TEXTS = "an array of texts"


@says({"type": "array", "minItems": 1, "maxItems": MOST_DOCUMENTS, "items": {"type": "string"}})
def _texts(value: Any, path: str) -> tuple[str, ...]:
    texts = tuple(text(each, f"{path}[{i}]") for i, each in enumerate(array(value, path)))
    if not 1 <= len(texts) <= MOST_DOCUMENTS:
        refuse(path, value, f"1 to {MOST_DOCUMENTS} texts")
    return texts


COMMON: dict[str, tuple[str, Check]] = {
    "model": ("model", text),
    "raw_scores": ("raw_scores", boolean),
    **TRUNCATION,
}
"""What rankings and classes have in common."""

ROWS: dict[str, tuple[str, Check]] = {
    "query": ("query", text),
    "texts": ("documents", _texts),
    "return_text": ("return_documents", boolean),
    **COMMON,
}


def read_request(body: bytes) -> Inbound:
    """The ranking that a caller's ``body`` asks for, or LLMInvalidRequestError naming the field."""
    return read_fields(decode_object(body))


def read_fields(wire: dict[str, Any]) -> Inbound:
    """The ranking that a body asks for, which was decoded already."""
    known, unknown = read_settings(wire, ROWS)
    for name, ours, right in (
        ("query", "query", "what the texts are compared with"),
        ("texts", "documents", _TEXTS),
    ):
        if ours not in known:
            refuse_absence(name, right)
    truncate = known.get("truncate")
    options = {**unknown, **options_in(known)}
    options.pop("truncate", None)
    request = RerankRequest(provider_options=options, truncate=truncate, **known)
    return Inbound(request=request, documents=request.documents)


def write_request(request: RerankRequest, *, model: str | None = None) -> bytes:
    """``request`` as a body; the texts are not asked back: whoever asked has them."""
    if not request.documents:
        raise LLMInvalidRequestError("There are no documents to rank.", param="documents")
    body: dict[str, object] = {"query": request.query, "texts": request.documents}
    return encode(body | settings_of(request, model) | request.provider_options)


def write_response(result: RerankResult, asked: Inbound) -> bytes:
    """``result`` as a body."""
    ranks = []
    for each in result.results:
        rank: dict[str, object] = {"index": each.index, "score": each.relevance_score}
        if asked.request.return_documents:
            rank["text"] = asked.request.documents[each.index]
        ranks.append(rank)
    return encode(ranks)


def settings_of(
    request: RerankRequest | ClassificationRequest, model: str | None
) -> dict[str, object]:
    """The fields of a body that rankings and classes have in common."""
    named = model or request.model
    settings: dict[str, object] = {} if named is None else {"model": named}
    for name, value in (("truncate", request.truncate), ("raw_scores", request.raw_scores)):
        if value is not None:
            settings[name] = value
    return settings
