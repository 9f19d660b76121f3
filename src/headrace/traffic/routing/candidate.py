"""One backend of a route, and how it looks to one call."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Generic, TypeAlias, TypeVar

from attrs import field, frozen

from headrace.numbers.pace import Measure, Pace
from headrace.traffic.fallback import Alternative
from headrace.traffic.lane import Lane, queue_of
from headrace.traffic.routing.asking import Asking

W = TypeVar("W", bound=Alternative)

PriceOf: TypeAlias = Callable[[str | None, int, int], float | None]
"""US dollars for a model's name, tokens of prompt and tokens of answer; ``None`` where unknown."""


EngineLoad: TypeAlias = Callable[[Lane], int | None]
"""How many requests run and wait at a lane's engines, whoever sent them; ``None`` where unknown."""


def _unknown(*_: object) -> None:
    return None


@frozen(kw_only=True, eq=False)
class Candidate(Generic[W]):
    """One backend of a route, with what is said and known of it.

    ``weight`` is its share, or its size beside the others; 0: only where others fail. ``quality`` is
    what somebody thinks of its answers, from 0 to 1. ``engine_load`` tells of requests at the
    engine that others have sent.
    """

    way: W
    weight: float = 1.0
    quality: float | None = None
    tags: frozenset[str] = frozenset()
    price: PriceOf = _unknown
    pace: Pace = field(factory=Pace)
    engine_load: EngineLoad = queue_of

    @property
    def name(self) -> str:
        """The backend's name."""
        return self.way.lane.name

    def busy(self) -> int:
        """How many requests run or wait there: ours, or as many as the engine tells of."""
        lane = self.way.lane
        ours = lane.running + lane.waiting
        # What it tells is a moment old, and has ours in it.
        return max(ours, self.engine_load(lane) or 0)


@frozen(kw_only=True)
class Occasion:
    """One call at a route: what is asked, and when.

    ``unbounded`` is how long an answer may be believed to get that nobody bounds, in tokens.
    """

    asking: Asking
    now: float
    unbounded: int

    @cached_property
    def prompt_tokens(self) -> int:
        """About how long the prompt is: reckoned once for all candidates."""
        return self.asking.prompt_tokens()

    @property
    def answer_tokens(self) -> int:
        """How long its answers may get together."""
        return self.asking.answer_tokens(self.unbounded)


class Look(Generic[W]):
    """A candidate as one call sees it; ``values`` are what was looked at, for the record."""

    __slots__ = ("_busy", "candidate", "occasion", "values", "why_not")

    def __init__(self, candidate: Candidate[W], occasion: Occasion) -> None:
        self.candidate = candidate
        self.occasion = occasion
        self.values: dict[str, float] = {}
        self.why_not: str | None = None
        self._busy: int | None = None

    def busy(self) -> int:
        """How many requests run or wait there."""
        if self._busy is None:
            self._busy = self.candidate.busy()
            self.values["busy"] = self._busy
        return self._busy

    def cost_usd(self) -> float | None:
        """What the call would cost there if its answer were as long as it may get."""
        known = self.values.get("cost_usd")
        if known is not None:
            return known
        occasion = self.occasion
        model = self.candidate.way.model or occasion.asking.model
        cost = self.candidate.price(model, occasion.prompt_tokens, occasion.answer_tokens)
        return self._noted("cost_usd", cost)

    def latency_s(self, measure: Measure, q: float) -> float | None:
        """How long the share ``q`` of its answers take at most."""
        return self._noted("latency_s", self.candidate.pace.quantile(measure, q, self.occasion.now))

    def quality(self) -> float | None:
        """What is thought of its answers."""
        return self._noted("quality", self.candidate.quality)

    def _noted(self, name: str, value: float | None) -> float | None:
        if value is not None:
            self.values[name] = value
        return value
