"""Chat completions on their way through: what is read of them where they are not translated.

Where the caller's format is the backend's, only what routing and the record need is looked at. A
request is read into one strict shape and written again from it, so that what goes on holds no key
twice and nothing unknown; whatever does not fit the shape is for ``openai_chat``, which says what is
wrong with it, or carries it out. An answer goes on as the bytes that came.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from msgspec import DecodeError, Meta, Struct, ValidationError, json

from headrace.contracts.errors import LLMBadResponseError, LLMError
from headrace.contracts.responses import FinishReason, Usage
from headrace.wire import sse
from headrace.wire.json import bad_reply, decode_reply
from headrace.wire.openai_answers import (
    AnswerWire,
    ChoiceWire,
    answer_error,
    decode_answer,
    finish_reason_from_wire,
    usage_from_wire,
)
from headrace.wire.openai_errors import error_from_wire
from headrace.wire.openai_params import Dialect

_MOST_TOKENS = 2**31 - 1
_Penalty = Annotated[float, Meta(ge=-2, le=2)]
_Count = Annotated[int, Meta(ge=0, le=_MOST_TOKENS)]


class _TextPart(
    Struct, tag_field="type", tag="text", forbid_unknown_fields=True, gc=False, frozen=True
):
    text: str


class _Message(Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    role: Literal["system", "user", "assistant"]
    content: str | list[_TextPart]
    name: str | None = None


class _StreamOptions(Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    include_usage: bool | None = None


class PassingChat(Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A chat request of the usual kind: text, and settings that mean the same everywhere.

    Tools are not among them: their calls are put right on the way back, for many servers number
    them wrongly.
    """

    messages: Annotated[list[_Message], Meta(min_length=1)]
    model: str | None = None
    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=_MOST_TOKENS)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: str | list[str] | None = None
    frequency_penalty: _Penalty | None = None
    presence_penalty: _Penalty | None = None
    repetition_penalty: Annotated[float, Meta(ge=0, le=1000)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    n: Literal[1] | None = None
    user: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None

    @property
    def answer_tokens(self) -> int | None:
        """The most tokens that the answer may have."""
        most = self.max_completion_tokens
        return self.max_tokens if most is None else most


SETTINGS = frozenset(PassingChat.__struct_fields__)
"""The wire names of all that a passing request may hold."""

_USAGE_TOO = _StreamOptions(include_usage=True)
_decode = json.Decoder(PassingChat).decode
_encode = json.Encoder().encode


def read_passing(body: bytes) -> PassingChat | None:
    """The request in ``body``; ``None`` where it is not of the usual kind, or not right."""
    try:
        request = _decode(body)
    except (ValidationError, DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if request.top_logprobs is not None and not request.logprobs:
        return None
    return request


def write_passing(
    request: PassingChat, model: str | None, dialect: Dialect, *, include_usage: bool
) -> bytes | None:
    """``request`` for a backend, in its words; ``None`` where it cannot be said as it is.

    ``include_usage`` asks for token counts at a stream's end, whether the caller did or not. The
    request is changed by it: it belongs to one exchange.
    """
    request.model = model
    most = request.answer_tokens
    if most is not None:
        request.max_tokens = request.max_completion_tokens = None
        setattr(request, dialect.max_tokens, most)
    if not request.stream:
        request.stream = request.stream_options = None
    elif include_usage:
        request.stream_options = _USAGE_TOO
    try:
        return _encode(request)
    except UnicodeEncodeError:  # a lone surrogate
        return None


class PassingAnswer:
    """What the record tells of an answer that went by: ``read_whole`` or ``feed`` fill it."""

    __slots__ = ("finish_reason", "model", "usage")

    def __init__(self) -> None:
        self.model: str | None = None
        self.usage: Usage | None = None
        self.finish_reason: FinishReason | None = None

    def read_whole(self, body: bytes) -> bool:
        """Look through a whole answer; whether it is one that can go on as it is.

        Raises LLMBadResponseError where it is no answer, and the error that it holds where it is
        one.
        """
        answer = _decoded(body)
        failure = answer_error(answer, body)
        if failure is not None:
            raise failure
        choices = answer.choices
        if not choices or any(choice.message is None for choice in choices):
            return False
        self.model = answer.model
        self.usage = usage_from_wire(answer.usage or choices[0].usage)
        self.finish_reason = finish_reason_from_wire(choices[0].finish_reason or None)
        return True


_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n|\Z))(?:\r\n|\n|\r(?!\n|\Z))")
_DONE = b"data: [DONE]\n\n"


