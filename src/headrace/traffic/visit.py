"""One call at one lane: attempt after attempt, until one brings output or none may follow.

Until then nothing has been given away, so everything may be done again; afterwards nothing may.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from headrace.contracts.errors import (
    LLMAuthError,
    LLMCancelledError,
    LLMError,
    LLMOverloadedError,
    LLMRateLimitError,
    LLMTimeoutError,
)
from headrace.contracts.record import Attempt, Marks
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMDelta, Usage
from headrace.numbers.usage import fill_totals
from headrace.traffic.admission import TurnedAwayError
from headrace.traffic.keys import Key
from headrace.traffic.lane import Lane, Seat
from headrace.traffic.running import Running


class Visit:
    """``open`` it, take what is ``held`` and then ``deltas``, and ``end`` it in every case.

    ``patient``: the lane's policy may ask it again; else its first failure is the last. ``failed``
    is how a first attempt there ended that was not made here. Whoever takes the deltas writes into
    ``usage`` what they report. ``hedged``: its attempt is made beside another visit's.
    """

    def __init__(
        self,
        lane: Lane,
        request: LLMRequest,
        call: Running,
        *,
        patient: bool,
        failed: LLMError | None = None,
        hedged: bool = False,
    ) -> None:
        self.lane = lane
        self.request = request
        self.attempt: Attempt | None = None
        """The last one, once it is over."""
        self.usage: Usage | None = None
        self.held: list[LLMDelta] = []
        self.deltas: AsyncGenerator[LLMDelta, None] | None = None
        self._call = call
        self._patient = patient
        self._came = call.clock.monotonic()
        self._begin: float | None = None
        self._tokens = self._places = self._rated_tokens = 0
        self._seat: Seat | None = None
        self._era: int | None = None
        self._health_era = 0
        self._retries = 0
        self._moves = 0
        self._may_move = False
        self._answering = False
        self._failed = failed
        self._hedged = hedged
        call.latest = Marks(backend=lane.name, whole=call.whole)
        if failed is None:
            lane.counts.came()
        else:
            call.latest.provider = failed.provider
            call.latest.dropped += call.dropped_earlier

    async def open(self) -> None:
        """Ask, and where that fails ask again, until there is output; raises an LLMError.

        What came before the first output (an empty first piece, say) is ``held`` until then.
        """
        call = self._call
        call.patience.meet(self.lane.name)
        failure = self._failed
        if failure is not None:
            await self._before_another(failure)
        while True:
            try:
                await self._enter(again=failure is not None)
            except LLMError as refusal:
                if failure is None:
                    raise
                if isinstance(refusal, LLMTimeoutError):
                    raise refusal from failure
                # Our own door is shut now; what the endpoint said tells more.
                failure.add_note(f"not asked again: {refusal}")
                raise failure from None
            try:
                await self._ask()
                return
            except LLMError as error:
                await self._leave(error)
                failure = error
            if self._may_move:  # another of its keys may be asked at once
                self._may_move = False
                self._moves += 1
                self.lane.counts.retried()
            else:
                await self._before_another(failure)

    async def _before_another(self, failure: LLMError) -> None:
        """Wait as the policy has it after an attempt that failed; raises ``failure`` where no other
        may be made."""
        self._spare_the_endpoint(failure)
        delay_s = self._delay_s(self._retries + 1, failure)
        if delay_s is None:
            raise failure
        with self._call.patience("waiting to ask again"):
            await self._call.clock.sleep(delay_s)
        self._retries += 1
        self.lane.counts.retried()

    @property
    def began(self) -> float | None:
        """When the attempt began that is under way."""
        return self._begin

    @property
    def asking_since(self) -> float | None:
        """When the attempt began that has brought no output yet; ``None`` where there is none."""
        return None if self._answering else self._begin

    @property
    def provider(self) -> str | None:
        """Who took the latest attempt."""
        return self._call.latest.provider

    def goes_on_in(self, call: Running) -> None:
        """What was opened beside ``call`` is the call's own visit from now on."""
        call.marks.dropped += self._call.marks.dropped
        call.latest = self._call.latest
        call.patience.meet(self.lane.name)
        call.live.admitted(self.lane.name)
        self._call = call
        self._publish()

    async def end(self, error: BaseException | None) -> None:
        """The call is over here, or goes on elsewhere; closes the upstream at once."""
        try:
            await self._leave(error)
        finally:
            took_s = self._call.clock.monotonic() - self._came
            self.lane.counts.ended(error_kind(error), took_s, self.usage, error)

    async def _enter(self, *, again: bool) -> None:
        lane, request, call = self.lane, self.request, self._call
        with call.patience("waiting for a place"):
            if lane.breaker is not None:
                lane.breaker.check()  # before the queue: an open circuit fails fast
            rated_tokens = lane.rated_tokens(request)
            while True:
                seat = lane.seat(request)
                door = seat.admission
                if door.max_tokens is None:
                    tokens, places = 0, request.n or 1
                else:
                    tokens, places = await lane.cost(request, seat)
                # An idle one leaves a part of the room to others, which only ``enter`` reckons with.
                if request.priority != "idle" and door.enter_now(tokens, places, rated_tokens):
                    break
                try:
                    await door.enter(
                        tokens,
                        places,
                        rated_tokens=rated_tokens,
                        priority=request.priority,
                        again=again,
                    )
                    break
                except TurnedAwayError:  # another key has become the better one
                    again = True
        self._begin = call.clock.monotonic()
        self._seat = seat
        self._tokens, self._places, self._rated_tokens = tokens, places, rated_tokens
        try:
            if lane.breaker is not None:
                self._era = lane.breaker.enter()
        except LLMError as refusal:  # the circuit opened while the call waited
            self._give_back(refusal)
            raise
        if lane.health is not None:
            self._health_era = lane.health.era
        call.patience.allow("first_token_s", lane.first_token_s)
        self._answering = False
        call.enters(lane)
        if call.asks is not None:
            call.asks(self)

    async def _ask(self) -> None:
        """One attempt, up to its first output."""
        lane, call, seat = self.lane, self._call, self._seat
        assert seat is not None
        if lane.budget is not None and not self._retries and not self._moves:
            lane.budget.began()
        if self._retries or self._moves:
            call.latest = Marks(backend=lane.name, whole=call.whole)
        marks = call.latest
        if lane.retry is not None and lane.retry.retries:
            # For all providers: one that does not know the header ignores it.
            marks.idempotency_key = call.call_id
        if call.whole and lane.first_token_s is None and call.asks is None:
            marks.whole_s = lane.whole_s
            marks.whole_within_s = lane.whole_s if call.total_s is None else call.total_s
        self.held.clear()
        self.deltas = seat.backend.stream(self.request, marks)
        with call.patience("waiting for its first output"):
            async for delta in self.deltas:
                self.held.append(delta)
                if is_output(delta) or delta.finish_reason is not None or delta.provider_fields:
                    break
        self._answering = True
        if lane.breaker is not None and self._era is not None:
            lane.breaker.answers(self._era)
        if lane.health is not None:
            lane.health.answers(self._health_era)
        self._publish()
        call.marks.dropped += marks.dropped

    def _delay_s(self, retry: int, error: LLMError) -> float | None:
        """How long to wait before the next attempt; ``None`` where there shall be none."""
        lane, call = self.lane, self._call
        delay_s = self._policy_delay_s(retry, error) if self._patient else None
        if delay_s is None:
            return None
        if lane.breaker is not None and lane.breaker.state == "open":
            error.add_note("not asked again: it has failed too often and is left alone")
            return None
        if delay_s >= call.patience.left_s("total_s"):
            error.add_note(f"not asked again: {delay_s:.1f} s from now total_s would be over")
            return None
        if lane.budget is not None and not lane.budget.spend():
            error.add_note("not asked again: too many calls are being retried (retry budget)")
            return None
        return delay_s

    def _policy_delay_s(self, retry: int, error: LLMError) -> float | None:
        policy, keys = self.lane.retry, self.lane.keys
        if policy is None:
            return None
        delay_s = policy.delay_s(retry, error, self._call.random)
        if keys is None or not isinstance(error, LLMRateLimitError | LLMAuthError):
            return delay_s
        # Whichever of its keys is open first: that need not be the one that was asked last.
        opens_s = keys.opens_in_s() if retry <= policy.retries else None
        return None if opens_s is None or opens_s > policy.max_retry_after_s else opens_s

    def _spare_the_endpoint(self, error: LLMError) -> None:
        """Where it said how long to leave it alone, nobody goes there before that."""
        retry, wait_s = self.lane.retry, error.retry_after_s
        if (
            self.lane.keys is None  # else the key was told
            and retry is not None
            and wait_s is not None
            and wait_s <= retry.max_retry_after_s
            and isinstance(error, LLMRateLimitError | LLMOverloadedError)
            # A limit on one caller's own key is no business of the others.
            and "api_key" not in self.request.metadata
        ):
            self.lane.admission.pause(wait_s)

    async def _leave(self, error: BaseException | None) -> None:
        """The attempt is over, if there is one."""
        deltas, self.deltas = self.deltas, None
        self._call.patience.lift("first_token_s")
        try:
            if deltas is not None:
                await deltas.aclose()
        finally:
            if self._begin is not None:
                self._report(error)
                self._give_back(error)

    def _report(self, error: BaseException | None) -> None:
        call, breaker = self._call, self.lane.breaker
        assert self._begin is not None
        attempt = Attempt(
            backend=call.latest.backend or self.lane.name,
            begin=self._begin,
            end=call.clock.monotonic(),
            status=call.latest.status,
            sends=call.latest.sends,
            error_kind=error_kind(error),
            hedged=self._hedged,
        )
        self.attempt = attempt
        call.attempts.append(attempt)
        call.marks.attempts.append(attempt)
        self._publish()
        failure = error if isinstance(error, LLMError) else None
        if failure is not None and self._answering and call.patience.left_s("total_s") <= 0:
            failure = None  # a caller whose time is over says nothing about who answers
        if breaker is not None and self._era is not None:
            if error is None:
                breaker.succeeded(self._era)
            elif failure is not None:
                breaker.failed(self._era, failure, again=self._retries > 0)
            else:
                breaker.left(self._era)
        self._era = None
        if self._seat is not None and self._seat.key is not None:
            self._report_key(self._seat.key, error, attempt)
            if self._may_move:
                failure = None  # it says nothing of the others
        if self.lane.health is not None:
            if error is None:
                self.lane.health.succeeded()
            elif failure is not None:
                shut_s = 0.0 if breaker is None else breaker.shut_s
                self.lane.health.failed(self._health_era, failure, shut_s)

    def _report_key(self, key: Key, error: BaseException | None, attempt: Attempt) -> None:
        keys = self.lane.keys
        assert keys is not None
        took_s = attempt.end - attempt.begin
        key.counts.came()
        key.counts.ended(attempt.error_kind, took_s, self.usage, error)
        # A call's own key is no business of the others.
        if "api_key" in self.request.metadata:
            return
        if error is None or self._answering:
            keys.answers(key)
        elif isinstance(error, LLMError):
            self._may_move = keys.failed(key, error) and self._moves < len(tuple(keys)) * 2

    def _give_back(self, error: BaseException | None) -> None:
        seat, begin = self._seat, self._begin
        assert seat is not None
        assert begin is not None
        admission = seat.admission
        self._begin = None
        if admission.limits is not None:
            usage = self.usage
            if usage is not None and usage.total_tokens is None:
                usage = fill_totals(usage)
            used = None if usage is None else usage.total_tokens
            if used is not None:
                admission.limits.settle(self._rated_tokens, used)
            elif error is not None and not self._answering:
                admission.limits.settle(self._rated_tokens, 0)
        served_s = self._call.clock.monotonic() - begin
        admission.leave(self._tokens, self._places, served_s=served_s if self._answering else None)
        if self.lane.keys is not None:
            self.lane.keys.level()

    def _publish(self) -> None:
        mine, theirs = self._call.latest, self._call.marks
        theirs.backend, theirs.provider = mine.backend, mine.provider
        theirs.sent, theirs.first_byte, theirs.status = mine.sent, mine.first_byte, mine.status


def error_kind(error: BaseException | None) -> str | None:
    """What a record says of it; to be left by the caller is to be cancelled."""
    if error is None:
        return None
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return LLMCancelledError.__name__
    return type(error).__name__


def is_output(delta: LLMDelta) -> bool:
    """Whether it holds a piece of the answer."""
    return bool(
        delta.text_delta
        or delta.reasoning_delta
        or delta.tool_call_delta is not None
        or delta.refusal_delta
    )
