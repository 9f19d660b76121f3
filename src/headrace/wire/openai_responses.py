"""The Responses API: requests, answers and streams, each way.

https://platform.openai.com/docs/api-reference/responses and https://www.openresponses.org, which
requires more fields than OpenAI's clients read; what is written here meets both. What is kept
between calls (``previous_response_id``, references to items) is the gateway's affair: it hands
what it finds to ``with_history``. Sampling settings that OpenAI lacks here and engines have
(``stop``, ``seed``, ``top_k``, ...) are taken under their usual names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from attrs import evolve, field, frozen

from headrace.contracts.errors import LLMCapabilityError, LLMInvalidRequestError
from headrace.contracts.messages import LLMMessage
from headrace.contracts.quick import changed
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMResponse
from headrace.wire.inbound import Inbound
from headrace.wire.json import decode_object, encode
from headrace.wire.openai_errors import read_error, write_error
from headrace.wire.openai_fields import Check, boolean, filled_text, integer, one_of, refuse, text
from headrace.wire.openai_params import (
    CARRIED,
    HINTS,
    RESPONSES,
    SHARED,
    Dialect,
    read_settings,
    write_settings,
)
from headrace.wire.openai_params import OWN_FIELDS as CHAT_FIELDS
from headrace.wire.openai_responses_answers import StreamReader, read_response, read_whole
from headrace.wire.openai_responses_envelope import ended, envelope, output_of, status_of
from headrace.wire.openai_responses_items import (
    has_recording,
    input_from_wire,
    items_from_messages,
    messages_from_items,
    references,
    user_item,
)
from headrace.wire.openai_responses_settings import (
    ENCRYPTED,
    LOGPROBS,
    choice_from_wire,
    choice_to_wire,
    choose,
    format_of,
    include_from_wire,
    not_here,
    reasoning_from_wire,
    stream_options_from_wire,
    text_from_wire,
    text_to_wire,
    tools_from_wire,
    tools_to_wire,
)
from headrace.wire.openai_responses_stream import StreamWriter
from headrace.wire.sse import STREAM_TYPE

__all__ = [
    "HINTS",
    "LOSSES",
    "OWN_FIELDS",
    "PING",
    "ROWS",
    "STREAM_TYPE",
    "ResponsesInbound",
    "answer_id",
    "read_error",
    "read_request",
    "read_response",
    "read_whole",
    "stream_reader",
    "stream_writer",
    "with_history",
    "write_error",
    "write_request",
    "write_response",
]

OWN_FIELDS = CHAT_FIELDS | HINTS
"""As those of chat completions."""

PING: bytes | None = None
"""There is no event that means nothing."""

LOSSES: Mapping[str, str] = {
    "messages.name": "a message has no field for its speaker's name",
    "messages.tool_name": "an output names the call that it answers, not the tool",
    "messages.tool_error": "an output has no mark for failure; what the tool said must tell",
    "messages.content.cache": "no part can be marked for the prompt cache; a request has one key",
    "messages.reasoning_parts.signature": "a signature is another provider's seal, which this one could not "
    "read; callers get it back within encrypted_content",
    "tools.cache": "as messages.content.cache",
    "prompt": "refused: a conversation is asked, never the continuation of a text",
    "suffix": "left out: it belongs to text completions",
    "echo": "left out: it belongs to text completions",
    "n": "refused by the rows of this format: a response is one answer",
    "answer.choices": "a response is one answer",
    "answer.raw_finish_reason": "a status, and a reason where it is incomplete, is all",
    "answer.stop_sequence": "there is no field for it",
    "answer.system_fingerprint": "there is no field for it",
    "answer.logprobs": "those of a refusal have no place; a token's bytes are always written",
}
"""What the contract says and this format cannot, and why."""

ROWS: dict[str, tuple[str, Check]] = {
    "model": SHARED["model"],
    "input": ("items", input_from_wire),
    "instructions": ("instructions", text),
    "previous_response_id": ("previous_response_id", filled_text),
    "tools": ("tools", tools_from_wire),
    "tool_choice": ("tool_choice", choice_from_wire),
    "parallel_tool_calls": ("parallel_tool_calls", boolean),
    "max_tool_calls": ("max_tool_calls", integer(0, 2**31 - 1)),
    "text": ("text", text_from_wire),
    "reasoning": ("reasoning", reasoning_from_wire),
    "include": ("include", include_from_wire),
    "top_logprobs": ("top_logprobs", integer(0, 20)),
    "max_output_tokens": ("max_tokens", SHARED["max_tokens"][1]),
    "truncation": ("truncation", one_of("auto", "disabled")),
    "store": ("store", boolean),
    "background": ("background", boolean),
    "metadata": ("metadata", CARRIED["metadata"]),
    "service_tier": (
        "service_tier",
        one_of("auto", "default", "flex", "scale", "priority"),
    ),
    "safety_identifier": ("safety_identifier", text),
    "prompt_cache_key": ("prompt_cache_key", text),
    "stream": ("stream", boolean),
    "stream_options": ("obfuscate", stream_options_from_wire),
    "n": ("n", integer(1, 1)),
    **{name: row for name, row in SHARED.items() if name not in ("model", "max_tokens", "n")},
    "conversation": (
        "conversation",
        not_here(
            "no conversations are kept; name the response to go on from as "
            "'previous_response_id', or send all of it as 'input'"
        ),
    ),
    "prompt": ("prompt", not_here("no prompts are kept; send its text as 'instructions'")),
    "context_management": (
        "context_management",
        not_here("nothing is compacted here; send what the model shall see as 'input'"),
    ),
}
"""Wire name to our name and the check, for every field that has a meaning of its own."""

_REPEATED = (
    "previous_response_id",
    "instructions",
    "truncation",
    "parallel_tool_calls",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "top_logprobs",
    "temperature",
    "reasoning",
    "max_tool_calls",
    "store",
    "background",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
    "user",
    "tool_choice",
)


@frozen(kw_only=True)
class ResponsesInbound(Inbound):
    """A request of the Responses API, with what the gateway needs beyond the request itself.

    ``items`` are the input's. ``request`` holds their messages, and those of what they refer to
    once ``with_history`` was told of it. ``asked`` is what the response repeats.
    """

    items: tuple[dict[str, Any], ...] = ()
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool = True
    background: bool = False
    asked: dict[str, Any] = field(factory=dict)

    @property
    def references(self) -> tuple[str, ...]:
        """The ids of items that the input refers to and that were not found yet."""
        return references(self.items)


def read_request(body: bytes) -> ResponsesInbound:
    """The request in a caller's ``body``, or LLMInvalidRequestError naming the field.

    No field is required: where there is no input, the user says nothing.
    """
    known, options = read_settings(decode_object(body), ROWS)
    asked = {name: known[name] for name in _REPEATED if name in known}
    items = known.pop("items", None)
    if items is None:
        items = (user_item(""),)
    instructions = known.pop("instructions", None)
    tools = known.pop("tools", ())
    asked["tools"] = tools_to_wire(tools)
    choice, tools = choose(known.pop("tool_choice", None), tools)
    form = known.pop("text", {})
    asked["text"] = text_to_wire(form.get("format"), form.get("verbosity"))
    if "max_tokens" in known:
        asked["max_output_tokens"] = known["max_tokens"]
    dropped = ("stream_options.include_obfuscation",) if known.pop("obfuscate", False) else ()
    reasoning = known.pop("reasoning", {})
    options |= _options(known, form, reasoning)
    include = known.pop("include", ())
    top_logprobs = known.pop("top_logprobs", None)
    wants = True if LOGPROBS in include or top_logprobs else None
    response_format = form.get("format")
    described = (response_format or {}).get("json_schema")
    inbound = ResponsesInbound(
        stream=known.pop("stream", False),
        include_usage=True,
        dropped=dropped,
        items=items,
        instructions=instructions,
        previous_response_id=known.pop("previous_response_id", None),
        store=known.pop("store", True),
        background=known.pop("background", False),
        asked=asked,
        request=LLMRequest(
            messages=(),
            tools=tools,
            tool_choice=choice,
            response_format=response_format,
            response_schema=described and described["schema"],
            logprobs=wants,
            top_logprobs=top_logprobs if wants else None,
            reasoning_effort=reasoning.get("effort"),
            provider_options=options,
            **known,
        ),
    )
    return with_history(inbound, (), {})


def with_history(
    inbound: ResponsesInbound,
    history: Sequence[dict[str, Any]],
    found: Mapping[str, dict[str, Any]],
) -> ResponsesInbound:
    """``inbound`` asked behind the items of ``history``, with the items that it refers to put in.

    ``found`` has those by their id. What is not among them is left out until it is found.
    """
    items = tuple(
        found.get(item["id"], item) if item["type"] == "item_reference" else item
        for item in inbound.items
    )
    own = messages_from_items(items)  # so that an error's path is the caller's own
    messages = messages_from_items([*history, *items]) if history else own
    if inbound.instructions is not None:
        messages.insert(0, LLMMessage(role="system", content=inbound.instructions))
    waits = inbound.previous_response_id is not None or bool(inbound.references)
    if not messages and not waits:
        refuse("input", [], "at least one item, or a text")
    request = changed(inbound.request, messages=tuple(messages))
    return evolve(inbound, items=items, request=request)


def write_request(
    request: LLMRequest,
    *,
    model: str | None = None,
    stream: bool,
    include_usage: bool = True,
    dialect: Dialect = RESPONSES,
) -> bytes:
    """``request`` as a body for a backend that knows the request's model as ``model``.

    Usage comes unasked. Nothing is left at the backend, unless the request's options say ``store``.
    There is no place for ``n``: a row of this format refuses it.
    """
    if not request.messages:
        raise LLMInvalidRequestError("A chat request needs at least one message.", param="messages")
    if not dialect.audio and any(has_recording(message) for message in request.messages):
        raise LLMCapabilityError(
            "a recording has no place in the Responses format; ask a provider of chat completions",
            param="messages",
        )
    options = dict(request.provider_options)
    body = write_settings(request, model, dialect)
    body.pop("n", None)
    body["input"] = items_from_messages(request.messages, reasoning=dialect.reasoning is not None)
    if request.tools:
        body["tools"] = tools_to_wire(request.tools)
    if request.tool_choice is not None:
        body["tool_choice"] = choice_to_wire(request.tool_choice)
    if request.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = request.parallel_tool_calls
    include = [LOGPROBS] if request.logprobs else []
    if request.logprobs and request.top_logprobs is not None:
        body["top_logprobs"] = request.top_logprobs
    form, verbosity = format_of(request), options.pop("verbosity", None)
    if form is not None or verbosity is not None:
        body["text"] = said = text_to_wire(form, verbosity)
        said["format"] = {key: each for key, each in said["format"].items() if each is not None}
    summary = options.pop("reasoning_summary", None)
    told = {"effort": request.reasoning_effort, "summary": summary}
    reasoning = {name: value for name, value in told.items() if value is not None}
    if reasoning:
        body["reasoning"] = reasoning
    if request.reasoning_effort not in (None, "none") or any(
        part.encrypted for message in request.messages for part in message.reasoning_parts
    ):
        # What is not kept there must come back here, or the next turn could not show it.
        include.append(ENCRYPTED)
    if include:
        body["include"] = include
    body["store"] = False
    body.update(options)
    body.pop("stream", None)
    if stream:
        body["stream"] = True
    return encode(body)


def write_response(
    response: LLMResponse,
    *,
    response_id: str | None = None,
    model: str | None = None,
    created: int | None = None,
    system_fingerprint: str | None = None,
    asked: Mapping[str, Any] | None = None,
    completed_at: int | None = None,
) -> bytes:
    """``response`` as a body; what is handed in replaces what the response itself says.

    ``asked`` is what it repeats of its request; ``completed_at`` is in Unix seconds.
    """
    whole = response_id or response.response_id or ""
    begun = envelope(
        response_id=whole,
        model=model or response.model or "",
        created=(response.created or 0) if created is None else created,
        asked=asked,
    )
    reason = response.finish_reason
    output = output_of(response, whole.removeprefix("resp_"), status_of(reason))
    wire = ended(begun, reason, output, response.usage, completed_at)
    return encode(wire | (response.provider_fields or {}))


def answer_id(given: str | None, fresh: str) -> str:
    """The id of an answer: always one of ours, made of ``fresh``, for it is kept under it."""
    return f"resp_{fresh}"


def stream_reader(keep: Collection[str] = ()) -> StreamReader:
    """Reads the bytes of one streamed answer; ``keep`` names the provider's own fields wanted."""
    return StreamReader(keep)


