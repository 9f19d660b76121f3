"""What callers of Ollama's face send: read, or refused by the field's name."""

import json
from base64 import b64encode

import pytest

from headrace.contracts.errors import (
    LLMCapabilityError,
    LLMContextLengthError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    LLMOverloadedError,
    LLMProviderError,
)
from headrace.contracts.messages import ImagePart, LLMMessage, TextPart, ToolCall
from headrace.contracts.requests import LLMRequest
from headrace.wire import ollama, ollama_embed, ollama_generate, ollama_models
from headrace.wire.ollama_errors import error_from_wire, read_error, write_error

PNG = b"\x89PNG\r\n\x1a\n"
HI = {"role": "user", "content": "hi"}
CALL = {"function": {"name": "look", "arguments": {"city": "Paris"}}}


def chat(**fields):
    body = {"model": "m", "messages": [HI], **fields}
    return ollama.read_request(json.dumps(body).encode())


def generate(**fields):
    return ollama_generate.read_request(json.dumps({"model": "m", **fields}).encode())


def asked(**fields):
    request = LLMRequest(messages=(LLMMessage(role="user", content="hi"),), model="m", **fields)
    return json.loads(ollama.write_request(request, stream=True))


def test_an_answer_is_streamed_unless_that_is_refused():
    assert chat().stream is True
    assert chat(stream=False).stream is False
    assert generate(prompt="a").stream is True


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 3}, "model"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": ["hi"]}]}, "messages[0].content"),
        ({"messages": [{**HI, "images": ["no base64!"]}]}, "messages[0].images[0]"),
        ({"messages": [{**HI, "role": "system", "images": ["iVBO"]}]}, "messages[0].images"),
        ({"messages": [{**HI, "thinking": "Hm."}]}, "messages[0].thinking"),
        ({"messages": [{**HI, "tool_calls": [CALL]}]}, "messages[0].tool_calls"),
        ({"messages": [{**HI, "tool_call_id": {}}]}, "messages[0].tool_call_id"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]},
            "messages[0].tool_calls[0].function.name",
        ),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [{"function": {"name": "a", "arguments": "{}"}}],
                    }
                ]
            },
            "messages[0].tool_calls[0].function.arguments",
        ),
        ({"options": []}, "options"),
        ({"options": {"temperature": "hot"}}, "options.temperature"),
        ({"options": {"temperature": 3}}, "options.temperature"),
        ({"options": {"num_predict": 1.5}}, "options.num_predict"),
        ({"options": {"stop": [1]}}, "options.stop[0]"),
        ({"think": "hard"}, "think"),
        ({"think": 1}, "think"),
        ({"format": "yaml"}, "format"),
        ({"format": {"type": "thing"}}, "format.type"),
        ({"stream": "yes"}, "stream"),
        ({"keep_alive": [5]}, "keep_alive"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ],
)
def test_what_is_wrong_is_refused_by_its_name(fields, param):
    with pytest.raises(LLMInvalidRequestError) as caught:
        chat(**fields)
    assert caught.value.param == param
    assert param in str(caught.value)
    assert ollama.status_of(caught.value) == 400
    assert set(json.loads(ollama.write_error(caught.value))) == {"error"}


def test_options_are_read_each_by_its_name():
    inbound = chat(
        options={
            "num_ctx": 8192,
            "num_predict": 7,
            "repeat_penalty": 1.5,
            "stop": "x",
            "typical_p": 0.5,
            "of_tomorrow": 1,
            "seed": None,
        },
        keep_alive="5m",
    )
    assert inbound.request.max_tokens == 7
    assert inbound.request.repetition_penalty == 1.5
    assert inbound.request.stop == ("x",)
    assert inbound.request.provider_options == {
        "num_ctx": 8192,
        "typical_p": 0.5,
        "keep_alive": "5m",
        "options": {"of_tomorrow": 1},
    }


