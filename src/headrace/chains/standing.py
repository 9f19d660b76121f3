"""How far a run is."""

from __future__ import annotations

from attrs import define, field, frozen


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
class Standing:
    """What was done: ``made`` are answers and function results, ``reused`` those of before.

    ``batches`` are those that are under way, by their ids.
    """

    rows: int = 0
    results: int = 0
    failed: int = 0
    made: int = 0
    reused: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    batches: dict[str, BatchStanding] = field(factory=dict)
