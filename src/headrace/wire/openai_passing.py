"""Chat completions on their way through: what is read of them where they are not translated.

Where the caller's format is the backend's, only what routing and the record need is looked at. A
request is read into one strict shape and written again from it, so that what goes on holds no key
twice and nothing unknown; whatever does not fit the shape is for ``openai_chat``, which says what is
wrong with it, or carries it out. An answer goes on as the bytes that came.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import DecodeError, Meta, Struct, ValidationError, json

from headrace.contracts.errors import LLMBadResponseError, LLMError
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
from headrace.wire.openai_errors import error_from_wire, write_error
from headrace.wire.openai_params import Dialect
from headrace.wire.passing import PassingStream, PassingWhole

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

    @property
    def wants_usage(self) -> bool:
        """Whether token counts are told at a stream's end."""
        return bool(self.stream and self.stream_options and self.stream_options.include_usage)

    @property
    def end_user(self) -> str | None:
        """For whom the caller asks, where it says so."""
        return self.user

    def head(self, most_bytes: int) -> bytes:
        """So much of the prompt's text, but nothing behind its first user turn."""
        head = b""
        for message in self.messages:
            content = message.content
            text = content if isinstance(content, str) else "".join(part.text for part in content)
            # Each character takes a byte or more.
            head += text[:most_bytes].encode("utf-8", "replace") + b"\0"
            if message.role == "user" or len(head) >= most_bytes:
                break
        return head[:most_bytes]

    def sets(self, name: str) -> bool:
        """Whether it says anything of the setting ``name``."""
        return getattr(self, name) is not None


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


class Whole(PassingWhole):
    """A whole chat completion."""

    __slots__ = ()

    def read_whole(self, body: bytes) -> bool:
        answer = _decoded(body)
        failure = answer_error(answer, body)
        if failure is not None:
            raise failure
        choices = answer.choices
        if not choices:
            return False
        for choice in choices:
            if choice.message is None:
                return False
        self.model = answer.model
        self.usage = usage_from_wire(answer.usage or choices[0].usage)
        self.finish_reason = finish_reason_from_wire(choices[0].finish_reason or None)
        return True


_DONE = b"data: [DONE]\n\n"


class Stream(PassingStream):
    """A streamed chat completion.

    ``hides_usage`` keeps the chunk back that holds nothing but token counts, for a caller who did
    not ask for it. ``[DONE]`` is held back until the answer has come to its end.
    """

    __slots__ = ("_answered", "_finished", "_hides_usage")

    def __init__(self, *, hides_usage: bool) -> None:
        super().__init__()
        self._hides_usage = hides_usage
        self._answered = self._finished = False

    def break_off(self, error: LLMError) -> bytes:
        return sse.write(write_error(error))  # [DONE] does not follow

    def _data_of(self, block: bytes) -> bytes | None:
        return block[6:] if block.startswith(b"data: ") and b"\n" not in block else None

    def _error(self, data: bytes) -> LLMError:
        return error_from_wire(None, decode_reply(data))

    def _end(self) -> bytes:
        if not self._answered:
            raise LLMBadResponseError("The backend's stream ended before it said anything.")
        if not self.done and not self._finished:
            raise LLMBadResponseError(
                "The backend's stream was cut short: it ended with neither a finish reason "
                "nor [DONE]."
            )
        return _DONE

    def _reads(self, data: bytes) -> bool:
        if data.startswith(b"[DONE]"):
            self.done = True
            return False
        chunk = _decoded(data)
        choices = chunk.choices
        if choices:
            self._answered = True
            for choice in choices:
                self._look_at(choice)
            if self.model is None:
                self.model = chunk.model
            if chunk.usage is not None:
                self.usage = usage_from_wire(chunk.usage)
            if chunk.error is None:
                return True
        failure = answer_error(chunk, data)
        if failure is not None:
            raise failure
        if chunk.usage is not None and not choices:
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


def _decoded(data: bytes) -> AnswerWire:
    try:
        return decode_answer(data)
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_reply(data, error) from error
