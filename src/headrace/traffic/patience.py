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


class Patience:
    """``asyncio.timeout`` for the waits of one call, which go on after it has given things away.

    Each wait is a ``with patience("while waiting for ..."):`` block; between them the limits run on
    and nothing is cancelled. One timer serves all; it is moved only when a limit comes before it.
    """

    __slots__ = (
        "_cancelling",
        "_clock",
        "_doing",
        "_limits",
        "_over",
        "_peer",
        "_rang",
        "_task",
        "_timer",
        "_timer_at",
    )

    def __init__(self, clock: Clock, peer: str) -> None:
        self._clock = clock
        self._peer = peer
        self._limits: dict[str, tuple[float, float]] = {}
        """By name, the instant and the seconds that led to it."""
        self._over: str | None = None
        self._doing = ""
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._rang = False
        self._timer: Timer | None = None
        self._timer_at = inf

    def allow(self, name: str, seconds: float | None) -> None:
        """From now on the limit ``name`` is so far away; ``None`` is without limit."""
        self.lift(name)
        if seconds is not None:
            now = self._clock.monotonic()
            self._limits[name] = (now + seconds, seconds)
            if now + seconds < self._timer_at:
                self._arm(now)

    def lift(self, name: str) -> None:
        """There is no limit ``name`` any more."""
        self._limits.pop(name, None)
        if self._over == name:
            self._over = None
            if self._limits and self._timer is None:
                self._arm(self._clock.monotonic())

    def left_s(self, name: str) -> float:
        """Seconds until the limit ``name``; infinite without one."""
        limit = self._limits.get(name)
        return inf if limit is None else limit[0] - self._clock.monotonic()

    def close(self) -> None:
        """The call is over."""
        self._limits.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

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

    def _arm(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = min(at for at, _ in self._limits.values())
        self._timer = self._clock.call_later(self._timer_at - now, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._timer_at = inf
        if not self._limits:
            return
        now = self._clock.monotonic()
        name = min(self._limits, key=lambda each: self._limits[each][0])
        if now < self._limits[name][0] - _ROUNDING_S:
            self._arm(now)
            return
        self._over = name
        if self._task is not None:
            self._rang = True
            self._task.cancel()

    def _error(self, name: str) -> LLMTimeoutError:
        seconds = self._limits[name][1]
        return LLMTimeoutError(f"{self._peer}: {name} of {seconds:g} s ran out while {self._doing}")
