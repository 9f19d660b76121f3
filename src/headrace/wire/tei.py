"""Hugging Face's Text Embeddings Inference: vectors of texts, and how alike they are, each way.

https://huggingface.co/docs/text-embeddings-inference (``/embed``, ``/similarity``). The model's name is
no field of TEI's, which serves one; it passes over what it does not know, so we write it for those that
serve several. What a call used stands in the answer's headers.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen
from msgspec import DecodeError, Raw, json

from headrace.contracts.errors import LLMBadResponseError, LLMError, LLMInvalidRequestError
from headrace.contracts.requests import EmbeddingRequest
from headrace.contracts.responses import EmbeddingResult, Usage
from headrace.wire import hf_errors
from headrace.wire.hf_errors import read_error, status_of
from headrace.wire.json import bad_reply, decode_object, decode_reply, encode
from headrace.wire.openai_fields import (
    Check,
    boolean,
    integer,
    mapping,
    member,
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
    "LOSSES",
    "STREAM_TYPE",
    "read_error",
    "read_request",
    "read_response",
    "status_of",
    "usage_from_headers",
    "write_error",
    "write_request",
    "write_response",
]

STREAM_TYPE = "application/json"
"""There are no streams."""

LOSSES: Mapping[str, str] = {}
"""There are no conversations either."""

MOST_INPUTS = 2048
"""How many inputs one request may have, and how many token ids one input."""

TOKENS_HEADER = "x-compute-tokens"
_RIGHT = "a string, an array of token ids, or an array of either"
_token_id = integer(0, 2**31 - 1)
_tokens_schema = {"type": "array", "minItems": 1, "items": schema_of(_token_id)}
_input_schema = {"anyOf": [{"type": "string"}, _tokens_schema]}


@says({"anyOf": [_input_schema, {"type": "array", "minItems": 1, "items": _input_schema}]})
def inputs(value: Any, path: str) -> tuple[str | tuple[int, ...], ...]:
    """Texts, or token ids of the model's own; one or many."""
    if type(value) is str:
        return (value,)
    if type(value) is not list:
        refuse_type(path, value, _RIGHT)
    if not 1 <= len(value) <= MOST_INPUTS:
        refuse(path, value, f"1 to {MOST_INPUTS} inputs")
    if type(value[0]) is int or type(value[0]) is float:
        return (_tokens(value, path),)
    return tuple(
        each if type(each) is str else _tokens(each, f"{path}[{i}]") for i, each in enumerate(value)
    )


def _tokens(value: Any, path: str) -> tuple[int, ...]:
    if type(value) is not list:
        refuse_type(path, value, "a string or an array of token ids")
    if not 1 <= len(value) <= MOST_INPUTS:
        refuse(path, value, f"an array of 1 to {MOST_INPUTS} token ids")
    return tuple(_token_id(each, f"{path}[{i}]") for i, each in enumerate(value))


@says({"type": "string", "enum": ["left", "right", "Left", "Right"]})
def direction(value: Any, path: str) -> str:
    """From which end a text that is too long is cut, as TEI writes it."""
    if text(value, path).lower() not in ("left", "right"):
        refuse(path, value, "'left' or 'right'")
    return str(value).capitalize()


TRUNCATION: dict[str, tuple[str, Check]] = {
    "truncate": ("truncate", boolean),
    "truncation_direction": ("truncation_direction", direction),
}
ROWS: dict[str, tuple[str, Check]] = {
    "inputs": ("inputs", inputs),
    "model": ("model", text),
    "dimensions": ("dimensions", integer(1, 2**31 - 1)),
    "normalize": ("normalize", boolean),
    "prompt_name": ("prompt_name", text),
    # Hugging Face's client may ask for it; TEI knows no other.
    "encoding_format": ("encoding", one_of("float")),
    **TRUNCATION,
}
OPTIONS = ("normalize", "prompt_name", *TRUNCATION)
"""Settings that are in no other format of embeddings."""

NEUTRAL: Mapping[str, object] = {
    "normalize": True,
    "truncate": False,
    "truncation_direction": "Right",
}
"""The values under which an option asks for what is done anyway."""


def options_in(known: dict[str, Any]) -> dict[str, object]:
    """Those of the options in ``known`` that ask for something; they are taken out of it."""
    options: dict[str, object] = {}
    for name in OPTIONS:
        value = known.pop(name, None)
        if value is not None and value != NEUTRAL.get(name):
            options[name] = value
    return options


def read_request(body: bytes) -> EmbeddingRequest:
    """The request in a caller's ``body``, or LLMInvalidRequestError naming the field."""
    return read_fields(decode_object(body))


def read_fields(wire: dict[str, Any]) -> EmbeddingRequest:
    """The request in a body that was decoded already."""
    known, unknown = read_settings(wire, ROWS)
    if "inputs" not in known:
        refuse_absence("inputs", _RIGHT)
    known.pop("encoding", None)
    options = options_in(known)
    return EmbeddingRequest(provider_options={**unknown, **options}, **known)


