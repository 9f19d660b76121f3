"""The vendor's own SDK as second judge, over a transport in memory."""

import inspect
import json

import httpx2
import openai
import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings

from headrace.contracts.capabilities import ModelInfo
from headrace.contracts.errors import (
    LLMAuthError,
    LLMContextLengthError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    LLMOverloadedError,
    LLMProviderError,
    LLMRateLimitError,
)
from headrace.contracts.messages import ToolCall
from headrace.contracts.requests import NamedTool
from headrace.contracts.responses import LLMDelta, LLMResponse, TokenLogprob, TopLogprob, Usage
from headrace.wire import openai_chat, openai_completions
from headrace.wire.assemble import choices_of, deltas
from headrace.wire.openai_models import write_model, write_models

from .strategies import responses

MESSAGES = [{"role": "user", "content": "Hello"}]
modest = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def client(answer, status=200, headers=None, seen=None):
    """An SDK client whose every request is answered with the bytes ``answer``."""

    def handle(request):
        if seen is not None:
            seen.append(request.content)
        streams = answer.startswith(b"data:")
        kind = "text/event-stream" if streams else "application/json"
        return httpx2.Response(
            status, content=answer, headers={"content-type": kind, **(headers or {})}
        )

    return openai.OpenAI(
        api_key="k",
        base_url="http://in-memory.test/v1",
        max_retries=0,
        http_client=httpx2.Client(transport=httpx2.MockTransport(handle)),
    )


def ask(answer, **fields):
    with client(answer) as sdk:
        return sdk.chat.completions.create(model="m", messages=MESSAGES, **fields)


def ask_stream(answer):
    with client(answer) as sdk:
        return list(sdk.chat.completions.create(model="m", messages=MESSAGES, stream=True))


def body_of(method, **fields):
    """The body that the SDK sends for this call."""
    seen = []
    with client(b"data: [DONE]\n\n" if fields.get("stream") else b"{}", seen=seen) as sdk:
        call = sdk.chat.completions.create if method == "chat" else sdk.completions.create
        call(**fields)
    return seen[0]


def streamed(codec, response, **fields):
    writer = codec.stream_writer(
        response_id="id", model="m", created=1, include_usage=True, **fields
    )
    return b"".join(writer.write(delta) for delta in deltas(response)) + writer.finish()


@given(response=responses(chat=True))
@modest
def test_the_sdk_reads_our_chat_answers(response):
    answer = ask(openai_chat.write_response(response))
    assert answer.object == "chat.completion"
    assert (answer.id, answer.model, answer.created) == (
        response.response_id,
        response.model,
        response.created,
    )
    for read, said in zip(answer.choices, choices_of(response), strict=True):
        assert (read.message.content or "") == said.text
        assert read.message.role == "assistant"
        assert read.message.refusal == said.refusal
        assert read.finish_reason == said.finish_reason
        assert _calls(read.message.tool_calls) == list(said.tool_calls)
        assert _logprobs(read.logprobs) == list(said.logprobs or ())
    if response.usage is not None:
        assert answer.usage.total_tokens == response.usage.total_tokens


@given(response=responses(chat=True))
@modest
def test_the_sdk_reads_our_chat_streams(response):
    chunks = ask_stream(streamed(openai_chat, response))
    for said in choices_of(response):
        mine = [c for chunk in chunks for c in chunk.choices if c.index == said.index]
        assert "".join(c.delta.content or "" for c in mine) == said.text
        assert "".join(c.delta.refusal or "" for c in mine) == (said.refusal or "")
        assert [c.finish_reason for c in mine if c.finish_reason] == [said.finish_reason]
        assert [c.delta.role for c in mine if c.delta.role] == ["assistant"]
        pieces = [call for c in mine for call in c.delta.tool_calls or ()]
        assert _calls(pieces) == list(said.tool_calls)
    assert all(chunk.object == "chat.completion.chunk" for chunk in chunks)
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    assert [usage.total_tokens for usage in usages] == (
        [] if response.usage is None else [response.usage.total_tokens]
    )


