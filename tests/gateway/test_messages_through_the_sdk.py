"""Anthropic's Messages with the real model through Anthropic's own client."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import anthropic
import pytest

from gateway.served import MODEL, Served

FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
CLOCK = {"name": "get_time", "input_schema": {"type": "object", "properties": {}}}
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}},
    "required": ["city"],
    "additionalProperties": False,
}
PNG = "iVBORw0KGgo="


@pytest.fixture(scope="module")
def claude(gateway: Served) -> Iterator[anthropic.Anthropic]:
    """Anthropic's own client, pointed at the gateway; it asks once and checks every type."""
    with anthropic.Anthropic(
        base_url=gateway.url, api_key="unused", max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


def ask(claude, messages=FRANCE, *, temperature=0, **settings):
    settings = {"model": MODEL, "max_tokens": 32, **settings}
    return claude.messages.create(
        messages=messages, extra_body={"temperature": temperature}, **settings
    )


def text_of(message):
    return "".join(block.text for block in message.content if block.type == "text")


def test_the_model_knows_the_capital_of_france(claude):
    answer = ask(claude)
    assert "Paris" in text_of(answer)
    assert answer.id.startswith("msg_")
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", MODEL)
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    assert answer.usage.input_tokens > 5
    assert answer.usage.output_tokens > 1


def test_an_answer_that_is_cut_says_so(claude):
    answer = ask(claude, max_tokens=2)
    assert answer.stop_reason == "max_tokens"
    assert answer.usage.output_tokens == 2


@pytest.mark.parametrize("stream", [False, True])
def test_the_stop_sequence_that_ended_the_answer_is_named(claude, stream):
    settings = {"stop_sequences": ["never said", "Paris"]}
    if stream:
        with claude.messages.stream(
            model=MODEL,
            max_tokens=32,
            messages=FRANCE,
            extra_body={"temperature": 0},
            **settings,
        ) as events:
            answer = events.get_final_message()
    else:
        answer = ask(claude, **settings)
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "Paris")
    assert "Paris" not in text_of(answer)


def test_a_stop_sequence_that_never_came_is_not_named(claude):
    answer = ask(claude, stop_sequences=["never said"])
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)


def test_a_stream_says_what_a_plain_answer_says(claude):
    plain = ask(claude)
    with claude.messages.stream(
        model=MODEL, max_tokens=32, messages=FRANCE, extra_body={"temperature": 0}
    ) as events:
        kinds = [event.type for event in events]
        streamed = events.get_final_message()
    assert text_of(streamed) == text_of(plain)
    assert streamed.stop_reason == plain.stop_reason
    assert streamed.usage.input_tokens == plain.usage.input_tokens
    assert streamed.usage.output_tokens == plain.usage.output_tokens
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 1


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"system": "Be brief.", "stop_sequences": ["Paris"]},
        {"tools": [WEATHER, CLOCK]},
        {"tools": [WEATHER, CLOCK], "tool_choice": {"type": "any"}},
        {"tools": [WEATHER], "tool_choice": {"type": "none"}},
        {"output_config": {"format": {"type": "json_schema", "schema": CITY}}},
    ],
    ids=["plain", "system", "tools", "forced", "no tools", "schema"],
)
def test_a_stream_says_at_its_beginning_how_long_the_prompt_is(claude, more):
    with claude.messages.create(
        model=MODEL, max_tokens=24, messages=FRANCE, stream=True, **more
    ) as events:
        told = [event for event in events if event.type in ("message_start", "message_delta")]
    start, end = told
    assert start.message.usage.input_tokens == end.usage.input_tokens > 5
    assert start.message.usage.output_tokens == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}], ids=lambda c: c["type"]
)
def test_a_forced_tool_is_called_with_what_its_schema_allows(claude, choice, stream):
    settings = {"tools": [WEATHER], "tool_choice": choice, "max_tokens": 64}
    asked = [{"role": "user", "content": "What is the weather in Paris?"}]
    if stream:
        with claude.messages.stream(model=MODEL, messages=asked, **settings) as events:
            answer = events.get_final_message()
    else:
        answer = ask(claude, asked, **settings)
    (block,) = answer.content
    assert (block.type, block.name) == ("tool_use", "get_weather")
    assert set(block.input) == {"city"}
    assert answer.stop_reason == "tool_use"


def test_a_conversation_with_tools_goes_on(claude):
    call = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}}
    result = {
        "type": "tool_result",
        "tool_use_id": "toolu_1",
        "content": [{"type": "text", "text": "12 degrees"}],
        "is_error": False,
    }
    answer = ask(
        claude,
        [
            {"role": "user", "content": "Weather in Paris?"},
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [result, {"type": "text", "text": "In short?"}]},
        ],
        tools=[WEATHER],
        max_tokens=8,
    )
    assert text_of(answer)


