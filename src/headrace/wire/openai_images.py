"""OpenAI's pictures and moderations as the client asks for them: requests written, answers read.

https://platform.openai.com/docs/api-reference/images and .../moderations. What callers of the gateway
send is read by ``openai_services``.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import Any

from headrace.contracts.errors import LLMBadResponseError, LLMInvalidRequestError
from headrace.contracts.images import (
    GeneratedImage,
    ImageRequest,
    ImageResult,
    Judgement,
    ModerationRequest,
    ModerationResult,
)
from headrace.wire.json import decode_reply, encode
from headrace.wire.openai_errors import error_from_wire
from headrace.wire.openai_parts import part_to_wire
from headrace.wire.openai_usage import usage_from_either

__all__ = ["read_images", "read_moderation", "write_image_request", "write_moderation_request"]


def write_image_request(request: ImageRequest, *, model: str | None = None) -> bytes:
    """``request`` as a body for a backend that knows its model as ``model``."""
    if not request.prompt:
        raise LLMInvalidRequestError("There is nothing to be drawn.", param="prompt")
    body: dict[str, object] = {"prompt": request.prompt}
    for name, value in (
        ("model", model or request.model),
        ("n", request.n),
        ("size", request.size),
        ("quality", request.quality),
    ):
        if value is not None:
            body[name] = value
    return encode(body | request.provider_options)


def read_images(body: bytes) -> ImageResult:
    """The pictures in a backend's answer."""
    wire = _object(body)
    data = wire.get("data")
    if not isinstance(data, list) or not data:
        raise LLMBadResponseError("The backend's answer has no pictures in 'data'.")
    return ImageResult(
        images=tuple(_image(each, at) for at, each in enumerate(data)),
        usage=usage_from_either(wire.get("usage")),
    )


def _image(wire: Any, at: int) -> GeneratedImage:
    if not isinstance(wire, dict):
        raise LLMBadResponseError(f"Picture {at} in the backend's answer is no object.")
    packed, url, prompt = wire.get("b64_json"), wire.get("url"), wire.get("revised_prompt")
    data = None
    if isinstance(packed, str):
        try:
            data = b64decode(packed, validate=True)
        except (binascii.Error, ValueError) as error:
            raise LLMBadResponseError(
                f"Picture {at} in the backend's answer is no base64: {error}."
            ) from error
    if data is None and not isinstance(url, str):
        raise LLMBadResponseError(f"Picture {at} in the backend's answer is neither data nor URL.")
    return GeneratedImage(
        data=data,
        url=url if isinstance(url, str) else None,
        revised_prompt=prompt if isinstance(prompt, str) else None,
    )


def write_moderation_request(request: ModerationRequest, *, model: str | None = None) -> bytes:
    """``request`` as a body for a backend that knows its model as ``model``."""
    if not request.inputs:
        raise LLMInvalidRequestError("There is nothing to be judged.", param="input")
    texts = [each for each in request.inputs if isinstance(each, str)]
    if texts and len(texts) < len(request.inputs):
        raise LLMInvalidRequestError(
            "Either texts are judged, or the parts of one message: a text among parts is a TextPart.",
            param="input",
        )
    told: object = texts[0] if len(texts) == 1 else texts
    if not texts:
        told = [part_to_wire(each) for each in request.inputs if not isinstance(each, str)]
    body: dict[str, object] = {"input": told}
    if model or request.model:
        body["model"] = model or request.model
    return encode(body | request.provider_options)


def read_moderation(body: bytes) -> ModerationResult:
    """The judgements in a backend's answer."""
    wire = _object(body)
    results, model = wire.get("results"), wire.get("model")
    if not isinstance(results, list) or not all(isinstance(each, dict) for each in results):
        raise LLMBadResponseError("The backend's answer has no judgements in 'results'.")
    return ModerationResult(
        judgements=tuple(_judgement(each) for each in results),
        model_id=model if isinstance(model, str) else None,
    )


def _judgement(wire: dict[str, Any]) -> Judgement:
    categories, scores = wire.get("categories"), wire.get("category_scores")
    named = {
        name: value
        for name, value in (categories if isinstance(categories, dict) else {}).items()
        if isinstance(value, bool)
    }
    flagged = wire.get("flagged")
    return Judgement(
        # Mistral names categories alone.
        flagged=flagged if isinstance(flagged, bool) else any(named.values()),
        categories=named,
        scores={
            name: float(value)
            for name, value in (scores if isinstance(scores, dict) else {}).items()
            if type(value) in (int, float)
        },
    )


def _object(body: bytes) -> dict[str, Any]:
    wire = decode_reply(body)
    if not isinstance(wire, dict):
        raise LLMBadResponseError("The backend's answer is no JSON object.")
    if wire.get("error"):
        raise error_from_wire(None, {"error": wire["error"]})
    return wire
