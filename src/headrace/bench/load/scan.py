"""What an answer says, for the record only: when its pieces of output came, usage, how it ended.

The codecs of ``wire`` read it. But a stream's events differ in their text alone, and reading each
one would cost more than all else that the sender does. So once an event with output was read, its
shape is kept: what stands before the text and what stands after it. The next event that begins and
ends with the same bytes and has no quotation mark between them is the same JSON with another text,
and is counted without being read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from msgspec import DecodeError, Raw, Struct, json

from headrace.bench.load.framing import SHORTEST, Framed
from headrace.contracts.errors import LLMBadResponseError, LLMInvalidRequestError
from headrace.contracts.load import Kind
from headrace.contracts.responses import LLMDelta, Usage
from headrace.wire.json import bad_reply
from headrace.wire.openai_answers import UsageWire, usage_from_wire
from headrace.wire.openai_errors import error_from_wire

CODECS: dict[Kind, str] = {
    "chat": "headrace.wire.openai_chat",
    "completions": "headrace.wire.openai_completions",
    "responses": "headrace.wire.openai_responses",
    "messages": "headrace.wire.anthropic",
    "embeddings": "headrace.wire.openai_chat",  # for its errors alone, here and in the next
    "rerank": "headrace.wire.openai_chat",
}

MOST_BODY_BYTES = 64 * 1024 * 1024
_MARK = "\u2042mark\u2042"
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_UNFIT = 4
"""Events with output whose shape was not to be had, after which a stream is read in full."""


class Answer(Framed):
    """One answer of a ``kind``.

    ``pieces`` are the instants of its pieces of output: of each, when the first byte of its event
    came. ``coalesced`` counts those that have the instant of the piece before. ``text`` is kept
    where ``keeps_text`` asks for it.
    """

    __slots__ = (
        "_body",
        "_clean",
        "_codec",
        "_end_of_shape",
        "_held",
        "_kind",
        "_reader",
        "_shape",
        "_shape_length",
        "_since",
        "_tail",
        "_unfit",
        "coalesced",
        "finish_reason",
        "keeps_text",
        "model",
        "pieces",
        "texts",
        "usage",
    )

    def __init__(self, kind: Kind, *, keeps_text: bool = False) -> None:
        super().__init__()
        self.pieces: list[float] = []
        self.coalesced = 0
        self.usage: Usage | None = None
        self.finish_reason: str | None = None
        self.model: str | None = None
        self.keeps_text = keeps_text
        self.texts: list[str] = []
        self._kind: Kind = kind
        self._codec: Any = import_module(CODECS[kind])
        self._reader: Any = None
        self._body: list[bytes] = []
        self._held = 0
        self._clean = True  # all that came was whole events
        self._since = 0.0  # when the event that is being read began to come
        self._tail = b""
        self._shape: bytes | None = None
        self._shape_length = 0
        self._end_of_shape = b""
        self._unfit = _UNFIT if keeps_text else 0

    @property
    def text(self) -> str:
        """What was said, where it was kept."""
        return "".join(self.texts)

    @property
    def streamed(self) -> bool:
        """Whether the answer came as events."""
        return self._reader is not None

    def head_came(self) -> None:
        if self.status == 200 and self.headers.get("content-type", "").lower().startswith(
            "text/event-stream"
        ):
            self._reader = self._codec.stream_reader()

    def body_came(self, piece: bytes) -> None:
        if self._reader is None:
            self._held += len(piece)
            if self._held > MOST_BODY_BYTES:
                raise LLMBadResponseError(f"an answer of more than {MOST_BODY_BYTES} bytes")
            self._body.append(piece)
        elif not (self._clean and piece.endswith(b"\n\n")):
            self._read_in_parts(piece)
        else:
            self._since = self.at
            if piece.find(b"\n\n") == len(piece) - 2:
                self._event(piece)
            else:
                for block in piece[:-2].split(b"\n\n"):
                    self._event(block + b"\n\n")

    def body_ended(self) -> None:
        if self._reader is not None:
            self._reader.close()
            return
        body = b"".join(self._body)
        self._body = []
        if self.status is not None and 300 <= self.status < 400:
            raise redirected(self.status, self.headers)
        if self.status is None or not 200 <= self.status < 300:
            raise self._codec.read_error(self.status or 502, body, self.headers)
        if self._kind in ("embeddings", "rerank"):
            self._count(body)
        else:
            for delta in self._codec.read_whole(body):
                self._note(delta)

    def _event(self, event: bytes) -> None:
        """One whole event with its blank line, its lines ended by line feeds as a rule."""
        shape = self._shape
        if shape is not None and event.startswith(shape):
            end = event.find(b'"', self._shape_length)
            tail = self._end_of_shape
            if (
                end > self._shape_length
                and end == len(event) - len(tail)
                and event.endswith(tail)
                and event[end - 1] != 0x5C  # a backslash: the quotation mark is part of the text
            ):
                self._came()
                return
        before = len(self.pieces)
        deltas = self._read(event)
        if len(self.pieces) == before + 1 and len(deltas) == 1 and self._unfit < _UNFIT:
            self._keep_shape(event, deltas[0])

    def _read_in_parts(self, data: bytes) -> None:
        """Events that do not come one by one and whole, each with the instant of its first byte."""
        while data:
            if self._clean:
                self._since = self.at
            end = _BLANK_LINE.search(self._tail + data)
            here = len(data) if end is None else end.end() - len(self._tail)
            event, data = data[:here], data[here:]
            self._read(event)
            # Line ends without a line belong to the event before: a cut came between them.
            self._clean = end is not None or (self._clean and not event.strip(b"\r\n"))
            self._tail = b"" if self._clean else (self._tail + event)[-3:]

    def _read(self, data: bytes) -> list[LLMDelta]:
        deltas: list[LLMDelta] = self._reader.feed(data)
        for delta in deltas:
            if self._note(delta):
                self._came()
        if self._reader.done:
            self._shape, self._unfit = None, _UNFIT
        return deltas

    def _came(self) -> None:
        pieces = self.pieces
        if pieces and pieces[-1] == self._since:
            self.coalesced += 1
        pieces.append(self._since)

    def _note(self, delta: LLMDelta) -> bool:
        """Writes down what ``delta`` tells; whether it holds output."""
        if delta.usage_delta is not None:
            self.usage = delta.usage_delta
        if delta.finish_reason is not None:
            self.finish_reason = delta.finish_reason
        if self.model is None:
            self.model = delta.model
        if self.keeps_text and delta.text_delta and not delta.index:
            self.texts.append(delta.text_delta)
        return output_of(delta) is not None

    def _keep_shape(self, event: bytes, delta: LLMDelta) -> None:
        self._shape = None
        said = output_of(delta)
        if said is None or not said.isascii() or '"' in said or "\\" in said:
            return  # written in more ways than one: the next text will be plainer
        found = None
        if delta.usage_delta is None and delta.finish_reason is None and delta.logprobs is None:
            found = _shape_of(event, said)
        if found is None:
            self._unfit += 1
            return
        self._shape, self._end_of_shape = found
        self._shape_length = len(self._shape)
        least = max(SHORTEST, self._shape_length + len(self._end_of_shape))
        self.shortest = least if self.shortest == SHORTEST else min(self.shortest, least)

    def _count(self, body: bytes) -> None:
        """Of vectors and ranks nothing is read but what they cost, and whether they are there."""
        try:
            answer = _decode_counted(body)
        except (DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise bad_reply(body, error) from error
        if answer.error:
            raise error_from_wire(None, {"error": answer.error})
        if not any(bytes(each).startswith(b"[") for each in (answer.data, answer.results)):
            raise LLMBadResponseError(
                f"the answer to {self._kind} has neither 'data' nor 'results': {body[:200]!r}"
            )
        self.usage = usage_from_wire(answer.usage)
        self.model = answer.model


def redirected(status: int, headers: Mapping[str, str]) -> LLMInvalidRequestError:
    """The error for an answer that sends elsewhere: what is measured is what was named."""
    where = headers.get("location", "")[:300]
    said = f"it sends to {where!r}" if where else "it does not say where to"
    return LLMInvalidRequestError(
        f"the target redirects ({status}): {said}; redirects are not followed, so give the URL "
        "that answers",
        param="url",
        status=status,
    )


class _Counted(Struct, gc=False):
    data: Raw = Raw(b"null")
    results: Raw = Raw(b"null")
    model: str | None = None
    usage: UsageWire | None = None
    error: Any = None


_decode_counted = json.Decoder(_Counted).decode


def output_of(delta: LLMDelta) -> str | None:
    """The output in ``delta``: text, reasoning, a refusal, or a piece of a call's arguments."""
    said = delta.text_delta or delta.reasoning_delta or delta.refusal_delta
    if not said and delta.tool_call_delta is not None:
        said = delta.tool_call_delta.arguments_json_delta
    return said or None


