"""OpenAI's model list, both ways; servers name the context's length each in their own way."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from headrace.contracts.capabilities import ModelInfo, Serves
from headrace.contracts.errors import LLMBadResponseError
from headrace.wire.json import decode_reply, encode, shorten

_CONTEXT_FIELDS = ("max_model_len", "context_length", "context_window", "max_context_length")


def read_models(body: bytes) -> tuple[ModelInfo, ...]:
    """The models in a backend's list."""
    wire = decode_reply(body)
    models = wire.get("data") if isinstance(wire, dict) else wire
    if not isinstance(models, list):
        raise LLMBadResponseError("The backend's model list has no array 'data'.")
    return tuple(_model(model) for model in models)


def write_models(models: Iterable[ModelInfo]) -> bytes:
    """A list of ``models``."""
    return encode({"object": "list", "data": [_model_to_wire(model) for model in models]})


def read_model(body: bytes) -> ModelInfo:
    """The single model in a backend's answer."""
    return _model(decode_reply(body))


def write_model(model: ModelInfo) -> bytes:
    """``model`` as a body."""
    return encode(_model_to_wire(model))


def _model(wire: Any) -> ModelInfo:
    if not isinstance(wire, dict) or not isinstance(wire.get("id"), str):
        raise LLMBadResponseError(f"A model has an 'id', but this one is {shorten(wire)}.")
    created, owner = wire.get("created"), wire.get("owned_by")
    return ModelInfo(
        model_id=wire["id"],
        created=int(created) if isinstance(created, int | float) else 0,
        owned_by=owner if isinstance(owner, str) else "",
        max_context_tokens=_context_tokens(wire),
        serves=_served(wire.get("capabilities")),
    )


def _model_to_wire(model: ModelInfo) -> dict[str, object]:
    wire: dict[str, object] = {
        "id": model.model_id,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        # What Mistral's clients need of a model.
        "type": "base",
        "capabilities": {
            "completion_chat": model.serves == "chat",
            "audio_transcription": model.serves == "transcription",
        },
    }
    if model.max_context_tokens is not None:
        wire["max_model_len"] = wire["max_context_length"] = model.max_context_tokens
    return wire


def _served(capabilities: Any) -> Serves:
    """What Mistral's list says that a model is for; others say nothing of it."""
    if not isinstance(capabilities, dict) or capabilities.get("completion_chat") is not False:
        return "chat"
    return "transcription" if capabilities.get("audio_transcription") else "embeddings"


def _context_tokens(wire: dict[str, Any]) -> int | None:
    meta = wire.get("meta")  # llama.cpp's
    found = [wire.get(name) for name in _CONTEXT_FIELDS]
    found.append(meta.get("n_ctx") if isinstance(meta, dict) else None)
    return next((value for value in found if type(value) is int and value > 0), None)
