"""Sends requests on connections made ahead, and says of each how it went.

When a request is to be sent is its user's business (``drive``); what its answer says is read by
``scan``. There are no retries, but for one: a connection that was kept from an earlier request and
had died before this one got a byte says nothing about the target's answers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic

from headrace.bench.load.inbox import Inbox
from headrace.bench.load.line import Line, Place
from headrace.bench.load.scan import Answer
from headrace.contracts.errors import LLMError, LLMTimeoutError
from headrace.contracts.load import Asked, Kind
from headrace.contracts.load_report import Phase

_CONNECT_WITHIN_S = 10.0
_CONNECTING_AT_ONCE = 64
_SPARE = 4
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0


class Call:
    """One request on its way. Instants are of the monotonic clock."""

    __slots__ = (
        "answer",
        "asked",
        "connect_s",
        "could",
        "cut",
        "done",
        "ended",
        "index",
        "intended",
        "line",
        "phase",
        "queued",
        "request",
        "sends",
        "sent",
        "then",
    )

    def __init__(
        self,
        index: int,
        asked: Asked,
        request: bytes,
        answer: Answer,
        *,
        phase: Phase,
        intended: float | None,
        queued: float,
        then: Callable[[Call], None],
    ) -> None:
        self.index, self.asked, self.request, self.answer = index, asked, request, answer
        self.phase: Phase = phase
        self.intended, self.queued, self.then = intended, queued, then
        self.could = queued if intended is None else intended
        self.sent: float | None = None
        self.connect_s: float | None = None
        self.line: Line | None = None
        self.sends = 1
        self.done: float | None = None
        self.ended = False
        self.cut = False


class Sender:
    """A pool of lines to one place.

    ``at_most`` so many calls are on their way at once; the others wait in the order in which they
    came. ``finished`` is told of every call that has ended, before the call's own ``then``.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        place: Place,
        kind: Kind,
        *,
        at_most: int | None,
        timeout_s: float,
        finished: Callable[[Call], None],
    ) -> None:
        self.inbox = Inbox(loop)
        self.read_lags: list[float] = []
        self.schedule_lags: list[float] = []
        self.lost_connections = 0
        self.reads = 0
        self.unstamped = 0
        self.sent_calls = 0
        self.refused_since: float | None = None
        self.refusal: LLMError | None = None
        self.waiting: deque[Call] = deque()
        self.busy = 0
        self._loop, self._place, self._kind = loop, place, kind
        self._at_most, self._timeout_s, self._finished = at_most, timeout_s, finished
        self._idle: list[Line] = []
        self._lines: set[Line] = set()
        self._connecting = self._least = 0
        self._pause_s = _FIRST_PAUSE_S
        self._pausing: asyncio.TimerHandle | None = None
        self._deadlines: deque[tuple[float, Call]] = deque()
        self._closed = False

    def ask(self, call: Call) -> None:
        """Send ``call``, now or when it is its turn."""
        if self._idle and not self.waiting and self._may_send():
            self._begin(self._idle.pop(), call)
        else:
            self.waiting.append(call)
        self._grow()

    def prepare(self, lines: int) -> None:
        """Have so many lines from now on, whether they are needed or not."""
        self._least = lines
        self._grow()

    @property
    def ready(self) -> int:
        """How many lines are there and free."""
        return len(self._idle)

    @property
    def lines(self) -> int:
        """How many lines there are, those on their way included."""
        return len(self._lines)

    def look(self, now: float) -> None:
        """End what has taken too long; to be called a few times a second."""
        deadlines = self._deadlines
        while deadlines and (deadlines[0][0] <= now or deadlines[0][1].ended):
            _, call = deadlines.popleft()
            if not call.ended:
                limit = f"timeout_s of {self._timeout_s:g} s"
                came = (
                    f"{len(call.answer.pieces)} pieces of output"
                    if call.answer.began
                    else "nothing"
                )
                self._give_up(call, LLMTimeoutError(f"{limit} ran out; {came} came"))
        for call in tuple(self.waiting):
            if call.queued + self._timeout_s > now:
                break
            self.waiting.remove(call)
            self._end(
                call,
                LLMTimeoutError(
                    f"timeout_s of {self._timeout_s:g} s ran out before it could be sent: all "
                    "connections were busy"
                ),
            )

    def give_up_waiting(self) -> list[Call]:
        """Forget those that were not sent, and who they were."""
        waiting = list(self.waiting)
        self.waiting.clear()
        return waiting

    def cut(self) -> None:
        """End all that is on its way."""
        for line in tuple(self._lines):
            if line.call is not None:
                line.call.cut = True
                self._give_up(line.call, None)

    def close(self) -> None:
        """Close every line."""
        self._closed = True
        if self._pausing is not None:
            self._pausing.cancel()
        for line in self._lines:
            line.close()
        self._lines.clear()
        self._idle.clear()

    # What lines tell.

    def connected(self, line: Line) -> None:
        self._connecting -= 1
        self.refused_since = self.refusal = None
        self._free(line)
        self._grow()

    def not_connected(self, line: Line, error: LLMError) -> None:
        self._connecting -= 1
        self._lines.discard(line)
        if self._closed:
            return
        if self.refused_since is None:
            self.refused_since = monotonic()
        self.refusal = error
        self._take_a_pause()
        if self.busy + len(self._idle) + self._connecting == 0:
            waiting, self.waiting = self.waiting, deque()
            for call in waiting:
                self._end(call, error)

    def sent(self, line: Line) -> None:
        call: Call = line.call
        if call.sends == 1:
            assert line.sent is not None
            self.schedule_lags.append(max(0.0, line.sent - call.could))
        call.sent = line.sent

    def answered(self, line: Line) -> None:
        call: Call = line.call
        answer = call.answer
        self._pause_s = _FIRST_PAUSE_S
        self._let_go(line)
        if not line.stamped:
            self.unstamped += answer.reads
        self.reads += answer.reads
        if answer.keeps:
            self._free(line, after=answer.at)
        else:
            if answer.status is not None and answer.failure is None:
                self.lost_connections += 1
            self._drop(line)
            if not answer.began and line.used > 1 and call.sends == 1 and not call.cut:
                self.lost_connections += 1
                self._once_more(call)
                return
        call.done = answer.at
        self._end(call, None)

    def lost(self, line: Line) -> None:
        self.lost_connections += 1
        if line in self._idle:
            self._idle.remove(line)
        self._lines.discard(line)
        if line.used == 0:
            # Who closes what was not used yet would do so with the next one at once.
            self._take_a_pause()
        self._grow()

    # Between.

    def _take_a_pause(self) -> None:
        """Connect no more for a while, and for longer each time until something is answered."""
        if self._pausing is None:
            self._pausing = self._loop.call_later(self._pause_s, self._go_on)
            self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)

    def _may_send(self) -> bool:
        return self._at_most is None or self.busy < self._at_most

    def _begin(self, line: Line, call: Call) -> None:
        if line.used == 0:
            call.connect_s = line.connect_s
        line.call, call.line = call, line
        self.busy += 1
        self.sent_calls += call.sends == 1
        self._deadlines.append((monotonic() + self._timeout_s, call))
        line.send(call.request, call.answer)

    def _let_go(self, line: Line) -> None:
        call: Call = line.call
        line.call = line.answer = call.line = None
        self.busy -= 1

    def _free(self, line: Line, after: float | None = None) -> None:
        """``line`` can carry a request: that of who has waited longest, if somebody does."""
        if self.waiting and self._may_send():
            call = self.waiting.popleft()
            call.could = max(call.could, monotonic() if after is None else after)
            self._begin(line, call)
        else:
            self._idle.append(line)

    def _drop(self, line: Line) -> None:
        line.close()
        self._lines.discard(line)
        self._grow()

    def _once_more(self, call: Call) -> None:
        """The connection had died before; another one is asked, fresh if need be."""
        call.sends = 2
        call.answer = Answer(self._kind, keeps_text=call.answer.keeps_text)
        self.waiting.appendleft(call)
        if self._idle and self._may_send():
            self._free(self._idle.pop())
        self._grow()

    def _give_up(self, call: Call, error: LLMError | None) -> None:
        line = call.line
        call.done = monotonic()
        if line is not None:
            self._let_go(line)
            self._drop(line)
        self._end(call, error)

    def _end(self, call: Call, error: LLMError | None) -> None:
        if error is not None:
            call.answer.fail(error)
        call.ended = True
        if call.done is None:
            call.done = monotonic()
        self._finished(call)
        call.then(call)

    def _grow(self) -> None:
        """Connections are made before they are needed: as many as are in use, and some."""
        wanted = self.busy + len(self.waiting)
        wanted = max(wanted + max(_SPARE, wanted // 8), self._least)
        if self._at_most is not None:
            wanted = min(wanted, self._at_most)
        while (
            len(self._lines) < wanted
            and self._connecting < _CONNECTING_AT_ONCE
            and self._pausing is None
            and not self._closed
        ):
            self._connect()

    def _connect(self) -> None:
        line = Line(self._loop, self._place, self)
        self._lines.add(line)
        self._connecting += 1
        line.connect(min(_CONNECT_WITHIN_S, self._timeout_s))

    def _go_on(self) -> None:
        self._pausing = None
        if self.waiting or self.refused_since is not None:
            self._grow()


def is_lost(sender: Sender, now: float, after_s: float) -> bool:
    """Whether the target has let nobody in for ``after_s``, and nothing is on its way."""
    since = sender.refused_since
    return since is not None and now - since > after_s and not sender.busy
