"""Models that are asked by plain values: their bodies, each way."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import (
    InferProblem,
    InferRequest,
    InferResult,
    LLMBadResponseError,
    LLMInvalidRequestError,
    LLMRequest,
    ModelStatistics,
)
from headrace.contracts.snapshot import LatencySummary
from headrace.wire import inference, openai_models
from wire.strategies import json_values


@given(st.lists(json_values, min_size=1, max_size=3), st.booleans(), st.booleans())
def test_a_request_arrives_as_it_was_sent(inputs, single, has_parameters):
    sent = InferRequest(
        inputs=tuple(inputs[:1] if single else inputs),
        model="m",
        single=single,
        parameters={"top": 1} if has_parameters else {},
    )
    assert inference.read_infer(inference.write_infer(sent)[0], model="m") == sent


@given(st.lists(json_values, min_size=1, max_size=3))
def test_an_answer_arrives_as_it_was_sent(outputs):
    one = InferResult(outputs=tuple(outputs[:1]), model_id="m")
    assert inference.read_result(inference.write_result(one, single=True)) == one
    problems = (InferProblem(index=0, message="too long"),)
    many = InferResult(outputs=tuple(outputs), model_id="m", problems=problems)
    assert inference.read_result(inference.write_result(many, single=False)) == many


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, "input", "Missing required parameter"),
        ({"input": 1, "inputs": [1]}, "inputs", "not both"),
        ({"inputs": 1}, "inputs", "an array"),
        ({"inputs": []}, "inputs", "1 to 1024"),
        ({"inputs": [0] * 1025}, "inputs", "1 to 1024"),
        ({"input": 1, "parameters": 3}, "parameters", "an object"),
        ({"input": 1, "parameter": {}}, "parameter", "did you mean 'parameters'?"),
    ],
)
def test_a_wrong_request_is_refused_by_the_fields_name(body, param, words):
    with pytest.raises(LLMInvalidRequestError) as caught:
        inference.read_infer(json.dumps(body).encode())
    assert caught.value.param == param
    assert words in str(caught.value)


def test_null_is_a_value():
    assert inference.read_infer(b'{"input": null}').inputs == (None,)


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{}",
        b'{"output": 1, "outputs": []}',
        b'{"outputs": 3}',
        b'{"outputs": [1], "errors": [{"index": 1}]}',
        b'{"outputs": [1], "errors": [{}]}',
    ],
)
def test_an_answer_that_is_none_is_the_backends_fault(body):
    with pytest.raises(LLMBadResponseError):
        inference.read_result(body)


def test_models_are_listed_in_openais_form():
    infos = [inference.FunctionInfo(model_id="upper", created=7, parameters=("k",))]
    (listed,) = openai_models.read_models(inference.write_models(infos))
    assert (listed.model_id, listed.created) == ("upper", 7)
    assert json.loads(inference.write_model(infos[0]))["parameters"] == ["k"]


def test_statistics_come_back():
    sent = ModelStatistics(
        model="m",
        uptime_s=1.5,
        requests=3,
        failures={"LLMTimeoutError": 1},
        latency=LatencySummary(count=2, mean_s=0.5),
    )
    assert inference.read_statistics(inference.write_statistics(sent)) == sent
    with pytest.raises(LLMBadResponseError):
        inference.read_statistics(b'{"model": 3}')


def test_a_text_completion_is_a_value_and_its_settings_parameters():
    asked = inference.completion_to_values(
        LLMRequest(messages=(), prompt="hi", model="m", temperature=0.5, stop=("a", "b"))
    )
    assert asked.inputs == ("hi",)
    assert asked.parameters == {"temperature": 0.5, "stop": ("a", "b")}
    for output, text in (("HI", "HI"), ({"label": "a"}, '{"label":"a"}')):
        assert inference.values_to_response(InferResult(outputs=(output,))).text == text
