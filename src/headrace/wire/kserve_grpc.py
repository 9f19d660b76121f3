"""The Open Inference Protocol over gRPC: its messages, from and to what the REST form says.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/open_inference_grpc.proto
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from headrace.contracts.capabilities import ModelInfo
from headrace.contracts.errors import LLMBadResponseError, LLMInvalidRequestError
from headrace.contracts.inference import (
    InferRequest,
    InferResult,
    ModelMetadata,
    Tensor,
    TensorInfo,
)
from headrace.wire.openai_fields import refuse
from headrace.wire.protobuf import Field, Message, Table, decode, encode, map_of
from headrace.wire.tensors import from_json, pack, unpack

SERVICE = "inference.GRPCInferenceService"

_PARAMETER = Table(
    (
        Field(1, "bool_param", "bool", shown=True),
        Field(2, "int64_param", "int64", shown=True),
        Field(3, "string_param", "string", shown=True),
        Field(4, "double_param", "double", shown=True),
        Field(5, "uint64_param", "uint64", shown=True),
    )
)
_PARAMETERS = map_of(_PARAMETER)
_CONTENTS = Table(
    (
        Field(1, "bool_contents", "bool", repeated=True),
        Field(2, "int_contents", "int32", repeated=True),
        Field(3, "int64_contents", "int64", repeated=True),
        Field(4, "uint_contents", "uint32", repeated=True),
        Field(5, "uint64_contents", "uint64", repeated=True),
        Field(6, "fp32_contents", "float", repeated=True),
        Field(7, "fp64_contents", "double", repeated=True),
        Field(8, "bytes_contents", "bytes", repeated=True),
    )
)
_TENSOR = Table(
    (
        Field(1, "name", "string"),
        Field(2, "datatype", "string"),
        Field(3, "shape", "int64", repeated=True),
        Field(4, "parameters", _PARAMETERS),
        Field(5, "contents", _CONTENTS),
    )
)
_OUTPUT = Table((Field(1, "name", "string"), Field(2, "parameters", _PARAMETERS)))
_INFER_REQUEST = Table(
    (
        Field(1, "model_name", "string"),
        Field(2, "model_version", "string"),
        Field(3, "id", "string"),
        Field(4, "parameters", _PARAMETERS),
        Field(5, "inputs", _TENSOR, repeated=True),
        Field(6, "outputs", _OUTPUT, repeated=True),
        Field(7, "raw_contents", "bytes", repeated=True),
    )
)
_INFER_RESPONSE = Table(
    (
        Field(1, "model_name", "string"),
        Field(2, "model_version", "string"),
        Field(3, "id", "string"),
        Field(4, "parameters", _PARAMETERS),
        Field(5, "outputs", _TENSOR, repeated=True),
        Field(6, "raw_contents", "bytes", repeated=True),
    )
)
_NAMED = Table((Field(1, "name", "string"), Field(2, "version", "string")))
_YES = Table((Field(1, "yes", "bool"),))
_SERVER = Table(
    (
        Field(1, "name", "string"),
        Field(2, "version", "string"),
        Field(3, "extensions", "string", repeated=True),
    )
)
_INFO = Table(
    (
        Field(1, "name", "string"),
        Field(2, "datatype", "string"),
        Field(3, "shape", "int64", repeated=True),
    )
)
_MODEL = Table(
    (
        Field(1, "name", "string"),
        Field(2, "versions", "string", repeated=True),
        Field(3, "platform", "string"),
        Field(4, "inputs", _INFO, repeated=True),
        Field(5, "outputs", _INFO, repeated=True),
    )
)
# https://github.com/triton-inference-server/common/blob/main/protobuf/grpc_service.proto
_INDEXED = Table(
    (
        Field(1, "name", "string"),
        Field(2, "version", "string"),
        Field(3, "state", "string"),
        Field(4, "reason", "string"),
    )
)
_INDEX = Table((Field(1, "models", _INDEXED, repeated=True),))
# Where the elements of a type stand, if they do not come raw.
_PLACES: Mapping[str, str] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def read_infer(data: bytes) -> InferRequest:
    """The ModelInferRequest in ``data``, or LLMInvalidRequestError naming the field."""
    wire = decode(_INFER_REQUEST, data)
    if not wire.get("inputs"):
        raise LLMInvalidRequestError("the request has no inputs, must have one", param="inputs")
    return InferRequest(
        inputs=_tensors(wire, "inputs"),
        model=wire.get("model_name") or None,
        version=wire.get("model_version") or None,
        outputs=tuple(each.get("name", "") for each in wire.get("outputs", ())),
        parameters=_parameters(wire),
        request_id=wire.get("id") or None,
    )


def write_infer(request: InferRequest, model: str) -> bytes:
    """``request`` as a ModelInferRequest for the server's ``model``."""
    message = _with_tensors("inputs", request.inputs)
    message |= {
        "model_name": model,
        "model_version": request.version,
        "id": request.request_id,
        "parameters": _parameters_to_wire(request.parameters),
        "outputs": [{"name": name} for name in request.outputs],
    }
    return encode(_INFER_REQUEST, message)


