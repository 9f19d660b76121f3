"""Bodies that no well-meaning client sends: each gets a clear refusal, never a 500."""

from __future__ import annotations

import json

import pytest

from gateway.served import MODEL

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "hello"}]
LONE = r"\ud83d"


def chat_body(**fields):
    return {"messages": HELLO, "max_tokens": 1, **fields}


def shaped(schema):
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def refused(reply, status=400):
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/json"
    error = reply.error
    assert error["type"] == "invalid_request_error"
    assert reply.headers["x-request-id"]
    return error


@pytest.mark.parametrize("path", [CHAT, TEXT])
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"   \n", "empty"),
        (b"hello", "not valid JSON"),
        (b'{"messages": [', "too early"),
        (b'{"messages": []} trailing', "not valid JSON"),
        (b"{'messages': []}", "not valid JSON"),
        (b'{"temperature": NaN}', "not valid JSON"),
        (b'{"temperature": Infinity}', "not valid JSON"),
        (b'{"temperature": -Infinity}', "not valid JSON"),
        (b'{"temperature": 1e999}', "too large"),
        (b'{"max_tokens": ' + b"9" * 5000 + b"}", "too large"),
        (b'{"user": "' + LONE.encode() + b'"}', "surrogate"),
        (b'{"' + LONE.encode() + b'": 1}', "surrogate"),
        (b'{"user": "\xff\xfe"}', "UTF-8"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ("{}".encode("utf-16"), "byte order mark"),
        (b'{"user": "a\x00b"}', "not valid JSON"),
        (b'{"model": "a", "model": "b"}', "twice"),
        (b'{"stream_options": {"a": 1, "a": 1}}', "twice"),
        (b'{"mod\\u0065l": "a", "model": "b"}', "twice"),
        (b"[" * 20_000, "deep"),
        (b"[" * 20_000 + b"]" * 20_000, "deep"),
        (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, "deep"),
        (b'{"x": ' + b"[" * 200 + b"]" * 200 + b"}", "deep"),
        (b"null", "object"),
        (b"[]", "object"),
        (b'"text"', "object"),
        (b"17", "object"),
        (b"true", "object"),
    ],
)
def test_what_is_no_json_object_is_refused_with_the_reason(gateway, path, body, words):
    assert words in refused(gateway.post(path, body))["message"]


FIELDS = {
    "model": 5,
    "messages": "hello",
    "max_tokens": "many",
    "max_completion_tokens": [1],
    "temperature": "warm",
    "top_p": {},
    "top_k": 1.5,
    "min_p": "x",
    "seed": "seven",
    "stop": 7,
    "frequency_penalty": True,
    "presence_penalty": [],
    "repetition_penalty": "x",
    "logit_bias": [1],
    "n": "two",
    "user": 12,
    "tools": {},
    "tool_choice": 5,
    "parallel_tool_calls": "yes",
    "response_format": "json",
    "logprobs": 3,
    "top_logprobs": "all",
    "reasoning_effort": 9,
    "stream": "yes",
    "stream_options": True,
    "metadata": [],
    "store": "no",
    "functions": 1,
    "function_call": 1,
}


@pytest.mark.parametrize("field", FIELDS)
def test_a_chat_field_of_the_wrong_type_is_named(gateway, field):
    error = refused(gateway.post(CHAT, chat_body(**{field: FIELDS[field]})))
    assert error["param"] == field
    assert field in error["message"]


TEXT_FIELDS = {
    "prompt": {"text": "hello"},
    "max_tokens": "many",
    "temperature": [],
    "logprobs": True,
    "echo": "yes",
    "suffix": 1,
    "best_of": "all",
    "n": "two",
    "stop": {"a": 1},
    "stream": 1,
}


