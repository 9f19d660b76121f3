"""Gemini's error bodies, both ways: https://ai.google.dev/gemini-api/docs/troubleshooting.

They are Google's usual ones (https://google.aip.dev/193): a status word, and details, of which one
may say how long to wait.
"""

from __future__ import annotations

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
    LLMError,
    LLMInsufficientFundsError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    LLMOverloadedError,
    LLMProviderError,
    LLMRateLimitError,
    LLMTimeoutError,
    LLMUnavailableError,
)
from headrace.wire import openai_errors
from headrace.wire.json import decode_reply, encode

_BY_STATUS: dict[str, type[LLMError]] = {
    "UNAUTHENTICATED": LLMAuthError,
    "PERMISSION_DENIED": LLMAuthError,
    "RESOURCE_EXHAUSTED": LLMRateLimitError,
    "NOT_FOUND": LLMInvalidRequestError,
    "CANCELLED": LLMCancelledError,
    "INVALID_ARGUMENT": LLMInvalidRequestError,
    "FAILED_PRECONDITION": LLMInvalidRequestError,
    "OUT_OF_RANGE": LLMInvalidRequestError,
    "UNIMPLEMENTED": LLMCapabilityError,
    "DEADLINE_EXCEEDED": LLMTimeoutError,
    "UNAVAILABLE": LLMOverloadedError,
    "INTERNAL": LLMProviderError,
    "UNKNOWN": LLMProviderError,
}
_BY_REASON: dict[str, type[LLMError]] = {
    "API_KEY_INVALID": LLMAuthError,
    "API_KEY_SERVICE_BLOCKED": LLMAuthError,
    "SERVICE_DISABLED": LLMAuthError,
    "BILLING_DISABLED": LLMInsufficientFundsError,
}
"""The reason among the details, where it says more than the status does."""

_BY_WORDS: tuple[tuple[re.Pattern[str], type[LLMError]], ...] = (
    (
        re.compile(r"token count .*exceeds the maximum|exceeds the maximum number of tokens", re.I),
        LLMContextLengthError,
    ),
    (re.compile(r"api[ _]key (not valid|expired|not found)", re.I), LLMAuthError),
    (re.compile(r"credits? (are|is) depleted|enable billing", re.I), LLMInsufficientFundsError),
    (re.compile(r"models?/\S+ is not found|no longer available", re.I), LLMModelNotFoundError),
)
"""What is said in words alone."""

_WORDS: tuple[tuple[type[LLMError], str], ...] = (
    (LLMInsufficientFundsError, "FAILED_PRECONDITION"),
    (LLMAuthError, "UNAUTHENTICATED"),
    (LLMRateLimitError, "RESOURCE_EXHAUSTED"),
    (LLMModelNotFoundError, "NOT_FOUND"),
    (LLMCancelledError, "CANCELLED"),
    (LLMInvalidRequestError, "INVALID_ARGUMENT"),
    (LLMTimeoutError, "DEADLINE_EXCEEDED"),
    (LLMOverloadedError, "UNAVAILABLE"),
    (LLMUnavailableError, "UNAVAILABLE"),
    (LLMError, "INTERNAL"),
)
_WORDS_BY_CODE = {403: "PERMISSION_DENIED", 404: "NOT_FOUND", 501: "UNIMPLEMENTED"}
_TYPES = "type.googleapis.com/google.rpc."
_DOMAIN = "headrace"
# Ours, for readers of our own; Google's are in capitals.
_CODES: dict[str, type[LLMError]] = {
    str(cls.default_code): cls
    for cls in (
        *(LLMContextLengthError, LLMContentFilterError, LLMCapabilityError, LLMOverloadedError),
        *(LLMUnavailableError, LLMBadResponseError, LLMInsufficientFundsError),
    )
}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")


def read_error(
    status: int,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    *,
    now: datetime | None = None,
    provider: str | None = None,
) -> LLMError:
    """The error in an answer whose ``status`` is not 200; headers and ``now`` as OpenAI's."""
    try:
        wire = decode_reply(body) if body.strip() else None
    except LLMBadResponseError:
        wire = None
    if not _is_ours(_alone(wire)):
        # Proxies in between answer in forms of their own, and those are read there.
        return openai_errors.read_error(status, body, headers, now=now, provider=provider)
    error = error_from_wire(status, wire)
    fields = {name.lower(): value for name, value in (headers or {}).items()}
    error.provider = provider
    error.request_id = fields.get("x-request-id")
    told = openai_errors.retry_after_s(fields, now)
    error.retry_after_s = error.retry_after_s if told is None else told
    return error


