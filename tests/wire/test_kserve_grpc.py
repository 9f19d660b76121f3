"""KServe's gRPC messages: ours both ways, and judged by protobuf's own reading of the protocol.

The judge is made in the test, of the fields that the specification's proto file has.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import InferRequest, InferResult, LLMInvalidRequestError, Tensor
from headrace.wire import kserve_grpc
from headrace.wire.protobuf import Field, Table, decode, encode
from wire.test_kserve import VALUES
from wire.test_tensors import tensors

NUMBERS = VALUES | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)


@given(
    st.lists(tensors(), min_size=1, max_size=3),
    st.dictionaries(st.text(max_size=3), NUMBERS, max_size=3),
    st.none() | st.text(min_size=1, max_size=3),
    st.lists(st.text(max_size=3), max_size=2),
)
def test_a_request_arrives_as_it_was_sent(inputs, parameters, request_id, outputs):
    sent = InferRequest(
        inputs=tuple(inputs),
        model="m",
        version="2",
        parameters=parameters,
        request_id=request_id,
        outputs=tuple(outputs),
    )
    assert kserve_grpc.read_infer(kserve_grpc.write_infer(sent, "m")) == sent


@given(st.lists(tensors(), max_size=3))
def test_an_answer_arrives_as_it_was_sent(outputs):
    sent = InferResult(outputs=tuple(outputs), model_id="m", version="1", request_id="r")
    assert kserve_grpc.read_result(kserve_grpc.write_result(sent)) == sent


ALL = Table(
    (
        Field(1, "bool", "bool"),
        Field(2, "int32", "int32"),
        Field(3, "int64", "int64"),
        Field(4, "uint32", "uint32"),
        Field(5, "uint64", "uint64"),
        Field(6, "double", "double"),
        Field(7, "string", "string"),
        Field(8, "bytes", "bytes"),
        Field(9, "many", "int64", repeated=True),
        Field(10, "floats", "double", repeated=True),
    )
)
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "bool": st.just(True),
        "int32": st.integers(-(2**31), -1),
        "int64": st.integers(-(2**63), -1),
        "uint32": st.integers(1, 2**32 - 1),
        "uint64": st.integers(1, 2**64 - 1),
        "double": st.floats(min_value=0.5),
        "string": st.text(min_size=1),
        "bytes": st.binary(min_size=1),
        "many": st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1),
        "floats": st.lists(st.floats(allow_nan=False), min_size=1),
    },
)


@given(MESSAGES)
def test_any_message_comes_back(message):
    found = decode(ALL, encode(ALL, message))
    assert {k: list(v) if k in ("many", "floats") else v for k, v in found.items()} == message


@given(MESSAGES, st.binary(max_size=40))
def test_what_is_no_message_is_refused_and_never_breaks(message, noise):
    for data in (noise, encode(ALL, message)[:-1], encode(ALL, message) + noise):
        try:
            decode(ALL, data)
        except LLMInvalidRequestError as error:
            assert "protocol buffer" in str(error)  # noqa: PT017 - either is right


def test_fields_of_a_later_version_are_skipped():
    newer = Table((*ALL.fields, Field(99, "new", "string"), Field(98, "more", "double")))
    data = encode(newer, {"new": "x", "more": 1.5, "string": "y"})
    assert decode(ALL, data) == {"string": "y"}


def test_elements_may_stand_in_fields_of_their_type():
    table = kserve_grpc._INFER_REQUEST
    data = encode(
        table,
        {
            "model_name": "m",
            "inputs": [
                {
                    "name": "a",
                    "datatype": "INT8",
                    "shape": [2],
                    "contents": {"int_contents": [1, -2]},
                },
                {
                    "name": "b",
                    "datatype": "BYTES",
                    "shape": [1],
                    "contents": {"bytes_contents": [b"x"]},
                },
                {
                    "name": "c",
                    "datatype": "FP32",
                    "shape": [1],
                    "contents": {"fp32_contents": [0.5]},
                },
                {
                    "name": "d",
                    "datatype": "BOOL",
                    "shape": [2],
                    "contents": {"bool_contents": [True, False]},
                },
            ],
        },
    )
    request = kserve_grpc.read_infer(data)
    assert [list(each.data) for each in request.inputs] == [[1, -2], [b"x"], [0.5], [True, False]]


def wrong(**tensor: Any) -> bytes:
    whole = {"name": "a", "datatype": "INT8", "shape": [1], **tensor}
    return encode(kserve_grpc._INFER_REQUEST, {"model_name": "m", "inputs": [whole]})


@pytest.mark.parametrize(
    ("data", "param", "words"),
    [
        (b"", "inputs", "has no inputs"),
        (wrong(), "inputs[0]", "1 elements, but its data have 0"),
        (wrong(datatype="INT7"), "inputs[0]", "must be one of BOOL"),
        (wrong(shape=[-1]), "inputs[0]", "whole numbers"),
        (wrong(contents={"fp32_contents": [1.0]}), "inputs[0].contents", "'int_contents' for INT8"),
        (wrong(contents={"int_contents": [1000]}), "inputs[0]", "no INT8"),
        (wrong(datatype="FP16"), "inputs[0].datatype", "raw contents"),
        (
            wrong(parameters={"shared_memory_region": {"string_param": "r"}}),
            "inputs[0].parameters.shared_memory_region",
            "the data themselves",
        ),
    ],
)
def test_a_wrong_request_is_refused_by_the_fields_name(data, param, words):
    with pytest.raises(LLMInvalidRequestError) as caught:
        kserve_grpc.read_infer(data)
    assert caught.value.param == param
    assert words in str(caught.value)


def test_raw_contents_are_for_all_or_none():
    two = [{"name": name, "datatype": "INT8", "shape": [1]} for name in "ab"]
    message = {"model_name": "m", "inputs": two, "raw_contents": [b"\1"]}
    with pytest.raises(LLMInvalidRequestError, match="2 inputs, but 1 raw contents"):
        kserve_grpc.read_infer(encode(kserve_grpc._INFER_REQUEST, message))


def test_a_list_is_no_parameter():
    x = Tensor(name="x", datatype="INT8", shape=(0,), data=[])
    with pytest.raises(LLMInvalidRequestError, match="parameter 'stop'"):
        kserve_grpc.write_infer(InferRequest(inputs=(x,), parameters={"stop": ["a"]}), "m")


def test_an_index_lists_the_models_that_are_ready():
    # As MLServer 1.7.1 said it, and one that is not ready.
    said = b"\n\x14\n\x05shout\x1a\x0bState.READY\n\x14\n\x05adder\x1a\x0bState.READY"
    said += b"\n\x12\n\x03old\x1a\x0bUNAVAILABLE"
    assert [each.model_id for each in kserve_grpc.read_index(said)] == ["shout", "adder"]
    listed = kserve_grpc.read_index(said)
    assert kserve_grpc.read_index(kserve_grpc.write_index(listed)) == listed
