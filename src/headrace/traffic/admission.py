"""Who may run now, who waits, and who is told to come back later.

An engine has so many slots and a cache of so many tokens; a request takes one slot and as many
tokens as its prompt and its longest answer need. A provider allows so many requests and tokens a
minute. The rest wait their turn by priority and then in order of arrival, at most so many of them
and at most so long. Idle requests come after all of these: they leave a part of everything free, and
wait outside the queue for as long as it takes.
"""

from __future__ import annotations

import asyncio
from itertools import count
from math import ceil, inf

from attrs import define, field

from headrace.contracts.errors import LLMRateLimitError
from headrace.contracts.requests import Priority
from headrace.net.clock import Clock, SystemClock, Timer
from headrace.traffic.limits import RateLimits

PASSED_OVER = 7
"""So many in a row may go before somebody of a lower priority who came earlier, and no more."""

SPARED = 0.25
"""The part of places, tokens and rates that idle requests leave to the others."""

_FIRST_GUESS_S = 1.0
_MOST_RETRY_AFTER_S = 30.0
_SMOOTHING = 0.2
_RANKS: dict[Priority, int] = {"high": 0, "normal": 2, "low": 4}


@define(eq=False)
class _Waiting:
    tokens: int
    places: int
    rated_tokens: int
    arrival: int
    turn: asyncio.Future[bool | None]
    """True: it has its place; false: it waited too long; none: it is to go elsewhere."""


class TurnedAwayError(Exception):
    """Another door is open for whoever waits at this one; nobody but a call's visit hears of it."""


