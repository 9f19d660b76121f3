"""What was read and is not yet understood: reading comes first, so that no read is late.

Two hundred answers that end together, or begin, want tens of milliseconds of thought. Who thinks
about each as he reads it comes to the last of them when its next piece has arrived too, and the
kernel has put the two together. So what comes is thought about at once for a millisecond; then
all that has come is read before any more of it is thought about, a millisecond at a time.
What is only counted waits until there is nothing else to do.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

_THINKS_FOR_S = 0.001
_PAUSE_S = 0.00005
"""Longer than from one ready socket to the next: who has thought of nothing for that long had
nothing to read."""


class Inbox:
    """Work that waits, in the order in which it came: ``put`` for what came, ``put_last`` for counting."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._came: deque[tuple[Callable[[Any, float], None], Any, float]] = deque()
        self._uncounted: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._awake = False
        self._thought = 0.0
        self._until = 0.0

    def put(
        self, understand: Callable[[Any, float], None], what: Any, at: float, now: float
    ) -> None:
        """``what`` came ``at``, and is read ``now``: call ``understand(what, at)``, now or soon."""
        if not self._came:
            if now - self._thought > _PAUSE_S:
                self._until = now + _THINKS_FOR_S
            if now < self._until:
                understand(what, at)
                self._thought = monotonic()
                return
        self._came.append((understand, what, at))
        if not self._awake:
            self._awake = True
            self._loop.call_soon(self._think)

    def put_last(self, count: Callable[[Any], None], what: Any) -> None:
        """``count(what)`` is to be called when all that came has been understood."""
        self._uncounted.append((count, what))
        if not self._awake:
            self._awake = True
            self._loop.call_soon(self._think)

    def behind_s(self, now: float) -> float:
        """How long what waits first has waited."""
        return now - self._came[0][2] if self._came else 0.0

    def count_all(self) -> None:
        """Count all that waits to be counted, however long it takes."""
        while self._uncounted:
            count, what = self._uncounted.popleft()
            count(what)

    def _think(self) -> None:
        self._awake = False
        until = monotonic() + _THINKS_FOR_S
        came = self._came
        while came:
            understand, what, at = came.popleft()
            understand(what, at)
            if monotonic() > until:
                break
        else:
            # One at a time: what has come meanwhile is worth more.
            if self._uncounted:
                count, what = self._uncounted.popleft()
                count(what)
        self._thought = monotonic()
        if (came or self._uncounted) and not self._awake:
            self._awake = True
            self._loop.call_soon(self._think)
