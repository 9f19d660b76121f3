"""The settings of a Responses request: tools, their choice, the answer's form, reasoning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.messages import ToolSpec
from headrace.contracts.requests import LLMRequest, NamedTool, ToolChoice
from headrace.wire.openai_fields import (
    Check,
    array,
    boolean,
    filled_text,
    mapping,
    member,
    one_of,
    optional,
    refuse,
    refuse_absence,
    refuse_type,
    says,
    text,
)
from headrace.wire.openai_tools import check_schema

LOGPROBS = "message.output_text.logprobs"
ENCRYPTED = "reasoning.encrypted_content"
# What the others would add belongs to hosted tools, of which there are none here.
INCLUDABLE = (
    LOGPROBS,
    ENCRYPTED,
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "web_search_call.action.sources",
    "web_search_call.results",
)

_FORMATS = one_of("text", "json_object", "json_schema")
_MODES = one_of("auto", "required")
_summary = one_of("auto", "concise", "detailed")
_effort = one_of("none", "minimal", "low", "medium", "high", "xhigh", "max")
_verbosity = one_of("low", "medium", "high")
_includable = one_of(*INCLUDABLE)


@says({"type": "array", "items": {"$ref": "#/components/schemas/ResponsesTool"}})
def tools_from_wire(wire: Any, path: str) -> tuple[ToolSpec, ...]:
    """The ``tools`` of a request: functions; what else there is runs on OpenAI's own servers."""
    return tuple(_tool(tool, f"{path}[{i}]") for i, tool in enumerate(array(wire, path)))


def tools_to_wire(tools: Iterable[ToolSpec]) -> list[dict[str, Any]]:
    """``tools`` as a request has them, and the response that repeats them."""
    return [
        {
            "type": "function",
            "name": tool.name,
            "description": tool.description or None,
            "parameters": tool.input_schema or {"type": "object", "properties": {}},
            "strict": tool.strict,
        }
        for tool in tools
    ]


@says(
    {
        "anyOf": [
            {"type": "string", "enum": ["auto", "none", "required"]},
            {
                "type": "object",
                "required": ["type"],
                "properties": {
                    "type": {"enum": ["function", "allowed_tools"]},
                    "name": {"type": "string"},
                    "mode": {"enum": ["auto", "required"]},
                    "tools": {"type": "array", "items": {"type": "object"}},
                },
            },
        ]
    }
)
def choice_from_wire(wire: Any, path: str) -> str | dict[str, Any]:
    """The ``tool_choice`` of a request, as it came."""
    right = (
        "'auto', 'none', 'required', {'type': 'function', 'name': ...} or "
        "{'type': 'allowed_tools', 'mode': ..., 'tools': [...]}"
    )
    match wire:
        case "auto" | "none" | "required":
            return wire  # type: ignore[no-any-return]
        case {"type": "function"}:
            member(wire, "name", path, filled_text, "a tool's name")
            return {"type": "function", "name": wire["name"]}
        case {"type": "allowed_tools"}:
            mode = optional(wire, "mode", path, _MODES) or "auto"
            listed = member(wire, "tools", path, array, "an array of tools by name")
            return {
                "type": "allowed_tools",
                "mode": mode,
                "tools": _allowed(listed, f"{path}.tools"),
            }
        case dict():
            refuse(f"{path}.type", wire.get("type"), "'function' or 'allowed_tools'")
        case str():
            refuse(path, wire, right)
    refuse_type(path, wire, right)


def choose(
    choice: str | dict[str, Any] | None, tools: Sequence[ToolSpec]
) -> tuple[ToolChoice | None, tuple[ToolSpec, ...]]:
    """The choice in our words and the tools that it leaves; refuses one that they cannot meet."""
    offered = tuple(tools)
    if choice is None or choice in ("auto", "none"):
        return choice, offered  # type: ignore[return-value]
    if not offered:
        refuse("tool_choice", choice, "'tools' beside it; there are none")
    if isinstance(choice, str):
        return choice, offered  # type: ignore[return-value]
    if choice["type"] == "function":
        _check_name(choice["name"], "tool_choice.name", offered)
        return NamedTool(name=choice["name"]), offered
    names = [each["name"] for each in choice["tools"]]
    for i, name in enumerate(names):
        _check_name(name, f"tool_choice.tools[{i}].name", offered)
    return choice["mode"], tuple(tool for tool in offered if tool.name in names)


def choice_to_wire(choice: ToolChoice) -> str | dict[str, Any]:
    """``choice`` as a request has it."""
    return {"type": "function", "name": choice.name} if isinstance(choice, NamedTool) else choice


@says(
    {
        "type": "object",
        "properties": {
            "format": {
                "type": "object",
                "required": ["type"],
                "properties": {
                    "type": {"enum": ["text", "json_object", "json_schema"]},
                    "name": {"type": "string"},
                    "description": {"type": "string"},
                    "schema": {"type": "object"},
                    "strict": {"type": "boolean"},
                },
            },
            "verbosity": {"enum": ["low", "medium", "high"]},
        },
    }
)
def text_from_wire(wire: Any, path: str) -> dict[str, Any]:
    """``text``: the answer's form in the words of chat completions, and how long it should be."""
    _known_only(mapping(wire, path), ("format", "verbosity"), path)
    form = optional(wire, "format", path, _format)
    return {"format": form, "verbosity": optional(wire, "verbosity", path, _verbosity)}


