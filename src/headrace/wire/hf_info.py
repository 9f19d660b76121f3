"""``/info`` of TGI and TEI: which model a server has, and how much of what it takes, each way.

One answer of ours has the fields of both, for both kinds of clients ask at the same path; which model
it tells of is said by ``model_type``, which TEI's clients look at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.contracts.capabilities import ModelInfo
from headrace.contracts.errors import LLMBadResponseError
from headrace.wire.json import decode_reply, encode

_LENGTHS = ("max_total_tokens", "max_input_length", "max_input_tokens")


def read_models(body: bytes) -> tuple[ModelInfo, ...]:
    """The one model of a server, by its ``/info``."""
    wire = decode_reply(body)
    if not isinstance(wire, dict) or not isinstance(wire.get("model_id"), str):
        raise LLMBadResponseError("The backend's /info has no 'model_id'.")
    lengths = (wire.get(name) for name in _LENGTHS)
    return (
        ModelInfo(
            model_id=str(wire.get("served_model_name") or wire["model_id"]),
            owned_by="",
            max_context_tokens=next((n for n in lengths if type(n) is int and n > 0), None),
        ),
    )


def write_info(told: Mapping[str, Any]) -> bytes:
    """What is ``told`` of a server."""
    return encode(told)
