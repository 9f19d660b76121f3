"""A call that was asked for as JSON, read back as the call that it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence

from hypothesis import given
from hypothesis import strategies as st

from headrace.backends.local.forced import (
    as_calls,
    as_json_request,
    callable_tools,
    may_call_several,
    must_call,
)
from headrace.contracts.messages import LLMMessage, ToolSpec
from headrace.contracts.requests import LLMRequest, NamedTool
from headrace.contracts.responses import LLMDelta, Usage
from headrace.wire.assemble import Assembler

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
USER = LLMMessage(role="user", content="How is the weather?")
WEATHER = ToolSpec(
    name="weather", input_schema={"type": "object", "properties": {"city": {"type": "string"}}}
)
CLOCK = ToolSpec(name="clock", input_schema={})


def read(pieces: Sequence[str], finish: str = "stop"):
    async def deltas() -> AsyncGenerator[LLMDelta, None]:
        for piece in pieces:
            yield LLMDelta(text_delta=piece)
        yield LLMDelta(finish_reason=finish)  # type: ignore[arg-type]
        yield LLMDelta(usage_delta=Usage(completion_tokens=3))

    async def run():
        assembler = Assembler()
        async for delta in as_calls(deltas()):
            assembler.add(delta)
        return assembler.response()

    return asyncio.run(run())


@given(
    name=st.text(min_size=1),
    arguments=st.dictionaries(st.text(), JSON),
    indent=st.none() | st.integers(0, 3),
    cuts=st.lists(st.integers(1, 9)),
)
def test_a_call_survives_any_chopping(name, arguments, indent, cuts):
    text = json.dumps({"name": name, "arguments": arguments}, indent=indent)
    pieces, rest = [], text
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    response = read([*pieces, rest])
    (call,) = response.tool_calls
    assert call.name == name
    assert json.loads(call.arguments_json) == arguments
    assert call.call_id
    assert response.text == ""
    assert response.finish_reason == "tool_calls"
    assert response.usage.completion_tokens == 3


def test_a_call_that_was_cut_by_length_says_so():
    response = read(['{"name": "weather", "arguments": {"city": "Par'], "length")
    assert response.finish_reason == "length"
    assert response.tool_calls[0].arguments_json == '{"city": "Par'


def test_only_a_request_that_demands_a_call_is_rewritten():
    asked = {"messages": (USER,), "tools": (WEATHER,)}
    assert must_call(LLMRequest(**asked, tool_choice="required"))
    assert must_call(LLMRequest(**asked, tool_choice=NamedTool(name="weather")))
    assert not must_call(LLMRequest(**asked, tool_choice="auto"))
    assert not must_call(LLMRequest(**asked))


@given(
    calls=st.lists(st.tuples(st.text(min_size=1), st.dictionaries(st.text(), JSON)), min_size=1),
    indent=st.none() | st.integers(0, 3),
    cuts=st.lists(st.integers(1, 9)),
)
def test_several_calls_survive_any_chopping(calls, indent, cuts):
    said = [{"name": name, "arguments": arguments} for name, arguments in calls]
    pieces, rest = [], json.dumps(said, indent=indent)
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    response = read([*pieces, rest])
    found = [(call.name, json.loads(call.arguments_json)) for call in response.tool_calls]
    assert found == calls
    assert len({call.call_id for call in response.tool_calls}) == len(calls)
    assert response.finish_reason == "tool_calls"


def test_a_named_tool_is_the_only_one_that_can_be_called():
    request = LLMRequest(
        messages=(USER,), tools=(WEATHER, CLOCK), tool_choice=NamedTool(name="clock")
    )
    assert callable_tools(request) == [(1, CLOCK)]
    assert "weather" not in as_json_request(request).messages[0].content


def test_the_model_is_told_of_every_tool_that_it_may_call():
    request = LLMRequest(messages=(USER,), tools=(WEATHER, CLOCK), tool_choice="required")
    told = as_json_request(request)
    assert told.messages[0].role == "system"
    assert all(name in told.messages[0].content for name in ("weather", "clock"))
    assert not told.tools


def test_several_calls_are_asked_for_only_where_the_request_says_so():
    asked = {"messages": (USER,), "tools": (WEATHER,)}
    several = LLMRequest(**asked, tool_choice="required", parallel_tool_calls=True)
    assert may_call_several(several)
    assert "array" in as_json_request(several).messages[0].content
    assert not may_call_several(LLMRequest(**asked, tool_choice="required"))
    named = NamedTool(name="weather")
    assert not may_call_several(LLMRequest(**asked, tool_choice=named, parallel_tool_calls=True))
