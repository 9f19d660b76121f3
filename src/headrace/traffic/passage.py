"""A call that is asked at once and whose answer goes by as bytes: its place, its circuit, its record.

``Traffic.run`` makes calls that may wait, be repeated and go elsewhere. A passage does none of that:
it begins only where nobody has to wait, is one attempt, and what fails before the caller has seen a
byte is handed over to ``Traffic.run`` to go on with. Both leave the same record.
"""

from __future__ import annotations

from attrs import frozen

from headrace.contracts.errors import LLMError
from headrace.contracts.record import Attempt, CallRecord, Operation, Timeline
from headrace.contracts.responses import Usage
from headrace.contracts.routing import RouteDecision
from headrace.numbers.usage import fill_totals
from headrace.traffic.call import Traffic, new_call_id
from headrace.traffic.fallback import Earlier
from headrace.traffic.lane import Lane
from headrace.traffic.visit import error_kind
from headrace.wire.passing import PassingAnswer


@frozen(kw_only=True, eq=False)
class Ticket:
    """What all passages to one lane for one model have in common.

    ``backend`` is the lane's name, ``model`` what is asked for there; ``requested_model`` and
    ``route`` are the caller's and ours.
    """

    lane: Lane
    backend: str
    model: str
    requested_model: str | None
    route: str
    provider: str
    operation: Operation = "chat"


