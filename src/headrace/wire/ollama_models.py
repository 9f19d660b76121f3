"""Ollama's words about models: which there are, what each is, and which are in memory.

https://docs.ollama.com/api/tags and its neighbours. What is not known of a model is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import field, frozen

from headrace.contracts.capabilities import ModelInfo
from headrace.contracts.errors import LLMBadResponseError
from headrace.wire.json import decode_object, decode_reply, encode, shorten
from headrace.wire.ollama_answers import date, seconds
from headrace.wire.openai_fields import filled_text, refuse_absence

VERSION = "0.32.15"
"""The release of Ollama whose API this is; clients look at it before they use what is new."""

# Go's longest duration, by which Ollama says that a model stays in memory.
_FOR_EVER_S = (2**63 - 1) / 1e9


@frozen(kw_only=True)
class ModelCard:
    """A model as Ollama describes one; ``None`` or empty is unknown.

    ``family`` is the architecture's name, ``parameters`` how many weights there are, and
    ``metadata`` what its file says. ``settings`` are those that it is asked with where a request
    has none. ``on_cpu`` is whether nothing of it is in a graphics card's memory.
    """

    name: str
    created: int = 0
    size_bytes: int | None = None
    format: str | None = None
    family: str | None = None
    parameters: int | None = None
    quantization: str | None = None
    context_tokens: int | None = None
    on_cpu: bool = False
    capabilities: tuple[str, ...] = ()
    settings: Mapping[str, object] = field(factory=dict)
    license: str | None = None
    metadata: Mapping[str, object] = field(factory=dict)


def read_models(body: bytes) -> tuple[ModelInfo, ...]:
    """The models in a backend's list."""
    wire = decode_reply(body)
    models = wire.get("models") if isinstance(wire, dict) else None
    if not isinstance(models, list):
        raise LLMBadResponseError("The backend's model list has no array 'models'.")
    return tuple(_model(model) for model in models)


def write_models(cards: Iterable[ModelCard]) -> bytes:
    """The list of all models."""
    models = [
        {"name": card.name, "model": card.name, "modified_at": date(card.created), **_about(card)}
        for card in cards
    ]
    return encode({"models": models})


def write_running(cards: Iterable[ModelCard], now: float) -> bytes:
    """The list of the models in memory, which stay there; ``now`` is in Unix seconds."""
    models = []
    for card in cards:
        wire: dict[str, Any] = {"name": card.name, "model": card.name, **_about(card)}
        wire["expires_at"] = date(now + _FOR_EVER_S)
        if card.on_cpu:
            wire["size_vram"] = 0
        if card.context_tokens is not None:
            wire["context_length"] = card.context_tokens
        models.append(wire)
    return encode({"models": models})


def read_description_request(body: bytes) -> str:
    """The name of the model that a caller's ``body`` asks about."""
    wire = decode_object(body)
    # The older name of the field goes on being sent.
    for field_name in ("model", "name"):
        if wire.get(field_name) is not None:
            return filled_text(wire[field_name], field_name)
    refuse_absence("model", "the model's name")


def write_description(card: ModelCard) -> bytes:
    """What a model is."""
    wire: dict[str, Any] = {
        "modified_at": date(card.created),
        "details": _details(card),
        "model_info": dict(card.metadata),
        "capabilities": list(card.capabilities),
    }
    if card.settings:
        wire["parameters"] = "\n".join(f"{name} {value}" for name, value in card.settings.items())
    if card.license is not None:
        wire["license"] = card.license
    return encode(wire)


def write_version(ours: str) -> bytes:
    """The version of the API, and beside it which server of ``ours`` has it."""
    return encode({"version": VERSION, "server": f"headrace {ours}"})


def _about(card: ModelCard) -> dict[str, Any]:
    details = _details(card)
    wire: dict[str, Any] = {} if card.size_bytes is None else {"size": card.size_bytes}
    # Theirs is the digest of a manifest that says the same of a model; clients cut it to 12 signs.
    manifest = encode({"name": card.name, "size": card.size_bytes, "details": details})
    return wire | {"digest": hashlib.sha256(manifest).hexdigest(), "details": details}


def _details(card: ModelCard) -> dict[str, Any]:
    wire = {
        "format": card.format,
        "family": card.family,
        "families": None if card.family is None else [card.family],
        "parameter_size": None if card.parameters is None else _in_short(card.parameters),
        "quantization_level": card.quantization,
    }
    return {"parent_model": ""} | {k: v for k, v in wire.items() if v is not None}


def _in_short(count: int) -> str:
    """A number of weights as Ollama writes it: 8.0B, 134.52M, 512.00K."""
    if count >= 10**9:
        return f"{count / 1e9:.1f}B"
    return f"{count / 1e6:.2f}M" if count >= 10**6 else f"{count / 1e3:.2f}K"


def _model(wire: Any) -> ModelInfo:
    name = (wire.get("model") or wire.get("name")) if isinstance(wire, dict) else None
    if not isinstance(name, str):
        raise LLMBadResponseError(f"A model has a 'name', but this one is {shorten(wire)}.")
    stamp = wire.get("modified_at")
    return ModelInfo(
        model_id=name,
        created=(seconds(stamp) if isinstance(stamp, str) else None) or 0,
        owned_by="",
    )
