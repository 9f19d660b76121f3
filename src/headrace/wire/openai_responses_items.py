"""Items of the Responses API and the messages that they make.

One turn of the assistant is several items here: its reasoning, what it said, each call. Read, they
become one message again; a second text, reasoning behind a text, or a message that is the empty
text begins another turn. Roles
``system`` and ``developer`` are one role to us. An item's id and status tell us nothing, but for
reasoning, whose id belongs to what its provider sealed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from attrs import evolve

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.messages import AudioPart, LLMMessage, LLMRole, ReasoningPart, ToolCall
from headrace.wire import json
from headrace.wire.openai_fields import (
    array,
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
from headrace.wire.openai_responses_parts import (
    HEARD,
    WRITTEN,
    content_from_wire,
    content_to_wire,
    output_text,
    spoken_from_wire,
    spoken_to_wire,
)

_ROLES: dict[str, LLMRole] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
_RIGHT_ROLE = "one of 'system', 'developer', 'user', 'assistant'"
_TYPES = ("message", "function_call", "function_call_output", "reasoning", "item_reference")
_PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "reasoning": "rs",
}
_SEALED = "headrace:"


@says({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]})
def input_from_wire(wire: Any, path: str = "input") -> tuple[dict[str, Any], ...]:
    """A request's ``input`` as items whose types are known; a text is what the user says."""
    if type(wire) is str:
        return (user_item(wire),)
    if type(wire) is not list:
        refuse_type(path, wire, "a string or an array of items")
    return tuple(_typed(item, f"{path}[{i}]") for i, item in enumerate(wire))


def user_item(said: str) -> dict[str, Any]:
    """A user's message."""
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": said}]}


def stored_items(items: Iterable[dict[str, Any]], base: str) -> list[dict[str, Any]]:
    """``items`` as they are kept and shown: each with an id made of ``base``, content in parts."""
    return [_stored(item, f"{base}_in{i}") for i, item in enumerate(items)]


def references(items: Iterable[dict[str, Any]]) -> tuple[str, ...]:
    """The ids that ``items`` refer to."""
    return tuple(item["id"] for item in items if item["type"] == "item_reference")


def messages_from_items(items: Sequence[dict[str, Any]], path: str = "input") -> list[LLMMessage]:
    """The conversation that ``items`` are; those that refer to others are left to be resolved."""
    turns: list[LLMMessage] = []
    for i, item in enumerate(items):
        at = f"{path}[{i}]"
        kind = item["type"]
        if kind == "function_call_output":
            turns.append(_output(item, at))
        elif kind == "message" and _role(item, at) != "assistant":
            turns.append(_heard(item, at))
        elif kind != "item_reference":
            said = _said(item, kind, at)
            begins = not turns or (kind == "message" and item["content"] == "")
            joined = None if begins else _joined(turns[-1], said)
            if joined is None:
                turns.append(said)
            else:
                turns[-1] = joined
    return [_without_unsealed(turn) for turn in turns]


def items_from_messages(messages: Iterable[LLMMessage], *, reasoning: bool) -> list[dict[str, Any]]:
    """``messages`` as a request's items.

    ``reasoning`` also sends what no provider sealed; others refuse it, or do not know it.
    """
    items: list[dict[str, Any]] = []
    before: LLMMessage | None = None
    for message in messages:
        if before is not None and before.role == message.role == "assistant":
            items.append({"type": "message", "role": "assistant", "content": ""})
        items += _items(message, reasoning)
        before = message
    for place, item in enumerate(items):
        if item.get("role") == "assistant" and not isinstance(item["content"], str):
            # In parts it is a message that was put out, and those have ids and a status.
            items[place] = {**item, "id": f"msg_{place}", "status": "completed"}
    return items


def has_recording(message: LLMMessage) -> bool:
    """Whether there is sound among the parts of ``message``."""
    return not isinstance(message.content, str) and any(
        isinstance(part, AudioPart) for part in message.content
    )


def reasoning_from_wire(item: dict[str, Any], path: str) -> ReasoningPart:
    """One item of reasoning; its text is the content where it shows it, else the summary."""
    shown = _texts(item, "content", path) or _texts(item, "summary", path)
    whole = "".join(shown) if item.get("content") else "\n\n".join(shown)
    sealed = optional(item, "encrypted_content", path, text)
    return unseal(sealed, optional(item, "id", path, text), whole)


