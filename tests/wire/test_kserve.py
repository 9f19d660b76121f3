"""KServe's REST bodies: those of the specification, ours both ways, and what is said of wrong ones."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import (
    InferRequest,
    InferResult,
    LLMBadResponseError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    ModelInfo,
    ModelMetadata,
    Tensor,
    TensorInfo,
)
from headrace.wire import kserve
from headrace.wire.kserve import Inbound
from wire.test_tensors import is_text_or_finite, tensors

# The request of https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/
# inference_rest.md, but for its second shape, which has three places for one value there.
SPECIFIED = b"""{
  "id" : "42",
  "inputs" : [
    {"name" : "input0", "shape" : [ 2, 2 ], "datatype"  : "UINT32", "data" : [ 1, 2, 3, 4 ]},
    {"name" : "input1", "shape" : [ 1 ], "datatype"  : "BOOL", "data" : [ true ]}
  ],
  "outputs" : [{"name" : "output0"}]
}"""
# The request of https://github.com/triton-inference-server/server/blob/main/docs/protocol/
# extension_binary_data.md, with 16 and 3 bytes behind it.
BINARY_HEAD = b"""{
  "model_name" : "mymodel",
  "inputs" : [
    {"name" : "input0", "shape" : [ 2, 2 ], "datatype"  : "UINT32", "parameters" : {"binary_data_size" : 16}},
    {"name" : "input1", "shape" : [ 3 ], "datatype"  : "BOOL", "parameters" : {"binary_data_size" : 3}}
  ],
  "outputs" : [{"name" : "output0", "parameters" : {"binary_data" : true}}]
}"""
ONE = {"name": "x", "shape": [1], "datatype": "INT32", "data": [1]}
VALUES = st.booleans() | st.integers(0, 9) | st.text(max_size=3)


def fits_json(tensor):
    return tensor.datatype not in ("FP16", "BF16") and is_text_or_finite(tensor)


def test_the_specifications_request_is_read():
    inbound = kserve.read_infer(SPECIFIED, model="mymodel")
    first, second = inbound.request.inputs
    assert first == Tensor(name="input0", datatype="UINT32", shape=(2, 2), data=[1, 2, 3, 4])
    assert second == Tensor(name="input1", datatype="BOOL", shape=(1,), data=[True])
    assert (inbound.request.request_id, inbound.request.outputs) == ("42", ("output0",))
    assert not inbound.binary


def test_the_binary_extensions_request_is_read():
    raw = bytes(range(16)) + b"\1\0\1"
    inbound = kserve.read_infer(BINARY_HEAD + raw, str(len(BINARY_HEAD)))
    first, second = inbound.request.inputs
    assert first.data.tobytes() == bytes(range(16))
    assert second.data == (True, False, True)
    assert inbound.binary_of == {"output0": True}
    answer = InferResult(
        outputs=(Tensor(name="output0", datatype="FP32", shape=(3, 2), data=[0.0] * 6),)
    )
    body, length = kserve.write_result(answer, inbound)
    assert length is not None
    assert len(body) == length + 24
    told = json.loads(body[:length])["outputs"][0]
    assert told["parameters"] == {"binary_data_size": 24}


@given(
    st.lists(tensors(), min_size=1, max_size=3),
    st.booleans(),
    st.dictionaries(st.text(max_size=3), VALUES, max_size=2),
    st.none() | st.text(max_size=3),
    st.lists(st.text(max_size=3), max_size=2, unique=True),
)
def test_a_request_arrives_as_it_was_sent(inputs, binary, parameters, request_id, outputs):
    sent = InferRequest(
        inputs=tuple(inputs), parameters=parameters, request_id=request_id, outputs=tuple(outputs)
    )
    if not binary and not all(map(fits_json, inputs)):
        with pytest.raises(LLMInvalidRequestError, match="binary data"):
            kserve.write_infer(sent, binary=False)
        return
    body, length = kserve.write_infer(sent, binary=binary)
    inbound = kserve.read_infer(body, None if length is None else str(length))
    assert inbound.request == sent
    assert all(inbound.binary_of.get(name, inbound.binary) is binary for name in outputs)
    assert (length is not None) is binary


@given(st.lists(tensors(), max_size=3), st.booleans(), st.none() | st.text(max_size=3))
def test_an_answer_arrives_as_it_was_sent(outputs, binary, request_id):
    inbound = Inbound(request=InferRequest(inputs=(), request_id=request_id), binary=binary)
    sent = InferResult(outputs=tuple(outputs), model_id="m", version="1")
    if not binary and not all(map(fits_json, outputs)):
        with pytest.raises(LLMInvalidRequestError, match="binary data"):
            kserve.write_result(sent, inbound)
        return
    body, length = kserve.write_result(sent, inbound)
    arrived = kserve.read_result(body, None if length is None else str(length))
    assert (arrived.outputs, arrived.model_id, arrived.version) == (sent.outputs, "m", "1")
    assert arrived.request_id == (request_id or None)


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, "inputs", "Missing required parameter"),
        ({"inputs": []}, "inputs", "at least one tensor"),
        ({"inputs": {}}, "inputs", "Missing required parameter"),
        ({"inputs": [1]}, "inputs[0]", "an object"),
        ({"inputs": [ONE], "input": []}, "input", "did you mean 'inputs'?"),
        ({"inputs": [{**ONE, "type": 1}]}, "inputs[0].type", "did you mean 'datatype'?"),
        ({"inputs": [{k: v for k, v in ONE.items() if k != "name"}]}, "inputs[0].name", "Missing"),
        ({"inputs": [{**ONE, "shape": 1}]}, "inputs[0].shape", "an array"),
        ({"inputs": [{**ONE, "shape": [2]}]}, "inputs[0]", "2 elements, but its data have 1"),
        ({"inputs": [{**ONE, "shape": ["a"]}]}, "inputs[0]", "whole numbers"),
        ({"inputs": [{**ONE, "datatype": "INT"}]}, "inputs[0]", "must be one of BOOL"),
        ({"inputs": [{**ONE, "data": ["a"]}]}, "inputs[0]", "no INT32"),
        ({"inputs": [{**ONE, "data": [None]}]}, "inputs[0]", "no INT32"),
        ({"inputs": [{**ONE, "data": None}]}, "inputs[0].data", "the tensor's elements"),
        (
            {"inputs": [{**ONE, "parameters": {"binary_data_size": 4}}]},
            "inputs[0].parameters.binary_data_size",
            "at most 0",
        ),
        (
            {"inputs": [{**ONE, "parameters": {"shared_memory_region": "r"}}]},
            "inputs[0].parameters.shared_memory_region",
            "the data themselves",
        ),
        ({"inputs": [ONE], "outputs": [{}]}, "outputs[0].name", "Missing"),
        (
            {"inputs": [ONE], "outputs": [{"name": "y", "parameters": {"classification": 3}}]},
            "outputs[0].parameters.classification",
            "only binary_data is known",
        ),
        ({"inputs": [ONE], "id": 4}, "id", "a string"),
        ({"inputs": [ONE], "parameters": []}, "parameters", "an object"),
    ],
)
def test_a_wrong_request_is_refused_by_the_fields_name(body, param, words):
    with pytest.raises(LLMInvalidRequestError) as caught:
        kserve.read_infer(json.dumps(body).encode())
    assert caught.value.param == param
    assert words in str(caught.value)


@pytest.mark.parametrize("told", ["-1", "1e3", "²", "99999", "9" * 400, ""])
def test_a_wrong_length_of_the_json_is_refused(told):
    with pytest.raises(LLMInvalidRequestError, match="inference-header-content-length"):
        kserve.read_infer(SPECIFIED, told)


def test_bytes_that_belong_to_no_tensor_are_refused():
    with pytest.raises(LLMInvalidRequestError, match="1 bytes follow the JSON"):
        kserve.read_infer(SPECIFIED + b"x", str(len(SPECIFIED)))


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"outputs": [{}]}', b"no"])
def test_an_answer_that_is_none_is_the_backends_fault(body):
    with pytest.raises(LLMBadResponseError):
        kserve.read_result(body)


def test_a_value_is_no_tensor():
    with pytest.raises(LLMInvalidRequestError, match="tensor_of"):
        kserve.write_infer(InferRequest(inputs=("a text",)))


def test_metadata_come_back():
    info = TensorInfo(name="x", datatype="FP32", shape=(-1, 3))
    model = ModelMetadata(
        name="m", platform="openvino", versions=("1", "2"), inputs=(info,), outputs=(info,)
    )
    assert kserve.read_metadata(kserve.write_metadata(model)) == model
    with pytest.raises(LLMBadResponseError):
        kserve.read_metadata(b'{"name": "m", "inputs": [{"name": "x"}]}')


def test_an_index_lists_what_is_ready():
    models = (ModelInfo(model_id="a"), ModelInfo(model_id="b"))
    listed = kserve.read_models(kserve.write_models(models))
    assert [each.model_id for each in listed] == ["a", "b"]
    away = b'[{"name": "a", "state": "UNAVAILABLE", "reason": "unloaded"}, {"name": "b"}]'
    assert [each.model_id for each in kserve.read_models(away)] == ["b"]


def test_an_error_is_one_text():
    error = LLMModelNotFoundError("there is no model 'x' here", param="model")
    assert json.loads(kserve.write_error(error)) == {"error": "there is no model 'x' here"}
    read = kserve.read_error(404, kserve.write_error(error))
    assert isinstance(read, LLMModelNotFoundError)
    assert str(read) == str(error)
