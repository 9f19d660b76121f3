"""When things are due: one heap of instants for all that a mock does later, and what wakes it.

Instants are absolute, on the clock of ``time.monotonic``. What is due late is done late, but what
follows from it counts from when it was due: lateness never adds up. The loop's own timers have a
resolution of a millisecond, which is a tenth of the usual gap between two tokens; so on Linux a
timer of the kernel's (timerfd) wakes the loop, elsewhere it polls for the last millisecond.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from time import monotonic
from typing import Protocol, TypeAlias

Act: TypeAlias = Callable[[float], float | None]
"""What is done at an instant, which it is told; it says when it is to be done again, if it is."""

_AT_ONCE = 256
"""So many things are done before the loop may look at its connections again."""
SPIN_S = 0.0001
"""For so long ``exact`` waits for an instant without sleeping."""


class Alarm(Protocol):
    """Wakes the loop."""

    def set(self, instant: float | None) -> None:
        """Wake at ``instant`` (at once, where it has passed), or not at all."""

    def close(self) -> None:
        """Wake no more."""


class Schedule:
    """Does what is due. With ``spin_s`` it is woken so much earlier and spins for the rest."""

    def __init__(
        self,
        alarm: Callable[[Callable[[], None]], Alarm],
        spin_s: float = 0.0,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.clock = clock
        self._heap: list[tuple[float, int, Act]] = []
        self._number = 0
        self._spin_s = spin_s
        self._running = False
        self._alarm = alarm(self._run)
        self._set: float | None = None

    def at(self, instant: float, act: Act) -> None:
        """Do ``act`` at ``instant``; what is due at the same instant is done in the order asked."""
        self._number += 1
        heappush(self._heap, (instant, self._number, act))
        if not self._running and (self._set is None or instant < self._set):
            self._wake_for(instant)

    def shift(self, seconds: float) -> None:
        """Put all that is to be done off by ``seconds``, as if time had stood still."""
        self._heap = [(instant + seconds, n, act) for instant, n, act in self._heap]
        heapify(self._heap)

    def close(self) -> None:
        """Do nothing more."""
        self._heap.clear()
        self._alarm.close()

    def _wake_for(self, instant: float | None) -> None:
        self._set = instant
        self._alarm.set(None if instant is None else instant - self._spin_s)

    def _run(self) -> None:
        self._running = True
        try:
            self._do_what_is_due()
        finally:
            self._running = False
            self._wake_for(self._heap[0][0] if self._heap else None)

    def _do_what_is_due(self) -> None:
        clock, spin_s, spun = self.clock, self._spin_s, False
        now = clock()
        for _ in range(_AT_ONCE):
            heap = self._heap
            if not heap:
                return
            instant = heap[0][0]
            if instant > now:
                # Once only: the loop has connections to look after as well.
                if spun or instant - now > spin_s:
                    return
                spun = True
                while clock() < instant:
                    pass
            instant, number, act = heappop(heap)
            again = act(instant)
            if again is not None:
                heappush(self._heap, (again, number, act))
            now = clock()


class LoopAlarm:
    """The loop's own timer to the millisecond before, then a look at the clock on every turn."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.Handle | None = None
        self._instant = 0.0

    def set(self, instant: float | None) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if instant is not None:
            self._instant = instant
            self._wait()

    def close(self) -> None:
        self.set(None)

    def _wait(self) -> None:
        left = self._instant - monotonic()
        if left > 0.002:
            # A loop of milliseconds may be one early and one late.
            self._handle = self._loop.call_later(left - 0.002, self._wait)
        elif left > 0:
            self._handle = self._loop.call_soon(self._wait)
        else:
            self._handle = self._loop.call_soon(self._act)


class KernelAlarm:
    """A timer of Linux (timerfd_create(2)), which the loop watches as it does a socket."""

    def __init__(self, act: Callable[[], None]) -> None:
        from headrace.bench.mock.timerfd import Timer

        self._timer = Timer()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._timer.fd, act)

    def set(self, instant: float | None) -> None:
        # Setting it also takes back an expiration that nobody has read.
        self._timer.set(0 if instant is None else max(1, int(instant * 1e9)))

    def close(self) -> None:
        self._loop.remove_reader(self._timer.fd)
        self._timer.close()


def best_alarm() -> Callable[[Callable[[], None]], Alarm]:
    """The most exact alarm that this machine has."""
    return KernelAlarm if sys.platform == "linux" else LoopAlarm
