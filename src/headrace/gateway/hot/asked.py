"""What the door makes of a request: one that is asked at once, or one for the general way."""

from __future__ import annotations

from attrs import frozen

from headrace.gateway.hot.course import Course
from headrace.gateway.hot.head import HotHead
from headrace.gateway.hot.manner import Manner
from headrace.gateway.routes import Way
from headrace.gateway.standing import Standing
from headrace.traffic.routing.choice import Chosen
from headrace.wire.inbound import Inbound


@frozen
class Declined:
    """The general way shall have the request, with whatever may be wrong with it.

    ``standing`` is what it began with; ``chosen`` is whom to ask, where that was settled already: a
    turn has been taken. ``inbound`` is what was read of it, where it was.
    """

    standing: Standing
    chosen: Chosen[Way] | None = None
    inbound: Inbound | None = None


class Asked:
    """A request that goes the fast way; nobody changes it.

    ``standing`` is what it began with, ``body`` is as the caller sent it and ``inbound`` what was
    read of it, where it was; ``chosen`` are all the ways that it may go. ``head`` (up to its last
    headers) and ``sent`` are for the first, whose ``course`` it takes. ``manner`` is how the answer
    gets to its caller; ``stream`` is whether as a stream, ``in_pieces`` whether the backend is asked
    for one. ``told_dropped`` are the settings that the caller is told were left out,
    ``dropped`` those among them that the backend could not be given.
    """

    __slots__ = (
        "body",
        "chosen",
        "course",
        "dropped",
        "head",
        "hot",
        "in_pieces",
        "inbound",
        "manner",
        "rated_tokens",
        "sent",
        "standing",
        "stream",
        "told_dropped",
    )

    def __init__(
        self,
        hot: HotHead,
        standing: Standing,
        body: bytes,
        *,
        chosen: Chosen[Way],
        course: Course,
        head: bytes,
        sent: bytes,
        stream: bool,
        rated_tokens: int,
        manner: Manner,
        in_pieces: bool | None = None,
        inbound: Inbound | None = None,
        dropped: tuple[str, ...] = (),
        told_dropped: tuple[str, ...] = (),
    ) -> None:
        self.hot = hot
        self.standing = standing
        self.body = body
        self.chosen = chosen
        self.course = course
        self.head = head
        self.sent = sent
        self.stream = stream
        self.in_pieces = stream if in_pieces is None else in_pieces
        self.rated_tokens = rated_tokens
        self.manner = manner
        self.inbound = inbound
        self.dropped = dropped
        self.told_dropped = told_dropped
