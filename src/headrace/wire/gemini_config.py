"""Gemini's ``generationConfig``: how an answer is made and what it looks like, both ways.

https://ai.google.dev/api/generate-content#generationconfig
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from headrace.contracts.errors import LLMCapabilityError, LLMInvalidRequestError
from headrace.contracts.requests import LLMRequest, ReasoningEffort
from headrace.wire.gemini_names import renamed
from headrace.wire.gemini_schemas import schema_from_wire
from headrace.wire.openai_fields import (
    Check,
    array,
    boolean,
    filled_text,
    integer,
    mapping,
    number,
    optional,
    refuse,
    says,
    schema_of,
    text,
)
from headrace.wire.openai_tools import check_schema

_INT32 = 2**31 - 1
_JSON, _TEXT = "application/json", "text/plain"
_THINKING = frozenset({"thinkingBudget", "thinkingLevel", "includeThoughts"})
_LEVELS: Mapping[str, ReasoningEffort] = {
    "MINIMAL": "minimal",
    "LOW": "low",
    "MEDIUM": "medium",
    "HIGH": "high",
    "XHIGH": "xhigh",
}
# What a budget of tokens is called where only words are understood.
_EFFORT_OF_BUDGET: tuple[tuple[int, ReasoningEffort], ...] = (
    *((0, "none"), (512, "minimal"), (2048, "low"), (8192, "medium")),
)
# Models before Gemini 3 know numbers of tokens, and no words. These are Google's own for the words:
# https://ai.google.dev/gemini-api/docs/openai#thinking
_BUDGETS: Mapping[ReasoningEffort, int] = {
    **{"none": 0, "minimal": 512, "low": 1024, "medium": 8192},
    **{"high": 24576, "xhigh": 24576, "max": 24576},
}
_KNOWS_NUMBERS = re.compile(r"(?:models/)?gemini-(?:1|2)\b")


@says({"type": "array", "items": {"type": "string", "minLength": 1}})
def _stop_sequences(value: Any, path: str) -> tuple[str, ...]:
    found = [value] if type(value) is str else array(value, path)
    return tuple(filled_text(each, f"{path}[{i}]") for i, each in enumerate(found))


@says({"type": "object"})
def _json_schema(value: Any, path: str) -> dict[str, Any]:
    schema = mapping(value, path)
    check_schema(schema, path)
    return schema


@says({"enum": [_TEXT, _JSON]})
def _media_type(value: Any, path: str) -> str:
    if text(value, path) not in (_TEXT, _JSON):
        refuse(path, value, f"'{_JSON}' or '{_TEXT}'")
    return str(value)


@says({"type": "array", "items": {"enum": ["TEXT"]}})
def _modalities(value: Any, path: str) -> list[Any]:
    for i, each in enumerate(array(value, path)):
        if text(each, f"{path}[{i}]").upper() != "TEXT":
            refuse(f"{path}[{i}]", each, "'TEXT': answers are made of nothing else here")
    return list(value)


@says(
    {
        "type": "object",
        "properties": {
            "thinkingBudget": {"type": "integer", "minimum": -1},
            "thinkingLevel": {"enum": list(_LEVELS)},
            "includeThoughts": {"type": "boolean"},
        },
    }
)
def _thinking(value: Any, path: str) -> dict[str, Any]:
    wire = dict(renamed(value, path, _THINKING))
    beyond = sorted(wire.keys() - _THINKING)
    if beyond:
        refuse(
            f"{path}.{beyond[0]}"[:100], wire[beyond[0]], f"one of {', '.join(sorted(_THINKING))}"
        )
    optional(wire, "thinkingBudget", path, integer(-1, _INT32))
    optional(wire, "includeThoughts", path, boolean)
    level = optional(wire, "thinkingLevel", path, text)
    if level is not None and level.upper() not in (*_LEVELS, "THINKING_LEVEL_UNSPECIFIED"):
        words = ", ".join(f"'{each}'" for each in _LEVELS)
        refuse(f"{path}.thinkingLevel", level, f"one of {words}")
    if level is not None and wire.get("thinkingBudget") is not None:
        refuse(f"{path}.thinkingLevel", level, "one of it and 'thinkingBudget'")
    return wire


ROWS: dict[str, tuple[str, Check]] = {
    "temperature": ("temperature", number(0, 2)),
    "topP": ("top_p", number(0, 1)),
    "topK": ("top_k", integer(0, _INT32)),
    "maxOutputTokens": ("max_tokens", integer(1, _INT32)),
    "candidateCount": ("n", integer(1, 128)),
    "stopSequences": ("stop", _stop_sequences),
    "seed": ("seed", integer(-(2**31), _INT32)),
    "presencePenalty": ("presence_penalty", number(-2, 2)),
    "frequencyPenalty": ("frequency_penalty", number(-2, 2)),
    "responseLogprobs": ("logprobs", boolean),
    "logprobs": ("top_logprobs", integer(0, 20)),
    "responseMimeType": ("responseMimeType", _media_type),
    "responseSchema": ("responseSchema", schema_from_wire),
    "responseJsonSchema": ("responseJsonSchema", _json_schema),
    "responseModalities": ("responseModalities", _modalities),
    "thinkingConfig": ("thinkingConfig", _thinking),
}
"""Wire name to our name and the check, for every field that has a meaning of its own."""

OWN = frozenset(
    {
        "audioTimestamp",
        "audioTranscriptionConfig",
        "enableAffectiveDialog",
        "enableEnhancedCivicAnswers",
        "imageConfig",
        "mediaResolution",
        "speechConfig",
        "thinkingConfig",
    }
)
"""Fields that only Google's models know what to do with; they travel as options of their own names."""

