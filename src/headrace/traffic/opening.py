"""Whom a call asks, one after the other, until one brings output."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from attrs import evolve

from headrace.contracts.errors import LLMError
from headrace.contracts.requests import LLMRequest
from headrace.traffic.fallback import Alternative, Earlier, another_may_mend, without_key
from headrace.traffic.running import Running
from headrace.traffic.visit import Visit

log = logging.getLogger(__name__)


async def opened(
    call: Running,
    request: LLMRequest,
    ways: Sequence[Alternative],
    first: Earlier | None,
    *,
    before_next: Callable[[], Awaitable[None]] | None = None,
) -> Visit:
    """The first visit, in the order of ``ways``, that brought output.

    While there is another lane to go to, nobody waits to ask the same one again. ``before_next`` is
    waited for where one has failed.
    """
    earlier: LLMError | None = None
    for place, way in enumerate(ways, 1):
        is_last = place == len(ways)
        if earlier is not None and not way.lane.takes_over():
            earlier.add_note(f"{way.lane.name} was not asked: it fails too (retry budget)")
            if is_last:
                raise earlier
            continue
        failed = None if first is None or place > 1 else first.error
        asked = asked_there(way, request, ways[0])
        visit = Visit(way.lane, asked, call, patient=is_last, failed=failed)
        try:
            await visit.open()
            call.marks.dropped += way.dropped
            return visit
        except BaseException as error:
            await visit.end(error)
            if not isinstance(error, LLMError):
                raise
            if earlier is not None:
                error.__context__ = earlier
            out_of_time = call.patience.left_s("total_s") <= 0
            if is_last or out_of_time or not another_may_mend(error):
                raise
            earlier = error
            log.info("%s failed (%s); the call goes on", way.lane.name, type(error).__name__)
        if before_next is not None:
            await before_next()
    raise AssertionError("there is always a last way")


def asked_there(way: Alternative, request: LLMRequest, first: Alternative) -> LLMRequest:
    """What ``way`` is asked in a call that asked ``first``, whom alone its own key is meant for."""
    asked = way.asked(request)
    if way.lane is not first.lane and "api_key" in request.metadata:
        return evolve(asked, metadata=without_key(request.metadata))
    return asked
