"""What is known of one call while it runs, whichever lanes it visits."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from attrs import define, field

from headrace.contracts.record import Attempt, Hedge, Marks
from headrace.net.clock import Clock
from headrace.numbers.live import LiveCall
from headrace.traffic.fallback import Earlier
from headrace.traffic.lane import Lane
from headrace.traffic.patience import Patience

if TYPE_CHECKING:
    from headrace.traffic.visit import Visit


@define(kw_only=True, eq=False)
class Running:
    """What the visits of one call share.

    ``marks`` are those of whoever asked for the call, who may share them among several calls;
    ``latest`` are those of this call's latest attempt, or name at least the lane where it waits;
    the first visit makes them. ``asks`` is told of each attempt as it begins, by whoever has to know
    when its first token is late; such a call is asked for a stream, which has one. ``dropped_earlier``
    are the settings that a first attempt elsewhere went without.
    """

    call_id: str
    clock: Clock
    random: Random
    patience: Patience
    live: LiveCall
    marks: Marks
    total_s: float | None
    whole: bool = False
    admitted: float | None = None
    latest: Marks = field(init=False)
    attempts: list[Attempt] = field(factory=list)
    hedge: Hedge | None = None
    dropped_earlier: tuple[str, ...] = ()
    asks: Callable[[Visit], None] | None = None

    def goes_on_after(self, earlier: Earlier) -> None:
        """Its first attempt was made by somebody else."""
        earlier.taken = True
        self.admitted = earlier.admitted
        self.dropped_earlier = earlier.dropped
        self.attempts.append(earlier.attempt)
        self.marks.attempts.append(earlier.attempt)
        if self.total_s is not None:
            spent_s = self.clock.monotonic() - earlier.admitted
            self.patience.allow("total_s", max(0.0, self.total_s - spent_s))

    def puts_out(self) -> None:
        """The first piece of output is here."""
        self.patience.lift("first_token_s")
        if not self.whole:
            self.patience.lift("total_s")

    def enters(self, lane: Lane) -> None:
        """It may run at ``lane``."""
        if self.admitted is None:
            self.admitted = self.clock.monotonic()
            self.patience.allow("total_s", self.total_s)
        self.live.admitted(lane.name)
