"""OpenAI's chat completions: requests, answers and streams, each way.

https://platform.openai.com/docs/api-reference/chat. A field that we do not know goes into
``provider_options`` and from there into a backend's body, as it came.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMChoice, LLMDelta, LLMResponse
from headrace.wire.assemble import choices_of
from headrace.wire.inbound import Inbound
from headrace.wire.json import decode_object, encode
from headrace.wire.openai_answers import (
    chat_logprobs_to_wire,
    read_response,
    read_whole,
)
from headrace.wire.openai_envelope import write_answer
from headrace.wire.openai_errors import read_error, status_of, write_error
from headrace.wire.openai_fields import (
    Check,
    boolean,
    integer,
    mapping,
    member,
    one_of,
    refuse,
    refuse_absence,
    says,
)
from headrace.wire.openai_messages import messages_from_wire, messages_to_wire, tool_call_to_wire
from headrace.wire.openai_params import (
    COMMON,
    OWN_FIELDS,
    SHARED,
    Dialect,
    finish_body,
    read_settings,
    read_stream_options,
    write_settings,
)
from headrace.wire.openai_stream import StreamReader, StreamWriter
from headrace.wire.openai_tools import (
    check_choice,
    check_schema,
    choice_from_wire,
    choice_to_wire,
    function_call_from_wire,
    functions_from_wire,
    tools_from_wire,
    tools_to_wire,
)
from headrace.wire.sse import STREAM_TYPE

__all__ = [
    "OWN_FIELDS",
    "PING",
    "STREAM_TYPE",
    "answer_id",
    "read_error",
    "read_request",
    "read_response",
    "read_whole",
    "status_of",
    "stream_reader",
    "stream_writer",
    "write_error",
    "write_request",
    "write_response",
]

_FORMATS = one_of("text", "json_object", "json_schema")


@says(
    {
        "type": "object",
        "required": ["type"],
        "properties": {
            "type": {"type": "string", "enum": ["text", "json_object", "json_schema"]},
            "json_schema": {
                "type": "object",
                "required": ["schema"],
                "properties": {
                    "name": {"type": "string"},
                    "schema": {"type": "object"},
                    "strict": {"type": "boolean"},
                },
            },
        },
    }
)
def _response_format(value: Any, path: str) -> dict[str, Any]:
    kind = member(mapping(value, path), "type", path, _FORMATS, "'text' or 'json_schema'")
    if kind == "json_schema":
        described = member(value, "json_schema", path, mapping, "an object with a 'schema'")
        if described.get("schema") is not None:
            check_schema(described["schema"], f"{path}.json_schema.schema")
    elif kind == "json_object" and value.get("schema") is not None:
        mapping(value["schema"], f"{path}.schema")
        check_schema(value["schema"], f"{path}.schema")
    return dict(value)


ROWS: dict[str, tuple[str, Check]] = {
    **SHARED,
    "messages": ("messages", messages_from_wire),
    "max_completion_tokens": ("max_completion_tokens", SHARED["max_tokens"][1]),
    "tools": ("tools", tools_from_wire),
    "functions": ("functions", functions_from_wire),
    "tool_choice": ("tool_choice", choice_from_wire),
    "function_call": ("function_call", function_call_from_wire),
    "parallel_tool_calls": ("parallel_tool_calls", boolean),
    "response_format": ("response_format", _response_format),
    "logprobs": ("logprobs", boolean),
    "top_logprobs": ("top_logprobs", integer(0, 20)),
    "reasoning_effort": (
        "reasoning_effort",
        one_of("none", "minimal", "low", "medium", "high", "xhigh", "max"),
    ),
    "stream": ("stream", boolean),
    "stream_options": ("include_usage", read_stream_options),
}
"""Wire name to our name and the check, for every field that has a meaning of its own."""

LOSSES: Mapping[str, str] = {
    "messages.tool_error": "a result has no such mark: what the tool said must tell",
    "messages.reasoning_parts": "reasoning goes as one text, without seals",
    "messages.content.cache": "there are no cache marks: providers of this format cache unasked",
    "messages.content.url": "refused for files, which go by their bytes or their id",
    "tools.cache": "there are no cache marks: providers of this format cache unasked",
    "prompt": "refused: text completions have a format of their own",
    "suffix": "left out: text completions have a format of their own",
    "echo": "left out: text completions have a format of their own",
    "answer.reasoning_parts": "reasoning goes as one text, without seals",
    "answer.stop_sequence": "the reason is 'stop', whether a stop string ended it or the model",
    "answer.raw_finish_reason": "told in OpenAI's own words",
}
"""What the format has no place for (see ``wire.losses``)."""

PING: bytes | None = None
"""OpenAI's streams have no event that means nothing."""


def read_request(body: bytes) -> Inbound:
    """The request in a caller's ``body``, or LLMInvalidRequestError naming the field."""
    known, options = read_settings(decode_object(body), ROWS)
    if "messages" not in known:
        refuse_absence("messages", "an array of messages")
    stream = known.pop("stream", False)
    include_usage = known.pop("include_usage", False)
    if "max_completion_tokens" in known:
        known["max_tokens"] = known.pop("max_completion_tokens")
    if "functions" in known or "function_call" in known:
        _translate_functions(known)
    if known.get("top_logprobs") is not None and not known.get("logprobs"):
        refuse("top_logprobs", known["top_logprobs"], "'logprobs': true beside it")
    check_choice(known.get("tool_choice"), known.get("tools", ()))
    if "response_format" in known:
        known["response_schema"] = _schema_of(known["response_format"])
    return Inbound(
        request=LLMRequest(**known, provider_options=options),
        stream=stream,
        include_usage=include_usage,
    )


