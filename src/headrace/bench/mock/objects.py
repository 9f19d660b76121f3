"""Answers that meet a schema: where a request has one, its answer is an object of that kind."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from msgspec import DecodeError, json

from headrace.bench.mock.faces import word
from headrace.contracts.errors import LLMInvalidRequestError

_DEEPEST = 24
_PIECE = 4
"""Characters of an object's text that are a token."""
_FORMATS = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "duration": "P1D",
    "email": "miller@example.com",
    "hostname": "mill.example.com",
    "uri": "https://example.com/",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


@lru_cache(maxsize=256)
def object_for(schema: bytes) -> tuple[str, ...]:
    """The text of an object that meets ``schema``, in tokens; the same for the same schema.

    Types, properties, choices, formats, lengths and bounds are held to; patterns are not.
    """
    try:
        root = json.decode(schema)
    except DecodeError as error:
        raise LLMInvalidRequestError(f"The schema is not JSON: {error}.") from error
    if not isinstance(root, Mapping):
        raise LLMInvalidRequestError(f"The schema is {root!r}; an object is expected.")
    text = json.encode(_made(root, root, 0)).decode()
    return tuple(text[at : at + _PIECE] for at in range(0, len(text), _PIECE))


def _made(node: Any, root: Mapping[str, Any], depth: int) -> Any:
    node = _resolved(node, root)
    if depth > _DEEPEST:
        raise LLMInvalidRequestError("The schema has no end: an object in it contains itself.")
    if "const" in node:
        return node["const"]
    if node.get("enum"):
        return node["enum"][0]
    for choice in ("anyOf", "oneOf"):
        if node.get(choice):
            return _made(_simplest(node[choice], root, depth), root, depth + 1)
    if node.get("allOf"):
        merged: dict[str, Any] = {key: value for key, value in node.items() if key != "allOf"}
        for each in node["allOf"]:
            part = _resolved(each, root)
            properties = {**merged.get("properties", {}), **part.get("properties", {})}
            merged = {**merged, **part, **({"properties": properties} if properties else {})}
        return _made(merged, root, depth + 1)
    kinds = node.get("type", "object" if "properties" in node else "string")
    kind = kinds if isinstance(kinds, str) else next(k for k in (*kinds, "null") if k != "null")
    return _of_kind(kind, node, root, depth)


def _of_kind(kind: str, node: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    if kind == "object":
        return {
            name: _made(each, root, depth + 1)
            for name, each in node.get("properties", {}).items()
            if name in node.get("required", ()) or depth < 2
        }
    if kind == "array":
        least = node.get("minItems", 0)
        several = [_made(each, root, depth + 1) for each in node.get("prefixItems", ())]
        if depth < _DEEPEST // 2:
            least = max(least, min(1, node.get("maxItems", 1)))
        wanted = max(0, least - len(several)) if "items" in node else 0
        return several + [_made(node["items"], root, depth + 1) for _ in range(wanted)]
    if kind in ("integer", "number"):
        return _number(node, whole=kind == "integer")
    if kind == "boolean":
        return True
    return None if kind == "null" else _text(node)


def _text(node: Mapping[str, Any]) -> str:
    known = _FORMATS.get(node.get("format", ""))
    if known is not None:
        return known
    least, most = node.get("minLength", 0), node.get("maxLength")
    text, index = "the water", 2
    while len(text) < least:
        text += word(index)
        index += 1
    return text[: most if most is not None else None][: max(least, 9)]


def _number(node: Mapping[str, Any], *, whole: bool) -> float | int:
    step = node.get("multipleOf") or (1 if whole else None)
    low, high = node.get("minimum"), node.get("maximum")
    above, below = node.get("exclusiveMinimum"), node.get("exclusiveMaximum")
    if above is not None:
        low = above + (step or 1e-3) if low is None else max(low, above + (step or 1e-3))
    if below is not None:
        high = below - (step or 1e-3) if high is None else min(high, below - (step or 1e-3))
    value = 1 if low is None else low
    if high is not None and value > high:
        value = high
    if step is not None:
        value = -(-value // step) * step
    return int(value) if whole else value


def _simplest(choices: list[Any], root: Mapping[str, Any], depth: int) -> Any:
    """The first that is not null; null, where it goes too deep already."""
    nulls = [each for each in choices if _resolved(each, root).get("type") == "null"]
    if nulls and depth > _DEEPEST // 2:
        return nulls[0]
    return next((each for each in choices if each not in nulls), choices[0])


def _resolved(node: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    for _ in range(_DEEPEST):
        if not isinstance(node, Mapping):
            return {}
        target = node.get("$ref")
        if target is None:
            return node
        found: Any = root
        for part in str(target).removeprefix("#").strip("/").split("/"):
            if part:
                found = found.get(part) if isinstance(found, Mapping) else None
        if found is None:
            raise LLMInvalidRequestError(f"The schema refers to {target!r}, which is not in it.")
        node = found
    raise LLMInvalidRequestError("The schema has no end: a reference in it leads to itself.")
