"""Callers' names as parts of a path at a provider."""

from __future__ import annotations

from urllib.parse import quote

from headrace.contracts.errors import LLMInvalidRequestError


def segment(name: str, param: str = "model") -> str:
    """``name`` as one part of a path.

    Raises LLMInvalidRequestError for one that would lead to another place: what says "here" or
    "above" in a path says so however it is quoted.
    """
    if name in (".", ".."):
        raise LLMInvalidRequestError(
            f"{param} is {name!r}, which is no name: it would stand in an address", param=param
        )
    return quote(name, safe="")
