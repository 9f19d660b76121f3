"""A clock for tests: its time moves when it is told to, or when everybody sleeps."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count

# So many turns of the loop without anybody able to run, and everybody is taken to be asleep: a
# wake-up by call_soon takes one turn, one through a chain of futures a few.
_QUIET_TURNS = 5


class _ManualTimer:
    """Something to do, until it is done or called off."""

    __slots__ = ("do",)

    def __init__(self, do: Callable[[], None]) -> None:
        self.do: Callable[[], None] | None = do

    def cancel(self) -> None:
        self.do = None


class ManualClock:
    """Meets Clock without real time.

    ``await clock.advance(5)`` moves it, waking sleepers and timers in order, each at its own
    instant. With ``auto`` it moves by itself to the next one's when every task waits for something;
    so a test of back-off over minutes takes milliseconds. That fits scripted transports only: a
    task that waits for a real socket or a thread also counts as asleep.
    """

    def __init__(self, *, monotonic: float = 1000.0, wall: float = 1.7e9, auto: bool = False):
        self._now = monotonic
        self._wall_offset = wall - monotonic
        self._auto = auto
        self._timers: list[tuple[float, int, _ManualTimer]] = []
        self._order = count()
        self._sleeping = 0
        self._watching = False
        self._quiet_turns = 0

    def monotonic(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._now + self._wall_offset

    @property
    def sleepers(self) -> int:
        """How many sleep now."""
        return self._sleeping

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(seconds, lambda: None if woken.done() else woken.set_result(None))
        self._sleeping += 1
        try:
            await woken
        finally:
            self._sleeping -= 1
            timer.cancel()

    def call_later(self, seconds: float, do: Callable[[], None]) -> _ManualTimer:
        timer = _ManualTimer(do)
        heapq.heappush(self._timers, (self._now + max(0.0, seconds), next(self._order), timer))
        if self._auto and not self._watching:
            loop = asyncio.get_running_loop()
            self._watching = True
            self._quiet_turns = 0
            loop.call_soon(self._watch, loop)
        return timer

    async def advance(self, seconds: float) -> None:
        """Move ``seconds`` on; returns when all who woke sleep again or have ended."""
        until = self._now + seconds
        await _settle()
        while self._pending() and self._timers[0][0] <= until:
            self._ring_next()
            await _settle()
        self._now = until

    def _pending(self) -> bool:
        """Whether anything is still to be done; what was called off need not hold time up."""
        while self._timers and self._timers[0][2].do is None:
            heapq.heappop(self._timers)
        return bool(self._timers)

    def _ring_next(self) -> None:
        at, _, timer = heapq.heappop(self._timers)
        self._now = max(self._now, at)
        do, timer.do = timer.do, None
        if do is not None:
            do()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Once a turn of the loop, while there is something to do later."""
        self._quiet_turns = self._quiet_turns + 1 if _all_wait(loop) else 0
        if self._quiet_turns >= _QUIET_TURNS and self._pending():
            self._quiet_turns = 0
            self._ring_next()
        if self._pending():
            loop.call_soon(self._watch, loop)
        else:
            self._watching = False


def _all_wait(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether no task can run: each waits for a future that is not done."""
    for task in asyncio.all_tasks(loop):
        # asyncio has no public word for it; both loops' tasks have this one.
        awaited: asyncio.Future[object] | None = getattr(task, "_fut_waiter", None)
        if awaited is None or awaited.done():
            return False
    return True


async def _settle() -> None:
    """Give way until the other tasks wait for something, as far as turns of the loop can show."""
    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    quiet = 0
    while quiet < _QUIET_TURNS:
        await asyncio.sleep(0)
        waits = (getattr(task, "_fut_waiter", None) for task in asyncio.all_tasks(loop) - {me})
        quiet = quiet + 1 if all(w is not None and not w.done() for w in waits) else 0
