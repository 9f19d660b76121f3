"""What Gemini answers: candidates, their parts and reasons to stop, token counts, both ways.

https://ai.google.dev/api/generate-content#generatecontentresponse. ``candidatesTokenCount`` leaves
out what was thought; our ``completion_tokens`` is the sum. ``promptTokenCount`` includes what a
cache served.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from headrace.contracts.messages import ReasoningPart
from headrace.contracts.responses import (
    FinishReason,
    LLMChoice,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from headrace.wire.gemini_contents import call_to_wire
from headrace.wire.gemini_seals import TEXT_SEAL, call_seal, own_seals, packed_seal


class UsageWire(Struct, gc=False):
    """Token counts; each chunk of a stream has the totals so far."""

    promptTokenCount: int | None = None
    candidatesTokenCount: int | None = None
    totalTokenCount: int | None = None
    cachedContentTokenCount: int | None = None
    thoughtsTokenCount: int | None = None
    toolUsePromptTokenCount: int | None = None


class ContentWire(Struct, gc=False):
    """What one candidate says."""

    parts: list[dict[str, Any]] | None = None


class TokenWire(Struct, gc=False):
    """A token; what is zero is left out."""

    token: str = ""
    logProbability: float = 0.0


class TopWire(Struct, gc=False):
    """The likeliest tokens at one place."""

    candidates: list[TokenWire] | None = None


class LogprobsWire(Struct, gc=False):
    """The tokens that were chosen, and beside them those that were likely."""

    chosenCandidates: list[TokenWire] | None = None
    topCandidates: list[TopWire] | None = None


class CandidateWire(Struct, gc=False):
    """One of several answers, or a piece of one."""

    content: ContentWire | None = None
    finishReason: str | None = None
    finishMessage: str | None = None
    index: int | None = None
    logprobsResult: LogprobsWire | None = None


class ResponseWire(Struct, gc=False):
    """A whole answer, or one chunk of a stream."""

    candidates: list[CandidateWire] | None = None
    promptFeedback: dict[str, Any] | None = None
    usageMetadata: UsageWire | None = None
    modelVersion: str | None = None
    responseId: str | None = None
    error: Any = None


_FINISH_REASONS: dict[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "MALFORMED_FUNCTION_CALL": "error",
    "MALFORMED_RESPONSE": "error",
    "MISSING_THOUGHT_SIGNATURE": "error",
}
_OTHERS = ("LANGUAGE", "OTHER", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "NO_IMAGE")
_WORDS = {
    "length": "MAX_TOKENS",
    "content_filter": "SAFETY",
    "error": "OTHER",
    "cancelled": "OTHER",
    "other": "OTHER",
}


def finish_reason_from_wire(wire: str, *, called: bool) -> FinishReason:
    """The normal word for Gemini's; it has none of its own for an answer that is calls."""
    reason = _FINISH_REASONS.get(wire, "other")
    return "tool_calls" if called and reason == "stop" else reason


def finish_reason_to_wire(reason: str | None, raw: str | None) -> str:
    """Gemini's word for a reason to stop; ``raw`` is the backend's own."""
    if raw in _FINISH_REASONS or raw in _OTHERS:
        return str(raw)
    return _WORDS.get(reason or "", "STOP")


def usage_from_wire(wire: UsageWire | None) -> Usage | None:
    """The token counts of an answer."""
    if wire is None:
        return None
    prompt, thought, read = (
        wire.promptTokenCount,
        wire.thoughtsTokenCount,
        wire.cachedContentTokenCount,
    )
    if prompt is not None and wire.toolUsePromptTokenCount:
        prompt += wire.toolUsePromptTokenCount
    text = wire.candidatesTokenCount
    completion = None if text is None and thought is None else (text or 0) + (thought or 0)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=wire.totalTokenCount,
        input_uncached_tokens=None if read is None or prompt is None else max(0, prompt - read),
        input_cache_read_tokens=read,
        output_text_tokens=None if thought is None else text or 0,
        output_reasoning_tokens=thought,
    )


def usage_to_wire(usage: Usage | dict[str, int] | None) -> dict[str, int]:
    """``usage`` as an answer has it."""
    if not isinstance(usage, Usage):
        usage = Usage(**{name: count for name, count in (usage or {}).items() if name in _COUNTS})
    prompt, completion, thought = (
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.output_reasoning_tokens,
    )
    total = usage.total_tokens
    if total is None and prompt is not None and completion is not None:
        total = prompt + completion
    text = None if completion is None else max(0, completion - (thought or 0))
    counts = {
        "promptTokenCount": prompt,
        "candidatesTokenCount": text,
        "totalTokenCount": total,
        "cachedContentTokenCount": usage.input_cache_read_tokens,
        "thoughtsTokenCount": thought,
    }
    return {name: count for name, count in counts.items() if count is not None}


_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")


def logprobs_from_wire(wire: LogprobsWire | None) -> tuple[TokenLogprob, ...] | None:
    """The log probabilities of an answer's tokens."""
    if wire is None or not wire.chosenCandidates:
        return None
    tops = wire.topCandidates or []
    return tuple(
        TokenLogprob(
            token=each.token,
            logprob=each.logProbability,
            top=tuple(
                TopLogprob(token=one.token, logprob=one.logProbability)
                for one in (tops[place].candidates if place < len(tops) else None) or ()
            ),
        )
        for place, each in enumerate(wire.chosenCandidates)
    )


def logprobs_to_wire(logprobs: Sequence[TokenLogprob]) -> dict[str, object]:
    """``logprobs`` as a candidate has them."""
    wire: dict[str, object] = {
        "chosenCandidates": [
            {"token": each.token, "logProbability": each.logprob} for each in logprobs
        ]
    }
    if any(each.top for each in logprobs):
        wire["topCandidates"] = [
            {"candidates": [{"token": t.token, "logProbability": t.logprob} for t in each.top]}
            for each in logprobs
        ]
    return wire


def thought_to_wire(part: ReasoningPart) -> dict[str, object] | None:
    """A piece of reasoning as a part; ``None`` for a signature whose place is another part."""
    if part.part_id is not None and own_seals((part,)):
        return None
    wire: dict[str, object] = {"text": part.text, "thought": True}
    seal = packed_seal(part)
    if seal is not None:
        wire["thoughtSignature"] = seal
    return wire


def parts_of(choice: LLMChoice) -> list[dict[str, object]]:
    """What ``choice`` says: thoughts, text, calls."""
    pieces: Iterable[ReasoningPart] = choice.reasoning_parts
    if not choice.reasoning_parts and choice.reasoning:
        pieces = (ReasoningPart(text=choice.reasoning),)
    parts = [wire for wire in map(thought_to_wire, pieces) if wire is not None]
    seals = own_seals(choice.reasoning_parts)
    said = choice.text + (choice.refusal or "")
    if said:
        parts.append({"text": said})
    if TEXT_SEAL in seals:
        parts.append({"text": "", "thoughtSignature": seals[TEXT_SEAL]})
    for number, call in enumerate(choice.tool_calls):
        part: dict[str, object] = {"functionCall": call_to_wire(call)}
        if call_seal(number) in seals:
            part["thoughtSignature"] = seals[call_seal(number)]
        parts.append(part)
    # A candidate without parts is none to Google's own clients.
    return parts or [{"text": ""}]


def candidate(index: int, parts: Sequence[dict[str, object]]) -> dict[str, object]:
    """A candidate that says ``parts``."""
    return {"content": {"parts": parts, "role": "model"}, "index": index}