def text_to_wire(
    response_format: dict[str, Any] | None, verbosity: object = None
) -> dict[str, Any]:
    """A request's ``text``, and the response's that repeats it."""
    wire: dict[str, Any] = {"format": {"type": "text"}}
    if response_format is not None:
        described = response_format.get("json_schema", {})
        kind = response_format.get("type", "text")
        # llama.cpp has a schema beneath json_object too.
        schema = described.get("schema", response_format.get("schema"))
        if schema is None:
            wire["format"] = {"type": "json_object" if kind == "json_schema" else kind}
        else:
            wire["format"] = {
                "type": "json_schema",
                "name": described.get("name") or "response",
                "description": described.get("description"),
                "schema": schema,
                "strict": bool(described.get("strict")),
            }
    return wire if verbosity is None else {**wire, "verbosity": verbosity}


def format_of(request: LLMRequest) -> dict[str, Any] | None:
    """The request's own response format, unless only its schema says what is wanted."""
    own = request.response_format
    if request.response_schema is None or (own and ("json_schema" in own or "schema" in own)):
        return own
    return {"type": "json_schema", "json_schema": {"schema": request.response_schema}}


@says(
    {
        "type": "object",
        "properties": {
            "effort": {"enum": ["none", "minimal", "low", "medium", "high", "xhigh", "max"]},
            "summary": {"enum": ["auto", "concise", "detailed"]},
        },
    }
)
def reasoning_from_wire(wire: Any, path: str) -> dict[str, Any]:
    """``reasoning``: how much, and how it shall be summed up."""
    _known_only(mapping(wire, path), ("effort", "summary", "generate_summary"), path)
    summary = optional(wire, "summary", path, _summary)
    if summary is None:
        summary = optional(wire, "generate_summary", path, _summary)
    return {"effort": optional(wire, "effort", path, _effort), "summary": summary}


@says({"type": "array", "items": {"type": "string", "enum": list(INCLUDABLE)}})
def include_from_wire(wire: Any, path: str) -> tuple[str, ...]:
    """What the answer shall hold beside the usual."""
    return tuple(_includable(each, f"{path}[{i}]") for i, each in enumerate(array(wire, path)))


@says({"type": "object", "properties": {"include_obfuscation": {"type": "boolean"}}})
def stream_options_from_wire(wire: Any, path: str) -> bool:
    """Whether the pieces of a stream shall be padded to hide how long they are."""
    _known_only(mapping(wire, path), ("include_obfuscation",), path)
    return optional(wire, "include_obfuscation", path, boolean) or False


def not_here(what: str) -> Check:
    """A check that refuses a field by name: ``what`` says why, and what to do in its place."""

    @says({"type": "null"})
    def check(value: Any, path: str) -> NoReturn:
        raise LLMInvalidRequestError(
            f"'{path}' is not supported: {what}.", param=path, code="unsupported_parameter"
        )

    return check


def _tool(wire: Any, path: str) -> ToolSpec:
    kind = member(mapping(wire, path), "type", path, text, "'function'")
    if kind != "function":
        raise LLMInvalidRequestError(
            f"'{path}.type' is '{kind[:60]}', a hosted tool; there are none here. Expected "
            "'function': a tool that you run yourself.",
            param=f"{path}.type",
            code="invalid_value",
        )
    name = member(wire, "name", path, filled_text, "the tool's name")
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


def _allowed(listed: list[Any], path: str) -> list[dict[str, Any]]:
    if not listed:
        refuse(path, listed, "an array of at least one tool")
    names = []
    for i, each in enumerate(listed):
        at = f"{path}[{i}]"
        if mapping(each, at).get("type", "function") != "function":
            refuse(f"{at}.type", each["type"], "'function'")
        names.append(member(each, "name", at, filled_text, "a tool's name"))
    return [{"type": "function", "name": name} for name in names]


def _check_name(name: str, path: str, tools: Sequence[ToolSpec]) -> None:
    if all(tool.name != name for tool in tools):
        names = ", ".join(f"'{tool.name}'" for tool in tools[:10])
        refuse(path, name, f"the name of one of the tools: {names}")


def _format(wire: Any, path: str) -> dict[str, Any]:
    kind = member(mapping(wire, path), "type", path, _FORMATS, "'text' or 'json_schema'")
    if kind != "json_schema":
        return {"type": kind}
    if wire.get("schema") is None:
        refuse_absence(f"{path}.schema", "a JSON Schema (an object)")
    schema = mapping(wire["schema"], f"{path}.schema")
    check_schema(schema, f"{path}.schema")
    described: dict[str, Any] = {
        "name": optional(wire, "name", path, filled_text) or "response",
        "schema": schema,
    }
    description = optional(wire, "description", path, text)
    if description is not None:
        described["description"] = description
    strict = optional(wire, "strict", path, boolean)
    if strict is not None:
        described["strict"] = strict
    return {"type": "json_schema", "json_schema": described}


def _known_only(wire: dict[str, Any], names: tuple[str, ...], path: str) -> None:
    for name, value in wire.items():
        if name not in names and value is not None:
            raise LLMInvalidRequestError(
                f"'{path}' has no field '{name[:60]}' that is known here; expected "
                + ", ".join(f"'{each}'" for each in names)
                + ".",
                param=f"{path}.{name[:60]}",
                code="unknown_parameter",
            )