def write_request(request: EmbeddingRequest, *, model: str | None = None) -> bytes:
    """``request`` as a body for a backend that knows the request's model as ``model``."""
    if not request.inputs:
        raise LLMInvalidRequestError("There are no inputs to make vectors of.", param="inputs")
    body: dict[str, object] = {"inputs": request.inputs}
    for name, value in (
        ("model", model or request.model),
        ("dimensions", request.dimensions),
    ):
        if value is not None:
            body[name] = value
    return encode(body | request.provider_options)


_decode: Any = json.Decoder(list[list[float]]).decode


def read_response(body: bytes) -> EmbeddingResult:
    """The vectors in a backend's answer, in the order of the inputs."""
    try:
        vectors = _decode(body)
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_reply(body, error) from error
    found = [array("d", vector) for vector in vectors]
    for index, vector in enumerate(found):
        if not vector or not all(map(math.isfinite, vector)):
            what = "has a number that is not finite" if vector else "is empty"
            raise LLMBadResponseError(f"Embedding {index} in the backend's answer {what}.")
    if len({len(vector) for vector in found}) != 1:
        raise LLMBadResponseError("The backend's answer has no embeddings, or of several lengths.")
    return EmbeddingResult(vectors=found)


def write_response(result: EmbeddingResult) -> bytes:
    """``result`` as a body."""
    return encode([_to_numbers(vector) for vector in result.vectors])


def usage_from_headers(headers: Mapping[str, str]) -> Usage | None:
    """The tokens that an answer's headers tell of."""
    told = headers.get(TOKENS_HEADER, "")
    if not told.isdigit():
        return None
    return Usage(prompt_tokens=int(told[:18]), total_tokens=int(told[:18]))


def usage_to_headers(usage: Usage | None) -> list[tuple[bytes, bytes]]:
    """The headers that tell of ``usage``."""
    if usage is None or usage.prompt_tokens is None:
        return []
    return [(TOKENS_HEADER.encode(), str(usage.prompt_tokens).encode())]


def write_error(error: LLMError) -> bytes:
    """``error`` as a body of TEI's form."""
    return hf_errors.write_error(error, hf_errors.TEI)


@frozen(kw_only=True)
class Similarity:
    """A sentence, and others to be compared with it by the vectors that ``request`` asks for, of
    which the sentence's is the first."""

    request: EmbeddingRequest


def read_similarity(wire: dict[str, Any]) -> Similarity:
    """A request to tell how alike sentences are, which was decoded already."""
    if wire.get("inputs") is None:
        refuse_absence("inputs", "an object with 'source_sentence' and 'sentences'")
    asked = mapping(wire["inputs"], "inputs")
    one = member(asked, "source_sentence", "inputs", text, "a text")
    others = asked.get("sentences")
    if others is None:
        refuse_absence("inputs.sentences", "an array of texts")
    if type(others) is not list:
        refuse_type("inputs.sentences", others, "an array of texts")
    if not 1 <= len(others) < MOST_INPUTS:
        refuse("inputs.sentences", others, f"1 to {MOST_INPUTS - 1} texts")
    texts = [text(each, f"inputs.sentences[{i}]") for i, each in enumerate(others)]
    given = wire.get("parameters")
    rows = {name: ROWS[name] for name in ("prompt_name", *TRUNCATION)}
    inside = {} if given is None else mapping(given, "parameters")
    known, unknown = read_settings(dict(inside), rows)
    model = wire.get("model")
    return Similarity(
        request=EmbeddingRequest(
            inputs=(one, *texts),
            model=None if model is None else text(model, "model"),
            provider_options={**unknown, **options_in(known)},
        )
    )


def write_similarity_request(
    sentence: str, others: Sequence[str], *, model: str | None = None
) -> bytes:
    """A body that asks how alike ``sentence`` is to each of the ``others``."""
    body: dict[str, object] = {"inputs": {"source_sentence": sentence, "sentences": others}}
    return encode(body if model is None else body | {"model": model})


def read_similarities(body: bytes) -> tuple[float, ...]:
    """How alike the sentences are, by a backend's answer."""
    found = decode_reply(body)
    if not isinstance(found, list) or not all(isinstance(each, int | float) for each in found):
        raise LLMBadResponseError("The backend's answer is no array of similarities.")
    return tuple(map(float, found))


def _to_numbers(vector: Sequence[float]) -> object:
    if not (isinstance(vector, array) and vector.typecode == "f"):
        return list(vector)
    # Nine digits tell any two 32-bit floats apart; as doubles they would be written with seventeen.
    return Raw(f"[{','.join(map('%.9g'.__mod__, vector))}]".encode())
