"""One request on the fast way, from the caller's bytes to the answer's last.

Everything happens in callbacks of the two connections. What goes wrong before the caller has seen a
byte is handed to the general way, which asks again or elsewhere, or says what it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from math import inf
from types import ModuleType
from typing import Any, Protocol

from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMCancelledError,
    LLMError,
    LLMUnavailableError,
)
from headrace.gateway.hot.asked import Asked
from headrace.net.http1 import Connection
from headrace.stores.secret import redact_error
from headrace.traffic.fallback import Earlier
from headrace.traffic.passage import Passage
from headrace.wire.passing import PassingAnswer

_MOST_ANSWER_BYTES = 64 << 20
_MOST_ERROR_BYTES = 64 << 10


class Caller(Protocol):
    """What an exchange asks of the caller's connection."""

    def send_whole(self, exchange: Exchange, body: bytes) -> None:
        """Send all of a good answer."""

    def send_events(self, exchange: Exchange, events: bytes) -> None:
        """Send a piece of a stream, its head before the first."""

    def end_events(self, exchange: Exchange, events: bytes) -> None:
        """Send the last piece of a stream."""

    def send_error(self, exchange: Exchange, error: LLMError) -> None:
        """Send an error in place of the answer, and close."""

    def take_over(self, exchange: Exchange, earlier: Earlier) -> None:
        """The general way shall go on with the request."""


