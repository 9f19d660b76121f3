"""Calls whose answer comes in pieces that are no text of a model: sound, pictures, whatever goes by.

They take the way of all other calls, with all that holds there: a lane, its limits, retries while
nothing was given away, fallbacks, and the record. ``traffic.single`` is for answers of one object.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
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

_PIECE = "piece"
# To traffic, output is text; what it is does not matter there.
_OUTPUT = "."


@frozen
class Used:
    """The last piece, which callers do not see: what the answer used."""

    usage: Usage | None = None


@frozen
class Piece(Generic[T]):
    """One piece; ``before_output``: it says how the answer begins and is none of it yet."""

    value: T
    before_output: bool = False


Asking: TypeAlias = Callable[[Backend, str | None, Marks], AsyncGenerator[Piece[T] | Used, None]]
"""Asks a backend, by the model's name there (``None`` is its own default)."""


async def pieces(
    traffic: Traffic,
    ask: Asking[T],
    stands_for: LLMRequest,
    lane: Lane,
    sheet: CallSheet,
    marks: Marks,
    *,
    fallbacks: Sequence[Alternative] = (),
    repeats: bool = True,
) -> AsyncGenerator[T, None]:
    """What ``ask`` gives, by ``traffic.run``; closing the generator ends the call.

    ``stands_for`` is what the limits are reckoned by. An answer that is not streamed
    (``sheet.stream``) may take as long to begin as the lane lets a whole answer take. Where it does
    not ``repeats``, it is asked once and of one backend: it may leave something behind there.
    """
    whole = not sheet.stream
    ways = [evolve(way, lane=_carrying(ask, way.lane, whole, repeats)) for way in fallbacks]
    first = _carrying(ask, lane, whole, repeats)
    run = traffic.run(
        stands_for, first, sheet, marks, fallbacks=ways if repeats else (), dropped=()
    )
    async with aclosing(run) as deltas:
        async for delta in deltas:
            fields = delta.provider_fields
            if fields is not None and _PIECE in fields:
                yield cast("T", fields[_PIECE])


@frozen(kw_only=True)
class _Carried:
    """A request as traffic carries calls; each piece of its answer is a delta that holds it."""

    backend: Backend
    ask: Asking[Any]

    @property
    def name(self) -> str:
        return self.backend.name

    async def stream(self, request: LLMRequest, marks: Marks) -> AsyncGenerator[LLMDelta, None]:
        usage = None
        async with aclosing(self.ask(self.backend, request.model, marks)) as asked:
            async for piece in asked:
                if isinstance(piece, Used):
                    usage = piece.usage
                    continue
                yield LLMDelta(
                    text_delta=None if piece.before_output else _OUTPUT,
                    provider_fields={_PIECE: piece.value},
                )
        yield LLMDelta(usage_delta=usage, finish_reason="stop")

    async def models(self) -> tuple[ModelInfo, ...]:
        return await self.backend.models()

    async def status(self) -> BackendStatus:
        return await self.backend.status()

    async def aclose(self) -> None:
        """Nothing of its own to give back."""


def _carrying(ask: Asking[Any], lane: Lane, whole: bool, repeats: bool) -> Lane:
    """``lane``, with its door and its limits, for this one request."""
    return evolve(
        carrying(lane, lambda backend: _Carried(backend=backend, ask=ask)),
        first_token_s=None if whole and lane.whole_s is not None else lane.first_token_s,
        retry=lane.retry if repeats else None,
    )
