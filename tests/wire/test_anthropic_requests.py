"""Requests in Anthropic's form: what they mean to us, and what is refused by which name."""

import json

import pytest

from headrace.contracts.errors import LLMCapabilityError, LLMInvalidRequestError
from headrace.contracts.messages import (
    AudioPart,
    FilePart,
    ImagePart,
    LLMMessage,
    ReasoningPart,
    TextPart,
    ToolCall,
    ToolSpec,
)
from headrace.contracts.requests import LLMRequest, NamedTool
from headrace.wire import anthropic

USER = {"role": "user", "content": "hi"}
PIXEL = "iVBORw0KGgo="
TOOL = {"name": "f", "input_schema": {"type": "object"}}


def inbound(**fields):
    body = {"model": "m", "max_tokens": 5, "messages": [USER], **fields}
    return anthropic.read_request(json.dumps(body).encode())


def request(**fields):
    return inbound(**fields).request


def user(*blocks):
    return request(messages=[{"role": "user", "content": list(blocks)}]).messages


def body(**fields):
    asked = LLMRequest(messages=(LLMMessage(role="user", content="hi"),), model="m", **fields)
    return json.loads(anthropic.write_request(asked, stream=False))


def test_the_plain_fields():
    read = request(
        system="Be brief.",
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        stop_sequences=["a", "b"],
        metadata={"user_id": "u"},
        service_tier="auto",
    )
    assert read == LLMRequest(
        messages=(
            LLMMessage(role="system", content="Be brief."),
            LLMMessage(role="user", content="hi"),
        ),
        model="m",
        max_tokens=5,
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        stop=("a", "b"),
        user="u",
        provider_options={"service_tier": "auto"},
    )


def test_results_of_tools_are_turns_of_their_own_before_what_else_is_said():
    image = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": PIXEL},
    }
    read = user(
        {"type": "text", "text": "Well?"},
        {"type": "tool_result", "tool_use_id": "a", "content": "4", "is_error": True},
        {"type": "tool_result", "tool_use_id": "b", "content": [image]},
        {"type": "tool_result", "tool_use_id": "c", "cache_control": {"type": "ephemeral"}},
    )
    picture = ImagePart(data=b"\x89PNG\r\n\x1a\n", media_type="image/png")
    assert read == (
        LLMMessage(role="tool", content="4", tool_call_id="a", tool_error=True),
        LLMMessage(role="tool", content=(picture,), tool_call_id="b"),
        LLMMessage(role="tool", content=(TextPart(text="", cache="5m"),), tool_call_id="c"),
        LLMMessage(role="user", content="Well?"),
    )


def test_all_results_of_one_turn_are_sent_in_one_turn():
    results = [LLMMessage(role="tool", content=str(i), tool_call_id=f"c{i}") for i in range(2)]
    asked = LLMRequest(messages=(LLMMessage(role="user", content="go"), *results), model="m")
    _, turn = json.loads(anthropic.write_request(asked, stream=False))["messages"]
    assert [block["tool_use_id"] for block in turn["content"]] == ["c0", "c1"]


def test_an_assistants_turn():
    turn = {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "s"},
            {"type": "redacted_thinking", "data": "xyz"},
            {"type": "text", "text": "Let me see."},
            {"type": "tool_use", "id": "t", "name": "f", "input": {"a": [1]}},
        ],
    }
    assert request(messages=[USER, turn]).messages[1] == LLMMessage(
        role="assistant",
        content="Let me see.",
        reasoning="Hm.",
        reasoning_parts=(
            ReasoningPart(text="Hm.", signature="s"),
            ReasoningPart(encrypted="xyz"),
        ),
        tool_calls=(ToolCall(name="f", arguments_json='{"a":[1]}', call_id="t"),),
    )


