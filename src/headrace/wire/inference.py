"""Models behind plain HTTP: any JSON value in, one out, at ``/models/{id}/infer``.

``{"input": x}`` is answered by ``{"output": y}``; ``{"inputs": [...]}``, each a question of its own, by
``{"outputs": [...], "errors": [...]}``, where an input that could not be answered has null among the
outputs and stands among the errors by its index. ``parameters`` are the model's own and hold for all.
Model lists and errors are in OpenAI's form.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from attrs import frozen

from headrace.contracts.convert import from_plain, to_plain
from headrace.contracts.errors import LLMBadResponseError, LLMInvalidRequestError
from headrace.contracts.inference import (
    InferProblem,
    InferRequest,
    InferResult,
    ModelStatistics,
    Tensor,
)
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMResponse
from headrace.wire.json import decode_object, decode_reply, encode, kind
from headrace.wire.openai_errors import read_error, write_error
from headrace.wire.openai_fields import array, mapping, refuse, refuse_absence
from headrace.wire.openai_params import COMMON, write_settings

__all__ = [
    "FunctionInfo",
    "completion_to_values",
    "read_error",
    "read_infer",
    "read_result",
    "read_statistics",
    "values_to_response",
    "write_error",
    "write_infer",
    "write_model",
    "write_models",
    "write_result",
    "write_statistics",
]

MOST_INPUTS = 1024
"""How many inputs one request may have."""

_KNOWN = ("input", "inputs", "parameters", "model")


@frozen(kw_only=True)
class FunctionInfo:
    """A model as it is listed: what it is for, and the parameters that it takes (``None``: any)."""

    model_id: str
    created: int = 0
    description: str = ""
    parameters: tuple[str, ...] | None = ()


def read_infer(body: bytes, *, model: str | None = None) -> InferRequest:
    """The request in a caller's ``body``, or LLMInvalidRequestError naming the field."""
    wire = decode_object(body)
    for name in wire:
        if name not in _KNOWN:
            near = get_close_matches(name, _KNOWN, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(_KNOWN)}"
            raise LLMInvalidRequestError(
                f"there is no field {name[:100]!r}; {hint}",
                param=name[:100],
                code="unknown_parameter",
            )
    parameters = wire.get("parameters")
    given = {} if parameters is None else dict(mapping(parameters, "parameters"))
    single = "input" in wire
    if single == ("inputs" in wire):
        if single:
            refuse("inputs", wire["inputs"], "either 'input' or 'inputs', not both")
        refuse_absence("input", "any value, or 'inputs', an array of them")
    inputs = (wire["input"],) if single else tuple(array(wire["inputs"], "inputs"))
    if not 1 <= len(inputs) <= MOST_INPUTS:
        refuse("inputs", wire.get("inputs"), f"1 to {MOST_INPUTS} values")
    return InferRequest(inputs=inputs, model=model, parameters=given, single=single)


def write_infer(request: InferRequest, *, binary: bool = False) -> tuple[bytes, None]:
    """``request`` as a body; there are no raw bytes behind it."""
    for each in request.inputs:
        if isinstance(each, Tensor):
            raise LLMInvalidRequestError(
                f"input {each.name!r} is a tensor, but the backend takes plain values",
                param="inputs",
            )
    if request.outputs or request.version is not None:
        name = "outputs" if request.outputs else "version"
        raise LLMInvalidRequestError(
            f"{name!r} was given, but models that are asked by values have none", param=name
        )
    body: dict[str, object] = (
        {"input": request.inputs[0]} if request.single else {"inputs": list(request.inputs)}
    )
    if request.parameters:
        body["parameters"] = request.parameters
    return encode(body), None


def read_result(body: bytes, header_length: str | None = None) -> InferResult:
    """The outputs in a server's answer, or LLMBadResponseError."""
    wire = decode_reply(body)
    if not isinstance(wire, dict) or ("output" in wire) == ("outputs" in wire):
        raise LLMBadResponseError("The backend's answer has neither 'output' nor 'outputs'.")
    model = wire.get("model")
    model_id = model if isinstance(model, str) else None
    if "output" in wire:
        return InferResult(outputs=(wire["output"],), model_id=model_id)
    outputs = wire["outputs"]
    if not isinstance(outputs, list):
        raise LLMBadResponseError(f"The backend's 'outputs' are {kind(outputs)}, no array.")
    return InferResult(
        outputs=tuple(outputs),
        model_id=model_id,
        problems=tuple(_problem(each, len(outputs)) for each in wire.get("errors") or ()),
    )


def write_result(result: InferResult, *, single: bool) -> bytes:
    """``result`` as a body; ``single`` where one ``input`` was asked about."""
    if single:
        return encode({"model": result.model_id, "output": result.outputs[0]})
    errors = [{"index": each.index, "message": each.message} for each in result.problems]
    return encode({"model": result.model_id, "outputs": list(result.outputs), "errors": errors})


def write_models(models: Iterable[FunctionInfo]) -> bytes:
    """A list of ``models``."""
    return encode({"object": "list", "data": [_info_to_wire(each) for each in models]})


def write_model(model: FunctionInfo) -> bytes:
    """``model`` as a body."""
    return encode(_info_to_wire(model))


def read_statistics(body: bytes) -> ModelStatistics:
    """What a server tells of a model."""
    try:
        return from_plain(decode_reply(body), ModelStatistics)
    except LLMInvalidRequestError as error:
        raise LLMBadResponseError(f"The backend's statistics: {error}") from error


def write_statistics(statistics: ModelStatistics) -> bytes:
    """``statistics`` as a body."""
    return encode(to_plain(statistics))


def completion_to_values(request: LLMRequest) -> InferRequest:
    """A text completion as a question about one value, its settings as parameters."""
    if not isinstance(request.prompt, str):
        raise LLMInvalidRequestError(
            "the backend takes a text, and no token ids: send the prompt as text", param="prompt"
        )
    settings = write_settings(request, None, COMMON)
    settings.pop("model", None)
    return InferRequest(
        inputs=(request.prompt,),
        model=request.model,
        parameters=settings | request.provider_options,
        single=True,
        metadata=request.metadata,
        request_id=request.request_id,
    )


def values_to_response(result: InferResult) -> LLMResponse:
    """The one output as a text: itself, or its JSON."""
    (output,) = result.outputs
    text = output if isinstance(output, str) else encode(output).decode()
    return LLMResponse(text=text, model=result.model_id, finish_reason="stop")


def _problem(wire: Any, count: int) -> InferProblem:
    index = wire.get("index") if isinstance(wire, dict) else None
    if type(index) is not int or not 0 <= index < count:
        raise LLMBadResponseError("An error in the backend's answer has no 'index' of an input.")
    return InferProblem(index=index, message=str(wire.get("message") or ""))


def _info_to_wire(model: FunctionInfo) -> dict[str, object]:
    return {
        "id": model.model_id,
        "object": "model",
        "created": model.created,
        "owned_by": "headrace",
        "description": model.description,
        "parameters": None if model.parameters is None else list(model.parameters),
    }
