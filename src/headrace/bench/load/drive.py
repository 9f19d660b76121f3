"""When each request of a run is sent, what follows an answer, and when it is all over.

A closed loop is so many callers, each of whom goes on when it is answered. An open loop follows a
schedule, whatever the answers do. In both, a conversation goes on by itself, turn after answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from random import Random
from time import monotonic
from typing import Protocol

from headrace.bench.load.clocks import Agenda
from headrace.bench.load.scan import Answer
from headrace.bench.load.sender import Call, Sender, is_lost
from headrace.bench.load.writing import Ahead, Ready, Writer
from headrace.contracts.errors import LLMAuthError, LLMError
from headrace.contracts.load import Asked, Closed, LoadPlan
from headrace.contracts.load_report import Ended, Phase

_LOOKS_EVERY_S = 0.05
_LOST_AFTER_S = 3.0
_LAST_WORDS_S = 3.0
"""How long those in flight are waited for at most, once somebody has asked us to stop."""
_AT_A_TIME = 64
_SHARE_OF_AT_LEAST = 100


class Stop:
    """Asks a run to end: once, and it sends no more and waits a moment; twice, and it ends at once."""

    def __init__(self) -> None:
        self.level = 0

    def ask(self) -> None:
        """Ask, or ask again."""
        self.level += 1


class Watcher(Protocol):
    """Who counts what happens."""

    def sent(self, at: float) -> None:
        """A request was taken up."""

    def looked(self, now: float) -> None:
        """A few times a second: how things stand can be asked now."""


class Drive:
    """One run of ``plan`` through ``sender``, from ``begin`` on.

    ``seconds`` are the instants of an open loop, counted from ``begin``. ``first_failure`` is told
    of a failure that will not become better, before anything went well.
    """

    def __init__(
        self,
        plan: LoadPlan,
        *,
        loop: asyncio.AbstractEventLoop,
        ahead: Ahead,
        writer: Writer,
        seconds: Iterator[float] | None,
        watcher: Watcher,
        stop: Stop,
    ) -> None:
        self._plan, self._loop, self._ahead, self._writer = plan, loop, ahead, writer
        self._seconds, self._watcher, self._stop = seconds, watcher, stop
        self._agenda = Agenda(loop)
        self._random = Random(f"think {plan.seed}")
        self._sender: Sender
        self._over: asyncio.Future[None] = loop.create_future()
        self._sending = True
        self._stopped_at_level = 0
        self._index = 0
        self._talks = 0
        self._scheduled = seconds is not None
        self._looking: asyncio.TimerHandle | None = None
        self._refilling = False
        self.begin = 0.0
        self.ended: Ended = "complete"
        self.end = 0.0
        self.ok = self.failed = self.never_sent = 0
        self.longest_wait_s = 0.0
        self.fatal: LLMError | None = None

    async def run(self, sender: Sender, begin: float) -> None:
        """Send from ``begin`` on, until it is over."""
        self._sender, self.begin = sender, begin
        plan = self._plan
        if plan.duration_s is not None:
            self._agenda.at(begin + plan.duration_s, self._stop_sending)
        if isinstance(plan.arrivals, Closed):
            for caller in range(plan.arrivals.concurrency):
                after = plan.arrivals.ramp_s * caller / plan.arrivals.concurrency
                self._agenda.at(begin + after, self._go_on)
        else:
            self._schedule_next()
        self._look()
        try:
            await self._over
        finally:
            self.end = monotonic()
            self._agenda.close()
            if self._looking is not None:
                self._looking.cancel()

    def finished(self, call: Call) -> None:
        """A call is over: how that bears on the rest of the run."""
        failure = call.answer.failure
        if call.cut:
            return
        if failure is None:
            self.ok += 1
            return
        self.failed += 1
        if not self.ok and _is_hopeless(failure):
            self.fatal = failure
            self._end_now("too many errors")
        plan, over = self._plan, self.ok + self.failed
        if (plan.most_errors is not None and self.failed >= plan.most_errors) or (
            plan.most_error_share is not None
            and over >= _SHARE_OF_AT_LEAST
            and self.failed / over > plan.most_error_share
        ):
            self._end_now("too many errors")

    # Sending.

    def _may_begin(self) -> bool:
        most = self._plan.requests
        return self._sending and (most is None or self._index < most)

    def _schedule_next(self) -> None:
        assert self._seconds is not None
        offset = next(self._seconds, None)
        if offset is None:
            self._scheduled = False
            if not self._talks:
                self._stop_sending()
            return
        intended = self.begin + offset
        self._agenda.at(intended, lambda: self._arrive(intended))

    def _arrive(self, intended: float) -> None:
        """A request of an open loop is due, and maybe some more are."""
        if not self._sending:
            return
        assert self._seconds is not None
        for _ in range(_AT_A_TIME):
            self._open(intended, None)
            if not self._may_begin():
                return
            offset = next(self._seconds, None)
            if offset is None:
                self._scheduled = False
                if not self._talks:
                    self._stop_sending()
                return
            intended = self.begin + offset
            if intended > monotonic():
                break
        due = intended
        self._agenda.at(due, lambda: self._arrive(due))

    def _go_on(self, call: Call | None = None) -> None:
        """A caller of a closed loop asks the next thing."""
        if self._may_begin():
            self._open(None, self._caller_answered)

    def _caller_answered(self, call: Call) -> None:
        arrivals = self._plan.arrivals
        assert isinstance(arrivals, Closed)
        if not self._sending:
            self._end_if_over()
            return
        done = call.done or monotonic()
        if arrivals.think_s:
            done += self._random.expovariate(1 / arrivals.think_s)
            self._agenda.at(done, self._go_on)
        elif call.answer.failure is not None and call.sent is None:
            self._agenda.at(done + _LOOKS_EVERY_S, self._go_on)  # nobody lets us in
        else:
            self._go_on()

    def _open(self, intended: float | None, then: Callable[[Call], None] | None) -> None:
        ready = self._ahead.take()
        if ready is None:
            self._stop_sending()
            return
        if ready.later:
            self._talks += 1
            _Talk(self, ready, then).begin(intended)
        else:
            self.send(ready.asked, ready.request, intended, then or self._open_answered)
        if not self._refilling:
            self._refilling = True
            self._loop.call_soon(self._refill)

    def send(
        self,
        asked: Asked,
        request: bytes,
        intended: float | None,
        then: Callable[[Call], None],
    ) -> None:
        """Hand one request to the sender."""
        now = monotonic()
        index = self._index
        self._index += 1
        call = Call(
            index,
            asked,
            request,
            Answer(self._plan.kind, keeps_text=asked.turns > 1),
            phase=self._phase(index, now if intended is None else intended),
            intended=intended,
            queued=now,
            then=then,
        )
        self._watcher.sent(now)
        self._sender.ask(call)
        if self._index == self._plan.requests:
            self._stop_sending()

    def _phase(self, index: int, at: float) -> Phase:
        # Whoever is meant for the very end of the warm-up is not in it, whatever was rounded.
        plan, since = self._plan, round(at - self.begin, 6)
        if index < plan.warmup_requests or since < plan.warmup_s:
            return "warmup"
        if plan.cooldown_s and plan.duration_s is not None:
            return "cooldown" if since >= plan.duration_s - plan.cooldown_s else "measured"
        return "measured"

    def _open_answered(self, call: Call) -> None:
        if not self._sending:
            self._end_if_over()

    # A conversation.

    def talk_goes_on(self, at: float, turn: Callable[[], None]) -> None:
        """The next turn of a conversation is to be sent ``at`` that instant."""
        self._agenda.at(at, turn)

    def may_go_on(self) -> bool:
        """Whether a conversation may have another turn."""
        return self._may_begin()

    def talk_ended(self, call: Call, then: Callable[[Call], None] | None) -> None:
        """A conversation is over."""
        self._talks -= 1
        if then is not None:
            then(call)
        elif not self._sending:
            self._end_if_over()
        elif not self._scheduled and not self._talks:
            self._stop_sending()

    def write(self, asked: Asked, history: tuple[dict[str, object], ...]) -> bytes:
        """A later turn, which could not be written before the answer was known."""
        return self._writer.write(asked, history)

    @property
    def is_open(self) -> bool:
        """Whether requests are sent by a schedule."""
        return self._seconds is not None

    # The end.

    def _stop_sending(self) -> None:
        """No more requests; those in flight have their time to end."""
        if not self._sending:
            return
        self._sending = False
        self._agenda.clear()
        self._agenda.at(monotonic() + self._plan.drain_s, self._cut)
        self._loop.call_soon(self._end_if_over)

    def _end_if_over(self) -> None:
        if self._sending or self._sender.busy or self._sender.waiting:
            return
        if not self._over.done():
            self._over.set_result(None)

    def _give_up_waiting(self) -> None:
        """What is due and was not sent will not be."""
        now, waiting = monotonic(), self._sender.give_up_waiting()
        self.never_sent += len(waiting)
        longest = max((now - call.could for call in waiting), default=0.0)
        self.longest_wait_s = max(self.longest_wait_s, longest)

    def _cut(self) -> None:
        self._give_up_waiting()
        self._sender.cut()
        self._end_if_over()

    def _end_now(self, ended: Ended) -> None:
        """For a reason that makes what is in flight worthless."""
        if self._over.done() or self.ended != "complete":
            return
        self.ended = ended
        self._sending = False
        self._agenda.clear()
        self._loop.call_soon(self._cut)

    def _interrupted(self) -> None:
        level = self._stop.level
        if level == self._stopped_at_level:
            return
        self._stopped_at_level = level
        if self.ended == "complete":
            self.ended = "interrupted"
        self._sending = False
        self._agenda.clear()
        self._give_up_waiting()
        last_words = min(self._plan.drain_s, _LAST_WORDS_S) if level == 1 else 0.0
        self._agenda.at(monotonic() + last_words, self._cut)
        self._end_if_over()

    # Now and then.

    def _look(self) -> None:
        self._looking = self._loop.call_later(_LOOKS_EVERY_S, self._look)
        now = monotonic()
        self._interrupted()
        self._sender.look(now)
        self._watcher.looked(now)
        if self._sending:
            self._ahead.fill()
            if is_lost(self._sender, now, _LOST_AFTER_S):
                self._end_now("target lost")

    def _refill(self) -> None:
        self._refilling = False
        if self._sending:
            self._ahead.fill()


class _Talk:
    """One conversation: each turn brings along all that was said before it."""

    def __init__(self, drive: Drive, ready: Ready, then: Callable[[Call], None] | None) -> None:
        self._drive, self._then = drive, then
        self._request = ready.request
        self._turns = iter(ready.later)
        self._asked = ready.asked
        self._history: tuple[dict[str, object], ...] = ()

    def begin(self, intended: float | None) -> None:
        self._drive.send(self._asked, self._request, intended, self._answered)

    def _answered(self, call: Call) -> None:
        turn = next(self._turns, None)
        if turn is None or call.answer.failure is not None or call.cut:
            self._drive.talk_ended(call, self._then)
            return
        said: dict[str, object] = {"role": "assistant", "content": call.answer.text}
        self._history += (*self._asked.messages, said)
        self._asked = turn
        assert call.done is not None
        at = call.done + turn.after_s
        if self._drive.may_go_on():
            self._drive.talk_goes_on(at, lambda: self._say(at, call))
        else:
            self._drive.talk_ended(call, self._then)

    def _say(self, at: float, last: Call) -> None:
        if self._drive.may_go_on():
            request = self._drive.write(self._asked, self._history)
            intended = at if self._drive.is_open else None
            self._drive.send(self._asked, request, intended, self._answered)
        else:
            self._drive.talk_ended(last, self._then)


def _is_hopeless(failure: LLMError) -> bool:
    """Whether the next request would fare no better: a wrong key, model or path, a redirect."""
    status = failure.status or 0
    return isinstance(failure, LLMAuthError) or status in (404, 405) or 300 <= status < 400
