"""TGI's format: what is read, written and refused, whole and token by token."""

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from formats import streamed
from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMCapabilityError,
    LLMContextLengthError,
    LLMError,
    LLMInvalidRequestError,
    LLMOverloadedError,
    LLMProviderError,
    LLMRateLimitError,
    LLMTimeoutError,
    LLMUnavailableError,
)
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMDelta, LLMResponse, TokenLogprob, TopLogprob, Usage
from headrace.wire import tgi
from headrace.wire.assemble import assemble, deltas

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
texts = st.text(max_size=12)
full_texts = st.text(min_size=1, max_size=12)
rates = st.floats(0.01, 2, allow_nan=False)
requests = st.builds(
    LLMRequest,
    messages=st.just(()),
    prompt=full_texts,
    model=st.none() | full_texts,
    max_tokens=st.none() | st.integers(1, 2**31 - 1),
    temperature=st.just(0.0) | rates,
    top_p=st.none() | st.floats(0.01, 0.99),
    top_k=st.none() | st.integers(1, 100),
    repetition_penalty=st.none() | rates,
    frequency_penalty=st.none() | st.floats(-1.9, 2),
    seed=st.none() | st.integers(1, 2**63),
    stop=st.lists(full_texts, max_size=4).map(tuple),
    echo=st.none() | st.booleans(),
    response_schema=st.none() | st.just(SCHEMA),
    provider_options=st.just({}) | st.just({"watermark": True, "typical_p": 0.5}),
)
tokens = st.builds(
    TokenLogprob,
    token=full_texts,
    logprob=st.floats(-50, 0),
    token_id=st.integers(0, 10**6),
    top=st.lists(
        st.builds(
            TopLogprob, token=texts, logprob=st.floats(-50, 0), token_id=st.integers(0, 10**6)
        ),
        max_size=2,
    ).map(tuple),
)
counts = st.integers(0, 2**31 - 1)


@st.composite
def answers(draw: Any) -> LLMResponse:
    said = tuple(draw(st.lists(tokens, max_size=4)))
    prompt, answered = draw(counts), draw(counts)
    return LLMResponse(
        text="".join(each.token for each in said) if said else draw(texts),
        finish_reason=draw(st.sampled_from(["stop", "length"])),
        usage=Usage(
            prompt_tokens=prompt, completion_tokens=answered, total_tokens=prompt + answered
        ),
        logprobs=said or None,
    )


def body(**parameters: Any) -> bytes:
    return json.dumps({"inputs": "Once", "parameters": parameters}).encode()


def plain(response: LLMResponse) -> LLMResponse:
    return evolve(response, raw_finish_reason=None)


@given(asked=requests, stream=st.booleans())
def test_a_request_arrives_as_it_was_sent(asked, stream):
    inbound = tgi.read_request(tgi.write_request(asked, stream=stream))
    sampled = (
        asked.temperature or asked.top_k or asked.top_p or "typical_p" in asked.provider_options
    )
    # Without sampling there is no temperature to be told of, unless something else asks for it.
    expected = asked if asked.temperature or not sampled else evolve(asked, temperature=None)
    assert inbound.request == expected
    assert inbound.stream is stream
    assert inbound.details


@given(said=answers())
def test_an_answer_arrives_as_it_was_sent(said):
    assert plain(tgi.read_response(tgi.write_response(said), keep=("logprobs",))) == said
    without = tgi.read_response(tgi.write_response(said))
    assert plain(without) == evolve(said, logprobs=None)


@given(said=answers(), cuts=st.lists(st.integers(1, 40), max_size=20))
def test_a_stream_survives_any_chopping(said, cuts):
    writer = tgi.stream_writer()
    sent = b"".join(writer.write(delta) for delta in deltas(said)) + writer.finish()
    reader, begin, came = tgi.stream_reader(("logprobs",)), 0, []
    for cut in [*cuts, len(sent)]:
        came += reader.feed(sent[begin : begin + cut])
        begin += cut
    came += [*reader.feed(sent[begin:]), *reader.close()]
    assert plain(assemble(came)) == said


def test_the_servers_own_stream_is_read():
    reader = tgi.stream_reader()
    came = [delta for piece in streamed("tgi", "Hel", "lo") for delta in reader.feed(piece)]
    answer = assemble([*came, *reader.close()])
    assert (answer.text, answer.finish_reason, answer.raw_finish_reason) == (
        "Hello",
        "stop",
        "eos_token",
    )
    assert answer.usage == Usage(prompt_tokens=3, completion_tokens=2, total_tokens=5)
    assert answer.logprobs is None