@pytest.mark.parametrize(
    ("source", "part"),
    [
        (
            {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
            FilePart(data=b"%PDF", media_type="application/pdf", filename="T"),
        ),
        (
            {"type": "text", "media_type": "text/plain", "data": "hé"},
            FilePart(data="hé".encode(), media_type="text/plain", filename="T"),
        ),
        ({"type": "url", "url": "https://x/a"}, FilePart(url="https://x/a", filename="T")),
        ({"type": "file", "file_id": "f1"}, FilePart(file_id="f1", filename="T")),
    ],
)
def test_documents(source, part):
    (turn,) = user({"type": "document", "source": source, "title": "T"})
    assert turn.content == (part,)


TEXT = {"type": "text", "text": "said"}
FOUND = {"type": "search_result", "source": "https://x", "title": "T", "content": [TEXT]}
CHUNKS = {"type": "document", "source": {"type": "content", "content": [TEXT]}}


@pytest.mark.parametrize(
    ("block", "field"),
    [
        (FOUND, "type"),
        ({**FOUND, "citations": {"enabled": True}}, "type"),
        (CHUNKS, "source.type"),
        ({"type": "document", "source": {"type": "content", "content": "said"}}, "source.type"),
        (
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/html", "data": "<p>"},
            },
            "source.media_type",
        ),
        ({"type": "container_upload", "file_id": "f1"}, "type"),
        ({"type": "web_search_tool_result", "tool_use_id": "t", "content": []}, "type"),
    ],
)
@pytest.mark.parametrize("within", ["turn", "result"])
def test_a_block_that_cannot_be_carried_is_refused_by_its_name(block, field, within):
    path = "messages.0.content.0"
    if within == "result":
        block, path = (
            {"type": "tool_result", "tool_use_id": "t", "content": [block]},
            f"{path}.content.0",
        )
    with pytest.raises(LLMInvalidRequestError, match="Expected") as caught:
        user(block)
    assert caught.value.param == f"{path}.{field}"


@pytest.mark.parametrize("within", ["turn", "result"])
def test_citations_that_will_not_come_are_named(within):
    asked = {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": "said", "own": 1},
        "citations": {"enabled": True},
        "context": "found",
    }
    if within == "result":
        asked = {"type": "tool_result", "tool_use_id": "t", "content": [asked]}
    read = inbound(messages=[{"role": "user", "content": [asked]}])
    assert set(read.dropped) == {
        "messages.content.citations",
        "messages.content.context",
        "messages.content.source.own",
    }


def test_an_uploaded_image_is_known_by_its_id():
    (turn,) = user({"type": "image", "source": {"type": "file", "file_id": "f1"}})
    assert turn.content == (FilePart(file_id="f1", media_type="image/*"),)


@pytest.mark.parametrize(
    ("choice", "ours", "parallel"),
    [
        ({"type": "auto"}, "auto", None),
        ({"type": "any", "disable_parallel_tool_use": True}, "required", False),
        ({"type": "tool", "name": "f"}, NamedTool(name="f"), None),
        ({"type": "none"}, "none", None),
    ],
)
def test_tool_choices(choice, ours, parallel):
    read = request(tools=[{**TOOL, "type": "custom", "strict": True}], tool_choice=choice)
    assert read.tools == (ToolSpec(name="f", input_schema={"type": "object"}, strict=True),)
    assert (read.tool_choice, read.parallel_tool_calls) == (ours, parallel)


@pytest.mark.parametrize(
    ("fields", "effort", "options"),
    [
        ({"thinking": {"type": "disabled"}}, "none", {}),
        ({"thinking": {"type": "adaptive"}}, "high", {}),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, "low", {}),
        ({"output_config": {"effort": "max"}}, "max", {}),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 2048}},
            "low",
            {"thinking": {"type": "enabled", "budget_tokens": 2048}},
        ),
        (
            {
                "thinking": {"type": "enabled", "budget_tokens": 9000},
                "output_config": {"effort": "low"},
            },
            "low",
            {
                "thinking": {"type": "enabled", "budget_tokens": 9000},
                "output_config": {"effort": "low"},
            },
        ),
        ({"output_config": {"task_budget": 5}}, None, {"output_config": {"task_budget": 5}}),
    ],
)
def test_how_much_a_model_may_think(fields, effort, options):
    read = request(**fields)
    assert read.reasoning_effort == effort
    assert read.provider_options == options


def test_effort_becomes_adaptive_thinking():
    assert body(reasoning_effort="minimal")["thinking"] == {"type": "adaptive"}
    assert body(reasoning_effort="minimal")["output_config"] == {"effort": "low"}
    assert body(reasoning_effort="none")["thinking"] == {"type": "disabled"}
    assert "thinking" not in body()