def write_request(
    request: LLMRequest,
    *,
    model: str | None = None,
    stream: bool,
    include_usage: bool = True,
    dialect: Dialect = COMMON,
) -> bytes:
    """``request`` as a body for a backend that knows the request's model as ``model``."""
    if not request.messages:
        raise LLMInvalidRequestError("A chat request needs at least one message.", param="messages")
    body = write_settings(request, model, dialect)
    body["messages"] = messages_to_wire(
        request.messages, dialect.reasoning, marks_prefix=dialect.marks_prefix
    )
    if request.stop:
        body |= dialect.beside_stop
    if request.tools:
        body["tools"] = tools_to_wire(request.tools)
    if request.tool_choice is not None:
        body["tool_choice"] = choice_to_wire(request.tool_choice)
    for name in ("parallel_tool_calls", "logprobs", "top_logprobs", "reasoning_effort"):
        if (value := getattr(request, name)) is not None:
            body[name] = value
    if dialect.counted_logprobs and body.pop("logprobs", None):
        body["logprobs"] = body.pop("top_logprobs", None) or 1
    response_format = _format_to_wire(request)
    if response_format is not None:
        body["response_format"] = response_format
    return encode(finish_body(body, request, stream=stream, include_usage=include_usage))


def write_response(
    response: LLMResponse,
    *,
    response_id: str | None = None,
    model: str | None = None,
    created: int | None = None,
    system_fingerprint: str | None = None,
) -> bytes:
    """``response`` as a body; what is handed in replaces what the response itself says."""
    return write_answer(
        "chat.completion",
        [_choice_to_wire(choice) for choice in choices_of(response)],
        response,
        response_id=response_id,
        model=model,
        created=created,
        system_fingerprint=system_fingerprint,
    )


def answer_id(given: str | None, fresh: str) -> str:
    """The id of an answer: the backend's, else one made of ``fresh``."""
    return given or f"chatcmpl-{fresh}"


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
) -> StreamWriter:
    """Writes the bytes of one streamed answer."""
    return StreamWriter(
        _ChatForm(),
        response_id=response_id,
        model=model,
        created=created,
        include_usage=include_usage,
        system_fingerprint=system_fingerprint,
    )


class _ChatForm:
    object_name = "chat.completion.chunk"

    def opening(self, index: int) -> dict[str, Any]:
        return _chunk_choice(index, {"role": "assistant", "content": None})

    def around_text(self, index: int) -> tuple[bytes, bytes]:
        before, _, after = encode(_chunk_choice(index, {"content": ""})).partition(b'""')
        return before, after

    def choice(self, delta: LLMDelta) -> dict[str, Any]:
        message: dict[str, Any] = {}
        if delta.text_delta is not None:
            message["content"] = delta.text_delta
        if delta.reasoning_delta is not None:
            message["reasoning_content"] = delta.reasoning_delta
        if delta.refusal_delta is not None:
            message["refusal"] = delta.refusal_delta
        if delta.tool_call_delta is not None:
            piece = delta.tool_call_delta
            call: dict[str, Any] = {"index": piece.index}
            if piece.call_id is not None:
                call |= {"id": piece.call_id, "type": "function"}
            function = {"name": piece.name, "arguments": piece.arguments_json_delta or ""}
            if piece.name is None:
                del function["name"]
            message["tool_calls"] = [call | {"function": function}]
        wire = _chunk_choice(delta.index, message)
        wire["finish_reason"] = delta.finish_reason
        if delta.logprobs is not None:
            refused = delta.refusal_delta is not None and delta.text_delta is None
            wire["logprobs"] = chat_logprobs_to_wire(delta.logprobs, refusal=refused)
        return wire


def _chunk_choice(index: int, delta: dict[str, Any]) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}


def _choice_to_wire(choice: LLMChoice) -> dict[str, Any]:
    # Null content tells "nothing was said" from "an empty text was said", where calls say it all.
    said_otherwise = not choice.text and (choice.tool_calls or choice.refusal)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if said_otherwise else choice.text,
        "refusal": choice.refusal,
    }
    if choice.reasoning is not None:
        message["reasoning_content"] = choice.reasoning
    if choice.tool_calls:
        message["tool_calls"] = [tool_call_to_wire(call) for call in choice.tool_calls]
    logprobs = None
    if choice.logprobs is not None:
        refused = choice.refusal is not None and not choice.text
        logprobs = chat_logprobs_to_wire(choice.logprobs, refusal=refused)
    return {
        "index": choice.index,
        "message": message,
        "logprobs": logprobs,
        "finish_reason": choice.finish_reason,
    }


def _schema_of(response_format: dict[str, Any]) -> dict[str, Any] | None:
    """The schema in a response format, also where llama.cpp has it."""
    described = response_format.get("json_schema", response_format)
    schema = described.get("schema")
    return schema if type(schema) is dict else None


def _format_to_wire(request: LLMRequest) -> dict[str, Any] | None:
    """The request's own response format, unless only its schema says what is wanted."""
    own = request.response_format
    schema = request.response_schema
    if schema is None or (own is not None and ("json_schema" in own or "schema" in own)):
        return own
    return {"type": "json_schema", "json_schema": {"name": "response", "schema": schema}}


def _translate_functions(known: dict[str, Any]) -> None:
    """``functions`` and ``function_call`` as the ``tools`` and ``tool_choice`` that replaced them."""
    tools = known.get("tools", ())
    named = {tool.name for tool in tools}
    functions = (each for each in known.pop("functions", ()) if each.name not in named)
    known["tools"] = (*tools, *functions)
    choice = known.pop("function_call", None)
    if choice is not None:
        known.setdefault("tool_choice", choice)
