"""Gemini's embeddings: one content, or several requests of one content each; a vector for each.

https://ai.google.dev/api/embeddings. Backends are always asked for several: that is the general
case, and the answer has the same form for one.
"""

from __future__ import annotations

import math
from array import array as floats_of
from collections.abc import Sequence
from typing import Any

from attrs import frozen
from msgspec import DecodeError, Raw, Struct, json

from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMCapabilityError,
    LLMInvalidRequestError,
)
from headrace.contracts.messages import TextPart
from headrace.contracts.requests import EmbeddingRequest
from headrace.contracts.responses import EmbeddingResult, Usage
from headrace.wire.gemini_contents import system_from_wire
from headrace.wire.gemini_errors import error_from_wire, read_error, write_error
from headrace.wire.gemini_names import renamed
from headrace.wire.json import bad_reply, decode_object, decode_reply, encode
from headrace.wire.openai_fields import (
    array,
    filled_text,
    integer,
    refuse,
    refuse_absence,
    text,
)

__all__ = [
    "read_error",
    "read_request",
    "read_response",
    "write_error",
    "write_request",
    "write_response",
]

OWN_FIELDS = frozenset({"taskType", "title"})
"""What Google's models make a difference of: a backend of another format answers without."""

MOST_INPUTS = 2048
_MODELS = "models/"
_KNOWN = OWN_FIELDS | {"model", "content", "outputDimensionality"}
_dimensions = integer(1, 2**31 - 1)


@frozen(kw_only=True)
class Inbound:
    """A caller's request; ``alone`` says that it was for one vector, not for a list of one."""

    request: EmbeddingRequest
    alone: bool = False


def read_request(body: bytes) -> Inbound:
    """The request for one vector in a caller's ``body``, or LLMInvalidRequestError."""
    inputs, settings = _one(decode_object(body), "")
    return Inbound(request=_request([inputs], settings), alone=True)


def read_batch_request(body: bytes) -> Inbound:
    """The request for several vectors in a caller's ``body``, or LLMInvalidRequestError.

    What they ask for beside their contents has to be the same for all.
    """
    wire = renamed(decode_object(body), "", ("requests", "model"))
    beyond = sorted(wire.keys() - {"requests", "model"})
    if beyond:
        refuse(beyond[0][:100], wire[beyond[0]], "'requests' alone")
    if wire.get("requests") is None:
        refuse_absence("requests", "an array of requests, each with a 'content'")
    listed = array(wire["requests"], "requests")
    if not 1 <= len(listed) <= MOST_INPUTS:
        refuse("requests", listed, f"1 to {MOST_INPUTS} requests")
    inputs: list[str] = []
    settings: dict[str, Any] = {}
    for i, each in enumerate(listed):
        said, own = _one(each, f"requests[{i}]")
        inputs.append(said)
        if i == 0:
            settings = own
        for name in sorted(settings.keys() | own.keys()):
            if own.get(name) != settings.get(name):
                right = "the same as in requests[0]: all are asked for together here"
                refuse(f"requests[{i}].{name}", own.get(name), right)
    return Inbound(request=_request(inputs, settings))


def write_request(request: EmbeddingRequest, *, model: str | None = None) -> bytes:
    """``request`` as a body for a backend that knows the request's model as ``model``."""
    if not request.inputs:
        raise LLMInvalidRequestError(
            "An embedding request needs at least one input.", param="input"
        )
    name = request.model if model is None else model
    more: dict[str, object] = {"model": f"{_MODELS}{name}", **request.provider_options}
    if request.dimensions is not None:
        more["outputDimensionality"] = request.dimensions
    wire = []
    for i, each in enumerate(request.inputs):
        if not isinstance(each, str):
            raise LLMCapabilityError(
                f"Gemini takes texts, and input {i} is token ids; send the text.", param="input"
            )
        wire.append({**more, "content": {"parts": [{"text": each}]}})
    return encode({"requests": wire})


class _VectorWire(Struct, gc=False):
    values: list[float] | None = None


