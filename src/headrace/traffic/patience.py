"""The time limits of one call that no transport can see: its first token, and the whole of it."""

from __future__ import annotations

import asyncio
from math import inf
from types import TracebackType
from typing import Self

from headrace.contracts.errors import LLMTimeoutError
from headrace.net.clock import Clock, Timer

# A timer may ring a rounding error before the instant it was set for.
_ROUNDING_S = 1e-6


class Alarm:
    """One timer for many calls, nearly all of which are over long before it rings.

    It is moved only when somebody wants to be woken before it.
    """

    __slots__ = ("_clock", "_loop", "_timer", "_timer_at", "_wanted")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wanted: dict[Patience, float] = {}
        self._timer: Timer | None = None
        self._timer_at = inf

    def wake(self, patience: Patience, at: float) -> None:
        """``patience`` wants to be woken at this instant, and not when it wanted before."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # what an earlier one had to do died with it
            self._loop = loop
            self._wanted.clear()
            self._still()
        self._wanted[patience] = at
        if at < self._timer_at:
            self._set(at)

    def forget(self, patience: Patience) -> None:
        """``patience`` need not be woken any more."""
        self._wanted.pop(patience, None)
        if not self._wanted:
            self._still()

    def _set(self, at: float) -> None:
        self._still()
        self._timer_at = at
        self._timer = self._clock.call_later(at - self._clock.monotonic(), self._ring)

    def _still(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = inf

    def _ring(self) -> None:
        self._still()
        now = self._clock.monotonic() + _ROUNDING_S
        due = [patience for patience, at in self._wanted.items() if at <= now]
        for patience in due:
            del self._wanted[patience]
        if self._wanted:
            self._set(min(self._wanted.values()))
        for patience in due:
            patience.ring()


class Patience:
    """``asyncio.timeout`` for the waits of one call, which go on after it has given things away.

    Each wait is a ``with patience("while waiting for ..."):`` block; between them the limits run on
    and nothing is cancelled.
    """

    __slots__ = (
        "_alarm",
        "_alarm_at",
        "_cancelling",
        "_clock",
        "_doing",
        "_limits",
        "_over",
        "_peer",
        "_rang",
        "_task",
    )

    def __init__(self, clock: Clock, peer: str, alarm: Alarm | None = None) -> None:
        self._clock = clock
        self._alarm = alarm or Alarm(clock)
        self._alarm_at = inf
        self._peer = peer
        self._limits: dict[str, tuple[float, float]] = {}
        """By name, the instant and the seconds that led to it."""
        self._over: str | None = None
        self._doing = ""
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._rang = False

    def allow(self, name: str, seconds: float | None) -> None:
        """From now on the limit ``name`` is so far away; ``None`` is without limit."""
        self.lift(name)
        if seconds is not None:
            at = self._clock.monotonic() + seconds
            self._limits[name] = (at, seconds)
            if at < self._alarm_at:
                self._set_alarm()

    def lift(self, name: str) -> None:
        """There is no limit ``name`` any more."""
        self._limits.pop(name, None)
        if self._over == name:
            self._over = None
            if self._limits and self._alarm_at == inf:
                self._set_alarm()

    def left_s(self, name: str) -> float:
        """Seconds until the limit ``name``; infinite without one."""
        limit = self._limits.get(name)
        return inf if limit is None else limit[0] - self._clock.monotonic()

    def beside(self) -> Patience:
        """Another wait for the same call at the same time: it shares ``total_s`` and nothing else."""
        other = Patience(self._clock, self._peer, self._alarm)
        if "total_s" in self._limits:
            other._limits["total_s"] = self._limits["total_s"]
            other._set_alarm()
        return other

    def close(self) -> None:
        """The call is over."""
        self._limits.clear()
        self._alarm.forget(self)

    def meet(self, peer: str) -> None:
        """Whom the call waits for from now on, for the errors."""
        self._peer = peer

    def __call__(self, doing: str) -> Self:
        self._doing = doing
        return self

    def __enter__(self) -> None:
        if self._over is not None:
            raise self._error(self._over)
        if self._limits:
            task = asyncio.current_task()
            assert task is not None
            self._task = task
            self._cancelling = task.cancelling()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        if self._rang and task is not None:
            self._rang = False
            # Somebody else's cancellation in the same step goes before ours.
            ours = task.uncancel() <= self._cancelling
            if ours and kind is asyncio.CancelledError and self._over is not None:
                raise self._error(self._over) from None

    def ring(self) -> None:
        """The alarm's side: it is as late as was wanted."""
        self._alarm_at = inf
        if not self._limits:
            return
        name = min(self._limits, key=lambda each: self._limits[each][0])
        if self._clock.monotonic() < self._limits[name][0] - _ROUNDING_S:
            self._set_alarm()
            return
        self._over = name
        if self._task is not None:
            self._rang = True
            self._task.cancel()

    def _set_alarm(self) -> None:
        self._alarm_at = min(self._limits.values())[0]
        self._alarm.wake(self, self._alarm_at)

    def _error(self, name: str) -> LLMTimeoutError:
        seconds = self._limits[name][1]
        return LLMTimeoutError(f"{self._peer}: {name} of {seconds:g} s ran out while {self._doing}")
