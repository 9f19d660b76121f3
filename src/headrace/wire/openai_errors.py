"""OpenAI's error bodies, both ways: a backend's answer becomes the right class of our tree."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from headrace.contracts.errors import (
    LLMAuthError,
    LLMBadResponseError,
    LLMCancelledError,
    LLMCapabilityError,
    LLMContentFilterError,
    LLMContextLengthError,
    LLMEndpointNotFoundError,
    LLMEngineNotFoundError,
    LLMError,
    LLMInsufficientFundsError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    LLMOutputError,
    LLMOverloadedError,
    LLMProviderError,
    LLMRateLimitError,
    LLMTimeoutError,
    LLMUnavailableError,
)
from headrace.wire.json import decode_reply, encode

_BY_CODE: dict[str, type[LLMError]] = {
    "invalid_api_key": LLMAuthError,
    "insufficient_quota": LLMInsufficientFundsError,
    "billing_hard_limit_reached": LLMInsufficientFundsError,
    "rate_limit_exceeded": LLMRateLimitError,
    "endpoint_not_found": LLMEndpointNotFoundError,
    "engine_not_found": LLMEngineNotFoundError,
    "model_not_found": LLMModelNotFoundError,
    "context_length_exceeded": LLMContextLengthError,
    "content_filter": LLMContentFilterError,
    "content_policy_violation": LLMContentFilterError,
    "unsupported": LLMCapabilityError,
    "timeout": LLMTimeoutError,
    "overloaded": LLMOverloadedError,
    "backend_unavailable": LLMUnavailableError,
    "bad_response": LLMBadResponseError,
    "output_invalid": LLMOutputError,
    "cancelled": LLMCancelledError,
}
"""The short reason, where a server gives one; it says most."""

_BY_TYPE: dict[str, type[LLMError]] = {
    "exceed_context_size_error": LLMContextLengthError,  # llama.cpp
    "unavailable_error": LLMUnavailableError,  # llama.cpp, while the model is loaded
    "not_supported_error": LLMCapabilityError,  # llama.cpp
    "insufficient_quota": LLMInsufficientFundsError,
    "billing_error": LLMInsufficientFundsError,
    "authentication_error": LLMAuthError,
    "permission_error": LLMAuthError,
    "rate_limit_error": LLMRateLimitError,
    "overloaded_error": LLMOverloadedError,
    "timeout_error": LLMTimeoutError,
}
"""The kind of error, where it says more than the status does."""

_BY_BROAD_TYPE: dict[str, type[LLMError]] = {
    "invalid_request_error": LLMInvalidRequestError,
    "BadRequestError": LLMInvalidRequestError,  # vLLM
    "not_found_error": LLMInvalidRequestError,
    "NotFoundError": LLMModelNotFoundError,  # vLLM
    "requests": LLMRateLimitError,
    "tokens": LLMRateLimitError,
}
"""The kind of error, where the status says more; a stream's error has no status."""

_BY_STATUS: dict[int, type[LLMError]] = {
    401: LLMAuthError,
    402: LLMInsufficientFundsError,
    403: LLMAuthError,
    408: LLMTimeoutError,
    429: LLMRateLimitError,
    499: LLMCancelledError,
    503: LLMOverloadedError,
    504: LLMTimeoutError,
    524: LLMTimeoutError,
    529: LLMOverloadedError,
}

_BY_WORDS: tuple[tuple[re.Pattern[str], type[LLMError]], ...] = (
    (
        re.compile(
            r"maximum context length|exceeds? the (available |model's )?context"
            r"|context (size|length|window) (has been |is |was )?exceeded",
            re.IGNORECASE,
        ),
        LLMContextLengthError,
    ),
    (re.compile(r"input is not supported", re.IGNORECASE), LLMCapabilityError),
)
"""What vLLM and llama.cpp say in words alone."""

_TYPES: tuple[tuple[type[LLMError], str], ...] = (
    (LLMInsufficientFundsError, "insufficient_quota"),
    (LLMAuthError, "authentication_error"),
    (LLMRateLimitError, "rate_limit_error"),
    (LLMCancelledError, "invalid_request_error"),
    (LLMInvalidRequestError, "invalid_request_error"),
    (LLMTimeoutError, "timeout_error"),
    (LLMOverloadedError, "overloaded_error"),
    (LLMError, "server_error"),
)

_KEY = re.compile(r"\b(sk|pk|rk|gsk|xai|key)[-_][\w*.-]{6,}")


