"""Anthropic's error bodies, both ways: https://platform.claude.com/docs/en/api/errors."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from headrace.contracts.errors import (
    LLMAuthError,
    LLMCancelledError,
    LLMContextLengthError,
    LLMError,
    LLMInsufficientFundsError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    LLMOverloadedError,
    LLMProviderError,
    LLMRateLimitError,
    LLMTimeoutError,
)
from headrace.wire import openai_errors
from headrace.wire.json import encode

_OVERLOADED_STATUS = 529
_TOO_LARGE_STATUS = 413

_BY_TYPE: dict[str, type[LLMError]] = {
    "authentication_error": LLMAuthError,
    "permission_error": LLMAuthError,
    "billing_error": LLMInsufficientFundsError,
    "rate_limit_error": LLMRateLimitError,
    "overloaded_error": LLMOverloadedError,
    "timeout_error": LLMTimeoutError,
    "api_error": LLMProviderError,
    "invalid_request_error": LLMInvalidRequestError,
    "request_too_large": LLMInvalidRequestError,
    "not_found_error": LLMModelNotFoundError,
}
_TYPES: tuple[tuple[type[LLMError], str], ...] = (
    (LLMInsufficientFundsError, "billing_error"),
    (LLMAuthError, "authentication_error"),
    (LLMRateLimitError, "rate_limit_error"),
    (LLMModelNotFoundError, "not_found_error"),
    (LLMCancelledError, "invalid_request_error"),
    (LLMInvalidRequestError, "invalid_request_error"),
    (LLMTimeoutError, "timeout_error"),
    (LLMOverloadedError, "overloaded_error"),
    (LLMError, "api_error"),
)
_TOO_LONG = ("prompt is too long", "exceed context limit")


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
    return _exact(error)


def error_from_wire(status: int | None, wire: Any) -> LLMError:
    """The error that a decoded body says; ``status`` is ``None`` inside a stream that began well."""
    error = openai_errors.error_from_wire(status, wire)
    detail = wire.get("error") if isinstance(wire, dict) else None
    kind = detail.get("type") if isinstance(detail, dict) else None
    meant = _BY_TYPE.get(kind or "")
    if status is None and meant is not None and type(error) is LLMProviderError:
        error = meant(error.message, provider_message=error.provider_message)
    return _exact(error)


def write_error(error: LLMError) -> bytes:
    """``error`` as a body of Anthropic's form."""
    return encode(error_to_wire(error))


def error_to_wire(error: LLMError) -> dict[str, object]:
    """``error`` in Anthropic's form."""
    kind = next(name for cls, name in _TYPES if isinstance(error, cls))
    if kind == "authentication_error" and error.status == 403:
        kind = "permission_error"
    if kind == "invalid_request_error":
        kind = {404: "not_found_error", 413: "request_too_large", 408: "timeout_error"}.get(
            error.status, kind
        )
    wire: dict[str, object] = {
        "type": "error",
        "error": {"type": kind, "message": error.message or "The server gave no reason."},
    }
    if error.request_id is not None:
        wire["request_id"] = error.request_id
    return wire


def status_of(error: LLMError) -> int:
    """The HTTP status that goes with ``error``: Anthropic says 529 where others say 503."""
    if isinstance(error, LLMOverloadedError) and error.status == error.default_status:
        return _OVERLOADED_STATUS
    return error.status


def _exact(error: LLMError) -> LLMError:
    """``error`` as the class that Anthropic's words mean, which have no code."""
    if type(error) is not LLMInvalidRequestError:
        return error
    said = error.message.lower()
    if not any(words in said for words in _TOO_LONG):
        return error
    return LLMContextLengthError(
        error.message,
        status=error.status,
        provider=error.provider,
        provider_message=error.provider_message,
        request_id=error.request_id,
        retry_after_s=error.retry_after_s,
        param=error.param,
    )
