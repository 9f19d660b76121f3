"""Turns of a conversation in Gemini's words, both ways: https://ai.google.dev/api/caching#Content.

A user's content that answers calls is several turns of ours: one for each result, then what the
user says besides. Older models give their calls no ids, so a result without one answers the first
call of its name that has no answer yet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from attrs import define, evolve, field

from headrace.contracts.errors import LLMBadResponseError, LLMInvalidRequestError
from headrace.contracts.messages import ContentPart, LLMMessage, ReasoningPart, TextPart, ToolCall
from headrace.wire.anthropic_messages import arguments_from_wire, arguments_to_wire
from headrace.wire.gemini_names import each_of, renamed
from headrace.wire.gemini_parts import content_from_part, content_to_part, is_thought, part_of
from headrace.wire.gemini_seals import (
    OWN_SEALS,
    TEXT_SEAL,
    THOUGHT_SEAL,
    Thoughts,
    call_seal,
    is_signed_thought,
    moved,
    own_seals,
)
from headrace.wire.json import decode_reply, encode
from headrace.wire.openai_fields import (
    filled_text,
    mapping,
    member,
    optional,
    refuse,
    refuse_absence,
    says,
    text,
)

CONTENT = frozenset({"role", "parts"})
CALL = frozenset({"id", "name", "args"})
RESULT = frozenset({"id", "name", "response", "parts"})
MADE_ID = "gemini_"
"""How the id of a call begins that came without one; such an id is not told to Gemini."""

_SAID = ("text", "inlineData", "fileData")
_USER = (*_SAID, "functionResponse")
_MODEL = (*_SAID, "functionCall")
_ROLES = ("user", "model", "function")
_OUTPUT, _ERROR = "output", "error"
# https://ai.google.dev/gemini-api/docs/thought-signatures: for calls that another model made.
_NO_SEAL = "skip_thought_signature_validator"
_WANTS_SEALS = re.compile(r"(?:models/)?gemini-(?:[3-9]|\d\d)")


@says({"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/GeminiContent"}})
def contents_from_wire(value: Any, path: str = "contents") -> tuple[LLMMessage, ...]:
    """The ``contents`` of a request."""
    reader = _Reader()
    turns = [turn for said in each_of(value, path, reader.read) for turn in said]
    if not turns:
        refuse(path, value, "an array of at least one content")
    return tuple(turns)


@says({"$ref": "#/components/schemas/GeminiContent"})
def system_from_wire(value: Any, path: str = "systemInstruction") -> LLMMessage:
    """The system text of a request."""
    wire = renamed(value, path, CONTENT)
    parts = tuple(_text_part(each, at) for each, at in _parts_of(wire, path))
    return LLMMessage(role="system", content=_plain_if_alone(parts))


def conversation_to_wire(
    messages: Sequence[LLMMessage], model: str | None = None
) -> dict[str, object]:
    """``systemInstruction`` and ``contents`` of a request to ``model``."""
    opening = 0
    while opening < len(messages) and messages[opening].role == "system":
        opening += 1
    body: dict[str, object] = {}
    if opening:
        said = [part for each in messages[:opening] for part in _parts(each.content)]
        body["systemInstruction"] = {"parts": [content_to_part(part) for part in said]}
    contents: list[dict[str, object]] = []
    results: list[dict[str, object]] = []
    names: dict[str, str] = {}
    for message in messages[opening:]:
        if message.role == "tool":
            # All results of one turn's calls must stand in one content.
            if not results:
                contents.append({"role": "user", "parts": results})
            results.append(_result_to_wire(message, names))
            continue
        results = []
        if message.role == "assistant":
            names |= {call.call_id: call.name for call in message.tool_calls}
            contents.append({"role": "model", "parts": _model_to_wire(message, model)})
        else:
            parts = [content_to_part(part) for part in _parts(message.content)]
            contents.append({"role": "user", "parts": parts})
    if not contents:
        raise LLMInvalidRequestError(
            "Gemini's contents need a turn besides the system prompt; add a user's.",
            param="messages",
        )
    body["contents"] = contents
    return body


def joined(messages: Sequence[LLMMessage]) -> tuple[LLMMessage, ...]:
    """``messages`` with those of the assistant that follow one another as one.

    Google's clients keep a streamed answer as one content a chunk, and send it so.
    """
    turns: list[LLMMessage] = []
    for message in messages:
        before = turns[-1] if turns else None
        if before is None or not before.role == message.role == "assistant":
            turns.append(message)
            continue
        calls = len(before.tool_calls)
        parts = tuple(moved(part, calls) for part in message.reasoning_parts)
        turns[-1] = evolve(
            before,
            content=_in_one([*_parts(before.content), *_parts(message.content)]),
            tool_calls=(*before.tool_calls, *message.tool_calls),
            reasoning=(before.reasoning or "") + (message.reasoning or "") or None,
            reasoning_parts=(*before.reasoning_parts, *parts),
        )
    return tuple(turns)


def call_to_wire(call: ToolCall) -> dict[str, object]:
    """``call`` as a part has it."""
    wire: dict[str, object] = {"name": call.name, "args": arguments_to_wire(call.arguments_json)}
    if not call.call_id.startswith(MADE_ID):
        wire["id"] = call.call_id
    return wire


def call_from_wire(wire: dict[str, Any], made_id: str) -> ToolCall:
    """The call in a part of an answer, with an id that we made where it has none."""
    arguments, given = wire.get("args"), wire.get("id")
    return ToolCall(
        name=str(wire.get("name") or ""),
        arguments_json=arguments_from_wire(arguments if isinstance(arguments, dict) else {}),
        call_id=given if isinstance(given, str) and given else made_id,
    )


@define
class _Reader:
    """Reads one content after the other; ``open`` are calls that have no result yet."""

    contents: int = 0
    open: list[ToolCall] = field(factory=list)

    def read(self, value: Any, path: str) -> list[LLMMessage]:
        wire = renamed(value, path, CONTENT)
        role = optional(wire, "role", path, text) or "user"
        if role not in _ROLES:
            refuse(
                f"{path}.role", role, "'user' or 'model'; system text goes into 'systemInstruction'"
            )
        self.contents += 1
        parts = _parts_of(wire, path)
        return [self._model(parts)] if role == "model" else self._user(parts)

    def _user(self, parts: list[tuple[Any, str]]) -> list[LLMMessage]:
        results: list[LLMMessage] = []
        said: list[ContentPart] = []
        for value, path in parts:
            kind, wire = part_of(value, path, _USER)
            if kind == "functionResponse":
                results.append(self._result(wire["functionResponse"], f"{path}.{kind}"))
            else:
                said.append(content_from_part(kind, wire, path))
        if said:
            results.append(LLMMessage(role="user", content=_plain_if_alone(tuple(said))))
        return results

    def _model(self, parts: list[tuple[Any, str]]) -> LLMMessage:
        said: list[ContentPart] = []
        calls: list[ToolCall] = []
        thoughts = Thoughts()
        for value, path in parts:
            kind, wire = part_of(value, path, _MODEL)
            place = TEXT_SEAL
            if kind == "functionCall":
                place = call_seal(len(calls))
                calls.append(self._call(wire[kind], f"{path}.{kind}", len(calls)))
            elif kind == "text" and is_thought(wire, path):
                place = THOUGHT_SEAL
                thoughts.say(text(wire["text"], f"{path}.text"))
            else:
                said.append(content_from_part(kind, wire, path))
            signature = optional(wire, "thoughtSignature", path, filled_text)
            if signature is not None:
                thoughts.seal(signature, place)
        thoughts.close()
        self.open += calls
        return LLMMessage(
            role="assistant",
            content=_in_one(said),
            tool_calls=tuple(calls),
            reasoning=thoughts.text or None,
            reasoning_parts=tuple(thoughts.parts),
        )

    def _call(self, value: Any, path: str, number: int) -> ToolCall:
        wire = renamed(value, path, CALL)
        given = optional(wire, "id", path, text)
        return ToolCall(
            name=member(wire, "name", path, filled_text, "the function's name"),
            arguments_json=arguments_from_wire(optional(wire, "args", path, mapping) or {}),
            call_id=given or f"{MADE_ID}{self.contents}_{number}",
        )

    def _result(self, value: Any, path: str) -> LLMMessage:
        wire = renamed(value, path, RESULT)
        name = member(wire, "name", path, filled_text, "the name of the function that was called")
        given = optional(wire, "id", path, text)
        for i, call in enumerate(self.open):
            if given == call.call_id or (not given and call.name == name):
                del self.open[i]
                given = call.call_id
                break
        if not given:
            refuse(f"{path}.name", name, "the name of a call before it that has no result yet")
        response = member(wire, "response", path, mapping, "the result as an object")
        content, failed = _output(response)
        more = tuple(
            content_from_part(*part_of(each, at, _SAID), at)
            for each, at in _listed(wire.get("parts") or [], f"{path}.parts")
        )
        return LLMMessage(
            role="tool",
            content=(TextPart(text=content), *more) if more else content,
            tool_call_id=given,
            tool_name=None if name == given else name,
            tool_error=failed,
        )


def _output(response: dict[str, Any]) -> tuple[str, bool | None]:
    """The text of a result, and whether it tells of a failure."""
    if len(response) == 1:
        (key, value), *_ = response.items()
        if key in (_OUTPUT, _ERROR):
            said = value if isinstance(value, str) else encode(value).decode()
            return said, True if key == _ERROR else None
    return encode(response).decode(), None


def _result_to_wire(message: LLMMessage, names: dict[str, str]) -> dict[str, object]:
    call_id = message.tool_call_id or ""
    # The format demands a name; where nobody says it, the id stands for it.
    name = message.tool_name or names.get(call_id) or call_id
    content = message.content
    texts = [part.text for part in _parts(content) if isinstance(part, TextPart)]
    said = "".join(texts)
    wire: dict[str, object] = {"name": name, "response": _response(said, message.tool_error)}
    if call_id and not call_id.startswith(MADE_ID):
        wire["id"] = call_id
    media = [content_to_part(part) for part in _parts(content) if not isinstance(part, TextPart)]
    if media:
        wire["parts"] = media
    return {"functionResponse": wire}


def _response(said: str, failed: bool | None) -> dict[str, object]:
    if failed:
        return {_ERROR: said}
    if said.startswith("{"):
        try:
            value = decode_reply(said.encode("utf-8", "replace"))
        except LLMBadResponseError:
            value = None
        # An object is the response itself, where it can be told from our own way to say text.
        if isinstance(value, dict) and _output(value) == (said, None):
            return value
    return {_OUTPUT: said}


def _model_to_wire(message: LLMMessage, model: str | None) -> list[dict[str, object]]:
    parts: list[dict[str, object]] = list(_thoughts_to_wire(message))
    seals = own_seals(message.reasoning_parts)
    content = message.content or message.refusal or ""
    said = [content_to_part(part) for part in _parts(content) if part != TextPart(text="")]
    parts += said
    if TEXT_SEAL in seals:
        parts.append({"text": "", "thoughtSignature": seals[TEXT_SEAL]})
    unsealed = not any(place.startswith(call_seal(0)[:-1]) for place in seals)
    for number, call in enumerate(message.tool_calls):
        part: dict[str, object] = {"functionCall": call_to_wire(call)}
        seal = seals.get(call_seal(number))
        if seal is None and number == 0 and unsealed and _WANTS_SEALS.match(model or ""):
            seal = _NO_SEAL
        if seal is not None:
            part["thoughtSignature"] = seal
        parts.append(part)
    return parts or [{"text": ""}]


def _thoughts_to_wire(message: LLMMessage) -> Iterable[dict[str, object]]:
    """What was thought, with Gemini's own signatures; those of others it could not read."""
    if not message.reasoning_parts and message.reasoning:
        yield {"text": message.reasoning, "thought": True}
    for part in message.reasoning_parts:
        if is_signed_thought(part):
            yield {"text": part.text, "thought": True, "thoughtSignature": part.signature}
        elif part.text and not _is_elsewhere(part):
            yield {"text": part.text, "thought": True}