@pytest.mark.parametrize("field", TEXT_FIELDS)
def test_a_completion_field_of_the_wrong_type_is_named(gateway, field):
    body = {"prompt": "hello", "max_tokens": 1, field: TEXT_FIELDS[field]}
    error = refused(gateway.post(TEXT, body))
    assert error["param"] == field
    assert field in error["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 10**12}, "max_tokens"),
        ({"max_completion_tokens": -5}, "max_completion_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 100_000}, "n"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"presence_penalty": 5}, "presence_penalty"),
        ({"logit_bias": {"1": 1000}}, "logit_bias.1"),
        ({"stop": ["a", 1]}, "stop[1]"),
        ({"seed": 2**80}, "seed"),
        ({"reasoning_effort": "heroic"}, "reasoning_effort"),
        ({"messages": []}, "messages"),
        ({"messages": ["hello"]}, "messages[0]"),
        ({"messages": [{"content": "hello"}]}, "messages[0].role"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [*HELLO, {"role": "user", "content": None}]}, "messages[1].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]},
            "messages[0].content[0].text",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "smell"}]}]},
            "messages[0].content[0].type",
        ),
        ({"tools": [1]}, "tools[0]"),
        ({"tools": [{}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {}}, "response_format.type"),
        ({"response_format": {"type": "poem"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": 5}}},
            "response_format.json_schema.schema",
        ),
        (
            {"stream": True, "stream_options": {"include_usage": "yes"}},
            "stream_options.include_usage",
        ),
    ],
)
def test_a_value_out_of_its_bounds_is_named_by_its_path(gateway, fields, param):
    error = refused(gateway.post(CHAT, chat_body(**fields)))
    assert error["param"] == param
    assert param in error["message"]


@pytest.mark.parametrize(
    ("schema", "at"),
    [
        ("none", ""),
        (["object"], ""),
        ({"type": "string"}, ".type"),
        ({"type": "objekt"}, ".type"),
        ({"type": "object", "properties": []}, ".properties"),
        ({"type": "object", "properties": {"a": 5}}, ".properties.a"),
        ({"type": "object", "properties": {"a": {"type": "text"}}}, ".properties.a.type"),
        ({"type": "object", "required": "a"}, ".required"),
        ({"type": "object", "properties": {"a": {"anyOf": {}}}}, ".properties.a.anyOf"),
        ({"type": "object", "properties": {"a": {"enum": "x"}}}, ".properties.a.enum"),
    ],
)
def test_a_tool_whose_parameters_are_no_schema_is_refused(gateway, schema, at):
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    error = refused(gateway.post(CHAT, chat_body(tools=[tool])))
    assert error["param"] == f"tools[0].function.parameters{at}"


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/nowhere"},
        {"$ref": "https://example.invalid/schema.json"},
        {"type": "string", "pattern": "(unclosed"},
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
        {"type": "string", "minLength": 10**9},
        {"type": "string", "minLength": -1},
        {"type": "integer", "minimum": 5, "maximum": 2},
        {"enum": []},
        {"allOf": [{"type": "string"}, {"type": "integer"}]},
        False,
    ],
)
def test_a_schema_that_makes_no_sense_is_never_our_own_failure(gateway, schema):
    reply = gateway.post(CHAT, chat_body(response_format=shaped(schema)))
    assert reply.status in (200, 400), reply.body
    if reply.status == 400:
        assert reply.error["message"]


