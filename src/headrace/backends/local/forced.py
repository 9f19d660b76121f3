"""Tool calls that must happen: asked of the engine as JSON, and handed on as calls.

llama.cpp leaves a model room for any amount of text before a call that was required, and small
models take it. A grammar it does enforce. So the request becomes one for the JSON object
``{"name": ..., "arguments": {...}}`` (or an array of them), held by a grammar of ours
(``constrained``), and what comes back is written as the calls that it says.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncGenerator, Sequence

from attrs import define, evolve

from headrace.contracts.messages import LLMMessage, TextPart, ToolSpec
from headrace.contracts.requests import LLMRequest, NamedTool
from headrace.contracts.responses import LLMDelta, ToolCallDelta
from headrace.wire import json as wire_json

# The grammar has the properties in this order, and the engine keeps it.
_CALL = r'\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*'
_OPENING = re.compile(rf"\s*(?:\[\s*)?{_CALL}")
_NEXT = re.compile(rf"\s*\}}\s*,\s*{_CALL}")


def must_call(request: LLMRequest) -> bool:
    """Whether ``request`` demands a tool call."""
    return bool(request.tools) and (
        request.tool_choice == "required" or isinstance(request.tool_choice, NamedTool)
    )


def callable_tools(request: LLMRequest) -> list[tuple[int, ToolSpec]]:
    """The tools that ``request`` lets the model call, each with its place among all."""
    choice = request.tool_choice
    return [
        (place, tool)
        for place, tool in enumerate(request.tools)
        if not isinstance(choice, NamedTool) or tool.name == choice.name
    ]


def may_call_several(request: LLMRequest) -> bool:
    """Whether ``request`` asks for one or more calls at once.

    Only where it says so: what OpenAI does unasked makes a small model call without need.
    """
    return request.tool_choice == "required" and request.parallel_tool_calls is True


def as_json_request(request: LLMRequest) -> LLMRequest:
    """``request``, which must call, as one for JSON that says the call, or an array of calls."""
    tools = [tool for _, tool in callable_tools(request)]
    return evolve(
        request,
        messages=_told(request.messages, tools, several=may_call_several(request)),
        tools=(),
        tool_choice=None,
        parallel_tool_calls=None,
        response_schema=None,
        response_format=None,
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
    """Finds the calls' names and the extent of their arguments in JSON that comes in pieces."""

    text: str = ""
    calls: int = 0
    inside: bool = False
    depth: int = 0
    in_string: bool = False
    escaped: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether there was a call, and the latest one has all its arguments."""
        return self.calls > 0 and not self.inside

    def feed(self, text: str) -> list[ToolCallDelta]:
        """What ``text`` adds to the calls."""
        pieces: list[ToolCallDelta] = []
        while text:
            if self.inside:
                piece, text = self._arguments(text)
                pieces.append(ToolCallDelta(arguments_json_delta=piece, index=self.calls - 1))
                continue
            self.text += text
            opening = (_NEXT if self.calls else _OPENING).match(self.text)
            if opening is None:
                break
            text, self.text = self.text[opening.end() :], ""
            self.inside = True
            name: str = wire_json.decode_reply(opening[1].encode())
            pieces.append(
                ToolCallDelta(
                    call_id=f"call_{secrets.token_hex(12)}",
                    name=name,
                    arguments_json_delta="",
                    index=self.calls,
                )
            )
            self.calls += 1
        return pieces

    def _arguments(self, text: str) -> tuple[str, str]:
        """What of ``text`` still belongs to the arguments, and what comes after them."""
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
                    self.inside = False
                    return text[: place + 1], text[place + 1 :]
        return text, ""


def _told(
    messages: Sequence[LLMMessage], tools: Sequence[ToolSpec], *, several: bool
) -> tuple[LLMMessage, ...]:
    """The conversation with the tools told in its system turn."""
    listed = "\n".join(
        wire_json.encode(
            {"name": t.name, "description": t.description, "parameters": t.input_schema}
        ).decode()
        for t in tools
    )
    call = '{"name": ..., "arguments": {...}}'
    asked = (
        f"a JSON array of one or more calls of these functions, [{call}, ...]"
        if several
        else f"a call of one of these functions as JSON, {call}"
    )
    telling = f"Answer with {asked}, the arguments taken from the conversation:\n{listed}"
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
