"""Embeddings and rerankings that depend on the texts alone, so that equal texts get equal answers.

Reranking is in the form that Jina and Cohere share, and vLLM serves: ``results`` from the most
relevant on, each with ``index`` and ``relevance_score`` (https://jina.ai/reranker,
https://docs.cohere.com/reference/rerank).
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from hashlib import sha256
from random import Random
from typing import Any

from msgspec import UNSET, DecodeError, Struct, UnsetType, ValidationError, json

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.requests import EmbeddingRequest
from headrace.contracts.responses import EmbeddingResult, Usage
from headrace.wire import openai_embeddings
from headrace.wire.json import encode

ANY_MODEL = "mock"
_WORDS = re.compile(r"\w+")


def embeddings(body: bytes, path: str, dimensions: int) -> tuple[str | None, bytes]:
    """The model that ``body`` names, and its vectors of length 1."""
    inbound = openai_embeddings.read_request(body)
    request = inbound.request
    assert isinstance(request, EmbeddingRequest)
    size = request.dimensions or dimensions
    tokens = sum(
        len(each) if isinstance(each, tuple) else max(1, len(each.encode()) // 4)
        for each in request.inputs
    )
    result = EmbeddingResult(
        vectors=[_vector(each, size) for each in request.inputs],
        usage=Usage(prompt_tokens=tokens, total_tokens=tokens),
    )
    name = request.model or ANY_MODEL
    return request.model, openai_embeddings.write_response(
        result, model=name, encoding=inbound.encoding
    )


@lru_cache(maxsize=1024)
def _vector(text: str | tuple[int, ...], size: int) -> tuple[float, ...]:
    random = Random(sha256(repr(text).encode()).digest())  # noqa: S311 - no secret
    raw = [random.gauss(0, 1) for _ in range(size)]
    length = math.sqrt(sum(x * x for x in raw)) or 1.0
    return tuple(x / length for x in raw)


class _Ranking(Struct):
    query: str
    documents: list[str | dict[str, Any]]
    model: str | None = None
    top_n: int | None = None
    return_documents: bool | UnsetType = UNSET


_read_ranking = json.Decoder(_Ranking).decode


def rerank(body: bytes, path: str, dimensions: int) -> tuple[str | None, bytes]:
    """The model that ``body`` names, and its documents by how many of the query's words they have."""
    try:
        asked = _read_ranking(body)
    except ValidationError as error:
        said, _, where = str(error).partition(" - at `$.")
        raise LLMInvalidRequestError(
            f"{said}.", param=where.rstrip("`") or _missing(said)
        ) from error
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LLMInvalidRequestError(f"The body is not JSON: {error}.") from error
    if not asked.documents:
        raise LLMInvalidRequestError(
            "'documents' is empty; at least one is expected.", param="documents"
        )
    if asked.top_n is not None and asked.top_n < 1:
        raise LLMInvalidRequestError(
            f"'top_n' is {asked.top_n}; at least 1 is expected.", param="top_n"
        )
    texts = [_text(each, at) for at, each in enumerate(asked.documents)]
    wanted = set(_WORDS.findall(asked.query.lower()))
    scores = [(_score(wanted, text), at) for at, text in enumerate(texts)]
    ranked = sorted(scores, key=lambda pair: (-pair[0], pair[1]))[: asked.top_n]
    # Cohere's second version gives no texts back, and the others do unless told not to.
    shown = asked.return_documents if asked.return_documents is not UNSET else "/v2/" not in path
    results: list[dict[str, Any]] = [
        {
            "index": at,
            "relevance_score": score,
            **({"document": {"text": texts[at]}} if shown else {}),
        }
        for score, at in ranked
    ]
    tokens = max(1, sum(len(text.encode()) for text in (asked.query, *texts)) // 4)
    answer = {
        "id": "rerank-mock",
        "model": asked.model or ANY_MODEL,
        "results": results,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "meta": {"api_version": {"version": path[2:3]}, "billed_units": {"search_units": 1}},
    }
    return asked.model, encode(answer)


def _score(wanted: set[str], text: str) -> float:
    """The share of the wanted words that stand in ``text``, between 0 and 1."""
    found = wanted.intersection(_WORDS.findall(text.lower()))
    return (len(found) + 0.5) / (len(wanted) + 1)


def _text(document: str | dict[str, Any], at: int) -> str:
    text = document if isinstance(document, str) else document.get("text")
    if not isinstance(text, str):
        name = f"documents[{at}]"
        raise LLMInvalidRequestError(
            f"'{name}' has no text; a text, or an object with 'text', is expected.", param=name
        )
    return text


def _missing(said: str) -> str | None:
    found = re.search(r"required field `(\w+)`", said)
    return found[1] if found else None
