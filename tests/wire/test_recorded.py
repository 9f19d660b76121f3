"""Bytes recorded from llama.cpp's server (SmolLM2-135M, in xllamacpp) are read as what they say."""

import json
from pathlib import Path

import pytest

from headrace.contracts.capabilities import ModelInfo
from headrace.contracts.errors import (
    LLMCapabilityError,
    LLMContextLengthError,
    LLMInvalidRequestError,
)
from headrace.contracts.responses import Usage
from headrace.wire import openai_chat, openai_completions, openai_models
from headrace.wire.assemble import assemble

RECORDED = Path(__file__).parent / "recorded"
STREAMS = sorted(path.name for path in RECORDED.glob("*stream*.txt"))
ANSWERS = sorted(path.name for path in RECORDED.glob("c*.json"))


def recorded(name):
    return (RECORDED / name).read_bytes()


def read_stream(name, size=1 << 20):
    data = recorded(name)
    codec = openai_chat if name.startswith("chat") else openai_completions
    reader = codec.stream_reader()
    deltas = []
    for start in range(0, len(data), size):
        deltas += reader.feed(data[start : start + size])
    return deltas + reader.close()


@pytest.mark.parametrize("name", STREAMS)
def test_a_recorded_stream_reads_the_same_however_it_is_cut(name):
    whole = read_stream(name)
    assert read_stream(name, 1) == read_stream(name, 7) == whole
    assert all(delta.response_id and delta.model == "smollm2" for delta in whole)


def test_a_stream_with_usage():
    response = assemble(read_stream("chat_stream_usage.txt"))
    assert response.text == "The capital of France is Paris."
    assert (response.finish_reason, response.model) == ("stop", "smollm2")
    assert response.response_id.startswith("chatcmpl-")
    assert response.usage == Usage(
        prompt_tokens=218,
        completion_tokens=8,
        total_tokens=226,
        input_uncached_tokens=218,
        input_cache_read_tokens=0,
    )


def test_a_stream_with_a_tool_call():
    deltas = read_stream("chat_stream_tools.txt")
    (call,) = assemble(deltas).tool_calls
    assert (call.name, json.loads(call.arguments_json)) == ("weather", {"city": "Paris"})
    assert assemble(deltas).finish_reason == "tool_calls"
    pieces = [delta.tool_call_delta for delta in deltas if delta.tool_call_delta]
    assert len(pieces) > 5
    assert [piece.call_id for piece in pieces[1:]] == [None] * (len(pieces) - 1)


@pytest.mark.parametrize("name", ["chat_stream_logprobs.txt", "completions_stream_logprobs.txt"])
def test_a_stream_with_logprobs(name):
    response = assemble(read_stream(name))
    assert "".join(each.token for each in response.logprobs) == response.text
    for each in response.logprobs:
        assert each.logprob <= 0
        assert each.token_bytes == each.token.encode()
        assert len(each.top) == 2


def test_a_stream_with_two_choices():
    response = assemble(read_stream("chat_stream_n2.txt"))
    assert [choice.text for choice in response.choices] == ["The capital of", "The capital of"]
    assert {choice.finish_reason for choice in response.choices} == {"length"}


def test_a_stream_with_progress_and_timings():
    assert assemble(read_stream("chat_stream_progress.txt")).text == "The capital"


def test_a_stream_of_a_text_completion():
    response = assemble(read_stream("completions_stream.txt"))
    assert response.text.startswith(" Paris")
    assert (response.finish_reason, response.usage.total_tokens) == ("length", 9)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_whole_answer_says_what_its_json_says(name):
    wire = json.loads(recorded(name))
    response = openai_chat.read_response(recorded(name))
    first = wire["choices"][0]
    assert response.text == (first.get("message") or {"content": first.get("text")})["content"]
    assert response.finish_reason == first["finish_reason"]
    assert response.usage.prompt_tokens == wire["usage"]["prompt_tokens"]
    assert response.created == wire["created"]
    assert len(response.choices) == (len(wire["choices"]) if len(wire["choices"]) > 1 else 0)
    has_logprobs = first.get("logprobs") is not None
    assert (response.logprobs is not None) == has_logprobs


def test_a_whole_answer_with_a_tool_call():
    (call,) = openai_chat.read_response(recorded("chat_tools.json")).tool_calls
    assert (call.name, json.loads(call.arguments_json)) == ("weather", {"city": "Paris"})


@pytest.mark.parametrize(
    ("name", "status", "expected"),
    [
        ("error_bad_request.json", 400, LLMInvalidRequestError),
        ("error_not_json.json", 400, LLMInvalidRequestError),
        ("error_grammar.json", 400, LLMInvalidRequestError),
        ("error_context.json", 400, LLMContextLengthError),
        ("error_404.json", 404, LLMInvalidRequestError),
        ("error_image.json", 500, LLMCapabilityError),
    ],
)
def test_a_recorded_error_is_the_right_one(name, status, expected):
    error = openai_chat.read_error(status, recorded(name))
    assert type(error) is expected
    assert error.message == json.loads(recorded(name))["error"]["message"]


def test_the_model_list():
    (model,) = openai_models.read_models(recorded("models.json"))
    assert model == ModelInfo(
        model_id="smollm2", created=model.created, owned_by="llamacpp", max_context_tokens=8192
    )
    assert model.created > 1_700_000_000
