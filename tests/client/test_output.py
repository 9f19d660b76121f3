"""Answers as objects: what every kind of type, provider and way of asking promises."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal, TypedDict

import attrs
import msgspec
import pydantic
import pytest

from client.faces import FACES, KEY, ROWS, Face
from formats import stream_headers
from headrace import (
    LLMCapabilityError,
    LLMContentFilterError,
    LLMDelta,
    LLMInvalidRequestError,
    LLMMessage,
    LLMOutputError,
    LLMRequest,
    NamedTool,
    OutputSettings,
    ToolCallDelta,
    ToolSpec,
    Usage,
)
from headrace.backends.providers import PROVIDERS, Provider
from headrace.net.scripted import ScriptedAnswer
from headrace.stores.credentials import Credentials
from traffic.play import ENDING, EVENTS, OPENING, USAGE, answer, event, refusal, said


class OfPydantic(pydantic.BaseModel):
    name: str
    age: Annotated[int, pydantic.Field(ge=0)]
    born: date | None = None


class OfMsgspec(msgspec.Struct):
    name: str
    age: Annotated[int, msgspec.Meta(ge=0)]
    born: date | None = None


@attrs.frozen
class OfAttrs:
    name: str
    age: int = attrs.field(validator=attrs.validators.ge(0))
    born: date | None = None


@dataclass
class OfDataclasses:
    name: str
    age: Annotated[int, msgspec.Meta(ge=0)]
    born: date | None = None


class OfTypedDict(TypedDict):
    name: str
    age: Annotated[int, msgspec.Meta(ge=0)]


SCHEMA: dict[str, object] = {
    "title": "A person",
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
}
PLAIN = {"name": "Ann", "age": 3}
TEXT = json.dumps(PLAIN)
WRONG = '{"name": "Ann", "age": -1}'

KINDS = {
    OfPydantic: OfPydantic(name="Ann", age=3),
    OfMsgspec: OfMsgspec(name="Ann", age=3),
    OfAttrs: OfAttrs(name="Ann", age=3),
    OfDataclasses: OfDataclasses(name="Ann", age=3),
    OfTypedDict: PLAIN,
}
CASES: list[tuple[Any, Any]] = [*KINDS.items(), (SCHEMA, PLAIN)]
every_kind = pytest.mark.parametrize(
    ("output", "expected"), CASES, ids=[*(kind.__name__ for kind in KINDS), "schema"]
)
every_face = pytest.mark.parametrize("face", FACES)
every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
OPENAI = PROVIDERS["openai"]
MODELS = {
    "groq": "llama-3.3-70b-versatile",
    "deepseek": "deepseek-chat",
    "xai": "grok-4",
    "anthropic": "claude-sonnet-4-5",
    "gemini": "gemini-2.5-flash",
    "cohere": "command-a-03-2025",
}


def called(*pieces: str) -> ScriptedAnswer:
    """An answer by a call of a tool, in pieces."""

    def delta(call: dict[str, object], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": reason}
        return event(choices=[choice])

    begin: dict[str, object] = {"index": 0, "id": "c1", "type": "function"}
    body = [OPENING, delta(begin | {"function": {"name": "answer", "arguments": ""}})]
    body += [delta({"index": 0, "function": {"arguments": piece}}) for piece in pieces]
    ending = event(choices=[{"index": 0, "delta": {}, "finish_reason": "tool_calls"}])
    body += [ending, event(choices=[], usage=USAGE), b"data: [DONE]\n\n"]
    return ScriptedAnswer(headers=EVENTS, body=tuple(body))


def at_once(message: dict[str, object], reason: str) -> ScriptedAnswer:
    """An answer that is not streamed."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}
    body = {"id": "r", "object": "chat.completion", "created": 1, "model": "m"}
    body |= {"choices": [choice], "usage": USAGE}
    json_type = (("content-type", "application/json"),)
    return ScriptedAnswer(headers=json_type, body=json.dumps(body).encode())


def ended(text: str, reason: str) -> ScriptedAnswer:
    """An answer that ends for that reason."""
    return ScriptedAnswer(headers=EVENTS, body=(OPENING, said(text), said("", reason), *ENDING[1:]))


def in_its_format(row: Provider, way: str) -> ScriptedAnswer:
    """The right answer, by a call where that is the way, as a server of the row's format sends it."""
    if row.format == "openai":
        return called(TEXT) if way == "tool" else answer(TEXT)
    writer = row.chat.stream_writer(response_id="r", model="m", created=1, include_usage=True)
    call = ToolCallDelta(call_id="c1", name="answer", arguments_json_delta=TEXT)
    piece = LLMDelta(tool_call_delta=call) if way == "tool" else LLMDelta(text_delta=TEXT)
    usage = Usage(prompt_tokens=3, completion_tokens=2, total_tokens=5)
    end = LLMDelta(finish_reason="tool_calls" if way == "tool" else "stop", usage_delta=usage)
    return ScriptedAnswer(
        headers=stream_headers(row.format),
        body=(writer.write(piece), writer.write(end), writer.finish()),
    )


