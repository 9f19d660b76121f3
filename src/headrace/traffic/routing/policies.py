"""By what a route orders its backends: each policy puts those that may be asked in a row.

Who is ill, who breaks a limit and who has the call's prefix in its cache is not theirs to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from random import Random
from typing import Any, Literal, Protocol, TypeAlias

from headrace.contracts.requests import TaskPriority, TaskProfile
from headrace.numbers.pace import Measure
from headrace.traffic.routing.candidate import Candidate, Look, W

# A difference of a tenth between two medians is mostly chance.
_AS_QUICK = 1.1
# One that is asked for nothing else is measured again after so long, by one call in so many.
_MEASURE_AGAIN_S = 30.0
_CALLS_A_TRY = 20
_UNKNOWN_SCORE = 0.5
_BALANCED = TaskProfile()

PolicyName: TypeAlias = Literal[
    "ordered", "least_busy", "lowest_latency", "lowest_cost", "task_profile"
]
"""The policies that know nothing of one route's candidates beforehand."""


class Policy(Protocol):
    """An order of those that may be asked."""

    name: str

    def rank(self, looks: Sequence[Look[W]]) -> list[Look[W]]:
        """``looks``, at least one, the best first."""

    def reason(self, first: Look[W]) -> str:
        """Why ``first`` is the first."""


class Ordered:
    """As they stand in the configuration."""

    name = "ordered"

    def rank(self, looks: Sequence[Look[W]]) -> list[Look[W]]:
        return list(looks)

    def reason(self, first: Look[W]) -> str:
        return "the first in order"


class Weighted:
    """Each comes first in the share that its weight is of all, evenly spread; the others follow.

    The shares of those who are ill go to the others, and one of weight 0 never comes first while
    another is well. ``random`` decides where in the turn it begins: several processes of one
    gateway should not all ask the same backend first.
    """

    name = "weighted"

    def __init__(self, candidates: Sequence[Candidate[Any]], random: Random) -> None:
        self._places = {id(candidate): place for place, candidate in enumerate(candidates)}
        self._weights = tuple(candidate.weight for candidate in candidates)
        total = sum(self._weights)
        self._credits = [random.random() * total if weight else 0.0 for weight in self._weights]

    def next(self, places: Sequence[int]) -> int:
        """Whose turn it is: nginx's smooth weighted round robin."""
        credits, weights = self._credits, self._weights
        total, best = 0.0, places[0]
        for place in places:
            credits[place] += weights[place]
            total += weights[place]
            if credits[place] > credits[best]:
                best = place
        credits[best] -= total
        return best

    def rank(self, looks: Sequence[Look[W]]) -> list[Look[W]]:
        sharing = {
            self._places[id(look.candidate)]: look for look in looks if look.candidate.weight
        }
        # Those that are ill stand where they are tried once their rest is over.
        front = [look for look in sharing.values() if not look.candidate.way.lane.is_well]
        able = [place for place, look in sharing.items() if look.candidate.way.lane.is_well]
        if able:
            front.append(sharing[self.next(able)])
        return [*front, *(look for look in looks if look not in front)]

    def reason(self, first: Look[W]) -> str:
        return f"its turn, by a weight of {first.candidate.weight:g}"


class LeastBusy:
    """The one with the fewest requests for its weight; among equals chance decides."""

    name = "least_busy"

    def __init__(self, random: Random) -> None:
        self._random = random

    def rank(self, looks: Sequence[Look[W]]) -> list[Look[W]]:
        return sorted(looks, key=self._key)

    def _key(self, look: Look[W]) -> tuple[float, float]:
        weight, busy = look.candidate.weight, look.busy()
        # As busy as it would be with this call.
        return ((busy + 1) / weight if weight else inf, self._random.random())

    def reason(self, first: Look[W]) -> str:
        return f"the least busy, with {first.values['busy']:g} running or waiting"


