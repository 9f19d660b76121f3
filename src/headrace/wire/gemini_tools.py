"""Functions that a model may call, and whether it must, in Gemini's words, both ways.

https://ai.google.dev/api/caching#Tool
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from attrs import evolve

from headrace.contracts.messages import ToolSpec
from headrace.contracts.requests import NamedTool, ToolChoice
from headrace.wire.gemini_names import each_of, renamed
from headrace.wire.gemini_schemas import schema_from_wire
from headrace.wire.openai_fields import (
    array,
    filled_text,
    mapping,
    member,
    optional,
    refuse,
    refuse_absence,
    says,
    text,
)
from headrace.wire.openai_tools import check_schema

DECLARATION = frozenset({"name", "description", "parameters", "parametersJsonSchema"})
"""What of a declaration has a meaning here."""

_DECLARATION = DECLARATION | {"response", "responseJsonSchema", "behavior"}
_TOOL = frozenset({"functionDeclarations"})
_CONFIG = frozenset({"functionCallingConfig"})
_CALLING = frozenset({"mode", "allowedFunctionNames"})
_MODES = ("AUTO", "ANY", "NONE", "VALIDATED")


@says({"type": "array", "items": {"$ref": "#/components/schemas/GeminiTool"}})
def tools_from_wire(value: Any, path: str = "tools") -> tuple[ToolSpec, ...]:
    """The functions in ``tools``; what Google runs itself is refused by name."""
    return tuple(tool for tools in each_of(value, path, _tool) for tool in tools)


def tools_to_wire(tools: Iterable[ToolSpec]) -> list[dict[str, object]]:
    """``tools`` as a request has them: one tool of several functions."""
    return [{"functionDeclarations": [_declaration_to_wire(tool) for tool in tools]}]


@says(
    {
        "type": "object",
        "properties": {
            "functionCallingConfig": {
                "type": "object",
                "properties": {
                    "mode": {"enum": list(_MODES)},
                    "allowedFunctionNames": {"type": "array", "items": {"type": "string"}},
                },
            }
        },
    }
)
def config_from_wire(value: Any, path: str = "toolConfig") -> tuple[str, tuple[str, ...]]:
    """The mode, and the names of those functions that alone may be called."""
    wire = renamed(value, path, _CONFIG)
    at = f"{path}.functionCallingConfig"
    beyond = sorted(wire.keys() - _CONFIG)
    if beyond:
        right = "'functionCallingConfig' alone: tools that Google runs are not had here"
        refuse(f"{path}.{beyond[0]}"[:100], wire[beyond[0]], right)
    calling = renamed(wire.get("functionCallingConfig") or {}, at, _CALLING)
    mode = (optional(calling, "mode", at, text) or "AUTO").upper()
    if mode == "MODE_UNSPECIFIED":
        mode = "AUTO"
    if mode not in _MODES:
        refuse(f"{at}.mode", mode, "one of " + ", ".join(f"'{word}'" for word in _MODES))
    listed = optional(calling, "allowedFunctionNames", at, array) or []
    names = tuple(
        filled_text(name, f"{at}.allowedFunctionNames[{i}]") for i, name in enumerate(listed)
    )
    if names and mode not in ("ANY", "VALIDATED"):
        refuse(
            f"{at}.allowedFunctionNames", listed, f"none, for the mode is '{mode}' and not 'ANY'"
        )
    return mode, names


def chosen(
    tools: Sequence[ToolSpec], mode: str, names: Sequence[str]
) -> tuple[tuple[ToolSpec, ...], ToolChoice | None]:
    """The tools that are offered under a mode, and the choice that it leaves.

    Where some alone may be called, the others are not offered: that is the same to a model.
    """
    known = {tool.name for tool in tools}
    at = "toolConfig.functionCallingConfig"
    for i, name in enumerate(names):
        if name not in known:
            right = f"the name of one of the functions: {', '.join(sorted(known)[:10]) or 'none'}"
            refuse(f"{at}.allowedFunctionNames[{i}]", name, right)
    if mode == "ANY" and not tools:
        refuse(f"{at}.mode", mode, "'tools' with functions beside it; there are none")
    if mode == "ANY" and len(names) == 1:
        return tuple(tools), NamedTool(name=names[0])
    if names:
        tools = [tool for tool in tools if tool.name in names]
    if mode == "VALIDATED":
        # "Auto", with calls that meet their schemas.
        return tuple(evolve(tool, strict=True) for tool in tools), None
    words: dict[str, ToolChoice] = {"AUTO": "auto", "ANY": "required", "NONE": "none"}
    return tuple(tools), words[mode]


def config_to_wire(
    choice: ToolChoice | None, tools: Sequence[ToolSpec]
) -> dict[str, object] | None:
    """The ``toolConfig`` that says it; ``None`` where nothing is to be said."""
    if isinstance(choice, NamedTool):
        return _calling("ANY", allowedFunctionNames=[choice.name])
    if choice == "required":
        return _calling("ANY")
    if choice == "none":
        return _calling("NONE")
    if any(tool.strict for tool in tools):
        return _calling("VALIDATED")
    return None if choice is None else _calling("AUTO")


def _calling(mode: str, **more: object) -> dict[str, object]:
    return {"functionCallingConfig": {"mode": mode, **more}}


def _tool(value: Any, path: str) -> list[ToolSpec]:
    wire = renamed(value, path, _TOOL)
    for name, each in wire.items():
        if name not in _TOOL and each is not None:
            right = "'functionDeclarations': tools that Google runs itself are not had here"
            refuse(f"{path}.{name}"[:100], each, right)
    declared = wire.get("functionDeclarations")
    if declared is None:
        refuse_absence(f"{path}.functionDeclarations", "an array of functions")
    return each_of(declared, f"{path}.functionDeclarations", _declaration)


def _declaration(value: Any, path: str) -> ToolSpec:
    wire = renamed(value, path, _DECLARATION)
    own, json_schema = wire.get("parameters"), wire.get("parametersJsonSchema")
    if own is not None and json_schema is not None:
        refuse(f"{path}.parametersJsonSchema", json_schema, "one of it and 'parameters'")
    at = f"{path}.{'parameters' if json_schema is None else 'parametersJsonSchema'}"
    if json_schema is not None:
        schema = mapping(json_schema, at)
        check_schema(schema, at)
    else:
        schema = {} if own is None else schema_from_wire(own, at)
    if schema.get("type", "object") != "object":
        refuse(f"{at}.type", schema["type"], "'object': arguments are named")
    return ToolSpec(
        name=member(wire, "name", path, filled_text, "the function's name"),
        description=optional(wire, "description", path, text) or "",
        input_schema=schema,
    )


def _declaration_to_wire(tool: ToolSpec) -> dict[str, object]:
    wire: dict[str, object] = {"name": tool.name}
    # The format demands one.
    wire["description"] = tool.description
    if tool.input_schema:
        wire["parametersJsonSchema"] = tool.input_schema
    return wire
