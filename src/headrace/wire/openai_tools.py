"""Tools and tool choice in OpenAI's words, and a check that a schema has the shape of one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from headrace.contracts.messages import ToolSpec
from headrace.contracts.requests import NamedTool, ToolChoice
from headrace.wire.openai_fields import (
    array,
    boolean,
    filled_text,
    mapping,
    member,
    optional,
    refuse,
    refuse_absence,
    refuse_type,
    says,
    text,
)

_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_MAPS_OF_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS_OF_SCHEMAS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SCHEMAS = ("not", "if", "then", "else", "contains", "propertyNames", "additionalProperties")


@says({"type": "array", "items": {"$ref": "#/components/schemas/Tool"}})
def tools_from_wire(wire: Any, path: str = "tools") -> tuple[ToolSpec, ...]:
    """The ``tools`` of a request."""
    return tuple(_tool(tool, f"{path}[{i}]") for i, tool in enumerate(array(wire, path)))


def tools_to_wire(tools: Iterable[ToolSpec]) -> list[dict[str, object]]:
    """``tools`` as a request has them."""
    return [{"type": "function", "function": _function_to_wire(tool)} for tool in tools]


@says({"type": "array", "items": {"$ref": "#/components/schemas/Function"}, "deprecated": True})
def functions_from_wire(wire: Any, path: str = "functions") -> tuple[ToolSpec, ...]:
    """The tools in ``functions``, which came before ``tools``."""
    return tuple(_function(each, f"{path}[{i}]") for i, each in enumerate(array(wire, path)))


@says(
    {
        "anyOf": [
            {"type": "string", "enum": ["auto", "none", "required"]},
            {
                "type": "object",
                "required": ["type", "function"],
                "properties": {
                    "type": {"const": "function"},
                    "function": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {"name": {"type": "string"}},
                    },
                },
            },
        ]
    }
)
def choice_from_wire(wire: Any, path: str = "tool_choice") -> ToolChoice:
    """The ``tool_choice`` of a request."""
    right = "'auto', 'none', 'required' or {'type': 'function', 'function': {'name': ...}}"
    match wire:
        case "auto" | "none" | "required":
            return wire  # type: ignore[no-any-return]
        case "any":  # Mistral's word
            return "required"
        case str():
            refuse(path, wire, right)
        case dict():
            if wire.get("type", "function") != "function":
                refuse(f"{path}.type", wire["type"], "'function'")
            function = member(wire, "function", path, mapping, "an object with a 'name'")
            name = member(function, "name", f"{path}.function", filled_text, "a tool's name")
            return NamedTool(name=name)
    refuse_type(path, wire, right)


def choice_to_wire(choice: ToolChoice) -> object:
    """``choice`` as a request has it."""
    if isinstance(choice, NamedTool):
        return {"type": "function", "function": {"name": choice.name}}
    return choice


@says(
    {
        "anyOf": [
            {"type": "string", "enum": ["auto", "none"]},
            {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
        ],
        "deprecated": True,
    }
)
def function_call_from_wire(wire: Any, path: str = "function_call") -> ToolChoice:
    """The choice in ``function_call``, which came before ``tool_choice``."""
    if wire in ("auto", "none"):
        return wire  # type: ignore[no-any-return]
    if type(wire) is not dict:
        refuse(path, wire, "'auto', 'none' or {'name': ...}")
    return NamedTool(name=member(wire, "name", path, filled_text, "a function's name"))


def check_choice(choice: ToolChoice | None, tools: Sequence[ToolSpec]) -> None:
    """Refuses a choice that the tools cannot meet."""
    if choice is None or choice in ("auto", "none"):
        return
    if not tools:
        refuse("tool_choice", choice_to_wire(choice), "'tools' beside it; there are none")
    if isinstance(choice, NamedTool) and all(tool.name != choice.name for tool in tools):
        names = ", ".join(f"'{tool.name}'" for tool in tools[:10])
        refuse("tool_choice.function.name", choice.name, f"the name of one of the tools: {names}")


def check_schema(schema: Any, path: str) -> None:
    """Refuses what is no JSON Schema by its shape; whether it makes sense is the backend's affair."""
    if type(schema) is bool:
        return
    if type(schema) is not dict:
        refuse_type(path, schema, "a JSON Schema (an object)")
    for key, value in schema.items():
        at = f"{path}.{key}"
        if key == "type":
            _check_type(value, at)
        elif key in _MAPS_OF_SCHEMAS:
            for name, child in mapping(value, at).items():
                check_schema(child, f"{at}.{name}")
        elif key in _LISTS_OF_SCHEMAS or (key == "items" and type(value) is list):
            for i, child in enumerate(array(value, at)):
                check_schema(child, f"{at}[{i}]")
        elif key in _SCHEMAS or key == "items":
            check_schema(value, at)
        elif key == "required":
            for i, name in enumerate(array(value, at)):
                text(name, f"{at}[{i}]")
        elif key == "enum":
            array(value, at)


def _check_type(value: Any, path: str) -> None:
    for each in value if type(value) is list else [value]:
        if type(each) is not str:
            refuse_type(path, value, "the name of a JSON type, or an array of such names")
        if each not in _TYPES:
            refuse(path, each, "one of " + ", ".join(f"'{name}'" for name in _TYPES))


def _tool(wire: Any, path: str) -> ToolSpec:
    kind = member(mapping(wire, path), "type", path, text, "'function'")
    if kind != "function":
        refuse(f"{path}.type", kind, "'function'")
    if wire.get("function") is None:
        refuse_absence(f"{path}.function", "an object with 'name' and 'parameters'")
    return _function(wire["function"], f"{path}.function")


def _function(wire: Any, path: str) -> ToolSpec:
    name = member(mapping(wire, path), "name", path, filled_text, "the tool's name")
    parameters = optional(wire, "parameters", path, mapping) or {}
    check_schema(parameters, f"{path}.parameters")
    if parameters.get("type", "object") != "object":
        refuse(f"{path}.parameters.type", parameters["type"], "'object': arguments are named")
    return ToolSpec(
        name=name,
        description=optional(wire, "description", path, text) or "",
        input_schema=parameters,
        strict=optional(wire, "strict", path, boolean),
    )


def _function_to_wire(tool: ToolSpec) -> dict[str, object]:
    wire: dict[str, object] = {"name": tool.name}
    if tool.description:
        wire["description"] = tool.description
    # Some servers insist on parameters, so a tool without any says so in full.
    wire["parameters"] = tool.input_schema or {"type": "object", "properties": {}}
    if tool.strict is not None:
        wire["strict"] = tool.strict
    return wire
