"""Answers on their way through: handed on as the bytes that came, and read for the record only.

The formats bring what an event of theirs means; here is how a stream is cut into events without
changing one byte of it.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Protocol

from headrace.contracts.errors import LLMBadResponseError, LLMError
from headrace.contracts.responses import FinishReason, Usage
from headrace.wire import sse

_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n|\Z))(?:\r\n|\n|\r(?!\n|\Z))")


class PassingRequest(Protocol):
    """A request of which only the settings were read."""

    model: str | None
    stream: bool | None

    @property
    def answer_tokens(self) -> int | None:
        """The most tokens that the answer may have."""

    @property
    def wants_usage(self) -> bool:
        """Whether the caller of a stream is told token counts."""

    @property
    def end_user(self) -> str | None:
        """For whom the caller asks, where it says so."""

    def head(self, most_bytes: int) -> bytes:
        """So much of the prompt's text, but nothing behind its first user turn."""

    def sets(self, name: str) -> bool:
        """Whether it says anything of the setting ``name``."""


class PassingAnswer:
    """What the record tells of an answer that went by: ``read_whole`` or ``feed`` fill it."""

    __slots__ = ("finish_reason", "model", "usage")

    def __init__(self) -> None:
        self.model: str | None = None
        self.usage: Usage | None = None
        self.finish_reason: FinishReason | None = None


class PassingWhole(PassingAnswer, ABC):
    """A whole answer."""

    __slots__ = ()

    @abstractmethod
    def read_whole(self, body: bytes) -> bool:
        """Look through a whole answer; whether it is one that can go on as it is.

        Raises LLMBadResponseError where it is no answer, and the error that it holds where it is
        one.
        """


class StreamThrough(PassingAnswer, ABC):
    """A streamed answer on its way to the caller.

    ``begun`` turns true with the first piece of output; ``chunks`` counts them; ``done`` turns true
    when nothing more can come. What came before an error is given first; the error is in
    ``failure`` then.
    """

    __slots__ = ("begun", "chunks", "done", "failure")

    def __init__(self) -> None:
        super().__init__()
        self.begun = self.done = False
        self.chunks = 0
        self.failure: LLMError | None = None

    @abstractmethod
    def feed(self, data: bytes) -> bytes:
        """What may go on to the caller now that ``data`` came."""

    @abstractmethod
    def close(self) -> bytes:
        """The end of a stream that came to its end; raises where it was cut short."""

    @abstractmethod
    def break_off(self, error: LLMError) -> bytes:
        """The last event of a stream that ``error`` breaks off."""


class PassingStream(StreamThrough):
    """A streamed answer that goes on as it came, event by whole event."""

    __slots__ = ("_events", "_raw")

    def __init__(self) -> None:
        super().__init__()
        self._raw = b""
        # Only where the events do not come whole, or their lines end in other ways than usual.
        self._events: sse.Reader | None = None

    def feed(self, data: bytes) -> bytes:
        if self.failure is not None or self.done:
            return b""
        try:
            if self._events is None and data.endswith(b"\n\n") and b"\r" not in data:
                return self._usual(data)
            return self._unusual(data)
        except LLMError as error:
            self.failure = error
            return b""

    def close(self) -> bytes:
        last = b""
        if self._events is not None and self.failure is None and not self.done:
            # Its last line end, a lone CR, may have been the first half of one.
            read = [self._goes_on(event) for event in self._events.feed(self._raw)]
            if any(read):
                last = self._raw
        if self.failure is not None:
            raise self.failure
        return last + self._end()

    @abstractmethod
    def _data_of(self, block: bytes) -> bytes | None:
        """The data of an event that is written as nearly all are; ``None`` of any other."""

    @abstractmethod
    def _reads(self, data: bytes) -> bool:
        """Whether the caller gets the event that holds ``data``, once it is written down."""

    @abstractmethod
    def _error(self, data: bytes) -> LLMError:
        """What an event named ``error`` says."""

    @abstractmethod
    def _end(self) -> bytes:
        """What stands behind the last event; raises where more should have come."""

    def _usual(self, data: bytes) -> bytes:
        """Whole events, whose lines end as nearly every server's do."""
        blocks = data.split(b"\n\n")
        kept = 0
        for place, block in enumerate(blocks[:-1]):
            said = self._data_of(block)
            if said is None:
                rest = b"\n\n".join(blocks[place:])
                return b"".join(each + b"\n\n" for each in blocks[:kept]) + self._unusual(rest)
            try:
                goes_on = self._reads(said)
            except LLMError as error:
                self.failure = error
                break
            if goes_on:
                blocks[kept] = block
                kept += 1
            if self.done:
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
                read = [self._goes_on(event) for event in self._events.feed(block)]
            except LLMError as error:
                self.failure = error
                self._raw = b""
                return b"".join(out)
            if not read or any(read):
                out.append(block)
            if self.done:
                break
        self._raw = raw[seam:]
        if not self._raw:
            self._events = None
        if len(self._raw) > sse.MAX_EVENT_BYTES:
            raise LLMBadResponseError(
                f"An event of the stream is larger than {sse.MAX_EVENT_BYTES} bytes."
            )
        return b"".join(out)

    def _goes_on(self, event: sse.Event) -> bool:
        if event.name == "error":
            raise self._error(event.data)
        return self._reads(event.data) if event.data else True