def test_an_answer_meets_its_schema(claude):
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}},
        "required": ["city"],
        "additionalProperties": False,
    }
    answer = ask(claude, output_config={"format": {"type": "json_schema", "schema": schema}})
    assert set(json.loads(text_of(answer))) == {"city"}


COUNTED = {
    "plain": {"messages": FRANCE},
    "system": {"messages": FRANCE, "system": "Answer in one word."},
    "system in blocks": {"messages": FRANCE, "system": [{"type": "text", "text": "Be brief."}]},
    "several turns": {
        "messages": [*FRANCE, {"role": "assistant", "content": "Paris."}, *FRANCE],
    },
    "tools": {"messages": FRANCE, "tools": [WEATHER, CLOCK]},
    "a forced tool": {
        "messages": FRANCE,
        "tools": [WEATHER, CLOCK],
        "tool_choice": {"type": "any"},
    },
    "thinking": {"messages": FRANCE, "thinking": {"type": "enabled", "budget_tokens": 1024}},
    "other scripts": {"messages": [{"role": "user", "content": "日本の首都は? 🗼 Zürich"}]},
    "a tool's result": {
        "messages": [
            *FRANCE,
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "t", "content": "1"}],
            },
        ]
    },
}


@pytest.mark.parametrize("fields", COUNTED.values(), ids=COUNTED)
def test_a_count_is_the_usage_that_follows(claude, fields):
    counted = claude.messages.count_tokens(model=MODEL, **fields)
    # Twice: the second time the engine has the prompt in its cache, which nobody asked for.
    for _ in range(2):
        usage = claude.messages.create(model=MODEL, max_tokens=1, **fields).usage
        assert usage.input_tokens == counted.input_tokens
        assert not usage.cache_read_input_tokens


def test_who_asks_for_caching_is_told_of_it(claude):
    system = [{"type": "text", "text": "Be brief. " * 30, "cache_control": {"type": "ephemeral"}}]
    counted = claude.messages.count_tokens(model=MODEL, messages=FRANCE, system=system)
    first, second = (
        claude.messages.create(model=MODEL, max_tokens=1, messages=FRANCE, system=system).usage
        for _ in range(2)
    )
    assert second.cache_read_input_tokens > 30
    for usage in (first, second):
        assert usage.input_tokens + usage.cache_read_input_tokens == counted.input_tokens


def test_the_models_are_listed_in_both_forms(claude, gateway):
    page = claude.models.list()
    (chat,) = [model for model in page.data if model.id == MODEL]
    assert (chat.type, chat.lifecycle, chat.display_name) == ("model", "active", MODEL)
    assert chat.max_input_tokens > 100
    assert claude.models.retrieve(MODEL) == chat
    first = claude.models.list(limit=1)
    assert [model.id for model in first.data] == [page.data[0].id]
    ours = gateway.get("/v1/models").json
    assert [model["id"] for model in ours["data"]] == [model.id for model in page.data]
    assert ours["object"] == "list"


def test_an_unknown_model_is_not_found(claude):
    for call in (
        lambda: ask(claude, model="smollm3"),
        lambda: claude.models.retrieve("smollm3"),
        lambda: claude.messages.count_tokens(model="smollm3", messages=FRANCE),
    ):
        with pytest.raises(anthropic.NotFoundError) as caught:
            call()
        assert caught.value.body["error"]["type"] == "not_found_error"
        assert caught.value.request_id == caught.value.body["request_id"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_tokens": 0.5}, "max_tokens"),
        ({"max_tokens": 20000}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"extra_body": {"temprature": 1}}, "temprature"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
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
                                    "data": PNG,
                                },
                            }
                        ],
                    }
                ]
            },
            "image",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "document",
                                "source": {
                                    "type": "text",
                                    "media_type": "text/plain",
                                    "data": "Paris is a city.",
                                },
                            }
                        ],
                    }
                ]
            },
            "files or documents",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_request_is_told_what_is_wrong(claude, fields, words, stream):
    settings = {"model": MODEL, "max_tokens": 4, "messages": FRANCE, **fields}
    with pytest.raises(anthropic.BadRequestError, match=words) as caught:
        claude.messages.create(stream=stream, **settings)
    assert caught.value.body["type"] == "error"
    assert caught.value.body["error"]["type"] == "invalid_request_error"
    assert caught.value.request_id