def reasoning_item(part: ReasoningPart, item_id: str | None) -> dict[str, Any]:
    """``part`` as an item: its text is a summary, the one form that is taken back as input."""
    item: dict[str, Any] = {"type": "reasoning", "summary": summary(part.text)}
    if item_id is not None:
        item["id"] = item_id
    sealed = seal(part, item_id)
    return item if sealed is None else {**item, "encrypted_content": sealed}


def summary(said: str) -> list[dict[str, str]]:
    """The parts of a reasoning item's summary."""
    return [{"type": "summary_text", "text": said}] if said else []


def seal(part: ReasoningPart, item_id: str | None = None) -> str | None:
    """What a caller hands back unread: a provider's encrypted text.

    A signature is put in with it, and the provider's own name for the piece where the item has
    another: a stream's item gets its name before the provider tells its own.
    """
    renamed = part.encrypted is not None and part.part_id not in (None, item_id)
    if part.signature is None and not renamed:
        return part.encrypted
    packed = {"signature": part.signature, "encrypted": part.encrypted, "id": part.part_id}
    return _SEALED + json.encode(packed).decode()


def unseal(sealed: str | None, item_id: str | None, shown: str) -> ReasoningPart:
    """The piece of reasoning that ``seal`` was given, of which ``shown`` is the text."""
    if sealed is None or not sealed.startswith(_SEALED):
        return ReasoningPart(text=shown, encrypted=sealed, part_id=item_id)
    found = json.decode_object(sealed[len(_SEALED) :].encode())
    told = [found.get(name) for name in ("signature", "encrypted", "id")]
    signature, encrypted, own_id = (each if isinstance(each, str) else None for each in told)
    return ReasoningPart(text=shown, signature=signature, encrypted=encrypted, part_id=own_id)


def _stored(item: dict[str, Any], base: str) -> dict[str, Any]:
    kept = {name: value for name, value in item.items() if value is not None}
    kept["id"] = kept.get("id") or f"{_PREFIXES[item['type']]}_{base}"
    if item["type"] != "reasoning":
        kept.setdefault("status", "completed")
    if item["type"] == "message":
        content = item["content"]
        if isinstance(content, str):
            spoken = item["role"] == "assistant"
            content = [output_text(content) if spoken else {"type": "input_text", "text": content}]
        kept["content"] = [_stored_part(part) for part in content]
    return kept


def _stored_part(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] == "output_text":
        return {**output_text(""), **part}
    return {"detail": "auto", **part} if part["type"] == "input_image" else part


def _typed(wire: Any, path: str) -> dict[str, Any]:
    """``wire`` with its type, which a message and a reference may leave out."""
    kind = optional(mapping(wire, path), "type", path, text)
    if kind is None:
        if "role" in wire:
            kind = "message"
        elif set(wire) <= {"id", "type"} and "id" in wire:
            kind = "item_reference"
        else:
            refuse_absence(f"{path}.type", "one of " + ", ".join(f"'{each}'" for each in _TYPES))
    if kind not in _TYPES:
        _refuse_type_of_item(f"{path}.type", kind)
    if kind == "item_reference":
        member(wire, "id", path, filled_text, "the id of an item")
    return {**wire, "type": kind}


def _refuse_type_of_item(path: str, kind: str) -> NoReturn:
    raise LLMInvalidRequestError(
        f"'{path}' is '{kind[:60]}': items of hosted tools, compaction and other services are not "
        "known here. Expected one of " + ", ".join(f"'{each}'" for each in _TYPES) + ".",
        param=path,
        code="invalid_value",
    )


def _role(item: dict[str, Any], path: str) -> LLMRole:
    word = member(item, "role", path, text, _RIGHT_ROLE)
    if word not in _ROLES:
        refuse(f"{path}.role", word, _RIGHT_ROLE)
    return _ROLES[word]


def _heard(item: dict[str, Any], path: str) -> LLMMessage:
    role = _role(item, path)
    at = f"{path}.content"
    if item.get("content") is None:
        refuse_absence(at, "a string or an array of content parts")
    if item["content"] == []:
        refuse(at, item["content"], "an array of at least one content part")
    kinds = WRITTEN if role == "system" else HEARD
    return LLMMessage(role=role, content=content_from_wire(item["content"], at, kinds))


