"""The settings that chat and text completions share, one row each, read and written alike."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from attrs import field, frozen

from headrace.contracts.requests import LLMRequest
from headrace.wire.openai_fields import (
    Check,
    array,
    boolean,
    integer,
    mapping,
    number,
    refuse_type,
    says,
    text,
)

_INT32 = 2**31 - 1


@frozen(kw_only=True)
class Dialect:
    """The names under which a backend knows what OpenAI-like servers name differently.

    ``reasoning`` is the field of an assistant message; ``None`` leaves earlier reasoning out, for
    servers that refuse it. With ``counted_logprobs`` a chat's ``logprobs`` is the number of
    alternatives wanted, and there is no ``top_logprobs``. ``beside_stop`` are fields that a server
    needs beside ``stop`` in order to say which of the strings ended the answer. ``audio`` says that
    a message may hold a recording. ``marks_prefix``: a turn of the assistant's that is to be gone on
    with has to be marked as one.
    ``stop`` is where strings that end an answer stand, for servers with a format of their own.
    """

    max_tokens: str = "max_tokens"
    repetition_penalty: str = "repetition_penalty"
    seed: str = "seed"
    counted_logprobs: bool = False
    reasoning: str | None = "reasoning_content"
    beside_stop: Mapping[str, object] = field(factory=dict)
    audio: bool = True
    marks_prefix: bool = False
    stop: str = "stop"


COMMON = Dialect()
OPENAI = Dialect(max_tokens="max_completion_tokens", reasoning=None)
# Its verbose part is the whole of its own format, but for what ``response_fields`` leaves of it.
_TELLS_STOP = {"verbose": True, "response_fields": ["stopping_word"]}
LLAMA_CPP = Dialect(repetition_penalty="repeat_penalty", beside_stop=_TELLS_STOP)


@says({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})
def _stop(value: Any, path: str) -> tuple[str, ...]:
    if type(value) is str:
        return (value,)
    if type(value) is not list:
        refuse_type(path, value, "a string or an array of strings")
    return tuple(text(each, f"{path}[{i}]") for i, each in enumerate(value))


@says(
    {"type": "object", "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100}}
)
def _logit_bias(value: Any, path: str) -> dict[str, float]:
    check = number(-100, 100)
    return {token: check(bias, f"{path}.{token}") for token, bias in mapping(value, path).items()}


@says({"type": "object", "additionalProperties": {"type": "string"}})
def _metadata(value: Any, path: str) -> dict[str, str]:
    return {key: text(each, f"{path}.{key}") for key, each in mapping(value, path).items()}


_seed = integer(-(2**63), 2**64 - 1)

SHARED: Mapping[str, tuple[str, Check]] = {
    "model": ("model", text),
    "max_tokens": ("max_tokens", integer(0, _INT32)),
    "temperature": ("temperature", number(0, 2)),
    "top_p": ("top_p", number(0, 1)),
    "top_k": ("top_k", integer(-1, _INT32)),
    "min_p": ("min_p", number(0, 1)),
    "seed": ("seed", _seed),
    "random_seed": ("seed", _seed),
    "stop": ("stop", _stop),
    "frequency_penalty": ("frequency_penalty", number(-2, 2)),
    "presence_penalty": ("presence_penalty", number(-2, 2)),
    "repetition_penalty": ("repetition_penalty", number(0, 1000)),
    "repeat_penalty": ("repetition_penalty", number(0, 1000)),
    "logit_bias": ("logit_bias", _logit_bias),
    "n": ("n", integer(1, 128)),
    "user": ("user", text),
}
"""Wire name to our name and the check; the first wire name of two is the one we write (the second
is Mistral's ``random_seed``, llama.cpp's ``repeat_penalty``)."""

_WRITTEN = tuple(name for name in SHARED if name not in ("model", "random_seed", "repeat_penalty"))
_written_of = attrgetter(*(SHARED[name][0] for name in _WRITTEN))

CARRIED: Mapping[str, Check] = {
    "metadata": _metadata,
    "store": boolean,
    "modalities": array,
    "best_of": integer(0, 128),
}
"""Fields that we hand on without a meaning of our own, but whose type is known."""


RESPONSES = Dialect(max_tokens="max_output_tokens")
"""The names of a server that takes earlier reasoning back as it showed it."""

OPENAI_RESPONSES = Dialect(max_tokens="max_output_tokens", reasoning=None, audio=False)
"""OpenAI's own: earlier reasoning goes back only where they sealed it."""

HINTS = frozenset({"truncation", "reasoning_summary"})
"""Options that only the Responses format has a place for, and whose absence changes no meaning."""

OWN_FIELDS = frozenset(
    [
        "audio",
        "citation_options",
        "compound_custom",
        "disable_tool_validation",
        "exclude_domains",
        "guardrails",
        "include_domains",
        "include_reasoning",
        "metadata",
        "modalities",
        "moderation",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "prompt_mode",
        "safe_prompt",
        "safety_identifier",
        "search_settings",
        "service_tier",
        "store",
        "verbosity",
        "web_search_options",
    ]
)
"""Fields about the account, cache, guards and hosted tools of OpenAI, Groq or Mistral: a backend of
another format has nothing to do for them, and answers without."""


def read_settings(
    body: dict[str, Any], rows: Mapping[str, tuple[str, Check]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """``body`` in our names, as far as ``rows`` know it; and the rest, as it came.

    Null is the same as absent, but for a field that we do not know.
    """
    known: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for key, value in body.items():
        row = rows.get(key)
        if row is not None:
            if value is not None:
                known[row[0]] = row[1](value, key)
        elif key not in CARRIED:
            options[key] = value
        elif value is not None:
            options[key] = CARRIED[key](value, key)
    return known, options


def write_settings(request: LLMRequest, model: str | None, dialect: Dialect) -> dict[str, object]:
    """The settings of ``request`` as a body's fields; ``model`` replaces the request's own."""
    body: dict[str, object] = {}
    name = request.model if model is None else model
    if name is not None:
        body["model"] = name
    for wire_name, value in zip(_WRITTEN, _written_of(request), strict=True):
        if value is not None and value != ():
            body[wire_name] = value
    for our_name in ("max_tokens", "repetition_penalty", "seed"):
        if our_name in body:
            body[getattr(dialect, our_name)] = body.pop(our_name)
    return body


@says({"type": "object", "properties": {"include_usage": {"type": ["boolean", "null"]}}})
def read_stream_options(value: Any, path: str) -> bool:
    """Whether ``stream_options`` ask for usage."""
    include = mapping(value, path).get("include_usage")
    return include is not None and boolean(include, f"{path}.include_usage")


def finish_body(
    body: dict[str, object], request: LLMRequest, *, stream: bool, include_usage: bool
) -> dict[str, object]:
    """``body`` with the provider's options laid over it; whether to stream stays our decision."""
    body.update(request.provider_options)
    body.pop("stream", None)
    if not stream:
        body.pop("stream_options", None)
        return body
    body["stream"] = True
    if include_usage:
        options = body.get("stream_options")
        body["stream_options"] = {
            **(options if isinstance(options, dict) else {}),
            "include_usage": True,
        }
    return body