def read_result(data: bytes) -> InferResult:
    """The ModelInferResponse in ``data``, or LLMBadResponseError."""
    try:
        wire = decode(_INFER_RESPONSE, data)
        outputs = _tensors(wire, "outputs")
    except LLMInvalidRequestError as error:
        raise LLMBadResponseError(f"The backend's answer: {error}") from error
    return InferResult(
        outputs=outputs,
        model_id=wire.get("model_name") or None,
        version=wire.get("model_version") or None,
        request_id=wire.get("id") or None,
        parameters=_parameters(wire),
    )


def write_result(result: InferResult) -> bytes:
    """``result`` as a ModelInferResponse."""
    message = _with_tensors("outputs", result.outputs)
    message |= {
        "model_name": result.model_id,
        "model_version": result.version,
        "id": result.request_id,
        "parameters": _parameters_to_wire(result.parameters),
    }
    return encode(_INFER_RESPONSE, message)


def read_named(data: bytes) -> tuple[str, str | None]:
    """The model's name and version in a ModelReadyRequest or ModelMetadataRequest."""
    wire = decode(_NAMED, data)
    return wire.get("name", ""), wire.get("version") or None


def write_named(name: str, version: str | None) -> bytes:
    """A ModelReadyRequest or ModelMetadataRequest."""
    return encode(_NAMED, {"name": name, "version": version})


def read_yes(data: bytes) -> bool:
    """What a ServerLive-, ServerReady- or ModelReadyResponse says."""
    return bool(decode(_YES, data).get("yes", False))


def write_yes(yes: bool) -> bytes:
    """Such a response."""
    return encode(_YES, {"yes": yes})


def read_server(data: bytes) -> tuple[str, str, tuple[str, ...]]:
    """Name, version and extensions in a ServerMetadataResponse."""
    wire = decode(_SERVER, data)
    return wire.get("name", ""), wire.get("version", ""), tuple(wire.get("extensions", ()))


def write_server(name: str, version: str, extensions: tuple[str, ...]) -> bytes:
    """A ServerMetadataResponse."""
    return encode(_SERVER, {"name": name, "version": version, "extensions": extensions})


def read_metadata(data: bytes) -> ModelMetadata:
    """What a ModelMetadataResponse tells."""
    wire = decode(_MODEL, data)
    inputs, outputs = (
        tuple(
            TensorInfo(
                name=each.get("name", ""),
                datatype=each.get("datatype", ""),
                shape=tuple(each.get("shape", ())),
            )
            for each in wire.get(side, ())
        )
        for side in ("inputs", "outputs")
    )
    return ModelMetadata(
        name=wire.get("name", ""),
        platform=wire.get("platform", ""),
        versions=tuple(wire.get("versions", ())),
        inputs=inputs,
        outputs=outputs,
    )


def write_metadata(model: ModelMetadata) -> bytes:
    """``model`` as a ModelMetadataResponse."""
    message: Message = {
        "name": model.name,
        "platform": model.platform,
        "versions": model.versions,
    }
    for side, infos in (("inputs", model.inputs), ("outputs", model.outputs)):
        message[side] = [
            {"name": each.name, "datatype": each.datatype, "shape": each.shape} for each in infos
        ]
    return encode(_MODEL, message)


