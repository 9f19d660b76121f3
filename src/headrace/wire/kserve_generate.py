"""Triton's generate extension: a text in, what follows it out, whole or as events.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_generate.md. Its
fields beside ``text_input`` are the model's own; those here are of Triton's backends for vLLM and
TensorRT-LLM (see ``kserve_text``). The model stands in the address.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from headrace.contracts.errors import LLMBadResponseError, LLMError, LLMInvalidRequestError
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMDelta, LLMResponse, Usage
from headrace.wire import sse
from headrace.wire.assemble import choices_of, whole
from headrace.wire.inbound import Inbound
from headrace.wire.json import decode_object, decode_reply, encode
from headrace.wire.kserve import status_of, write_error
from headrace.wire.kserve_text import (
    TEXT_INPUT,
    TEXT_OUTPUT,
    VERSION,
    finish_reason_of,
    read_settings,
    settings_to_wire,
    usage_of,
)
from headrace.wire.openai_errors import error_from_wire, read_error
from headrace.wire.openai_fields import mapping, refuse_absence, text
from headrace.wire.openai_params import COMMON, OWN_FIELDS, Dialect
from headrace.wire.sse import STREAM_TYPE

__all__ = [
    "LOSSES",
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

LOSSES: Mapping[str, str] = {
    "messages": "a prompt is text: refused, unless the provider's row says how one is made of them",
    "model": "it stands in the address",
    "tools": "there are none",
    "tool_choice": "there are none",
    "parallel_tool_calls": "there are none",
    "response_schema": "there are no formats",
    "response_format": "there are no formats",
    "suffix": "there is none",
    "reasoning_effort": "there is no reasoning",
    "logit_bias": "there is none",
    "logprobs": "they come as text that each backend writes in its own way",
    "top_logprobs": "they come as text that each backend writes in its own way",
    "n": "an answer is one text",
    "user": "there is none",
    "answer.tool_calls": "there are none",
    "answer.reasoning": "there is none",
    "answer.reasoning_parts": "there is none",
    "answer.refusal": "there is none",
    "answer.response_id": "an answer has none",
    "answer.created": "an answer has no date",
    "answer.choices": "an answer is one text",
    "answer.logprobs": "they come as text that each backend writes in its own way",
    "answer.stop_sequence": "the reason is 'stop', whether a stop string ended it or the model",
    "answer.raw_finish_reason": "told in vLLM's own words",
    "answer.system_fingerprint": "there is none",
    "answer.provider_fields": "there are none",
    "answer.usage": "what comes of a cache, or is reasoning, is not told apart",
}
"""What the format has no place for (see ``wire.losses``)."""

PING: bytes | None = None
"""A stream has no event that means nothing."""


def read_request(body: bytes) -> Inbound:
    """The request in a caller's ``body``, or LLMInvalidRequestError naming the field.

    Whether to stream is said by the address; a caller who also asks for it here is told apart by
    ``stream``.
    """
    wire = decode_object(body)
    prompt = wire.pop(TEXT_INPUT, None)
    if prompt is None:
        refuse_absence(TEXT_INPUT, "a string")
    nested = wire.pop("parameters", None)
    wire.pop("id", None)
    settings, options, dropped = read_settings(wire, "")
    if nested is not None:
        inner = read_settings(mapping(nested, "parameters"))
        settings |= inner[0]
        options |= inner[1]
        dropped += inner[2]
    stream = settings.pop("stream", False)
    exclude = settings.pop("exclude_input", True)
    request = LLMRequest(
        messages=(),
        prompt=text(prompt, TEXT_INPUT),
        echo=None if exclude else True,
        provider_options=options,
        **settings,
    )
    return Inbound(request=request, stream=stream, include_usage=True, dropped=dropped)


def write_request(
    request: LLMRequest,
    *,
    model: str | None = None,
    stream: bool,
    include_usage: bool = True,
    dialect: Dialect = COMMON,
) -> bytes:
    """``request`` as a body for a backend; the address has the model, and says whether to stream."""
    if not isinstance(request.prompt, str):
        raise LLMInvalidRequestError(
            "the backend continues one text: send a prompt as text", param="prompt"
        )
    body: dict[str, object] = {TEXT_INPUT: request.prompt, **settings_to_wire(request, dialect)}
    if request.echo is not None:
        body["exclude_input_in_output"] = not request.echo
    body.update(request.provider_options)
    body.pop("stream", None)
    if stream:
        body["stream"] = True
    return encode(body)


def read_response(body: bytes, *, keep: Collection[str] = ()) -> LLMResponse:
    """The completion in a backend's answer; ``keep`` is nothing that it could tell."""
    wire = _object(decode_reply(body))
    told = _reason(wire)
    return LLMResponse(
        text=_text(wire),
        model=_name(wire),
        finish_reason=finish_reason_of(told),
        raw_finish_reason=told,
        usage=usage_of(_count(wire, "num_input_tokens"), _count(wire, "num_output_tokens")),
    )


def read_whole(body: bytes, *, keep: Collection[str] = ()) -> list[LLMDelta]:
    """The same as deltas, for those who only put them together."""
    return whole(read_response(body))