def test_what_only_ollama_has_is_known_as_its_own():
    own = ollama.OWN_FIELDS
    assert {"num_ctx", "keep_alive", "options", "truncate"} <= own
    # llama.cpp samples by the same names.
    assert not {"typical_p", "repeat_last_n", "mirostat"} & own


def test_no_limit_is_no_number_of_tokens():
    request = chat(options={"num_predict": -1}).request
    assert request.max_tokens is None
    assert request.provider_options == {"num_predict": -1}
    assert asked(max_tokens=64, provider_options={"num_predict": -1})["options"] == {
        "num_predict": -1
    }
    with pytest.raises(LLMCapabilityError, match="0 means no limit"):
        asked(max_tokens=0)


def test_options_of_a_callers_own_go_beside_ours():
    body = asked(
        temperature=0.5,
        provider_options={"num_ctx": 4096, "options": {"num_gpu": 1}, "keep_alive": 0},
    )
    assert body["options"] == {"temperature": 0.5, "num_ctx": 4096, "num_gpu": 1}
    assert body["keep_alive"] == 0
    assert "num_ctx" not in body


@pytest.mark.parametrize(
    ("think", "effort", "back"),
    [
        (False, "none", False),
        (True, "medium", True),
        ("low", "low", "low"),
        ("medium", "medium", True),
        ("high", "high", "high"),
        ("max", "max", "max"),
    ],
)
def test_thinking_is_an_effort(think, effort, back):
    assert chat(think=think).request.reasoning_effort == effort
    assert asked(reasoning_effort=effort)["think"] == back


def test_efforts_without_a_word_there_are_the_next_ones():
    assert asked(reasoning_effort="minimal")["think"] == "low"
    assert asked(reasoning_effort="xhigh")["think"] == "high"
    assert "think" not in asked()


def test_a_format_is_a_schema_or_any_json():
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    assert chat(format=schema).request.response_schema == schema
    assert chat(format="json").request.response_format == {"type": "json_object"}
    assert chat(format="").request.response_format is None
    named = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    assert asked(response_schema=schema, response_format=named)["format"] == schema
    assert asked(response_format={"type": "json_object"})["format"] == "json"
    assert "format" not in asked(response_format={"type": "text"})


def test_images_stand_behind_the_text():
    shown = b64encode(PNG).decode()
    (turn,) = chat(messages=[{**HI, "images": [shown]}]).request.messages
    image = ImagePart(data=PNG, media_type="image/png")
    assert turn.content == (TextPart(text="hi"), image)
    (alone,) = chat(messages=[{"role": "user", "images": [shown]}]).request.messages
    assert alone.content == (image,)


def test_results_without_ids_go_with_the_calls_that_wait():
    turns = [
        HI,
        {"role": "assistant", "tool_calls": [CALL, {"function": {"name": "ask"}}]},
        {"role": "tool", "tool_name": "ask", "content": "yes"},
        {"role": "tool", "content": "rain"},
        {"role": "assistant", "content": "", "tool_calls": [{**CALL, "id": "own"}]},
        {"role": "tool", "content": "sun", "tool_call_id": "own"},
        {"role": "tool", "content": "nobody asked"},
    ]
    _, called, ask, look, _, own, stray = chat(messages=turns).request.messages
    assert called.tool_calls == (
        ToolCall(name="look", arguments_json='{"city":"Paris"}', call_id="call_1_0"),
        ToolCall(name="ask", arguments_json="{}", call_id="call_1_1"),
    )
    assert [each.tool_call_id for each in (ask, look, own, stray)] == [
        "call_1_1",
        "call_1_0",
        "own",
        None,
    ]


def test_a_result_is_told_with_the_name_of_the_tool_that_was_called():
    call = ToolCall(name="look", arguments_json="{}", call_id="c")
    request = LLMRequest(
        model="m",
        messages=(
            LLMMessage(role="assistant", content="", tool_calls=(call,)),
            LLMMessage(role="tool", content="rain", tool_call_id="c"),
        ),
    )
    _, result = json.loads(ollama.write_request(request, stream=False))["messages"]
    assert (result["tool_name"], result["tool_call_id"]) == ("look", "c")


