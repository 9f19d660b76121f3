"""Tools and tool choice in Anthropic's words, both ways."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from headrace.contracts.messages import ToolSpec
from headrace.contracts.requests import NamedTool, ToolChoice
from headrace.wire.anthropic_blocks import cache_from_wire, cache_to_wire
from headrace.wire.openai_fields import (
    array,
    boolean,
    filled_text,
    mapping,
    member,
    one_of,
    optional,
    refuse,
    says,
    text,
)
from headrace.wire.openai_tools import check_schema

_KINDS = one_of("auto", "any", "tool", "none")


@says({"type": "array", "items": {"$ref": "#/components/schemas/MessagesTool"}})
def tools_from_wire(wire: Any, path: str = "tools") -> tuple[ToolSpec, ...]:
    """The ``tools`` of a request; those that Anthropic runs itself are refused by name."""
    return tuple(_tool(tool, f"{path}.{i}") for i, tool in enumerate(array(wire, path)))


def tools_to_wire(tools: Iterable[ToolSpec]) -> list[dict[str, object]]:
    """``tools`` as a request has them."""
    return [_tool_to_wire(tool) for tool in tools]


@says(
    {
        "type": "object",
        "required": ["type"],
        "properties": {
            "type": {"type": "string", "enum": ["auto", "any", "tool", "none"]},
            "name": {"type": "string"},
            "disable_parallel_tool_use": {"type": "boolean"},
        },
    }
)
def choice_from_wire(wire: Any, path: str = "tool_choice") -> tuple[ToolChoice, bool | None]:
    """The choice, and whether several calls may come at once, where it says so."""
    kind = member(mapping(wire, path), "type", path, _KINDS, "'auto', 'any', 'tool' or 'none'")
    alone = optional(wire, "disable_parallel_tool_use", path, boolean)
    parallel = None if alone is None else not alone
    if kind == "tool":
        return NamedTool(name=member(wire, "name", path, filled_text, "a tool's name")), parallel
    return "required" if kind == "any" else kind, parallel


def choice_to_wire(choice: ToolChoice | None, parallel: bool | None) -> dict[str, object] | None:
    """The ``tool_choice`` that says both; ``None`` where nothing is to be said."""
    if choice is None and parallel is None:
        return None
    if isinstance(choice, NamedTool):
        wire: dict[str, object] = {"type": "tool", "name": choice.name}
    else:
        wire = {"type": "any" if choice == "required" else choice or "auto"}
    if parallel is not None and choice != "none":
        wire["disable_parallel_tool_use"] = not parallel
    return wire


def _tool(wire: Any, path: str) -> ToolSpec:
    kind = optional(mapping(wire, path), "type", path, text)
    if kind not in (None, "custom"):
        refuse(f"{path}.type", kind, "'custom': tools that Anthropic runs itself are not had here")
    name = member(wire, "name", path, filled_text, "the tool's name")
    schema = member(wire, "input_schema", path, mapping, "a JSON Schema of the arguments")
    check_schema(schema, f"{path}.input_schema")
    if schema.get("type", "object") != "object":
        refuse(f"{path}.input_schema.type", schema["type"], "'object': arguments are named")
    return ToolSpec(
        name=name,
        description=optional(wire, "description", path, text) or "",
        input_schema=schema,
        strict=optional(wire, "strict", path, boolean),
        cache=cache_from_wire(wire, path),
    )


def _tool_to_wire(tool: ToolSpec) -> dict[str, object]:
    wire: dict[str, object] = {"name": tool.name}
    if tool.description:
        wire["description"] = tool.description
    # Required to be an object's schema.
    wire["input_schema"] = {"type": "object", **tool.input_schema}
    if tool.strict is not None:
        wire["strict"] = tool.strict
    if tool.cache is not None:
        wire["cache_control"] = cache_to_wire(tool.cache)
    return wire
