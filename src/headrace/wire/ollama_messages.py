"""Messages in Ollama's words, both ways: a text, its images beside it, and calls.

Older servers and clients give calls no ids and name in a result only the tool, or nothing: there an
id is made from the call's place, and a result goes with the first call that nobody has answered.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from typing import Any

from attrs import define, field

from headrace.contracts.errors import LLMCapabilityError
from headrace.contracts.messages import (
    AudioPart,
    ContentPart,
    FilePart,
    ImagePart,
    LLMMessage,
    TextPart,
    ToolCall,
)
from headrace.wire.anthropic_messages import arguments_from_wire, arguments_to_wire
from headrace.wire.image_types import image_type
from headrace.wire.openai_fields import (
    Check,
    array,
    filled_text,
    mapping,
    member,
    optional,
    refuse,
    says,
    text,
)

_ROLES = ("system", "user", "assistant", "tool")
_RIGHT_ROLE = "one of " + ", ".join(f"'{role}'" for role in _ROLES)


@says({"type": "array", "items": {"$ref": "#/components/schemas/OllamaMessage"}})
def messages_from_wire(wire: Any, path: str = "messages") -> tuple[LLMMessage, ...]:
    """The ``messages`` of a request; none are a wish to have the model loaded."""
    open_calls = _OpenCalls()
    return tuple(
        _message(message, f"{path}[{i}]", i, open_calls)
        for i, message in enumerate(array(wire, path))
    )


def messages_to_wire(messages: Iterable[LLMMessage]) -> list[dict[str, object]]:
    """``messages`` as a request has them."""
    names: dict[str, str] = {}
    return [_message_to_wire(message, names) for message in messages]


@says({"type": "array", "items": {"type": "string", "contentEncoding": "base64"}})
def images_from_wire(wire: Any, path: str = "images") -> tuple[ImagePart, ...]:
    """The images beside a text."""
    return tuple(_image(each, f"{path}[{i}]") for i, each in enumerate(array(wire, path)))


def with_images(said: str, images: Sequence[ImagePart]) -> str | tuple[ContentPart, ...]:
    """A text and the images beside it as a turn's content."""
    if not images:
        return said
    return (TextPart(text=said), *images) if said else tuple(images)


def call_to_wire(call: ToolCall, index: int) -> dict[str, object]:
    """``call``, the one with that place in its turn, as a message has it."""
    function = {
        "index": index,
        "name": call.name,
        "arguments": arguments_to_wire(call.arguments_json),
    }
    return {"id": call.call_id, "function": function}


# What some turns have besides their text, with the check and whose turns these are.
_OF_ROLES: dict[str, tuple[Check, tuple[str, ...]]] = {
    "images": (images_from_wire, ("user", "tool")),
    "thinking": (text, ("assistant",)),
    "tool_calls": (array, ("assistant",)),
    "tool_name": (text, ("tool",)),
    "tool_call_id": (text, ("tool",)),
}


@define
class _OpenCalls:
    """The calls of the conversation so far that no result has answered."""

    calls: list[ToolCall] = field(factory=list)

    def answered(self, call_id: str | None, name: str | None) -> str | None:
        """The id of the call that a result with this id, or of this tool, answers."""
        for call in self.calls:
            if call_id == call.call_id or (call_id is None and name in (None, call.name)):
                self.calls.remove(call)
                return call.call_id
        return call_id


def _message(wire: Any, path: str, place: int, open_calls: _OpenCalls) -> LLMMessage:
    role = member(mapping(wire, path), "role", path, text, _RIGHT_ROLE).lower()
    if role not in _ROLES:
        refuse(f"{path}.role", role, _RIGHT_ROLE)
    said = optional(wire, "content", path, text) or ""
    found = {name: optional(wire, name, path, check) for name, (check, _) in _OF_ROLES.items()}
    for name, (_, roles) in _OF_ROLES.items():
        if found[name] and role not in roles:
            refuse(f"{path}.{name}", wire[name], f"none in a turn of the {role}'s")
    content = with_images(said, found["images"] or ())
    if role == "tool":
        tool = found["tool_name"] or None
        call_id = open_calls.answered(found["tool_call_id"] or None, tool)
        return LLMMessage(role="tool", content=content, tool_call_id=call_id, tool_name=tool)
    calls = tuple(
        _call(call, f"{path}.tool_calls[{i}]", f"call_{place}_{i}")
        for i, call in enumerate(found["tool_calls"] or ())
    )
    open_calls.calls += calls
    return LLMMessage(
        role=role, content=content, tool_calls=calls, reasoning=found["thinking"] or None
    )


def _call(wire: Any, path: str, usual_id: str) -> ToolCall:
    function = member(mapping(wire, path), "function", path, mapping, "an object with a 'name'")
    at = f"{path}.function"
    return ToolCall(
        name=member(function, "name", at, filled_text, "the tool's name"),
        arguments_json=arguments_from_wire(optional(function, "arguments", at, mapping) or {}),
        call_id=optional(wire, "id", path, text) or usual_id,
    )


def _image(wire: Any, path: str) -> ImagePart:
    content = filled_text(wire, path)
    try:
        data = b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        refuse(path, content, "the image's bytes in base64")
    return ImagePart(data=data, media_type=image_type(data))


def _message_to_wire(message: LLMMessage, names: dict[str, str]) -> dict[str, object]:
    """``names`` are those of the tools that were called so far, by the calls' ids."""
    said, images = _content_to_wire(message.content)
    wire: dict[str, object] = {"role": message.role, "content": said or message.refusal or ""}
    if message.reasoning:
        wire["thinking"] = message.reasoning
    if images:
        wire["images"] = images
    if message.tool_calls:
        wire["tool_calls"] = [call_to_wire(call, i) for i, call in enumerate(message.tool_calls)]
        names.update((call.call_id, call.name) for call in message.tool_calls)
    if message.role == "tool":
        # Servers that know no ids, and some models' templates, go by the name.
        name = message.tool_name or names.get(message.tool_call_id or "")
        if name is not None:
            wire["tool_name"] = name
        if message.tool_call_id is not None:
            wire["tool_call_id"] = message.tool_call_id
    return wire


def _content_to_wire(content: str | tuple[ContentPart, ...]) -> tuple[str, list[str]]:
    if isinstance(content, str):
        return content, []
    said: list[str] = []
    images: list[str] = []
    for part in content:
        match part:
            case TextPart():
                said.append(part.text)
            case ImagePart(data=bytes() as data):
                images.append(b64encode(data).decode())
            case ImagePart():
                raise _cannot("an image by its URL; send its bytes")
            case AudioPart():
                raise _cannot("recordings; send a transcript")
            case FilePart():
                raise _cannot("files; send what they say as text")
    return "\n".join(said), images


def _cannot(what: str) -> LLMCapabilityError:
    return LLMCapabilityError(f"Ollama does not take {what}.", param="messages")
