"""Cohere's list of models: https://docs.cohere.com/reference/list-models."""

from __future__ import annotations

from headrace.contracts.capabilities import ModelInfo
from headrace.contracts.errors import LLMBadResponseError
from headrace.wire.json import decode_reply, shorten


def read_models(body: bytes) -> tuple[ModelInfo, ...]:
    """The models in a list."""
    wire = decode_reply(body)
    models = wire.get("models") if isinstance(wire, dict) else None
    if not isinstance(models, list):
        raise LLMBadResponseError("The backend's model list has no array 'models'.")
    return tuple(_model(model) for model in models)


def _model(wire: object) -> ModelInfo:
    if not isinstance(wire, dict) or not isinstance(wire.get("name"), str):
        raise LLMBadResponseError(f"A model has a 'name', but this one is {shorten(wire)}.")
    length = wire.get("context_length")
    return ModelInfo(
        model_id=wire["name"],
        owned_by="cohere",
        max_context_tokens=int(length) if isinstance(length, int | float) and length else None,
    )
