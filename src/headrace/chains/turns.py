"""How often rows pass through a chain, and what is done in each turn.

One turn is enough for most chains. Lazy engines, of which one runs at a time, take a turn each. And
a step in batches collects what is asked of it in one turn, and has the answers in the next.
"""

from __future__ import annotations

from collections.abc import Container

from attrs import frozen

from headrace.chains.graph import Part
from headrace.chains.nodes import Branch, Group, Node, Path, Step


class NotYet(Exception):
    """The rest of a row is for a later turn."""


@frozen
class Turn:
    """``engine`` is the lazy one that runs in it, and ``collects`` says that batches follow it."""

    engine: str | None = None
    collects: bool = False


def turns_of(chain: Part, lazy: Container[str]) -> tuple[dict[str, int], tuple[Turn, ...]]:
    """The number of the turn in which each node is first done, and the turns.

    Batches beside one another are collected in the same turn, so that nobody waits for both.
    """
    segments, engines = chain.segments(lazy)
    rounds: dict[str, int] = {}
    _number(chain.path, 0, rounds)
    collecting = {
        (segments[node.id], rounds[node.id])
        for node in chain.nodes
        if isinstance(node, Step) and node.mode == "batch"
    }
    turns: list[Turn] = []
    first: dict[str, int] = {}
    for segment, engine in enumerate(engines):
        own = sorted(number for place, number in collecting if place == segment)
        for most in (*own, None):
            for node, number in rounds.items():
                if segments[node] <= segment and (most is None or number <= most):
                    first.setdefault(node, len(turns))
            turns.append(Turn(engine, collects=most is not None))
    return first, tuple(turns)


def _number(path: Path, before: int, rounds: dict[str, int]) -> int:
    """How many batches stand before each node of ``path``, and how many before what follows it."""
    for place in path.places:
        if isinstance(place, Group):
            before = max(_number(each, before, rounds) for each in place.paths)
            continue
        rounds[place.id] = before
        before += _is_batch(place)
        if isinstance(place, Branch):
            ways = [Path.of(each) for each in place.paths.values()]
            before = max((_number(each, before, rounds) for each in ways), default=before)
    return before


def _is_batch(node: Node) -> bool:
    return isinstance(node, Step) and node.mode == "batch"