def test_what_a_local_engine_has_no_use_for_is_listed(claude):
    answer = claude.messages.with_raw_response.create(
        model=MODEL,
        max_tokens=1,
        messages=[
            {
                "role": "user",
                "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}],
            }
        ],
        service_tier="auto",
        thinking={"type": "enabled", "budget_tokens": 1024},
        tools=[{**CLOCK, "defer_loading": True}],
        tool_choice={"type": "none"},
        metadata={"user_id": "u"},
    )
    dropped = answer.headers["x-headrace-dropped"].split(", ")
    assert set(dropped) >= {
        "service_tier",
        "thinking",
        "tools.defer_loading",
        "messages.content.cache",
    }


HEADERS = {"anthropic-version": "2023-06-01"}


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/v1/messages", 405, "invalid_request_error"),
        ("POST", "/v1/messages/nothing", 404, "not_found_error"),
        ("POST", "/v1/messages/batches", 400, "invalid_request_error"),
        ("GET", "/v1/messages/batches/none", 404, "not_found_error"),
        ("POST", "/v1/messages", 400, "invalid_request_error"),
        ("POST", "/messages", 400, "invalid_request_error"),
        ("POST", "/v1/messages/count_tokens", 400, "invalid_request_error"),
        ("GET", "/v1/files/none", 404, "not_found_error"),
    ],
)
def test_what_goes_wrong_on_the_way_is_told_in_anthropics_form(gateway, method, path, status, kind):
    headers = HEADERS if path == "/v1/files/none" else {}
    reply = gateway.ask(method, path, b"{" if method == "POST" else None, headers)
    assert reply.status == status
    assert reply.json["type"] == "error"
    assert reply.json["error"]["type"] == kind
    assert reply.headers["request-id"] == reply.json["request_id"]
    if status == 405:
        assert reply.headers["allow"] == "POST"


def test_every_answer_of_this_face_has_a_request_id(gateway):
    body = {"model": MODEL, "max_tokens": 1, "messages": FRANCE}
    for more in ({}, {"stream": True}):
        reply = gateway.post("/v1/messages", {**body, **more})
        assert reply.status == 200
        assert reply.headers["request-id"].startswith("req_")
    assert "request-id" not in gateway.chat(max_tokens=1).headers


KEY = "hr-a-key-for-claude"


@pytest.fixture(scope="module")
def guarded(box_model, tmp_path_factory) -> Iterator[Served]:
    hashed = "sha256:" + hashlib.sha256(KEY.encode()).hexdigest()
    settings = {"api_keys": [hashed], "max_body_bytes": 4096, "body_timeout_ms": 400}
    served = Served(
        tmp_path_factory.mktemp("guarded"),
        {"server": settings, "engine": {"kv_tokens": 512}, "inference": {"context_length": 512}},
    )
    try:
        yield served
    finally:
        served.stop()


def test_a_key_may_be_shown_in_either_header(guarded):
    shown = (
        {"x-api-key": KEY},
        {"authorization": f"Bearer {KEY}"},
        {"x-api-key": "old", "authorization": f"Bearer {KEY}"},
        {"x-api-key": KEY, "authorization": "Bearer old"},
    )
    for headers in shown:
        assert guarded.get("/v1/models", **headers).status == 200


@pytest.mark.parametrize("headers", [{}, {"x-api-key": "wrong"}, {"x-api-key": f"Bearer {KEY}"}])
def test_a_wrong_key_is_refused_in_anthropics_form(guarded, headers):
    reply = guarded.post("/v1/messages", {}, headers)
    assert reply.status == 401
    assert reply.json["error"]["type"] == "authentication_error"
    assert reply.headers["request-id"]
    assert KEY not in reply.body.decode()


def test_the_sdk_says_authentication(guarded):
    with (
        anthropic.Anthropic(base_url=guarded.url, api_key="wrong", max_retries=0) as client,
        pytest.raises(anthropic.AuthenticationError),
    ):
        client.models.list()
    with anthropic.Anthropic(base_url=guarded.url, api_key=KEY, max_retries=0) as client:
        assert client.models.list().data


def test_a_body_that_is_too_large_is_413(guarded):
    reply = guarded.post("/v1/messages", b" " * 5000, {"x-api-key": KEY})
    assert reply.status == 413
    assert reply.json["error"]["type"] == "request_too_large"


@pytest.mark.parametrize("temperature", [0, 1])
def test_a_forced_call_of_a_tool_without_parameters_has_no_arguments(claude, temperature):
    asked = [{"role": "user", "content": "Set the clock in Paris to seven, please."}]
    choice = {"type": "tool", "name": "get_time"}
    answer = ask(claude, asked, temperature=temperature, tools=[CLOCK], tool_choice=choice)
    (block,) = answer.content
    assert (block.name, block.input) == ("get_time", {})
