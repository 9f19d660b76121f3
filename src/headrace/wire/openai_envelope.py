"""What stands around the choices of a whole answer, the same for chat and text completions."""

from __future__ import annotations

from typing import Any

from headrace.contracts.responses import LLMResponse
from headrace.wire.json import encode
from headrace.wire.openai_answers import usage_to_wire


def write_answer(
    object_name: str,
    choices: list[dict[str, Any]],
    response: LLMResponse,
    *,
    response_id: str | None,
    model: str | None,
    created: int | None,
    system_fingerprint: str | None,
) -> bytes:
    """``response`` as a body; what is handed in replaces what the response itself says."""
    wire: dict[str, Any] = {
        "id": response_id or response.response_id or "",
        "object": object_name,
        "created": (response.created or 0) if created is None else created,
        "model": model or response.model or "",
        "choices": choices,
    }
    usage = usage_to_wire(response.usage)
    if usage is not None:
        wire["usage"] = usage
    fingerprint = system_fingerprint or response.system_fingerprint
    if fingerprint is not None:
        wire["system_fingerprint"] = fingerprint
    return encode(wire | (response.provider_fields or {}))
