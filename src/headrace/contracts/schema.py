"""JSON Schema of contracts: a field's ``metadata["help"]`` is its description.

``metadata["minimum"]`` and ``["maximum"]`` are its bounds. The words are OpenAPI 3.1's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from attrs import NOTHING, Attribute, fields, has

_SINGLE: Mapping[Any, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    type(None): "null",
}


def schemas(classes: Iterable[type]) -> dict[str, dict[str, Any]]:
    """A schema for each of ``classes``, by its name; they refer to one another by name."""
    return {cls.__name__: schema_of(cls) for cls in classes}


def schema_of(cls: type) -> dict[str, Any]:
    """The schema of one attrs class."""
    hints = get_type_hints(cls)
    own: tuple[Attribute[Any], ...] = fields(cls)
    required = [f.name for f in own if f.default is NOTHING]
    schema: dict[str, Any] = {"type": "object"}
    if cls.__doc__:
        schema["description"] = " ".join(cls.__doc__.split()).replace("``", "`")
    if required:
        schema["required"] = required
    schema["properties"] = {f.name: _field(f, hints[f.name]) for f in own}
    schema["additionalProperties"] = False
    return schema


def _field(f: Attribute[Any], hint: Any) -> dict[str, Any]:
    schema = _type(hint)
    schema["description"] = f.metadata["help"]
    schema |= {word: f.metadata[word] for word in ("minimum", "maximum") if word in f.metadata}
    plain = (str, int, float, bool)
    if f.default is None or (f.default is not NOTHING and isinstance(f.default, plain)):
        schema["default"] = f.default
    return schema


def _type(hint: Any) -> dict[str, Any]:
    if hint in _SINGLE:
        return {"type": _SINGLE[hint]}
    if has(hint):
        return {"$ref": f"#/components/schemas/{hint.__name__}"}
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return {"type": "string", "enum": list(args)}
    if origin in (Union, UnionType):
        return _either([_type(each) for each in args])
    if origin in (list, tuple, Sequence):
        return {"type": "array", "items": _type(args[0])}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": _type(args[1])}
    raise TypeError(f"no JSON Schema for {hint!r}")


def _either(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Single types together in one list; anything else side by side."""
    null = {"type": "null"}
    others = [part for part in parts if part != null]
    if len(others) == 1 and isinstance(others[0].get("type"), str) and null in parts:
        only = {**others[0], "type": [others[0]["type"], "null"]}
        if "enum" in only:
            only["enum"] = [*only["enum"], None]
        return only
    return {"anyOf": parts}
