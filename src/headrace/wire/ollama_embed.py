"""Ollama's embeddings: texts in, one vector for each out; and the older form, of one text.

https://docs.ollama.com/api/embed
"""

from __future__ import annotations

import math
from array import array
from typing import Any

from attrs import frozen
from msgspec import DecodeError, Struct, json

from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMCapabilityError,
    LLMInvalidRequestError,
)
from headrace.contracts.requests import EmbeddingRequest
from headrace.contracts.responses import EmbeddingResult, Usage
from headrace.wire.json import bad_reply, decode_object, decode_reply, encode
from headrace.wire.ollama_errors import error_from_wire, read_error, write_error
from headrace.wire.ollama_settings import ROWS as SETTINGS
from headrace.wire.ollama_settings import RUNNING, SAMPLING
from headrace.wire.openai_embeddings import MOST_INPUTS, numbers
from headrace.wire.openai_fields import (
    Check,
    integer,
    refuse,
    refuse_absence,
    refuse_type,
    says,
    text,
)
from headrace.wire.openai_params import read_settings

__all__ = [
    "OWN_FIELDS",
    "read_error",
    "read_old_request",
    "read_request",
    "read_response",
    "write_error",
    "write_old_response",
    "write_request",
    "write_response",
]

OWN_FIELDS = frozenset({"keep_alive", "options", "truncate"})
"""Fields that only Ollama has something to do for: a backend of another format answers without."""

_RIGHT = "a text, or an array of texts"


@says(
    {
        "anyOf": [
            {"type": "string"},
            {"type": "array", "minItems": 1, "maxItems": MOST_INPUTS, "items": {"type": "string"}},
        ]
    }
)
def _inputs(value: Any, path: str) -> tuple[str, ...]:
    if type(value) is str:
        return (value,)
    if type(value) is not list:
        refuse_type(path, value, _RIGHT)
    if not 1 <= len(value) <= MOST_INPUTS:
        refuse(path, value, f"an array of 1 to {MOST_INPUTS} texts")
    return tuple(text(each, f"{path}[{i}]") for i, each in enumerate(value))


_SHARED: dict[str, tuple[str, Check]] = {
    name: (name, SETTINGS[name][1]) for name in ("model", "keep_alive", "options", "truncate")
}
ROWS: dict[str, tuple[str, Check]] = {
    **_SHARED,
    "input": ("inputs", _inputs),
    "dimensions": ("dimensions", integer(0, 2**31 - 1)),
}
OLD_ROWS: dict[str, tuple[str, Check]] = {**_SHARED, "prompt": ("prompt", text)}
"""Wire name to our name and the check, for every field that has a meaning of its own."""


@frozen(kw_only=True)
class Inbound:
    """A caller's request."""

    request: EmbeddingRequest


def read_request(body: bytes) -> Inbound:
    """The request in a caller's ``body``, or LLMInvalidRequestError naming the field."""
    known, options = _read(body, ROWS)
    if "inputs" not in known:
        refuse_absence("input", _RIGHT)
    # 0 is what it is where nobody asks for a number.
    known["dimensions"] = known.get("dimensions") or None
    return Inbound(request=EmbeddingRequest(provider_options=options, **known))


def read_old_request(body: bytes) -> Inbound:
    """As ``read_request``, in the older form."""
    known, options = _read(body, OLD_ROWS)
    if "prompt" not in known:
        refuse_absence("prompt", "a text")
    known["inputs"] = (known.pop("prompt"),)
    return Inbound(request=EmbeddingRequest(provider_options=options, **known))


def write_request(request: EmbeddingRequest, *, model: str | None = None) -> bytes:
    """``request`` as a body for a backend that knows the request's model as ``model``."""
    if not request.inputs:
        raise LLMInvalidRequestError(
            "An embedding request needs at least one input.", param="input"
        )
    if not all(isinstance(each, str) for each in request.inputs):
        raise LLMCapabilityError("Ollama takes inputs as texts, not as token ids.", param="input")
    body: dict[str, Any] = {"model": model or request.model, "input": list(request.inputs)}
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    settings: dict[str, Any] = {}
    for name, value in request.provider_options.items():
        if name in RUNNING or name in SAMPLING:
            settings[name] = value
        else:
            body[name] = value
    if settings:
        own = body.get("options")
        body["options"] = {**settings, **own} if isinstance(own, dict) else settings
    return encode(body)


class _AnswerWire(Struct, gc=False):
    model: str | None = None
    embeddings: list[list[float]] | None = None
    prompt_eval_count: int | None = None
    error: Any = None


_decode = json.Decoder(_AnswerWire).decode


def read_response(body: bytes) -> EmbeddingResult:
    """The vectors in a backend's answer, in the order of the inputs."""
    try:
        answer = _decode(body)
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_reply(body, error) from error
    if answer.error:
        raise error_from_wire(None, decode_reply(body))
    if not answer.embeddings:
        raise LLMBadResponseError("The backend's answer has no vectors in 'embeddings'.")
    for index, vector in enumerate(answer.embeddings):
        if not vector or not all(map(math.isfinite, vector)):
            what = "has a number that is not finite" if vector else "is empty"
            raise LLMBadResponseError(f"Embedding {index} in the backend's answer {what}.")
    if len({len(vector) for vector in answer.embeddings}) > 1:
        raise LLMBadResponseError("The backend's answer has embeddings of different lengths.")
    count = answer.prompt_eval_count
    usage = None if count is None else Usage(prompt_tokens=count, total_tokens=count)
    return EmbeddingResult(
        vectors=[array("d", vector) for vector in answer.embeddings],
        model_id=answer.model,
        usage=usage,
    )


def write_response(
    result: EmbeddingResult, *, model: str | None = None, total_duration: int | None = None
) -> bytes:
    """``result`` as a body; ``model`` replaces what it says itself. The time is in nanoseconds."""
    wire: dict[str, Any] = {
        "model": model or result.model_id or "",
        "embeddings": [numbers(vector) for vector in result.vectors],
    }
    if total_duration is not None:
        wire["total_duration"] = total_duration
    if result.usage is not None and result.usage.prompt_tokens is not None:
        wire["prompt_eval_count"] = result.usage.prompt_tokens
    return encode(wire)


def write_old_response(result: EmbeddingResult) -> bytes:
    """The only vector of ``result`` as a body of the older form."""
    return encode({"embedding": numbers(result.vectors[0])})


def _read(body: bytes, rows: dict[str, tuple[str, Check]]) -> tuple[dict[str, Any], dict[str, Any]]:
    known, options = read_settings(decode_object(body), rows)
    if "model" not in known:
        refuse_absence("model", "the model's name")
    for name in OWN_FIELDS:
        if name in known:
            options[name] = known.pop(name)
    return known, options
