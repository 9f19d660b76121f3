"""An HTTP/1.1 answer as it comes in: its head, and where its body begins and ends.

Lean, for the sender reads tens of thousands of pieces a second: a piece that is one whole chunk,
as nearly all pieces of a stream are, costs three byte searches. What the body says is left to
``scan``.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence

from headrace.contracts.errors import LLMBadResponseError, LLMError, LLMUnavailableError

HEAD_LIMIT = 64 * 1024
SHORTEST = 64
"""No format writes an event with output, or an answer's head, in less."""
_LINE_LIMIT = 16 * 1024
_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;.*)?")
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: .*)?")

_HEAD, _LENGTH, _CHUNKED, _UNTIL_CLOSED = range(4)


class Framed(ABC):
    """One answer: ``feed`` it what is read, ``close`` it where the connection ends.

    ``over`` turns true when no more belongs to it; then ``failure`` says what went wrong, if
    something did, and ``keeps`` whether the connection can carry another request. ``began`` is
    whether a byte came. ``at``: the instant of the piece that is being read. ``shortest``: a body
    comes in pieces of at least so many bytes, as far as is known.
    """

    __slots__ = (
        "_instants",
        "_left",
        "_mode",
        "_rest",
        "_stated",
        "_trailers",
        "_wants_line_end",
        "at",
        "began",
        "failure",
        "first_byte",
        "headers",
        "keeps",
        "over",
        "reads",
        "shortest",
        "status",
    )

    def __init__(self) -> None:
        self.at = 0.0
        self.reads = 0
        self.shortest = SHORTEST
        self.began = self.over = False
        self.keeps = True
        self.first_byte: float | None = None
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.failure: LLMError | None = None
        self._mode = _HEAD
        self._rest = b""
        self._instants: deque[tuple[int, float]] = deque()
        self._left = 0
        self._stated: int | None = None
        self._wants_line_end = self._trailers = False

    @abstractmethod
    def head_came(self) -> None:
        """``status`` and ``headers`` are known."""

    @abstractmethod
    def body_came(self, piece: bytes) -> None:
        """A piece of the body; an LLMError from here is the answer's failure."""

    @abstractmethod
    def body_ended(self) -> None:
        """The body is whole; an LLMError from here is the answer's failure."""

    def feed(self, data: bytes, at: float) -> None:
        """``data`` was received at ``at``."""
        self.at = at
        self.reads += 1
        try:
            if self._mode == _CHUNKED and not (self._left or self._rest or self._wants_line_end):
                end = data.find(b"\r\n", 0, 10)
                if end > 0 and self._is_one_chunk(data, end):
                    self.body_came(data[end + 2 : -2])
                    return
            self._take(data)
        except LLMError as error:
            self.fail(error)

    def feed_apart(self, parts: Sequence[tuple[bytes, float]]) -> None:
        """What had waited was received in ``parts``, each with its instant."""
        for i, (data, at) in enumerate(parts):
            if self.over:
                self.keeps = False  # nobody asked for it
                return
            if self._mode == _CHUNKED:
                self._feed_chunks(parts[i:])
                return
            self.feed(data, at)

    def _feed_chunks(self, parts: Sequence[tuple[bytes, float]]) -> None:
        """Together, for chunks that are whole cost less; each has the instant of its first byte."""
        data = b"".join([data for data, _ in parts])
        to_end = len(data)
        for part, at in parts:
            self._instants.append((to_end, at))
            to_end -= len(part)
        self.at = parts[0][1]
        self.reads += 1
        try:
            self._take(data)
        except LLMError as error:
            self.fail(error)
        self._instants.clear()
        if not self.over:
            self.at = parts[-1][1]

    def _instant_at(self, to_end: int) -> float:
        """When the byte came that was so far from the end of what is being read."""
        instants = self._instants
        while len(instants) > 1 and instants[1][0] >= to_end:
            instants.popleft()
        return instants[0][1]

    def _is_one_chunk(self, data: bytes, end: int) -> bool:
        try:
            size = int(data[:end], 16)
        except ValueError:
            return False  # the careful way says what is wrong with it
        return size > 0 and len(data) == end + size + 4 and data.endswith(b"\r\n")

    def close(self, peer: str, why: str = "closed the connection") -> None:
        """The connection ended: so does the body, where it says no other end."""
        if self.over:
            return
        self.keeps = False
        if self._mode == _UNTIL_CLOSED:
            self._end()
        elif not self.began:
            self.fail(LLMUnavailableError(f"{peer} {why} without an answer"))
        elif self._mode == _HEAD:
            self.fail(LLMUnavailableError(f"{peer} {why} inside the answer's headers"))
        else:
            where = "inside the answer"
            if self._stated is not None:
                where = f"after {self._stated - self._left} of {self._stated} bytes of the answer"
            self.fail(LLMBadResponseError(f"{peer} {why} {where}", transient=True))

    def fail(self, error: LLMError) -> None:
        """The answer is over by ``error``, and its connection cannot be used again."""
        if not self.over:
            self.failure = error
            self.keeps = False
            self.over = True

    def _end(self) -> None:
        self.over = True
        try:
            self.body_ended()
        except LLMError as error:
            # The body was whole and wrong; the connection is as good as it was.
            self.failure = error

    def _take(self, data: bytes) -> None:
        if self._mode == _HEAD:
            if not self.began:
                self.began = True
                self.first_byte = self.at
            data = self._read_head(data)
            if self._mode == _HEAD:
                return
        if self.over:
            if data:
                self.keeps = False  # nobody asked for it
        elif self._mode == _CHUNKED:
            self._read_chunks(data)
        elif self._mode == _LENGTH:
            self._read_length(data)
        elif data:
            self.body_came(data)

    def _read_head(self, data: bytes) -> bytes:
        """What comes behind the head, once it is whole."""
        data = self._rest + data
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if not b"HTTP/1.".startswith(data[:7]):
                    raise LLMBadResponseError(f"no HTTP/1.1 answer: it begins with {data[:60]!r}")
                if len(data) > HEAD_LIMIT:
                    raise LLMBadResponseError(f"headers of more than {HEAD_LIMIT} bytes")
                self._rest = data
                return b""
            lines = data[:end].split(b"\r\n")
            data = data[end + 4 :]
            found = _STATUS.fullmatch(lines[0])
            if found is None:
                raise LLMBadResponseError(f"no HTTP/1.1 answer: it begins with {lines[0][:60]!r}")
            self.status = int(found[2])
            if self.status >= 200:
                break
        self._rest = b""
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            self.headers[name.decode("latin-1").lower()] = value.strip().decode("latin-1")
        self._frame(found[1] == b"0")
        coding = self.headers.get("content-encoding", "identity").lower()
        if coding != "identity" and 200 <= self.status < 300:
            raise LLMBadResponseError(
                f"content-encoding is {coding[:60]!r}, and none was asked for: a load test reads "
                "answers as they are; switch compression off at the target"
            )
        self.head_came()
        if self._mode == _LENGTH and not self._left:
            self._end()
        return data

    def _frame(self, old: bool) -> None:
        wish = self.headers.get("connection", "").lower()
        self.keeps = "keep-alive" in wish if old else "close" not in wish
        stated = self.headers.get("content-length")
        if self.status in (204, 304):
            self._mode, self._left = _LENGTH, 0
        elif "chunked" in self.headers.get("transfer-encoding", "").lower():
            self._mode = _CHUNKED
        elif stated is not None:
            if not (stated.isascii() and stated.isdigit()):
                raise LLMBadResponseError(f"content-length is {stated[:60]!r}, must be a number")
            self._mode = _LENGTH
            self._left = self._stated = int(stated)
        else:
            self._mode = _UNTIL_CLOSED
            self.keeps = False

    def _read_length(self, data: bytes) -> None:
        piece = data[: self._left]
        self._left -= len(piece)
        if piece:
            self.body_came(piece)
        if not self._left:
            if len(piece) < len(data):
                self.keeps = False
            self._end()

    def _read_chunks(self, data: bytes) -> None:
        data = self._rest + data
        self._rest = b""
        at = 0
        while at < len(data):
            if self._left:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                self._wants_line_end = not self._left
                self.body_came(piece)
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                self._rest = data[at:]
                if len(self._rest) > _LINE_LIMIT:
                    raise LLMBadResponseError(f"chunk framing of more than {_LINE_LIMIT} bytes")
                return
            if self._instants and not self._wants_line_end:
                self.at = self._instant_at(len(data) - at)
            line = data[at:end]
            at = end + 2
            if self._wants_line_end:
                if line:
                    raise LLMBadResponseError(f"a chunk is followed by {line[:60]!r}")
                self._wants_line_end = False
            elif self._trailers:
                if not line:
                    if at < len(data):
                        self.keeps = False
                    self._end()
                    return
            else:
                found = _SIZE.fullmatch(line)
                if found is None:
                    raise LLMBadResponseError(f"a chunk's size is {line[:60]!r}, must be hex")
                self._left = int(found[1], 16)
                self._trailers = not self._left
