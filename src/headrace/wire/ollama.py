"""Ollama's own chat: requests, answers and streams, each way.

https://docs.ollama.com/api/chat, and ``api/types.go`` of its source. A field that we do not know
goes into ``provider_options`` and from there into a backend's body, as it came.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMDelta, LLMResponse
from headrace.wire.assemble import whole
from headrace.wire.inbound import Inbound
from headrace.wire.json import decode_object, encode
from headrace.wire.ndjson import STREAM_TYPE
from headrace.wire.ollama_answers import ChatForm, Durations, read_answer, write_answer
from headrace.wire.ollama_errors import read_error, status_of, write_error
from headrace.wire.ollama_messages import messages_from_wire, messages_to_wire
from headrace.wire.ollama_settings import (
    OWN_FIELDS,
    finish_body,
    settings_from_wire,
    settings_to_wire,
)
from headrace.wire.ollama_settings import ROWS as SETTINGS
from headrace.wire.ollama_stream import StreamReader, StreamWriter
from headrace.wire.openai_fields import Check, refuse_absence
from headrace.wire.openai_tools import tools_from_wire, tools_to_wire

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

ROWS: dict[str, tuple[str, Check]] = {
    **SETTINGS,
    "messages": ("messages", messages_from_wire),
    "tools": ("tools", tools_from_wire),
}
"""Wire name to our name and the check, for every field that has a meaning of its own."""

LOSSES: Mapping[str, str] = {
    "messages.content": "texts of one turn are one text, and its images stand behind it; an image "
    "by its URL is refused",
    "messages.content.detail": "images have no such setting",
    "messages.content.audio": "refused: there are no recordings",
    "messages.content.data": "refused: there are no files",
    "messages.content.filename": "refused: there are no files",
    "messages.content.media_type": "refused: there are no files",
    "messages.content.file_id": "refused: there are no files",
    "messages.content.url": "refused: there are no files",
    "messages.content.cache": "there are no cache marks: the server caches unasked",
    "messages.name": "turns have no names",
    "messages.tool_error": "a result has no such mark: what the tool said must tell",
    "messages.refusal": "told as text, where the turn has no other",
    "messages.reasoning_parts": "reasoning goes as one text, without seals",
    "tools.cache": "there are no cache marks: the server caches unasked",
    "tools.strict": "there is no such mark: a model calls as it sees fit",
    "tool_choice": "refused: a model calls as it sees fit",
    "parallel_tool_calls": "left out and told of: a model calls as often as it sees fit",
    "logit_bias": "refused",
    "n": "refused above 1",
    "user": "left out and told of",
    "response_format": "a JSON Schema goes without its name",
    "reasoning_effort": "'minimal' is 'low', and 'xhigh' is 'high'",
    "prompt": "refused: text completions have a format of their own",
    "suffix": "left out: text completions have a format of their own",
    "echo": "left out: text completions have a format of their own",
    "answer.choices": "there is one answer",
    "answer.response_id": "answers have no id",
    "answer.refusal": "told as text",
    "answer.reasoning_parts": "reasoning goes as one text, without seals",
    "answer.stop_sequence": "the reason is 'stop', whether a stop string ended it or the model",
    "answer.raw_finish_reason": "told in Ollama's own words",
    "answer.usage": "one count for the prompt and one for the answer, with no parts",
    "answer.system_fingerprint": "answers have none",
    "answer.provider_fields": "none but durations",
}
"""What the format has no place for (see ``wire.losses``)."""

PING: bytes | None = None
"""Ollama's streams have no line that means nothing."""


def read_request(body: bytes) -> Inbound:
    """The request in a caller's ``body``, or LLMInvalidRequestError naming the field.

    One without messages is a wish to have the model loaded.
    """
    known, options = settings_from_wire(decode_object(body), ROWS)
    if "model" not in known:
        refuse_absence("model", "the model's name")
    known.setdefault("messages", ())
    stream = known.pop("stream", True)
    return Inbound(
        request=LLMRequest(**known, provider_options=options), stream=stream, include_usage=True
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
    if not request.messages:
        raise LLMInvalidRequestError("A chat request needs at least one message.", param="messages")
    body = settings_to_wire(request, model)
    body["messages"] = messages_to_wire(request.messages)
    if request.tools:
        body["tools"] = _tools_to_wire(request)
    return encode(finish_body(body, stream=stream))


def read_response(body: bytes, *, keep_raw: bool = False, keep: object = ()) -> LLMResponse:
    """A whole answer; ``keep_raw`` keeps the payload as ``raw``. Its times are always kept."""
    return read_answer(body, keep_raw=keep_raw)


def read_whole(body: bytes, *, keep: object = ()) -> list[LLMDelta]:
    """A whole answer in as few deltas as can hold it, for those who only put them together."""
    return whole(read_answer(body))


def write_response(
    response: LLMResponse,
    *,
    response_id: str | None = None,
    model: str | None = None,
    created: float | None = None,
    system_fingerprint: str | None = None,
    durations: Durations | None = None,
) -> bytes:
    """``response`` as a body; what is handed in replaces what the response itself says."""
    return write_answer(ChatForm(), response, model=model, created=created, durations=durations)


def answer_id(given: str | None, fresh: str) -> str:
    """The id of an answer, which nobody is told: the backend's, else ``fresh``."""
    return given or fresh


def stream_reader(keep: Collection[str] = ()) -> StreamReader:
    """Reads the bytes of one streamed answer."""
    return StreamReader()


def stream_writer(
    *,
    response_id: str,
    model: str,
    created: float,
    include_usage: bool = False,
    system_fingerprint: str | None = None,
    now: Callable[[], float] | None = None,
) -> StreamWriter:
    """Writes the bytes of one streamed answer; its counts are always told.

    Each line says when it was made, by ``now``; without that all of them say ``created``.
    """
    return StreamWriter(ChatForm(), model=model, now=now or (lambda: created))


def _tools_to_wire(request: LLMRequest) -> list[dict[str, Any]]:
    wire: list[dict[str, Any]] = tools_to_wire(request.tools)
    for tool in wire:
        tool["function"].pop("strict", None)
    return wire
