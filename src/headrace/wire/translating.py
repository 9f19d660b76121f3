"""Answers of one format on their way to a caller of another, read and written piece by piece.

The same as ``passing`` for those that cannot go on as they came: what a backend's reader reads, the
face's writer writes, and what the record tells is noted on the way.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Protocol

from headrace.contracts.errors import LLMError
from headrace.contracts.quick import changed
from headrace.contracts.responses import TIMES, LLMDelta, LLMResponse, Usage
from headrace.wire.assemble import Assembler
from headrace.wire.passing import PassingAnswer, StreamThrough


class Reader(Protocol):
    """What a format's ``stream_reader`` gives."""

    done: bool

    def feed(self, data: bytes) -> list[LLMDelta]: ...

    def close(self) -> list[LLMDelta]: ...


class Words(Protocol):
    """How the answer to one request is written."""

    def writer(self, first: LLMDelta | None) -> Any:
        """What writes a stream that begins with ``first``, as a format's ``stream_writer`` does."""

    def told(self, delta: LLMDelta) -> LLMDelta:
        """``delta`` as the caller is to be told it."""

    def body(self, response: LLMResponse) -> bytes:
        """A whole answer's body."""

    def finish(self, writer: Any) -> bytes:
        """The end of a whole stream."""

    def error(self, writer: Any, error: LLMError) -> bytes:
        """The end of a stream that ``error`` breaks off."""


class ReadStream(StreamThrough):
    """A streamed answer that ``reader`` reads, and of which something else is made in ``words``."""

    __slots__ = ("_reader", "_words")

    def __init__(self, reader: Reader, words: Words) -> None:
        super().__init__()
        self._reader = reader
        self._words = words

    @abstractmethod
    def _write(self, delta: LLMDelta) -> bytes:
        """What goes to the caller for ``delta``."""

    def _note(self, delta: LLMDelta) -> None:
        """Writes down what the record tells of ``delta``."""
        if (
            delta.text_delta
            or delta.reasoning_delta
            or delta.tool_call_delta is not None
            or delta.refusal_delta
        ):
            self.chunks += 1
            self.begun = True
        if self.model is None:
            self.model = delta.model
        if delta.finish_reason is not None:
            self.begun = True
            if not delta.index:
                self.finish_reason = delta.finish_reason
        if delta.provider_fields is not None:
            self.begun = True
        if delta.usage_delta is not None:
            self.usage = delta.usage_delta

    def feed(self, data: bytes) -> bytes:
        if self.failure is not None or self.done:
            return b""
        reader = self._reader
        try:
            deltas = reader.feed(data)
        except LLMError as error:
            self.failure = error
            return b""
        if len(deltas) == 1 and self.begun:  # nearly every piece of nearly every stream
            written: bytes = self._write(deltas[0])
        else:
            written = b"".join(map(self._write, deltas))
        if reader.done:
            # An error that came behind these pieces is told by the next call.
            try:
                written += b"".join(map(self._write, reader.close()))
            except LLMError as error:
                self.failure = error
            else:
                self.done = True
        return written

    def _rest(self) -> bytes:
        """What comes of the reader's end; raises where the stream was cut short."""
        if self.failure is not None:
            raise self.failure
        return b"" if self.done else b"".join(map(self._write, self._reader.close()))


class TranslatedStream(ReadStream):
    """A streamed answer that goes on as a stream, in other words."""

    __slots__ = ("_writer",)

    def __init__(self, reader: Reader, words: Words) -> None:
        super().__init__(reader, words)
        self._writer: Any = None

    def close(self) -> bytes:
        last = self._rest()
        return last + self._words.finish(self._begun_writer())

    def break_off(self, error: LLMError) -> bytes:
        return self._words.error(self._begun_writer(), error)

    def _write(self, delta: LLMDelta) -> bytes:
        self._note(delta)
        if delta.usage_delta is not None or delta.provider_fields is not None:
            delta = self._words.told(delta)
        writer = self._writer
        if writer is None:
            writer = self._writer = self._words.writer(delta)
        written: bytes = writer.write(delta)
        return written

    def _begun_writer(self) -> Any:
        if self._writer is None:
            self._writer = self._words.writer(None)
        return self._writer


class CollectedStream(ReadStream):
    """A streamed answer that its caller gets whole, at its end."""

    __slots__ = ("_assembler",)

    def __init__(self, reader: Reader, words: Words) -> None:
        super().__init__(reader, words)
        self._assembler = Assembler()

    def close(self) -> bytes:
        self._rest()
        return self._words.body(self._assembler.response())

    def break_off(self, error: LLMError) -> bytes:
        return b""  # its caller has seen nothing yet, and is told by a status

    def _write(self, delta: LLMDelta) -> bytes:
        self._note(delta)
        self._assembler.add(delta)
        return b""


def note(answer: PassingAnswer, response: LLMResponse) -> None:
    """Writes down in ``answer`` what the record tells of a whole one."""
    answer.model = response.model
    answer.usage = response.usage if isinstance(response.usage, Usage) else None
    answer.finish_reason = response.finish_reason  # type: ignore[assignment]


def told(delta: LLMDelta, *, tells_cache: bool) -> LLMDelta:
    """``delta`` as a caller is told it; ``tells_cache`` is as in Inbound."""
    if delta.provider_fields is not None:
        delta = changed(delta, provider_fields=without_times(delta.provider_fields))
    if delta.usage_delta is None or tells_cache:
        return delta
    return changed(delta, usage_delta=without_cache(delta.usage_delta))


def without_times(fields: dict[str, object]) -> dict[str, object] | None:
    """``fields`` without those that come unasked; a face that has them tells its own."""
    return {name: value for name, value in fields.items() if name not in TIMES} or None


def without_cache(usage: Usage) -> Usage:
    """``usage`` as one who asked for no caching expects it: nothing of the prompt came from there."""
    return changed(
        usage,
        input_uncached_tokens=usage.prompt_tokens,
        input_cache_read_tokens=0,
        input_cache_write_tokens=0,
    )
