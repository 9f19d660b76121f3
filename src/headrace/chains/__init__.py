"""Typed steps over many rows: nothing lost, nothing twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.chains.graph import Chain
from headrace.chains.nodes import Apply, Branch, Join, Reduce, Step

if TYPE_CHECKING:
    from headrace.chains.calling import Result, arun, run, run_iter
    from headrace.chains.running import RunSettings

__all__ = [
    "Apply",
    "Branch",
    "Chain",
    "Join",
    "Reduce",
    "Result",
    "RunSettings",
    "Step",
    "arun",
    "run",
    "run_iter",
]


def __getattr__(name: str) -> object:
    # Who only writes a chain needs no client.
    if name in ("Result", "arun", "run", "run_iter"):
        from headrace.chains import calling

        return getattr(calling, name)
    if name == "RunSettings":
        from headrace.chains.running import RunSettings

        return RunSettings
    raise AttributeError(f"module 'headrace.chains' has no attribute {name!r}")