class Passage:
    """One call that has its place at a lane (``may_begin``): tell it of ``output``, and then either
    ``end`` it or ``hand_over``, once. ``queued`` is the instant at which its request was here;
    ``dropped`` are the settings that its backend could not be given."""

    __slots__ = (
        "_answering",
        "_era",
        "_health_era",
        "_live",
        "_rated_tokens",
        "_traffic",
        "admitted",
        "call_id",
        "chunks",
        "decision",
        "dropped",
        "first_token",
        "last_token",
        "queued",
        "request_id",
        "sent",
        "stream",
        "ticket",
    )

    def __init__(
        self,
        traffic: Traffic,
        ticket: Ticket,
        *,
        queued: float,
        rated_tokens: int,
        request_id: str | None,
        stream: bool,
        decision: RouteDecision | None = None,
        dropped: tuple[str, ...] = (),
    ) -> None:
        lane = ticket.lane
        breaker, health = lane.breaker, lane.health
        self._traffic = traffic
        self._rated_tokens = rated_tokens
        self._era = None if breaker is None else breaker.enter()
        self._health_era = 0 if health is None else health.era
        self._answering = False
        self.ticket = ticket
        self.decision = decision
        self.dropped = dropped
        self.queued = queued
        self.stream = stream
        self.call_id = new_call_id()
        self.request_id = f"req_{self.call_id[:24]}" if request_id is None else request_id
        self.chunks = 0
        self.sent: float | None = None
        self.first_token: float | None = None
        self.last_token: float | None = None
        lane.counts.came()
        if lane.budget is not None:
            lane.budget.began()
        self.admitted = traffic.now()
        self._live = traffic.began_at(ticket.model, ticket.backend, self.call_id)

    def now(self) -> float:
        """This instant, by the clock of the others."""
        return self._traffic.now()

    def output(self, chunks: int) -> None:
        """There were ``chunks`` pieces of output in all by now."""
        self.chunks = chunks
        self.last_token = now = self._traffic.now()
        if self.first_token is None:
            self.first_token = now

    def answers(self) -> None:
        """The backend has given something: enough for a breaker that asks whether it is well."""
        self._answering = True
        lane = self.ticket.lane
        if lane.breaker is not None and self._era is not None:
            lane.breaker.answers(self._era)
        if lane.health is not None:
            lane.health.answers(self._health_era)

    def came_whole(self) -> None:
        """The answer is here, all at once: nobody knows when its first token was made."""
        self.chunks = 1
        self.last_token = self._traffic.now()
        self._answering = True

    def end(
        self,
        error: LLMError | None,
        answer: PassingAnswer | None,
        *,
        sent: float | None,
        first_byte: float | None,
        status: int | None,
        sends: int,
    ) -> None:
        """The call is over, well or by ``error``, with so much of an answer; its record goes out."""
        done = self._traffic.now()
        usage = None if answer is None else answer.usage
        attempt = self._leave(error, usage, done, status, sends)
        self.ticket.lane.counts.ended(attempt.error_kind, done - self.queued, usage, error)
        self._live.ended()
        self._record(error, attempt, answer, sent, first_byte)

    def record(self, earlier: Earlier) -> None:
        """Nobody went on with the call after ``hand_over``: that attempt was all of it."""
        kind = earlier.attempt.error_kind
        took_s = earlier.attempt.end - self.queued
        self.ticket.lane.counts.ended(kind, took_s, None, earlier.error)
        self._record(earlier.error, earlier.attempt, None, None, None)

    def _record(
        self,
        error: LLMError | None,
        attempt: Attempt,
        answer: PassingAnswer | None,
        sent: float | None,
        first_byte: float | None,
    ) -> None:
        traffic, ticket, done = self._traffic, self.ticket, attempt.end
        seen, usage, finish_reason, price = ticket.model, None, None, None
        if answer is not None:
            seen, usage = answer.model or seen, answer.usage
            finish_reason = answer.finish_reason
        if usage is not None:
            price = traffic.paid(ticket.provider, (seen, ticket.requested_model), usage)
            ticket.lane.counts.cost(price)
        traffic.emit(
            CallRecord(
                call_id=self.call_id,
                operation=ticket.operation,
                request_id=self.request_id,
                backend=ticket.backend,
                provider=ticket.provider,
                requested_model=ticket.requested_model,
                model=seen,
                route=ticket.route,
                decision=self.decision,
                stream=self.stream,
                chunks=self.chunks,
                attempts=(attempt,),
                dropped=self.dropped,
                usage=usage,
                price_usd=price,
                finish_reason=finish_reason,
                status=200 if error is None else error.status,
                error_kind=attempt.error_kind,
                timeline=Timeline(
                    anchor=done,
                    wall_anchor=traffic.wall(),
                    queued=self.queued,
                    admitted=self.admitted,
                    sent=sent,
                    first_byte=first_byte,
                    first_token=self.first_token,
                    last_token=self.last_token,
                    done=done,
                ),
            )
        )

    def hand_over(self, error: LLMError, *, status: int | None, sends: int) -> Earlier:
        """The attempt failed with ``error`` before the caller saw anything of it."""
        attempt = self._leave(error, None, self._traffic.now(), status, sends)
        self._live.ended()
        return Earlier(
            error=error,
            attempt=attempt,
            call_id=self.call_id,
            queued=self.queued,
            admitted=self.admitted,
            dropped=self.dropped,
        )

    def _leave(
        self,
        error: LLMError | None,
        usage: Usage | None,
        now: float,
        status: int | None,
        sends: int,
    ) -> Attempt:
        lane, era = self.ticket.lane, self._era
        breaker = lane.breaker
        if breaker is not None and era is not None:
            if error is None:
                breaker.succeeded(era)
            elif error.status == 499:
                breaker.left(era)
            else:
                breaker.failed(era, error)
        health = lane.health
        if health is not None:
            if error is None:
                if not health.well:
                    health.answers(self._health_era)
                health.succeeded()
            elif error.status != 499:
                shut_s = 0.0 if breaker is None else breaker.shut_s
                health.failed(self._health_era, error, shut_s)
        admission = lane.admission
        limits = admission.limits
        if limits is not None:
            if usage is not None:
                usage = fill_totals(usage)
            used = None if usage is None else usage.total_tokens
            if used is not None:
                limits.settle(self._rated_tokens, used)
            elif error is not None and not self._answering:
                limits.settle(self._rated_tokens, 0)
        admission.leave(0, 1, served_s=now - self.admitted if self._answering else None)
        return Attempt(
            backend=self.ticket.backend,
            begin=self.admitted,
            end=now,
            status=status,
            error_kind=None if error is None else error_kind(error),
            sends=sends,
        )


def may_begin(lane: Lane, rated_tokens: int) -> bool:
    """Whether a call may be asked at ``lane`` at once; if so, it has its place there.

    Not where the lane has to show that it is well again: such a call is better made by who can go
    elsewhere.
    """
    breaker = lane.breaker
    if not lane.is_well or (breaker is not None and breaker.open_until is not None):
        return False
    return lane.admission.enter_now(0, 1, rated_tokens)


def rated_tokens(lane: Lane, body_bytes: int, answer_tokens: int | None) -> int:
    """As ``Lane.rated_tokens``, of a request that was not read to the end."""
    limits = lane.admission.limits
    if limits is None or not limits.counts_tokens:
        return 0
    return body_bytes // 4 + (answer_tokens or 256)
