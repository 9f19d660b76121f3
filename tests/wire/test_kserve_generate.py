"""Triton's generate extension: requests, answers and streams, each way."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import (
    LLMBadResponseError,
    LLMInvalidRequestError,
    LLMOverloadedError,
    LLMProviderError,
    LLMRequest,
    LLMResponse,
    Usage,
)
from headrace.wire import kserve_generate as generate
from headrace.wire.assemble import assemble, deltas
from headrace.wire.openai_params import Dialect

FULL = LLMRequest(
    messages=(),
    prompt="Once",
    max_tokens=7,
    temperature=0.5,
    top_p=0.5,
    top_k=5,
    min_p=0.1,
    seed=3,
    frequency_penalty=0.25,
    presence_penalty=0.5,
    repetition_penalty=1.5,
    stop=("a",),
)
# What Triton's vLLM backend streams to one who asked for reason and counts (docs/additional_outputs.md
# and src/utils/request.py of triton-inference-server/vllm_backend): a reason of 'None' is none.
VLLM = b"".join(
    b"data: " + json.dumps({"model_name": "vllm", "model_version": "1", **each}).encode() + b"\n\n"
    for each in (
        {
            "text_output": " a",
            "finish_reason": "None",
            "num_input_tokens": 3,
            "num_output_tokens": 1,
        },
        {
            "text_output": " b",
            "finish_reason": "None",
            "num_input_tokens": 3,
            "num_output_tokens": 1,
        },
        {
            "text_output": "",
            "finish_reason": "length",
            "num_input_tokens": 3,
            "num_output_tokens": 1,
        },
    )
)
# The same of TensorRT-LLM's ensemble (docs/llama.md of triton-inference-server/tensorrtllm_backend).
TENSORRT = b"".join(
    b'data: {"context_logits":0.0,"cum_log_probs":0.0,"generation_logits":0.0,"model_name":"ensemble",'
    b'"model_version":"1","output_log_probs":[0.0,0.0],"sequence_end":false,"sequence_id":0,'
    b'"sequence_start":false,"text_output":' + text + b"}\n\n"
    for text in (b'" a"', b'" b"')
)


def read_stream(data: bytes, cuts: list[int] = []) -> LLMResponse:  # noqa: B006
    reader, found, at = generate.stream_reader(), [], 0
    for cut in cuts:
        found += reader.feed(data[at : at + cut])
        at += cut
    return assemble([*found, *reader.feed(data[at:]), *reader.close()])


def test_a_request_arrives_as_it_was_sent():
    assert generate.read_request(generate.write_request(FULL, stream=False)).request == FULL


def test_several_strings_that_end_an_answer_go_as_vllms_own_parameters():
    asked = LLMRequest(messages=(), prompt="Once", max_tokens=7, stop=("a", "b"))
    body = json.loads(generate.write_request(asked, stream=True))
    assert json.loads(body["sampling_parameters"]) == {"max_tokens": 7, "stop": ["a", "b"]}
    assert body["stream"] is True
    arrived = generate.read_request(json.dumps(body).encode())
    assert arrived.request == asked
    assert arrived.stream


def test_tensorrt_knows_a_seed_and_the_stop_by_other_names():
    dialect = Dialect(seed="random_seed", stop="stop_words")
    asked = LLMRequest(messages=(), prompt="Once", seed=3, stop=("a", "b"))
    body = json.loads(generate.write_request(asked, stream=False, dialect=dialect))
    assert (body["random_seed"], body["stop_words"]) == (3, ["a", "b"])
    assert generate.read_request(json.dumps(body).encode()).request == asked


def test_parameters_may_stand_in_an_object_of_their_own():
    body = {"text_input": "x", "parameters": {"max_tokens": 3, "stream": False, "own": 1}}
    inbound = generate.read_request(json.dumps(body).encode())
    assert inbound.request.max_tokens == 3
    assert inbound.request.provider_options == {"own": 1}


def test_the_prompt_is_repeated_only_where_that_is_asked_for():
    def echo(**body):
        return generate.read_request(json.dumps({"text_input": "x", **body}).encode()).request.echo

    assert echo() is None
    assert echo(exclude_input_in_output=True) is None
    assert echo(exclude_input_in_output=False) is True


def test_what_triton_decides_by_itself_is_told_of_as_dropped():
    body = b'{"text_input": "x", "parameters": {"priority": 1, "timeout": 1000}}'
    assert generate.read_request(body).dropped == ("priority", "timeout")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "text_input"),
        ({"text_input": 3}, "text_input"),
        ({"text_input": "x", "max_tokens": -1}, "max_tokens"),
        ({"text_input": "x", "parameters": {"temperature": "hot"}}, "parameters.temperature"),
        ({"text_input": "x", "parameters": 3}, "parameters"),
        ({"text_input": "x", "sampling_parameters": "{"}, "sampling_parameters"),
        ({"text_input": "x", "sampling_parameters": '{"top_p": 2}'}, "sampling_parameters.top_p"),
        ({"text_input": "x", "stop": [1]}, "stop[0]"),
    ],
)
def test_a_wrong_request_is_refused_by_the_fields_name(body, param):
    with pytest.raises(LLMInvalidRequestError) as caught:
        generate.read_request(json.dumps(body).encode())
    assert caught.value.param == param


def test_a_conversation_and_token_ids_are_no_text():
    for prompt in (None, (1, 2)):
        with pytest.raises(LLMInvalidRequestError) as caught:
            generate.write_request(LLMRequest(messages=(), prompt=prompt), stream=False)
        assert caught.value.param == "prompt"


ANSWERS = st.builds(
    LLMResponse,
    text=st.text(max_size=9),
    model=st.text("abc", min_size=1, max_size=3),
    finish_reason=st.sampled_from(["stop", "length", "other"]),
    usage=st.none() | st.just(Usage(prompt_tokens=3, completion_tokens=2, total_tokens=5)),
)


@given(ANSWERS)
def test_an_answer_comes_back(sent):
    arrived = generate.read_response(generate.write_response(sent))
    assert arrived.raw_finish_reason == sent.finish_reason
    assert (arrived.text, arrived.model, arrived.usage) == (sent.text, sent.model, sent.usage)
    assert arrived.finish_reason == sent.finish_reason


@given(ANSWERS, st.lists(st.integers(1, 30), max_size=20))
def test_a_stream_comes_back_however_it_was_cut(sent, cuts):
    writer = generate.stream_writer(response_id="", model=sent.model, created=1)
    said = b"".join(writer.write(delta) for delta in deltas(sent)) + writer.finish()
    for line in said.split(b"\n\n")[:-1]:
        json.loads(line.removeprefix(b"data: "))
    arrived = read_stream(said, cuts)
    assert (arrived.text, arrived.model, arrived.usage) == (sent.text, sent.model, sent.usage)
    assert arrived.finish_reason == sent.finish_reason


def test_vllms_stream_is_read_with_its_counts():
    answer = read_stream(VLLM)
    assert (answer.text, answer.finish_reason, answer.model) == (" a b", "length", "vllm")
    assert answer.usage == Usage(prompt_tokens=3, completion_tokens=3, total_tokens=6)


def test_tensorrts_stream_does_not_tell_why_it_ended():
    answer = read_stream(TENSORRT)
    assert (answer.text, answer.finish_reason, answer.usage) == (" a b", "other", None)


def test_a_tensor_of_one_text_is_that_text():
    body = b'{"model_name": "m", "text_output": ["one"], "finish_reason": ["stop"]}'
    answer = generate.read_response(body)
    assert (answer.text, answer.finish_reason) == ("one", "stop")


def test_an_error_within_a_stream_is_raised():
    reader = generate.stream_reader()
    with pytest.raises(LLMProviderError, match="out of memory"):
        reader.feed(b'data: {"error": "out of memory"}\n\n')
    writer = generate.stream_writer(response_id="", model="m", created=1)
    last = writer.error(LLMOverloadedError("too busy"))
    with pytest.raises(LLMProviderError, match="too busy"):
        generate.stream_reader().feed(last)


@pytest.mark.parametrize("said", [b"", b"data: [DONE]\n\n", b": nothing\n\n"])
def test_a_stream_that_said_nothing_is_the_backends_fault(said):
    with pytest.raises(LLMBadResponseError):
        read_stream(said)


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"text_output": 3}', b"no"])
def test_an_answer_without_a_text_is_the_backends_fault(body):
    with pytest.raises(LLMBadResponseError):
        generate.read_response(body)