_SETTINGS = ("temperature", "top_p", "top_k", "max_tokens", "n", "seed", "presence_penalty")
_NAMES = {ours: wire for wire, (ours, _) in ROWS.items()}
_KNOWN = frozenset(ROWS) | OWN


@says({"type": "object", "properties": {name: schema_of(row[1]) for name, row in ROWS.items()}})
def config_from_wire(value: Any, path: str = "generationConfig") -> dict[str, Any]:
    """The settings in ``generationConfig`` in our names; further options under ``options``.

    ``thoughts`` says whether the caller wants to be shown what was thought.
    """
    wire = renamed(value, path, _KNOWN)
    read: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for name, each in wire.items():
        if each is None:
            continue
        if name in ROWS:
            ours, check = ROWS[name]
            read[ours] = check(each, f"{path}.{name}")
        elif name in OWN:
            options[name] = each
        else:
            _refuse_unknown(name, path)
    read.pop("responseModalities", None)
    _read_form(read, path)
    if read.get("top_logprobs") is not None and not read.get("logprobs"):
        refuse(f"{path}.logprobs", read["top_logprobs"], "'responseLogprobs': true beside it")
    thinking = read.pop("thinkingConfig", {})
    effort, kept = _effort(thinking)
    if effort is not None:
        read["reasoning_effort"] = effort
    if kept:
        options["thinkingConfig"] = kept
    return {**read, "options": options, "thoughts": bool(thinking.get("includeThoughts"))}


def config_to_wire(request: LLMRequest, model: str | None) -> dict[str, Any]:
    """The ``generationConfig`` of a request to ``model``, without its own options."""
    config: dict[str, Any] = {}
    for ours in (*_SETTINGS, "frequency_penalty"):
        value = getattr(request, ours)
        if value is not None and not (ours == "top_k" and value <= 0):
            config[_NAMES[ours]] = value
    if request.stop:
        config["stopSequences"] = request.stop
    if request.logprobs is not None:
        config["responseLogprobs"] = request.logprobs
    if request.top_logprobs is not None:
        config["logprobs"] = request.top_logprobs
    kind = (request.response_format or {}).get("type", "text")
    if request.response_schema is not None:
        config["responseMimeType"] = _JSON
        config["responseJsonSchema"] = request.response_schema
    elif kind == "json_object":
        config["responseMimeType"] = _JSON
    elif kind != "text":
        raise LLMCapabilityError(
            f"Gemini has no 'response_format' {kind!r}; give a JSON Schema, or 'json_object'.",
            param="response_format",
        )
    if request.reasoning_effort is not None:
        config["thinkingConfig"] = _thinking_to_wire(request.reasoning_effort, model)
    return config


def _read_form(read: dict[str, Any], path: str) -> None:
    """What the answer shall look like, in our words."""
    media_type = read.pop("responseMimeType", _TEXT)
    own, json_schema = read.pop("responseSchema", None), read.pop("responseJsonSchema", None)
    if own is not None and json_schema is not None:
        refuse(f"{path}.responseJsonSchema", json_schema, "one of it and 'responseSchema'")
    schema = own if json_schema is None else json_schema
    if schema is not None and media_type != _JSON:
        right = f"'{_JSON}', for there is a schema"
        refuse(f"{path}.responseMimeType", media_type, right)
    if schema is not None:
        read["response_schema"] = schema
    elif media_type == _JSON:
        read["response_format"] = {"type": "json_object"}


def _effort(thinking: Mapping[str, Any]) -> tuple[ReasoningEffort | None, dict[str, Any]]:
    """The effort that is meant, and what it does not say by itself."""
    budget, level = thinking.get("thinkingBudget"), thinking.get("thinkingLevel")
    if level is not None and level.upper() in _LEVELS:
        return _LEVELS[level.upper()], {}
    if budget is None or budget < 0:
        said = {name: thinking.get(name) for name in ("thinkingBudget", "includeThoughts")}
        return None, {name: value for name, value in said.items() if value}
    words: list[ReasoningEffort] = [word for most, word in _EFFORT_OF_BUDGET if budget <= most]
    effort = words[0] if words else "high"
    return effort, {"thinkingBudget": budget} if budget != _BUDGETS[effort] else {}


def _thinking_to_wire(effort: ReasoningEffort, model: str | None) -> dict[str, Any]:
    """``thinkingConfig`` in the words that ``model`` understands."""
    shown: dict[str, Any] = {} if effort == "none" else {"includeThoughts": True}
    if effort == "none" or _KNOWS_NUMBERS.match(model or ""):
        return {"thinkingBudget": _BUDGETS[effort], **shown}
    return {"thinkingLevel": "XHIGH" if effort == "max" else effort.upper(), **shown}


def _refuse_unknown(name: str, path: str) -> None:
    near = get_close_matches(name, _KNOWN, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise LLMInvalidRequestError(
        f"Unknown field '{path}.{name[:100]}'{hint}",
        param=f"{path}.{name}"[:100],
        code="unknown_parameter",
    )
