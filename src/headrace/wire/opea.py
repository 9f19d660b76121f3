"""OPEA's services: OpenAI's chats, with streams of their own making.

The chat microservice (https://github.com/opea-project/GenAIComps, comps/llms) is asked and answers as
OpenAI's chat completions. The megaservices around it (https://github.com/opea-project/GenAIExamples:
ChatQnA, CodeGen, DocSum) take the same body at a route of their own, stream unless they are told not
to, and write each piece of text as Python writes bytes: ``data: b' text'``. Nothing in such a stream
tells why it ended or what it used.
"""

from __future__ import annotations

import ast
import codecs
from collections.abc import Collection
from typing import Any

from headrace.contracts.errors import LLMBadResponseError
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMDelta, LLMResponse
from headrace.wire import openai_chat, sse
from headrace.wire.assemble import whole
from headrace.wire.inbound import Inbound
from headrace.wire.json import decode_object, decode_reply, encode, shorten
from headrace.wire.openai_answers import read_response as read_openai
from headrace.wire.openai_chat import (
    LOSSES,
    OWN_FIELDS,
    PING,
    STREAM_TYPE,
    answer_id,
    read_error,
    status_of,
    stream_writer,
    write_error,
    write_response,
)
from headrace.wire.openai_params import COMMON, Dialect
from headrace.wire.openai_stream import StreamReader as OpenAIReader

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


def read_request(body: bytes) -> Inbound:
    """The request in a caller's ``body``; ``messages`` may be one text."""
    wire = decode_object(body)
    if isinstance(wire.get("messages"), str):
        wire["messages"] = [{"role": "user", "content": wire["messages"]}]
        body = encode(wire)
    return openai_chat.read_request(body)


def write_request(
    request: LLMRequest,
    *,
    model: str | None = None,
    stream: bool,
    include_usage: bool = True,
    dialect: Dialect = COMMON,
) -> bytes:
    """``request`` as a body; that it shall not be streamed has to be said."""
    body = openai_chat.write_request(
        request, model=model, stream=stream, include_usage=include_usage, dialect=dialect
    )
    return body if stream else body[:-1] + b',"stream":false}'


def read_response(body: bytes, *, keep: Collection[str] = ()) -> LLMResponse:
    """The answer in a service's body; some services answer with a text alone."""
    wire = decode_reply(body)
    if isinstance(wire, dict) and isinstance(wire.get("text"), str):
        return LLMResponse(text=wire["text"], finish_reason="other")
    return read_openai(body, keep=keep)


def read_whole(body: bytes, *, keep: Collection[str] = ()) -> list[LLMDelta]:
    """The same as deltas, for those who only put them together."""
    return whole(read_response(body, keep=keep))


def stream_reader(keep: Collection[str] = ()) -> StreamReader:
    """Reads the bytes of one streamed answer, of either kind."""
    return StreamReader(keep)


class StreamReader:
    """Bytes as Python writes them, OpenAI's chunks, or the patches of LangChain's log."""

    def __init__(self, keep: Collection[str] = ()) -> None:
        self._events = sse.Reader()
        self._chunks = OpenAIReader(keep)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._said = self._chunked = self.done = False

    def feed(self, data: bytes) -> list[LLMDelta]:
        """The deltas that ``data`` completes."""
        return [
            delta for event in self._events.feed(data) for delta in self._read(event.data.strip())
        ]

    def close(self) -> list[LLMDelta]:
        """Ends the stream; raises where it was cut short."""
        if self._chunked:
            return self._chunks.close()
        if not self.done:
            raise LLMBadResponseError(
                "The backend's stream was cut short: it ended without [DONE]."
                if self._said
                else "The backend's stream ended before it said anything."
            )
        rest = self._decoder.decode(b"", True)
        ended = LLMDelta(text_delta=rest or None, finish_reason="other")
        return [ended]

    def _read(self, data: bytes) -> list[LLMDelta]:
        if self.done or not data:
            return []
        if data == b"[DONE]":
            self.done = True
            return self._chunks.feed(b"data: [DONE]\n\n") if self._chunked else []
        if data.startswith((b"b'", b'b"')):
            return self._text(self._decoder.decode(_bytes_in(data)))
        if data.startswith(b"{"):
            wire = decode_reply(data)
            if "ops" in wire:
                return self._text(_patched(wire["ops"]))
            self._chunked = True
            return self._chunks.feed(b"data: " + data + b"\n\n")
        raise LLMBadResponseError(
            f"The backend's stream has an event that is neither bytes nor JSON: "
            f"{shorten(data[:60].decode('utf-8', 'replace'))}."
        )

    def _text(self, text: str) -> list[LLMDelta]:
        self._said = True
        return [LLMDelta(text_delta=text)] if text else []


def _bytes_in(data: bytes) -> bytes:
    """What ``data``, bytes as Python writes them, says."""
    try:
        found = ast.literal_eval(data.decode("utf-8", "replace"))
        if isinstance(found, bytes):
            return found
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    # The refusals of guardrails stand between such quotes as they are, whatever is in them.
    return data[2:-1] if data[-1:] == data[1:2] and len(data) > 2 else data[2:]


def _patched(ops: Any) -> str:
    first = ops[0] if isinstance(ops, list) and ops else None
    value = first.get("value") if isinstance(first, dict) else None
    return value if isinstance(value, str) else ""
