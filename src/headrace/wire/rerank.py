"""Documents put in order for a query, as Cohere and Jina write it, each way.

https://docs.cohere.com/reference/rerank (``/v2/rerank``), https://docs.cohere.com/v1/reference/rerank,
https://api.jina.ai/redoc (``/v1/rerank``). vLLM, SGLang and llama-server answer Jina's form; one
reading serves all their answers, and one of ours has what each of their clients looks for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn

from attrs import field, frozen
from msgspec import DecodeError, Struct, json

from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMCapabilityError,
    LLMError,
    LLMInvalidRequestError,
)
from headrace.contracts.ranking import RankedDocument, RerankRequest, RerankResult
from headrace.contracts.responses import Usage
from headrace.wire.json import bad_reply, decode_object, decode_reply, encode
from headrace.wire.openai_errors import error_from_wire, error_to_wire, read_error, status_of
from headrace.wire.openai_fields import (
    Check,
    boolean,
    integer,
    member,
    refuse,
    refuse_absence,
    refuse_type,
    says,
    text,
)
from headrace.wire.openai_params import read_settings

__all__ = [
    "ALWAYS",
    "CARRIES",
    "OWN_FIELDS",
    "ROWS",
    "Inbound",
    "read_error",
    "read_request",
    "read_response",
    "status_of",
    "write_error",
    "write_request",
    "write_response",
]

MOST_DOCUMENTS = 10_000
"""How many documents one request may have; Cohere's own limit is as high."""

CARRIES = frozenset({"top_n"})
"""The settings that servers of Jina's form are known to take."""

ALWAYS: Mapping[str, object] = {}
"""What all of them do without being asked."""

OWN_FIELDS = frozenset({"priority"})
"""Fields about Cohere's own queue: another backend has nothing to do for them."""

_RIGHT = "an array of texts, or of objects with a 'text'"
_INT32 = 2**31 - 1


@says(
    {
        "type": "array",
        "minItems": 1,
        "maxItems": MOST_DOCUMENTS,
        "items": {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "required": ["text"],
                    "properties": {"text": {"type": "string"}},
                },
            ]
        },
    }
)
def _documents(value: Any, path: str) -> list[str | dict[str, Any]]:
    if type(value) is not list:
        refuse_type(path, value, _RIGHT)
    if not 1 <= len(value) <= MOST_DOCUMENTS:
        refuse(path, value, f"1 to {MOST_DOCUMENTS} documents")
    for i, each in enumerate(value):
        _text_of(each, f"{path}[{i}]")
    return list(value)


def _text_of(document: Any, path: str) -> str:
    if type(document) is str:
        return document
    if type(document) is not dict:
        refuse_type(path, document, "a string or an object with a 'text'")
    return str(member(document, "text", path, text, "the document's text"))


@says({"type": "array", "items": {"const": "text"}})
def _rank_fields(value: Any, path: str) -> None:
    if value not in (["text"], []):
        refuse(path, value, "['text']: put what else is to be read into the documents' 'text'")


def _not_ours(what: str) -> Check:
    @says({"type": "null"})
    def check(value: Any, path: str) -> NoReturn:
        raise LLMCapabilityError(f"{path!r} cannot be carried out here: {what}", param=path)

    return check


ROWS: dict[str, tuple[str, Check]] = {
    "model": ("model", text),
    "query": ("query", text),
    "documents": ("documents", _documents),
    "top_n": ("top_n", integer(1, _INT32)),
    "return_documents": ("return_documents", boolean),
    "max_tokens_per_doc": ("max_tokens_per_document", integer(1, _INT32)),
    "rank_fields": ("rank_fields", _rank_fields),
    "max_chunks_per_doc": (
        "max_chunks",
        _not_ours("documents are not cut in chunks; set 'max_tokens_per_doc'"),
    ),
}
"""Wire name to our name and the check, for every field that has a meaning of its own."""


@frozen(kw_only=True)
class Inbound:
    """A caller's request, and the documents as they came, for its answer has them back."""

    request: RerankRequest
    documents: tuple[str | dict[str, Any], ...] = field(repr=False)


def read_request(body: bytes) -> Inbound:
    """The request in a caller's ``body``, or LLMInvalidRequestError naming the field."""
    return read_fields(decode_object(body))


def read_fields(wire: dict[str, Any]) -> Inbound:
    """The request in a body that was decoded already."""
    known, options = read_settings(wire, ROWS)
    for name, right in (("query", "what the documents are compared with"), ("documents", _RIGHT)):
        if name not in known:
            refuse_absence(name, right)
    known.pop("rank_fields", None)
    given = tuple(known.pop("documents"))
    texts = tuple(each if isinstance(each, str) else each["text"] for each in given)
    request = RerankRequest(documents=texts, provider_options=options, **known)
    return Inbound(request=request, documents=given)


