"""JSON in and out: strict about what callers send, forgiving about what backends answer.

A caller's body is untrusted: what JSON leaves open (duplicate keys, NaN, lone surrogates, depth)
is refused here once, so that no reader further in has to think of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NoReturn

import msgspec

from headrace.contracts.errors import LLMBadResponseError, LLMInvalidRequestError

MAX_DEPTH = 100
"""How many arrays and objects may lie in one another; real requests stay below 20."""

_KINDS = {
    type(None): "null",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "an array",
    tuple: "an array",
}

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def decode(body: bytes) -> Any:
    """The value of a caller's ``body``, or LLMInvalidRequestError saying what is wrong with it."""
    try:
        value = _decode(body)
    except RecursionError as error:
        raise _too_deep() from error
    except UnicodeDecodeError as error:
        raise _refusal(_bad_utf8(body)) from error
    except msgspec.DecodeError as error:
        raise _refusal(_reason(body, error)) from error
    # One bracket cannot lie deeper than there are brackets; most bodies have few.
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        _refuse_depth(value)
    # The decoder keeps the last of two equal keys. Written again, such a body has fewer quotes; an
    # escaped quote is the one other thing that could differ, and only where it is spelt \u0022.
    if body.count(b'"') != _encode(value).count(b'"') or b"u0022" in body:
        _refuse_duplicates(body)
    return value


def decode_object(body: bytes) -> dict[str, Any]:
    """The object that a caller's ``body`` must be, or LLMInvalidRequestError."""
    value = decode(body)
    if type(value) is not dict:
        raise LLMInvalidRequestError(
            f"The request body must be a JSON object, but it is {kind(value)}."
        )
    return value


def encode(value: object) -> bytes:
    """``value`` as compact JSON in UTF-8."""
    try:
        return _encode(value)
    except UnicodeEncodeError as error:
        raise LLMInvalidRequestError(
            f"Text with the lone surrogate {error.object[error.start]!r} cannot be sent: "
            "it is no valid Unicode. Replace it, for example by '\\ufffd'."
        ) from error
    except (TypeError, RecursionError) as error:
        raise LLMInvalidRequestError(f"A value cannot be written as JSON: {error}.") from error


def decode_reply(body: bytes) -> Any:
    """The value of a backend's answer, or LLMBadResponseError; duplicate keys are let pass."""
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_reply(body, error) from error


def bad_reply(body: bytes, error: Exception) -> LLMBadResponseError:
    """The error for a backend's answer that ``error`` says cannot be read."""
    start = shorten(body[:200].decode("utf-8", "replace"))
    return LLMBadResponseError(
        f"The backend's answer is not what its format says: {error}. It begins {start}."
    )


def kind(value: object) -> str:
    """What JSON calls the type of ``value``, with its article."""
    return _KINDS.get(type(value), "an object")


def shorten(value: object, limit: int = 60) -> str:
    """``value`` as JSON, cut to about ``limit`` characters, for use in a message."""
    if isinstance(value, str):
        value = value[: limit + 1]
    elif isinstance(value, list | dict) and len(value) > limit:
        return f"{kind(value)} of {len(value)} entries"
    text = _encode(value).decode()
    return text if len(text) <= limit else text[:limit] + "..."


def _refusal(reason: str) -> LLMInvalidRequestError:
    return LLMInvalidRequestError(f"The request body is not valid JSON: {reason}.")


def _too_deep() -> LLMInvalidRequestError:
    return _refusal(f"arrays and objects lie more than {MAX_DEPTH} deep in one another")


def _bad_utf8(body: bytes) -> str:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return f"byte {error.start} (0x{body[error.start]:02x}) is not UTF-8"
    return "a string is not UTF-8"


def _reason(body: bytes, error: msgspec.DecodeError) -> str:
    """The decoder's reason, where it has a good one, else a better one."""
    if not body.strip():
        return "it is empty"
    if body.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        return "it begins with a byte order mark; send plain UTF-8"
    text = str(error)
    if "out of range" in text:
        return "a number is too large to be read"
    if "surrogate" in text or _ends_in_half_a_pair(body, text):
        return "a \\u escape is half of a surrogate pair"
    if "truncated" in text:
        return "it ends too early"
    return text.removeprefix("JSON is malformed: ")


def _ends_in_half_a_pair(body: bytes, reason: str) -> bool:
    """Whether ``body`` is complete but for a half pair, which the decoder reports as cut short."""
    if "truncated" not in reason or b"\\u" not in body:
        return False
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_depth(value: object) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            child
            for node in level
            for child in _children(node)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return
    raise _too_deep()


def _children(node: Any) -> Iterable[object]:
    if type(node) is dict:
        return node.values()
    return node if type(node) is list else ()


def _refuse_duplicates(body: bytes) -> None:
    def refuse(pairs: list[tuple[str, object]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                _duplicate(key)
            seen.add(key)

    json.loads(body, object_pairs_hook=refuse)


def _duplicate(key: str) -> NoReturn:
    raise LLMInvalidRequestError(
        f"The request body has the key {shorten(key)} twice in one object; give it once.",
        param=key if len(key) <= 60 else None,
    )
