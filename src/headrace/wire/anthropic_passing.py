"""Anthropic's messages on their way through, for a backend that speaks the same format.

Turns, tools and thinking go on as they came: there is one such service, which knows best what it
takes, and what was signed must not change by a byte. Only the settings around them are read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

from msgspec import DecodeError, Meta, Raw, Struct, ValidationError, json

from headrace.contracts.errors import LLMBadResponseError, LLMError
from headrace.wire import sse
from headrace.wire.anthropic_answers import (
    MessageWire,
    UsageWire,
    finish_reason_from_wire,
    usage_from_wire,
)
from headrace.wire.anthropic_errors import error_from_wire, write_error
from headrace.wire.anthropic_stream import EventWire, later_usage
from headrace.wire.json import bad_reply, decode_reply
from headrace.wire.openai_params import Dialect
from headrace.wire.passing import PassingStream, PassingWhole

T = TypeVar("T")

_ABSENT = Raw()
_Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class PassingMessages(Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A request for a message; what is ``Raw`` is not looked into."""

    messages: Annotated[list[Raw], Meta(min_length=1)]
    max_tokens: _Count
    model: str | None = None
    system: Raw = _ABSENT
    tools: Raw = _ABSENT
    tool_choice: Raw = _ABSENT
    thinking: Raw = _ABSENT
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: _Count | None = None
    stop_sequences: list[str] | None = None
    metadata: Raw = _ABSENT
    stream: bool | None = None

    @property
    def answer_tokens(self) -> int | None:
        """The most tokens that the answer may have."""
        return self.max_tokens

    @property
    def wants_usage(self) -> bool:
        """Whether token counts are told: always, here."""
        return True

    @property
    def end_user(self) -> str | None:
        """For whom the caller asks, where it says so."""
        told = _read(_decode_metadata, self.metadata)
        return None if told is None else told.user_id

    def head(self, most_bytes: int) -> bytes:
        """So much of the prompt's text, but nothing behind its first user turn."""
        system = _text(self.system)
        head = system + b"\0" if system else b""
        for message in self.messages:
            turn = _read(_decode_turn, message)
            if turn is not None:
                head += _text(turn.content) + b"\0"
            if turn is None or turn.role == "user" or len(head) >= most_bytes:
                break
        return head[:most_bytes]

    def sets(self, name: str) -> bool:
        """Whether it says anything of the setting ``name``."""
        value = getattr(self, name)
        return value is not None and value is not _ABSENT


class _Metadata(Struct, gc=False):
    user_id: str | None = None


class _Turn(Struct, gc=False):
    role: str = ""
    content: Raw = _ABSENT


class _Block(Struct, gc=False):
    text: str = ""


SETTINGS = frozenset(PassingMessages.__struct_fields__)

_RAW = ("system", "tools", "tool_choice", "thinking", "metadata")
_decode = json.Decoder(PassingMessages).decode
_decode_whole = json.Decoder(MessageWire).decode
_decode_event = json.Decoder(EventWire).decode
_decode_metadata = json.Decoder(_Metadata | None).decode
_decode_turn = json.Decoder(_Turn).decode
_decode_text = json.Decoder(str | list[_Block] | None).decode
_encode = json.Encoder().encode


def _text(content: Raw) -> bytes:
    """The text of a turn."""
    read = _read(_decode_text, content)
    if read is None:
        return b""
    text = read if isinstance(read, str) else "".join(block.text for block in read)
    return text.encode("utf-8", "replace")


def _read(decode: Callable[[Raw], T | None], part: Raw) -> T | None:
    """``part``; ``None`` where it is absent, or not as it should be, which is the service's to say."""
    try:
        return decode(part) if bytes(part) else None
    except (ValidationError, DecodeError, RecursionError):
        return None


def read_passing(body: bytes) -> PassingMessages | None:
    """The request in ``body``; ``None`` where it is not of the usual kind, or not right."""
    try:
        if not body.isascii():
            body.decode()  # what is raw was not looked at
        return _decode(body)
    except (ValidationError, DecodeError, UnicodeDecodeError, RecursionError):
        return None


def write_passing(
    request: PassingMessages, model: str | None, dialect: Dialect, *, include_usage: bool
) -> bytes | None:
    """``request`` for a backend that knows the model as ``model``; the request is changed by it."""
    request.model = model
    for name in _RAW:
        if bytes(getattr(request, name)) == b"null":
            setattr(request, name, _ABSENT)
    if not request.stream:
        request.stream = None
    try:
        return _encode(request)
    except UnicodeEncodeError:  # a lone surrogate
        return None


class Whole(PassingWhole):
    """A whole message."""

    __slots__ = ()

    def read_whole(self, body: bytes) -> bool:
        try:
            message = _decode_whole(body)
        except (DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise bad_reply(body, error) from error
        if message.error or message.type == "error":
            raise error_from_wire(None, decode_reply(body))
        if message.content is None:
            return False
        self.model = message.model
        self.usage = usage_from_wire(message.usage)
        self.finish_reason = finish_reason_from_wire(message.stop_reason)
        return True


class Stream(PassingStream):
    """A streamed message; it ends with its own event ``message_stop``."""

    __slots__ = ("_ended", "_usage")

    def __init__(self, *, hides_usage: bool) -> None:
        super().__init__()
        self._usage: UsageWire | None = None
        self._ended = False

    def break_off(self, error: LLMError) -> bytes:
        return sse.write(write_error(error), name="error")

    def _data_of(self, block: bytes) -> bytes | None:
        name, found, data = block.partition(b"\ndata: ")
        if not found or not name.startswith(b"event: ") or b"\n" in name or b"\n" in data:
            return None
        return None if name == b"event: error" else data

    def _error(self, data: bytes) -> LLMError:
        return error_from_wire(None, decode_reply(data))

    def _end(self) -> bytes:
        if self.model is None and not self.begun:
            raise LLMBadResponseError("The backend's stream ended before it said anything.")
        if not self.done and not self._ended:
            raise LLMBadResponseError(
                "The backend's stream was cut short: it ended with neither a stop reason nor "
                "message_stop."
            )
        return b""

    def _reads(self, data: bytes) -> bool:
        try:
            said = _decode_event(data)
        except (DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise bad_reply(data, error) from error
        match said.type:
            case "content_block_delta" | "content_block_start":
                self.begun = True
                self.chunks += said.type == "content_block_delta"
            case "message_start":
                message = said.message or MessageWire()
                self.model = message.model
                self._count(message.usage)
            case "message_delta":
                self._count(said.usage)
                reason = None if said.delta is None else said.delta.stop_reason
                if reason is not None:
                    self._ended = self.begun = True
                    self.finish_reason = finish_reason_from_wire(reason)
            case "message_stop":
                self.done = True
            case "error":
                raise error_from_wire(None, decode_reply(data))
        return True

    def _count(self, told: UsageWire | None) -> None:
        self._usage = later_usage(self._usage, told)
        self.usage = usage_from_wire(self._usage)
