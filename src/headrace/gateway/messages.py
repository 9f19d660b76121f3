"""The Messages face: a streamed answer says at its beginning how long the prompt was.

Most backends tell that with the end of the answer. One that can count prompts is asked for it
beside the generation, so that nobody waits for the count.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from functools import partial
from typing import Any, Protocol

from attrs import evolve, frozen

from headrace.contracts.errors import LLMError
from headrace.contracts.record import Marks
from headrace.contracts.responses import LLMDelta, Usage
from headrace.gateway.generation import Generation
from headrace.gateway.routes import Route, Way
from headrace.net.clock import Clock
from headrace.traffic.fallback import Earlier
from headrace.traffic.lane import CountsTokens
from headrace.traffic.routing.choice import Chosen
from headrace.wire.inbound import Inbound

# A count takes less time than the prompt's first token; a stuck one must not hold up the answer.
_COUNT_WITHIN_S = 0.5


@frozen(kw_only=True)
class Messages(Generation):
    """An ASGI application for ``POST /v1/messages``."""

    def _calls(
        self,
        inbound: Inbound,
        route: Route,
        chosen: Chosen[Way],
        request_id: str,
        queued: float,
        marks: Marks,
        earlier: Earlier | None = None,
    ) -> AsyncGenerator[LLMDelta, None]:
        calls = super()._calls(inbound, route, chosen, request_id, queued, marks, earlier)
        if not inbound.stream or not any(map(_counts, chosen.ways)):
            return calls
        model = route.asked(inbound.request.model)
        named = evolve(inbound.request, model=model, request_id=request_id)
        _, (first, *_) = self._asked_there(named, chosen)
        backend = first.lane.backend
        if not isinstance(backend, CountsTokens):
            return calls
        return _counted_first(calls, partial(backend.count_tokens, first.asked(named)), self.clock)


def _counts(way: Way) -> bool:
    return isinstance(way.lane.backend, CountsTokens)


class _Count(Protocol):
    def __call__(self) -> Coroutine[Any, Any, int]: ...


async def _counted_first(
    calls: AsyncGenerator[LLMDelta, None], count: _Count, clock: Clock
) -> AsyncGenerator[LLMDelta, None]:
    """The pieces of ``calls``; the first one says the prompt's length, where it can be had."""
    counting = asyncio.create_task(count(), name="count a prompt")
    try:
        async with aclosing(calls):
            async for delta in calls:
                if delta.usage_delta is None:
                    yield evolve(delta, usage_delta=await _usage(counting, clock))
                else:
                    yield delta
                break
            async for delta in calls:
                yield delta
    finally:
        counting.cancel()
        await asyncio.gather(counting, return_exceptions=True)


async def _usage(counting: asyncio.Task[int], clock: Clock) -> Usage | None:
    if not counting.done():
        limit = asyncio.ensure_future(clock.sleep(_COUNT_WITHIN_S))
        try:
            await asyncio.wait({counting, limit}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            limit.cancel()
    if not counting.done():
        return None
    try:
        return Usage(prompt_tokens=counting.result())
    except LLMError:  # the answer is there, and tells the number with its end
        return None
