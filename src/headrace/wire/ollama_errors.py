"""Ollama's error bodies, both ways: one text under ``error``, whole or as a line of a stream."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from headrace.contracts.errors import LLMCapabilityError, LLMError, LLMInvalidRequestError
from headrace.wire import openai_errors
from headrace.wire.json import encode

# What a model cannot do (server/routes.go of 0.32): all of it comes with status 400.
_LACKS = re.compile(r"does not support |mode does not support", re.IGNORECASE)


def read_error(
    status: int,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    *,
    now: datetime | None = None,
    provider: str | None = None,
) -> LLMError:
    """The error in an answer whose ``status`` is not 200; headers and ``now`` as OpenAI's."""
    error = openai_errors.read_error(status, body, headers, now=now, provider=provider)
    return _exact(error)


def error_from_wire(status: int | None, wire: Any) -> LLMError:
    """The error that a decoded body says; ``status`` is ``None`` inside a stream that began well."""
    if status is None and isinstance(wire, dict) and isinstance(wire.get("status"), int):
        status = wire["status"]
    return _exact(openai_errors.error_from_wire(status, wire))


def write_error(error: LLMError) -> bytes:
    """``error`` as a body of Ollama's form, which holds nothing but words."""
    return encode({"error": error.message or "The server gave no reason."})


def status_of(error: LLMError) -> int:
    """The HTTP status that goes with ``error``."""
    return error.status


def _exact(error: LLMError) -> LLMError:
    """``error`` as the class that Ollama's words mean, which have no code."""
    if type(error) is not LLMInvalidRequestError or not _LACKS.search(error.message):
        return error
    return LLMCapabilityError(
        error.message,
        status=error.status,
        provider=error.provider,
        provider_message=error.provider_message,
        request_id=error.request_id,
        retry_after_s=error.retry_after_s,
        param=error.param,
    )