@define(kw_only=True, eq=False)
class Admission:
    """The door of one engine.

    ``max_running`` requests run at once and hold ``max_tokens`` tokens together (``None``: not
    counted), begun no faster than ``limits`` allow; ``max_waiting`` may wait for at most
    ``timeout_s`` seconds.

    Higher priorities go first, but nobody waits for ever: after PASSED_OVER admissions in a row
    that went before somebody who had come earlier, the next is whoever has waited longest. A
    ``pause`` holds back all who are not in yet. Those of the priority ``idle`` come in only while
    nobody waits, and count as waiting for nobody.
    """

    max_running: int
    max_waiting: int
    timeout_s: float
    max_tokens: int | None = None
    limits: RateLimits | None = None
    clock: Clock = field(factory=SystemClock)
    running: int = field(default=0, init=False)
    tokens: int = field(default=0, init=False)
    _tiers: tuple[dict[_Waiting, None], ...] = field(init=False)
    _idle: dict[_Waiting, None] = field(factory=dict, init=False)
    _arrivals: count[int] = field(factory=count, init=False)
    _passed_over: int = field(default=0, init=False)
    _service_s: float = field(default=_FIRST_GUESS_S, init=False)
    _rate_timer: Timer | None = field(default=None, init=False)
    _closed_until: float = field(default=-inf, init=False)

    @_tiers.default
    def _empty_tiers(self) -> tuple[dict[_Waiting, None], ...]:
        """In the order of their turn: for each priority, those asked again and then the others."""
        return tuple({} for _ in range(2 * len(_RANKS)))

    @property
    def waiting(self) -> int:
        """How many wait now, the idle ones aside."""
        return sum(map(len, self._tiers))

    def fits(self, tokens: int, places: int = 1) -> bool:
        """Whether a request of that size would find room at once."""
        return not any(self._tiers) and self._has_room(tokens, places) and self._opens_in_s() <= 0

    def enter_now(self, tokens: int = 0, places: int = 1, rated_tokens: int = 0) -> bool:
        """As ``enter``, where nobody has to wait; whether it was so."""
        if (
            any(self._tiers)
            or not self._has_room(tokens, places)
            or (self._closed_until > -inf and self._opens_in_s() > 0)
        ):
            return False
        if self.limits is not None:
            if self.limits.wait_s(rated_tokens) != 0:
                return False
            self.limits.take(rated_tokens)
        self.running += places
        self.tokens += tokens
        return True

    @property
    def opens_in_s(self) -> float:
        """How long a pause lasts yet; 0 or less where there is none."""
        return self._opens_in_s()

    def turn_away(self, most: int | None = None) -> None:
        """Have those who wait go elsewhere, or the first ``most`` of them: TurnedAwayError."""
        waiting = [each for tier in (*self._tiers, self._idle) for each in tier]
        for each in waiting[:most]:
            if not each.turn.done():
                each.turn.set_result(None)

    def pause(self, seconds: float) -> None:
        """Let nobody in for so long, or for as long as an earlier pause lasts."""
        self._closed_until = max(self._closed_until, self.clock.monotonic() + seconds)

    async def enter(
        self,
        tokens: int = 0,
        places: int = 1,
        *,
        rated_tokens: int = 0,
        priority: Priority = "normal",
        again: bool = False,
    ) -> None:
        """Wait for room; ``leave`` must follow with the same ``tokens`` and ``places``.

        A request for several answers takes a place for each. ``rated_tokens`` is what it is
        believed to count against the tokens a minute. Who comes ``again``, for another attempt, has
        waited before: it goes before others of its priority and the queue is never full for it.

        Raises LLMRateLimitError, with ``retry_after_s``, when the queue is full or the wait too
        long. A request that alone is larger than the cache runs when nothing else does.
        """
        is_idle = priority == "idle"
        if not is_idle and self.enter_now(tokens, places, rated_tokens):
            return
        if self.waiting >= self.max_waiting and not again and not is_idle:
            raise LLMRateLimitError(
                f"{self.running} requests are running and {self.waiting} waiting, which is the "
                "most that may",
                retry_after_s=self._retry_after_s(),
                code="queue_full",
            )
        turn: asyncio.Future[bool | None] = asyncio.get_running_loop().create_future()
        mine = _Waiting(tokens, places, rated_tokens, next(self._arrivals), turn)
        tier = self._idle if is_idle else self._tiers[_RANKS[priority] + (not again)]
        tier[mine] = None
        self._let_in()
        too_late = None
        if not is_idle:
            too_late = self.clock.call_later(
                self.timeout_s, lambda: None if turn.done() else turn.set_result(False)
            )
        try:
            admitted = await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self.leave(tokens, places)  # the place was given in the very step
            raise
        finally:
            if too_late is not None:
                too_late.cancel()
            if tier.pop(mine, mine) is None:  # still in the queue
                self._let_in()  # those behind it may be smaller
        if admitted is None:
            raise TurnedAwayError
        if not admitted:
            raise LLMRateLimitError(
                f"no place became free within {self.timeout_s:g} s: {self.running} requests are "
                f"running and {self.waiting} waiting",
                retry_after_s=self._retry_after_s(),
                code="queue_timeout",
            )

    def leave(self, tokens: int = 0, places: int = 1, *, served_s: float | None = None) -> None:
        """Give the place back; ``served_s`` is how long it was held, for the wait we quote."""
        self.running -= places
        self.tokens -= tokens
        if served_s is not None:
            self._service_s += _SMOOTHING * (served_s - self._service_s)
        if self._idle or any(self._tiers):
            self._let_in()

    def _let_in(self) -> None:
        self._let_in_by_rank()
        if self._idle and not any(self._tiers):
            self._let_idle_in()

    def _let_in_by_rank(self) -> None:
        while (tier := self._next_tier()) is not None:
            following = next(iter(tier))
            if following.turn.done():  # cancelled, or too late, in this very step
                del tier[following]
                continue
            if not self._has_room(following.tokens, following.places):
                return
            wait_s = max(self._opens_in_s(), self._wait_for_rate_s(following.rated_tokens))
            if wait_s > 0:
                self._look_again_in(wait_s)
                return
            del tier[following]
            overtook = any(next(iter(t)).arrival < following.arrival for t in self._tiers if t)
            self._passed_over = self._passed_over + 1 if overtook else 0
            self._take(following.tokens, following.places, following.rated_tokens)
            following.turn.set_result(True)

    def _let_idle_in(self) -> None:
        while (first := next(iter(self._idle), None)) is not None:
            if first.turn.done():  # cancelled in this very step
                del self._idle[first]
                continue
            if not self._has_room(first.tokens, first.places, SPARED):
                return
            wait_s = max(self._opens_in_s(), self._wait_for_rate_s(first.rated_tokens, SPARED))
            if wait_s > 0:
                self._look_again_in(wait_s)
                return
            del self._idle[first]
            self._take(first.tokens, first.places, first.rated_tokens)
            first.turn.set_result(True)

    def _next_tier(self) -> dict[_Waiting, None] | None:
        """Whose first has the next turn."""
        tiers = [tier for tier in self._tiers if tier]
        if not tiers:
            return None
        if self._passed_over >= PASSED_OVER:
            return min(tiers, key=lambda tier: next(iter(tier)).arrival)
        return tiers[0]

    def _look_again_in(self, seconds: float) -> None:
        if self._rate_timer is not None:
            self._rate_timer.cancel()
        self._rate_timer = self.clock.call_later(seconds, self._let_in)

    def _wait_for_rate_s(self, rated_tokens: int, spared: float = 0.0) -> float:
        return 0.0 if self.limits is None else self.limits.wait_s(rated_tokens, spared)

    def _opens_in_s(self) -> float:
        return self._closed_until - self.clock.monotonic()

    def _has_room(self, tokens: int, places: int, spared: float = 0.0) -> bool:
        if not self.running:
            return True
        if self.running + places > self.max_running - ceil(spared * self.max_running):
            return False
        if self.max_tokens is None:
            return True
        return self.tokens + tokens <= self.max_tokens - spared * self.max_tokens

    def _take(self, tokens: int, places: int, rated_tokens: int) -> None:
        self.running += places
        self.tokens += tokens
        if self.limits is not None:
            self.limits.take(rated_tokens)

    def _retry_after_s(self) -> float:
        rounds = (self.waiting + 1) / self.max_running
        return float(min(max(1, ceil(rounds * self._service_s)), _MOST_RETRY_AFTER_S))