# Each of these, let through, keeps the engine's one generating thread busy until memory is full.
CROSSED = [
    {"type": "array", "minItems": 5, "maxItems": 2},
    {"type": "string", "minLength": 5, "maxLength": 2},
    {"type": "string", "pattern": "^a{5,2}$"},
    {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(b{07,6})$"}}},
]
HUGE = [
    {"enum": [f"value {i}" for i in range(5000)]},
    {"anyOf": [{"const": f"value {i}"} for i in range(5000)]},
    {"type": "object", "properties": {f"field_{i}": {"type": "string"} for i in range(3000)}},
    {"type": "string", "pattern": "^" + "abc|" * 20_000 + "$"},
]


@pytest.mark.parametrize("schema", CROSSED + HUGE)
def test_a_schema_that_would_hang_the_engine_is_refused(gateway, schema):
    error = refused(gateway.post(CHAT, chat_body(response_format=shaped(schema))))
    assert error["param"] == "response_format"


@pytest.mark.parametrize("choice", ["auto", "required"])
@pytest.mark.parametrize("schema", CROSSED[:2] + HUGE[:1])
def test_a_tool_that_would_hang_the_engine_is_refused(gateway, schema, choice):
    parameters = {"type": "object", "properties": {"a": schema}}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    error = refused(gateway.post(CHAT, chat_body(tools=[tool], tool_choice=choice)))
    assert error["param"] == "tools[0].function.parameters"


@pytest.mark.parametrize(
    ("field", "value"),
    [("grammar", 'root ::= "a"{5,2}'), ("json_schema", CROSSED[0]), ("json_schema", HUGE[0])],
)
def test_a_grammar_that_would_hang_the_engine_is_refused(gateway, field, value):
    for path, body in ((CHAT, chat_body()), (TEXT, {"prompt": "x", "max_tokens": 1})):
        assert refused(gateway.post(path, {**body, field: value}))["param"] == field


def test_a_repetition_that_can_be_met_is_no_reason_to_refuse(gateway):
    schema = {"type": "string", "minLength": 3, "maxLength": 3, "pattern": "^a{2,2}b{1,}$"}
    assert gateway.post(CHAT, chat_body(response_format=shaped(schema))).status == 200


def test_an_unknown_field_is_refused_with_the_nearest_known_one(gateway):
    error = refused(gateway.post(CHAT, chat_body(temprature=1)))
    assert error["param"] == "temprature"
    assert "did you mean 'temperature'" in error["message"]


def test_an_unknown_model_is_refused_with_the_nearest_known_one(gateway):
    error = refused(gateway.post(CHAT, chat_body(model="smollm2-135m-instrct")), 404)
    assert error["code"] == "model_not_found"
    assert error["param"] == "model"
    assert MODEL in error["message"]


def test_a_model_name_that_is_like_no_other_gets_the_list(gateway):
    error = refused(gateway.post(CHAT, chat_body(model="\U0001f600\n\"'<>")), 404)
    assert MODEL in error["message"]


def test_a_prompt_that_is_too_long_is_refused_as_such(gateway):
    long = [{"role": "user", "content": "word " * 9000}]
    error = refused(gateway.post(CHAT, chat_body(messages=long)))
    assert error["code"] == "context_length_exceeded"
    assert "8192" in error["message"]


def test_a_prompt_that_is_too_long_is_refused_before_a_stream_begins(gateway):
    long = [{"role": "user", "content": "word " * 9000}]
    error = refused(gateway.post(CHAT, chat_body(messages=long, stream=True)))
    assert error["code"] == "context_length_exceeded"


def test_a_completion_prompt_that_is_too_long_is_refused_as_such(gateway):
    error = refused(gateway.post(TEXT, {"prompt": [1] * 9000, "max_tokens": 1}))
    assert error["code"] == "context_length_exceeded"


def test_more_answer_than_the_context_holds_is_refused_by_its_field(gateway):
    error = refused(gateway.post(CHAT, chat_body(max_tokens=8193)))
    assert error["code"] == "context_length_exceeded"
    assert error["param"] == "max_tokens"
    assert "8192" in error["message"]


@pytest.mark.parametrize("tokens", [[-1], [2**31], [0.5], [[]], [["a"]], []])
def test_what_are_no_token_ids_is_refused(gateway, tokens):
    error = refused(gateway.post(TEXT, {"prompt": tokens, "max_tokens": 1}))
    assert error["param"].startswith("prompt")


@pytest.mark.parametrize("token", [49152, 10**9])
def test_token_ids_that_the_model_does_not_have_are_refused(gateway, token):
    error = refused(gateway.post(TEXT, {"prompt": [1, token], "max_tokens": 1}))
    assert "token" in error["message"]


@pytest.mark.parametrize(
    "text",
    ["", " ", "\x00", "\U0001f600" * 50, "\u202e", "\ufeff", "<|im_end|>", "{% raw %}", "a" * 3000],
    ids=lambda text: ascii(text[:9]),
)
def test_odd_text_is_answered_like_any_other(gateway, text):
    reply = gateway.chat(text, max_tokens=1)
    assert reply.status == 200, reply.body
    assert len(reply.json["choices"]) == 1


def test_after_all_that_the_gateway_is_well(gateway):
    assert gateway.get("/ready").status == 200
    assert (
        gateway.chat("What is the capital of France?", max_tokens=16, temperature=0).status == 200
    )
    assert not [line for line in gateway.log_lines if line["message"] == "unexpected error"]


@pytest.mark.parametrize("body", [{"messages": HELLO}, {"prompt": "x"}])
def test_the_other_face_s_body_is_told_what_is_missing(gateway, body):
    path, missing = (TEXT, "prompt") if "messages" in body else (CHAT, "messages")
    error = refused(gateway.post(path, json.dumps(body).encode()))
    assert error["param"] == missing
