"""Where labels of a chart stand, so that none covers another."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import evolve, frozen

_HIGH = 13.0
_LETTER = 6.3


@frozen
class Label:
    """Words that begin at a place of a chart, or end there."""

    x: float
    y: float
    said: str
    anchor: str = "start"

    @property
    def reach(self) -> tuple[float, float]:
        """From where to where they go, about."""
        long = len(self.said) * _LETTER
        return (self.x, self.x + long) if self.anchor == "start" else (self.x - long, self.x)


def spread_labels(labels: Iterable[Label]) -> list[Label]:
    """The same, each moved down where it would stand on an earlier one."""
    placed: list[Label] = []
    for label in labels:
        y = label.y
        left, right = label.reach
        beside = [o for o in placed if o.reach[0] < right and left < o.reach[1]]
        for other in sorted(beside, key=lambda each: each.y):
            if abs(y - other.y) < _HIGH:
                y = other.y + _HIGH
        placed.append(evolve(label, y=y))
    return placed
