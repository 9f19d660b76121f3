"""The parts of a message's content in OpenAI's words: text, images, sound and files."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any

from headrace.contracts.errors import LLMCapabilityError
from headrace.contracts.messages import (
    AudioPart,
    ContentPart,
    FilePart,
    ImageDetail,
    ImagePart,
    TextPart,
)
from headrace.wire.image_types import image_type
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

_detail = one_of("auto", "low", "high")


def content_from_wire(wire: Any, path: str, kinds: Sequence[str]) -> str | tuple[ContentPart, ...]:
    """Content that is text, or an array of parts of these ``kinds``."""
    if type(wire) is str:
        return wire
    if type(wire) is not list:
        refuse_type(path, wire, "a string or an array of content parts")
    return tuple(part_from_wire(part, f"{path}[{i}]", kinds) for i, part in enumerate(wire))


def content_to_wire(content: str | tuple[ContentPart, ...]) -> object:
    """``content`` as a message has it."""
    return content if isinstance(content, str) else [part_to_wire(part) for part in content]


def part_from_wire(wire: Any, path: str, kinds: Sequence[str]) -> ContentPart:
    """One part, of one of these ``kinds``."""
    kind = member(mapping(wire, path), "type", path, text, f"one of {', '.join(kinds)}")
    if kind not in kinds:
        refuse(f"{path}.type", kind, "one of " + ", ".join(f"'{each}'" for each in kinds))
    if kind == "text":
        if "text" not in wire:
            refuse_absence(f"{path}.text", "a string")
        return TextPart(text=text(wire["text"], f"{path}.text"))
    if kind == "image_url" and type(wire.get(kind)) is str:  # Mistral's shorter form
        return _image_at(wire[kind], f"{path}.{kind}")
    body = member(wire, kind, path, mapping, "an object")
    at = f"{path}.{kind}"
    if kind == "image_url":
        return _image(body, at)
    if kind == "input_audio":
        data = _base64(member(body, "data", at, filled_text, "base64"), f"{at}.data")
        return AudioPart(
            data=data, format=member(body, "format", at, filled_text, "'wav' or 'mp3'")
        )
    return _file(body, at)


def part_to_wire(part: ContentPart) -> dict[str, object]:
    """``part`` as a message has it."""
    match part:
        case TextPart():
            return {"type": "text", "text": part.text}
        case ImagePart():
            return {"type": "image_url", "image_url": _image_to_wire(part)}
        case AudioPart():
            audio = {"data": b64encode(part.data).decode(), "format": part.format}
            return {"type": "input_audio", "input_audio": audio}
        case FilePart():
            return {"type": "file", "file": _file_to_wire(part)}


def _image(wire: dict[str, Any], path: str) -> ImagePart:
    url = member(wire, "url", path, filled_text, "an http(s) URL or a data: URL")
    return _image_at(url, f"{path}.url", optional(wire, "detail", path, _detail))


def _image_at(url: str, path: str, detail: ImageDetail | None = None) -> ImagePart:
    if url.startswith(("http://", "https://")):
        return ImagePart(url=url, detail=detail)
    if not url.startswith("data:"):
        refuse(path, url, "an http(s) URL or a data: URL with base64")
    media_type, data = _data_url(url, path)
    return ImagePart(data=data, media_type=media_type, detail=detail)


def _image_to_wire(part: ImagePart) -> dict[str, object]:
    if part.data is not None:
        media_type = part.media_type or image_type(part.data) or "application/octet-stream"
        wire: dict[str, object] = {"url": _to_data_url(part.data, media_type)}
    else:
        wire = {"url": part.url}
    if part.detail is not None:
        wire["detail"] = part.detail
    return wire


def _file(wire: dict[str, Any], path: str) -> FilePart:
    file_id = optional(wire, "file_id", path, filled_text)
    filename = optional(wire, "filename", path, text)
    content = optional(wire, "file_data", path, filled_text)
    if content is None:
        if file_id is None:
            refuse_absence(f"{path}.file_data", "base64, or a 'file_id' in its place")
        return FilePart(file_id=file_id, filename=filename)
    at = f"{path}.file_data"
    media_type, data = (
        _data_url(content, at) if content.startswith("data:") else (None, _base64(content, at))
    )
    return FilePart(data=data, file_id=file_id, filename=filename, media_type=media_type)


def _file_to_wire(part: FilePart) -> dict[str, object]:
    if part.data is None and part.file_id is None:
        raise LLMCapabilityError(
            "OpenAI's chat format takes a file by its bytes or by its id, not by URL "
            f"({part.url!r}); read it first and hand in 'data'.",
            param="messages",
        )
    wire: dict[str, object] = {}
    if part.data is not None:
        wire["file_data"] = (
            b64encode(part.data).decode()
            if part.media_type is None
            else _to_data_url(part.data, part.media_type)
        )
    if part.file_id is not None:
        wire["file_id"] = part.file_id
    if part.filename is not None:
        wire["filename"] = part.filename
    return wire


def _data_url(url: str, path: str) -> tuple[str | None, bytes]:
    head, comma, content = url.partition(",")
    media_type, semicolon, encoding = head.removeprefix("data:").rpartition(";")
    if not comma or not semicolon or encoding.strip().lower() != "base64":
        refuse(path, url, "a data: URL of the form 'data:image/png;base64,...'")
    return media_type or None, _base64(content, path)


def _to_data_url(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{b64encode(data).decode()}"


def _base64(content: str, path: str) -> bytes:
    try:
        return b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        refuse(path, content, "valid base64")