@pytest.mark.parametrize("field", ["output_config", "output_format"])
def test_a_schema_for_the_answer(field):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    wire = {"type": "json_schema", "schema": schema}
    value = {"format": wire} if field == "output_config" else wire
    assert request(**{field: value}).response_schema == schema
    assert body(response_schema=schema)["output_config"] == {"format": wire}


def test_what_has_no_place_is_named_once():
    read = inbound(
        tools=[{**TOOL, "defer_loading": True, "allowed_callers": ["direct"], "x y": 1}],
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a", "citations": [{}]},
                    {"type": "text", "text": "b", "citations": [{}]},
                    {
                        "type": "document",
                        "source": {"type": "url", "url": "http://x"},
                        "context": "c",
                    },
                ],
            }
        ],
    )
    assert read.dropped == (
        "tools.defer_loading",
        "tools.?",
        "messages.content.citations",
        "messages.content.context",
    )


def test_caching_is_told_of_to_those_who_asked_for_it():
    marked = {"type": "text", "text": "long", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    read = inbound(system=[marked])
    assert read.tells_cache
    assert read.request.messages[0].content == (TextPart(text="long", cache="1h"),)
    assert not inbound().tells_cache


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": ""}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "x"}]}]}, "messages.0.content.0.type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "thinking"}]}]},
            "messages.0.content.0.type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]},
            "messages.0.content.0.tool_use_id",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image", "source": {"type": "url", "url": "file:///etc"}}
                        ],
                    }
                ]
            },
            "messages.0.content.0.source.url",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "image",
                                "source": {
                                    "type": "base64",
                                    "media_type": "image/png",
                                    "data": "%%%",
                                },
                            }
                        ],
                    }
                ]
            },
            "messages.0.content.0.source.data",
        ),
        ({"system": [{"type": "image"}]}, "system.0.type"),
        ({"temperature": 1.5}, "temperature"),
        ({"stop_sequences": "a"}, "stop_sequences"),
        ({"stream": "yes"}, "stream"),
        ({"metadata": {"name": "x"}}, "metadata.name"),
        ({"tools": [{"name": "f"}]}, "tools.0.input_schema"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
        ({"tools": [{**TOOL, "input_schema": {"type": "array"}}]}, "tools.0.input_schema.type"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "deeply"}}, "thinking.type"),
        ({"output_config": {"effort": "huge"}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
        (
            {"system": [{"type": "text", "text": "", "cache_control": {"type": "forever"}}]},
            "system.0.cache_control.type",
        ),
    ],
)
def test_a_wrong_field_is_named(fields, param):
    with pytest.raises(LLMInvalidRequestError) as caught:
        request(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (AudioPart(data=b"x", format="wav"), "recordings"),
        (FilePart(data=b"PK", media_type="application/zip"), "application/zip"),
        (FilePart(data=b"\xff\xfe"), "neither PDF nor text"),
    ],
)
def test_what_anthropic_takes_in_no_form_is_refused(content, words):
    asked = LLMRequest(messages=(LLMMessage(role="user", content=(content,)),), model="m")
    with pytest.raises(LLMCapabilityError, match=words):
        anthropic.write_request(asked, stream=False)


def test_loose_json_is_refused():
    with pytest.raises(LLMCapabilityError, match="json_object"):
        body(response_format={"type": "json_object"})


def test_several_system_turns_become_one():
    turns = tuple(LLMMessage(role="system", content=text) for text in ("a", "b"))
    asked = LLMRequest(messages=(*turns, LLMMessage(role="user", content="hi")), model="m")
    wire = json.loads(anthropic.write_request(asked, stream=False))
    assert wire["system"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]


def test_options_are_laid_over_the_body_and_into_its_objects():
    wire = body(
        user="u",
        reasoning_effort="low",
        provider_options={"metadata": {"x": 1}, "output_config": {"y": 2}, "speed": "fast"},
    )
    assert wire["metadata"] == {"user_id": "u", "x": 1}
    assert wire["output_config"] == {"effort": "low", "y": 2}
    assert wire["speed"] == "fast"