def write_request(request: RerankRequest, *, model: str | None = None) -> bytes:
    """``request`` as a body for a backend that knows the request's model as ``model``.

    The documents are not asked back: whoever asked has them.
    """
    body = body_of(request, model)
    body["return_documents"] = False
    return encode(body | request.provider_options)


def body_of(request: RerankRequest, model: str | None) -> dict[str, object]:
    """The fields that Cohere and Jina have in common."""
    if not request.documents:
        raise LLMInvalidRequestError("There are no documents to rank.", param="documents")
    body: dict[str, object] = {"query": request.query, "documents": request.documents}
    for name, value in (("model", model or request.model), ("top_n", request.top_n)):
        if value is not None:
            body[name] = value
    return body


class _ResultWire(Struct, gc=False):
    index: int
    relevance_score: float | None = None
    score: float | None = None


class _UsageWire(Struct, gc=False):
    prompt_tokens: int | None = None
    total_tokens: int | None = None


class _TokensWire(Struct, gc=False):
    input_tokens: float | None = None


class _UnitsWire(Struct, gc=False):
    search_units: float | None = None


class _MetaWire(Struct, gc=False):
    billed_units: _UnitsWire | None = None
    tokens: _TokensWire | None = None


class _AnswerWire(Struct, gc=False):
    id: str | None = None
    model: str | None = None
    results: list[_ResultWire] | None = None
    usage: _UsageWire | None = None
    meta: _MetaWire | None = None


_decode = json.Decoder(_AnswerWire | list[_ResultWire]).decode


def read_response(body: bytes) -> RerankResult:
    """The ranking in a backend's answer, in its order."""
    try:
        answer: Any = _decode(body)
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_reply(body, error) from error
    if isinstance(answer, list):  # TEI's way, which SGLang has taken over
        answer = _AnswerWire(results=answer)
    if answer.results is None:
        wire = decode_reply(body)
        if isinstance(wire, dict) and wire.get("error"):
            raise error_from_wire(None, wire)
        raise LLMBadResponseError("The backend's answer has no ranking in 'results'.")
    return RerankResult(
        results=tuple(_ranked(each) for each in answer.results),
        model_id=answer.model,
        usage=_usage(answer),
        search_units=_units(answer.meta),
        response_id=answer.id,
    )


def write_response(
    result: RerankResult,
    asked: Inbound,
    *,
    model: str | None = None,
    response_id: str | None = None,
    version: str = "1",
) -> bytes:
    """``result`` as a body; what is handed in replaces what the result itself says."""
    results = []
    for each in result.results:
        wire: dict[str, object] = {"index": each.index, "relevance_score": each.relevance_score}
        if asked.request.return_documents:
            given = asked.documents[each.index]
            wire["document"] = {"text": given} if isinstance(given, str) else given
        results.append(wire)
    meta: dict[str, object] = {"api_version": {"version": version}}
    if result.search_units is not None:
        meta["billed_units"] = {"search_units": result.search_units}
    body: dict[str, object] = {
        "id": response_id or result.response_id or "",
        "object": "list",
        "model": model or result.model_id or "",
        "results": results,
        "meta": meta,
    }
    usage = result.usage
    if usage is not None and usage.prompt_tokens is not None:
        meta["tokens"] = {"input_tokens": usage.prompt_tokens}
        total = usage.total_tokens
        body["usage"] = {
            "prompt_tokens": usage.prompt_tokens,
            "total_tokens": usage.prompt_tokens if total is None else total,
        }
    return encode(body)


def write_error(error: LLMError) -> bytes:
    """``error`` as a body: Cohere's clients look for ``message``, Jina's for ``detail``, and with
    OpenAI's fields beside them, ours knows what kind it is."""
    fields = error_to_wire(error)["error"]
    assert isinstance(fields, Mapping)
    said = {"id": error.request_id or "", "message": error.message, "detail": error.message}
    return encode({**fields, **said})


def _ranked(wire: _ResultWire) -> RankedDocument:
    score = wire.score if wire.relevance_score is None else wire.relevance_score
    if score is None or not math.isfinite(score):
        raise LLMBadResponseError(f"Document {wire.index} in the backend's answer has no score.")
    return RankedDocument(index=wire.index, relevance_score=score)


def _usage(answer: _AnswerWire) -> Usage | None:
    """A ranking has no output, so all its tokens are the prompt's."""
    if answer.usage is not None:
        total = answer.usage.total_tokens
        prompt = total if answer.usage.prompt_tokens is None else answer.usage.prompt_tokens
        return Usage(prompt_tokens=prompt, total_tokens=prompt if total is None else total)
    tokens = None if answer.meta is None else answer.meta.tokens
    if tokens is None or tokens.input_tokens is None:
        return None
    return Usage(prompt_tokens=int(tokens.input_tokens), total_tokens=int(tokens.input_tokens))


def _units(meta: _MetaWire | None) -> float | None:
    return None if meta is None or meta.billed_units is None else meta.billed_units.search_units