def test_the_sdks_own_accumulator_reads_a_stream_with_tools():
    call = ToolCall(name="weather", arguments_json='{"city":"Paris"}', call_id="c1")
    answer = streamed(
        openai_chat, LLMResponse(text="", tool_calls=(call,), finish_reason="tool_calls")
    )
    with (
        client(answer) as sdk,
        sdk.chat.completions.stream(model="m", messages=MESSAGES) as stream,
    ):
        final = stream.get_final_completion()
    assert _calls(final.choices[0].message.tool_calls) == [call]
    assert final.choices[0].finish_reason == "tool_calls"


def test_the_sdk_reads_the_parts_of_usage():
    usage = Usage(
        prompt_tokens=10,
        completion_tokens=5,
        total_tokens=15,
        input_uncached_tokens=6,
        input_cache_read_tokens=4,
        output_text_tokens=2,
        output_reasoning_tokens=3,
    )
    read = ask(openai_chat.write_response(LLMResponse(text="x", usage=usage))).usage
    assert (read.prompt_tokens, read.completion_tokens, read.total_tokens) == (10, 5, 15)
    assert read.prompt_tokens_details.cached_tokens == 4
    assert read.completion_tokens_details.reasoning_tokens == 3


def test_the_sdk_reads_our_text_completions_plain_and_streaming():
    said = TokenLogprob(token="ab", logprob=-0.5, top=(TopLogprob(token="ab", logprob=-0.5),))
    response = LLMResponse(
        text="abab", finish_reason="length", logprobs=(said, said), model="m", response_id="id"
    )
    with client(openai_completions.write_response(response)) as sdk:
        answer = sdk.completions.create(model="m", prompt="x")
    assert (answer.object, answer.choices[0].text) == ("text_completion", "abab")
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].logprobs.tokens == ["ab", "ab"]
    assert answer.choices[0].logprobs.token_logprobs == [-0.5, -0.5]
    assert answer.choices[0].logprobs.top_logprobs == [{"ab": -0.5}, {"ab": -0.5}]
    assert answer.choices[0].logprobs.text_offset == [0, 2]
    writer = openai_completions.stream_writer(response_id="id", model="m", created=1)
    pieces = [LLMDelta(text_delta="ab", logprobs=(said,))] * 2 + [LLMDelta(finish_reason="length")]
    written = b"".join(map(writer.write, pieces)) + writer.finish()
    with client(written) as sdk:
        chunks = list(sdk.completions.create(model="m", prompt="x", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "abab"
    assert [chunk.choices[0].logprobs.text_offset for chunk in chunks[:2]] == [[0], [2]]
    assert chunks[-1].choices[0].finish_reason == "length"


def test_the_sdk_reads_our_model_lists():
    model = ModelInfo(model_id="m", created=5, owned_by="us", max_context_tokens=512)
    with client(write_models([model, evolve(model, model_id="n")])) as sdk:
        assert [(each.id, each.object) for each in sdk.models.list()] == [
            ("m", "model"),
            ("n", "model"),
        ]
    with client(write_model(model)) as sdk:
        read = sdk.models.retrieve("m")
    assert (read.id, read.created, read.owned_by) == ("m", 5, "us")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (LLMInvalidRequestError("x", param="messages[0].role"), openai.BadRequestError),
        (LLMContextLengthError("x"), openai.BadRequestError),
        (LLMAuthError("x"), openai.AuthenticationError),
        (LLMAuthError("x", status=403), openai.PermissionDeniedError),
        (LLMModelNotFoundError("x"), openai.NotFoundError),
        (LLMRateLimitError("x"), openai.RateLimitError),
        (LLMOverloadedError("x"), openai.InternalServerError),
        (LLMProviderError("x"), openai.InternalServerError),
    ],
)
def test_the_sdk_raises_its_own_class_for_each_of_our_errors(error, expected):
    with (
        client(openai_chat.write_error(error), error.status) as sdk,
        pytest.raises(expected) as caught,
    ):
        sdk.chat.completions.create(model="m", messages=MESSAGES)
    assert caught.value.body["message"] == "x"
    assert (caught.value.param, caught.value.code) == (error.param, error.code)


