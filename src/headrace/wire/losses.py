"""What of a conversation a format has no place for, by the tables that each format keeps.

A codec's ``LOSSES`` names what it cannot carry and why: ``messages.name`` is a field of a turn,
``messages.content.cache`` one of a part, ``tools.cache`` one of a tool, ``answer.logprobs`` one of
an answer, and a bare name is a setting. A reason that begins with ``refused`` says that a request is
not sent without it, one that begins with ``left out`` that it is, and that the answer says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, TypeAlias

from headrace.contracts.messages import LLMMessage, ReasoningPart
from headrace.contracts.requests import LLMRequest
from headrace.wire.openai_params import COMMON, Dialect

_OF_TURNS = ("name", "tool_name", "tool_error", "refusal")
_OF_PARTS = ("cache", "detail", "filename")
_REASONING = "messages.reasoning"
_PIECES = "messages.reasoning_parts"
_LATER = "messages.role.later"

_LEFT_OUT = "left out"
_UNSET: tuple[object, ...] = (None, (), [], {})

Done: TypeAlias = Literal["refused", "left out, and named", "said otherwise", "not told"]


def what_is_done(key: str, reason: str) -> Done:
    """What becomes of a request, or of its answer, that has what a table names ``key`` in it."""
    if key.startswith("answer."):
        return "not told"
    if reason.startswith("refused"):
        return "refused"
    if reason.startswith(_LEFT_OUT):
        return "left out, and named"
    of = key.removeprefix("messages.")
    is_named = (
        of in _OF_TURNS
        or of.removeprefix("content.") in _OF_PARTS
        or key.startswith((_REASONING, _PIECES))
        or key in ("tools.cache", "tools.strict", _LATER)
    )
    return "left out, and named" if is_named else "said otherwise"


def lost(
    request: LLMRequest,
    losses: Mapping[str, str],
    dialect: Dialect = COMMON,
    own_seals: str | None = None,
) -> tuple[str, ...]:
    """What of the conversation in ``request`` is left out by the format whose table this is.

    ``dialect`` is the backend's: some take no reasoning back although their format could hold it.
    Pieces of reasoning whose ``part_id`` begins with ``own_seals`` are the format's own, and go.
    """
    found: dict[str, None] = {}
    turns, parts, settings = _looked_for(losses)
    for name in settings:
        if getattr(request, name) not in _UNSET:
            found[name] = None
    for message in request.messages:
        for name in turns:
            if getattr(message, name):
                found[f"messages.{name}"] = None
        if message.reasoning or message.reasoning_parts:
            for name in _of_reasoning(message, losses, dialect, own_seals):
                found[name] = None
        for name in _of_content(message, parts):
            found[name] = None
    if _LATER in losses and _has_later_system(request):
        found[_LATER] = None
    for tool in request.tools:
        for name in ("cache", "strict"):
            if getattr(tool, name) and f"tools.{name}" in losses:
                found[f"tools.{name}"] = None
    return tuple(found)


def _of_content(message: LLMMessage, names: list[str]) -> Iterator[str]:
    """What of one turn's parts does not go."""
    if not isinstance(message.content, str):
        for part in message.content:
            for name in names:
                if getattr(part, name, None) is not None:
                    yield f"messages.content.{name}"


def _has_later_system(request: LLMRequest) -> bool:
    """Whether a system turn comes behind one that is none."""
    roles = [message.role for message in request.messages]
    opening = next((i for i, role in enumerate(roles) if role != "system"), len(roles))
    return "system" in roles[opening:]


def _of_reasoning(
    message: LLMMessage, losses: Mapping[str, str], dialect: Dialect, own_seals: str | None
) -> Iterator[str]:
    """What of one turn's reasoning does not go."""
    no_text = dialect.reasoning is None or _REASONING in losses
    for part in message.reasoning_parts:
        if own_seals is not None and (part.part_id or "").startswith(own_seals):
            continue
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


_Names: TypeAlias = tuple[list[str], list[str], list[str]]
_found: dict[int, tuple[Mapping[str, str], _Names]] = {}


def _looked_for(losses: Mapping[str, str]) -> _Names:
    """What has to be looked at in a request for a format with this table, which nobody changes."""
    known = _found.get(id(losses))
    if known is not None and known[0] is losses:
        return known[1]
    names = (
        [name for name in _OF_TURNS if f"messages.{name}" in losses],
        [name for name in _OF_PARTS if f"messages.content.{name}" in losses],
        [
            name
            for name, reason in losses.items()
            if reason.startswith(_LEFT_OUT) and "." not in name
        ],
    )
    _found[id(losses)] = losses, names
    return names
