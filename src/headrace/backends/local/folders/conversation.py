"""A request's prompt in the words of chat templates, as transformers has made them usual."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.backends.local.folders.frames import Conversation, Prompt, Text, Tokens
from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMCapabilityError,
    LLMInvalidRequestError,
)
from headrace.contracts.messages import LLMMessage, TextPart, ToolCall, ToolSpec
from headrace.contracts.requests import LLMRequest
from headrace.wire import json as wire_json

_VARIABLES = "chat_template_kwargs"


def prompt_of(request: LLMRequest, *, reasons: bool = False) -> Prompt:
    """The prompt of ``request`` to a model that ``reasons``, or does not.

    Raises LLMInvalidRequestError or LLMCapabilityError that names what no template has a place for.
    """
    if isinstance(request.prompt, str):
        return Text(request.prompt)
    if request.prompt is not None:
        return Tokens(list(request.prompt))
    tools = () if request.tool_choice == "none" else request.tools
    return Conversation(
        [_message(message, f"messages[{i}]") for i, message in enumerate(request.messages)],
        [_tool(tool) for tool in tools] or None,
        {**_effort(request, reasons), **_variables(request)},
        _continues(request.messages),
    )


def _continues(messages: Sequence[LLMMessage]) -> bool:
    """Whether the conversation ends with the beginning of the answer that is asked for."""
    if not messages:
        return False
    last = messages[-1]
    return last.role == "assistant" and bool(last.content) and not last.tool_calls


def _effort(request: LLMRequest, reasons: bool) -> dict[str, Any]:
    """How much it shall reason, in the variables that templates have for it."""
    effort = request.reasoning_effort
    if effort is None or (effort == "none" and not reasons):
        return {}
    if not reasons:
        raise LLMCapabilityError(
            f"reasoning_effort is {effort!r}, and this model's chat template knows no reasoning; leave "
            "it out, or ask another model",
            param="reasoning_effort",
        )
    return {"enable_thinking": effort != "none", "reasoning_effort": effort}


def _variables(request: LLMRequest) -> dict[str, Any]:
    said = request.provider_options.get(_VARIABLES)
    if said is None:
        return {}
    if not isinstance(said, dict) or not all(isinstance(name, str) for name in said):
        raise LLMInvalidRequestError(
            f"{_VARIABLES} is {said!r}, must be an object of the chat template's variables",
            param=_VARIABLES,
        )
    return dict(said)


def _message(message: LLMMessage, path: str) -> dict[str, Any]:
    said: dict[str, Any] = {"role": message.role, "content": _text(message, path)}
    if message.name is not None:
        said["name"] = message.name
    if message.tool_calls:
        said["tool_calls"] = [
            _call(call, f"{path}.tool_calls[{i}]") for i, call in enumerate(message.tool_calls)
        ]
    if message.tool_call_id is not None:
        said["tool_call_id"] = message.tool_call_id
    if message.tool_name is not None:
        said["name"] = message.tool_name
    if message.reasoning is not None:
        said["reasoning_content"] = message.reasoning
    return said


def _text(message: LLMMessage, path: str) -> str:
    if isinstance(message.content, str):
        return message.content
    other = next((part for part in message.content if not isinstance(part, TextPart)), None)
    if other is not None:
        kind = type(other).__name__.removesuffix("Part").lower()
        raise LLMCapabilityError(
            f"{path} has a part of the kind {kind!r}, and this model "
            "is asked in text alone; leave it out, or ask another model",
            param="messages",
        )
    return "".join(part.text for part in message.content if isinstance(part, TextPart))


def _call(call: ToolCall, path: str) -> dict[str, Any]:
    try:
        arguments = wire_json.decode_reply(call.arguments_json.encode() or b"{}")
    except LLMBadResponseError as wrong:
        raise LLMInvalidRequestError(
            f"{path}.function.arguments is no JSON: {wrong.message}", param="messages"
        ) from wrong
    function = {"name": call.name, "arguments": arguments}
    return {"id": call.call_id, "type": "function", "function": function}


def _tool(tool: ToolSpec) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.input_schema,
    }
    return {"type": "function", "function": function}