def test_the_token_that_ends_an_answer_is_no_text():
    end = {"id": 2, "text": "</s>", "logprob": -0.1, "special": True}
    details = {"finish_reason": "eos_token", "generated_tokens": 2, "seed": 7, "input_length": 1}
    events = [
        {"index": 1, "token": {"id": 1, "text": "Hi", "logprob": -1, "special": False}},
        {"index": 2, "token": end, "generated_text": "Hi", "details": details},
    ]
    said = b"".join(b"data:" + json.dumps(event).encode() + b"\n\n" for event in events)
    reader = tgi.stream_reader(("logprobs",))
    answer = assemble([*reader.feed(said), *reader.close()])
    assert answer.text == "Hi"
    assert [each.token_id for each in answer.logprobs or ()] == [1]


def test_a_whole_answer_of_the_other_path_stands_in_an_array():
    said = b'[{"generated_text": "Hi"}]'
    assert tgi.read_response(said).text == "Hi"


@pytest.mark.parametrize("said", [b"", b"data: {}\n\n", streamed("tgi", "a", "b")[0]])
def test_a_stream_without_its_end_was_cut_short(said):
    reader = tgi.stream_reader()
    reader.feed(said)
    with pytest.raises(LLMBadResponseError, match="cut short"):
        reader.close()


def test_an_error_in_a_stream_comes_behind_what_was_said_before_it():
    reader = tgi.stream_reader()
    error = b'data:{"error":"Model is overloaded","error_type":"overloaded"}\n\n'
    (delta,) = reader.feed(streamed("tgi", "a", "b")[0] + error)
    assert delta.text_delta == "a"
    with pytest.raises(LLMOverloadedError, match="overloaded"):
        reader.feed(b"")


def test_text_before_a_stop_string_ends_with_it_as_tgis_does():
    said = LLMResponse(text="a b ", finish_reason="stop", stop_sequence="###")
    wire = json.loads(tgi.write_response(said))
    assert wire["generated_text"] == "a b ###"
    assert wire["details"]["finish_reason"] == "stop_sequence"
    writer = tgi.stream_writer()
    events = writer.write(LLMDelta(text_delta="a b ")) + writer.write(
        LLMDelta(finish_reason="stop", stop_sequence="###")
    )
    last = json.loads((events + writer.finish()).rpartition(b"data: ")[2])
    assert last["generated_text"] == "a b ###"
    assert last["token"]["text"] == "###"


def test_a_token_that_nobody_numbered_is_noticed():
    writer = tgi.stream_writer(details=False)
    assert not writer.lacks_ids
    first = json.loads(writer.write(LLMDelta(text_delta="a")).partition(b"data: ")[2])
    assert first["token"] == {"id": 0, "text": "a", "logprob": None, "special": False}
    assert writer.lacks_ids
    assert json.loads(writer.finish().partition(b"data: ")[2])["details"] is None


def test_nothing_asked_for_is_sampled_at_the_servers_will_and_else_the_likeliest():
    bare = tgi.read_request(b'{"inputs": "Once"}').request
    assert bare.temperature is None
    assert tgi.read_request(body(max_new_tokens=2)).request.temperature == 0
    assert tgi.read_request(body(do_sample=True)).request.temperature is None
    assert tgi.read_request(body(top_k=3)).request.temperature is None
    assert tgi.read_request(body(temperature=0.5)).request.temperature == 0.5