def asked_for(row: Provider, client: Face) -> LLMRequest:
    """The request that it was sent, as a server of its format reads it."""
    request: LLMRequest = row.chat.read_request(client.requests[0].body).request
    return request


def openai(face: str, answers: Sequence[ScriptedAnswer], **settings: Any) -> Face:
    return Face(face, OPENAI, answers, **{"model": "gpt-4o", **settings})


def body_of(client: Face, place: int = 0) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(client.requests[place].body)
    return body


@every_face
@every_kind
def test_an_answer_is_the_object_that_was_asked_for(output: Any, expected: Any, face: str) -> None:
    with openai(face, [answer(TEXT)]) as client:
        result = client.chat(output=output)
        assert len(client.records) == 1
    assert result.output == expected
    assert type(result.output) is type(expected)
    assert (result.asks, result.repaired, result.response.text) == (1, False, TEXT)
    assert result.usage.total_tokens == 5


@every_face
@every_kind
def test_an_object_comes_in_views_and_then_whole(output: Any, expected: Any, face: str) -> None:
    with openai(face, [answer('{"name": "A', 'nn", "a', 'ge": 3}')]) as client:
        *views, last = client.stream_output(output=output)
        (record,) = client.records
    assert [view.partial for view in views] == [{"name": "A"}, {"name": "Ann"}, PLAIN]
    assert (last.kind, last.result.output) == ("completed", expected)
    assert record.stream


@every_face
@every_kind
def test_what_breaks_a_rule_of_the_type_is_asked_for_again(
    output: Any, expected: Any, face: str
) -> None:
    with openai(face, [answer(WRONG), answer(TEXT)]) as client:
        result = client.chat(output=output)
    assert (result.output, result.asks, result.repaired) == (expected, 2, False)
    assert result.usage.total_tokens == 10


@every_face
@every_kind
def test_what_is_wrong_is_told_with_its_place(output: Any, expected: Any, face: str) -> None:
    settings = OutputSettings(more_asks=0)
    with (
        openai(face, [answer('{"name": 5, "age": 3}')]) as client,
        pytest.raises(LLMOutputError, match=r"\$\.name") as caught,
    ):
        client.chat(output=output, output_settings=settings)
    error = caught.value
    assert [problem.path for problem in error.problems] == ["$.name"]
    assert (error.text, error.asks, error.code) == ('{"name": 5, "age": 3}', 1, "output_invalid")
    assert "more_asks" in str(error)


@every_face
@every_row
def test_every_provider_is_asked_in_its_own_way(row: Provider, face: str) -> None:
    model = MODELS.get(row.name, "gpt-4o")
    ways = {"groq": "tool", "deepseek": "json", "max": "prompt"}
    # The best that is known of it, where there is no model to know more of.
    way = ways.get(row.name, "prompt" if row.structured.modes == ("prompt",) else "schema")
    with Face(face, row, [in_its_format(row, way)], model=model) as client:
        result = client.chat(output=SCHEMA)
        request = asked_for(row, client)
        (record,) = client.records
    assert (result.output, result.repaired, result.response.finish_reason) == (PLAIN, False, "stop")
    assert result.response.text == TEXT
    assert record.dropped == ()
    assert bool(request.tools) is isinstance(request.tool_choice, NamedTool) is (way == "tool")
    assert (request.response_schema is not None) is (way == "schema")
    assert ((request.response_format or {}).get("type") == "json_object") is (way == "json")
    told = way in ("json", "prompt") or row.structured.told
    assert [message.role for message in request.messages] == ["system"] * told + ["user"]
    assert ("JSON Schema" in str(request.messages[0].content)) is told


@every_face
@pytest.mark.parametrize("mode", ["schema", "tool", "json", "prompt"])
@every_row
def test_a_way_can_be_forced_where_the_provider_knows_it(
    row: Provider, mode: Any, face: str
) -> None:
    settings = OutputSettings(mode=mode)
    with Face(face, row, [in_its_format(row, mode)], output=settings) as client:
        if mode != "prompt" and mode not in row.structured.modes:
            with pytest.raises(LLMCapabilityError, match=f"{row.name}.*{mode}"):
                client.chat(output=OfMsgspec)
            assert client.requests == []
            return
        assert client.chat(output=OfMsgspec).output == KINDS[OfMsgspec]
        request = asked_for(row, client)
    assert bool(request.tools) is (mode == "tool")
    assert (request.response_schema is not None) is (mode == "schema")
    assert ((request.response_format or {}).get("type") == "json_object") is (mode == "json")


