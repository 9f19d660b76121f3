"""OpenAI's embeddings: texts or token ids in, one vector for each out.

https://platform.openai.com/docs/api-reference/embeddings. Vectors travel as lists of numbers or as
base64 of little-endian 32-bit floats, which is a quarter of the size and exact.
"""

from __future__ import annotations

import binascii
import math
import sys
from array import array
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from attrs import frozen
from msgspec import DecodeError, Raw, Struct, json

from headrace.contracts.errors import LLMBadResponseError, LLMInvalidRequestError
from headrace.contracts.requests import EmbeddingRequest
from headrace.contracts.responses import EmbeddingResult
from headrace.wire.json import bad_reply, decode_object, encode
from headrace.wire.openai_answers import UsageWire, usage_from_wire, usage_to_wire
from headrace.wire.openai_errors import error_from_wire, read_error, write_error
from headrace.wire.openai_fields import (
    Check,
    filled_text,
    integer,
    one_of,
    refuse,
    refuse_absence,
    refuse_type,
    says,
    schema_of,
    text,
)
from headrace.wire.openai_params import read_settings

__all__ = [
    "numbers",
    "read_error",
    "read_request",
    "read_response",
    "write_error",
    "write_request",
    "write_response",
]

Encoding: TypeAlias = Literal["float", "base64"]
Input: TypeAlias = str | tuple[int, ...]

MOST_INPUTS = 2048
"""How many inputs one request may have, and how many token ids one input."""

_RIGHT = "a string, an array of token ids, or an array of either"
_token_id = integer(0, 2**31 - 1)
_tokens_schema = {
    "type": "array",
    "minItems": 1,
    "maxItems": MOST_INPUTS,
    "items": schema_of(_token_id),
}


@says(
    {
        "anyOf": [
            {"type": "string", "minLength": 1},
            {
                "type": "array",
                "minItems": 1,
                "maxItems": MOST_INPUTS,
                "items": {"type": "string", "minLength": 1},
            },
            _tokens_schema,
            {
                "type": "array",
                "minItems": 1,
                "maxItems": MOST_INPUTS,
                "items": _tokens_schema,
            },
        ]
    }
)
def _inputs(value: Any, path: str) -> tuple[Input, ...]:
    if type(value) is str:
        return (filled_text(value, path),)
    if type(value) is not list:
        refuse_type(path, value, _RIGHT)
    if not value:
        refuse(path, value, "at least one input")
    if len(value) > MOST_INPUTS:
        refuse(path, value, f"at most {MOST_INPUTS} entries")
    if type(value[0]) is int or type(value[0]) is float:
        return (_tokens(value, path),)
    return tuple(
        filled_text(each, f"{path}[{i}]") if type(each) is str else _tokens(each, f"{path}[{i}]")
        for i, each in enumerate(value)
    )


def _tokens(value: Any, path: str) -> tuple[int, ...]:
    if type(value) is not list:
        refuse_type(path, value, "a string or an array of token ids")
    if not 1 <= len(value) <= MOST_INPUTS:
        refuse(path, value, f"an array of 1 to {MOST_INPUTS} token ids")
    return tuple(_token_id(each, f"{path}[{i}]") for i, each in enumerate(value))


ROWS: dict[str, tuple[str, Check]] = {
    "input": ("inputs", _inputs),
    "model": ("model", text),
    "dimensions": ("dimensions", integer(1, 2**31 - 1)),
    "encoding_format": ("encoding", one_of("float", "base64")),
    "user": ("user", text),
}


@frozen(kw_only=True)
class Inbound:
    """A caller's request, and how the vectors are to be written in its answer."""

    request: EmbeddingRequest
    encoding: Encoding = "float"


def read_request(body: bytes) -> Inbound:
    """The request in a caller's ``body``, or LLMInvalidRequestError naming the field."""
    known, options = read_settings(decode_object(body), ROWS)
    if "inputs" not in known:
        refuse_absence("input", _RIGHT)
    encoding: Encoding = known.pop("encoding", "float")
    return Inbound(request=EmbeddingRequest(provider_options=options, **known), encoding=encoding)


