"""The Open Inference Protocol (KServe v2) over REST: tensors in, tensors out, and what a model takes.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md,
with Triton's binary extension, by which elements follow the JSON as raw bytes:
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from attrs import evolve, field, frozen

from headrace.contracts.capabilities import ModelInfo
from headrace.contracts.errors import LLMBadResponseError, LLMError, LLMInvalidRequestError
from headrace.contracts.inference import (
    DATATYPES,
    InferRequest,
    InferResult,
    ModelMetadata,
    Tensor,
    TensorInfo,
)
from headrace.wire.json import decode_object, decode_reply, encode, kind, shorten
from headrace.wire.openai_errors import read_error
from headrace.wire.openai_fields import array, boolean, mapping, refuse, refuse_absence, text
from headrace.wire.tensors import from_json, pack, to_json, unpack

__all__ = [
    "DATATYPES",
    "HEADER_LENGTH",
    "Inbound",
    "read_error",
    "read_infer",
    "read_metadata",
    "read_models",
    "read_result",
    "status_of",
    "write_error",
    "write_infer",
    "write_metadata",
    "write_models",
    "write_result",
]

HEADER_LENGTH = "inference-header-content-length"
"""The header that tells how long the JSON before the raw bytes is."""

_MOST_INPUTS = 1024
_OF_REQUESTS = ("id", "parameters", "inputs", "outputs", "model_name", "model_version")
_OF_INPUTS = ("name", "shape", "datatype", "parameters", "data")
_OF_OUTPUTS = ("name", "parameters")
_SIZE, _BINARY, _ALL_BINARY = "binary_data_size", "binary_data", "binary_data_output"
# No raw bytes of theirs can be written in JSON.
_NOT_IN_JSON = {"FP16", "BF16"}


@frozen(kw_only=True)
class Inbound:
    """A caller's request; ``binary`` says whether outputs go back as raw bytes, ``binary_of`` which
    of them do otherwise."""

    request: InferRequest
    binary: bool = False
    binary_of: Mapping[str, bool] = field(factory=dict)


def read_infer(
    body: bytes,
    header_length: str | None = None,
    *,
    model: str | None = None,
    version: str | None = None,
) -> Inbound:
    """The request in a caller's ``body``, or LLMInvalidRequestError naming the field."""
    head, raw = _parted(body, header_length)
    wire = decode_object(head)
    _refuse_unknown(wire, _OF_REQUESTS, "")
    inputs = wire.get("inputs")
    if not inputs:
        refuse_absence("inputs", "an array of at least one tensor")
    if len(array(inputs, "inputs")) > _MOST_INPUTS:
        refuse("inputs", inputs, f"at most {_MOST_INPUTS} tensors")
    tensors, at = [], 0
    for i, each in enumerate(inputs):
        tensor, at = _input(mapping(each, f"inputs[{i}]"), f"inputs[{i}]", raw, at)
        tensors.append(tensor)
    if at != len(raw):
        raise LLMInvalidRequestError(
            f"{len(raw)} bytes follow the JSON, but its inputs' binary_data_size are {at} together",
            param="inputs",
        )
    parameters = _parameters(wire, "parameters")
    outputs, binary_of = _outputs(wire.get("outputs"))
    binary = boolean(parameters.pop(_ALL_BINARY, False), f"parameters.{_ALL_BINARY}")
    given = wire.get("id")
    return Inbound(
        request=InferRequest(
            inputs=tuple(tensors),
            model=model,
            version=version,
            outputs=outputs,
            parameters=parameters,
            request_id=None if given is None else text(given, "id"),
        ),
        binary=binary,
        binary_of=binary_of,
    )


def write_infer(request: InferRequest, *, binary: bool = True) -> tuple[bytes, int | None]:
    """``request`` as a body, and the length of its JSON where raw bytes follow it.

    Without ``binary`` all is JSON, for servers that lack the extension.
    """
    raws: list[bytes] = []
    inputs = []
    for each in request.inputs:
        if not isinstance(each, Tensor):
            raise LLMInvalidRequestError(
                f"an input is {kind(each)}, must be a named tensor (headrace.tensor_of makes one)",
                param="inputs",
            )
        inputs.append(_tensor_to_wire(each, raws, binary=binary))
    body: dict[str, object] = {"inputs": inputs}
    if request.request_id is not None:
        body["id"] = request.request_id
    parameters = dict(request.parameters)
    if request.outputs:
        asked: dict[str, object] = {"parameters": {_BINARY: True}} if binary else {}
        body["outputs"] = [{"name": name, **asked} for name in request.outputs]
    elif binary:
        parameters[_ALL_BINARY] = True
    if parameters:
        body["parameters"] = parameters
    return _joined(encode(body), raws)


