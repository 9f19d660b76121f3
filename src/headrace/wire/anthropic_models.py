"""Anthropic's model list, both ways, with the pages that it comes in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, TypeVar

from attrs import frozen

from headrace.contracts.capabilities import ModelInfo
from headrace.contracts.errors import LLMBadResponseError
from headrace.wire.json import decode_reply, encode, shorten
from headrace.wire.openai_fields import refuse

T = TypeVar("T")

_USUAL_PAGE, _LARGEST_PAGE = 20, 1000


@frozen(kw_only=True)
class Page:
    """Which part of the list is wanted: so many, behind or before a model of that id."""

    limit: int = _USUAL_PAGE
    after_id: str | None = None
    before_id: str | None = None
    lifecycle: tuple[str, ...] = ()


def read_page(query: Mapping[str, Sequence[str]]) -> Page:
    """The page that a request's query asks for."""
    said = {name: values[-1] for name, values in query.items() if values}
    limit = said.get("limit", str(_USUAL_PAGE))
    if not limit.isdecimal() or not 1 <= int(limit[:6]) <= _LARGEST_PAGE:
        refuse("limit", limit, f"a number from 1 to {_LARGEST_PAGE}")
    stages = [*query.get("lifecycle", ()), *query.get("lifecycle[]", ())]
    return Page(
        limit=int(limit),
        after_id=said.get("after_id"),
        before_id=said.get("before_id"),
        lifecycle=tuple(stages),
    )


def write_models(models: Sequence[ModelInfo], page: Page | None = None) -> bytes:
    """A list of ``models``, as far as they are on ``page``; an unknown id has nothing beside it."""
    page = page or Page(limit=_LARGEST_PAGE)
    found = list(models)
    if page.lifecycle and "active" not in page.lifecycle:
        found = []
    shown, has_more = on_page(found, page, lambda model: model.model_id)
    return encode(
        {
            "data": [_model_to_wire(model) for model in shown],
            "has_more": has_more,
            "first_id": shown[0].model_id if shown else None,
            "last_id": shown[-1].model_id if shown else None,
        }
    )


def on_page(found: Sequence[T], page: Page, id_of: Callable[[T], str]) -> tuple[Sequence[T], bool]:
    """What of ``found`` is on ``page``, and whether there is more; beside an unknown id is nothing."""
    ids = [id_of(each) for each in found]
    if page.after_id is not None:
        found = found[ids.index(page.after_id) + 1 :] if page.after_id in ids else []
        ids = [id_of(each) for each in found]
    if page.before_id is not None:
        found = found[: ids.index(page.before_id)] if page.before_id in ids else []
    backwards = page.before_id is not None and page.after_id is None
    shown = found[-page.limit :] if backwards else found[: page.limit]
    return shown, len(found) > len(shown)


def read_models(body: bytes) -> tuple[ModelInfo, ...]:
    """The models in a backend's list."""
    wire = decode_reply(body)
    models = wire.get("data") if isinstance(wire, dict) else None
    if not isinstance(models, list):
        raise LLMBadResponseError("The backend's model list has no array 'data'.")
    return tuple(_model(model) for model in models)


def write_model(model: ModelInfo) -> bytes:
    """``model`` as a body."""
    return encode(_model_to_wire(model))


def read_model(body: bytes) -> ModelInfo:
    """The single model in a backend's answer."""
    return _model(decode_reply(body))


def _model(wire: Any) -> ModelInfo:
    if not isinstance(wire, dict) or not isinstance(wire.get("id"), str):
        raise LLMBadResponseError(f"A model has an 'id', but this one is {shorten(wire)}.")
    window = wire.get("max_input_tokens")
    return ModelInfo(
        model_id=wire["id"],
        created=_seconds(wire.get("created_at")),
        owned_by="anthropic",
        max_context_tokens=window if type(window) is int and window > 0 else None,
    )


def _model_to_wire(model: ModelInfo) -> dict[str, object]:
    created = datetime.fromtimestamp(model.created, timezone.utc)
    return {
        "type": "model",
        "id": model.model_id,
        "display_name": model.model_id,
        "created_at": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
        "max_input_tokens": model.max_context_tokens,
    }


def _seconds(stamp: object) -> int:
    """Unix seconds of an RFC 3339 date; 0 where there is none that can be read."""
    try:
        instant = datetime.fromisoformat(stamp) if isinstance(stamp, str) else None
    except ValueError:
        return 0
    if instant is None:
        return 0
    aware = instant if instant.tzinfo else instant.replace(tzinfo=timezone.utc)
    return max(0, int(aware.timestamp()))