def write_request(
    request: EmbeddingRequest, *, model: str | None = None, encoding: Encoding = "base64"
) -> bytes:
    """``request`` as a body for a backend that knows the request's model as ``model``."""
    if not request.inputs:
        raise LLMInvalidRequestError(
            "An embedding request needs at least one input.", param="input"
        )
    body: dict[str, object] = {"input": _inputs_to_wire(request.inputs)}
    for name, value in (
        ("model", model or request.model),
        ("dimensions", request.dimensions),
        ("user", request.user),
    ):
        if value is not None:
            body[name] = value
    body["encoding_format"] = encoding
    return encode(body | request.provider_options)


def _inputs_to_wire(inputs: Sequence[Input]) -> object:
    # A text alone is written as such; token ids alone as a list of one list, since some servers
    # take a flat list of numbers for something else.
    return inputs[0] if len(inputs) == 1 and isinstance(inputs[0], str) else inputs


class _EmbeddingWire(Struct, gc=False):
    embedding: str | list[float]
    index: int | None = None


class _AnswerWire(Struct, gc=False):
    data: list[_EmbeddingWire] | None = None
    model: str | None = None
    usage: UsageWire | None = None
    error: Any = None


_decode = json.Decoder(_AnswerWire).decode


def read_response(body: bytes) -> EmbeddingResult:
    """The vectors in a backend's answer, in the order of the inputs.

    Each is an array of 32-bit floats where it came as base64, else of doubles.
    """
    try:
        answer = _decode(body)
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_reply(body, error) from error
    if answer.error:
        raise error_from_wire(None, {"error": answer.error})
    if not answer.data:
        raise LLMBadResponseError("The backend's answer has no embeddings in 'data'.")
    vectors: list[array[float] | None] = [None] * len(answer.data)
    for place, each in enumerate(answer.data):
        index = place if each.index is None else each.index
        if not 0 <= index < len(vectors) or vectors[index] is not None:
            raise LLMBadResponseError(
                f"The backend's answer has {len(vectors)} embeddings, but one with index {index} "
                f"{'twice' if 0 <= index < len(vectors) else 'among them'}."
            )
        vectors[index] = _vector(each.embedding, index)
    found = [vector for vector in vectors if vector is not None]
    if len({len(vector) for vector in found}) > 1:
        raise LLMBadResponseError("The backend's answer has embeddings of different lengths.")
    return EmbeddingResult(
        vectors=found, model_id=answer.model, usage=usage_from_wire(answer.usage)
    )


def write_response(
    result: EmbeddingResult, *, model: str | None = None, encoding: Encoding = "float"
) -> bytes:
    """``result`` as a body; ``model`` replaces what the result itself says."""
    write = _to_base64 if encoding == "base64" else numbers
    wire: dict[str, object] = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": write(vector)}
            for index, vector in enumerate(result.vectors)
        ],
        "model": model or result.model_id or "",
    }
    usage = usage_to_wire(result.usage)
    if usage is not None:
        # An embedding has no output tokens, and OpenAI's answer no place for them.
        usage.pop("completion_tokens", None)
        if "prompt_tokens" in usage:
            usage.setdefault("total_tokens", usage["prompt_tokens"])
        wire["usage"] = usage
    return encode(wire)


def _vector(wire: str | list[float], index: int) -> array[float]:
    if isinstance(wire, str):
        try:
            vector = array("f", b64decode(wire, validate=True))
        except (binascii.Error, ValueError) as error:
            raise LLMBadResponseError(
                f"Embedding {index} in the backend's answer is no base64 of 32-bit floats: {error}."
            ) from error
        if sys.byteorder == "big":
            vector.byteswap()
    else:
        vector = array("d", wire)
    if not vector or not all(map(math.isfinite, vector)):
        what = "has a number that is not finite" if vector else "is empty"
        raise LLMBadResponseError(f"Embedding {index} in the backend's answer {what}.")
    return vector


def _to_base64(vector: Sequence[float]) -> str:
    floats = vector if isinstance(vector, array) and vector.typecode == "f" else array("f", vector)
    if sys.byteorder == "big":
        floats = array("f", floats)
        floats.byteswap()
    return b64encode(floats.tobytes()).decode("ascii")


def numbers(vector: Sequence[float]) -> object:
    """``vector`` as a list of numbers, none with more digits than it has."""
    if not (isinstance(vector, array) and vector.typecode == "f"):
        return list(vector)
    # Nine digits tell any two 32-bit floats apart; as doubles they would be written with seventeen.
    return Raw(f"[{','.join(map('%.9g'.__mod__, vector))}]".encode())
