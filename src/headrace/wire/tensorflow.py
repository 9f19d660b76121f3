"""TensorFlow Serving's REST form, which OpenVINO Model Server has too: tensors by columns.

https://www.tensorflow.org/tfx/serving/api_rest. Tensors are nested lists there, without a type: that of
an answer is told from its elements (whole numbers are INT64, others FP32, ``{"b64": ...}`` BYTES). The
list of models is OVMS's ``/v1/config``:
https://docs.openvino.ai/latest/model-server/ovms_docs_rest_api_tfs.html.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any

from headrace.contracts.capabilities import ModelInfo
from headrace.contracts.errors import LLMBadResponseError, LLMInvalidRequestError
from headrace.contracts.inference import InferRequest, InferResult, Tensor
from headrace.wire.json import decode_reply, encode, kind
from headrace.wire.openai_errors import read_error
from headrace.wire.tensors import tensor_of, to_json

__all__ = ["read_error", "read_models", "read_result", "write_infer"]

ONLY = "output"
"""The name of an output that is the only one, for its server tells none."""


def write_infer(request: InferRequest, *, binary: bool = False) -> tuple[bytes, None]:
    """``request`` as a body; there are no raw bytes behind it."""
    columns: dict[str, object] = {}
    for each in request.inputs:
        if not isinstance(each, Tensor):
            raise LLMInvalidRequestError(
                f"an input is {kind(each)}, must be a named tensor (headrace.tensor_of makes one)",
                param="inputs",
            )
        columns[each.name] = _nested(_elements(each), each.shape)
    body: dict[str, object] = {"inputs": columns}
    for name, value in request.parameters.items():
        if name != "signature_name":
            raise LLMInvalidRequestError(
                f"there is no parameter {name[:100]!r} in TensorFlow's form; known: signature_name",
                param=f"parameters.{name[:100]}",
            )
        body[name] = value
    if request.outputs:
        raise LLMInvalidRequestError(
            "outputs cannot be chosen in TensorFlow's form; leave 'outputs' out", param="outputs"
        )
    return encode(body), None


def read_result(body: bytes, header_length: str | None = None) -> InferResult:
    """The outputs in a server's answer, or LLMBadResponseError."""
    wire = decode_reply(body)
    if not isinstance(wire, dict) or "outputs" not in wire:
        raise LLMBadResponseError("The backend's answer has no 'outputs'.")
    outputs = wire["outputs"]
    named = outputs if isinstance(outputs, dict) and "b64" not in outputs else {ONLY: outputs}
    try:
        return InferResult(
            outputs=tuple(tensor_of(name, _values(each)) for name, each in named.items())
        )
    except LLMInvalidRequestError as error:
        raise LLMBadResponseError(f"The backend's answer: {error}") from error


def read_models(body: bytes) -> tuple[ModelInfo, ...]:
    """The models of which a version is available, in OVMS's status of its configuration."""
    wire = decode_reply(body)
    if not isinstance(wire, dict):
        raise LLMBadResponseError(f"The status of models is an object, but this is {kind(wire)}.")
    found = []
    for name, told in wire.items():
        versions = told.get("model_version_status") if isinstance(told, dict) else None
        if not isinstance(versions, list):
            raise LLMBadResponseError(f"The status of {name[:100]!r} has no model_version_status.")
        if any(isinstance(each, dict) and each.get("state") == "AVAILABLE" for each in versions):
            found.append(ModelInfo(model_id=name, owned_by=""))
    return tuple(found)


def _elements(tensor: Tensor) -> list[Any]:
    if tensor.datatype == "BYTES":
        return [{"b64": b64encode(each).decode()} for each in tensor.data]
    return to_json(tensor)


def _nested(flat: list[Any], shape: Sequence[int]) -> Any:
    if not shape:
        return flat[0]
    for size in reversed(shape[1:]):
        step = max(size, 1)
        flat = [flat[at : at + step] for at in range(0, len(flat), step)]
    return flat


def _values(wire: Any) -> Any:
    if isinstance(wire, list):
        return [_values(each) for each in wire]
    if isinstance(wire, dict) and isinstance(wire.get("b64"), str):
        try:
            return b64decode(wire["b64"], validate=True)
        except binascii.Error as error:
            raise LLMBadResponseError(f"The backend's answer is no base64: {error}.") from error
    return wire