def _said(item: dict[str, Any], kind: str, path: str) -> LLMMessage:
    """What one item of the assistant's tells, as a turn of its own."""
    if kind == "reasoning":
        part = reasoning_from_wire(item, path)
        return LLMMessage(
            role="assistant", content="", reasoning=part.text, reasoning_parts=(part,)
        )
    if kind == "function_call":
        call = ToolCall(
            name=member(item, "name", path, filled_text, "the tool's name"),
            arguments_json=member(item, "arguments", path, text, "the arguments as JSON text"),
            call_id=member(item, "call_id", path, filled_text, "the id of the call"),
        )
        return LLMMessage(role="assistant", content="", tool_calls=(call,))
    if item.get("content") is None:
        refuse_absence(f"{path}.content", "a string or an array of content parts")
    content, refusal = spoken_from_wire(item["content"], f"{path}.content")
    return LLMMessage(role="assistant", content=content, refusal=refusal)


def _joined(turn: LLMMessage, said: LLMMessage) -> LLMMessage | None:
    """``turn`` with ``said`` in it, or nothing where ``said`` begins a turn of its own."""
    if turn.role != "assistant":
        return None
    spoke = bool(turn.content) or turn.refusal is not None
    if said.tool_calls:
        return evolve(turn, tool_calls=(*turn.tool_calls, *said.tool_calls))
    if said.reasoning is not None:
        if spoke and not turn.tool_calls:
            return None
        return evolve(
            turn,
            reasoning=(turn.reasoning or "") + said.reasoning,
            reasoning_parts=(*turn.reasoning_parts, *said.reasoning_parts),
        )
    if spoke:
        return None
    return evolve(turn, content=said.content, refusal=said.refusal)


def _without_unsealed(turn: LLMMessage) -> LLMMessage:
    """``turn`` with its pieces of reasoning only where a provider sealed one and wants them back."""
    sealed = any(each.encrypted or each.signature for each in turn.reasoning_parts)
    return turn if sealed or not turn.reasoning_parts else evolve(turn, reasoning_parts=())


def _output(item: dict[str, Any], path: str) -> LLMMessage:
    if item.get("output") is None:
        refuse_absence(f"{path}.output", "a string or an array of content parts")
    return LLMMessage(
        role="tool",
        content=content_from_wire(item["output"], f"{path}.output", HEARD),
        tool_call_id=member(item, "call_id", path, filled_text, "the id of the call"),
    )


def _texts(item: dict[str, Any], name: str, path: str) -> list[str]:
    listed = optional(item, name, path, array) or []
    at = f"{path}.{name}"
    return [
        member(mapping(each, f"{at}[{i}]"), "text", f"{at}[{i}]", text, "a string")
        for i, each in enumerate(listed)
    ]


def _items(message: LLMMessage, reasoning: bool) -> list[dict[str, Any]]:
    if message.role == "tool":
        output = content_to_wire(message.content)
        call_id = message.tool_call_id or ""
        return [{"type": "function_call_output", "call_id": call_id, "output": output}]
    if message.role != "assistant":
        content = content_to_wire(message.content)
        return [{"type": "message", "role": message.role, "content": content}]
    items = _reasoning_items(message, reasoning)
    if message.content or message.refusal is not None or not (items or message.tool_calls):
        said = spoken_to_wire(message.content, message.refusal)
        items.append({"type": "message", "role": "assistant", "content": said})
    for call in message.tool_calls:
        items.append(
            {
                "type": "function_call",
                "call_id": call.call_id,
                "name": call.name,
                "arguments": call.arguments_json,
            }
        )
    return items


def _reasoning_items(message: LLMMessage, reasoning: bool) -> list[dict[str, Any]]:
    parts = message.reasoning_parts
    if not parts and message.reasoning is not None:
        parts = (ReasoningPart(text=message.reasoning),)
    return [
        # A signature is another provider's seal: this one could not read it.
        reasoning_item(evolve(part, signature=None), part.part_id)
        for part in parts
        if part.encrypted is not None or reasoning
    ]
