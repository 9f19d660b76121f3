"""Turns of a conversation in Anthropic's words, both ways.

A user turn that answers tool calls is several of ours: one for each result, then what the user
says besides. Results stand first there, as Anthropic itself wants them. An assistant turn's blocks
are kept in the order reasoning, text, calls, which is the order in which models make them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from attrs import evolve

from headrace.contracts.errors import LLMBadResponseError, LLMInvalidRequestError
from headrace.contracts.messages import (
    AudioPart,
    CacheFor,
    ContentPart,
    LLMMessage,
    ReasoningPart,
    TextPart,
    ToolCall,
)
from headrace.wire.anthropic_blocks import (
    ANY_PART,
    cache_from_wire,
    cache_to_wire,
    content_from_wire,
    content_to_wire,
    kind_of,
    part_from_wire,
    part_to_wire,
    plain_if_alone,
)
from headrace.wire.json import decode_reply, encode
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

_USER = (*ANY_PART, "tool_result")
_ASSISTANT = ("text", "thinking", "redacted_thinking", "tool_use")
_ROLES = ("user", "assistant", "system")
_BROKEN = "INVALID_JSON"
"""The key under which Anthropic says to hand back arguments that are no JSON object:
https://platform.claude.com/docs/en/agents-and-tools/tool-use/fine-grained-tool-streaming"""


@says({"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/MessagesTurn"}})
def messages_from_wire(wire: Any, path: str = "messages") -> tuple[LLMMessage, ...]:
    """The ``messages`` of a request."""
    if not array(wire, path):
        refuse(path, wire, "an array of at least one message")
    return tuple(message for i, turn in enumerate(wire) for message in _turn(turn, f"{path}.{i}"))


@says(
    {
        "anyOf": [
            {"type": "string"},
            {"type": "array", "items": {"$ref": "#/components/schemas/MessagesBlock"}},
        ]
    }
)
def system_from_wire(wire: Any, path: str = "system") -> LLMMessage:
    """The ``system`` prompt of a request."""
    return LLMMessage(role="system", content=content_from_wire(wire, path, ("text",)))


def conversation_to_wire(messages: Sequence[LLMMessage]) -> dict[str, object]:
    """``system`` and ``messages`` of a request: the system turns at its beginning, and the rest."""
    opening = 0
    while opening < len(messages) and messages[opening].role == "system":
        opening += 1
    body: dict[str, object] = {}
    if opening == 1:
        body["system"] = content_to_wire(messages[0].content)
    elif opening:
        body["system"] = [
            part_to_wire(part) for message in messages[:opening] for part in _parts(message.content)
        ]
    turns: list[dict[str, object]] = []
    results: list[dict[str, object]] = []
    for message in messages[opening:]:
        if message.role == "tool":
            # All results of one turn's calls must stand in one turn.
            if not results:
                turns.append({"role": "user", "content": results})
            results.append(_result_to_wire(message))
            continue
        results = []
        turns.append({"role": message.role, "content": _turn_to_wire(message)})
    if not turns:
        raise LLMInvalidRequestError(
            "Anthropic's messages need a turn besides the system prompt; add a user's.",
            param="messages",
        )
    body["messages"] = turns
    return body


def reasoning_of(parts: Iterable[ReasoningPart]) -> tuple[str | None, tuple[ReasoningPart, ...]]:
    """The text of ``parts``, and the parts where they say more than that."""
    kept = tuple(parts)
    said = "".join(part.text for part in kept) or None
    sealed = any(part.signature or part.encrypted for part in kept)
    return said, kept if sealed else ()


def reasoning_to_wire(parts: Iterable[ReasoningPart]) -> list[dict[str, object]]:
    """Pieces of reasoning as blocks; those of other providers, which Anthropic cannot read, not."""
    blocks: list[dict[str, object]] = []
    for part in parts:
        if part.part_id is not None:
            continue
        if part.encrypted is not None:
            blocks.append({"type": "redacted_thinking", "data": part.encrypted})
        elif part.signature is not None:
            blocks.append({"type": "thinking", "thinking": part.text, "signature": part.signature})
    return blocks


def reasoning_from_wire(block: dict[str, Any], path: str) -> ReasoningPart:
    """The piece of reasoning in a ``thinking`` or ``redacted_thinking`` block."""
    if block["type"] == "redacted_thinking":
        return ReasoningPart(encrypted=member(block, "data", path, text, "the data as it came"))
    if "thinking" not in block:
        refuse_absence(f"{path}.thinking", "a string")
    return ReasoningPart(
        text=text(block["thinking"], f"{path}.thinking"),
        signature=optional(block, "signature", path, text) or None,
    )


def call_to_wire(call: ToolCall) -> dict[str, object]:
    """``call`` as a message has it."""
    return {
        "type": "tool_use",
        "id": call.call_id,
        "name": call.name,
        "input": arguments_to_wire(call.arguments_json),
    }


def arguments_to_wire(arguments_json: str) -> dict[str, Any]:
    """A call's arguments as the object that they should be."""
    if not arguments_json.strip():
        return {}
    try:
        arguments = decode_reply(arguments_json.encode("utf-8", "replace"))
    except LLMBadResponseError:
        arguments = None
    return arguments if isinstance(arguments, dict) else {_BROKEN: arguments_json}