def write_response(
    response: LLMResponse,
    *,
    response_id: str | None = None,
    model: str | None = None,
    created: int | None = None,
    system_fingerprint: str | None = None,
) -> bytes:
    """``response`` as a body; ``model`` replaces what the response itself says."""
    choice = choices_of(response)[0]
    wire: dict[str, object] = {
        "model_name": model or response.model or "",
        "model_version": VERSION,
        TEXT_OUTPUT: choice.text,
    }
    return encode(wire | _end(choice.finish_reason, response.usage))


def answer_id(given: str | None, fresh: str) -> str:
    """The id of an answer, which is nowhere told."""
    return given or fresh


def stream_reader(keep: Collection[str] = ()) -> StreamReader:
    """Reads the bytes of one streamed answer."""
    return StreamReader()


def stream_writer(
    *,
    response_id: str,
    model: str,
    created: int,
    include_usage: bool = False,
    system_fingerprint: str | None = None,
) -> StreamWriter:
    """Writes the bytes of one streamed answer."""
    return StreamWriter(model)


class StreamReader:
    """Events, each with the text that is new; the counts of what came out are of each event alone."""

    def __init__(self) -> None:
        self._events = sse.Reader()
        self.done = False
        self._said = False
        self._reason: str | None = None
        self._in: int | None = None
        self._out: int | None = None
        self._model: str | None = None

    def feed(self, data: bytes) -> list[LLMDelta]:
        """The deltas that ``data`` completes."""
        return [delta for event in self._events.feed(data) for delta in self._read(event.data)]

    def close(self) -> list[LLMDelta]:
        """Ends the stream. No event says that it is the last."""
        if not self._said:
            raise LLMBadResponseError("The backend's stream ended before it said anything.")
        return [
            LLMDelta(
                finish_reason=finish_reason_of(self._reason),  # type: ignore[arg-type]
                raw_finish_reason=self._reason,
                usage_delta=usage_of(self._in, self._out),
                model=self._model,
            )
        ]

    def _read(self, data: bytes) -> list[LLMDelta]:
        self.done = self.done or data == b"[DONE]"
        if not data or self.done:
            return []
        wire = _object(decode_reply(data))
        self._said = True
        self._model = self._model or _name(wire)
        told = _reason(wire)
        self._reason = self._reason if told in (None, "None") else told
        tokens_in, tokens_out = _count(wire, "num_input_tokens"), _count(wire, "num_output_tokens")
        self._in = self._in if tokens_in is None else tokens_in
        if tokens_out is not None:
            self._out = (self._out or 0) + tokens_out
        said = _text(wire)
        return [LLMDelta(text_delta=said, model=self._model)] if said else []


class StreamWriter:
    """Each piece of text is an event; the last one is empty and says how it ended."""

    def __init__(self, model: str) -> None:
        before, _, after = encode(
            {"model_name": model, "model_version": VERSION, TEXT_OUTPUT: ""}
        ).rpartition(b'""')
        self._before, self._after = b"data: " + before, after + b"\n\n"
        self._head = before + b'""'
        self._reason: str | None = None
        self._usage: Usage | None = None

    def write(self, delta: LLMDelta) -> bytes:
        """The bytes for ``delta``."""
        self._reason = delta.finish_reason or self._reason
        self._usage = delta.usage_delta or self._usage
        if not delta.text_delta:
            return b""
        return self._before + encode(delta.text_delta) + self._after

    def finish(self) -> bytes:
        """The last bytes of a stream that ended well."""
        ended = encode(_end(self._reason, self._usage))[1:-1]
        return b"data: " + self._head + (b"," + ended if ended else b"") + b"}\n\n"

    def error(self, error: LLMError) -> bytes:
        """The last bytes of one that did not."""
        return sse.write(write_error(error))


def _end(reason: str | None, usage: Usage | dict[str, int] | None) -> dict[str, object]:
    """How it ended, as far as anybody told."""
    wire: dict[str, object] = {} if reason is None else {"finish_reason": reason}
    if isinstance(usage, Usage):
        for name, count in (
            ("num_input_tokens", usage.prompt_tokens),
            ("num_output_tokens", usage.completion_tokens),
        ):
            if count is not None:
                wire[name] = count
    return wire


def _object(wire: Any) -> dict[str, Any]:
    if not isinstance(wire, dict):
        raise LLMBadResponseError("The backend's answer is no JSON object.")
    if wire.get("error") is not None:
        raise error_from_wire(None, wire)
    return wire


def _text(wire: dict[str, Any]) -> str:
    said = _first(wire.get(TEXT_OUTPUT))
    if not isinstance(said, str):
        raise LLMBadResponseError(f"The backend's answer has no text {TEXT_OUTPUT!r}.")
    return said


def _reason(wire: dict[str, Any]) -> str | None:
    told = _first(wire.get("finish_reason"))
    return told if isinstance(told, str) and told else None


def _count(wire: dict[str, Any], name: str) -> int | None:
    told = _first(wire.get(name))
    return told if type(told) is int else None


def _name(wire: dict[str, Any]) -> str | None:
    name = wire.get("model_name")
    return name if isinstance(name, str) and name else None


def _first(value: Any) -> Any:
    """A tensor of one element comes as that, one of several as an array."""
    return value[0] if isinstance(value, list) and value else value