def _is_elsewhere(part: ReasoningPart) -> bool:
    """Whether what ``part`` says is told in another place than the thoughts."""
    return part.part_id is not None and part.part_id.startswith(OWN_SEALS)


def _text_part(value: Any, path: str) -> ContentPart:
    kind, wire = part_of(value, path, ("text",))
    return content_from_part(kind, wire, path)


def _parts_of(wire: dict[str, Any], path: str) -> list[tuple[Any, str]]:
    """The parts of the content at ``path``, each with its own path."""
    at = f"{path}.parts"
    if wire.get("parts") is None:
        refuse_absence(at, "an array of parts, such as [{'text': '...'}]")
    found = _listed(wire["parts"], at)
    if not found:
        refuse(at, wire["parts"], "an array of at least one part")
    return found


def _listed(value: Any, path: str) -> list[tuple[Any, str]]:
    return each_of(value, path, lambda each, at: (each, at))


def _plain_if_alone(parts: tuple[ContentPart, ...]) -> str | tuple[ContentPart, ...]:
    first = parts[0] if len(parts) == 1 else None
    return first.text if isinstance(first, TextPart) else parts


def _in_one(parts: list[ContentPart]) -> str | tuple[ContentPart, ...]:
    """What a model said: its pieces of text are one text, cut where the stream was."""
    if all(isinstance(part, TextPart) for part in parts):
        return "".join(part.text for part in parts if isinstance(part, TextPart))
    return tuple(parts)


def _parts(content: str | tuple[ContentPart, ...]) -> tuple[ContentPart, ...]:
    return (TextPart(text=content),) if isinstance(content, str) else content
