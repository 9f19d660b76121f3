"""The settings of Ollama's chat and generate requests, both ways.

Most of them lie in ``options``. Those that are about how Ollama runs a model (``num_ctx``,
``num_gpu``) have their own names among our ``provider_options`` too, so that each can be told by
its name where it goes to somebody who runs models otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.contracts.errors import LLMCapabilityError
from headrace.contracts.requests import LLMRequest, ReasoningEffort
from headrace.wire.openai_fields import (
    Check,
    boolean,
    filled_text,
    integer,
    mapping,
    refuse,
    refuse_type,
    says,
)
from headrace.wire.openai_params import SHARED, read_settings
from headrace.wire.openai_tools import check_schema

_LEVELS: tuple[ReasoningEffort, ...] = ("low", "medium", "high", "max")
_RIGHT_LEVEL = "true, false, 'low', 'medium', 'high' or 'max'"
# What a plain true means: ThinkValue.String in api/types.go.
_USUAL_LEVEL: ReasoningEffort = "medium"
_LEVEL_OF: dict[ReasoningEffort, object] = {
    "none": False,
    "minimal": "low",
    # Models that know no levels are refused one by some versions, and take a plain true.
    _USUAL_LEVEL: True,
    "xhigh": "high",
}

OPTIONS: Mapping[str, tuple[str, Check]] = {
    **{
        name: SHARED[name]
        for name in (
            *("temperature", "top_p", "top_k", "min_p", "seed", "stop"),
            *("repeat_penalty", "presence_penalty", "frequency_penalty"),
        )
    },
    "num_predict": ("max_tokens", integer(-(2**31), 2**31 - 1)),
}
"""A name in ``options`` to our name and the check, for all that has a meaning of its own."""

SAMPLING = frozenset({"typical_p", "repeat_last_n", "mirostat", "mirostat_eta", "mirostat_tau"})
"""Further options by which llama.cpp samples, under the names that it has for them itself."""

RUNNING = frozenset(
    [
        *("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "num_keep", "numa"),
        *("use_mmap", "use_mlock", "low_vram", "f16_kv", "logits_all", "vocab_only"),
        *("draft_num_predict", "tfs_z", "penalize_newline"),
    ]
)
"""Options about how Ollama itself runs a model, and old ones."""

OWN_FIELDS = RUNNING | {"keep_alive", "num_predict", "options", "shift", "truncate"}
"""Fields that only Ollama has something to do for: a backend of another format answers without."""


@says({"anyOf": [{"type": "string"}, {"type": "number"}]})
def _keep_alive(value: Any, path: str) -> Any:
    if type(value) not in (str, int, float):
        refuse_type(path, value, "a duration such as '5m', or a number of seconds")
    return value


@says({"anyOf": [{"type": "boolean"}, {"type": "string", "enum": list(_LEVELS)}]})
def _think(value: Any, path: str) -> ReasoningEffort:
    if type(value) is bool:
        return _USUAL_LEVEL if value else "none"
    if type(value) is not str:
        refuse_type(path, value, _RIGHT_LEVEL)
    if value not in _LEVELS:
        refuse(path, value, _RIGHT_LEVEL)
    return value


@says({"anyOf": [{"type": "string", "enum": ["json", ""]}, {"type": "object"}]})
def _format(value: Any, path: str) -> str | dict[str, Any] | None:
    if type(value) is dict:
        check_schema(value, path)
        return value
    if type(value) is not str:
        refuse_type(path, value, "'json' or a JSON Schema")
    if value not in ("json", ""):
        refuse(path, value, "'json' or a JSON Schema")
    return value or None


ROWS: Mapping[str, tuple[str, Check]] = {
    "model": ("model", filled_text),
    "options": ("options", mapping),
    "format": ("format", _format),
    "think": ("reasoning_effort", _think),
    "stream": ("stream", boolean),
    "keep_alive": ("keep_alive", _keep_alive),
    "logprobs": ("logprobs", boolean),
    "top_logprobs": ("top_logprobs", integer(0, 20)),
    "truncate": ("truncate", boolean),
    "shift": ("shift", boolean),
}
"""The fields that chat and generate requests share, each with our name and the check."""


def settings_from_wire(
    body: dict[str, Any], rows: Mapping[str, tuple[str, Check]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """``body`` in our names, as far as ``rows`` know it; and the provider's options."""
    known, options = read_settings(body, rows)
    for name in ("keep_alive", "truncate", "shift"):
        if name in known:
            options[name] = known.pop(name)
    _read_options(known, options)
    wanted = known.pop("format", None)
    if isinstance(wanted, dict):
        known["response_schema"] = wanted
    elif wanted is not None:
        known["response_format"] = {"type": "json_object"}
    if not known.get("logprobs"):
        if known.get("top_logprobs"):
            refuse("top_logprobs", known["top_logprobs"], "'logprobs': true beside it")
        known.pop("top_logprobs", None)
    return known, options


def settings_to_wire(request: LLMRequest, model: str | None) -> dict[str, Any]:
    """What ``request`` sets, as a body's fields; the provider's options are laid over the rest."""
    body: dict[str, Any] = {"model": request.model if model is None else model}
    settings = _options_to_wire(request)
    wanted = _format_to_wire(request)
    if wanted is not None:
        body["format"] = wanted
    effort = request.reasoning_effort
    if effort is not None:
        body["think"] = _LEVEL_OF.get(effort, effort)
    if request.logprobs is not None:
        body["logprobs"] = request.logprobs
    if request.top_logprobs is not None:
        body["top_logprobs"] = request.top_logprobs
    for name, value in request.provider_options.items():
        if name == "options" and isinstance(value, Mapping):
            settings.update(value)
        elif name in OPTIONS or name in RUNNING or name in SAMPLING:
            settings[name] = value
        else:
            body[name] = value
    if settings:
        body.setdefault("options", settings)
    return body


def finish_body(body: dict[str, Any], *, stream: bool) -> dict[str, Any]:
    """``body`` with whether to stream, which is our decision; a stream is what comes unasked."""
    body["stream"] = stream
    return body


def _read_options(known: dict[str, Any], options: dict[str, Any]) -> None:
    others: dict[str, Any] = {}
    for name, value in known.pop("options", {}).items():
        row = OPTIONS.get(name)
        if row is not None:
            if value is not None:
                known[row[0]] = row[1](value, f"options.{name}")
        elif name in SAMPLING or name in RUNNING:
            options[name] = value
        else:
            others[name] = value
    if others:
        options["options"] = others
    limit = known.get("max_tokens")
    if limit is not None and limit <= 0:
        # As many as there is room for; a server with a limit of its own cannot do that.
        options["num_predict"] = known.pop("max_tokens")


def _options_to_wire(request: LLMRequest) -> dict[str, Any]:
    if request.max_tokens == 0:
        raise LLMCapabilityError(
            "Ollama makes no answer without tokens: 0 means no limit there. Ask for 1, or leave "
            "max_tokens out.",
            param="max_tokens",
        )
    settings: dict[str, Any] = {}
    for name, (ours, _) in OPTIONS.items():
        value = getattr(request, ours)
        if value is not None and value != ():
            settings[name] = value
    return settings


def _format_to_wire(request: LLMRequest) -> str | dict[str, Any] | None:
    if request.response_schema is not None:
        return request.response_schema
    kind = (request.response_format or {}).get("type")
    return "json" if kind in ("json_object", "json_schema") else None
