"""The parts of an item's content in the words of the Responses API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.messages import AudioPart, ContentPart, FilePart, ImagePart, TextPart
from headrace.wire.openai_fields import (
    filled_text,
    mapping,
    member,
    one_of,
    optional,
    refuse,
    refuse_absence,
    refuse_type,
    text,
)
from headrace.wire.openai_parts import part_from_wire, part_to_wire

SPOKEN = ("output_text", "refusal")
HEARD = ("input_text", "input_image", "input_file", "input_audio")
WRITTEN = ("input_text",)

_detail = one_of("auto", "low", "high")


def content_from_wire(wire: Any, path: str, kinds: Sequence[str]) -> str | tuple[ContentPart, ...]:
    """Content that is text, or an array of parts of these ``kinds``."""
    if type(wire) is str:
        return wire
    if type(wire) is not list:
        refuse_type(path, wire, "a string or an array of content parts")
    return tuple(_part(part, f"{path}[{i}]", kinds) for i, part in enumerate(wire))


def spoken_from_wire(wire: Any, path: str) -> tuple[str | tuple[ContentPart, ...], str | None]:
    """What the assistant said: its text (parts only where there are several) and its refusal."""
    if type(wire) is str:
        return wire, None
    if type(wire) is not list:
        refuse_type(path, wire, "a string or an array of content parts")
    said: list[ContentPart] = []
    refused: list[str] = []
    for i, part in enumerate(wire):
        at = f"{path}[{i}]"
        if _kind(part, at, SPOKEN) == "refusal":
            refused.append(member(part, "refusal", at, text, "a string"))
        else:
            said.append(_text(part, at))
    refusal = "".join(refused) if refused else None
    if len(said) > 1:
        return tuple(said), refusal
    return (said[0].text if said and isinstance(said[0], TextPart) else ""), refusal


def content_to_wire(content: str | tuple[ContentPart, ...]) -> object:
    """``content`` of a message that is not the assistant's, or of a tool's output."""
    return content if isinstance(content, str) else [_part_to_wire(part) for part in content]


def spoken_to_wire(content: str | tuple[ContentPart, ...], refusal: str | None) -> object:
    """What the assistant said, as the content of its message."""
    if isinstance(content, str) and refusal is None:
        return content
    if isinstance(content, str):
        parts = [output_text(content)] if content else []
    else:
        parts = [output_text(_only_text(part)) for part in content]
    if refusal is not None:
        parts.append({"type": "refusal", "refusal": refusal})
    return parts


def output_text(said: str, logprobs: list[Any] | None = None) -> dict[str, Any]:
    """A part with what the model said."""
    return {"type": "output_text", "text": said, "annotations": [], "logprobs": logprobs or []}


def _kind(part: Any, path: str, kinds: Sequence[str]) -> str:
    kind: str = member(mapping(part, path), "type", path, text, f"one of {', '.join(kinds)}")
    if kind not in kinds:
        refuse(f"{path}.type", kind, "one of " + ", ".join(f"'{each}'" for each in kinds))
    return kind


def _part(wire: Any, path: str, kinds: Sequence[str]) -> ContentPart:
    kind = _kind(wire, path, kinds)
    if kind == "input_text":
        return _text(wire, path)
    if kind == "input_image":
        return _image(wire, path)
    if kind == "input_audio":
        return part_from_wire(wire, path, ("input_audio",))
    return _file(wire, path)


def _text(wire: dict[str, Any], path: str) -> TextPart:
    if "text" not in wire:
        refuse_absence(f"{path}.text", "a string")
    return TextPart(text=text(wire["text"], f"{path}.text"))


def _image(wire: dict[str, Any], path: str) -> ContentPart:
    if wire.get("image_url") is None and wire.get("file_id") is not None:
        raise LLMInvalidRequestError(
            f"'{path}.file_id' refers to an uploaded file, and none are kept here. Send the image "
            "as 'image_url', with a data: URL or an http(s) one.",
            param=f"{path}.file_id",
        )
    url = member(wire, "image_url", path, filled_text, "an http(s) URL or a data: URL")
    detail = optional(wire, "detail", path, _detail)
    detail = None if detail == "auto" else detail  # as if nothing were said
    # The chat form has the same rules for URLs one level deeper.
    described = {"url": url} if detail is None else {"url": url, "detail": detail}
    try:
        return part_from_wire({"type": "image_url", "image_url": described}, path, ("image_url",))
    except LLMInvalidRequestError as error:
        deeper = f"{path}.image_url.url"
        message = error.message.replace(deeper, f"{path}.image_url")
        raise LLMInvalidRequestError(message, param=f"{path}.image_url", code=error.code) from error


def _file(wire: dict[str, Any], path: str) -> FilePart:
    url = optional(wire, "file_url", path, filled_text)
    filename = optional(wire, "filename", path, text)
    if url is not None:
        if not url.startswith(("http://", "https://")):
            refuse(f"{path}.file_url", url, "an http(s) URL; send bytes as 'file_data'")
        return FilePart(url=url, filename=filename)
    fields = {name: wire[name] for name in ("file_data", "file_id") if wire.get(name) is not None}
    if not fields:
        refuse_absence(f"{path}.file_data", "base64; or 'file_url' or 'file_id' in its place")
    try:
        part = part_from_wire(
            {"type": "file", "file": {**fields, "filename": filename}}, path, ("file",)
        )
    except LLMInvalidRequestError as error:
        at = (error.param or path).replace(f"{path}.file.", f"{path}.")
        message = error.message.replace(f"{path}.file.", f"{path}.")
        raise LLMInvalidRequestError(message, param=at, code=error.code) from error
    assert isinstance(part, FilePart)
    return part


def _part_to_wire(part: ContentPart) -> dict[str, Any]:
    match part:
        case TextPart():
            return {"type": "input_text", "text": part.text}
        case ImagePart():
            image: Any = part_to_wire(part)["image_url"]
            # The specification requires a detail, and says that this is the usual one.
            detail = part.detail or "auto"
            return {"type": "input_image", "image_url": image["url"], "detail": detail}
        case AudioPart():
            return part_to_wire(part)
        case FilePart():
            if part.data is None and part.file_id is None:
                named = {} if part.filename is None else {"filename": part.filename}
                return {"type": "input_file", "file_url": part.url, **named}
            described: Any = part_to_wire(part)["file"]
            return {"type": "input_file", **described}


def _only_text(part: ContentPart) -> str:
    if not isinstance(part, TextPart):
        raise LLMInvalidRequestError(
            f"An assistant's turn holds a {type(part).__name__}; the Responses API takes text alone "
            "there.",
            param="messages",
        )
    return part.text
