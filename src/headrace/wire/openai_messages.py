"""Messages in OpenAI's words, both ways.

OpenAI has no field for ``tool_error``: what the tool said must tell. A tool turn's ``name`` is our
``tool_name``. Fields of a message that we do not know are let pass, since callers send back whole
answers of other servers; what the old function form said is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.messages import ContentPart, LLMMessage, LLMRole, ToolCall
from headrace.wire.openai_fields import (
    array,
    boolean,
    filled_text,
    mapping,
    member,
    optional,
    refuse,
    refuse_absence,
    refuse_type,
    says,
    text,
)
from headrace.wire.openai_parts import content_from_wire, content_to_wire

_ROLES: dict[str, LLMRole] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_RIGHT_ROLE = "one of 'system', 'developer', 'user', 'assistant', 'tool'"
_ANY_PART = ("text", "image_url", "input_audio", "file")
_PARTS: dict[LLMRole, tuple[str, ...]] = {
    "system": ("text",),
    "user": _ANY_PART,
    "assistant": ("text",),
    "tool": _ANY_PART,
}


@says({"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Message"}})
def messages_from_wire(wire: Any, path: str = "messages") -> tuple[LLMMessage, ...]:
    """The ``messages`` of a request."""
    if not array(wire, path):
        refuse(path, wire, "an array of at least one message")
    messages = tuple(message_from_wire(message, f"{path}[{i}]") for i, message in enumerate(wire))
    for i, message in enumerate(wire):
        # Mistral's mark of a turn to go on with; here the last turn is, where it is the assistant's.
        is_marked = optional(message, "prefix", f"{path}[{i}]", boolean)
        if is_marked and (i < len(wire) - 1 or messages[i].role != "assistant"):
            refuse(f"{path}[{i}].prefix", True, "it at a last turn of the assistant's alone")
    return messages


def messages_to_wire(
    messages: Iterable[LLMMessage], reasoning: str | None, *, marks_prefix: bool = False
) -> list[dict[str, object]]:
    """``messages`` as a request has them; ``reasoning`` is the field for an earlier turn's.

    With ``marks_prefix`` a last turn of the assistant's is marked as one to go on with.
    """
    wire = [message_to_wire(message, reasoning) for message in messages]
    last = wire[-1] if wire and marks_prefix else {}
    if last.get("role") == "assistant" and last["content"] and "tool_calls" not in last:
        last["prefix"] = True
    return wire


def message_from_wire(wire: Any, path: str) -> LLMMessage:
    """One message."""
    word = member(mapping(wire, path), "role", path, text, _RIGHT_ROLE)
    role = _ROLES.get(word)
    if role is None:
        if word == "function":
            _refuse_old(f"{path}.role", "role 'function'", "role 'tool' with 'tool_call_id'")
        refuse(f"{path}.role", word, _RIGHT_ROLE)
    name = optional(wire, "name", path, text)
    if role == "assistant":
        return _assistant(wire, path, name)
    content = _content(wire, path, role)
    if role == "tool":
        right = "the id of the tool call that this answers"
        call_id = member(wire, "tool_call_id", path, text, right)
        return LLMMessage(role=role, content=content, tool_call_id=call_id, tool_name=name)
    return LLMMessage(role=role, content=content, name=name)


def message_to_wire(message: LLMMessage, reasoning: str | None) -> dict[str, object]:
    """``message`` as a request has it."""
    wire: dict[str, object] = {"role": message.role, "content": content_to_wire(message.content)}
    name = message.name or (message.tool_name if message.role == "tool" else None)
    if name is not None:
        wire["name"] = name
    if message.tool_call_id is not None:
        wire["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        wire["tool_calls"] = [tool_call_to_wire(call) for call in message.tool_calls]
        # A turn of calls alone has null content; some templates print an empty text.
        wire["content"] = wire["content"] or None
    if message.refusal is not None:
        wire["refusal"] = message.refusal
    if message.reasoning is not None and reasoning is not None:
        wire[reasoning] = message.reasoning
    return wire


def tool_call_to_wire(call: ToolCall) -> dict[str, object]:
    """``call`` as a message has it."""
    function = {"name": call.name, "arguments": call.arguments_json}
    return {"id": call.call_id, "type": "function", "function": function}


def _content(wire: dict[str, Any], path: str, role: LLMRole) -> str | tuple[ContentPart, ...]:
    content = wire.get("content")
    at = f"{path}.content"
    if content is None:
        if "content" not in wire:
            refuse_absence(at, "a string or an array of content parts")
        refuse_type(at, content, "a string or an array of content parts")
    if content == [] and role != "tool":
        refuse(at, content, "an array of at least one content part")
    return content_from_wire(content, at, _PARTS[role])


def _assistant(wire: dict[str, Any], path: str, name: str | None) -> LLMMessage:
    if wire.get("function_call") is not None:
        _refuse_old(f"{path}.function_call", "'function_call'", "'tool_calls'")
    if wire.get("audio") is not None:
        raise LLMInvalidRequestError(
            f"'{path}.audio' refers to an earlier answer by its id, which is not kept here. "
            "Send the answer's transcript as 'content' instead.",
            param=f"{path}.audio",
        )
    calls = optional(wire, "tool_calls", path, array) or []
    refusal = optional(wire, "refusal", path, text)
    reasoning = optional(wire, "reasoning_content", path, text)
    if reasoning is None:
        reasoning = optional(wire, "reasoning", path, text)
    content = wire.get("content")
    if "content" not in wire and not calls and refusal is None and reasoning is None:
        refuse_absence(f"{path}.content", "a string, or 'tool_calls' beside it")
    parts: str | tuple[ContentPart, ...] = ""
    if type(content) is list:
        content, said = _without_refusals(content, f"{path}.content")
        refusal = refusal if said is None else said
        content, thought = _without_thoughts(content, f"{path}.content")
        reasoning = reasoning if thought is None else thought
    if content is not None and content != []:
        parts = content_from_wire(content, f"{path}.content", _PARTS["assistant"])
    return LLMMessage(
        role="assistant",
        content=parts,
        name=name,
        tool_calls=tuple(
            _tool_call(call, f"{path}.tool_calls[{i}]") for i, call in enumerate(calls)
        ),
        reasoning=reasoning,
        refusal=refusal,
    )


def _without_refusals(parts: list[Any], path: str) -> tuple[list[Any], str | None]:
    """``parts`` without those of type 'refusal', and what those say."""
    said: list[str] = []
    others: list[Any] = []
    for i, part in enumerate(parts):
        if type(part) is dict and part.get("type") == "refusal":
            said.append(member(part, "refusal", f"{path}[{i}]", text, "a string"))
        else:
            others.append(part)
    return others, "".join(said) if said else None


def _without_thoughts(parts: list[Any], path: str) -> tuple[list[Any], str | None]:
    """``parts`` without Mistral's of type 'thinking', and what those say."""
    thoughts: list[str] = []
    others: list[Any] = []
    for i, part in enumerate(parts):
        if type(part) is dict and part.get("type") == "thinking":
            at = f"{path}[{i}].thinking"
            for each in member(part, "thinking", f"{path}[{i}]", array, "an array of texts"):
                thoughts.append(str(optional(mapping(each, at), "text", at, text) or ""))
        else:
            others.append(part)
    return others, "".join(thoughts) if thoughts else None


def _tool_call(wire: Any, path: str) -> ToolCall:
    kind = mapping(wire, path).get("type", "function")
    if kind != "function":
        refuse(f"{path}.type", kind, "'function'")
    function = member(wire, "function", path, mapping, "an object with 'name' and 'arguments'")
    at = f"{path}.function"
    return ToolCall(
        name=member(function, "name", at, filled_text, "the tool's name"),
        arguments_json=member(function, "arguments", at, text, "the arguments as JSON text"),
        call_id=member(wire, "id", path, text, "the id of the tool call"),
    )


def _refuse_old(path: str, old: str, new: str) -> NoReturn:
    raise LLMInvalidRequestError(
        f"'{path}': {old} is the old form of tool calls. Use {new} instead.", param=path
    )
