"""What Anthropic's messages answer: the whole answer, its usage and its reasons to stop, both ways.

``input_tokens`` leaves out what the cache served or took in; our ``prompt_tokens`` is the sum.
"""

from __future__ import annotations

from typing import Any

from msgspec import DecodeError, Struct, json

from headrace.contracts.errors import LLMBadResponseError
from headrace.contracts.messages import ReasoningPart, ToolCall
from headrace.contracts.responses import FinishReason, LLMDelta, LLMResponse, Usage
from headrace.wire.anthropic_errors import error_from_wire
from headrace.wire.anthropic_messages import (
    arguments_from_wire,
    call_to_wire,
    reasoning_of,
    reasoning_to_wire,
)
from headrace.wire.assemble import whole
from headrace.wire.json import bad_reply, decode_reply, encode


class OutputDetails(Struct, gc=False):
    """What the answer's tokens were."""

    thinking_tokens: int | None = None


class UsageWire(Struct, gc=False):
    """Token counts; in a stream's later events those that did not change may be left out."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens_details: OutputDetails | None = None


class MessageWire(Struct, gc=False):
    """A whole answer, or the beginning of a streamed one."""

    id: str | None = None
    type: str | None = None
    model: str | None = None
    content: list[dict[str, Any]] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: UsageWire | None = None
    error: Any = None


_decode = json.Decoder(MessageWire).decode

_FINISH_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_STOP_REASONS = {"length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
_OTHER_STOP_REASONS = ("pause_turn", "model_context_window_exceeded")


def finish_reason_from_wire(wire: str | None) -> FinishReason | None:
    """The normal word for Anthropic's."""
    return None if wire is None else _FINISH_REASONS.get(wire, "other")


def stop_reason_to_wire(
    finish_reason: str | None, raw: str | None, stop_sequence: str | None
) -> str:
    """Anthropic's word for a reason to stop; ``raw`` is the backend's own."""
    if raw in _OTHER_STOP_REASONS:
        return str(raw)
    if finish_reason in (None, "stop") and stop_sequence is not None:
        return "stop_sequence"
    return _STOP_REASONS.get(finish_reason or "", "end_turn")


def usage_from_wire(wire: UsageWire | None) -> Usage | None:
    """The token counts of an answer."""
    if wire is None:
        return None
    read, wrote = wire.cache_read_input_tokens, wire.cache_creation_input_tokens
    details = wire.output_tokens_details
    thought = None if details is None else details.thinking_tokens
    prompt = None
    if wire.input_tokens is not None:
        prompt = wire.input_tokens + (read or 0) + (wrote or 0)
    completion = wire.output_tokens
    told_apart = read is not None or wrote is not None
    text = None if completion is None or thought is None else max(0, completion - thought)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=None if prompt is None or completion is None else prompt + completion,
        input_uncached_tokens=wire.input_tokens if told_apart else None,
        input_cache_read_tokens=read,
        input_cache_write_tokens=wrote,
        output_text_tokens=text,
        output_reasoning_tokens=thought,
    )


def usage_to_wire(usage: Usage | dict[str, int] | None) -> dict[str, Any]:
    """``usage`` as an answer has it, which always has some: an unknown count is a zero there."""
    if not isinstance(usage, Usage):
        usage = Usage(**{name: count for name, count in (usage or {}).items() if name in _COUNTS})
    read, wrote = usage.input_cache_read_tokens, usage.input_cache_write_tokens
    fresh = usage.input_uncached_tokens
    if fresh is None:
        fresh = max(0, (usage.prompt_tokens or 0) - (read or 0) - (wrote or 0))
    wire: dict[str, Any] = {"input_tokens": fresh, "output_tokens": usage.completion_tokens or 0}
    if wrote is not None:
        wire["cache_creation_input_tokens"] = wrote
    if read is not None:
        wire["cache_read_input_tokens"] = read
    if usage.output_reasoning_tokens is not None:
        wire["output_tokens_details"] = {"thinking_tokens": usage.output_reasoning_tokens}
    return wire


_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")


def read_response(body: bytes, *, keep_raw: bool = False, keep: object = ()) -> LLMResponse:
    """A whole answer; ``keep_raw`` keeps the payload as ``raw``.

    Blocks of tools that Anthropic ran itself are passed over: what they found stands in the text.
    """
    try:
        answer = _decode(body)
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_reply(body, error) from error
    if answer.type == "error" or answer.error:
        raise error_from_wire(None, decode_reply(body))
    if answer.content is None:
        raise LLMBadResponseError("The backend's answer has no content.")
    said: list[str] = []
    thoughts: list[ReasoningPart] = []
    calls: list[ToolCall] = []
    for block in answer.content:
        match block:
            case {"type": "text", "text": str(text)}:
                said.append(text)
            case {"type": "thinking", "thinking": str(text)}:
                seal = block.get("signature")
                thoughts.append(ReasoningPart(text=text, signature=seal or None))
            case {"type": "redacted_thinking", "data": str(data)}:
                thoughts.append(ReasoningPart(encrypted=data))
            case {"type": "tool_use", "id": str(call_id), "name": str(name)}:
                given = block.get("input")
                arguments = arguments_from_wire(given if isinstance(given, dict) else {})
                calls.append(ToolCall(name=name, arguments_json=arguments, call_id=call_id))
    reasoning, parts = reasoning_of(thoughts)
    return LLMResponse(
        text="".join(said),
        model=answer.model,
        finish_reason=finish_reason_from_wire(answer.stop_reason),
        usage=usage_from_wire(answer.usage),
        tool_calls=tuple(calls),
        raw=decode_reply(body) if keep_raw else None,
        raw_finish_reason=answer.stop_reason,
        reasoning=reasoning,
        response_id=answer.id,
        reasoning_parts=parts,
        stop_sequence=answer.stop_sequence,
    )


def read_whole(body: bytes, *, keep: object = ()) -> list[LLMDelta]:
    """A whole answer in as few deltas as can hold it, for those who only put them together."""
    return whole(read_response(body, keep=keep))


def write_response(
    response: LLMResponse,
    *,
    response_id: str | None = None,
    model: str | None = None,
    created: int | None = None,
    system_fingerprint: str | None = None,
) -> bytes:
    """``response`` as a body; what is handed in replaces what the response itself says."""
    content: list[dict[str, object]] = []
    if response.reasoning_parts:
        content += reasoning_to_wire(response.reasoning_parts)
    elif response.reasoning:
        content.append({"type": "thinking", "thinking": response.reasoning, "signature": ""})
    said = response.text or response.refusal
    if said:
        content.append({"type": "text", "text": said})
    content += [call_to_wire(call) for call in response.tool_calls]
    return encode(
        {
            **opening(response_id or response.response_id or "", model or response.model or ""),
            "content": content,
            "stop_reason": stop_reason_to_wire(
                response.finish_reason, response.raw_finish_reason, response.stop_sequence
            ),
            "stop_sequence": response.stop_sequence,
            "usage": usage_to_wire(response.usage),
        }
    )


def opening(response_id: str, model: str) -> dict[str, object]:
    """What every answer begins with."""
    return {"id": response_id, "type": "message", "role": "assistant", "model": model}