def _shape_of(event: bytes, said: str) -> tuple[bytes, bytes] | None:
    """What stands before and after the text ``said`` in ``event``; None where that is not sure.

    It is sure where the text stands in one place only, and where another text put between the same
    bytes gives the same JSON but for the text.
    """
    head, found, data = event.partition(b"data: ")
    if not found or b"\n" in data[:-2] or b"\r" in event:
        return None
    written = json.encode(said)[1:-1]
    begin = event.find(b'"' + written + b'"', len(head)) + 1
    if not begin or event.find(b'"', begin) != begin + len(written):
        return None
    before, after = event[:begin], event[begin + len(written) :]
    marked = before + json.encode(_MARK)[1:-1] + after
    try:
        was = json.decode(data)
        became = json.decode(marked[len(head) + 6 :])
    except (DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if _texts(was).count(said) != 1 or _texts(became).count(_MARK) != 1:
        return None
    return (before, after) if _replaced(became, said) == was else None


def _texts(node: Any) -> list[str]:
    if isinstance(node, dict):
        return [text for each in node.values() for text in _texts(each)]
    if isinstance(node, list):
        return [text for each in node for text in _texts(each)]
    return [node] if isinstance(node, str) else []


def _replaced(node: Any, said: str) -> Any:
    if isinstance(node, dict):
        return {name: _replaced(each, said) for name, each in node.items()}
    if isinstance(node, list):
        return [_replaced(each, said) for each in node]
    return said if node == _MARK else node