@pytest.mark.parametrize(
    ("name", "model", "way"),
    [
        ("openai", "gpt-4o-mini", "schema"),
        ("openai", "gpt-4", "tool"),
        ("openai", "o1-mini", "prompt"),
        ("openai", "nobody-knows-this", "prompt"),
        ("groq", "openai/gpt-oss-20b", "schema"),
        ("groq", "llama-3.3-70b-versatile", "tool"),
        ("openrouter", "anthropic/claude-sonnet-4", "tool"),
        ("deepseek", "deepseek-reasoner", "json"),
        ("vllm", "nobody-knows-this", "schema"),
        ("azure", "my-deployment", "prompt"),
    ],
)
def test_a_model_is_asked_in_the_best_way_that_it_has(name: str, model: str, way: str) -> None:
    reply = called(TEXT) if way == "tool" else answer(TEXT)
    with Face("async", PROVIDERS[name], [reply], model=model) as client:
        assert client.chat(output=OfMsgspec).output == KINDS[OfMsgspec]
        body = body_of(client)
    kind = {"schema": "json_schema", "json": "json_object"}.get(way)
    assert body.get("response_format", {}).get("type") == kind
    assert ("tools" in body) is (way == "tool")


@every_face
def test_openai_is_held_to_it_by_its_strict_rules(face: str) -> None:
    class Person(msgspec.Struct):
        name: str
        nick: str = "none"

    with openai(face, [answer('{"name": "Ann", "nick": null}')]) as client:
        assert client.chat(output=Person).output == Person(name="Ann")
        described = body_of(client)["response_format"]["json_schema"]
    assert described["strict"] is True
    assert described["name"] == "Person"
    schema = described["schema"]
    assert schema["required"] == ["name", "nick"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["nick"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}


@every_face
def test_a_schema_beyond_the_strict_rules_is_sent_as_it_is(face: str) -> None:
    with openai(face, [answer('{"a": 1}')]) as client:
        assert client.chat(output=dict[str, int]).output == {"a": 1}
        described = body_of(client)["response_format"]["json_schema"]
    assert described["strict"] is False
    assert described["schema"]["additionalProperties"] == {"type": "integer"}


@every_face
@pytest.mark.parametrize(
    ("output", "inner", "expected"),
    [
        (list[int], "[1, 2]", [1, 2]),
        (list[OfPydantic], f"[{TEXT}]", [OfPydantic(name="Ann", age=3)]),
        (list[OfAttrs], f"[{TEXT}]", [OfAttrs(name="Ann", age=3)]),
        (Literal["yes", "no"], '"no"', "no"),
        (int | None, "null", None),
        (OfMsgspec | None, TEXT, KINDS[OfMsgspec]),
        (bool, "true", True),
        ({"type": "array", "items": {"type": "string"}}, '["a"]', ["a"]),
        ({"anyOf": [{"$ref": "#/anyOf/1"}, {"const": 1}]}, "1", 1),
    ],
)
def test_what_is_no_object_is_asked_for_inside_of_one(
    output: Any, inner: str, expected: Any, face: str
) -> None:
    with openai(face, [answer('{"answer": ', inner, "}")] * 2) as client:
        assert client.chat(output=output).output == expected
        schema = body_of(client)["response_format"]["json_schema"]["schema"]
        assert (schema["type"], schema["required"]) == ("object", ["answer"])
        *views, last = client.stream_output(output=output)
    assert last.result.output == expected
    assert all(view.partial != {} for view in views)


def test_an_answer_without_its_wrapping_is_put_into_it() -> None:
    with openai("async", [answer("[1, 2]")]) as client:
        result = client.chat(output=list[int])
    assert (result.output, result.repaired) == ([1, 2], True)


@every_face
def test_json_in_prose_is_mended_and_told_so(face: str) -> None:
    with openai(face, [answer(f"Here you are:\n```json\n{TEXT[:-1]},}}\n```")]) as client:
        result = client.chat(output=OfPydantic)
    assert (result.output, result.repaired, result.asks) == (KINDS[OfPydantic], True, 1)


def test_mending_can_be_forbidden() -> None:
    settings = OutputSettings(repair=False)
    with openai("async", [answer(f"Here: {TEXT}"), answer(TEXT)], output=settings) as client:
        result = client.chat(output=OfPydantic)
    assert (result.repaired, result.asks) == (False, 2)


@every_face
@pytest.mark.parametrize("cut", range(1, len(TEXT)))
def test_an_answer_cut_by_length_is_never_mended_and_not_asked_for_again(
    cut: int, face: str
) -> None:
    with openai(face, [ended(TEXT[:cut], "length")]) as client:
        with pytest.raises(LLMOutputError, match="max_tokens=7") as caught:
            client.chat(output=OfPydantic, max_tokens=7)
        assert len(client.requests) == 1
    assert (caught.value.code, caught.value.text) == ("cut_by_length", TEXT[:cut])


def test_an_answer_that_is_whole_although_it_reached_its_limit_is_taken() -> None:
    with openai("async", [ended(TEXT, "length")]) as client:
        assert client.chat(output=OfPydantic).output == KINDS[OfPydantic]


@every_face
def test_only_the_last_error_is_told(face: str) -> None:
    answers = [answer('{"name": 5, "age": 3}'), answer(WRONG), answer(TEXT)]
    with openai(face, answers) as client:
        result = client.chat("Who?", output=SCHEMA)
        asked = [body_of(client, place)["messages"] for place in range(3)]
        records = client.records
    assert result.asks == 3
    assert [len(messages) for messages in asked] == [1, 3, 3]
    _, last, objection = asked[2]
    assert last == {"role": "assistant", "content": WRONG}
    assert "$.age" in objection["content"]
    assert "$.name" not in objection["content"]
    first, *others = records
    assert first.parent_id is None
    assert [each.parent_id for each in others] == [first.call_id] * 2
    assert len({each.call_id for each in records}) == 3


@every_face
@pytest.mark.parametrize("more", [0, 1, 2, 3])
def test_no_more_is_asked_than_allowed(more: int, face: str) -> None:
    settings = OutputSettings(more_asks=more)
    with openai(face, [answer(WRONG)] * (more + 1), output=settings) as client:
        with pytest.raises(LLMOutputError) as caught:
            client.chat(output=SCHEMA)
        assert len(client.requests) == more + 1
    assert caught.value.asks == more + 1


def telling(text: str, tokens: int) -> ScriptedAnswer:
    """An answer that says it took so many tokens."""
    usage = {"prompt_tokens": tokens - 1, "completion_tokens": 1, "total_tokens": tokens}
    body = (OPENING, said(text), said("", "stop"), event(choices=[], usage=usage))
    return ScriptedAnswer(headers=EVENTS, body=(*body, b"data: [DONE]\n\n"))


@every_face
@pytest.mark.parametrize(("budget", "asks"), [(0, 1), (900, 1), (1500, 2), (2500, 3), (9999, 6)])
def test_asking_again_stays_within_the_budget_of_tokens(budget: int, asks: int, face: str) -> None:
    settings = OutputSettings(more_asks=5, budget_tokens=budget)
    with openai(face, [telling(WRONG, 1000)] * asks, output=settings) as client:
        with pytest.raises(LLMOutputError) as caught:
            client.chat(output=SCHEMA)
        spent = [record.usage.total_tokens for record in client.records[1:]]  # type: ignore[union-attr]
    assert caught.value.asks == asks
    assert sum(spent) <= budget  # type: ignore[arg-type]
    assert asks == 6 or "budget_tokens" in str(caught.value)


@every_face
def test_a_stream_begins_anew_where_it_is_asked_again(face: str) -> None:
    with openai(face, [answer('{"name": "Bo"', ', "age": -1}'), answer(TEXT)]) as client:
        events = client.stream_output(output=SCHEMA)
        assert [record.stream for record in client.records] == [True, True]
    seen = [(each.ask, each.partial) for each in events[:-1]]
    assert seen == [(1, {"name": "Bo"}), (1, {"name": "Bo", "age": -1}), (2, PLAIN)]
    assert (events[-1].ask, events[-1].result.asks) == (2, 2)


@every_face
def test_a_refusal_is_not_asked_again(face: str) -> None:
    refused = {"index": 0, "delta": {"refusal": "I may not."}, "finish_reason": None}
    replies = [
        ScriptedAnswer(headers=EVENTS, body=(OPENING, event(choices=[refused]), *ENDING)),
        ended("", "content_filter"),
    ]
    for reply in replies:
        with openai(face, [reply]) as client, pytest.raises(LLMContentFilterError):
            client.chat(output=SCHEMA)


@every_face
def test_each_provider_that_it_falls_back_on_is_asked_in_its_own_way(face: str) -> None:
    keys = {"OPENAI_API_KEY": KEY, "DEEPSEEK_API_KEY": KEY}
    found = Credentials(environment=keys, dotenv=None, config=None, seed=None)
    settings: dict[str, Any] = {"fallbacks": ["deepseek/deepseek-chat"], "credentials": found}
    with openai(face, [refusal(503), answer(TEXT)], **settings) as client:
        assert client.chat(output=SCHEMA).response.provider == "deepseek"
        formats = [body_of(client, place)["response_format"]["type"] for place in (0, 1)]
    assert formats == ["json_schema", "json_object"]


def test_text_beside_a_tool_call_is_left_out_and_without_one_it_is_the_answer() -> None:
    both = called(TEXT)
    beside = ScriptedAnswer(headers=EVENTS, body=(said("I call it."), *both.body))  # type: ignore[misc]
    settings = OutputSettings(mode="tool")
    with openai("async", [beside, answer(TEXT)], output=settings) as client:
        assert client.chat(output=SCHEMA).repaired is False
        assert client.chat(output=SCHEMA).output == PLAIN


@every_face
def test_an_answer_that_comes_at_once_is_read_alike(face: str) -> None:
    function = {"name": "answer", "arguments": TEXT}
    call = {"id": "c1", "type": "function", "function": function}
    replies = [at_once({"content": None, "tool_calls": [call]}, "tool_calls")] * 2
    with openai(face, replies, output=OutputSettings(mode="tool")) as client:
        result = client.chat(output=OfMsgspec)
        assert (result.output, result.response.finish_reason) == (KINDS[OfMsgspec], "stop")
        *views, last = client.stream_output(output=OfMsgspec)
    assert views[-1].partial == PLAIN
    assert last.result is not None
    assert last.result.output == KINDS[OfMsgspec]
    with openai(face, [at_once({"content": TEXT}, "stop")]) as client:
        assert client.chat(output=OfMsgspec).output == KINDS[OfMsgspec]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"tools": (ToolSpec(name="t"),), "tool_choice": NamedTool(name="t")}, "tools"),
        ({"response_schema": SCHEMA}, "response_schema"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"n": 2}, "n"),
        ({"response_mode": "tool"}, "response_mode"),
    ],
)
def test_what_cannot_be_asked_together_is_refused(settings: Any, named: str) -> None:
    with openai("async", []) as client:
        with pytest.raises(LLMInvalidRequestError) as caught:
            client.chat(output=SCHEMA, **settings)
        assert (caught.value.param, client.requests) == (named, [])


