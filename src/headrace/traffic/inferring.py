"""Calls of models that are no language models: on the way of all other calls."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from headrace.contracts.errors import LLMCapabilityError
from headrace.contracts.inference import InferRequest, InferResult
from headrace.contracts.protocols import Infers
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest, Priority
from headrace.traffic.call import CallSheet, Traffic
from headrace.traffic.fallback import Alternative
from headrace.traffic.lane import Lane
from headrace.traffic.single import Single, single


async def infer(
    traffic: Traffic,
    request: InferRequest,
    lane: Lane,
    sheet: CallSheet,
    marks: Marks,
    *,
    fallbacks: Sequence[Alternative] = (),
    priority: Priority = "normal",
) -> InferResult:
    """What the model answers, by ``traffic.run`` with all that holds there."""
    stands_for = LLMRequest(
        messages=(),
        model=request.model,
        prompt="",
        max_tokens=1,
        metadata=request.metadata,
        request_id=request.request_id,
        priority=priority,
    )

    async def ask(lane: Lane, model: str | None, marks: Marks) -> Single[InferResult]:
        backend: object = lane.backend
        if not isinstance(backend, Infers):
            raise LLMCapabilityError(
                f"{lane.name} is asked by no tensors or values; ask another backend", param="model"
            )
        result = await backend.infer(evolve(request, model=model), marks)
        return Single(result, result.usage)

    return await single(traffic, ask, stands_for, lane, sheet, marks, fallbacks=fallbacks)