@pytest.mark.parametrize(
    "grammar",
    [
        {"type": "json", "value": SCHEMA},
        {"type": "json", "value": json.dumps(SCHEMA)},
        {"type": "json_object", "value": SCHEMA},
        {"type": "json_schema", "value": {"name": "a", "schema": SCHEMA}},
    ],
)
def test_every_way_to_say_a_schema_is_read(grammar):
    assert tgi.read_request(body(grammar=grammar)).request.response_schema == SCHEMA


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"temperature": 0}, "parameters.temperature"),
        ({"temperature": "hot"}, "parameters.temperature"),
        ({"top_p": 1.5}, "parameters.top_p"),
        ({"top_p": 0}, "parameters.top_p"),
        ({"top_k": 0}, "parameters.top_k"),
        ({"max_new_tokens": 0}, "parameters.max_new_tokens"),
        ({"max_new_tokens": 1.5}, "parameters.max_new_tokens"),
        ({"repetition_penalty": 0}, "parameters.repetition_penalty"),
        ({"stop": "a"}, "parameters.stop"),
        ({"stop": [1]}, "parameters.stop[0]"),
        ({"seed": -1}, "parameters.seed"),
        ({"details": "yes"}, "parameters.details"),
        ({"grammar": {"type": "xml", "value": ""}}, "parameters.grammar.type"),
        ({"grammar": {"type": "json"}}, "parameters.grammar.value"),
        ({"grammar": {"type": "regex", "value": 1}}, "parameters.grammar.value"),
        ({"grammar": {"type": "json", "value": "{"}}, None),
    ],
)
def test_what_is_wrong_with_a_parameter_is_named(parameters, param):
    with pytest.raises(LLMInvalidRequestError) as caught:
        tgi.read_request(body(**parameters))
    if param is not None:
        assert caught.value.param == param
        assert param in str(caught.value)


@pytest.mark.parametrize(
    "wire", [{}, {"inputs": None}, {"inputs": ""}, {"inputs": ["a"]}, {"inputs": "a", "stream": 1}]
)
def test_what_is_wrong_beside_the_parameters_is_named(wire):
    with pytest.raises(LLMInvalidRequestError) as caught:
        tgi.read_request(json.dumps(wire).encode())
    assert caught.value.param in ("inputs", "stream")


def test_the_best_of_several_shows_at_the_end():
    wire = {"inputs": "a", "parameters": {"best_of": 2}, "stream": True}
    with pytest.raises(LLMInvalidRequestError, match="best_of"):
        tgi.read_request(json.dumps(wire).encode())


def test_fields_that_it_does_not_know_are_told():
    inbound = tgi.read_request(b'{"inputs": "a", "options": {"use_cache": false}, "x": null}')
    assert inbound.dropped == ("options",)


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": None},
        {"prompt": (1, 2)},
        {"suffix": "x"},
        {"n": 2},
        {"min_p": 0.1},
        {"presence_penalty": 0.5},
        {"logit_bias": {"1": 1.0}},
        {"reasoning_effort": "low"},
        {"response_format": {"type": "json_object"}},
    ],
)
def test_what_it_has_no_place_for_is_refused_by_name(changes):
    asked = evolve(LLMRequest(messages=(), prompt="Once"), **changes)
    with pytest.raises(LLMInvalidRequestError) as caught:
        tgi.write_request(asked, stream=False)
    assert caught.value.param in changes


@pytest.mark.parametrize(
    ("status", "kind", "said", "cls"),
    [
        (422, "validation", "`temperature` must be strictly positive", LLMInvalidRequestError),
        (
            422,
            "validation",
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 9",
            LLMContextLengthError,
        ),
        (422, "Validation", "`inputs` must have less than 512 tokens", LLMContextLengthError),
        (424, "generation", "Request failed during generation", LLMProviderError),
        (424, "Backend", "model is not a re-ranker model", LLMCapabilityError),
        (429, "overloaded", "Model is overloaded", LLMOverloadedError),
        (500, "incomplete_generation", "Incomplete generation", LLMProviderError),
        (503, "Unhealthy", "unhealthy", LLMUnavailableError),
        (400, "Empty", "`texts` cannot be empty", LLMInvalidRequestError),
    ],
)
def test_an_error_is_read_as_what_its_type_means(status, kind, said, cls):
    wire = json.dumps({"error": said, "error_type": kind}).encode()
    error = tgi.read_error(status, wire)
    assert type(error) is cls
    assert said in error.message


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (LLMInvalidRequestError("no"), 422, "validation"),
        (LLMInvalidRequestError("too big", status=413), 413, "validation"),
        (LLMRateLimitError("wait"), 429, "overloaded"),
        (LLMOverloadedError("full"), 429, "overloaded"),
        (LLMProviderError("broken"), 424, "generation"),
        (LLMBadResponseError("nonsense"), 424, "generation"),
        (LLMTimeoutError("late"), 504, "generation"),
        (LLMUnavailableError("gone"), 503, "healthcheck"),
        (LLMError("oh"), 500, "generation"),
    ],
)
def test_an_error_is_written_with_the_servers_status_and_word(error, status, kind):
    assert tgi.status_of(error) == status
    assert json.loads(tgi.write_error(error)) == {"error": error.message, "error_type": kind}