class _UsageWire(Struct, gc=False):
    promptTokenCount: int | None = None


class _AnswerWire(Struct, gc=False):
    embeddings: list[_VectorWire] | None = None
    embedding: _VectorWire | None = None
    usageMetadata: _UsageWire | None = None
    error: Any = None


_decode = json.Decoder(_AnswerWire).decode


def read_response(body: bytes) -> EmbeddingResult:
    """The vectors in a backend's answer, in the order of the inputs; each an array of doubles."""
    try:
        answer = _decode(body)
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_reply(body, error) from error
    if answer.error:
        raise error_from_wire(None, decode_reply(body))
    listed = [answer.embedding] if answer.embedding is not None else answer.embeddings
    if not listed:
        raise LLMBadResponseError("The backend's answer has no 'embeddings'.")
    vectors = []
    for i, each in enumerate(listed):
        vector = floats_of("d", each.values or ())
        if not vector or not all(map(math.isfinite, vector)):
            what = "has a number that is not finite" if vector else "is empty"
            raise LLMBadResponseError(f"Embedding {i} in the backend's answer {what}.")
        vectors.append(vector)
    if len({len(vector) for vector in vectors}) > 1:
        raise LLMBadResponseError("The backend's answer has embeddings of different lengths.")
    count = None if answer.usageMetadata is None else answer.usageMetadata.promptTokenCount
    usage = None if count is None else Usage(prompt_tokens=count, total_tokens=count)
    return EmbeddingResult(vectors=vectors, usage=usage)


def write_response(result: EmbeddingResult, *, alone: bool = False) -> bytes:
    """``result`` as a body: of its one vector where it was asked for ``alone``."""
    vectors = [{"values": _numbers(vector)} for vector in result.vectors]
    wire: dict[str, object] = {"embedding": vectors[0]} if alone else {"embeddings": vectors}
    if result.usage is not None and result.usage.prompt_tokens is not None:
        wire["usageMetadata"] = {"promptTokenCount": result.usage.prompt_tokens}
    return encode(wire)


def _request(inputs: Sequence[str], settings: dict[str, Any]) -> EmbeddingRequest:
    model, dimensions = settings.pop("model", None), settings.pop("outputDimensionality", None)
    return EmbeddingRequest(
        inputs=tuple(inputs), model=model, dimensions=dimensions, provider_options=settings
    )


def _one(value: Any, path: str) -> tuple[str, dict[str, Any]]:
    """The text of one request, and what else it says."""
    wire = renamed(value, path, _KNOWN)
    at = f"{path}." if path else ""
    beyond = sorted(wire.keys() - _KNOWN)
    if beyond:
        refuse(f"{at}{beyond[0]}"[:100], wire[beyond[0]], f"one of {', '.join(sorted(_KNOWN))}")
    if wire.get("content") is None:
        refuse_absence(f"{at}content", "a content with a part of text")
    content = system_from_wire(wire["content"], f"{at}content").content
    if not isinstance(content, str):
        content = "\n".join(part.text for part in content if isinstance(part, TextPart))
    if not content:
        refuse(f"{at}content.parts[0].text", content, "a string that is not empty")
    settings: dict[str, Any] = {}
    if wire.get("model") is not None:
        settings["model"] = filled_text(wire["model"], f"{at}model").removeprefix(_MODELS)
    dimensions = wire.get("outputDimensionality")
    if dimensions is not None:
        settings["outputDimensionality"] = _dimensions(dimensions, f"{at}outputDimensionality")
    for name in sorted(OWN_FIELDS):
        said = wire.get(name)
        if said is not None:
            settings[name] = text(said, f"{at}{name}")
    return content, settings


def _numbers(vector: Sequence[float]) -> object:
    if not (isinstance(vector, floats_of) and vector.typecode == "f"):
        return list(vector)
    # Nine digits tell any two 32-bit floats apart; as doubles they would be written with seventeen.
    return Raw(f"[{','.join(map('%.9g'.__mod__, vector))}]".encode())