def read_result(body: bytes, header_length: str | None = None) -> InferResult:
    """The outputs in a server's answer, or LLMBadResponseError."""
    try:
        head, raw = _parted(body, header_length)
    except LLMInvalidRequestError as error:
        raise LLMBadResponseError(f"The backend's answer: {error}") from error
    wire = decode_reply(head)
    outputs = wire.get("outputs") if isinstance(wire, dict) else None
    if not isinstance(outputs, list):
        raise LLMBadResponseError("The backend's answer has no array 'outputs'.")
    tensors, at = [], 0
    try:
        for i, each in enumerate(outputs):
            tensor, at = _input(mapping(each, f"outputs[{i}]"), f"outputs[{i}]", raw, at)
            tensors.append(tensor)
    except LLMInvalidRequestError as error:
        raise LLMBadResponseError(f"The backend's answer: {error}") from error
    name, version, given = (wire.get(key) for key in ("model_name", "model_version", "id"))
    parameters = wire.get("parameters")
    return InferResult(
        outputs=tuple(tensors),
        model_id=name if isinstance(name, str) else None,
        version=version if isinstance(version, str) else None,
        request_id=given if isinstance(given, str) and given else None,
        parameters=parameters if isinstance(parameters, dict) else {},
    )


def write_result(result: InferResult, inbound: Inbound) -> tuple[bytes, int | None]:
    """``result`` as the answer to ``inbound``, and the length of its JSON where bytes follow it."""
    raws: list[bytes] = []
    outputs = []
    for each in result.outputs:
        binary = inbound.binary_of.get(each.name, inbound.binary)
        outputs.append(_tensor_to_wire(each, raws, binary=binary))
    body: dict[str, object] = {"model_name": result.model_id or "", "outputs": outputs}
    if result.version is not None:
        body["model_version"] = result.version
    if inbound.request.request_id is not None:
        body["id"] = inbound.request.request_id
    if result.parameters:
        body["parameters"] = result.parameters
    return _joined(encode(body), raws)


def check_outputs(asked: Sequence[str], there: Sequence[str]) -> None:
    """Refuse an output that is asked for and is not ``there``."""
    for i, name in enumerate(asked):
        if name not in there:
            refuse(f"outputs[{i}].name", name, f"one of {', '.join(map(repr, there))}")


def wanted(result: InferResult, outputs: Sequence[str]) -> InferResult:
    """``result`` with those of its tensors that were asked for, in that order; all, if none were.

    One that nobody knows (how many tokens it were) is not among them.
    """
    if not outputs:
        return result
    there = {each.name: each for each in result.outputs}
    found = tuple(there[name] for name in outputs if name in there)
    return evolve(result, outputs=found)


def read_metadata(body: bytes) -> ModelMetadata:
    """What a server tells of a model."""
    wire = decode_reply(body)
    if not isinstance(wire, dict) or not isinstance(wire.get("name"), str):
        raise LLMBadResponseError("The backend's answer tells of no model: it has no 'name'.")
    platform, versions = wire.get("platform"), wire.get("versions")
    return ModelMetadata(
        name=wire["name"],
        platform=platform if isinstance(platform, str) else "",
        versions=tuple(str(each) for each in versions) if isinstance(versions, list) else (),
        inputs=_infos(wire.get("inputs")),
        outputs=_infos(wire.get("outputs")),
    )


def write_metadata(model: ModelMetadata) -> bytes:
    """``model`` as a body."""
    return encode(
        {
            "name": model.name,
            "versions": list(model.versions),
            "platform": model.platform,
            "inputs": [_info_to_wire(each) for each in model.inputs],
            "outputs": [_info_to_wire(each) for each in model.outputs],
        }
    )


def read_models(body: bytes) -> tuple[ModelInfo, ...]:
    """The models in a repository's index (Triton's model repository extension)."""
    wire = decode_reply(body)
    if not isinstance(wire, list):
        raise LLMBadResponseError(f"A repository's index is an array, but this is {kind(wire)}.")
    names: dict[str, None] = {}
    for each in wire:
        name = each.get("name") if isinstance(each, dict) else None
        if not isinstance(name, str):
            raise LLMBadResponseError(f"A model has a 'name', but this one is {shorten(each)}.")
        if each.get("state") in (None, "READY"):
            names[name] = None
    return tuple(ModelInfo(model_id=name, owned_by="") for name in names)


def write_models(models: Iterable[ModelInfo], version: str = "1") -> bytes:
    """An index of ``models``, all of them ready."""
    return encode(
        [
            {"name": each.model_id, "version": version, "state": "READY", "reason": ""}
            for each in models
        ]
    )


def write_error(error: LLMError) -> bytes:
    """``error`` as a body: the protocol has one text for it."""
    return encode({"error": error.message})


def status_of(error: LLMError) -> int:
    """The HTTP status that goes with ``error``."""
    return error.status


def _parted(body: bytes, header_length: str | None) -> tuple[bytes, bytes]:
    """The JSON, and the raw bytes behind it."""
    if header_length is None:
        return body, b""
    shown = header_length[:40]
    if not (header_length.isascii() and header_length.isdigit() and len(header_length) < 16):
        raise LLMInvalidRequestError(
            f"the header {HEADER_LENGTH} is {shown!r}, must be a number of bytes",
            param=HEADER_LENGTH,
        )
    length = int(header_length)
    if length > len(body):
        raise LLMInvalidRequestError(
            f"the header {HEADER_LENGTH} is {shown}, but the body has {len(body)} bytes",
            param=HEADER_LENGTH,
        )
    return body[:length], body[length:]


