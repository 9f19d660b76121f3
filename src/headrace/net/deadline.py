"""One timer for the phases of many requests, so that a time limit costs no timer per wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf

from headrace.contracts.errors import LLMTimeoutError

# What was being done when a limit of TimeLimits ran out.
_DOING = {
    "queue_s": "waiting for a free connection",
    "connect_s": "connecting",
    "first_byte_s": "waiting for the answer's headers",
    "idle_s": "waiting for more of the answer's body",
    "send_s": "sending the request",
}
# A loop that was itself held up must first see what the socket has, before a limit is called missed.
_GRACE_S = 0.001


def limit_error(peer: str, phase: str, seconds: float, *, total: bool) -> LLMTimeoutError:
    """The error for a limit of ``seconds`` that ran out in ``phase`` (a field of TimeLimits)."""
    name = "total_s" if total else "idle_s" if phase == "send_s" else phase
    return LLMTimeoutError(f"{peer}: {name} of {seconds:g} s ran out while {_DOING[phase]}")


class Deadline:
    """The limit of the current phase of one connection, and of the request as a whole.

    The timer is moved only when a deadline comes before it; when it fires too soon it is set
    again. A busy connection so touches the loop's timers once in a limit's length.
    """

    __slots__ = (
        "_at",
        "_expire",
        "_loop",
        "_seconds",
        "_timer",
        "_timer_at",
        "_total_at",
        "_total_s",
        "phase",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[], None]) -> None:
        self._loop = loop
        self._expire = expire
        self._at = self._timer_at = self._total_at = inf
        self._seconds: float | None = None
        self._total_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.phase = ""

    def begin(self, total_at: float, total_s: float | None) -> None:
        """A request begins, all of which must be over at ``total_at`` (the loop's time)."""
        self._total_at = total_at
        self._total_s = total_s

    def enter(self, phase: str, seconds: float | None) -> None:
        """A phase begins that may take so long."""
        self.phase = phase
        self._seconds = seconds
        at = self._total_at
        if seconds is not None:
            at = min(at, self._loop.time() + seconds)
        self._at = at
        if at < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._arm(at)

    def rest(self) -> None:
        """No phase runs; only the limit of the whole still does."""
        self._at = self._total_at
        if self._at < self._timer_at:
            self._arm(self._at)

    def end(self) -> None:
        """The request is over. The timer stays, most likely to be of use to the next one."""
        self._at = self._total_at = inf

    def close(self) -> None:
        self.end()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def error(self, peer: str) -> LLMTimeoutError:
        """The error for the limit that has run out."""
        if self._at >= self._total_at and self._total_s is not None:
            return limit_error(peer, self.phase, self._total_s, total=True)
        return limit_error(peer, self.phase, self._seconds or 0.0, total=False)

    def _arm(self, at: float) -> None:
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._fired)

    def _fired(self) -> None:
        self._timer = None
        self._timer_at = inf
        if self._at == inf:
            return
        # Half a millisecond: uvloop's timers count in milliseconds.
        if self._loop.time() + 0.0005 < self._at:
            self._arm(self._at)
        else:
            self._timer_at = -inf  # until the verdict, nothing sets another
            self._timer = self._loop.call_later(_GRACE_S, self._judge, self._at)

    def _judge(self, missed: float) -> None:
        self._timer = None
        self._timer_at = inf
        if self._at == missed:
            self._expire()
        elif self._at < inf:
            self._arm(self._at)
