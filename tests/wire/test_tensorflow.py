"""TensorFlow Serving's form, by the examples of its reference and OVMS's."""

from __future__ import annotations

import json

import pytest

from headrace import InferRequest, LLMBadResponseError, LLMInvalidRequestError, tensor_of
from headrace.wire import tensorflow

# https://docs.openvino.ai/latest/model-server/ovms_docs_rest_api_tfs.html, "Config Status API".
STATUS = {
    "resnet": {
        "model_version_status": [
            {
                "version": "2",
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            },
            {"version": "1", "state": "END", "status": {"error_code": "OK", "error_message": ""}},
        ]
    },
    "gone": {"model_version_status": [{"version": "1", "state": "END", "status": {}}]},
}


def test_tensors_are_columns():
    request = InferRequest(
        inputs=(tensor_of("tag", ["foo", b"\xff"]), tensor_of("signal", [[1.5, 2.0], [3.0, 4.0]])),
        parameters={"signature_name": "serving_default"},
    )
    body, length = tensorflow.write_infer(request)
    assert length is None
    assert json.loads(body) == {
        "signature_name": "serving_default",
        "inputs": {
            "tag": [{"b64": "Zm9v"}, {"b64": "/w=="}],
            "signal": [[1.5, 2.0], [3.0, 4.0]],
        },
    }


def test_several_outputs_have_names_and_one_has_none():
    result = tensorflow.read_result(
        b'{"outputs": {"scores": [[0.5, 0.25]], "classes": [[3, 1]], "raw": [{"b64": "Zm9v"}]}}'
    )
    assert result.tensor("scores").shape == (1, 2)
    assert result.tensor("classes").datatype == "INT64"
    assert result.tensor("raw").data == (b"foo",)
    alone = tensorflow.read_result(b'{"outputs": [[0.5], [0.25]]}')
    assert list(alone.tensor("output").data) == [0.5, 0.25]


def test_models_are_those_of_which_a_version_is_available():
    (model,) = tensorflow.read_models(json.dumps(STATUS).encode())
    assert model.model_id == "resnet"


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b'{"outputs": [[1], [2, 3]]}', b'{"outputs": {"b64": "!"}}']
)
def test_an_answer_that_is_none_is_the_backends_fault(body):
    with pytest.raises(LLMBadResponseError):
        tensorflow.read_result(body)
    if body != b"{}":
        with pytest.raises(LLMBadResponseError):
            tensorflow.read_models(body)


@pytest.mark.parametrize(
    "more", [{"parameters": {"top": 1}}, {"outputs": ("y",)}, {"inputs": (1,)}]
)
def test_what_the_form_cannot_carry_is_refused_by_its_name(more):
    request = InferRequest(**{"inputs": (tensor_of("x", [1]),), **more})
    with pytest.raises(LLMInvalidRequestError):
        tensorflow.write_infer(request)
