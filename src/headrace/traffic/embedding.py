"""Embedding calls: on the way of all other calls, and many of them in one question to the engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from attrs import evolve, frozen

from headrace.contracts.errors import LLMCapabilityError
from headrace.contracts.protocols import Embedder
from headrace.contracts.record import Marks
from headrace.contracts.requests import EmbeddingRequest, LLMRequest, Priority
from headrace.contracts.responses import EmbeddingResult, Usage
from headrace.net.clock import Clock
from headrace.numbers.usage import add_usages
from headrace.traffic.batch import BatchWindow
from headrace.traffic.call import CallSheet, Traffic
from headrace.traffic.fallback import Alternative
from headrace.traffic.lane import Lane
from headrace.traffic.single import Single, single


@runtime_checkable
class Prepares(Embedder, Protocol):
    """An Embedder that first checks a request and turns its texts into token ids.

    Requests so prepared can be put together: the length of each input says what it cost.
    """

    async def prepare(self, request: EmbeddingRequest, marks: Marks) -> EmbeddingRequest: ...


@frozen(kw_only=True)
class Portion:
    """As much of one call as is asked at once; ``marks`` are the call's own."""

    request: EmbeddingRequest
    marks: Marks


@frozen(kw_only=True)
class EmbeddingLane(Lane):
    """A lane whose calls wait for one another in a batch window; its backend is one that prepares."""

    window: BatchWindow[Portion, EmbeddingResult]


async def embed(
    traffic: Traffic,
    request: EmbeddingRequest,
    lane: Lane,
    sheet: CallSheet,
    marks: Marks,
    *,
    fallbacks: Sequence[Alternative] = (),
    priority: Priority = "normal",
) -> EmbeddingResult:
    """One vector for each input, by ``traffic.run`` with all that holds there."""
    for each in (lane, *(way.lane for way in fallbacks)):
        _check_able(each)
    stands_for = LLMRequest(
        messages=(),
        model=request.model,
        prompt=_for_counting(request, lane),
        max_tokens=1,
        metadata=request.metadata,
        request_id=request.request_id,
        priority=priority,
    )

    async def ask(lane: Lane, model: str | None, marks: Marks) -> Single[EmbeddingResult]:
        asked = evolve(request, model=model)
        backend: object = lane.backend
        if isinstance(backend, Prepares):
            asked = await backend.prepare(asked, marks)
        assert isinstance(backend, Embedder)
        if isinstance(lane, EmbeddingLane):
            result = await _in_portions(asked, lane.window, marks)
        else:
            result = await backend.embed(asked, marks)
        return Single(result, result.usage)

    return await single(traffic, ask, stands_for, lane, sheet, marks, fallbacks=fallbacks)


def batch_window(
    backend: Embedder,
    clock: Clock,
    *,
    max_batch_size: int,
    max_wait_s: float,
    max_waiting: int,
) -> BatchWindow[Portion, EmbeddingResult]:
    """A window before ``backend`` for requests that were prepared."""

    async def ask(portions: Sequence[Portion]) -> list[EmbeddingResult]:
        inputs = [each for portion in portions for each in portion.request.inputs]
        together, marks = evolve(portions[0].request, inputs=tuple(inputs)), Marks()
        try:
            result = await backend.embed(together, marks)
        finally:
            marks.batch_occupancy = len(inputs) / max_batch_size
            for portion in portions:
                _share(marks, portion.marks)
        if len(portions) == 1:
            return [result]
        shares, begin = [], 0
        for portion in portions:
            own = portion.request.inputs
            vectors = result.vectors[begin : begin + len(own)]
            shares.append(evolve(result, vectors=vectors, usage=_usage(own)))
            begin += len(own)
        return shares

    return BatchWindow(
        ask=ask,
        clock=clock,
        max_batch_size=max_batch_size,
        max_wait_s=max_wait_s,
        max_waiting=max_waiting,
    )


def _check_able(lane: Lane) -> None:
    if not isinstance(lane.backend, Embedder):
        raise LLMCapabilityError(
            f"{lane.name} makes text, not embeddings; /v1/models lists what else there is",
            param="model",
        )


async def _in_portions(
    request: EmbeddingRequest, window: BatchWindow[Portion, EmbeddingResult], marks: Marks
) -> EmbeddingResult:
    """The result of a request that is asked a batch at a time, so that others get their turn."""
    size, inputs = window.max_batch_size, request.inputs
    results = []
    for begin in range(0, len(inputs), size):
        some = evolve(request, inputs=inputs[begin : begin + size])
        portion = Portion(request=some, marks=marks)
        results.append(await window.submit(portion, weight=len(some.inputs)))
    if len(results) == 1:
        return results[0]
    return EmbeddingResult(
        vectors=[vector for result in results for vector in result.vectors],
        model_id=results[0].model_id,
        usage=add_usages([result.usage or Usage() for result in results]),
    )


def _for_counting(request: EmbeddingRequest, lane: Lane) -> str | tuple[int, ...]:
    """What the limits a minute are reckoned by; nothing where there are none."""
    if lane.admission.limits is None:
        return ""
    return "".join(
        each if isinstance(each, str) else " " * 4 * len(each) for each in request.inputs
    )


def _usage(inputs: Sequence[str | tuple[int, ...]]) -> Usage:
    tokens = sum(map(len, inputs))
    return Usage(prompt_tokens=tokens, total_tokens=tokens)


def _share(batch: Marks, own: Marks) -> None:
    """What happened to a batch happened to each call in it."""
    own.backend, own.provider, own.status = batch.backend, batch.provider, batch.status
    own.sent = batch.sent if own.sent is None else own.sent
    own.first_byte = batch.first_byte if own.first_byte is None else own.first_byte
    own.batch_occupancy = batch.batch_occupancy
