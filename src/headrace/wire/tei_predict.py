"""TEI's ``/predict``: texts, or pairs of texts, put in classes, each way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen
from msgspec import DecodeError, Struct, json

from headrace.contracts.errors import LLMBadResponseError, LLMInvalidRequestError
from headrace.contracts.ranking import ClassificationRequest, ClassificationResult, LabelScore
from headrace.wire.hf_errors import read_error, status_of
from headrace.wire.json import bad_reply, decode_object, encode
from headrace.wire.openai_fields import (
    Check,
    array,
    refuse,
    refuse_absence,
    refuse_type,
    says,
    text,
)
from headrace.wire.openai_params import read_settings
from headrace.wire.rerank import MOST_DOCUMENTS
from headrace.wire.tei import options_in, usage_from_headers, write_error
from headrace.wire.tei_rerank import COMMON, settings_of

__all__ = [
    "ALWAYS",
    "CARRIES",
    "read_error",
    "read_request",
    "read_response",
    "status_of",
    "usage_from_headers",
    "write_error",
    "write_request",
    "write_response",
]

CARRIES = frozenset({"truncate", "raw_scores"})
"""The settings that it takes."""

ALWAYS: Mapping[str, object] = {}
"""What it does without being asked."""


@frozen(kw_only=True)
class Inbound:
    """A caller's request for classes; ``is_batch`` says that the answer has a list for each text."""

    request: ClassificationRequest
    is_batch: bool


_ONE = "a text, or a pair of texts"
_RIGHT = "a text, a pair of texts, or an array of arrays of one text or two"


@says(
    {
        "anyOf": [
            {"type": "string"},
            {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "string"}},
            {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 2,
                    "items": {"type": "string"},
                },
            },
        ]
    }
)
def _predicted(value: Any, path: str) -> tuple[tuple[str | tuple[str, str], ...], bool]:
    if type(value) is str:
        return (value,), False
    if type(value) is not list:
        refuse_type(path, value, _RIGHT)
    if not value:
        refuse(path, value, _RIGHT)
    if type(value[0]) is not list:
        return (_sequence(value, path),), False
    if len(value) > MOST_DOCUMENTS:
        refuse(path, value, f"at most {MOST_DOCUMENTS} inputs")
    return tuple(_sequence(each, f"{path}[{i}]") for i, each in enumerate(value)), True


def _sequence(value: Any, path: str) -> str | tuple[str, str]:
    texts = [text(each, f"{path}[{i}]") for i, each in enumerate(array(value, path))]
    if len(texts) == 1:
        return texts[0]
    if len(texts) != 2:
        refuse(path, value, _ONE)
    return (texts[0], texts[1])


ROWS: dict[str, tuple[str, Check]] = {"inputs": ("inputs", _predicted), **COMMON}


def read_request(body: bytes) -> Inbound:
    """The classes that a caller's ``body`` asks for, or LLMInvalidRequestError naming the field."""
    return read_fields(decode_object(body))


def read_fields(wire: dict[str, Any]) -> Inbound:
    """The classes that a body asks for, which was decoded already."""
    known, unknown = read_settings(wire, ROWS)
    if "inputs" not in known:
        refuse_absence("inputs", _RIGHT)
    texts, is_batch = known.pop("inputs")
    truncate = known.get("truncate")
    options = {**unknown, **options_in(known)}
    options.pop("truncate", None)
    request = ClassificationRequest(
        inputs=texts, provider_options=options, truncate=truncate, **known
    )
    return Inbound(request=request, is_batch=is_batch)


def write_request(request: ClassificationRequest, *, model: str | None = None) -> bytes:
    """``request`` as a body, always as a batch."""
    if not request.inputs:
        raise LLMInvalidRequestError("There are no inputs to put in classes.", param="inputs")
    batch = [[each] if isinstance(each, str) else each for each in request.inputs]
    body: dict[str, object] = {"inputs": batch}
    return encode(body | settings_of(request, model) | request.provider_options)


class _Prediction(Struct, gc=False):
    label: str
    score: float


_decode: Any = json.Decoder(list[list[_Prediction]]).decode


def read_response(body: bytes) -> ClassificationResult:
    """The classes in a backend's answer to a batch, in input order."""
    try:
        batch = _decode(body)
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_reply(body, error) from error
    if not all(batch):
        raise LLMBadResponseError("The backend's answer has no class for one of the inputs.")
    labels = tuple(
        tuple(LabelScore(label=each.label, score=each.score) for each in one) for one in batch
    )
    return ClassificationResult(labels=labels)


def write_response(result: ClassificationResult, *, is_batch: bool) -> bytes:
    """``result`` as a body."""
    batch = [[{"score": each.score, "label": each.label} for each in one] for one in result.labels]
    return encode(batch if is_batch else batch[0])