class Undescribed:
    def __init__(self, anything: Any) -> None: ...


@pytest.mark.parametrize(
    "output",
    [
        Undescribed,
        {"type": "no such type"},
        {"$ref": "https://elsewhere.example/schema.json"},
        {"$ref": "file:///etc/hostname"},
        {"$ref": "#/$defs/NotThere"},
        "not a type",
        ["neither"],
    ],
    ids=str,
)
def test_what_cannot_be_described_is_refused_before_anything_is_asked(output: Any) -> None:
    with openai("async", []) as client:
        with pytest.raises(LLMInvalidRequestError, match="output") as caught:
            client.chat(output=output)
        assert (caught.value.param, client.requests) == ("output", [])


@attrs.frozen
class Inner:
    word: str = attrs.field(converter=str.upper)


@attrs.frozen
class Outer:
    inner: list[Inner]


def test_the_converters_of_attrs_are_run() -> None:
    with openai("async", [answer('{"inner": [{"word": "abc"}]}')]) as client:
        assert client.chat(output=Outer).output == Outer(inner=[Inner("abc")])


@pytest.mark.parametrize(
    "settings", [{"mode": "xml"}, {"more_asks": -1}, {"budget_tokens": 1.5}, {"more_asks": True}]
)
def test_a_setting_out_of_its_range_is_refused(settings: Any) -> None:
    with pytest.raises(LLMInvalidRequestError):
        OutputSettings(**settings)


def test_a_request_object_is_answered_alike() -> None:
    request = LLMRequest(messages=(LLMMessage(role="user", content="Who?"),), max_tokens=9)
    with openai("sync", [answer(TEXT)] * 2) as client:
        assert client.sync is not None
        assert client.sync.generate(request, output=OfMsgspec).output == KINDS[OfMsgspec]
        with client.sync.stream_output(request, output=OfMsgspec) as events:
            (*_, last) = events
        assert last.result is not None
        assert last.result.output == KINDS[OfMsgspec]
        assert [body_of(client, i)["max_completion_tokens"] for i in (0, 1)] == [9, 9]
        with pytest.raises(LLMInvalidRequestError, match="'seed'"):
            list(client.sync.stream_output(request, output=OfMsgspec, seed=1))
