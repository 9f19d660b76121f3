"""Anthropic's messages: requests, answers and streams, each way.

https://platform.claude.com/docs/en/api/messages. A field that we do not know goes into
``provider_options`` and from there into a backend's body, as it came.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMCapabilityError,
    LLMInvalidRequestError,
)
from headrace.contracts.requests import LLMRequest, ReasoningEffort
from headrace.wire.anthropic_answers import read_response, read_whole, write_response
from headrace.wire.anthropic_errors import read_error, status_of, write_error
from headrace.wire.anthropic_messages import (
    conversation_to_wire,
    messages_from_wire,
    system_from_wire,
)
from headrace.wire.anthropic_stream import PING, stream_reader, stream_writer
from headrace.wire.anthropic_tools import (
    choice_from_wire,
    choice_to_wire,
    tools_from_wire,
    tools_to_wire,
)
from headrace.wire.anthropic_unplaced import unplaced
from headrace.wire.inbound import Inbound
from headrace.wire.json import decode_object, decode_reply, encode
from headrace.wire.openai_fields import (
    Check,
    array,
    boolean,
    integer,
    mapping,
    member,
    number,
    one_of,
    optional,
    refuse,
    refuse_absence,
    says,
    text,
)
from headrace.wire.openai_params import read_settings
from headrace.wire.openai_tools import check_choice, check_schema
from headrace.wire.sse import STREAM_TYPE

__all__ = [
    "PING",
    "STREAM_TYPE",
    "answer_id",
    "read_count",
    "read_count_request",
    "read_error",
    "read_request",
    "read_response",
    "read_whole",
    "status_of",
    "stream_reader",
    "stream_writer",
    "write_count",
    "write_count_request",
    "write_error",
    "write_request",
    "write_response",
]

USUAL_MAX_TOKENS = 4096
"""Asked of a backend where the request has no limit, for the format demands one: the longest answer
that every Claude model can give."""

_INT32 = 2**31 - 1
_THINKING = one_of("enabled", "disabled", "adaptive", "between_tools")
_EFFORT = one_of("low", "medium", "high", "xhigh", "max")
_USUAL_EFFORT: ReasoningEffort = "high"
# What a budget of tokens is called where only words are understood.
_EFFORT_OF_BUDGET: tuple[tuple[int, ReasoningEffort], ...] = ((2048, "low"), (8192, "medium"))
_COUNTED = ("messages", "model", "output_config", "system", "thinking", "tool_choice", "tools")


@says({"type": "array", "items": {"type": "string", "minLength": 1}})
def _stop_sequences(value: Any, path: str) -> tuple[str, ...]:
    return tuple(text(each, f"{path}.{i}") for i, each in enumerate(array(value, path)))


@says({"type": "object", "properties": {"user_id": {"type": ["string", "null"]}}})
def _metadata(value: Any, path: str) -> str | None:
    beyond = sorted(mapping(value, path).keys() - {"user_id"})
    if beyond:
        refuse(f"{path}.{beyond[0]}"[:100], value[beyond[0]], "'user_id' alone")
    user: str | None = optional(value, "user_id", path, text)
    return user


@says(
    {
        "type": "object",
        "required": ["type"],
        "properties": {
            "type": {"enum": ["enabled", "disabled", "adaptive", "between_tools"]},
            "budget_tokens": {"type": "integer", "minimum": 1},
            "display": {"enum": ["summarized", "omitted"]},
        },
    }
)
def _thinking(value: Any, path: str) -> dict[str, Any]:
    kind = member(mapping(value, path), "type", path, _THINKING, "such as 'adaptive'")
    if kind == "enabled":
        right = "how many tokens reasoning may take"
        member(value, "budget_tokens", path, integer(1, _INT32), right)
    return dict(value)


@says(
    {
        "type": "object",
        "required": ["type", "schema"],
        "properties": {"type": {"const": "json_schema"}, "schema": {"type": "object"}},
    }
)
def _format(value: Any, path: str) -> dict[str, Any]:
    kind = member(mapping(value, path), "type", path, text, "'json_schema'")
    if kind != "json_schema":
        refuse(f"{path}.type", kind, "'json_schema'")
    schema = member(value, "schema", path, mapping, "a JSON Schema")
    check_schema(schema, f"{path}.schema")
    return dict(schema)


@says(
    {
        "type": "object",
        "properties": {
            "effort": {"enum": ["low", "medium", "high", "xhigh", "max", None]},
            "format": {"type": ["object", "null"]},
        },
    }
)
def _output_config(value: Any, path: str) -> dict[str, Any]:
    config = dict(mapping(value, path))
    config["effort"] = optional(config, "effort", path, _EFFORT)
    config["format"] = optional(config, "format", path, _format)
    return config


COUNT_ROWS: dict[str, tuple[str, Check]] = {
    "model": ("model", text),
    "messages": ("messages", messages_from_wire),
    "system": ("system", system_from_wire),
    "tools": ("tools", tools_from_wire),
    "tool_choice": ("tool_choice", choice_from_wire),
    "thinking": ("thinking", _thinking),
    "output_config": ("output_config", _output_config),
    "output_format": ("output_format", _format),
}
ROWS: dict[str, tuple[str, Check]] = {
    **COUNT_ROWS,
    "max_tokens": ("max_tokens", integer(0, _INT32)),
    "temperature": ("temperature", number(0, 1)),
    "top_p": ("top_p", number(0, 1)),
    "top_k": ("top_k", integer(0, _INT32)),
    "stop_sequences": ("stop", _stop_sequences),
    "metadata": ("user", _metadata),
    "stream": ("stream", boolean),
}
"""Wire name to our name and the check, for every field that has a meaning of its own."""

OWN_FIELDS = frozenset(
    [
        "cache_control",
        "container",
        "context_management",
        "diagnostics",
        "inference_geo",
        "service_tier",
        "speed",
        "thinking",
        "output_config",
    ]
)
"""Fields for Anthropic's own services and accounts: a backend of another format has nothing to do
for them, and answers without."""

LOSSES: Mapping[str, str] = {
    "messages.name": "turns have no names",
    "messages.tool_name": "a result names its call by id alone",
    "messages.refusal": "told as text, where the turn has no other",
    "messages.reasoning": "taken back only with the signature that came with it",
    "messages.reasoning_parts.part_id": "pieces of other providers cannot be read there",
    "messages.content.detail": "images have no such setting",
    "messages.content.audio": "refused: there are no recordings",
    "messages.content.media_type": "text of every kind is text/plain; other files are refused",
    "messages.order": "blocks of an assistant's turn are sorted: reasoning, text, calls",
    "messages.system": "system turns at the beginning become one",
    "seed": "refused",
    "n": "refused above 1",
    "min_p": "refused",
    "frequency_penalty": "refused",
    "presence_penalty": "refused",
    "repetition_penalty": "refused",
    "logit_bias": "refused",
    "logprobs": "refused",
    "top_logprobs": "refused",
    "prompt": "refused: there are no text completions",
    "suffix": "left out: there are no text completions",
    "echo": "left out: there are no text completions",
    "response_format": "a JSON Schema goes without its name; 'json_object' is refused",
    "reasoning_effort": "'minimal' is 'low'",
    "answer.choices": "there is one answer",
    "answer.logprobs": "none are given",
    "answer.refusal": "told as text, with the stop reason 'refusal'",
    "answer.created": "answers have no date",
    "answer.system_fingerprint": "answers have none",
    "answer.provider_fields": "answers have no fields of others",
    "answer.citations": "we have no place for them; the text stands without",
    "answer.raw_finish_reason": "told in Anthropic's own words",
    "answer.usage.total_tokens": "left to be added up",
}
"""What the format, or our reading of it, has no place for (see ``wire.losses``)."""


def read_request(body: bytes) -> Inbound:
    """The request in a caller's ``body``, or LLMInvalidRequestError naming the field."""
    wire = decode_object(body)
    known, options = read_settings(wire, ROWS)
    if "max_tokens" not in known:
        refuse_absence("max_tokens", "how many tokens the answer may have")
    stream = known.pop("stream", False)
    return Inbound(
        request=_request(known, options),
        stream=stream,
        include_usage=True,
        tells_cache=b'"cache_control"' in body,
        dropped=unplaced(wire),
    )


