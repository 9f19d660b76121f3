"""What comes out of a chain, as far as its nodes tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.chains.graph import Chain
from headrace.chains.nodes import Apply, Step, schema_of


def schema_of_results(chain: Chain) -> Mapping[str, Any] | None:
    """The JSON Schema of each result; None where that is not known."""
    last = chain.path.places[-1]
    if isinstance(last, Step):
        return {"type": "string"} if last.output is None else schema_of(last.output)
    if isinstance(last, Apply) and last.how != "filter" and last.output is not None:
        return schema_of(last.output)
    return None
