"""Calls of a remote backend whose answer is one object: vectors, rankings, classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import evolve

from headrace.contracts.errors import LLMBadResponseError, LLMCapabilityError
from headrace.contracts.ranking import (
    ClassificationRequest,
    ClassificationResult,
    RerankRequest,
    RerankResult,
)
from headrace.contracts.record import Marks
from headrace.contracts.requests import EmbeddingRequest
from headrace.contracts.responses import EmbeddingResult

if TYPE_CHECKING:
    from headrace.backends.remote import Remote
    from headrace.backends.row import Provider

# What may be set of a call, and what a format says of it: that it carries it, or that it is so always.
_SETTINGS = ("top_n", "max_tokens_per_document", "truncate", "raw_scores")


async def embed(remote: Remote, request: EmbeddingRequest, marks: Marks) -> EmbeddingResult:
    """One vector for each input."""
    provider = remote.provider
    if provider.inference is not None and provider.inference.embed_input is not None:
        from headrace.backends.inferring import embed as by_tensors

        return await by_tensors(remote, request, marks)
    codec, path = provider.embeddings, provider.embeddings_path
    if codec is None or path is None:
        raise _unable(remote, "makes no embeddings")
    body = codec.write_request(request, model=remote.model or request.model)
    answer, headers = await remote.answer_to(request, path, body, codec, marks)
    result: EmbeddingResult = _with_usage(codec.read_response(answer), codec, headers)
    if len(result.vectors) != len(request.inputs):
        raise _miscounted(remote, len(request.inputs), len(result.vectors), "vectors")
    return result


async def rerank(remote: Remote, request: RerankRequest, marks: Marks) -> RerankResult:
    """The documents, the most relevant first."""
    provider = remote.provider
    codec, path = provider.rerank, provider.rerank_path
    if codec is None or path is None:
        raise _unable(remote, "ranks no documents")
    asked = _fitting(remote, request, codec.CARRIES, codec.ALWAYS, marks)
    body = codec.write_request(asked, model=remote.model or request.model)
    answer, headers = await remote.answer_to(request, path, body, codec, marks)
    result: RerankResult = _with_usage(codec.read_response(answer), codec, headers)
    places = [each.index for each in result.results]
    if len(set(places)) != len(places) or not set(places) <= set(range(len(request.documents))):
        raise LLMBadResponseError(
            f"{remote.name} was given {len(request.documents)} documents and ranked "
            f"{sorted(places)[:20]}"
        )
    # Some rank all whatever they are told, and some leave the order to the caller.
    order = sorted(result.results, key=lambda each: -each.relevance_score)[: request.top_n]
    return evolve(result, results=tuple(order))


async def classify(
    remote: Remote, request: ClassificationRequest, marks: Marks
) -> ClassificationResult:
    """The classes of each input."""
    provider = remote.provider
    codec, path = provider.classify, provider.classify_path
    if codec is None or path is None:
        raise _unable(remote, "puts no texts in classes")
    asked = _fitting(remote, request, codec.CARRIES, codec.ALWAYS, marks)
    body = codec.write_request(asked, model=remote.model or request.model)
    answer, headers = await remote.answer_to(request, path, body, codec, marks)
    result: ClassificationResult = _with_usage(codec.read_response(answer), codec, headers)
    if len(result.labels) != len(request.inputs):
        raise _miscounted(remote, len(request.inputs), len(result.labels), "lists of classes")
    return result


def _fitting(
    remote: Remote,
    request: Any,
    carries: frozenset[str],
    always: Mapping[str, object],
    marks: Marks,
) -> Any:
    """``request`` without what the provider ignores, which is written into ``marks``; raises
    LLMCapabilityError for a setting that it cannot carry out."""
    provider = remote.provider
    for name in _SETTINGS:
        value = getattr(request, name, None)
        if value is None or always.get(name) == value:
            continue
        if name in provider.ignored:
            marks.dropped.append(name)
            request = evolve(request, **{name: None})
        elif name not in carries or name in provider.unsupported:
            raise _unsupported(remote, provider, name)
    kept = {}
    for name, value in request.provider_options.items():
        if name in provider.ignored:
            if value is not None:
                marks.dropped.append(name)
        elif name in provider.unsupported and value is not None:
            raise _unsupported(remote, provider, name)
        else:
            kept[name] = value
    return evolve(request, provider_options=kept)


def _with_usage(result: Any, codec: Any, headers: Mapping[str, str]) -> Any:
    """``result`` with what it used, where that is told beside the answer."""
    read = getattr(codec, "usage_from_headers", None)
    if read is None or result.usage is not None:
        return result
    return evolve(result, usage=read(headers))


def _unable(remote: Remote, what: str) -> LLMCapabilityError:
    return LLMCapabilityError(
        f"{remote.name} ({remote.provider.name}) {what}; ask another backend", param="model"
    )


def _unsupported(remote: Remote, provider: Provider, name: str) -> LLMCapabilityError:
    return LLMCapabilityError(
        f"{remote.name} ({provider.name}) does not support {name!r}; leave it out, or ask a model "
        "of another backend",
        param=name,
    )


def _miscounted(remote: Remote, given: int, came: int, what: str) -> LLMBadResponseError:
    return LLMBadResponseError(
        f"{remote.name} was given {given} inputs and answered with {came} {what}"
    )


def ranks(backend: Any) -> bool:
    """Whether ``backend`` may put documents in order; a remote one can where its row says so."""
    return _is_able(backend, "rerank", "rerank_path")


def classifies(backend: Any) -> bool:
    """Whether ``backend`` may put texts in classes; a remote one can where its row says so."""
    return _is_able(backend, "classify", "classify_path")


def _is_able(backend: Any, method: str, path: str) -> bool:
    from headrace.backends.remote import Remote

    if isinstance(backend, Remote):
        return getattr(backend.provider, path) is not None
    return callable(getattr(backend, method, None))