def write_request(
    request: LLMRequest,
    *,
    model: str | None = None,
    stream: bool,
    include_usage: bool = True,
    dialect: object = None,
) -> bytes:
    """``request`` as a body for a backend that knows the request's model as ``model``."""
    body = _body(request, model)
    body.pop("stream", None)
    if stream:
        body["stream"] = True
    return encode(body)


def read_count_request(body: bytes) -> Inbound:
    """The request in a caller's ``body`` that asks for the prompt's length alone."""
    wire = decode_object(body)
    known, options = read_settings(wire, COUNT_ROWS)
    return Inbound(request=_request(known, options), dropped=unplaced(wire))


def write_count_request(request: LLMRequest, *, model: str | None = None) -> bytes:
    """The body that asks a backend for the length of the prompt of ``request``."""
    body = _body(request, model)
    return encode({name: body[name] for name in _COUNTED if name in body})


def read_count(body: bytes) -> int:
    """The number of tokens in a backend's answer."""
    wire = decode_reply(body)
    count = wire.get("input_tokens") if isinstance(wire, dict) else None
    if type(count) is not int:
        raise LLMBadResponseError("The backend's count has no number 'input_tokens'.")
    return count


def write_count(tokens: int) -> bytes:
    """The answer that says how many ``tokens`` a prompt has."""
    return encode({"input_tokens": tokens})


