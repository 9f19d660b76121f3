"""Calls whose answer is one object: on the way of all other calls, with all that holds there.

Vectors, rankings, recordings turned into text: a lane, its limits, retries, fallbacks and the record
are for them what they are for a conversation.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Generic, TypeAlias, TypeVar, cast

from attrs import evolve, frozen

from headrace.contracts.capabilities import BackendStatus, ModelInfo
from headrace.contracts.protocols import Backend
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMDelta, Usage
from headrace.traffic.call import CallSheet, Traffic
from headrace.traffic.fallback import Alternative
from headrace.traffic.lane import Lane, carrying

T = TypeVar("T")

_RESULT = "single"


@frozen
class Single(Generic[T]):
    """The one object, and what it used where that is known."""

    value: T
    usage: Usage | None = None


Ask: TypeAlias = Callable[[Lane, str | None, Marks], Awaitable[Single[T]]]
"""Asks a lane's backend for the object, by the model's name there (``None`` is its own default)."""


async def single(
    traffic: Traffic,
    ask: Ask[T],
    stands_for: LLMRequest,
    lane: Lane,
    sheet: CallSheet,
    marks: Marks,
    *,
    fallbacks: Sequence[Alternative] = (),
) -> T:
    """What ``ask`` gives, by ``traffic.run``.

    ``stands_for`` is what the limits are reckoned by: its model, priority, metadata and, as a
    prompt, what the call takes in. ``ask`` raises LLMCapabilityError for a backend that has no such
    service.
    """
    ways = [evolve(way, lane=_carrying(ask, way.lane)) for way in fallbacks]
    run = traffic.run(stands_for, _carrying(ask, lane), sheet, marks, fallbacks=ways)
    came = None
    async with aclosing(run) as deltas:
        async for delta in deltas:
            came = (delta.provider_fields or {}).get(_RESULT, came)
    assert isinstance(came, Single)
    return cast("T", came.value)


@frozen(kw_only=True)
class _Carried:
    """A request as traffic carries calls: the answer is one delta that holds all of it."""

    lane: Lane
    ask: Ask[Any]

    @property
    def name(self) -> str:
        return self.lane.name

    async def stream(self, request: LLMRequest, marks: Marks) -> AsyncGenerator[LLMDelta, None]:
        came = await self.ask(self.lane, request.model, marks)
        yield LLMDelta(
            usage_delta=came.usage, finish_reason="stop", provider_fields={_RESULT: came}
        )

    async def models(self) -> tuple[ModelInfo, ...]:
        return await self.lane.backend.models()

    async def status(self) -> BackendStatus:
        return await self.lane.backend.status()

    async def aclose(self) -> None:
        """Nothing of its own to give back."""


def _carrying(ask: Ask[Any], lane: Lane) -> Lane:
    """``lane``, with its door and its limits, for this one request."""

    def carry(backend: Backend) -> Backend:
        return _Carried(lane=evolve(lane, backend=backend, keys=None), ask=ask)

    return carrying(lane, carry)
