"""In which manner an answer gets to its caller: as it came, or in other words."""

from __future__ import annotations

import re
from collections.abc import Collection
from types import ModuleType
from typing import Protocol

from headrace.contracts.responses import LLMDelta, LLMResponse
from headrace.gateway.hot.faces import HotFace
from headrace.gateway.hot.words import Words
from headrace.wire.assemble import Assembler, deltas
from headrace.wire.passing import PassingAnswer, PassingWhole, StreamThrough
from headrace.wire.translating import (
    CollectedStream,
    TranslatedStream,
    note,
)

_MODEL = re.compile(rb'"model"(\s*:\s*)"(?:[^"\\]|\\.)*"')


class Manner(Protocol):
    """What becomes of the answers to one request.

    ``reads`` is the wire module of the backend's format. ``ping`` is what is sent to a caller to
    whom nothing else was sent for a while; ``None`` where that is the backend's affair, or nobody's.
    """

    reads: ModuleType
    ping: bytes | None
    words: Words

    def stream(self) -> StreamThrough:
        """A streamed answer."""

    def collected(self) -> StreamThrough:
        """A streamed answer for a caller who wants all of it at once."""

    def renamed(self, data: bytes) -> bytes:
        """``data`` with the model's name as its caller knows it."""

    def whole(self, body: bytes) -> tuple[bytes, PassingAnswer]:
        """What the caller gets of a whole answer, and what the record tells of it.

        Raises the LLMError that it comes to.
        """

    def put_right(
        self, body: bytes, answer: PassingAnswer, *, from_stream: bool, to_stream: bool
    ) -> bytes:
        """``body``, a stream or a whole answer, as the caller wants it; ``answer`` is filled from it.

        Raises the LLMError that it comes to.
        """


class AsItCame:
    """For a backend that speaks the caller's format: byte for byte.

    ``name`` is the model's in JSON, as the caller knows it, where the backend's answers call it
    otherwise.
    """

    __slots__ = ("_name", "_passing", "ping", "reads", "words")

    def __init__(self, face: HotFace, words: Words, name: bytes | None) -> None:
        assert face.passing is not None
        self.reads: ModuleType = face.codec
        self.ping: bytes | None = None
        self._passing: ModuleType = face.passing
        self.words = words
        self._name = name

    def stream(self) -> StreamThrough:
        """See Manner."""
        stream: StreamThrough = self._passing.Stream(hides_usage=not self.words.include_usage)
        return stream

    def collected(self) -> StreamThrough:
        """See Manner."""
        raise NotImplementedError("what goes on as it came is asked for as it is wanted")

    def renamed(self, data: bytes) -> bytes:
        """See Manner."""
        if self._name is None:
            return data
        # The pattern is found nowhere else: within a text its quotes would be escaped.
        return _MODEL.sub(rb'"model"\g<1>' + self._name, data)

    def whole(self, body: bytes) -> tuple[bytes, PassingAnswer]:
        """See Manner."""
        answer: PassingWhole = self._passing.Whole()
        if answer.read_whole(body):
            return self.renamed(body), answer
        return self.put_right(body, answer, from_stream=False, to_stream=False), answer

    def put_right(
        self, body: bytes, answer: PassingAnswer, *, from_stream: bool, to_stream: bool
    ) -> bytes:
        """See Manner."""
        pieces = _pieces(body, self.reads, (), from_stream=from_stream)
        return _written(pieces, answer, self.words, to_stream=to_stream)


class Translated:
    """For a backend of another format, or an answer of which something has to be put right.

    ``keep`` names what of the answer is wanted beyond the backend's format.
    """

    __slots__ = ("_keep", "ping", "reads", "words")

    def __init__(
        self, face: HotFace, words: Words, reads: ModuleType, keep: Collection[str]
    ) -> None:
        self.reads = reads
        self.ping: bytes | None = face.codec.PING
        self.words = words
        self._keep = keep

    def stream(self) -> StreamThrough:
        """See Manner."""
        return TranslatedStream(self.reads.stream_reader(self._keep), self.words)

    def collected(self) -> StreamThrough:
        """See Manner."""
        return CollectedStream(self.reads.stream_reader(self._keep), self.words)

    def renamed(self, data: bytes) -> bytes:
        """See Manner; the name was written so."""
        return data

    def whole(self, body: bytes) -> tuple[bytes, PassingAnswer]:
        """See Manner."""
        answer = PassingAnswer()
        response: LLMResponse = self.reads.read_response(body, keep=self._keep)
        note(answer, response)
        return self.words.body(response), answer

    def put_right(
        self, body: bytes, answer: PassingAnswer, *, from_stream: bool, to_stream: bool
    ) -> bytes:
        """See Manner."""
        pieces = _pieces(body, self.reads, self._keep, from_stream=from_stream)
        return _written(pieces, answer, self.words, to_stream=to_stream)


def _pieces(
    body: bytes, codec: ModuleType, keep: Collection[str], *, from_stream: bool
) -> list[LLMDelta]:
    if not from_stream:
        return list(deltas(codec.read_response(body, keep=keep)))
    reader = codec.stream_reader(keep)
    pieces = reader.feed(body)
    return [*pieces, *reader.close()]


def _written(
    pieces: list[LLMDelta], answer: PassingAnswer, words: Words, *, to_stream: bool
) -> bytes:
    assembler = Assembler()
    for piece in pieces:
        assembler.add(piece)
    response = assembler.response()
    note(answer, response)
    if not to_stream:
        return words.body(response)
    writer = words.writer(pieces[0] if pieces else None)
    said = [writer.write(words.told(piece)) for piece in pieces]
    return b"".join([*said, words.finish(writer)])
