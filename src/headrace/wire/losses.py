"""What of a conversation a format has no place for, by the tables that each format keeps.

A codec's ``LOSSES`` names what it cannot carry and why: ``messages.name`` is a field of a turn,
``messages.content.cache`` one of a part, ``tools.cache`` one of a tool, ``answer.logprobs`` one of
an answer, and a bare name is a setting. What the reason calls refused is never sent without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

from headrace.contracts.messages import LLMMessage, ReasoningPart
from headrace.contracts.requests import LLMRequest
from headrace.wire.openai_params import COMMON, Dialect

_OF_TURNS = ("name", "tool_name", "tool_error", "refusal")
_OF_PARTS = ("cache", "detail")
_REASONING = "messages.reasoning"
_PIECES = "messages.reasoning_parts"


def lost(
    request: LLMRequest, losses: Mapping[str, str], dialect: Dialect = COMMON
) -> tuple[str, ...]:
    """What of the conversation in ``request`` is left out by the format whose table this is.

    ``dialect`` is the backend's: some take no reasoning back although their format could hold it.
    """
    found: dict[str, None] = {}
    turns, parts = _looked_for(tuple(losses))
    for message in request.messages:
        for name in turns:
            if getattr(message, name):
                found[f"messages.{name}"] = None
        if message.reasoning or message.reasoning_parts:
            for name in _of_reasoning(message, losses, dialect):
                found[name] = None
        if not isinstance(message.content, str):
            for part in message.content:
                for name in parts:
                    if getattr(part, name, None) is not None:
                        found[f"messages.content.{name}"] = None
    for tool in request.tools:
        for name in ("cache", "strict"):
            if getattr(tool, name) and f"tools.{name}" in losses:
                found[f"tools.{name}"] = None
    return tuple(found)


def _of_reasoning(
    message: LLMMessage, losses: Mapping[str, str], dialect: Dialect
) -> Iterator[str]:
    """What of one turn's reasoning does not go."""
    no_text = dialect.reasoning is None or _REASONING in losses
    for part in message.reasoning_parts:
        if (part.signature or part.encrypted) and _PIECES in losses:
            yield _PIECES
        for name in ("signature", "part_id"):
            if getattr(part, name) and f"{_PIECES}.{name}" in losses:
                yield f"{_PIECES}.{name}"
        if no_text and part.text and not _goes_sealed(part, losses):
            yield _REASONING
    if no_text and message.reasoning and not message.reasoning_parts:
        yield _REASONING


def _goes_sealed(part: ReasoningPart, losses: Mapping[str, str]) -> bool:
    """Whether ``part`` goes with a seal, which takes its text along where text alone does not."""
    if _PIECES in losses or (part.part_id and f"{_PIECES}.part_id" in losses):
        return False
    return bool(part.encrypted or (part.signature and f"{_PIECES}.signature" not in losses))


@lru_cache
def _looked_for(losses: tuple[str, ...]) -> tuple[list[str], list[str]]:
    return (
        [name for name in _OF_TURNS if f"messages.{name}" in losses],
        [name for name in _OF_PARTS if f"messages.content.{name}" in losses],
    )