def test_a_prompt_is_a_conversation_unless_it_is_raw():
    spoken = generate(prompt="hi", system="Be brief.", images=[b64encode(PNG).decode()]).request
    assert spoken.prompt is None
    assert [turn.role for turn in spoken.messages] == ["system", "user"]
    assert len(spoken.messages[1].content) == 2
    raw = generate(prompt="Once", raw=True).request
    assert (raw.prompt, raw.messages) == ("Once", ())
    around = generate(prompt="def f(", suffix="return 1").request
    assert (around.prompt, around.suffix) == ("def f(", "return 1")


def test_a_request_with_nothing_to_answer_is_one_to_load_the_model():
    for inbound in (chat(messages=[]), generate(), generate(prompt="")):
        assert inbound.request.messages == ()
        assert inbound.request.prompt is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": 1}, "prompt"),
        ({"prompt": "a", "template": "{{ .Prompt }}"}, "template"),
        ({"prompt": "a", "context": [1, 2]}, "context"),
        ({"prompt": "a", "raw": True, "system": "b"}, "system"),
        ({"prompt": "a", "raw": True, "images": ["iVBO"]}, "images"),
        ({"raw": True}, "prompt"),
    ],
)
def test_what_a_prompt_cannot_carry_is_refused_by_its_name(fields, param):
    with pytest.raises(LLMInvalidRequestError) as caught:
        generate(**fields)
    assert caught.value.param == param


def test_token_ids_are_refused():
    with pytest.raises(LLMCapabilityError, match="not as token ids"):
        ollama_generate.write_request(LLMRequest(messages=(), prompt=(1, 2)), stream=False)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "a"}, "model"),
        ({"model": "m"}, "input"),
        ({"model": "m", "input": []}, "input"),
        ({"model": "m", "input": ["a", 1]}, "input[1]"),
        ({"model": "m", "input": "a", "truncate": "no"}, "truncate"),
    ],
)
def test_a_wrong_request_for_embeddings_is_refused_by_its_name(body, param):
    with pytest.raises(LLMInvalidRequestError) as caught:
        ollama_embed.read_request(json.dumps(body).encode())
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (404, "model 'llama9' not found", LLMModelNotFoundError),
        (400, '"all-minilm" does not support chat', LLMCapabilityError),
        (400, '"m" does not support thinking', LLMCapabilityError),
        (400, "raw mode does not support template, system, or context", LLMCapabilityError),
        (400, "the input length exceeds the context length", LLMContextLengthError),
        (400, "invalid input type", LLMInvalidRequestError),
        (503, "server busy, please try again.  maximum pending requests", LLMOverloadedError),
        (500, "llama runner process has terminated: exit status 2", LLMProviderError),
    ],
)
def test_an_error_is_the_class_that_its_words_mean(status, said, kind):
    error = read_error(status, json.dumps({"error": said}).encode())
    assert type(error) is kind
    assert said in str(error)
    assert json.loads(write_error(error)) == {"error": said}


def test_an_error_inside_of_a_stream_may_say_its_status():
    assert type(error_from_wire(None, {"error": "x", "status": 404})) is LLMInvalidRequestError
    assert type(error_from_wire(None, {"error": "x"})) is LLMProviderError


def test_models_are_read_by_name():
    body = {
        "models": [
            {"name": "a:latest", "model": "a:latest", "modified_at": "2025-10-03T23:34:03.4-07:00"},
            {"name": "b"},
        ]
    }
    first, second = ollama_models.read_models(json.dumps(body).encode())
    assert (first.model_id, first.created) == ("a:latest", 1759559643)
    assert (second.model_id, second.created) == ("b", 0)
