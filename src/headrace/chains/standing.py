"""How far a run is."""

from __future__ import annotations

from attrs import Factory, define, frozen


@frozen(kw_only=True)
class BatchStanding:
    """A batch that is under way, as its provider tells of it."""

    step: str
    provider: str
    id: str
    phase: str
    total: int
    done: int
    failed: int


@define
class NodeStanding:
    """What came to one node: ``done`` are all that it is through with, ``reused`` those of them that
    were done before, ``failed`` those that it could make nothing of."""

    done: int = 0
    reused: int = 0
    failed: int = 0


@define
class Standing:
    """What was done: ``made`` are answers and function results, ``reused`` those of before,
    ``cached`` answers of other runs.

    ``groups`` are those that came of a Reduce and went through what stands behind it. ``nodes`` tells
    of each node that something came to, ``batches`` are those that are under way, by their ids.
    """

    rows: int = 0
    results: int = 0
    failed: int = 0
    made: int = 0
    reused: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    groups: int = 0
    nodes: dict[str, NodeStanding] = Factory(dict)
    batches: dict[str, BatchStanding] = Factory(dict)

    def of(self, node: str) -> NodeStanding:
        """How the node of that id stands."""
        found = self.nodes.get(node)
        if found is None:
            found = self.nodes[node] = NodeStanding()
        return found
