"""The content blocks of Anthropic's messages that hold text, images and documents, both ways.

A lone text block without a cache mark is the same as plain text, and is read as such: every other
format and every chat template knows what to do with plain text.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any, NoReturn

from attrs import evolve

from headrace.contracts.errors import LLMCapabilityError
from headrace.contracts.messages import (
    AudioPart,
    CacheFor,
    ContentPart,
    FilePart,
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

ANY_PART = ("text", "image", "document")
IMAGE_FILE = "image/*"
"""The media type of a FilePart that stands for an uploaded image, of which only the id is known."""

_ttl = one_of("5m", "1h")
_text_type = one_of("text/plain")


def content_from_wire(wire: Any, path: str, kinds: Sequence[str]) -> str | tuple[ContentPart, ...]:
    """Content that is text, or an array of blocks of these ``kinds``."""
    if type(wire) is str:
        return wire
    if type(wire) is not list:
        refuse_type(path, wire, "a string or an array of content blocks")
    return plain_if_alone(
        tuple(part_from_wire(block, f"{path}.{i}", kinds) for i, block in enumerate(wire))
    )


def plain_if_alone(parts: tuple[ContentPart, ...]) -> str | tuple[ContentPart, ...]:
    """``parts`` as plain text where they are no more than that."""
    if not parts:
        return ""
    first = parts[0]
    if len(parts) == 1 and isinstance(first, TextPart) and first.cache is None:
        return first.text
    return parts


def content_to_wire(content: str | tuple[ContentPart, ...]) -> str | list[dict[str, object]]:
    """``content`` as a message has it."""
    return content if isinstance(content, str) else [part_to_wire(part) for part in content]


def kind_of(wire: Any, path: str, kinds: Sequence[str]) -> str:
    """The ``type`` of the block at ``path``, which must be one of ``kinds``."""
    kind = member(mapping(wire, path), "type", path, text, f"one of {', '.join(kinds)}")
    if kind not in kinds:
        refuse(f"{path}.type", kind, "one of " + ", ".join(f"'{each}'" for each in kinds))
    return str(kind)


def part_from_wire(wire: Any, path: str, kinds: Sequence[str] = ANY_PART) -> ContentPart:
    """One block of text, image or document."""
    kind = kind_of(wire, path, kinds)
    cache = cache_from_wire(wire, path)
    if kind == "text":
        if "text" not in wire:
            refuse_absence(f"{path}.text", "a string")
        return TextPart(text=text(wire["text"], f"{path}.text"), cache=cache)
    source = member(wire, "source", path, mapping, "an object with a 'type'")
    if kind == "image":
        return _image(source, f"{path}.source", cache)
    document = _document(source, f"{path}.source")
    return evolve(document, filename=optional(wire, "title", path, text), cache=cache)


def part_to_wire(part: ContentPart) -> dict[str, object]:
    """``part`` as a message has it; LLMCapabilityError for what Anthropic takes in no form."""
    match part:
        case TextPart():
            wire: dict[str, object] = {"type": "text", "text": part.text}
        case ImagePart():
            wire = {"type": "image", "source": _image_to_wire(part)}
        case AudioPart():
            raise LLMCapabilityError(
                "Anthropic's messages take no recordings; send a transcript, or ask another model.",
                param="messages",
            )
        case FilePart(media_type="image/*", file_id=str()):
            return _marked({"type": "image", "source": _by_id(part)}, part.cache)
        case FilePart():
            wire = {"type": "document", "source": _document_to_wire(part)}
            if part.filename is not None:
                wire["title"] = part.filename
    return _marked(wire, part.cache)


def cache_from_wire(wire: dict[str, Any], path: str) -> CacheFor | None:
    """How long the prompt up to this block is to be kept, where ``cache_control`` says so."""
    mark = optional(wire, "cache_control", path, mapping)
    if mark is None:
        return None
    at = f"{path}.cache_control"
    if mark.get("type") != "ephemeral":
        refuse(f"{at}.type", mark.get("type"), "'ephemeral'")
    ttl: CacheFor = optional(mark, "ttl", at, _ttl) or "5m"
    return ttl


def cache_to_wire(cache: CacheFor) -> dict[str, object]:
    """A mark that keeps the prompt so long; five minutes are what it means without words."""
    return {"type": "ephemeral"} if cache == "5m" else {"type": "ephemeral", "ttl": cache}


def _marked(wire: dict[str, object], cache: CacheFor | None) -> dict[str, object]:
    if cache is not None:
        wire["cache_control"] = cache_to_wire(cache)
    return wire


def _image(source: dict[str, Any], path: str, cache: CacheFor | None) -> ContentPart:
    kind = kind_of(source, path, ("base64", "url", "file"))
    if kind == "file":
        return FilePart(file_id=_file_id(source, path), media_type=IMAGE_FILE, cache=cache)
    if kind == "url":
        return ImagePart(url=_url(source, path), cache=cache)
    media_type = member(source, "media_type", path, text, "such as 'image/png'")
    if not media_type.startswith("image/"):
        refuse(f"{path}.media_type", media_type, "such as 'image/png'")
    return ImagePart(data=_base64(source, path), media_type=media_type, cache=cache)


def _image_to_wire(part: ImagePart) -> dict[str, object]:
    if part.data is None:
        return {"type": "url", "url": part.url}
    media_type = part.media_type or image_type(part.data) or "image/png"
    return {"type": "base64", "media_type": media_type, "data": b64encode(part.data).decode()}


def _document(source: dict[str, Any], path: str) -> FilePart:
    match kind_of(source, path, ("base64", "text", "url", "file")):
        case "file":
            return FilePart(file_id=_file_id(source, path))
        case "url":
            return FilePart(url=_url(source, path))
        case "text":
            said = member(source, "data", path, text, "the document's text")
            optional(source, "media_type", path, _text_type)
            return FilePart(data=said.encode(), media_type="text/plain")
    media_type = member(source, "media_type", path, text, "'application/pdf'")
    return FilePart(data=_base64(source, path), media_type=media_type)


def _document_to_wire(part: FilePart) -> dict[str, object]:
    if part.file_id is not None:
        return _by_id(part)
    if part.data is None:
        return {"type": "url", "url": part.url}
    media_type = part.media_type or ("application/pdf" if part.data[:4] == b"%PDF" else None)
    if media_type == "application/pdf":
        data = b64encode(part.data).decode()
        return {"type": "base64", "media_type": media_type, "data": data}
    if media_type is None or media_type.startswith("text/"):
        try:
            return {"type": "text", "media_type": "text/plain", "data": part.data.decode()}
        except UnicodeDecodeError:
            _refuse_file(f"a file that is neither PDF nor text in UTF-8 ({media_type})")
    _refuse_file(f"a file of type {media_type!r}")


def _by_id(part: FilePart) -> dict[str, object]:
    return {"type": "file", "file_id": part.file_id}


def _refuse_file(what: str) -> NoReturn:
    raise LLMCapabilityError(
        f"Anthropic's messages do not take {what}; send PDF or plain text.", param="messages"
    )


def _file_id(source: dict[str, Any], path: str) -> str:
    return str(member(source, "file_id", path, filled_text, "the id that it got at upload"))


def _url(source: dict[str, Any], path: str) -> str:
    url = str(member(source, "url", path, filled_text, "an http(s) URL"))
    if not url.startswith(("http://", "https://")):
        refuse(f"{path}.url", url, "an http(s) URL")
    return url


def _base64(source: dict[str, Any], path: str) -> bytes:
    content = member(source, "data", path, filled_text, "base64")
    try:
        return b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        refuse(f"{path}.data", content, "valid base64")
