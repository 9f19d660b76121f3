"""OpenAI's text completions, the older format: a prompt in, its continuation out.

https://platform.openai.com/docs/api-reference/completions. A body may bring several prompts, which
``inbound.requests`` gives one by one; the answers of prompt ``p`` have the indexes from ``p * n``.
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
from headrace.wire.openai_answers import read_response, read_whole, text_logprobs_to_wire
from headrace.wire.openai_envelope import write_answer
from headrace.wire.openai_errors import read_error, status_of, write_error
from headrace.wire.openai_fields import (
    Check,
    boolean,
    integer,
    refuse,
    refuse_absence,
    refuse_type,
    says,
    schema_of,
    text,
)
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

Prompt = str | tuple[int, ...]

_token_id = integer(0, 2**31 - 1)
_tokens_schema = {"type": "array", "minItems": 1, "items": schema_of(_token_id)}


@says(
    {
        "anyOf": [
            {"type": "string"},
            {"type": "array", "minItems": 1, "items": {"type": "string"}},
            _tokens_schema,
            {"type": "array", "minItems": 1, "items": _tokens_schema},
        ]
    }
)
def _prompts(value: Any, path: str) -> tuple[Prompt, ...]:
    if type(value) is str:
        return (value,)
    if type(value) is not list:
        refuse_type(path, value, "a string, an array of token ids, or an array of either")
    if not value:
        refuse(path, value, "at least one prompt")
    if type(value[0]) is int or type(value[0]) is float:
        return (_tokens(value, path),)
    return tuple(
        each if type(each) is str else _tokens(each, f"{path}[{i}]") for i, each in enumerate(value)
    )


def _tokens(value: Any, path: str) -> tuple[int, ...]:
    if type(value) is not list:
        refuse_type(path, value, "a string or an array of token ids")
    if not value:
        refuse(path, value, "an array of at least one token id")
    return tuple(_token_id(each, f"{path}[{i}]") for i, each in enumerate(value))


ROWS: dict[str, tuple[str, Check]] = {
    **SHARED,
    "prompt": ("prompts", _prompts),
    "suffix": ("suffix", text),
    "echo": ("echo", boolean),
    "logprobs": ("top_logprobs", integer(0, 20)),
    "stream": ("stream", boolean),
    "stream_options": ("include_usage", read_stream_options),
}

LOSSES: Mapping[str, str] = {
    "messages": "refused: a prompt is text or token ids",
    "tools": "left out: there are none",
    "tool_choice": "left out: there are none",
    "parallel_tool_calls": "left out: there are none",
    "response_schema": "left out: there are no formats",
    "response_format": "left out: there are no formats",
    "reasoning_effort": "left out: there is no reasoning",
    "answer.tool_calls": "there are none",
    "answer.reasoning": "there is none",
    "answer.reasoning_parts": "there is none",
    "answer.refusal": "there is none",
    "answer.stop_sequence": "the reason is 'stop', whether a stop string ended it or the model",
    "answer.raw_finish_reason": "told in OpenAI's own words",
}
"""What the format has no place for (see ``wire.losses``)."""

PING: bytes | None = None
"""OpenAI's streams have no event that means nothing."""


def read_request(body: bytes) -> Inbound:
    """The request in a caller's ``body``, or LLMInvalidRequestError naming the field."""
    known, options = read_settings(decode_object(body), ROWS)
    prompts = known.pop("prompts", None)
    if prompts is None:
        refuse_absence("prompt", "a string, an array of token ids, or an array of either")
    if "top_logprobs" in known:
        known["logprobs"] = True
    stream = known.pop("stream", False)
    include_usage = known.pop("include_usage", False)
    best_of = options.get("best_of")
    if best_of and best_of < known.get("n", 1):
        refuse("best_of", best_of, f"at least 'n', which is {known['n']}")
    if best_of and best_of > 1 and stream:
        refuse("best_of", best_of, "1 where 'stream' is true: what is best shows at the end")
    return Inbound(
        request=LLMRequest(messages=(), prompt=prompts[0], provider_options=options, **known),
        stream=stream,
        include_usage=include_usage,
        prompts=prompts,
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
    if request.prompt is None:
        raise LLMInvalidRequestError("A text completion needs a prompt.", param="prompt")
    body = write_settings(request, model, dialect)
    if dialect.max_tokens in body:  # only chat has another name for it
        body["max_tokens"] = body.pop(dialect.max_tokens)
    body["prompt"] = request.prompt
    for name in ("suffix", "echo"):
        if getattr(request, name) is not None:
            body[name] = getattr(request, name)
    if request.logprobs:
        body["logprobs"] = request.top_logprobs or 0
    if request.stop:
        body.update(dialect.beside_stop)
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
        "text_completion",
        [_choice_to_wire(choice) for choice in choices_of(response)],
        response,
        response_id=response_id,
        model=model,
        created=created,
        system_fingerprint=system_fingerprint,
    )


def answer_id(given: str | None, fresh: str) -> str:
    """The id of an answer: the backend's, else one made of ``fresh``."""
    # llama.cpp calls a text completion ``chatcmpl`` too.
    return (given or f"cmpl-{fresh}").removeprefix("chat")


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
        _TextForm(),
        response_id=response_id,
        model=model,
        created=created,
        include_usage=include_usage,
        system_fingerprint=system_fingerprint,
    )


class _TextForm:
    object_name = "text_completion"

    def __init__(self) -> None:
        self._offsets: dict[int, int] = {}

    def opening(self, index: int) -> None:
        """Text completions just begin."""

    def around_text(self, index: int) -> tuple[bytes, bytes]:
        wire = {"index": index, "text": "", "logprobs": None, "finish_reason": None}
        before, _, after = encode(wire).partition(b'""')
        return before, after

    def choice(self, delta: LLMDelta) -> dict[str, Any]:
        logprobs = None
        if delta.logprobs is not None:
            offset = self._offsets.get(delta.index, 0)
            logprobs = text_logprobs_to_wire(delta.logprobs, offset)
            self._offsets[delta.index] = offset + len(delta.text_delta or "")
        return {
            "index": delta.index,
            "text": delta.text_delta or "",
            "logprobs": logprobs,
            "finish_reason": delta.finish_reason,
        }


def _choice_to_wire(choice: LLMChoice) -> dict[str, Any]:
    logprobs = None
    if choice.logprobs is not None:
        # An echoed prompt stands before the tokens and has no log probabilities.
        said = "".join(each.token for each in choice.logprobs)
        before = len(choice.text) - len(said) if choice.text.endswith(said) else 0
        logprobs = text_logprobs_to_wire(choice.logprobs, before)
    return {
        "index": choice.index,
        "text": choice.text,
        "logprobs": logprobs,
        "finish_reason": choice.finish_reason,
    }
