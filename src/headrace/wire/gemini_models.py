"""Gemini's model list, both ways, with the pages that it comes in: https://ai.google.dev/api/models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen

from headrace.contracts.capabilities import ModelInfo
from headrace.contracts.errors import LLMBadResponseError
from headrace.wire.json import decode_reply, encode, shorten
from headrace.wire.openai_fields import refuse

GENERATES = ("generateContent", "countTokens")
EMBEDS = ("embedContent",)
Methods = Callable[[ModelInfo], Sequence[str]]

_MODELS = "models/"
_USUAL_PAGE, _LARGEST_PAGE = 50, 1000


@frozen(kw_only=True)
class Page:
    """Which part of the list is wanted: so many, from that model on."""

    size: int = _USUAL_PAGE
    token: str | None = None


def read_page(query: Mapping[str, Sequence[str]]) -> Page:
    """The page that a request's query asks for."""
    said = {name: values[-1] for name, values in query.items() if values}
    size = said.get("pageSize") or said.get("page_size") or str(_USUAL_PAGE)
    if not size.isdecimal():
        refuse("pageSize", size, f"a number up to {_LARGEST_PAGE}")
    token = said.get("pageToken") or said.get("page_token")
    return Page(size=min(int(size[:6]) or _USUAL_PAGE, _LARGEST_PAGE), token=token or None)


def write_models(
    models: Sequence[ModelInfo],
    page: Page | None = None,
    methods: Methods = lambda _: GENERATES,
) -> bytes:
    """A list of ``models``, as far as they are on ``page``; ``methods`` says what each is good for."""
    page = page or Page(size=_LARGEST_PAGE)
    begin = 0
    if page.token is not None:
        names = [model.model_id for model in models]
        if page.token not in names:
            refuse("pageToken", page.token, "the nextPageToken of the page before")
        begin = names.index(page.token)
    end = begin + page.size
    wire: dict[str, object] = {
        "models": [_model_to_wire(model, methods(model)) for model in models[begin:end]]
    }
    if end < len(models):
        wire["nextPageToken"] = models[end].model_id
    return encode(wire)


def read_models(body: bytes) -> tuple[ModelInfo, ...]:
    """The models in a backend's list; tuned ones among them keep their whole names."""
    wire = decode_reply(body)
    # A list of none is written as an empty object.
    models = wire.get("models", []) if isinstance(wire, dict) and "error" not in wire else None
    if not isinstance(models, list):
        raise LLMBadResponseError("The backend's model list has no array 'models'.")
    return tuple(_model(model) for model in models)


def write_model(model: ModelInfo, methods: Sequence[str] = GENERATES) -> bytes:
    """``model`` as a body."""
    return encode(_model_to_wire(model, methods))


def read_model(body: bytes) -> ModelInfo:
    """The single model in a backend's answer."""
    return _model(decode_reply(body))


def _model(wire: Any) -> ModelInfo:
    if not isinstance(wire, dict) or not isinstance(wire.get("name"), str):
        raise LLMBadResponseError(f"A model has a 'name', but this one is {shorten(wire)}.")
    window = wire.get("inputTokenLimit")
    return ModelInfo(
        model_id=wire["name"].removeprefix(_MODELS),
        owned_by="google",
        max_context_tokens=window if type(window) is int and window > 0 else None,
    )


def _model_to_wire(model: ModelInfo, methods: Sequence[str]) -> dict[str, object]:
    wire: dict[str, object] = {
        "name": f"{_MODELS}{model.model_id}",
        "version": "001",
        "displayName": model.model_id,
        "supportedGenerationMethods": list(methods),
    }
    if model.max_context_tokens is not None:
        # Prompt and answer share one window here, so that each may have all of it.
        wire["inputTokenLimit"] = wire["outputTokenLimit"] = model.max_context_tokens
    return wire
