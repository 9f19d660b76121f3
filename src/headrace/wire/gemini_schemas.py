"""Gemini's own schemas, a selection of OpenAPI's 3.0 in words of their own, as JSON Schemas.

https://ai.google.dev/api/caching#Schema. Only read: where we write a schema, it goes into the field
that takes JSON Schema.
"""

from __future__ import annotations

from typing import Any

from headrace.wire.gemini_names import renamed
from headrace.wire.openai_fields import Check, array, mapping, refuse, refuse_type, text
from headrace.wire.openai_tools import check_schema

_TYPES = {
    "STRING": "string",
    "NUMBER": "number",
    "INTEGER": "integer",
    "BOOLEAN": "boolean",
    "ARRAY": "array",
    "OBJECT": "object",
    "NULL": "null",
}
# 64-bit integers travel as text.
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
_LEFT_OUT = frozenset({"nullable", "propertyOrdering", "example"})
_KNOWN = _LEFT_OUT | {
    *_COUNTS,
    *("type", "properties", "items", "anyOf", "additionalProperties", "defs", "ref"),
}
# What narrows a format down that JSON Schema has no word for: the type or the enum says it already.
_NO_FORMATS = ("enum", "float", "double", "int32", "int64")


def schema_from_wire(value: Any, path: str) -> dict[str, Any]:
    """The JSON Schema that says what the schema at ``path`` does."""
    schema = _schema(value, path)
    check_schema(schema, path)
    return schema


def _schema(value: Any, path: str) -> dict[str, Any]:
    wire = renamed(value, path, _KNOWN)
    found: dict[str, Any] = {}
    for name, each in wire.items():
        read = _READ.get(name)
        if each is None or name in _LEFT_OUT:
            continue
        if read is not None:
            ours, check = read
            said = check(each, f"{path}.{name}")
            if said is not None:
                found[ours] = said
        else:
            # JSON Schema's own words come here too: Gemini's clients write some of them.
            found[name] = each
    ordering = wire.get("propertyOrdering")
    if ordering is not None and "properties" in found:
        found["properties"] = _ordered(found["properties"], ordering, f"{path}.propertyOrdering")
    return _or_null(found) if wire.get("nullable") is True else found


def _type(value: Any, path: str) -> object:
    if type(value) is list:
        return [_type(each, f"{path}[{i}]") for i, each in enumerate(value)]
    word = text(value, path).upper()
    if word == "TYPE_UNSPECIFIED":
        return None
    if word not in _TYPES:
        refuse(path, value, "one of " + ", ".join(f"'{each}'" for each in _TYPES))
    return _TYPES[word]


def _several(value: Any, path: str) -> list[dict[str, Any]]:
    return [_schema(each, f"{path}[{i}]") for i, each in enumerate(array(value, path))]


def _named(value: Any, path: str) -> dict[str, Any]:
    return {name: _schema(each, f"{path}.{name}") for name, each in mapping(value, path).items()}


def _further(value: Any, path: str) -> object:
    return value if type(value) is bool else _schema(value, path)


def _reference(value: Any, path: str) -> str:
    return text(value, path).replace("#/defs/", "#/$defs/", 1)


def _format(value: Any, path: str) -> str | None:
    return None if text(value, path) in _NO_FORMATS else str(value)


def _ordered(found: dict[str, Any], ordering: Any, path: str) -> dict[str, Any]:
    first = [text(name, f"{path}[{i}]") for i, name in enumerate(array(ordering, path))]
    return {name: found[name] for name in dict.fromkeys([*first, *found]) if name in found}


def _count(value: Any, path: str) -> int:
    if type(value) is str and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    if type(value) is not int:
        refuse_type(path, value, "an integer")
    if value < 0:
        refuse(path, value, "a number that is not below 0")
    return value


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    kind = schema.get("type")
    if isinstance(kind, str) and "enum" not in schema:
        return {**schema, "type": [kind, "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


_READ: dict[str, tuple[str, Check]] = {
    "type": ("type", _type),
    "properties": ("properties", _named),
    "items": ("items", _schema),
    "anyOf": ("anyOf", _several),
    "additionalProperties": ("additionalProperties", _further),
    "defs": ("$defs", _named),
    "$defs": ("$defs", _named),
    "ref": ("$ref", _reference),
    "format": ("format", _format),
    **{name: (name, _count) for name in _COUNTS},
}
