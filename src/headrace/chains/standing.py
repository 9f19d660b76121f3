"""How far a run is."""

from __future__ import annotations

from attrs import define


@define
class Standing:
    """What was done: ``made`` are answers and function results, ``reused`` those of before,
    ``cached`` answers of other runs."""

    rows: int = 0
    results: int = 0
    failed: int = 0
    made: int = 0
    reused: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