def read_index(data: bytes) -> tuple[ModelInfo, ...]:
    """The models in a RepositoryIndexResponse that are ready."""
    told = decode(_INDEX, data).get("models", ())
    # MLServer 1.7 says State.READY.
    ready = [each for each in told if each.get("state", "READY").rpartition(".")[2] == "READY"]
    names = dict.fromkeys(each.get("name", "") for each in ready)
    return tuple(ModelInfo(model_id=name, owned_by="") for name in names if name)


def write_index(models: Iterable[ModelInfo], version: str = "1") -> bytes:
    """Such a response with ``models``, all of them ready."""
    told = [{"name": each.model_id, "version": version, "state": "READY"} for each in models]
    return encode(_INDEX, {"models": told})


def _tensors(wire: Message, side: str) -> tuple[Tensor, ...]:
    named, raws = wire.get(side, ()), wire.get("raw_contents", ())
    if raws and len(raws) != len(named):
        raise LLMInvalidRequestError(
            f"there are {len(named)} {side}, but {len(raws)} raw contents", param=side
        )
    found = []
    for i, each in enumerate(named):
        path = f"{side}[{i}]"
        try:
            found.append(_tensor(each, raws[i] if raws else None, path))
        except LLMInvalidRequestError as error:
            if error.param is not None and error.param.startswith(path):
                raise
            raise LLMInvalidRequestError(f"{path}: {error}", param=path) from error
    return tuple(found)


def _tensor(wire: Message, raw: bytes | None, path: str) -> Tensor:
    name, datatype = wire.get("name", ""), wire.get("datatype", "")
    shape, contents = list(wire.get("shape", ())), wire.get("contents", {})
    for parameter in wire.get("parameters", {}):
        if parameter.startswith("shared_memory"):
            refuse(f"{path}.parameters.{parameter}", "", "the data themselves")
    if raw is not None:
        if contents:
            refuse(f"{path}.contents", "", "nothing, where raw contents are given")
        return unpack(name, datatype, shape, raw)
    place = _PLACES.get(datatype)
    if place is None and datatype in ("FP16", "BF16"):
        refuse(f"{path}.datatype", datatype, "another one, or its elements as raw contents")
    if place is None:
        return unpack(name, datatype, shape, b"")  # which says what is known
    others = [each for each in contents if each != place]
    if others:
        refuse(f"{path}.contents", others[0], f"'{place}' for {datatype}")
    values = contents.get(place, [])
    if datatype == "BYTES":
        return Tensor(name=name, datatype="BYTES", shape=tuple(shape), data=values)
    return from_json(name, datatype, shape, list(values))


def _with_tensors(side: str, tensors: tuple[Any, ...]) -> Message:
    for each in tensors:
        if not isinstance(each, Tensor):
            raise LLMInvalidRequestError(
                f"an input is a {type(each).__name__}, must be a named tensor", param=side
            )
    return {
        side: [
            {"name": each.name, "datatype": each.datatype, "shape": each.shape} for each in tensors
        ],
        "raw_contents": [pack(each) for each in tensors],
    }


def _parameters(wire: Message) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, choice in wire.get("parameters", {}).items():
        if choice:
            found[name] = next(iter(choice.values()))
    return found


def _parameters_to_wire(parameters: Mapping[str, object]) -> dict[str, Message]:
    wire: dict[str, Message] = {}
    for name, value in parameters.items():
        if isinstance(value, bool):
            wire[name] = {"bool_param": value}
        elif isinstance(value, int):
            wire[name] = {"int64_param" if value < 2**63 else "uint64_param": value}
        elif isinstance(value, float):
            wire[name] = {"double_param": value}
        elif isinstance(value, str):
            wire[name] = {"string_param": value}
        else:
            raise LLMInvalidRequestError(
                f"parameter {name!r} is a {type(value).__name__}, must be a text, number or bool",
                param=f"parameters.{name}",
            )
    return wire