class PassingStream(PassingAnswer):
    """A streamed answer on its way through, event by whole event.

    ``begun`` turns true with the first piece of output; ``chunks`` counts them. ``hides_usage``
    keeps the chunk back that holds nothing but token counts, for a caller who did not ask for it.
    What came before an error is given first; the error is in ``failure`` then.
    """

    __slots__ = (
        "_answered",
        "_done",
        "_events",
        "_finished",
        "_hides_usage",
        "_raw",
        "begun",
        "chunks",
        "failure",
    )

    def __init__(self, *, hides_usage: bool) -> None:
        super().__init__()
        self.begun = False
        self.chunks = 0
        self.failure: LLMError | None = None
        self._hides_usage = hides_usage
        self._answered = self._done = self._finished = False
        self._raw = b""
        # Only where the events do not come whole, or their lines end in other ways than usual.
        self._events: sse.Reader | None = None

    def feed(self, data: bytes) -> bytes:
        """What may go on to the caller now that ``data`` came."""
        if self.failure is not None or self._done:
            return b""
        try:
            if self._events is None and _is_usual(data):
                return self._usual(data)
            return self._unusual(data)
        except LLMError as error:
            self.failure = error
            return b""

    def close(self) -> bytes:
        """The end of a stream that came to its end; raises where it was cut short."""
        last = b""
        if self._events is not None and self.failure is None and not self._done:
            # Its last line end, a lone CR, may have been the first half of one.
            read = [self._event_goes_on(event) for event in self._events.feed(self._raw)]
            if any(read):
                last = self._raw
        if self.failure is not None:
            raise self.failure
        if not self._answered:
            raise LLMBadResponseError("The backend's stream ended before it said anything.")
        if not self._done and not self._finished:
            raise LLMBadResponseError(
                "The backend's stream was cut short: it ended with neither a finish reason "
                "nor [DONE]."
            )
        return last + _DONE

    def _usual(self, data: bytes) -> bytes:
        """Whole events of one line of data each: nearly every server's, nearly always."""
        blocks = data.split(b"\n\n")
        if len(blocks) == 2 and b"\n" not in blocks[0]:  # one event, the usual piece
            return data if self._goes_on(blocks[0][6:]) else b""
        kept = 0
        for place, block in enumerate(blocks[:-1]):
            if not block.startswith(b"data: ") or b"\n" in block:
                rest = b"\n\n".join(blocks[place:])
                return b"".join(each + b"\n\n" for each in blocks[:kept]) + self._unusual(rest)
            try:
                goes_on = self._goes_on(block[6:])
            except LLMError as error:
                self.failure = error
                break
            if goes_on:
                blocks[kept] = block
                kept += 1
            elif self._done:
                break
        if kept == len(blocks) - 1:
            return data
        return b"".join(each + b"\n\n" for each in blocks[:kept])

    def _unusual(self, data: bytes) -> bytes:
        """The same where events are cut or look otherwise: they go on by whole events as well."""
        if self._events is None:
            self._events = sse.Reader()
        raw = self._raw + data
        seam = 0
        out: list[bytes] = []
        for end in _BLANK_LINE.finditer(raw):
            block = raw[seam : end.end()]
            seam = end.end()
            try:
                read = [self._event_goes_on(event) for event in self._events.feed(block)]
            except LLMError as error:
                self.failure = error
                self._raw = b""
                return b"".join(out)
            if self._done:
                break
            if not read or any(read):
                out.append(block)
        self._raw = raw[seam:]
        if not self._raw:
            self._events = None
        if len(self._raw) > sse.MAX_EVENT_BYTES:
            raise LLMBadResponseError(
                f"An event of the stream is larger than {sse.MAX_EVENT_BYTES} bytes."
            )
        return b"".join(out)

    def _event_goes_on(self, event: sse.Event) -> bool:
        if event.name == "error":
            raise error_from_wire(None, decode_reply(event.data))
        return self._goes_on(event.data) if event.data else True

    def _goes_on(self, data: bytes) -> bool:
        """Whether the caller gets the event that holds ``data``, once it is written down."""
        if data.startswith(b"[DONE]"):
            self._done = True  # written when the answer has come to its end
            return False
        chunk = _decoded(data)
        choices = chunk.choices
        if choices:
            self._answered = True
            for choice in choices:
                self._look_at(choice)
            if self.model is None:
                self.model = chunk.model
            if chunk.usage is None:
                if chunk.error is None:
                    return True
            else:
                self.usage = usage_from_wire(chunk.usage)
        failure = answer_error(chunk, data)
        if failure is not None:
            raise failure
        if choices:
            return True
        if chunk.usage is not None:
            self.usage = usage_from_wire(chunk.usage)
            return not self._hides_usage
        return True

    def _look_at(self, choice: ChoiceWire) -> None:
        piece = choice.delta or choice.message
        if piece is not None and (
            piece.content
            or piece.tool_calls
            or piece.reasoning_content
            or piece.reasoning
            or piece.refusal
            or piece.function_call
        ):
            self.chunks += 1
            self.begun = True
        if choice.finish_reason:
            self._finished = self.begun = True
            if not choice.index:
                self.finish_reason = finish_reason_from_wire(choice.finish_reason)
        if choice.usage is not None:
            self.usage = usage_from_wire(choice.usage)


def _is_usual(data: bytes) -> bool:
    """Whether ``data`` is whole events, as far as a glance tells."""
    return data.startswith(b"data: ") and data.endswith(b"\n\n") and b"\r" not in data


def _decoded(data: bytes) -> AnswerWire:
    try:
        return decode_answer(data)
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_reply(data, error) from error
