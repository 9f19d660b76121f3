"""The response object: what stands around its output, its items, its usage.

Most of the object repeats the request, and the specification requires all of it, so a field that
the request left out is here at the value that holds then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from headrace.contracts.errors import LLMError
from headrace.contracts.messages import ReasoningPart, ToolCall
from headrace.contracts.responses import FinishReason, LLMResponse, TokenLogprob, TopLogprob, Usage
from headrace.wire.openai_errors import error_to_wire
from headrace.wire.openai_responses_items import reasoning_item
from headrace.wire.openai_responses_parts import output_text

ASKED: Mapping[str, Any] = {
    "previous_response_id": None,
    "instructions": None,
    "tools": [],
    "tool_choice": "auto",
    "truncation": "disabled",
    "parallel_tool_calls": True,
    "text": {"format": {"type": "text"}},
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_logprobs": 0,
    "temperature": 1.0,
    "reasoning": {"effort": None, "summary": None},
    "max_output_tokens": None,
    "max_tool_calls": None,
    "store": True,
    "background": False,
    "service_tier": "default",
    "metadata": {},
    "safety_identifier": None,
    "prompt_cache_key": None,
    "user": None,
}
"""What a response repeats of its request, as it is where the request does not say."""

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def envelope(
    *, response_id: str, model: str, created: int, asked: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A response that has just begun; ``created`` is in Unix seconds."""
    return {
        "id": response_id,
        "object": "response",
        "created_at": created,
        "completed_at": None,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": [],
        "usage": None,
        **ASKED,
        **(asked or {}),
    }


def ended(
    begun: Mapping[str, Any],
    reason: FinishReason | str | None,
    output: list[dict[str, Any]],
    usage: Usage | dict[str, int] | None,
    completed_at: int | None,
) -> dict[str, Any]:
    """``begun`` with its ``output``, in the state that ``reason`` means."""
    wire = {**begun, "status": status_of(reason), "output": output, "usage": usage_to_wire(usage)}
    if reason in _INCOMPLETE:
        wire["incomplete_details"] = {"reason": _INCOMPLETE[str(reason)]}
    elif reason == "error":
        wire["error"] = {"code": "server_error", "message": "The model broke off with an error."}
    if wire["status"] == "completed":
        wire["completed_at"] = begun["created_at"] if completed_at is None else completed_at
    return wire


def failed(
    begun: Mapping[str, Any], error: LLMError, output: list[dict[str, Any]]
) -> dict[str, Any]:
    """``begun`` as it is when ``error`` has ended it."""
    told: Any = error_to_wire(error)["error"]
    described = {"code": told["code"] or told["type"], "message": told["message"]}
    return {**begun, "status": "failed", "error": described, "output": output}


def status_of(reason: FinishReason | str | None) -> str:
    """The status of a response that ended for ``reason``."""
    if reason in _INCOMPLETE:
        return "incomplete"
    return {"error": "failed", "cancelled": "cancelled"}.get(str(reason), "completed")


def output_of(response: LLMResponse, base: str, status: str) -> list[dict[str, Any]]:
    """The items of ``response``; ``base`` makes their ids, ``status`` is that of the last one."""
    parts = response.reasoning_parts
    if not parts and response.reasoning:
        parts = (ReasoningPart(text=response.reasoning),)
    items = [written(part, part.part_id or f"rs_{base}_{i}") for i, part in enumerate(parts)]
    said = response.text or response.refusal is not None or response.logprobs
    if said or not (items or response.tool_calls):
        content: list[dict[str, Any]] = []
        if response.text or response.refusal is None:
            told = logprobs_to_wire(response.logprobs or ())
            content.append(output_text(response.text, told))
        if response.refusal is not None:
            content.append({"type": "refusal", "refusal": response.refusal})
        items.append(message(f"msg_{base}_{len(items)}", status, content))
    for call in response.tool_calls:
        items.append(function_call(f"fc_{base}_{len(items)}", call, status))
    return items


def written(part: ReasoningPart, item_id: str) -> dict[str, Any]:
    """A piece of reasoning as an item of the output."""
    return {**reasoning_item(part, item_id), "id": item_id}


def message(item_id: str, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    """What the model said, as an item of the output."""
    return {
        "type": "message",
        "id": item_id,
        "status": _of_item(status),
        "role": "assistant",
        "content": content,
    }


def function_call(item_id: str, call: ToolCall, status: str) -> dict[str, Any]:
    """A call as an item of the output."""
    return {
        "type": "function_call",
        "id": item_id,
        "call_id": call.call_id,
        "name": call.name,
        "arguments": call.arguments_json,
        "status": _of_item(status),
    }


def logprobs_to_wire(logprobs: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
    """The tokens of a text; their bytes are required here."""
    return [
        {**_token_to_wire(each), "top_logprobs": [_token_to_wire(top) for top in each.top]}
        for each in logprobs
    ]


def usage_to_wire(usage: Usage | dict[str, int] | None) -> dict[str, Any] | None:
    """``usage`` as a response has it: all of it or nothing, and 0 for a part that nobody counted."""
    if isinstance(usage, dict):
        usage = Usage(
            prompt_tokens=usage.get("prompt_tokens"),
            completion_tokens=usage.get("completion_tokens"),
            total_tokens=usage.get("total_tokens"),
        )
    if usage is None or usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    total = usage.total_tokens
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.input_cache_read_tokens or 0,
            "cache_write_tokens": usage.input_cache_write_tokens or 0,
        },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.output_reasoning_tokens or 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens if total is None else total,
    }


def _of_item(status: str) -> str:
    return status if status in ("in_progress", "completed") else "incomplete"


def _token_to_wire(token: TokenLogprob | TopLogprob) -> dict[str, Any]:
    raw = token.token.encode() if token.token_bytes is None else token.token_bytes
    return {"token": token.token, "logprob": token.logprob, "bytes": list(raw)}
