"""JSON Schema of attrs contracts, by the rules of ``headrace.contracts.convert``."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal, Union, get_args, get_origin

from attrs import NOTHING, fields, has, resolve_types

PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    type(None): {"type": "null"},
}


def schema_of(cls: type, meanings: Mapping[type, Mapping[str, str]]) -> dict[str, Any]:
    """The whole schema of ``cls``, with a definition for each class in it."""
    definitions: dict[str, Any] = {}
    _define(cls, meanings, definitions)
    root = definitions.pop(cls.__name__)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": cls.__name__,
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


def classes_of(cls: type) -> list[type]:
    """``cls`` and every contract that it holds, in the order in which one meets them."""
    found: list[type] = []

    def visit(tp: Any) -> None:
        if isinstance(tp, type) and has(tp):
            if tp not in found:
                found.append(tp)
                for item in fields(resolve_types(tp)):
                    visit(item.type)
        else:
            for inner in get_args(tp):
                visit(inner)

    visit(cls)
    return found


def _define(cls: type, meanings: Any, definitions: dict[str, Any]) -> None:
    if cls.__name__ in definitions:
        return
    definitions[cls.__name__] = {}
    properties, required = {}, []
    for item in fields(resolve_types(cls)):
        properties[item.name] = _schema(item.type, meanings, definitions)
        if said := meanings.get(cls, {}).get(item.name):
            properties[item.name] = {"description": said, **properties[item.name]}
        if item.default is NOTHING:
            required.append(item.name)
    definitions[cls.__name__] = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _schema(  # noqa: PLR0911 - a table of kinds, one after the other
    tp: Any, meanings: Any, definitions: dict[str, Any]
) -> dict[str, Any]:
    origin, args = get_origin(tp), get_args(tp)
    if tp in PLAIN:
        return dict(PLAIN[tp])
    if origin is Literal:
        return {"enum": list(args)}
    if origin in (Union, types.UnionType):
        classes = [a for a in args if isinstance(a, type) and has(a)]
        tagged = classes if len(classes) > 1 else []
        return {
            "anyOf": [
                _tagged(a, meanings, definitions)
                if a in tagged
                else _schema(a, meanings, definitions)
                for a in args
            ]
        }
    if origin is tuple and args[-1] is not Ellipsis:
        items = [_schema(a, meanings, definitions) for a in args]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "items": False}
    if origin in (tuple, list, Sequence):
        return {"type": "array", "items": _schema(args[0], meanings, definitions)}
    if origin in (dict, Mapping):
        return {
            "type": "object",
            "additionalProperties": _schema(args[1], meanings, definitions),
        }
    if isinstance(tp, type) and has(tp):
        _define(tp, meanings, definitions)
        return {"$ref": f"#/$defs/{tp.__name__}"}
    if isinstance(tp, type) and issubclass(tp, PurePath):
        return {"type": "string"}
    assert tp in (object, Any), tp
    return {}


def _tagged(cls: type, meanings: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """One of several classes, which says by its ``type`` that it is this one."""
    _define(cls, meanings, definitions)
    plain = definitions[cls.__name__]
    word = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__.removesuffix("Part")).lower()
    plain["properties"] = {"type": {"const": word}, **plain["properties"]}
    plain["required"] = list(dict.fromkeys(["type", *plain["required"]]))
    return {"$ref": f"#/$defs/{cls.__name__}"}
