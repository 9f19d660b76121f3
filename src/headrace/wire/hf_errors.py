"""The errors of Hugging Face's servers (TGI and TEI), both ways: ``{"error": ..., "error_type": ...}``.

TGI writes its types in small letters and TEI with a capital; either is read.
https://github.com/huggingface/text-generation-inference (router/src/infer/mod.rs),
https://github.com/huggingface/text-embeddings-inference (router/src/http/server.rs)
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attrs import frozen

from headrace.contracts.errors import (
    LLMAuthError,
    LLMCapabilityError,
    LLMContextLengthError,
    LLMError,
    LLMInvalidRequestError,
    LLMOverloadedError,
    LLMProviderError,
    LLMRateLimitError,
    LLMTimeoutError,
    LLMUnavailableError,
)
from headrace.contracts.errors import LLMBadResponseError as BadResponse
from headrace.wire import openai_errors
from headrace.wire.json import decode_reply, encode

_BY_TYPE: dict[str, type[LLMError]] = {
    "validation": LLMInvalidRequestError,
    "tokenizer": LLMInvalidRequestError,
    "empty": LLMInvalidRequestError,
    "template_error": LLMInvalidRequestError,
    "missing_template_variable": LLMInvalidRequestError,
    "tool_error": LLMInvalidRequestError,
    "overloaded": LLMOverloadedError,
    "generation": LLMProviderError,
    "incomplete_generation": LLMProviderError,
    "incomplete_generation_stream": LLMProviderError,
    "stream_serialization_error": LLMProviderError,
    "backend": LLMProviderError,
    "unhealthy": LLMUnavailableError,
    "healthcheck": LLMUnavailableError,
}
# What they say in words alone, and what we do.
_TOO_LONG = (
    *("must have less than", "must be <=", "tokens + `max_new_tokens`"),
    *("reads at most", "the context of this model"),
)
_NOT_ABLE = ("model is not a", "is not supported", "grammar is not supported")


@frozen
class Words:
    """What one of the two servers calls each kind of error."""

    invalid: str
    overloaded: str
    unhealthy: str
    failed: str

    def of(self, error: LLMError) -> str:
        """The word for ``error``."""
        if isinstance(error, LLMRateLimitError | LLMOverloadedError):
            return self.overloaded
        if isinstance(error, LLMUnavailableError):
            return self.unhealthy
        # Both have no word for a wrong key: whoever guards them answers before they do.
        if isinstance(error, LLMInvalidRequestError | LLMAuthError):
            return self.invalid
        return self.failed


TGI = Words(
    invalid="validation", overloaded="overloaded", unhealthy="healthcheck", failed="generation"
)
TEI = Words(invalid="Validation", overloaded="Overloaded", unhealthy="Unhealthy", failed="Backend")


def read_error(
    status: int,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    *,
    now: datetime | None = None,
    provider: str | None = None,
) -> LLMError:
    """The error in an answer whose ``status`` is not 200; headers and ``now`` as OpenAI's."""
    # Proxies in between answer in forms of their own, and those are read there.
    error = openai_errors.read_error(status, body, headers, now=now, provider=provider)
    try:
        wire = decode_reply(body) if body.strip() else None
    except BadResponse:
        wire = None
    return _exact(error, wire)


def error_from_wire(wire: Mapping[str, Any]) -> LLMError:
    """The error that an event of a stream says, which began well."""
    return _exact(openai_errors.error_from_wire(None, dict(wire)), wire)


def error_to_wire(error: LLMError, words: Words) -> dict[str, object]:
    """``error`` in the form of one of the two servers."""
    return {"error": error.message or "The server gave no reason.", "error_type": words.of(error)}


def write_error(error: LLMError, words: Words) -> bytes:
    """``error`` as a body."""
    return encode(error_to_wire(error, words))


def status_of(error: LLMError) -> int:
    """The HTTP status that goes with ``error`` there: 422 for a wrong request, 429 where there is too
    much to do, 424 where the engine failed."""
    if isinstance(error, LLMOverloadedError):
        return 429
    if isinstance(error, LLMInvalidRequestError) and error.status == 400:
        return 422
    if isinstance(error, LLMProviderError) and not isinstance(
        error, LLMTimeoutError | LLMUnavailableError
    ):
        return 424
    return error.status


def _exact(error: LLMError, wire: object) -> LLMError:
    """``error`` as the class that its type means."""
    kind = wire.get("error_type") if isinstance(wire, Mapping) else None
    meant = _BY_TYPE.get(kind.lower()) if isinstance(kind, str) else None
    if meant is None:
        return error
    said = error.message.lower()
    if meant is LLMInvalidRequestError and any(words in said for words in _TOO_LONG):
        meant = LLMContextLengthError
    elif any(words in said for words in _NOT_ABLE):
        meant = LLMCapabilityError
    # A status may say more: whose key is wrong, or which model there is not.
    if isinstance(error, meant | LLMAuthError):
        return error
    return meant(
        error.message,
        status=error.status if 400 <= error.status < 500 else None,
        provider=error.provider,
        provider_message=error.provider_message,
        request_id=error.request_id,
        retry_after_s=error.retry_after_s,
    )
