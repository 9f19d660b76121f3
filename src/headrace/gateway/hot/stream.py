"""A streamed answer on the fast way."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from math import inf

from headrace.contracts.errors import LLMCancelledError, LLMError, LLMTimeoutError
from headrace.gateway.hot.asked import Asked
from headrace.gateway.hot.exchange import Caller, Exchange
from headrace.traffic.passage import Passage
from headrace.wire.passing import PassingAnswer, StreamThrough

_PING_AFTER_S = 10.0


class StreamExchange(Exchange):
    """Passes a stream on, event by whole event.

    Until the first piece of output nothing goes to the caller, so that what fails by then can still
    be mended elsewhere.
    """

    __slots__ = ("_first_by", "_paused", "_pinging", "_silent", "_stream")

    def __init__(
        self,
        caller: Caller,
        loop: asyncio.AbstractEventLoop,
        passage: Passage,
        asked: Asked,
    ) -> None:
        super().__init__(caller, loop, passage, asked)
        self._stream = self._made(asked)
        first_s = self._way.lane.first_token_s
        self._first_by = inf if first_s is None else loop.time() + first_s
        self._paused = False
        self._pinging: asyncio.TimerHandle | None = None
        self._silent = True
        """Whether the caller was sent nothing since the last look."""

    def _made(self, asked: Asked) -> StreamThrough:
        return asked.manner.stream()

    def leave(self) -> None:
        if not self.response_complete:
            self._stop_asking()
            self._record(LLMCancelledError("the caller left"), self._stream)

    def pause(self) -> None:
        self._paused = True
        super().pause()

    def resume(self) -> None:
        self._paused = False
        super().resume()

    def feed(self, piece: bytes) -> None:
        if self._unlike is not None:
            super().feed(piece)
            return
        stream, passage = self._stream, self.passage
        begun = stream.begun
        events = stream.feed(piece)
        if stream.chunks != passage.chunks:
            passage.output(stream.chunks)
        if stream.begun:
            if not begun:
                self._begun()
                events = b"".join((*self._pieces, events))
            if events:
                self._silent = False
                self._caller.send_events(self, self._manner.renamed(events))
        elif events:
            self._pieces.append(events)
        if stream.failure is not None:
            self._stop_asking()
            self._fail(stream.failure)
        else:
            self._await_more()

    def take_whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.start(status, headers)
        self.feed(body)
        if not self.response_complete:
            self.finish()

    def _is_as_asked(self, content_type: str) -> bool:
        return self._manner.reads.STREAM_TYPE in content_type

    def _has_all(self) -> bool:
        return self._stream.done

    def _begun(self) -> None:
        self.passage.answers()
        self._first_by = inf
        if self._connection is not None:
            self._connection.deadline.begin(inf, None)  # what progresses has no limit of the whole
        if self._manner.ping is not None:
            self._pinging = self._loop.call_later(_PING_AFTER_S, self._ping, self._manner.ping)

    def _ping(self, ping: bytes) -> None:
        if self._silent and not self._paused:
            self._caller.send_events(self, ping)
        self._silent = True
        self._pinging = self._loop.call_later(_PING_AFTER_S, self._ping, ping)

    def _await_more(self) -> None:
        connection = self._connection
        if connection is None or self._paused:
            return
        idle_s = self._limits.idle_s
        if self._first_by < inf:
            left_s = max(0.0, self._first_by - self._loop.time())
            idle_s = left_s if idle_s is None else min(idle_s, left_s)
        connection.deadline.enter("idle_s", idle_s)

    def _complete(self) -> None:
        stream = self._stream
        self.passage.sent = self.sent_at or None
        if self._unlike is not None:
            last = self._put_right(b"".join(self._pieces), stream)
            self.passage.came_whole()
        else:
            last = stream.close()
            if not stream.begun:
                last = b"".join((*self._pieces, last))
        self._caller.end_events(self, self._manner.renamed(last))
        self._record(None, stream)

    def _fail(self, error: LLMError) -> None:
        if not self._stream.begun or self._unlike is not None:
            super()._fail(error)
            return
        self._explain(error)
        self._break_off(error)

    def _break_off(self, error: LLMError) -> None:
        if not self._stream.begun or self._unlike is not None:
            super()._break_off(error)
            return
        error.request_id = self.passage.request_id
        self._caller.end_events(self, self._stream.break_off(error))
        self._record(error, self._stream)

    def _record(self, error: LLMError | None, answer: PassingAnswer | None = None) -> None:
        if self._pinging is not None:
            self._pinging.cancel()
        super()._record(error, answer)

    def _named(self, error: Exception) -> LLMError:
        first_s = self._way.lane.first_token_s
        if (
            isinstance(error, LLMTimeoutError)
            and first_s is not None
            and self._loop.time() + 0.002 >= self._first_by
        ):
            return LLMTimeoutError(
                f"{self._way.lane.name}: first_token_s of {first_s:g} s ran out while waiting for "
                "its first output"
            )
        return super()._named(error)


class CollectedExchange(StreamExchange):
    """Asks for a stream, for a caller who gets all of it at its end.

    So it is seen whether an answer begins in time, and a backend that notices so only who leaves a
    stream does not work on for nobody.
    """

    __slots__ = ()

    def _made(self, asked: Asked) -> StreamThrough:
        return asked.manner.collected()

    def _begun(self) -> None:
        self.passage.answers()
        self._first_by = inf

    def _complete(self) -> None:
        stream = self._stream
        self.passage.sent = self.sent_at or None
        if self._unlike is None:
            body = stream.close()
        else:
            body = self._put_right(b"".join(self._pieces), stream)
            self.passage.came_whole()
        self._caller.send_whole(self, body)
        self._record(None, stream)

    def _break_off(self, error: LLMError) -> None:
        from headrace.gateway.app import for_caller

        # The caller has seen nothing of it, so it is told by a status, as on the general way.
        self._caller.send_error(self, for_caller(error))
        self._record(error, self._stream)