class LowestLatency:
    """The one whose late answers took the shortest time, by their median.

    One that was hardly measured yet is asked first, by one call at a time; so is, by one call in
    twenty, one of which nothing was heard for half a minute. Of those that are about as quick the
    least busy comes first.
    """

    name = "lowest_latency"

    def __init__(self, measure: Measure = "answer") -> None:
        self._measure = measure
        self._calls_left = _CALLS_A_TRY

    def rank(self, looks: Sequence[Look[W]]) -> list[Look[W]]:
        self._calls_left -= 1
        timed = [(look, self._time(look)) for look in looks]
        best_s = min((took_s for _, took_s in timed if took_s is not None), default=0.0)

        def key(each: tuple[Look[W], float | None]) -> tuple[float, float]:
            look, took_s = each
            if took_s is None:
                return inf, look.busy()
            if took_s <= best_s * _AS_QUICK:
                return best_s, look.busy()
            return took_s, 0

        ranked = [look for look, _ in sorted(timed, key=key)]
        tried = self._to_measure(ranked)
        return ranked if tried is None else [tried, *(look for look in ranked if look is not tried)]

    def _time(self, look: Look[W]) -> float | None:
        took_s = look.latency_s(self._measure, 0.5)
        fresh = look.candidate.pace.is_fresh(self._measure, look.occasion.now)
        return took_s if fresh else None

    def _to_measure(self, ranked: Sequence[Look[W]]) -> Look[W] | None:
        for look in reversed(ranked):
            if look.busy():
                continue  # one call is finding it out already, or it is asked anyway
            last = look.candidate.pace.last(self._measure)
            if last is None:
                return look
            if self._calls_left <= 0 and look.occasion.now - last >= _MEASURE_AGAIN_S:
                self._calls_left = _CALLS_A_TRY
                return look
        return None

    def reason(self, first: Look[W]) -> str:
        took_s = first.values.get("latency_s")
        last = first.candidate.pace.last(self._measure)
        if took_s is None or last is None:
            return "hardly measured yet"
        if first.occasion.now - last >= _MEASURE_AGAIN_S:
            return f"to be measured again, after {first.occasion.now - last:.0f} s"
        what = "its answers" if self._measure == "answer" else "its first tokens"
        return f"about the quickest: {what} take {took_s * 1000:.0f} ms"


class LowestCost:
    """The cheapest for this call; one without a known price comes behind the others."""

    name = "lowest_cost"

    def rank(self, looks: Sequence[Look[W]]) -> list[Look[W]]:
        return sorted(looks, key=lambda look: _or_inf(look.cost_usd()))

    def reason(self, first: Look[W]) -> str:
        cost = first.values.get("cost_usd")
        return "no price is known" if cost is None else f"the cheapest: it may cost ${cost:.6g}"


class BestQuality:
    """The one whose answers are thought the best; the cheaper of two equals."""

    name = "quality"

    def rank(self, looks: Sequence[Look[W]]) -> list[Look[W]]:
        return sorted(looks, key=lambda look: (-(look.quality() or 0.0), _or_inf(look.cost_usd())))

    def reason(self, first: Look[W]) -> str:
        quality = first.values.get("quality")
        return "no quality is told" if quality is None else f"the best quality: {quality:g}"


class Balanced:
    """The best by latency, cost and quality together.

    For each of the three a backend gets a part of 1: as much as the best one's value is of its own,
    and a half where nothing is known. The score is their mean.
    """

    name = "balanced"

    def rank(self, looks: Sequence[Look[W]]) -> list[Look[W]]:
        parts = (
            _less_is_better([look.latency_s("answer", 0.5) for look in looks]),
            _less_is_better([look.cost_usd() for look in looks]),
            _more_is_better([look.quality() for look in looks]),
        )
        for look, each in zip(looks, zip(*parts, strict=True), strict=True):
            look.values["score"] = sum(each) / len(each)
        return sorted(looks, key=lambda look: -look.values["score"])

    def reason(self, first: Look[W]) -> str:
        return f"the best of latency, cost and quality together: {first.values['score']:.2f} of 1"


class ByTask:
    """By what each call's task profile puts first; a call without one is balanced."""

    name = "task_profile"

    def __init__(self) -> None:
        self._policies: dict[TaskPriority, Policy] = {
            "latency": LowestLatency(),
            "quality": BestQuality(),
            "cost": LowestCost(),
            "balanced": Balanced(),
        }

    def rank(self, looks: Sequence[Look[W]]) -> list[Look[W]]:
        return self._of(looks[0]).rank(looks)

    def reason(self, first: Look[W]) -> str:
        return self._of(first).reason(first)

    def _of(self, look: Look[W]) -> Policy:
        return self._policies[(look.occasion.asking.profile or _BALANCED).priority]


def policy_named(name: PolicyName, random: Random, latency_of: Measure = "answer") -> Policy:
    """A policy of its own, by the name that the settings have for it."""
    match name:
        case "ordered":
            return Ordered()
        case "least_busy":
            return LeastBusy(random)
        case "lowest_latency":
            return LowestLatency(latency_of)
        case "lowest_cost":
            return LowestCost()
        case "task_profile":
            return ByTask()


def _or_inf(value: float | None) -> float:
    return inf if value is None else value


def _less_is_better(values: Sequence[float | None]) -> list[float]:
    best = min((value for value in values if value is not None), default=0.0)
    return _parts(values, lambda value: best / value if value else 1.0)


def _more_is_better(values: Sequence[float | None]) -> list[float]:
    best = max((value for value in values if value is not None), default=0.0)
    return _parts(values, lambda value: value / best if best else 1.0)


def _parts(values: Sequence[float | None], part: Callable[[float], float]) -> list[float]:
    return [_UNKNOWN_SCORE if value is None else part(value) for value in values]
