"""Who may run now, who waits, and who is told to come back later.

An engine has so many slots and a cache of so many tokens; a request takes one slot and as many
tokens as its prompt and its longest answer need. The rest wait their turn in order of arrival,
at most so many of them and at most so long.
"""

from __future__ import annotations

import asyncio
from collections import deque
from math import ceil

from attrs import define, field

from headrace.contracts.errors import LLMRateLimitError

_FIRST_GUESS_S = 1.0
_MOST_RETRY_AFTER_S = 30.0
_SMOOTHING = 0.2


@define(eq=False)
class _Waiting:
    tokens: int
    places: int
    turn: asyncio.Future[None]


@define(kw_only=True, eq=False)
class Admission:
    """The door of one engine.

    ``max_running`` requests run at once and hold ``max_tokens`` tokens together (``None``: not
    counted); ``max_waiting`` may wait for at most ``timeout_s`` seconds.
    """

    max_running: int
    max_waiting: int
    timeout_s: float
    max_tokens: int | None = None
    running: int = field(default=0, init=False)
    tokens: int = field(default=0, init=False)
    _queue: deque[_Waiting] = field(factory=deque, init=False)
    _service_s: float = field(default=_FIRST_GUESS_S, init=False)

    @property
    def waiting(self) -> int:
        """How many wait now."""
        return len(self._queue)

    def fits(self, tokens: int, places: int = 1) -> bool:
        """Whether a request of that size would run at once."""
        return not self._queue and self._has_room(tokens, places)

    async def enter(self, tokens: int = 0, places: int = 1) -> None:
        """Wait for room; ``leave`` must follow with the same numbers.

        A request for several answers takes a place for each.

        Raises LLMRateLimitError, with ``retry_after_s``, when the queue is full or the wait too
        long. A request that alone is larger than the cache runs when nothing else does.
        """
        if self.fits(tokens, places):
            self._take(tokens, places)
            return
        if len(self._queue) >= self.max_waiting:
            raise LLMRateLimitError(
                f"{self.running} requests are running and {self.waiting} waiting, which is the "
                "most that this server accepts",
                retry_after_s=self._retry_after_s(),
                code="queue_full",
            )
        mine = _Waiting(tokens, places, asyncio.get_running_loop().create_future())
        self._queue.append(mine)
        try:
            async with asyncio.timeout(self.timeout_s):
                await mine.turn
        except TimeoutError:
            if self._gave_up(mine):
                return
            raise LLMRateLimitError(
                f"no place became free within {self.timeout_s:g} s: {self.running} requests are "
                f"running and {self.waiting} waiting",
                retry_after_s=self._retry_after_s(),
                code="queue_timeout",
            ) from None
        except BaseException:
            if self._gave_up(mine):
                self.leave(tokens, places)
            raise

    def leave(self, tokens: int = 0, places: int = 1, *, served_s: float | None = None) -> None:
        """Give the place back; ``served_s`` is how long it was held, for the wait we quote."""
        self.running -= places
        self.tokens -= tokens
        if served_s is not None:
            self._service_s += _SMOOTHING * (served_s - self._service_s)
        while self._queue and self._has_room(self._queue[0].tokens, self._queue[0].places):
            following = self._queue.popleft()
            if following.turn.done():  # cancelled in this very step
                continue
            self._take(following.tokens, following.places)
            following.turn.set_result(None)

    def _gave_up(self, mine: _Waiting) -> bool:
        """Leave the queue; true if the place had been given to us in the same step."""
        if mine in self._queue:
            self._queue.remove(mine)
            return False
        return mine.turn.done() and not mine.turn.cancelled()

    def _has_room(self, tokens: int, places: int) -> bool:
        if not self.running:
            return True
        if self.running + places > self.max_running:
            return False
        return self.max_tokens is None or self.tokens + tokens <= self.max_tokens

    def _take(self, tokens: int, places: int) -> None:
        self.running += places
        self.tokens += tokens

    def _retry_after_s(self) -> float:
        rounds = (self.waiting + 1) / self.max_running
        return float(min(max(1, ceil(rounds * self._service_s)), _MOST_RETRY_AFTER_S))
