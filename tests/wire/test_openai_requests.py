"""What callers send: what is understood, and how what is wrong is refused."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.contracts.errors import LLMCapabilityError, LLMInvalidRequestError
from headrace.contracts.messages import (
    AudioPart,
    FilePart,
    ImagePart,
    LLMMessage,
    TextPart,
    ToolCall,
    ToolSpec,
)
from headrace.contracts.requests import LLMRequest, NamedTool
from headrace.wire import openai_chat, openai_completions
from headrace.wire.inbound import requests
from headrace.wire.openai_params import LLAMA_CPP, OPENAI

from .strategies import json_values

HELLO = {"role": "user", "content": "Hello"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}


def read(**fields):
    return openai_chat.read_request(json.dumps({"messages": [HELLO], **fields}).encode())


def read_messages(*messages):
    return read(messages=list(messages)).request.messages


def read_text(**fields):
    return openai_completions.read_request(json.dumps({"prompt": "Once", **fields}).encode())


def test_the_smallest_request_leaves_every_choice_to_the_backend():
    inbound = read()
    assert inbound.request == LLMRequest(messages=(LLMMessage(role="user", content="Hello"),))
    assert not inbound.stream
    assert not inbound.include_usage


def test_null_is_the_same_as_absent():
    nulls = ("model", "temperature", "max_tokens", "tools", "tool_choice", "stop", "stream")
    nulls += ("stream_options", "response_format", "logprobs", "n", "store", "metadata", "user")
    assert read(**dict.fromkeys(nulls)) == read()


def test_fields_that_we_do_not_know_go_on_to_the_backend_as_they_came():
    odd = {"grammar": "root ::= x", "chat_template_kwargs": {"a": [1, None]}, "cache_prompt": None}
    request = read(**odd).request
    assert request.provider_options == odd
    body = json.loads(openai_chat.write_request(request, stream=False))
    assert {name: body[name] for name in odd} == odd


def test_metadata_of_the_wire_is_the_providers_and_never_ours():
    request = read(metadata={"api_key": "x"}).request
    assert request.metadata == {}
    assert request.provider_options == {"metadata": {"api_key": "x"}}
    ours = LLMRequest(messages=request.messages, metadata={"api_key": "secret"})
    assert b"secret" not in openai_chat.write_request(ours, stream=True)


def test_a_conversation_with_tools_is_read_whole():
    assert read_messages(
        {"role": "developer", "content": "Be brief", "name": "boss"},
        {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "sunny", "tool_call_id": "c1", "name": "weather"},
        {"role": "assistant", "content": "Sunny", "reasoning_content": "hm", "refusal": None},
    ) == (
        LLMMessage(role="system", content="Be brief", name="boss"),
        LLMMessage(role="user", content=(TextPart(text="Weather?"),)),
        LLMMessage(
            role="assistant",
            content="",
            tool_calls=(ToolCall(name="weather", arguments_json="{}", call_id="c1"),),
        ),
        LLMMessage(role="tool", content="sunny", tool_call_id="c1", tool_name="weather"),
        LLMMessage(role="assistant", content="Sunny", reasoning="hm"),
    )


def test_a_turn_of_calls_alone_is_written_with_null_content():
    call = ToolCall(name="weather", arguments_json="{}", call_id="c1")
    turn = LLMMessage(role="assistant", content="", tool_calls=(call,))
    body = json.loads(openai_chat.write_request(LLMRequest(messages=(turn,)), stream=False))
    assert body["messages"] == [{"role": "assistant", "content": None, "tool_calls": [CALL]}]


def test_an_answer_sent_back_with_all_its_fields_is_a_message():
    sent_back = {
        "role": "assistant",
        "content": "Hi",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
        "reasoning": "hm",
        "reasoning_details": [{"type": "x"}],
    }
    assert read_messages(sent_back) == (LLMMessage(role="assistant", content="Hi", reasoning="hm"),)


def test_refusal_parts_become_the_messages_refusal():
    parts = [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "no"}]
    assert read_messages({"role": "assistant", "content": parts}) == (
        LLMMessage(role="assistant", content=(TextPart(text="a"),), refusal="no"),
    )


def test_images_sound_and_files_are_read_by_url_and_by_bytes():
    content = [
        {"type": "image_url", "image_url": {"url": "https://x.test/a.png", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}},
        {
            "type": "file",
            "file": {"file_data": "data:application/pdf;base64,aGk=", "filename": "f"},
        },
        {"type": "file", "file": {"file_data": "aGk="}},
        {"type": "file", "file": {"file_id": "file-1"}},
    ]
    (message,) = read_messages({"role": "user", "content": content})
    assert message.content == (
        ImagePart(url="https://x.test/a.png", detail="low"),
        ImagePart(data=b"hi", media_type="image/png"),
        AudioPart(data=b"hi", format="wav"),
        FilePart(data=b"hi", media_type="application/pdf", filename="f"),
        FilePart(data=b"hi"),
        FilePart(file_id="file-1"),
    )


def test_the_old_functions_become_tools():
    request = read(
        functions=[WEATHER["function"], {"name": "other"}], function_call={"name": "other"}
    ).request
    assert [tool.name for tool in request.tools] == ["weather", "other"]
    assert request.tool_choice == NamedTool(name="other")
    assert request.provider_options == {}


def test_functions_beside_tools_of_the_same_name_add_nothing():
    request = read(functions=[WEATHER["function"]], tools=[WEATHER], tool_choice="auto").request
    assert len(request.tools) == 1
    assert request.tool_choice == "auto"


@pytest.mark.parametrize(
    ("response_format", "schema"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, None),
        ({"type": "json_object", "schema": {"items": [{"type": "integer"}]}}, ...),
        ({"type": "json_schema", "json_schema": {"schema": {"const": "42"}}}, ...),
        ({"type": "json_schema", "json_schema": {"name": "a", "strict": True}}, None),
    ],
)
def test_a_response_format_is_kept_and_its_schema_found(response_format, schema):
    request = read(response_format=response_format).request
    assert request.response_format == response_format
    if schema is ...:
        described = response_format.get("json_schema", response_format)
        schema = described["schema"]
    assert request.response_schema == schema
    written = json.loads(openai_chat.write_request(request, stream=False))
    assert written["response_format"] == response_format


def test_a_schema_alone_is_written_as_a_response_format():
    for hint in (None, {"type": "json_object"}):
        request = LLMRequest(
            messages=(LLMMessage(role="user", content="x"),),
            response_schema={"type": "object"},
            response_format=hint,
        )
        body = openai_chat.write_request(request, stream=False)
        assert openai_chat.read_request(body).request.response_schema == {"type": "object"}


def test_either_name_of_the_output_bound_is_read_and_the_newer_wins():
    assert read(max_tokens=5).request.max_tokens == 5
    assert read(max_completion_tokens=6).request.max_tokens == 6
    assert read(max_completion_tokens=6, max_tokens=5).request.max_tokens == 6
    assert read(max_tokens=5, max_completion_tokens=6).request.max_tokens == 6


def test_each_server_is_told_in_the_names_it_knows():
    turn = LLMMessage(role="assistant", content="x", reasoning="because")
    request = LLMRequest(messages=(turn,), max_tokens=5, repetition_penalty=1.1)
    common = json.loads(openai_chat.write_request(request, stream=False))
    assert (common["max_tokens"], common["repetition_penalty"]) == (5, 1.1)
    assert common["messages"][0]["reasoning_content"] == "because"
    openai = json.loads(openai_chat.write_request(request, stream=False, dialect=OPENAI))
    assert openai["max_completion_tokens"] == 5
    assert "max_tokens" not in openai
    assert "because" not in str(openai)
    llama = json.loads(openai_chat.write_request(request, stream=False, dialect=LLAMA_CPP))
    assert llama["repeat_penalty"] == 1.1
    assert "repetition_penalty" not in llama


def test_provider_options_are_laid_over_the_body_but_streaming_stays_ours():
    request = LLMRequest(
        messages=(LLMMessage(role="user", content="x"),),
        temperature=0.5,
        provider_options={
            "temperature": 0.1,
            "stream": True,
            "stream_options": {"include_obfuscation": False},
        },
    )
    plain = json.loads(openai_chat.write_request(request, model="theirs", stream=False))
    assert plain["temperature"] == 0.1
    assert plain["model"] == "theirs"
    assert "stream" not in plain
    assert "stream_options" not in plain
    streamed = json.loads(openai_chat.write_request(request, stream=True))
    assert streamed["stream"] is True
    assert streamed["stream_options"] == {"include_obfuscation": False, "include_usage": True}


def test_a_tool_without_parameters_is_written_with_an_empty_object_of_them():
    request = LLMRequest(
        messages=(LLMMessage(role="user", content="x"),), tools=(ToolSpec(name="now"),)
    )
    body = json.loads(openai_chat.write_request(request, stream=False))
    assert body["tools"][0]["function"] == {
        "name": "now",
        "parameters": {"type": "object", "properties": {}},
    }


@pytest.mark.parametrize(
    ("data", "media_type"),
    [(b"\x89PNG\r", "image/png"), (b"\xff\xd8\xff\xe0", "image/jpeg"), (b"GIF89a", "image/gif")],
)
def test_an_image_without_a_media_type_is_named_by_its_first_bytes(data, media_type):
    message = LLMMessage(role="user", content=(ImagePart(data=data),))
    body = openai_chat.write_request(LLMRequest(messages=(message,)), stream=False)
    (part,) = openai_chat.read_request(body).request.messages[0].content
    assert part == ImagePart(data=data, media_type=media_type)


def test_a_file_by_url_is_refused_since_the_format_has_no_place_for_it():
    message = LLMMessage(role="user", content=(FilePart(url="https://x.test/a.pdf"),))
    with pytest.raises(LLMCapabilityError, match="not by URL"):
        openai_chat.write_request(LLMRequest(messages=(message,)), stream=False)


def test_a_request_of_the_other_kind_is_not_written():
    chat = LLMRequest(messages=(LLMMessage(role="user", content="x"),))
    with pytest.raises(LLMInvalidRequestError):
        openai_completions.write_request(chat, stream=False)
    with pytest.raises(LLMInvalidRequestError):
        openai_chat.write_request(LLMRequest(messages=(), prompt="x"), stream=False)


def image(url):
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


def parameters(schema):
    return [{"type": "function", "function": {"name": "f", "parameters": schema}}]


IN_FUNCTION = "tools[0].function"
REFUSED = [
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "hello"}, "messages"),
    ({"messages": {"0": HELLO}}, "messages"),
    ({"messages": [123]}, "messages[0]"),
    ({"messages": [{}]}, "messages[0].role"),
    ({"messages": [HELLO, {}]}, "messages[1].role"),
    ({"messages": [{"role": 123, "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
    ({"messages": [HELLO, HELLO, {"role": "usr", "content": "x"}]}, "messages[2].role"),
    ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": [{}]}]}, "messages[0].content[0].type"),
    (
        {"messages": [{"role": "user", "content": [{"type": "video"}]}]},
        "messages[0].content[0].type",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "messages[0].content[0].text",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "messages[0].content[0].image_url",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "u"}]}]},
        "messages[0].content[0].image_url",
    ),
    ({"messages": image("file:///etc/passwd")}, "messages[0].content[0].image_url.url"),
    ({"messages": image("data:image/png,hello")}, "messages[0].content[0].image_url.url"),
    ({"messages": image("data:image/png;base64,a b")}, "messages[0].content[0].image_url.url"),
    ({"messages": image("data:image/png;base64,é")}, "messages[0].content[0].image_url.url"),
    (
        {"messages": [{"role": "system", "content": image("https://x.test")[0]["content"]}]},
        "messages[0].content[0].type",
    ),
    ({"messages": [{"role": "user", "content": "x", "name": 5}]}, "messages[0].name"),
    ({"messages": [{"role": "assistant"}]}, "messages[0].content"),
    (
        {"messages": [{"role": "assistant", "content": "", "tool_calls": [{"id": "a"}]}]},
        "messages[0].tool_calls[0].function",
    ),
    (
        {
            "messages": [
                {"role": "assistant", "tool_calls": [{"function": CALL["function"]}]},
            ]
        },
        "messages[0].tool_calls[0].id",
    ),
    (
        {
            "messages": [
                {
                    "role": "assistant",
                    "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": {}}}],
                },
            ]
        },
        "messages[0].tool_calls[0].function.arguments",
    ),
    (
        {"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": ""}}]},
        "messages[0].function_call",
    ),
    ({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, "messages[0].audio"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
    ({"model": 5}, "model"),
    ({"stream": "true"}, "stream"),
    ({"stream_options": True}, "stream_options"),
    ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": 1.5}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"top_k": 1.5}, "top_k"),
    ({"min_p": -1}, "min_p"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": "5"}, "max_tokens"),
    ({"max_tokens": 10**12}, "max_tokens"),
    ({"max_completion_tokens": -7}, "max_completion_tokens"),
    ({"frequency_penalty": 3}, "frequency_penalty"),
    ({"presence_penalty": -3}, "presence_penalty"),
    ({"repetition_penalty": -1}, "repetition_penalty"),
    ({"repeat_penalty": "x"}, "repeat_penalty"),
    ({"seed": 2**70}, "seed"),
    ({"n": 0}, "n"),
    ({"n": 129}, "n"),
    ({"stop": 5}, "stop"),
    ({"stop": ["a", 5]}, "stop[1]"),
    ({"logit_bias": [[1, 2]]}, "logit_bias"),
    ({"logit_bias": {"15": 101}}, "logit_bias.15"),
    ({"logprobs": 5}, "logprobs"),
    ({"top_logprobs": 5}, "top_logprobs"),
    ({"logprobs": False, "top_logprobs": 5}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"user": 5}, "user"),
    ({"store": "yes"}, "store"),
    ({"metadata": []}, "metadata"),
    ({"metadata": {"a": 1}}, "metadata.a"),
    ({"reasoning_effort": "enormous"}, "reasoning_effort"),
    ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
    ({"response_format": "json"}, "response_format"),
    ({"response_format": {}}, "response_format.type"),
    ({"response_format": {"type": "sound"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"response_format": {"type": "json_object", "schema": 123}}, "response_format.schema"),
    (
        {"response_format": {"type": "json_object", "schema": {"type": 123}}},
        "response_format.schema.type",
    ),
    (
        {"response_format": {"type": "json_object", "schema": {"type": "hiccup"}}},
        "response_format.schema.type",
    ),
    ({"tools": {}}, "tools"),
    ({"tools": [1]}, "tools[0]"),
    ({"tools": [{}]}, "tools[0].type"),
    ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0].type"),
    ({"tools": [{"type": "function"}]}, IN_FUNCTION),
    ({"tools": [{"type": "function", "function": {}}]}, f"{IN_FUNCTION}.name"),
    ({"tools": [{"type": "function", "function": {"name": ""}}]}, f"{IN_FUNCTION}.name"),
    ({"tools": parameters("x")}, f"{IN_FUNCTION}.parameters"),
    ({"tools": parameters([])}, f"{IN_FUNCTION}.parameters"),
    ({"tools": parameters({"type": "string"})}, f"{IN_FUNCTION}.parameters.type"),
    ({"tools": parameters({"type": "hiccup"})}, f"{IN_FUNCTION}.parameters.type"),
    ({"tools": parameters({"properties": []})}, f"{IN_FUNCTION}.parameters.properties"),
    ({"tools": parameters({"properties": {"a": 5}})}, f"{IN_FUNCTION}.parameters.properties.a"),
    (
        {"tools": parameters({"properties": {"a": {"type": ["string", "x"]}}})},
        f"{IN_FUNCTION}.parameters.properties.a.type",
    ),
    ({"tools": parameters({"required": "a"})}, f"{IN_FUNCTION}.parameters.required"),
    ({"tools": parameters({"required": [1]})}, f"{IN_FUNCTION}.parameters.required[0]"),
    ({"tools": parameters({"anyOf": {}})}, f"{IN_FUNCTION}.parameters.anyOf"),
    ({"tools": parameters({"items": 1})}, f"{IN_FUNCTION}.parameters.items"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": "perhaps", "tools": [WEATHER]}, "tool_choice"),
    ({"tool_choice": 1, "tools": [WEATHER]}, "tool_choice"),
    ({"tool_choice": {"type": "function"}, "tools": [WEATHER]}, "tool_choice.function"),
    (
        {"tool_choice": {"type": "function", "function": {"name": "x"}}, "tools": [WEATHER]},
        "tool_choice.function.name",
    ),
    ({"functions": [{"parameters": {}}]}, "functions[0].name"),
    ({"function_call": "x"}, "function_call"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED, ids=[str(f)[:70] for f, _ in REFUSED])
def test_a_wrong_field_is_refused_by_its_path(fields, param):
    with pytest.raises(LLMInvalidRequestError) as caught:
        read(**fields)
    assert caught.value.status == 400
    assert caught.value.param == param
    assert f"'{param}'" in caught.value.message
    assert len(caught.value.message) < 400


def test_a_refusal_says_what_came_and_what_would_be_right():
    with pytest.raises(LLMInvalidRequestError) as caught:
        read(temperature=3)
    assert caught.value.message == (
        "Invalid 'temperature': decimal above maximum value. "
        "Expected a value <= 2, but got 3 instead."
    )
    with pytest.raises(LLMInvalidRequestError) as caught:
        read(messages=[{"role": "usr", "content": "x"}])
    assert caught.value.message == (
        "Invalid value for 'messages[0].role': \"usr\". Expected one of 'system', 'developer', "
        "'user', 'assistant', 'tool'."
    )


def test_a_long_value_is_shortened_in_the_message():
    with pytest.raises(LLMInvalidRequestError) as caught:
        read(response_format="x" * 100_000)
    assert len(caught.value.message) < 200


PATHS = st.sampled_from(
    ["messages", "tools", "tool_choice", "response_format", "stop", "logit_bias", "functions"]
)


@given(field=PATHS, value=json_values)
@settings(max_examples=300, deadline=None)
def test_any_value_in_any_field_is_read_or_refused(field, value):
    refusal = refusal_of({"messages": [HELLO], field: value})
    assert refusal is None or refusal.param.startswith(field)


@given(message=st.dictionaries(st.sampled_from([*CALL, *HELLO, "tool_calls", "name"]), json_values))
@settings(max_examples=200, deadline=None)
def test_any_message_is_read_or_refused(message):
    for role in ("system", "user", "assistant", "tool"):
        refusal = refusal_of({"messages": [{**message, "role": role}]})
        assert refusal is None or refusal.param.startswith("messages[0]")


def refusal_of(body):
    try:
        openai_chat.read_request(json.dumps(body).encode())
    except LLMInvalidRequestError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("Once", ("Once",)),
        ("", ("",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
        (["a", [1]], ("a", (1,))),
    ],
)
def test_a_prompt_has_one_of_four_forms(prompt, prompts):
    inbound = read_text(prompt=prompt, max_tokens=3)
    assert inbound.prompts == prompts
    assert [request.prompt for request in requests(inbound)] == list(prompts)
    assert all(request.max_tokens == 3 for request in requests(inbound))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": {"prompt_string": "x"}}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt[1]"),
        ({"prompt": [[1], []]}, "prompt[1]"),
        ({"prompt": [[1, "a"]]}, "prompt[0][1]"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": [True]}, "prompt[0]"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": -1}, "logprobs"),
        ({"best_of": 2, "n": 3}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"best_of": "x"}, "best_of"),
        ({"echo": 1}, "echo"),
        ({"suffix": 1}, "suffix"),
    ],
)
def test_a_wrong_field_of_a_completion_is_refused_by_its_path(fields, param):
    with pytest.raises(LLMInvalidRequestError) as caught:
        read_text(**fields)
    assert caught.value.param == param


def test_a_completions_logprobs_are_a_number_of_alternatives():
    request = read_text(logprobs=0, best_of=2).request
    assert (request.logprobs, request.top_logprobs) == (True, 0)
    body = json.loads(openai_completions.write_request(request, stream=False))
    assert (body["logprobs"], body["best_of"]) == (0, 2)
    assert "top_logprobs" not in body