def stream_writer(
    *,
    response_id: str,
    model: str,
    created: int,
    include_usage: bool = False,
    system_fingerprint: str | None = None,
    asked: Mapping[str, Any] | None = None,
) -> StreamWriter:
    """Writes the bytes of one streamed answer; usage always stands in its last event."""
    return StreamWriter(
        envelope(response_id=response_id, model=model, created=created, asked=asked)
    )


def _options(
    known: dict[str, Any], form: Mapping[str, Any], reasoning: Mapping[str, Any]
) -> dict[str, Any]:
    """Takes out of ``known`` what is for the backend to understand, and not for us."""
    options = {
        "verbosity": form.get("verbosity"),
        "reasoning_summary": reasoning.get("summary"),
        "truncation": known.pop("truncation", None),
        "service_tier": known.pop("service_tier", None),
        "safety_identifier": known.pop("safety_identifier", None),
        "prompt_cache_key": known.pop("prompt_cache_key", None),
    }
    # Neither asks for anything that would not happen anyway.
    if options["truncation"] == "disabled":
        del options["truncation"]
    if options.get("service_tier") in ("auto", "default"):
        del options["service_tier"]
    for name in ("max_tool_calls", "metadata"):  # of hosted tools; kept with the response
        known.pop(name, None)
    return {name: value for name, value in options.items() if value is not None}