def test_the_sdk_raises_an_error_that_comes_within_a_stream():
    writer = openai_chat.stream_writer(response_id="id", model="m", created=1)
    written = writer.write(LLMDelta(text_delta="x")) + writer.error(LLMOverloadedError("too busy"))
    with pytest.raises(openai.APIError, match="too busy"):
        ask_stream(written)


# The SDK's own tests send these: every parameter, with values that are for show.
EVERY_CHAT_PARAMETER = {
    "messages": [{"content": "string", "role": "developer", "name": "name"}],
    "model": "gpt-6-astra",
    "audio": {"format": "wav", "voice": "alloy"},
    "frequency_penalty": -2,
    "function_call": "none",
    "functions": [
        {"name": "name", "description": "description", "parameters": {"foo": "bar"}},
    ],
    "logit_bias": {"foo": 0},
    "logprobs": True,
    "max_completion_tokens": 0,
    "max_tokens": 0,
    "metadata": {"foo": "string"},
    "modalities": ["text"],
    "moderation": {
        "model": "model",
        "policy": {"input": {"mode": "score"}, "output": {"mode": "score"}},
    },
    "n": 1,
    "parallel_tool_calls": True,
    "prediction": {"content": "string", "type": "content"},
    "presence_penalty": -2,
    "prompt_cache_key": "prompt-cache-key-1234",
    "prompt_cache_options": {"mode": "implicit", "ttl": "30m"},
    "prompt_cache_retention": "in_memory",
    "reasoning_effort": "none",
    "response_format": {"type": "text"},
    "safety_identifier": "safety-identifier-1234",
    "seed": -9007199254740991,
    "service_tier": "auto",
    "stop": "\n",
    "store": True,
    "stream_options": {"include_obfuscation": True, "include_usage": True},
    "temperature": 1,
    "tool_choice": "none",
    "tools": [
        {
            "function": {
                "name": "name",
                "description": "description",
                "parameters": {"foo": "bar"},
                "strict": True,
            },
            "type": "function",
        }
    ],
    "top_logprobs": 0,
    "top_p": 1,
    "user": "user-1234",
    "verbosity": "low",
    "web_search_options": {"search_context_size": "low"},
}
UNDERSTOOD = [
    "messages",
    "model",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "n",
    "parallel_tool_calls",
    "presence_penalty",
    "reasoning_effort",
    "response_format",
    "seed",
    "stop",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "user",
]


@pytest.mark.parametrize("stream", [False, True])
def test_every_parameter_of_the_sdks_chat_call_is_understood_or_carried(stream):
    inbound = openai_chat.read_request(body_of("chat", stream=stream, **EVERY_CHAT_PARAMETER))
    request = inbound.request
    assert (inbound.stream, inbound.include_usage) == (stream, True)
    assert request.messages[0].role == "system"
    assert (request.model, request.user, request.seed) == (
        "gpt-6-astra",
        "user-1234",
        -9007199254740991,
    )
    assert (request.max_tokens, request.temperature, request.n) == (0, 1, 1)
    assert (request.logprobs, request.top_logprobs, request.logit_bias) == (True, 0, {"foo": 0})
    assert (request.stop, request.tool_choice, request.reasoning_effort) == (
        ("\n",),
        "none",
        "none",
    )
    assert [(tool.name, tool.strict) for tool in request.tools] == [("name", True)]
    assert request.provider_options == {
        name: value for name, value in EVERY_CHAT_PARAMETER.items() if name not in UNDERSTOOD
    }


def test_the_table_of_every_parameter_is_the_sdks():
    parameters = set(
        inspect.signature(openai.OpenAI(api_key="k").chat.completions.create).parameters
    )
    beside = {"stream", "extra_headers", "extra_query", "extra_body", "timeout", "self"}
    assert parameters - beside == set(EVERY_CHAT_PARAMETER)


