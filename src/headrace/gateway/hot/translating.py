"""Requests that are asked in other words than their caller's: mostly those of another format.

With a request that nothing is unusual about the same is done here, by the same functions, as on the
general way; whatever is unusual or wrong is left to that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from headrace.contracts.errors import LLMError
from headrace.contracts.quick import changed
from headrace.contracts.record import Marks, Operation
from headrace.gateway.generation import choose, for_backend
from headrace.gateway.hot.asked import Asked, Declined
from headrace.gateway.hot.course import course_of
from headrace.gateway.hot.head import HotHead
from headrace.gateway.hot.manner import Translated
from headrace.gateway.hot.way import HotWay, HotWays
from headrace.gateway.standing import Standing
from headrace.gateway.tasks import TASK_FIELD
from headrace.traffic.lane import Lane
from headrace.wire.inbound import Inbound

log = logging.getLogger(__name__)


def translated(
    hot: HotHead, standing: Standing, body: bytes, ways: HotWays, wall: Callable[[], float]
) -> Asked | Declined:
    """The request in ``body``, as the best of its ways is asked it."""
    inbound: Inbound | None = None
    try:
        inbound = hot.face.read(body, hot.model)
        return _asked(hot, standing, body, inbound, ways, wall)
    except LLMError:
        return Declined(standing, inbound=inbound)
    except Exception:
        # No task is here that could fail alone: the connection would. The general way says it.
        log.exception("a request could not be made ready")
        return Declined(standing)


def _asked(
    hot: HotHead,
    standing: Standing,
    body: bytes,
    inbound: Inbound,
    ways: HotWays,
    wall: Callable[[], float],
) -> Asked | Declined:
    face, request = hot.face, inbound.request
    if not _is_usual(inbound) or not face.takes(inbound):
        return Declined(standing, inbound=inbound)
    route = standing.routes.pick(request.model)
    if route.hedging is not None or not any(ways.to(lane) for lane in route.lanes()):
        return Declined(standing, inbound=inbound)
    chosen = route.alone if route.choice is None else choose(_headers(hot), route, inbound)
    declined = Declined(standing, chosen, inbound)
    way = chosen.ways[0]
    to = ways.to(way.lane)
    if to is None or not _takes(to, inbound):
        return declined
    operation: Operation = "chat" if request.prompt is None else "completion"
    course = course_of(route, way, to, request.model, operation)
    marks = Marks(backend=way.lane.name)
    try:
        asked, foreign = for_backend(
            changed(request, model=course.model), way, face.codec.OWN_FIELDS, face.format
        )
        if not inbound.stream:
            _wait_for_all(marks, way.lane)
        written = to.remote.written(asked, marks)
    except LLMError:
        return declined
    if written.whole and inbound.stream:
        return declined
    words = face.words(
        face.codec,
        course.model,
        wall,
        include_usage=inbound.include_usage,
        tells_cache=inbound.tells_cache,
    )
    words.asked(inbound, route)
    return Asked(
        hot,
        standing,
        body,
        chosen=chosen,
        course=course,
        head=to.head(written.path),
        sent=written.body,
        stream=inbound.stream,
        in_pieces=not written.whole,
        rated_tokens=way.lane.rated_tokens(asked),
        manner=Translated(face, words, written.codec, written.keep),
        inbound=inbound,
        dropped=tuple(marks.dropped),
        told_dropped=(*inbound.dropped, *marks.dropped, *foreign),
    )


def _is_usual(inbound: Inbound) -> bool:
    """Whether one call answers it, of which nothing is wanted that stays with us."""
    request = inbound.request
    return (
        request.n in (None, 1)
        and len(inbound.prompts) < 2
        and TASK_FIELD not in request.provider_options
        and not request.metadata
    )


def _takes(way: HotWay, inbound: Inbound) -> bool:
    """Whether its answers need nothing but to be translated."""
    return way.lane.admission.max_tokens is None and not way.remote.puts_right(inbound.request)


def _wait_for_all(marks: Marks, lane: Lane) -> None:
    """The caller has no use for pieces: all of it may take as long as the lane says."""
    marks.whole_s = lane.whole_s
    marks.whole_within_s = lane.whole_s if lane.total_s is None else lane.total_s


def _headers(hot: HotHead) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in hot.fields.items()}