def error_from_wire(status: int | None, wire: Any) -> LLMError:
    """The error that a decoded body says; ``status`` is ``None`` inside a stream that began well."""
    wire = _alone(wire)
    if not _is_ours(wire):
        return openai_errors.error_from_wire(status, wire)
    detail: dict[str, Any] = wire["error"]
    # Its message is looked through for keys there; what Google found out about one may show it.
    plain = openai_errors.error_from_wire(status, {"error": {"message": detail.get("message")}})
    details = [each for each in detail.get("details") or () if isinstance(each, dict)]
    code = detail.get("code")
    if status is None and type(code) is int and 400 <= code <= 599:
        status = code
    cls = _class(status, str(detail.get("status") or ""), details, plain)
    if status is not None and status >= 500 > cls.default_status:
        status = None
    if issubclass(cls, LLMAuthError) and status not in (401, 402, 403):
        status = None  # a wrong key is 400 there
    error = cls(
        plain.message,
        status=status,
        provider_message=plain.provider_message,
        param=_field(details),
    )
    error.retry_after_s = _retry_after_s(details)
    return error


def write_error(error: LLMError) -> bytes:
    """``error`` as a body of Gemini's form."""
    return encode(error_to_wire(error))


def error_to_wire(error: LLMError) -> dict[str, object]:
    """``error`` in Gemini's form."""
    code = status_of(error)
    word = _WORDS_BY_CODE.get(code) or next(w for cls, w in _WORDS if isinstance(error, cls))
    details: list[dict[str, object]] = []
    if error.code is not None:
        details.append(
            {"@type": f"{_TYPES}ErrorInfo", "reason": error.code.upper(), "domain": _DOMAIN}
        )
    if error.param is not None and isinstance(error, LLMInvalidRequestError):
        violation = {"field": error.param, "description": error.message}
        details.append({"@type": f"{_TYPES}BadRequest", "fieldViolations": [violation]})
    if error.retry_after_s is not None:
        delay = f"{max(0.0, error.retry_after_s):.3f}".rstrip("0").rstrip(".")
        details.append({"@type": f"{_TYPES}RetryInfo", "retryDelay": f"{delay}s"})
    if error.request_id is not None:
        details.append({"@type": f"{_TYPES}RequestInfo", "requestId": error.request_id})
    wire: dict[str, object] = {
        "code": code,
        "message": error.message or "The server gave no reason.",
        "status": word,
    }
    if details:
        wire["details"] = details
    return {"error": wire}


def status_of(error: LLMError) -> int:
    """The HTTP status that goes with ``error``."""
    # A 500 says that this server failed; where a backend did, the right word is 502.
    if isinstance(error, LLMProviderError) and error.status == 500:
        return 502
    return error.status


def _alone(wire: Any) -> Any:
    """The one error of a list: a stream that is no events is an array, and so is what it says then."""
    return wire[0] if isinstance(wire, list) and len(wire) == 1 else wire


def _is_ours(wire: Any) -> bool:
    detail = wire.get("error") if isinstance(wire, dict) else None
    return isinstance(detail, dict) and isinstance(detail.get("status"), str)


def _class(
    status: int | None, word: str, details: list[dict[str, Any]], plain: LLMError
) -> type[LLMError]:
    for detail in details:
        reason = str(detail.get("reason") or "")
        if detail.get("domain") == _DOMAIN and reason.lower() in _CODES:
            return _CODES[reason.lower()]
        if reason in _BY_REASON:
            return _BY_REASON[reason]
    for words, cls in _BY_WORDS:
        if words.search(plain.message):
            return cls
    known = _BY_STATUS.get(word)
    if known is LLMInvalidRequestError:
        # Words and status of every server's errors are looked at there.
        return type(plain) if isinstance(plain, LLMInvalidRequestError) else known
    return known or type(plain)


def _field(details: list[dict[str, Any]]) -> str | None:
    """The first field that is said to be wrong."""
    for detail in details:
        for violation in detail.get("fieldViolations") or ():
            if isinstance(violation, dict) and isinstance(violation.get("field"), str):
                return str(violation["field"]) or None
    return None


def _retry_after_s(details: list[dict[str, Any]]) -> float | None:
    for detail in details:
        found = _DURATION.fullmatch(str(detail.get("retryDelay") or ""))
        if found is not None:
            return float(found[1])
    return None
