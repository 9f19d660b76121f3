"""Typed steps over many rows: nothing lost, nothing twice."""

from headrace.chains.graph import Chain
from headrace.chains.nodes import Apply, Branch, Join, Reduce, Step

__all__ = ["Apply", "Branch", "Chain", "Join", "Reduce", "Step"]