class Exchange:
    """Asks for a whole answer, and meets net.reply.Receiver; a ``StreamExchange`` asks for a stream.

    For the HTTP class it stands in the place of uvicorn's cycle, which it has ``response_complete``
    and ``keep_alive`` of.
    """

    __slots__ = (
        "_caller",
        "_connecting",
        "_connection",
        "_limits",
        "_loop",
        "_manner",
        "_pieces",
        "_sends",
        "_size",
        "_total_at",
        "_unlike",
        "_way",
        "asked",
        "face",
        "first_byte_at",
        "keep_alive",
        "keeps_slot",
        "passage",
        "response_complete",
        "sent_at",
        "status",
    )

    def __init__(
        self,
        caller: Caller,
        loop: asyncio.AbstractEventLoop,
        passage: Passage,
        asked: Asked,
    ) -> None:
        way = asked.course.way
        self.response_complete = False
        self.keep_alive = asked.hot.head.keep_alive
        self.face = asked.hot.face
        self.passage = passage
        self.asked = asked
        self.status = 0
        self.sent_at = 0.0
        self.first_byte_at = 0.0
        self.keeps_slot = False
        self._sends = 1
        self._caller = caller
        self._loop = loop
        self._manner = asked.manner
        self._way = way
        self._limits = way.stream_limits if asked.in_pieces else way.whole_limits
        total_s = way.lane.total_s
        self._total_at = inf if total_s is None else loop.time() + total_s
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._unlike: Mapping[str, str] | None = None
        """The headers of an answer that cannot go on as it is."""
        self._pieces: list[bytes] = []
        self._size = 0

    def begin(self) -> None:
        """Ask the backend."""
        connection = self._way.transport.take(self._way.url)
        if connection is None:
            self._connect(in_kept_place=False)
        else:
            self._send(connection)

    def leave(self) -> None:
        """The caller has gone: the backend is told at once, by closing."""
        if not self.response_complete:
            self._stop_asking()
            self._record(LLMCancelledError("the caller left"))

    def stop(self) -> None:
        """The time that a stop of the server leaves to what is under way is over."""
        if not self.response_complete:
            self._stop_asking()
            self._break_off(_stopped())

    def pause(self) -> None:
        """The caller does not take what it is sent, so no more is taken in."""
        if self._connection is not None:
            self._connection.pause()
            self._connection.deadline.rest()

    def resume(self) -> None:
        """The caller takes bytes again."""
        if self._connection is not None:
            self._connection.resume()
            self._await_more()

    # The backend's side.

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        """The answer's headers are here."""
        self.status = status
        if status != 200 or not self._is_as_asked(headers.get("content-type", "")):
            self._unlike = headers
        self._await_more()

    def feed(self, piece: bytes) -> None:
        """A piece of the answer is here."""
        self._size += len(piece)
        most = _MOST_ANSWER_BYTES if self.status == 200 else _MOST_ERROR_BYTES
        if self._size > most:
            self._stop_asking()
            self._fail(
                LLMBadResponseError(f"the answer's body has more, the limit is {most} bytes")
            )
            return
        self._pieces.append(piece)
        self._await_more()

    def finish(self, error: Exception | None = None) -> None:
        """The answer has ended."""
        self._connection = None
        if error is not None and not self._has_all():
            if self.keeps_slot and isinstance(error, LLMUnavailableError):
                self.keeps_slot = False
                self._sends = 2
                self._connect(in_kept_place=True)
            else:
                self._fail(self._named(error))
            return
        try:
            self._complete()
        except LLMError as failure:
            self._fail(failure)

    def take_whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """All of the answer is here at once."""
        self.status = status
        if not self._is_as_asked(headers.get("content-type", "")):
            self._unlike = headers
        self._pieces.append(body)
        self._connection = None
        try:
            self._complete()
        except LLMError as failure:
            self._fail(failure)

    # What the two kinds of answers differ in.

    def _is_as_asked(self, content_type: str) -> bool:
        return self._manner.reads.STREAM_TYPE not in content_type

    def _has_all(self) -> bool:
        """Whether the answer has said that it is at its end, however its connection ends."""
        return False

    def _complete(self) -> None:
        """All of the answer is here; raises the error that it comes to."""
        pieces = self._pieces
        self.passage.sent = self.sent_at or None
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        answer: PassingAnswer
        if self._unlike is None:
            body, answer = self._manner.whole(body)
        else:
            answer = PassingAnswer()
            body = self._put_right(body, answer)
        self.passage.came_whole()
        # Sent before it is written down, so that the caller does not wait for our books.
        self._caller.send_whole(self, body)
        self._record(None, answer)

    def _fail(self, error: LLMError) -> None:
        """The attempt has failed; the caller has seen nothing of it."""
        self._explain(error)
        earlier = self.passage.hand_over(error, status=self.status or None, sends=self._sends)
        self.response_complete = True
        self._caller.take_over(self, earlier)

    def _break_off(self, error: LLMError) -> None:
        """End it with ``error``, for good."""
        self._caller.send_error(self, error)
        self._record(error)

    def _await_more(self) -> None:
        """The next piece of the answer has so long to come."""
        if self._connection is not None:
            self._connection.deadline.enter("idle_s", self._limits.idle_s)

    # Shared by both.

    def _connect(self, *, in_kept_place: bool) -> None:
        way = self._way
        opening = way.transport.open(
            way.url, self._limits, self._total_at, in_kept_place=in_kept_place
        )
        self._connecting = self._loop.create_task(self._connected(opening))

    async def _connected(self, opening: Coroutine[Any, Any, Connection]) -> None:
        try:
            connection = await opening
        except LLMError as error:
            self._connecting = None
            self._fail(error)
        else:
            self._connecting = None
            self._send(connection)

    def _send(self, connection: Connection) -> None:
        self._connection = connection
        way, body = self._way, self.asked.sent
        if way.may_be_asked_again:
            # By this the backend can know the call, should it come once more.
            once = self.passage.call_id.encode()
            head = b"%bidempotency-key: %b\r\nContent-Length: %d\r\n\r\n" % (
                self.asked.head,
                once,
                len(body),
            )
        else:
            head = b"%bContent-Length: %d\r\n\r\n" % (self.asked.head, len(body))
        connection.carry(self, "POST", head, body, self._limits, self._total_at)

    def _stop_asking(self) -> None:
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.drop()

    def _put_right(self, body: bytes, answer: PassingAnswer) -> bytes:
        """What the caller gets of an answer that is not as it was asked for; or its error."""
        headers = self._unlike or {}
        reads = self._manner.reads
        if self.status != 200:
            raise _error_of(reads, self.status, body, headers)
        is_stream = reads.STREAM_TYPE in headers.get("content-type", "")
        return self._manner.put_right(
            body, answer, from_stream=is_stream, to_stream=self.passage.stream
        )

    def _named(self, error: Exception) -> LLMError:
        if isinstance(error, LLMError):
            return error
        failure = LLMUnavailableError(f"{self._way.lane.name}: {error}")
        failure.__cause__ = error
        return failure

    def _explain(self, error: LLMError) -> None:
        error.provider = error.provider or self._way.remote.provider.name
        redact_error(error, (self._way.key,))

    def _record(self, error: LLMError | None, answer: PassingAnswer | None = None) -> None:
        self.response_complete = True
        self.passage.end(
            error,
            answer,
            sent=self.sent_at or None,
            first_byte=self.first_byte_at or None,
            status=self.status or None,
            sends=self._sends,
        )


def _error_of(reads: ModuleType, status: int, body: bytes, headers: Mapping[str, str]) -> LLMError:
    error: LLMError = reads.read_error(status, body, headers)
    return error


def _stopped() -> LLMError:
    return LLMUnavailableError(
        "this server is being stopped before it could answer", retry_after_s=1.0, code="draining"
    )
