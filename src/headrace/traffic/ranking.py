"""Rankings and classes: on the way of all other calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import evolve

from headrace.backends.one_answer import classifies, ranks
from headrace.contracts.errors import LLMCapabilityError
from headrace.contracts.protocols import Classifier, Reranker
from headrace.contracts.ranking import (
    ClassificationRequest,
    ClassificationResult,
    RerankRequest,
    RerankResult,
)
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest, Priority
from headrace.traffic.call import CallSheet, Traffic
from headrace.traffic.fallback import Alternative
from headrace.traffic.lane import Lane
from headrace.traffic.single import Single, single


async def rerank(
    traffic: Traffic,
    request: RerankRequest,
    lane: Lane,
    sheet: CallSheet,
    marks: Marks,
    *,
    fallbacks: Sequence[Alternative] = (),
    priority: Priority = "normal",
) -> RerankResult:
    """The documents, the most relevant first, by ``traffic.run`` with all that holds there."""
    for each in (lane, *(way.lane for way in fallbacks)):
        if not ranks(each.backend):
            raise LLMCapabilityError(
                f"{each.name} ranks no documents; /v1/models lists what else there is",
                param="model",
            )

    async def ask(lane: Lane, model: str | None, marks: Marks) -> Single[RerankResult]:
        backend: object = lane.backend
        assert isinstance(backend, Reranker)
        result = await backend.rerank(evolve(request, model=model), marks)
        return Single(result, result.usage)

    # The query is read once with each document.
    texts = [text for each in request.documents for text in (request.query, each)]
    stands_for = _stands_for(request, texts, lane, priority)
    result = await single(traffic, ask, stands_for, lane, sheet, marks, fallbacks=fallbacks)
    ranked = result.results[: request.top_n]
    if request.return_documents:
        ranked = tuple(evolve(each, document=request.documents[each.index]) for each in ranked)
    return evolve(result, results=ranked, dropped=tuple(dict.fromkeys(marks.dropped)))


async def classify(
    traffic: Traffic,
    request: ClassificationRequest,
    lane: Lane,
    sheet: CallSheet,
    marks: Marks,
    *,
    fallbacks: Sequence[Alternative] = (),
    priority: Priority = "normal",
) -> ClassificationResult:
    """The classes of each input, by ``traffic.run`` with all that holds there."""
    for each in (lane, *(way.lane for way in fallbacks)):
        if not classifies(each.backend):
            raise LLMCapabilityError(
                f"{each.name} puts no texts in classes; /v1/models lists what else there is",
                param="model",
            )

    async def ask(lane: Lane, model: str | None, marks: Marks) -> Single[ClassificationResult]:
        backend: object = lane.backend
        assert isinstance(backend, Classifier)
        result = await backend.classify(evolve(request, model=model), marks)
        return Single(result, result.usage)

    texts = ["".join(each) for each in request.inputs]
    stands_for = _stands_for(request, texts, lane, priority)
    result = await single(traffic, ask, stands_for, lane, sheet, marks, fallbacks=fallbacks)
    return evolve(result, dropped=tuple(dict.fromkeys(marks.dropped)))


def _stands_for(
    request: RerankRequest | ClassificationRequest,
    texts: Iterable[str],
    lane: Lane,
    priority: Priority,
) -> LLMRequest:
    """What the limits a minute are reckoned by; without a text where there are none."""
    return LLMRequest(
        messages=(),
        model=request.model,
        prompt="" if lane.admission.limits is None else "".join(texts),
        max_tokens=1,
        metadata=request.metadata,
        request_id=request.request_id,
        priority=priority,
    )