def arguments_from_wire(arguments: dict[str, Any]) -> str:
    """A call's arguments as JSON text."""
    if len(arguments) == 1 and isinstance(arguments.get(_BROKEN), str):
        return str(arguments[_BROKEN])
    return encode(arguments).decode()


def _turn(wire: Any, path: str) -> list[LLMMessage]:
    role = member(mapping(wire, path), "role", path, text, "'user' or 'assistant'")
    if role not in _ROLES:
        refuse(f"{path}.role", role, "'user' or 'assistant'; a system prompt goes into 'system'")
    at = f"{path}.content"
    content = wire.get("content")
    if content is None:
        if "content" not in wire:
            refuse_absence(at, "a string or an array of content blocks")
        refuse_type(at, content, "a string or an array of content blocks")
    if content == [] and role != "assistant":
        refuse(at, content, "an array of at least one content block")
    if role == "system":
        return [LLMMessage(role="system", content=content_from_wire(content, at, ("text",)))]
    if type(content) is str:
        return [LLMMessage(role=role, content=content)]
    if type(content) is not list:
        refuse_type(at, content, "a string or an array of content blocks")
    return _user(content, at) if role == "user" else [_assistant(content, at)]


def _user(blocks: list[Any], path: str) -> list[LLMMessage]:
    results: list[LLMMessage] = []
    said: list[ContentPart] = []
    for i, block in enumerate(blocks):
        at = f"{path}.{i}"
        if kind_of(block, at, _USER) == "tool_result":
            results.append(_result(block, at))
        else:
            said.append(part_from_wire(block, at))
    if said:
        results.append(LLMMessage(role="user", content=plain_if_alone(tuple(said))))
    return results


def _assistant(blocks: list[Any], path: str) -> LLMMessage:
    said: list[ContentPart] = []
    thoughts: list[ReasoningPart] = []
    calls: list[ToolCall] = []
    for i, block in enumerate(blocks):
        at = f"{path}.{i}"
        match kind_of(block, at, _ASSISTANT):
            case "text":
                said.append(part_from_wire(block, at))
            case "tool_use":
                calls.append(_call(block, at))
            case _:
                thoughts.append(reasoning_from_wire(block, at))
    reasoning, parts = reasoning_of(thoughts)
    return LLMMessage(
        role="assistant",
        content=plain_if_alone(tuple(said)),
        tool_calls=tuple(calls),
        reasoning=reasoning,
        reasoning_parts=parts,
    )


def _turn_to_wire(message: LLMMessage) -> object:
    if message.role != "assistant":
        return content_to_wire(message.content)
    content = message.content or message.refusal or ""
    thoughts = reasoning_to_wire(message.reasoning_parts)
    if not thoughts and not message.tool_calls:
        return content_to_wire(content)
    return [
        *thoughts,
        # An empty block of text is refused; a turn of calls alone has none.
        *(part_to_wire(part) for part in _parts(content) if part != TextPart(text="")),
        *(call_to_wire(call) for call in message.tool_calls),
    ]


def _call(block: dict[str, Any], path: str) -> ToolCall:
    arguments = member(block, "input", path, mapping, "the arguments as an object")
    return ToolCall(
        name=member(block, "name", path, filled_text, "the tool's name"),
        arguments_json=arguments_from_wire(arguments),
        call_id=member(block, "id", path, filled_text, "the id of the tool call"),
    )


def _result(block: dict[str, Any], path: str) -> LLMMessage:
    right = "the id of the tool call that this answers"
    call_id = member(block, "tool_use_id", path, filled_text, right)
    wire = block.get("content")
    content = "" if wire is None else content_from_wire(wire, f"{path}.content", ANY_PART)
    cache = cache_from_wire(block, path)
    if cache is not None:
        content = _marked_at_end(content, cache)
    return LLMMessage(
        role="tool",
        content=content,
        tool_call_id=call_id,
        tool_error=optional(block, "is_error", path, boolean),
    )


def _result_to_wire(message: LLMMessage) -> dict[str, object]:
    content = message.content
    wire: dict[str, object] = {"type": "tool_result", "tool_use_id": message.tool_call_id}
    last = None if isinstance(content, str) or not content else content[-1]
    if last is not None and not isinstance(last, AudioPart) and last.cache is not None:
        # What lies inside of a result cannot be marked, only the result as a whole.
        wire["cache_control"] = cache_to_wire(last.cache)
        assert not isinstance(content, str)
        content = plain_if_alone((*content[:-1], evolve(last, cache=None)))
    if content:
        wire["content"] = content_to_wire(content)
    if message.tool_error is not None:
        wire["is_error"] = message.tool_error
    return wire


def _marked_at_end(
    content: str | tuple[ContentPart, ...], cache: CacheFor
) -> tuple[ContentPart, ...]:
    *before, last = _parts(content)
    assert not isinstance(last, AudioPart)  # no block of Anthropic's is one
    return (*before, evolve(last, cache=cache))


def _parts(content: str | tuple[ContentPart, ...]) -> tuple[ContentPart, ...]:
    return (TextPart(text=content),) if isinstance(content, str) else content