def read_error(
    status: int,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    *,
    now: datetime | None = None,
    provider: str | None = None,
) -> LLMError:
    """The error in an answer whose ``status`` is not 200.

    ``now`` (aware) is what a Retry-After date is counted from; without it the answer's own Date.
    """
    try:
        wire = decode_reply(body) if body.strip() else None
    except LLMBadResponseError:
        wire = body.decode("utf-8", "replace")
    fields = {name.lower(): value for name, value in (headers or {}).items()}
    error = error_from_wire(status, wire)
    error.provider = provider
    error.request_id = fields.get("x-request-id") or fields.get("request-id")
    error.retry_after_s = retry_after_s(fields, now)
    should_retry = fields.get("x-should-retry", "").lower()
    if should_retry in ("true", "false"):
        error.transient = should_retry == "true"
    return error


def error_from_wire(status: int | None, wire: Any) -> LLMError:
    """The error that a decoded body says; ``status`` is ``None`` inside a stream that began well."""
    detail = wire.get("error", wire) if isinstance(wire, dict) else wire
    fields: dict[str, Any] = detail if isinstance(detail, dict) else {}
    said = _words(detail)
    code = fields.get("code")
    if status is None and isinstance(code, int) and 400 <= code <= 599:
        status = code
    kind = str(fields.get("type") or "")
    known = _inner_code(fields) or (code if isinstance(code, str) else None)
    cls = _class(status, known, kind, said)
    message = said or (
        "The backend broke off with an error but did not say which."
        if status is None
        else f"The backend answered with HTTP status {status} and did not say why."
    )
    if status is not None and status >= 500 > cls.default_status:
        status = None  # llama.cpp answers 500 to some requests that are the caller's fault
    error = cls(
        message,
        status=status,
        provider_message=said or None,
        param=fields["param"] if isinstance(fields.get("param"), str) else None,
        code=known,
    )
    if status == 409:  # a lock was not had in time, say OpenAI's own clients, and ask again
        error.transient = True
    return error


def write_error(error: LLMError) -> bytes:
    """``error`` as a body of OpenAI's form."""
    return encode(error_to_wire(error))


def status_of(error: LLMError) -> int:
    """The HTTP status that goes with ``error``."""
    return error.status


def error_to_wire(error: LLMError) -> dict[str, object]:
    """``error`` in OpenAI's form."""
    kind = next(name for cls, name in _TYPES if isinstance(error, cls))
    if kind == "authentication_error" and error.status == 403:
        kind = "permission_error"
    return {
        "error": {
            "message": error.message,
            "type": kind,
            "param": error.param,
            "code": error.code,
        }
    }


def _class(status: int | None, code: str | None, kind: str, said: str) -> type[LLMError]:
    cls = _BY_CODE.get(code or "") or _BY_TYPE.get(kind)
    if cls is not None:
        return cls
    if status is None or status in (400, 413, 422) or status >= 500:
        for words, meant in _BY_WORDS:
            if words.search(said):
                return meant
    if status is None:
        return _BY_BROAD_TYPE.get(kind, LLMProviderError)
    if status == 404 and "model" in said.lower():
        return LLMModelNotFoundError
    return _BY_STATUS.get(status) or _by_hundreds(status)


def _by_hundreds(status: int) -> type[LLMError]:
    if status >= 500:
        return LLMProviderError
    return LLMInvalidRequestError if status >= 400 else LLMBadResponseError


def _words(detail: Any) -> str:
    """What the server said, wherever in the body it put it; without keys."""
    if isinstance(detail, dict):
        for name in ("message", "detail", "error", "msg"):
            if detail.get(name):
                return _words(detail[name])
        return ""
    if isinstance(detail, list):
        return "; ".join(filter(None, (_words(each) for each in detail[:5])))
    said = detail if isinstance(detail, str) else ""
    return _KEY.sub(r"\1-...", said.strip()[:2000])


def _inner_code(fields: dict[str, Any]) -> str | None:
    """Azure names a content filter beneath a general code."""
    inner = fields.get("innererror")
    if isinstance(inner, dict) and inner.get("code") == "ResponsibleAIPolicyViolation":
        return "content_filter"
    return None


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """How long the server asks us to wait; ``headers`` have small letters, ``now`` as above."""
    milliseconds = _positive(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    if value is None:
        return None
    seconds = _positive(value)
    if seconds is not None:
        return seconds
    then = _date(value)
    now = now or _date(headers.get("date", ""))
    if then is None or now is None:
        return None
    return max(0.0, (then - now).total_seconds())


def _positive(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if number >= 0 and math.isfinite(number) else None


def _date(value: str) -> datetime | None:
    from datetime import timezone
    from email.utils import parsedate_to_datetime

    try:
        instant = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    return instant if instant.tzinfo else instant.replace(tzinfo=timezone.utc)