def _joined(head: bytes, raws: Sequence[bytes]) -> tuple[bytes, int | None]:
    return (b"".join((head, *raws)), len(head)) if raws else (head, None)


def _input(wire: dict[str, Any], path: str, raw: bytes, at: int) -> tuple[Tensor, int]:
    """The tensor that ``wire`` says, and where the next one's raw bytes begin."""
    _refuse_unknown(wire, _OF_INPUTS, path)
    for name in ("name", "datatype"):
        if wire.get(name) is None:
            refuse_absence(f"{path}.{name}", "a string")
    name, datatype = text(wire["name"], f"{path}.name"), text(wire["datatype"], f"{path}.datatype")
    if wire.get("shape") is None:
        refuse_absence(f"{path}.shape", "an array of sizes")
    shape = array(wire["shape"], f"{path}.shape")
    parameters = _parameters(wire, f"{path}.parameters")
    for parameter in parameters:
        if parameter.startswith("shared_memory"):
            refuse(f"{path}.parameters.{parameter}", parameters[parameter], "the data themselves")
    size = parameters.get(_SIZE)
    try:
        if size is None:
            if wire.get("data") is None:
                refuse_absence(f"{path}.data", "the tensor's elements")
            return from_json(name, datatype, shape, wire["data"]), at
        if type(size) is not int or size < 0:
            refuse(f"{path}.parameters.{_SIZE}", size, "a number of bytes")
        if at + size > len(raw):
            refuse(f"{path}.parameters.{_SIZE}", size, f"at most {len(raw) - at}, which follow")
        return unpack(name, datatype, shape, raw[at : at + size]), at + size
    except LLMInvalidRequestError as error:
        if error.param is not None and error.param.startswith(path):
            raise
        raise LLMInvalidRequestError(f"{path}: {error}", param=path) from error


def _outputs(value: Any) -> tuple[tuple[str, ...], dict[str, bool]]:
    if value is None:
        return (), {}
    names: list[str] = []
    binary: dict[str, bool] = {}
    for i, each in enumerate(array(value, "outputs")):
        path = f"outputs[{i}]"
        _refuse_unknown(mapping(each, path), _OF_OUTPUTS, path)
        if each.get("name") is None:
            refuse_absence(f"{path}.name", "a string")
        name = text(each["name"], f"{path}.name")
        names.append(name)
        for parameter, setting in _parameters(each, f"{path}.parameters").items():
            if parameter == _BINARY:
                binary[name] = boolean(setting, f"{path}.parameters.{_BINARY}")
            else:
                refuse(
                    f"{path}.parameters.{parameter}", setting, f"nothing: only {_BINARY} is known"
                )
    return tuple(names), binary


def _parameters(wire: dict[str, Any], path: str) -> dict[str, Any]:
    found = wire.get("parameters")
    return {} if found is None else dict(mapping(found, path))


def _tensor_to_wire(tensor: Tensor, raws: list[bytes], *, binary: bool) -> dict[str, object]:
    wire: dict[str, object] = {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "datatype": tensor.datatype,
    }
    if binary:
        raw = pack(tensor)
        raws.append(raw)
        wire["parameters"] = {_SIZE: len(raw)}
    elif tensor.datatype in _NOT_IN_JSON:
        raise LLMInvalidRequestError(
            f"tensor {tensor.name!r} is {tensor.datatype}, which goes as binary data only",
            param=tensor.name,
        )
    else:
        wire["data"] = to_json(tensor)
    return wire


def _infos(wire: Any) -> tuple[TensorInfo, ...]:
    if not isinstance(wire, list):
        return ()
    found = []
    for each in wire:
        try:
            found.append(
                TensorInfo(
                    name=str(each["name"]),
                    datatype=str(each["datatype"]),
                    shape=tuple(int(size) for size in each["shape"]),
                )
            )
        except (KeyError, TypeError, ValueError) as error:
            raise LLMBadResponseError(
                f"A tensor's metadata have name, datatype and shape, but this is {shorten(each)}."
            ) from error
    return tuple(found)


def _info_to_wire(info: TensorInfo) -> dict[str, object]:
    return {"name": info.name, "datatype": info.datatype, "shape": list(info.shape)}


def _refuse_unknown(wire: dict[str, Any], known: Sequence[str], path: str) -> None:
    for name in wire:
        if name not in known:
            _unknown(f"{path}.{name}" if path else name, name, known)


def _unknown(path: str, name: str, known: Sequence[str]) -> NoReturn:
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    raise LLMInvalidRequestError(
        f"there is no field {path[:100]!r}; {hint}", param=path[:100], code="unknown_parameter"
    )