@pytest.mark.parametrize("stream", [False, True])
def test_every_parameter_of_the_sdks_completion_call_is_understood_or_carried(stream):
    fields = {
        "model": "gpt-3.5-turbo-instruct",
        "prompt": "This is a test.",
        "best_of": 0,
        "echo": True,
        "frequency_penalty": -2,
        "logit_bias": {"foo": 0},
        "logprobs": 0,
        "max_tokens": 16,
        "n": 1,
        "presence_penalty": -2,
        "seed": 0,
        "stop": "\n",
        "stream_options": {"include_obfuscation": True, "include_usage": True},
        "suffix": "test.",
        "temperature": 1,
        "top_p": 1,
        "user": "user-1234",
    }
    inbound = openai_completions.read_request(body_of("text", stream=stream, **fields))
    request = inbound.request
    assert (inbound.stream, inbound.include_usage) == (stream, True)
    assert (request.prompt, request.suffix, request.echo) == ("This is a test.", "test.", True)
    assert (request.logprobs, request.top_logprobs, request.stop) == (True, 0, ("\n",))
    assert request.provider_options == {"best_of": 0}


def test_the_sdks_tools_and_choice_are_understood():
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    body = body_of(
        "chat",
        model="m",
        messages=MESSAGES,
        tools=[tool],
        tool_choice={"type": "function", "function": {"name": "f"}},
        extra_body={"top_k": 5, "min_p": 0.1, "grammar": "x"},
    )
    request = openai_chat.read_request(body).request
    assert request.tool_choice == NamedTool(name="f")
    assert (request.top_k, request.min_p, request.provider_options) == (5, 0.1, {"grammar": "x"})


def test_an_answer_the_sdk_read_can_be_sent_back_by_it():
    call = ToolCall(name="f", arguments_json="{}", call_id="c1")
    said = LLMResponse(text="", reasoning="hm", tool_calls=(call,), finish_reason="tool_calls")
    message = ask(openai_chat.write_response(said)).choices[0].message
    reply = {"role": "tool", "tool_call_id": "c1", "content": "done"}
    for sent_back in (message, message.model_dump()):
        body = body_of("chat", model="m", messages=[*MESSAGES, sent_back, reply])
        turn = openai_chat.read_request(body).request.messages[1]
        assert (turn.tool_calls, turn.reasoning, turn.content) == ((call,), "hm", "")


def test_our_chat_request_is_what_the_sdk_would_send():
    fields = json.loads(body_of("chat", **EVERY_CHAT_PARAMETER))
    request = openai_chat.read_request(json.dumps(fields).encode()).request
    written = json.loads(openai_chat.write_request(request, stream=False))
    for name in ("functions", "function_call", "max_completion_tokens", "stream_options"):
        del fields[name]
    fields |= {"stop": ["\n"]}
    fields["messages"][0]["role"] = "system"
    assert written == fields


def _calls(wire):
    found = {}
    for position, call in enumerate(wire or ()):
        number = getattr(call, "index", position)
        before = found.get(number, ToolCall(name="", arguments_json="", call_id=""))
        found[number] = ToolCall(
            name=before.name or call.function.name or "",
            arguments_json=before.arguments_json + (call.function.arguments or ""),
            call_id=before.call_id or call.id or "",
        )
    return list(found.values())


def _logprobs(wire):
    tokens = [] if wire is None else wire.content or wire.refusal or []
    return [
        TokenLogprob(
            token=each.token,
            logprob=each.logprob,
            token_bytes=None if each.bytes is None else bytes(each.bytes),
            top=tuple(
                TopLogprob(
                    token=top.token,
                    logprob=top.logprob,
                    token_bytes=None if top.bytes is None else bytes(top.bytes),
                )
                for top in each.top_logprobs
            ),
        )
        for each in tokens
    ]
