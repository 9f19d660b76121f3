"""What of a conversation a format has no place for, by the tables that each format keeps.

A codec's ``LOSSES`` names what it cannot carry and why: ``messages.name`` is a field of a turn,
``messages.content.cache`` one of a part, ``tools.cache`` one of a tool, ``answer.logprobs`` one of
an answer, and a bare name is a setting. What the reason calls refused is never sent without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from headrace.contracts.requests import LLMRequest

_OF_TURNS = ("name", "tool_name", "tool_error", "refusal", "reasoning", "reasoning_parts")
_OF_PARTS = ("cache", "detail")


def lost(request: LLMRequest, losses: Mapping[str, str]) -> tuple[str, ...]:
    """What of the conversation in ``request`` is left out by the format whose table this is."""
    found: dict[str, None] = {}
    turns, parts = _looked_for(tuple(losses))
    for message in request.messages:
        for name in turns:
            if not getattr(message, name):
                continue
            # The same reasoning in pieces goes where its text alone does not.
            if name != "reasoning" or not message.reasoning_parts:
                found[f"messages.{name}"] = None
        if not isinstance(message.content, str):
            for part in message.content:
                for name in parts:
                    if getattr(part, name, None) is not None:
                        found[f"messages.content.{name}"] = None
    if (
        request.tools
        and "tools.cache" in losses
        and any(tool.cache is not None for tool in request.tools)
    ):
        found["tools.cache"] = None
    return tuple(found)


@lru_cache
def _looked_for(losses: tuple[str, ...]) -> tuple[list[str], list[str]]:
    return (
        [name for name in _OF_TURNS if f"messages.{name}" in losses],
        [name for name in _OF_PARTS if f"messages.content.{name}" in losses],
    )
