"""Notices an engine that lives and has work, but of which nothing comes any more."""

from __future__ import annotations

from collections.abc import Callable

from headrace.net.clock import Clock, Timer

_LOOKS = 4


class Pulse:
    """``on_still`` is called when no ``beat`` came for about ``limit_s`` while ``has_work`` was true.

    A ``limit_s`` of 0 is none. It counts looks instead of reading the time: while our own process
    is stopped it hears nothing either, and that is one look at most.
    """

    def __init__(
        self,
        clock: Clock,
        limit_s: float,
        has_work: Callable[[], bool],
        on_still: Callable[[], None],
    ) -> None:
        self._clock, self._every_s = clock, limit_s / _LOOKS
        self._has_work, self._on_still = has_work, on_still
        self._looks = 0
        self._timer: Timer | None = None

    def beat(self) -> None:
        """Something came."""
        self._looks = 0

    def watch(self) -> None:
        """There is work now; it is looked after for as long as there is."""
        if self._timer is None and self._every_s:
            self._looks = 0
            self._timer = self._clock.call_later(self._every_s, self._look)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if not self._has_work():
            return
        self._looks += 1
        # The first look may have come a moment after the last beat.
        if self._looks > _LOOKS:
            self._looks = 0
            self._on_still()
        self._timer = self._clock.call_later(self._every_s, self._look)
