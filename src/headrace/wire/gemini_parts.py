"""The parts of Gemini's contents that hold text, images, recordings and documents, both ways.

https://ai.google.dev/api/caching#Part. Media types are Google's to know: what it does not take, it
refuses itself.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Collection
from typing import Any

from headrace.contracts.messages import AudioPart, ContentPart, FilePart, ImagePart, TextPart
from headrace.wire.gemini_names import renamed
from headrace.wire.openai_fields import (
    boolean,
    filled_text,
    mapping,
    member,
    optional,
    refuse,
    refuse_absence,
    text,
)

KINDS = ("text", "inlineData", "fileData", "functionCall", "functionResponse")
"""What a part may hold here; one of them."""

FIELDS = frozenset(("thought", "thoughtSignature"))
MEDIA = frozenset(("mimeType", "data", "fileUri", "displayName"))

_RUN_THERE = frozenset(("executableCode", "codeExecutionResult", "toolCall", "toolResponse"))
_KNOWN = FIELDS | _RUN_THERE | frozenset(KINDS)
_FILES = re.compile(r"https://generativelanguage\.googleapis\.com/v1[a-z]*/files/([\w-]+)")
_FILES_BASE = "https://generativelanguage.googleapis.com/v1beta/files/"
_BY_ENDING = {
    **{"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp"},
    **{"gif": "image/gif", "heic": "image/heic", "heif": "image/heif", "bmp": "image/bmp"},
    **{"pdf": "application/pdf", "txt": "text/plain", "html": "text/html", "csv": "text/csv"},
    **{"mp4": "video/mp4", "webm": "video/webm", "mp3": "audio/mp3", "wav": "audio/wav"},
}
_MAGIC = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
)
_SOUNDS = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav", "x-flac": "flac", "x-aac": "aac"}
_USUAL_IMAGE = "image/jpeg"


def part_of(value: Any, path: str, kinds: Collection[str]) -> tuple[str, dict[str, Any]]:
    """What the part at ``path`` holds, which must be one of ``kinds``; and the part."""
    wire = renamed(value, path, _KNOWN)
    held = [name for name in (*KINDS, *_RUN_THERE) if wire.get(name) is not None]
    if not held and wire.get("thoughtSignature") is not None:
        return "text", {**wire, "text": ""}
    if not held:
        refuse_absence(f"{path}.{next(iter(kinds))}", f"a part with one of {', '.join(kinds)}")
    if len(held) > 1:
        refuse(
            f"{path}.{held[1]}", wire[held[1]], f"one of it and '{held[0]}': a part holds one thing"
        )
    kind = held[0]
    if kind not in kinds:
        if kind in _RUN_THERE:
            right = "none: what Google's own tools did cannot be told to other models"
        else:
            right = "one of " + ", ".join(f"'{each}'" for each in kinds) + " here"
        refuse(f"{path}.{kind}", wire[kind], right)
    return kind, wire


def is_thought(wire: dict[str, Any], path: str) -> bool:
    """Whether a part is a piece of a thought."""
    return bool(optional(wire, "thought", path, boolean))


def content_from_part(kind: str, wire: dict[str, Any], path: str) -> ContentPart:
    """What is in a part of text, inlineData or fileData."""
    at = f"{path}.{kind}"
    if kind == "text":
        return TextPart(text=text(wire["text"], at))
    media = renamed(mapping(wire[kind], at), at, MEDIA)
    return _inline(media, at) if kind == "inlineData" else _by_uri(media, at)


def content_to_part(part: ContentPart) -> dict[str, object]:
    """``part`` as a content has it."""
    match part:
        case TextPart():
            return {"text": part.text}
        case ImagePart(data=bytes() as data):
            return _data(data, part.media_type or _sniffed(data))
        case ImagePart():
            url = part.url or ""
            return _uri(url, part.media_type or _by_ending(url) or _USUAL_IMAGE)
        case AudioPart():
            return _data(part.data, f"audio/{part.format}")
        case FilePart():
            return _file_to_part(part)


def _file_to_part(part: FilePart) -> dict[str, object]:
    if part.data is not None:
        return _data(part.data, part.media_type or _kind_of_file(part.data))
    if part.file_id is not None:
        name = part.file_id
        uri = name if "://" in name else _FILES_BASE + name.removeprefix("files/")
        return _uri(uri, part.media_type)
    url = part.url or ""
    return _uri(url, part.media_type or _by_ending(url))


def _inline(media: dict[str, Any], path: str) -> ContentPart:
    media_type = member(media, "mimeType", path, filled_text, "such as 'image/png'")
    content = member(media, "data", path, filled_text, "base64")
    data = from_base64(content)
    if data is None:
        refuse(f"{path}.data", content, "valid base64")
    family, _, kind = media_type.partition("/")
    if family == "image":
        return ImagePart(data=data, media_type=media_type)
    if family == "audio" and kind:
        return AudioPart(data=data, format=_SOUNDS.get(kind, kind))
    return FilePart(data=data, media_type=media_type, filename=_name(media, path))


def _by_uri(media: dict[str, Any], path: str) -> ContentPart:
    uri = member(media, "fileUri", path, filled_text, "where the file is")
    media_type = optional(media, "mimeType", path, filled_text)
    name = _name(media, path)
    uploaded = _FILES.fullmatch(uri)
    if uploaded is not None:
        return FilePart(file_id=uploaded[1], media_type=media_type, filename=name)
    if not uri.startswith(("http://", "https://")):
        # A place of Google's own, such as gs://: its name is all that others know of it.
        return FilePart(file_id=uri, media_type=media_type, filename=name)
    said = None if media_type == _by_ending(uri) else media_type
    if media_type is not None and media_type.startswith("image/"):
        usual = _by_ending(uri) is None and media_type == _USUAL_IMAGE
        return ImagePart(url=uri, media_type=None if usual else said)
    return FilePart(url=uri, media_type=said, filename=name)


def from_base64(content: str) -> bytes | None:
    """The bytes that ``content`` says in either alphabet; ``None`` where it is no base64."""
    usual = content.replace("-", "+").replace("_", "/") if content.isascii() else content
    try:
        return b64decode(usual + "=" * (-len(usual) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _name(media: dict[str, Any], path: str) -> str | None:
    name: str | None = optional(media, "displayName", path, text)
    return name


def _data(data: bytes, media_type: str) -> dict[str, object]:
    return {"inlineData": {"mimeType": media_type, "data": b64encode(data).decode()}}


def _uri(uri: str, media_type: str | None) -> dict[str, object]:
    wire: dict[str, object] = {"fileUri": uri}
    if media_type is not None:
        wire["mimeType"] = media_type
    return {"fileData": wire}


def _by_ending(url: str) -> str | None:
    name = url.partition("?")[0].partition("#")[0].rpartition("/")[2]
    return _BY_ENDING.get(name.rpartition(".")[2].lower()) if "." in name else None


def _sniffed(data: bytes) -> str:
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), "image/png")


def _kind_of_file(data: bytes) -> str:
    if data.startswith(b"%PDF"):
        return "application/pdf"
    try:
        data.decode()
    except UnicodeDecodeError:
        return "application/octet-stream"
    return "text/plain"
