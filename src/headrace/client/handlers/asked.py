"""From what a handler is called with to what is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve, frozen

from headrace.client.requests import as_request, as_request_of
from headrace.contracts.convert import from_plain
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.messages import LLMMessage
from headrace.contracts.requests import LLMRequest
from headrace.stores.models.presets import PRESETS

_CHAT = ("text", "messages", "prompt")
_EMBEDDINGS = ("text", "inputs")


@frozen
class Prompt:
    """What a model is to go on from, in no conversation."""

    text: Any


def the_one(given: tuple[object, ...], settings: dict[str, Any], *, embeds: bool) -> object:
    """What is asked about, taken out of the arguments: the positional one, or one by its name."""
    names = _EMBEDDINGS if embeds else _CHAT
    named = [name for name in names if name in settings]
    if len(given) + len(named) != 1:
        raise LLMInvalidRequestError(
            f"{len(given) + len(named)} inputs are given; one is needed: the first argument, or "
            f"one of {', '.join(names)}",
            param=named[0] if named else names[0],
        )
    if given:
        return given[0]
    if named[0] == "prompt":
        return Prompt(settings.pop("prompt"))
    return settings.pop(named[0])


def as_chat(
    asked: object, settings: Mapping[str, Any], name: str | None, preset: str
) -> LLMRequest:
    """The request for a chat model, which is found by ``name``.

    Where the model is one that we know by the name ``preset``, its own way to be asked fills in
    what is not said.
    """
    if isinstance(asked, LLMRequest):
        return _filled(evolve(as_request_of(asked, settings), model=name), preset)
    if isinstance(asked, Prompt):
        request = as_request("", name, None, settings)
        return _filled(evolve(request, messages=(), prompt=asked.text), preset)
    return _filled(as_request(_messages(asked), name, None, settings), preset)


def as_inputs(asked: object) -> tuple[str | tuple[int, ...], ...]:
    """The inputs for an embedding model: one text, or a list of texts or of token ids."""
    if isinstance(asked, str):
        return (asked,)
    if not isinstance(asked, Sequence) or not asked:
        raise LLMInvalidRequestError(
            f"inputs is {_kind(asked)}; a text or a list of texts is needed", param="inputs"
        )
    for place, each in enumerate(asked):
        is_ids = isinstance(each, (list, tuple)) and all(type(one) is int for one in each)
        if not isinstance(each, str) and not is_ids:
            raise LLMInvalidRequestError(
                f"inputs[{place}] is {_kind(each)}; a text or token ids are needed",
                param=f"inputs[{place}]",
            )
    return tuple(each if isinstance(each, str) else tuple(each) for each in asked)


def _messages(asked: object) -> str | tuple[LLMMessage, ...]:
    if isinstance(asked, str):
        return asked
    if not isinstance(asked, Sequence) or not asked:
        raise LLMInvalidRequestError(
            f"messages is {_kind(asked)}; a text or a list of messages is needed", param="messages"
        )
    found = []
    for place, each in enumerate(asked):
        if isinstance(each, LLMMessage):
            found.append(each)
        elif isinstance(each, Mapping):
            found.append(from_plain(dict(each), LLMMessage, path=f"$.messages[{place}]"))
        else:
            raise LLMInvalidRequestError(
                f"messages[{place}] is {_kind(each)}; an LLMMessage is needed, or a mapping with "
                "role and content (a chat model answers one conversation a call)",
                param=f"messages[{place}]",
            )
    return tuple(found)


def _filled(request: LLMRequest, preset_name: str) -> LLMRequest:
    preset = PRESETS.get(preset_name.lower())
    if preset is None:
        return request
    changes: dict[str, Any] = {}
    if request.max_tokens is None and preset.max_tokens is not None:
        changes["max_tokens"] = preset.max_tokens
    if request.temperature is None and preset.temperature is not None:
        changes["temperature"] = preset.temperature
        if request.top_p is None and preset.top_p is not None:
            changes["top_p"] = preset.top_p
    opens = request.messages and request.messages[0].role != "system"
    if preset.system_prompt is not None and opens:
        opening = LLMMessage(role="system", content=preset.system_prompt)
        changes["messages"] = (opening, *request.messages)
    return evolve(request, **changes)


def _kind(value: object) -> str:
    if value is None:
        return "missing"
    if isinstance(value, (list, tuple)) and not value:
        return "empty"
    return f"a {type(value).__name__}"
