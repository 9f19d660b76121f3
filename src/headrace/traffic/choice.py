"""Which of several lanes is asked first, and which after it."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Generic, Protocol, TypeVar

from headrace.traffic.fallback import Alternative
from headrace.traffic.lane import Lane

W_co = TypeVar("W_co", bound=Alternative, covariant=True)
W = TypeVar("W", bound=Alternative)


class Choice(Protocol[W_co]):
    """An order of several lanes."""

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """All of them."""

    def ways(self) -> tuple[W_co, ...]:
        """All of them, in the order in which this call should ask them."""


class Ordered(Generic[W]):
    """Always the same order, but that those who are ill come last."""

    def __init__(self, ways: Sequence[W]) -> None:
        self._ways = tuple(ways)
        self.lanes = tuple(way.lane for way in ways)

    def ways(self) -> tuple[W, ...]:
        """In order."""
        return self._ways if _all_well(self._ways) else _ill_last(self._ways)


class Weighted(Generic[W]):
    """Each comes first in the share that its weight is of all, evenly spread; the others follow.

    The shares of those who are ill go to the others, and one of weight 0 never comes first while
    another is well. ``random`` decides where in the turn it begins: several processes of one
    gateway should not all ask the same backend first.
    """

    def __init__(self, ways: Sequence[W], weights: Sequence[float], random: Random) -> None:
        self._ways = tuple(ways)
        self.lanes = tuple(way.lane for way in ways)
        self._weights = tuple(weights)
        self._orders = tuple(
            (way, *self._ways[:place], *self._ways[place + 1 :])
            for place, way in enumerate(self._ways)
        )
        total = sum(weights)
        self._credits = [random.random() * total if weight else 0.0 for weight in weights]

    def ways(self) -> tuple[W, ...]:
        """This call's first, and then the others in order."""
        if _all_well(self._ways):
            return self._orders[self._next(range(len(self._ways)))]
        able = []
        for place, way in enumerate(self._ways):
            health = way.lane.health
            if health is None or health.well:
                able.append(place)
            elif self._weights[place] and health.tries():
                return (way, *_ill_last(self._orders[place][1:], tries=False))
        # A turn among those that have a share, where one has; of the others the first.
        sharing = [place for place in able if self._weights[place]]
        if not sharing:
            return _ill_last(self._ways)
        return _ill_last(self._orders[self._next(sharing)])

    def _next(self, places: Sequence[int]) -> int:
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


def _all_well(ways: Sequence[Alternative]) -> bool:
    return all(way.lane.health is None or way.lane.health.well for way in ways)


def _ill_last(ways: tuple[W, ...], *, tries: bool = True) -> tuple[W, ...]:
    """``ways`` with those that are ill at the end.

    Of those before the first that is well, this call ``tries`` one whose rest is over.
    """
    well, ill = list[W](), list[tuple[float, int, W]]()
    for place, way in enumerate(ways):
        health = way.lane.health
        if health is None or health.well or (tries and not well and health.tries()):
            well.append(way)
        else:
            ill.append((health.until, place, way))
    # Of the ill ones the one that is back first.
    ill.sort(key=lambda each: each[:2])
    return (*well, *(way for *_, way in ill))