def answer_id(given: str | None, fresh: str) -> str:
    """The id of an answer: the backend's where it is of this form, else one made of ``fresh``."""
    return given if given is not None and given.startswith("msg_") else f"msg_{fresh}"


def _request(known: dict[str, Any], options: dict[str, Any]) -> LLMRequest:
    for name, right in (("model", "the model's name"), ("messages", "an array of messages")):
        if name not in known:
            refuse_absence(name, right)
    system = known.pop("system", None)
    if system is not None:
        known["messages"] = (system, *known["messages"])
    if "tool_choice" in known:
        known["tool_choice"], known["parallel_tool_calls"] = known["tool_choice"]
        check_choice(known["tool_choice"], known.get("tools", ()))
    config = known.pop("output_config", {})
    effort, schema = config.pop("effort", None), config.pop("format", None)
    older = known.pop("output_format", None)
    schema = older if schema is None else schema
    if schema is not None:
        known["response_schema"] = schema
    thinking = known.pop("thinking", None)
    effort = _effort(thinking, effort, options, config)
    if effort is not None:
        known["reasoning_effort"] = effort
    if config:
        options["output_config"] = config
    return LLMRequest(**known, provider_options=options)


def _effort(
    thinking: dict[str, Any] | None,
    effort: str | None,
    options: dict[str, Any],
    config: dict[str, Any],
) -> str | None:
    """The effort that both settings mean; what it does not say stays in ``options``."""
    if thinking is None:
        return effort
    if thinking["type"] == "disabled":
        if effort is not None:
            config["effort"] = effort
        return "none"
    if thinking == {"type": "adaptive"}:
        return effort or _USUAL_EFFORT
    options["thinking"] = thinking
    if thinking["type"] != "enabled":
        return effort or _USUAL_EFFORT
    if effort is not None:
        config["effort"] = effort
        return effort
    budget = thinking["budget_tokens"]
    return next((word for most, word in _EFFORT_OF_BUDGET if budget <= most), _USUAL_EFFORT)


def _body(request: LLMRequest, model: str | None) -> dict[str, Any]:
    if not request.messages:
        raise LLMInvalidRequestError("A chat request needs at least one message.", param="messages")
    _refuse_loose_json(request)
    options = request.provider_options
    thinking, config = _reasoning(request)
    budget = thinking.get("budget_tokens") if thinking else None
    usual = USUAL_MAX_TOKENS + (budget if type(budget) is int else 0)
    body: dict[str, Any] = {
        "model": request.model if model is None else model,
        "max_tokens": usual if request.max_tokens is None else request.max_tokens,
        **conversation_to_wire(request.messages),
        **_settings(request),
    }
    if request.response_schema is not None:
        config["format"] = {"type": "json_schema", "schema": request.response_schema}
    if thinking is not None:
        body["thinking"] = thinking
    if config:
        body["output_config"] = config
    for name, value in options.items():
        ours = body.get(name)
        if name in ("output_config", "metadata") and isinstance(ours, dict):
            body[name] = {**ours, **value} if isinstance(value, dict) else value
        else:
            body[name] = value
    return body


def _settings(request: LLMRequest) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for name in ("temperature", "top_p"):
        if getattr(request, name) is not None:
            body[name] = getattr(request, name)
    if request.top_k is not None and request.top_k > 0:
        body["top_k"] = request.top_k
    if request.stop:
        body["stop_sequences"] = request.stop
    if request.tools:
        body["tools"] = tools_to_wire(request.tools)
    choice = choice_to_wire(request.tool_choice, request.parallel_tool_calls)
    if choice is not None:
        body["tool_choice"] = choice
    if request.user is not None:
        body["metadata"] = {"user_id": request.user}
    return body


def _reasoning(request: LLMRequest) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """``thinking`` and the ``output_config`` that say the request's effort."""
    effort, own = request.reasoning_effort, request.provider_options.get("thinking")
    if isinstance(own, dict):
        # A budget of tokens says how much by itself.
        says_more = effort in (None, "none") or own.get("type") == "enabled"
        return own, {} if says_more else {"effort": _word(effort)}
    if effort is None:
        return None, {}
    if effort == "none":
        return {"type": "disabled"}, {}
    return {"type": "adaptive"}, {"effort": _word(effort)}


def _word(effort: ReasoningEffort | None) -> str | None:
    return "low" if effort == "minimal" else effort


def _refuse_loose_json(request: LLMRequest) -> None:
    kind = (request.response_format or {}).get("type", "text")
    if kind != "text" and request.response_schema is None:
        raise LLMCapabilityError(
            f"Anthropic's messages have no 'response_format' {kind!r}; give a JSON Schema, or ask "
            "for JSON in words.",
            param="response_format",
        )
