"""Requests that ask for a shape, and what becomes of an answer that does not have it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from backends.grammar_walk import takes
from headrace.backends.local.constrained import MOST_ASKED_AGAIN, Constraints
from headrace.contracts.errors import LLMBadResponseError, LLMInvalidRequestError
from headrace.contracts.messages import LLMMessage, ToolSpec
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest, NamedTool
from headrace.contracts.responses import LLMDelta, LLMResponse
from headrace.wire.assemble import Assembler

USER = LLMMessage(role="user", content="How is the weather?")
SHAPE = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
PLACE = {"$ref": "#/$defs/place"}


def tool(name: str, kind: str) -> ToolSpec:
    schema = {"properties": {"at": PLACE}, "required": ["at"], "$defs": {"place": {"type": kind}}}
    return ToolSpec(name=name, input_schema=schema)


TOOLS = (tool("a", "boolean"), tool("b", "null"))


def asked(**fields: Any) -> LLMRequest:
    return LLMRequest(messages=(USER,), **fields)


def held(request: LLMRequest) -> LLMRequest:
    found = asyncio.run(Constraints().hold(request))
    assert found is not None
    return found.request


def grammar(request: LLMRequest) -> str:
    return str(held(request).provider_options["grammar"])


class Engine:
    """Answers with the texts that it was given, one a request, in pieces of two characters."""

    def __init__(self, texts: Sequence[str], finish: str = "stop") -> None:
        self.texts, self.finish = list(texts), finish
        self.requests: list[LLMRequest] = []

    async def ask(self, request: LLMRequest, marks: Marks) -> AsyncGenerator[LLMDelta, None]:
        self.requests.append(request)
        text = self.texts.pop(0)
        for start in range(0, len(text), 2):
            yield LLMDelta(text_delta=text[start : start + 2])
        yield LLMDelta(finish_reason=self.finish)  # type: ignore[arg-type]


def answer(
    engine: Engine, request: LLMRequest, *, whole: bool, constraints: Constraints | None = None
) -> LLMResponse:
    constraints = constraints or Constraints()

    async def run() -> LLMResponse:
        assembler = Assembler()
        plan = await constraints.hold(request)
        assert plan is not None
        async for delta in constraints.stream(plan, engine.ask, Marks(whole=whole)):
            assembler.add(delta)
        return assembler.response()

    return asyncio.run(run())


def test_a_request_for_free_text_is_left_alone():
    constraints = Constraints()
    for request in (asked(), asked(response_format={"type": "text"}), asked(tools=TOOLS)):
        assert asyncio.run(constraints.hold(request)) is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_schema": {"type": "array", "uniqueItems": True}}, "response_format"),
        (
            {"provider_options": {"json_schema": {"type": "array", "uniqueItems": True}}},
            "json_schema",
        ),
        (
            {
                "tools": (TOOLS[0], ToolSpec(name="c", input_schema={"if": {}})),
                "tool_choice": "required",
            },
            "tools[1].function.parameters",
        ),
        ({"response_schema": SHAPE, "provider_options": {"grammar": "root ::= x"}}, "grammar"),
        ({"provider_options": {"grammar": "%llguidance {}\nstart: nowhere"}}, "grammar"),
    ],
)
def test_what_cannot_be_held_names_its_field(fields, param):
    with pytest.raises(LLMInvalidRequestError) as caught:
        asyncio.run(Constraints().hold(asked(**fields)))
    assert caught.value.param == param


@pytest.mark.parametrize(
    "fields",
    [
        {"response_schema": SHAPE},
        {"response_format": {"type": "json_object", "schema": SHAPE}},
        {"provider_options": {"json_schema": SHAPE}},
    ],
)
def test_a_schema_is_sent_as_a_grammar_and_nowhere_else(fields):
    sent = held(asked(**fields))
    assert takes(grammar(asked(**fields)), '{"ok":true}')
    assert not takes(grammar(asked(**fields)), '{"ok":1}')
    assert sent.response_schema is None
    assert sent.response_format is None
    assert set(sent.provider_options) == {"grammar"}


@pytest.mark.parametrize("kind", ["json_object", "json_schema"])
def test_json_mode_is_any_object(kind):
    text = grammar(asked(response_format={"type": kind}))
    assert takes(text, '{"a":{"b":[1,"x",null]},"c":true}')
    assert not takes(text, "[]")


def test_a_forced_call_is_held_to_its_tools_own_parts():
    text = grammar(asked(tools=TOOLS, tool_choice="required"))
    assert takes(text, '{"name":"a","arguments":{"at":true}}')
    assert takes(text, '{"name":"b","arguments":{"at":null}}')
    assert not takes(text, '{"name":"b","arguments":{"at":true}}')


def test_a_named_tool_is_the_only_one_that_the_grammar_lets_through():
    text = grammar(asked(tools=TOOLS, tool_choice=NamedTool(name="b")))
    assert takes(text, '{"name":"b","arguments":{"at":null}}')
    assert not takes(text, '{"name":"a","arguments":{"at":true}}')


def test_several_calls_are_an_array_of_at_least_one():
    text = grammar(asked(tools=TOOLS, tool_choice="required", parallel_tool_calls=True))
    one, other = '{"name":"a","arguments":{"at":true}}', '{"name":"b","arguments":{"at":null}}'
    assert takes(text, f"[{one}]")
    assert takes(text, f"[{one},{other}]")
    assert not takes(text, "[]")


def test_a_wrong_answer_is_asked_for_again_where_the_whole_is_waited_for():
    engine, constraints = Engine(['{"ok": 1}', "no", '{"ok": true}']), Constraints()
    request = asked(response_schema=SHAPE, seed=5)
    response = answer(engine, request, whole=True, constraints=constraints)
    assert json.loads(response.text) == {"ok": True}
    assert [each.seed for each in engine.requests] == [5, 6, 7]
    assert constraints.counts() == {"asked": 1, "wrong": 2, "cut": 0, "asked_again": 2}


def test_an_answer_that_stays_wrong_is_an_error_that_may_be_retried():
    engine = Engine(["no"] * (MOST_ASKED_AGAIN + 1))
    with pytest.raises(LLMBadResponseError, match="not meet its schema") as caught:
        answer(engine, asked(response_schema=SHAPE), whole=True)
    assert caught.value.transient
    assert not engine.texts


def test_a_wrong_answer_that_was_streamed_ends_with_an_error_at_once():
    engine = Engine(['{"ok": 1}', '{"ok": true}'])
    with pytest.raises(LLMBadResponseError):
        answer(engine, asked(response_schema=SHAPE), whole=False)
    assert len(engine.requests) == 1


STORY = {"type": "object", "properties": {"story": {"type": "string"}}, "required": ["story"]}


@pytest.mark.parametrize(
    ("schema", "max_tokens", "whole"),
    [(SHAPE, 64, True), (STORY, 64, False), (STORY, None, True)],
    ids=["nothing is left open", "streamed", "without a limit of the caller's"],
)
def test_an_answer_that_was_cut_by_length_is_handed_on_as_that(schema, max_tokens, whole):
    request = asked(response_schema=schema, max_tokens=max_tokens)
    engine = Engine(['{"ok": tr'], "length")
    response = answer(engine, request, whole=whole)
    assert response.finish_reason == "length"
    assert response.text == '{"ok": tr'


def test_a_text_that_ran_on_is_asked_for_again_and_held_shorter():
    engine, constraints = Engine(['{"story":"la la', '{"story":"la'], "length"), Constraints()
    request = asked(response_schema=STORY, max_tokens=256, seed=5)
    response = answer(engine, request, whole=True, constraints=constraints)
    assert response.text == '{"story":"la'
    assert response.finish_reason == "length"  # once more, not for ever
    first, second = (str(each.provider_options["grammar"]) for each in engine.requests)
    long, short = (json.dumps({"story": "x" * n}, separators=(",", ":")) for n in (400, 100))
    assert takes(first, long)
    assert takes(second, short)
    assert not takes(second, long)
    assert [each.seed for each in engine.requests] == [5, 6]
    assert constraints.counts() == {"asked": 1, "wrong": 0, "cut": 1, "asked_again": 1}


def test_an_answer_that_the_callers_own_stop_text_cut_is_handed_on():
    request = asked(response_schema=SHAPE, stop=(":",))
    assert answer(Engine(['{"ok"']), request, whole=True).text == '{"ok"'


@pytest.mark.parametrize(
    "said",
    [
        '{"name": "a", "arguments": {"at": 5}}',
        '{"name": "z", "arguments": {}}',
        '{"name": "a", "arguments": {"at"',
        "I would rather talk.",
    ],
)
def test_a_wrong_call_is_never_handed_on_as_a_right_one(said):
    with pytest.raises(LLMBadResponseError):
        answer(Engine([said]), asked(tools=TOOLS, tool_choice="required"), whole=False)


def test_a_right_call_comes_as_a_call():
    said = '{"name":"a","arguments":{"at":true}}'
    response = answer(Engine([said]), asked(tools=TOOLS, tool_choice="required"), whole=True)
    assert [(c.name, c.arguments_json) for c in response.tool_calls] == [("a", '{"at":true}')]
    assert response.finish_reason == "tool_calls"
