"""Asks one engine: as many at once as it takes, as fast as its provider allows, and again where it
said no.

A row waits as long as the engine serves others or may do so again. What an error means is told by
``verdict``: the row's own faults end the row, an engine's end the run, so that no row is written
off for what the next run would do better.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from attrs import define, frozen

from headrace.chains.pace.account import Account
from headrace.chains.pace.latency import Latencies
from headrace.chains.pace.paced import Paced
from headrace.chains.pace.verdict import EngineGoneError, advice_for, verdict_of
from headrace.chains.pace.window import Window
from headrace.contracts.errors import LLMError, LLMTimeoutError
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMResponse, Usage
from headrace.net.clock import Clock, Timer
from headrace.numbers.usage import fill_totals
from headrace.traffic.lane import rated_tokens
from headrace.traffic.retry import RetryPolicy

_LOOKS_EVERY_S = 1.0
_DOUBTS = 3
_DOUBTS_S = 5.0
_DOUBT_S = 1.0
_MOST_GIVEN_UP = 10
_UNREACHED_HOLD_S = 2.0
_REFUSALS_A_RETRY = 10
_SMOOTHING = 0.05

Ask = Callable[[LLMRequest], Coroutine[Any, Any, LLMResponse]]


@frozen(kw_only=True)
class PaceSettings:
    """How an engine is asked.

    ``concurrency`` requests are under way at most, and a request that failed for a reason that may
    pass is made again ``retries`` times. An answer is given up after five times the time within
    which 99 of 100 came, ``least_cut_s`` at least, and after ``first_cut_s`` while too few are
    known. The run stops where nobody was reached for ``unreached_s`` (``never_reached_s`` where
    nobody ever was), or everybody was refused for ``refused_s``.
    """

    concurrency: int = 64
    retries: int = 5
    least_cut_s: float = 10.0
    first_cut_s: float = 600.0
    never_reached_s: float = 10.0
    unreached_s: float = 60.0
    refused_s: float = 600.0


@frozen(kw_only=True)
class PaceSnapshot:
    """How an engine is asked now: ``size`` of ``most`` requests may be under way, and ``running``
    are; nobody is sent for ``held_s``. ``refused``, ``failed`` and ``cut`` count requests that had
    to be made again; ``failing`` is the last error, while nothing has been answered since."""

    engine: str
    size: int
    most: int
    running: int
    waiting: int
    held_s: float
    answered: int
    refused: int
    failed: int
    cut: int
    failing: str | None


@define(eq=False)
class _Sent:
    """A request under way; ``cut`` is why it was given up."""

    task: asyncio.Task[Any]
    kind: str
    began: float
    times: int
    was_cancelling: int
    cut_s: float | None = None


@define
class _Tries:
    """What became of a request so far."""

    failures: int = 0
    refusals: int = 0
    doubts: int = 0
    cuts: int = 0
    others_before: int = 0


class Pace:
    """The way to ``engine``, whom ``ask`` asks once; engines of one provider and key share an
    ``account``."""

    def __init__(
        self,
        engine: str,
        ask: Ask,
        account: Account,
        settings: PaceSettings,
        clock: Clock,
        random: Random | None = None,
    ) -> None:
        self.engine = engine
        self._ask, self._account, self._settings, self._clock = ask, account, settings, clock
        self._random = Random() if random is None else random  # noqa: S311  no secret hangs on it
        self._window = Window(settings.concurrency)
        # An engine that is asked less as it fails needs no long waits of each row besides; and a
        # row that waits keeps those behind it from being written.
        self._retry = RetryPolicy(
            retries=100, first_delay_s=0.5, max_delay_s=4.0, max_retry_after_s=settings.refused_s
        )
        self._steps: dict[str, Paced] = {}
        self._running = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._sent: dict[_Sent, None] = {}
        self._latencies: dict[str, Latencies] = {}
        self._token_share: dict[str, float] = {}
        self._sweeper: Timer | None = None
        self._failing_since: float | None = None
        self._failing: LLMError | None = None
        self._given_up = 0
        self._gone: LLMError | None = None
        self._answered = self._refused = self._failed = self._cut = 0
        account.tell(self._let_in)

    def of(self, step: str) -> Paced:
        """The way there for ``step``, whose answers take alike long."""
        found = self._steps.get(step)
        if found is None:
            found = self._steps[step] = Paced(self, step)
        return found

    async def answer(
        self, kind: str, request: LLMRequest, admitted: Callable[[], None] | None = None
    ) -> LLMResponse:
        """The answer to ``request``, however often it has to be asked; ``kind`` are those that take
        alike long, such as a step's. ``admitted`` is told each time that it has its place.

        Raises the LLMError that the row ends with, or EngineGoneError where the run is to end.
        """
        tries = _Tries()
        while True:
            await self._enter(again=tries.failures + tries.refusals + tries.doubts > 0)
            tokens = self._tokens_of(kind, request)
            try:
                if admitted is not None:
                    admitted()
                wait_s = self._account.reserve(tokens)
                if wait_s > 0:
                    await self._clock.sleep(wait_s)
                sent, turn = self._clock.monotonic(), self._account.turn()
                response = await self._once(kind, request, sent, tries.cuts)
            except LLMError as error:
                self._account.settle(tokens, 0)
                delay_s = self._after(error, tries, sent, turn)
            except BaseException:
                self._account.settle(tokens, 0)
                raise
            else:
                self._came(kind, response, tokens, sent, turn)
                return response
            finally:
                self._leave()
            await self._clock.sleep(delay_s)

    def snapshot(self) -> PaceSnapshot:
        """How it stands."""
        return PaceSnapshot(
            engine=self.engine,
            size=self._window.size,
            most=self._window.most,
            running=self._running,
            waiting=len(self._queue),
            held_s=self._account.held_s,
            answered=self._answered,
            refused=self._refused,
            failed=self._failed,
            cut=self._cut,
            failing=None if self._failing is None else self._failing.message,
        )

    async def _once(self, kind: str, request: LLMRequest, began: float, times: int) -> LLMResponse:
        """One request, given up when its time is over."""
        task = asyncio.current_task()
        assert task is not None
        mine = _Sent(task, kind, began, 2**times, task.cancelling())
        self._sent[mine] = None
        if self._sweeper is None:
            self._sweeper = self._clock.call_later(_LOOKS_EVERY_S, self._sweep)
        try:
            return await self._ask(request)
        except asyncio.CancelledError:
            if mine.cut_s is None or task.uncancel() > mine.was_cancelling:
                raise
            raise LLMTimeoutError(
                f"engine {self.engine!r} gave no answer for {mine.cut_s:.0f} s, and was not waited "
                "for any longer"
            ) from None
        finally:
            del self._sent[mine]

    def _sweep(self) -> None:
        self._sweeper = None
        if not self._sent:
            return
        for each in self._latencies.values():
            each.look()
        now = self._clock.monotonic()
        for sent in self._sent:
            longest_s = self._latencies_of(sent.kind).longest_s * sent.times
            if sent.cut_s is None and now - sent.began > longest_s:
                sent.cut_s = now - sent.began
                sent.task.cancel()
        self._sweeper = self._clock.call_later(_LOOKS_EVERY_S, self._sweep)

    def _latencies_of(self, kind: str) -> Latencies:
        found = self._latencies.get(kind)
        if found is None:
            settings = self._settings
            found = self._latencies[kind] = Latencies(
                least_s=settings.least_cut_s, first_s=settings.first_cut_s
            )
        return found

    def _came(self, kind: str, response: LLMResponse, tokens: int, sent: float, turn: int) -> None:
        now = self._clock.monotonic()
        self._answered += 1
        self._failing_since = self._failing = None
        self._given_up = 0
        self._latencies_of(kind).add(now - sent)
        self._window.answered(kind, sent, now)
        self._account.answered(turn)
        if tokens and isinstance(response.usage, Usage):
            used = fill_totals(response.usage).total_tokens
            if used is not None:
                self._account.settle(tokens, used)
                share = self._token_share.get(kind)
                told = used / (tokens / (share or 1.0))
                self._token_share[kind] = (
                    told if share is None else share + _SMOOTHING * (told - share)
                )

    def _after(self, error: LLMError, tries: _Tries, sent: float, turn: int) -> float:
        """Seconds until it is asked again; raises what the row or the run ends with."""
        verdict = verdict_of(error)
        if verdict == "row":
            raise error
        now = self._clock.monotonic()
        self._failing = error
        if self._failing_since is None:
            self._failing_since = sent
        failing_s = now - self._failing_since
        settings = self._settings
        if verdict == "wrong":
            return self._doubted(error, tries, failing_s)
        if verdict == "refused":
            self._refused += 1
            self._window.refused(sent, now)
            self._account.refused(turn, error.retry_after_s)
            said_s = error.retry_after_s or 0.0
            if settings.retries and max(failing_s, said_s) > settings.refused_s:
                raise self._end_of_run(error)
            tries.refusals += 1
            if tries.refusals > _REFUSALS_A_RETRY * settings.retries:
                raise self._end_of_row(error)
            return said_s or self._delay_s(tries.refusals, error)
        self._failed += 1
        if verdict == "unreached":
            self._window.refused(sent, now)
            self._account.refused(turn, None, most_s=_UNREACHED_HOLD_S)
            patience_s = settings.unreached_s if self._answered else settings.never_reached_s
            if not settings.retries or failing_s > patience_s:
                raise self._end_of_run(error)
            tries.refusals += 1
            return self._delay_s(tries.refusals, error)
        if isinstance(error, LLMTimeoutError):
            self._cut += 1
            tries.cuts += 1
            self._window.refused(sent, now)
        tries.failures += 1
        if tries.failures > settings.retries:
            raise self._end_of_row(error)
        return error.retry_after_s or self._delay_s(tries.failures, error)

    def _doubted(self, error: LLMError, tries: _Tries, failing_s: float) -> float:
        """As ``_after``, where the engine seems to be none that can answer anybody."""
        self._failed += 1
        if not self._answered or failing_s > _DOUBTS_S:
            raise self._end_of_run(error)
        if not tries.doubts:
            tries.others_before = self._answered
        tries.doubts += 1
        if tries.doubts >= _DOUBTS and self._answered > tries.others_before:
            raise self._end_of_row(error)
        return _DOUBT_S

    def _delay_s(self, times: int, error: LLMError) -> float:
        delay = min(self._retry.first_delay_s * 2.0 ** min(times - 1, 10), self._retry.max_delay_s)
        return delay * (1 - self._retry.jitter * self._random.random())

    def _end_of_row(self, error: LLMError) -> LLMError:
        """What a row ends with that was asked as often as allowed; many in a row are the engine's."""
        self._given_up += 1
        if self._given_up >= _MOST_GIVEN_UP:
            return self._end_of_run(error)
        error.transient = True
        return error

    def _end_of_run(self, error: LLMError) -> EngineGoneError:
        if self._gone is None:
            self._gone = error
            for turn in self._queue:
                if not turn.done():
                    turn.set_exception(self._goodbye())
            self._queue.clear()
        return self._goodbye()

    def _goodbye(self) -> EngineGoneError:
        # One for each row: an error that several raise gathers all their traces.
        error = self._gone
        assert error is not None
        gone = EngineGoneError(
            f"engine {self.engine!r} cannot be used any more: {error.message.rstrip('.')}. "
            f"{advice_for(error)}. What was done is kept, and the same command goes on from there",
            provider=error.provider,
            provider_message=error.provider_message,
            code=error.code,
        )
        gone.__cause__ = error
        return gone

    def _tokens_of(self, kind: str, request: LLMRequest) -> int:
        if not self._account.counts_tokens:
            return 0
        return max(1, round(rated_tokens(request) * self._token_share.get(kind, 1.0)))

    # The door. A semaphore's size cannot change, and has no way for those who come again.

    async def _enter(self, *, again: bool) -> None:
        if self._gone is not None:
            raise self._goodbye()
        if not self._queue and self._running < self._window.size and not self._account.held:
            self._running += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if again:
            self._queue.appendleft(turn)
        else:
            self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._leave()  # the place was given in the very step
            raise

    def _leave(self) -> None:
        self._running -= 1
        if self._queue:
            self._let_in()

    def _let_in(self) -> None:
        while self._queue and self._running < self._window.size and not self._account.held:
            turn = self._queue.popleft()
            if not turn.done():
                self._running += 1
                turn.set_result(None)
