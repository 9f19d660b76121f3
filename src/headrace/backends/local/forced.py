"""Tool calls that must happen: asked of the engine as JSON, and handed on as calls.

llama.cpp leaves a model room for any amount of text before a call that was required, and small
models take it. A JSON Schema it does enforce. So the request becomes one for the JSON object
``{"name": ..., "arguments": {...}}``, and what comes back is written as the call that it is.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from attrs import define, evolve

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.messages import LLMMessage, TextPart, ToolSpec
from headrace.contracts.requests import LLMRequest, NamedTool
from headrace.contracts.responses import LLMDelta, ToolCallDelta
from headrace.wire import json as wire_json

# The schema below has the properties in this order, and the engine keeps it.
_OPENING = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*')
_SHARED_PARTS = ("$defs", "definitions")


def must_call(request: LLMRequest) -> bool:
    """Whether ``request`` demands a tool call."""
    return bool(request.tools) and (
        request.tool_choice == "required" or isinstance(request.tool_choice, NamedTool)
    )


def as_json_request(request: LLMRequest) -> LLMRequest:
    """``request``, which must call, as one for a JSON object that says the call."""
    tools = [
        tool
        for tool in request.tools
        if not isinstance(request.tool_choice, NamedTool) or tool.name == request.tool_choice.name
    ]
    schema = _schema(tools)
    return evolve(
        request,
        messages=_told(request.messages, tools),
        tools=(),
        tool_choice=None,
        parallel_tool_calls=None,
        response_schema=schema,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "tool_call", "strict": True, "schema": schema},
        },
    )


async def as_calls(deltas: AsyncGenerator[LLMDelta, None]) -> AsyncGenerator[LLMDelta, None]:
    """``deltas`` of such a JSON object as those of a tool call."""
    readers: dict[int, _Reader] = {}
    async for delta in deltas:
        reader = readers.setdefault(delta.index, _Reader())
        for piece in reader.feed(delta.text_delta or ""):
            yield evolve(
                delta,
                text_delta=None,
                tool_call_delta=piece,
                finish_reason=None,
                raw_finish_reason=None,
                usage_delta=None,
            )
        whole = delta.finish_reason == "stop" and reader.is_whole
        rest = evolve(
            delta,
            text_delta=None,
            finish_reason="tool_calls" if whole else delta.finish_reason,
        )
        if rest.finish_reason is not None or rest.usage_delta is not None:
            yield rest


@define
class _Reader:
    """Finds the call's name and the extent of its arguments in JSON text that comes in pieces."""

    text: str = ""
    begun: bool = False
    depth: int = 0
    in_string: bool = False
    escaped: bool = False
    is_whole: bool = False

    def feed(self, text: str) -> list[ToolCallDelta]:
        """What ``text`` adds to the call."""
        if not text or self.is_whole:
            return []
        if self.begun:
            return self._arguments(text)
        self.text += text
        opening = _OPENING.match(self.text)
        if opening is None:
            return []
        self.begun = True
        name: str = wire_json.decode_reply(opening[1].encode())
        first = ToolCallDelta(
            call_id=f"call_{secrets.token_hex(12)}", name=name, arguments_json_delta=""
        )
        return [first, *self._arguments(self.text[opening.end() :])]

    def _arguments(self, text: str) -> list[ToolCallDelta]:
        for place, char in enumerate(text):
            if self.in_string:
                if self.escaped:
                    self.escaped = False
                elif char == "\\":
                    self.escaped = True
                elif char == '"':
                    self.in_string = False
            elif char == '"':
                self.in_string = True
            elif char in "{[":
                self.depth += 1
            elif char in "}]":
                self.depth -= 1
                if self.depth == 0:
                    self.is_whole = True
                    text = text[: place + 1]
                    break
        return [ToolCallDelta(arguments_json_delta=text)] if text else []


def _schema(tools: Sequence[ToolSpec]) -> dict[str, object]:
    shared: dict[str, dict[str, Any]] = {}
    calls = []
    for tool in tools:
        arguments: dict[str, Any] = {"type": "object", **tool.input_schema}
        for key in _SHARED_PARTS:
            for name, part in (arguments.pop(key, None) or {}).items():
                # References point to the document's root, so the parts must lie there.
                if shared.setdefault(key, {}).setdefault(name, part) != part:
                    raise LLMInvalidRequestError(
                        f"two tools define {key}/{name} differently; give one another name",
                        param="tools",
                    )
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": tool.name}, "arguments": arguments},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    schema: dict[str, object] = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return {**schema, **shared}


def _told(messages: Sequence[LLMMessage], tools: Sequence[ToolSpec]) -> tuple[LLMMessage, ...]:
    """The conversation with the tools told in its system turn."""
    listed = "\n".join(
        wire_json.encode(
            {"name": t.name, "description": t.description, "parameters": t.input_schema}
        ).decode()
        for t in tools
    )
    telling = (
        'Answer with a call of one of these functions as JSON, {"name": ..., "arguments": '
        f"{{...}}}}, the arguments taken from the conversation:\n{listed}"
    )
    if messages and messages[0].role == "system":
        opening = messages[0]
        content = opening.content
        joined = (
            (f"{content}\n\n{telling}" if content else telling)
            if isinstance(content, str)
            else (*content, TextPart(text=telling))
        )
        return (evolve(opening, content=joined), *messages[1:])
    return (LLMMessage(role="system", content=telling), *messages)
