"""What the vendors' batch formats have in common: lines, checks, and JSON within JSON as it came."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import Any

import msgspec

from headrace.contracts.errors import LLMBadResponseError, LLMInvalidRequestError
from headrace.wire.json import decode_reply, shorten
from headrace.wire.openai_fields import filled_text, refuse, refuse_absence, refuse_type, text

MOST_CUSTOM_ID = 512
"""Characters of a custom id."""
MOST_METADATA = 16


def raw(body: bytes) -> msgspec.Raw:
    """JSON that is written into a line of other JSON as it is, but for line ends between its parts."""
    return msgspec.Raw(msgspec.json.format(body, indent=-1) if b"\n" in body else body)


def lines(items: Iterable[bytes]) -> bytes:
    """A JSONL file of ``items``."""
    return b"".join(item + b"\n" for item in items)


def object_body(body: msgspec.Raw, path: str) -> bytes:
    """The JSON object that stands at ``path``, which must be there."""
    found = bytes(body).strip()
    if not found or found == b"null":
        refuse_absence(path, "the request's body, an object")
    if found[:1] != b"{":
        refuse_type(path, decode_reply(found), "an object")
    return found


def custom_id(value: object, path: str = "custom_id") -> str:
    """A custom id, which must be a string of some length."""
    if value is None:
        refuse_absence(path, "a string that is no other request's")
    found: str = filled_text(value, path)
    if len(found) > MOST_CUSTOM_ID:
        refuse(path, found, f"at most {MOST_CUSTOM_ID} characters")
    return found


def known_only(wire: dict[str, Any], names: Collection[str], path: str = "") -> None:
    """Refuse what no field of ours is called, for nobody else would read it."""
    for name in wire:
        if name not in names:
            near = get_close_matches(name, names, n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise LLMInvalidRequestError(
                f"Unknown parameter: '{path}{name[:100]}'. {hint}Known: "
                + ", ".join(f"'{each}'" for each in names)
                + ".",
                param=f"{path}{name[:100]}",
                code="unknown_parameter",
            )


def metadata(value: object, path: str = "metadata") -> dict[str, str] | None:
    """At most sixteen short texts under short names."""
    if value is None:
        return None
    if not isinstance(value, dict):
        refuse_type(path, value, "an object")
    if len(value) > MOST_METADATA:
        refuse(path, value, f"at most {MOST_METADATA} entries")
    for name, each in value.items():
        where = f"{path}.{name[:80]}"
        if len(name) > 64:
            refuse(where, name, "a name of at most 64 characters")
        if len(text(each, where)) > 512:
            refuse(where, each, "a text of at most 512 characters")
    return dict(value)


def reply_object(body: bytes, what: str) -> dict[str, Any]:
    """The object that a server's answer must be."""
    wire = decode_reply(body)
    if not isinstance(wire, dict):
        raise LLMBadResponseError(f"{what} is an object, but this one is {shorten(wire)}.")
    return wire


def said(wire: dict[str, Any], key: str, what: str) -> str:
    """The text that a server's object must have as ``key``."""
    found = wire.get(key)
    if not isinstance(found, str):
        raise LLMBadResponseError(f"{what} has a '{key}', but this one says {shorten(found)}.")
    return found


def texts(value: object) -> dict[str, str] | None:
    """Metadata as a server tells it."""
    if not isinstance(value, dict) or not value:
        return None
    return {str(name): str(each) for name, each in value.items()}


def whole(value: object) -> int:
    """A count that a server may leave out."""
    return value if type(value) is int else 0


def instant(value: object) -> float | None:
    """Unix seconds that a server may leave out."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def unix(value: float | None) -> int | None:
    """Unix seconds, whole."""
    return None if value is None else int(value)
