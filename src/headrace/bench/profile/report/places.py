"""Where labels of a chart stand, so that none covers another."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import evolve, frozen

_HIGH = 13.0
_WIDE = 260.0


@frozen
class Label:
    """Words at a place of a chart."""

    x: float
    y: float
    said: str


def spread_labels(labels: Iterable[Label]) -> list[Label]:
    """The same, moved down where one would stand on another."""
    placed: list[Label] = []
    for label in sorted(labels, key=lambda each: each.y):
        y = label.y
        for other in placed:
            if abs(other.x - label.x) < _WIDE and y - other.y < _HIGH:
                y = other.y + _HIGH
        placed.append(evolve(label, y=y))
    return placed
