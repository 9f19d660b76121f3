"""How late the sender is, whether or not anything comes: it ticks, and looks at the clock.

Without the kernel's receive times nothing else tells how late a read was. A tick waits for the loop
as an arrival does, so the share of late ticks is the share of late reads. Where what was read is
thought about later still, by so much is the sender late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from headrace.bench.load.clocks import Agenda

_EVERY_S = 0.005
"""200 a second cost a third of a percent of a core and see a standstill of 5 ms."""
_GOLDEN = 0.6180339887498949


class Pulse:
    """Ticks from ``begin`` on; ``late`` has how late each tick was, in seconds.

    The ticks are due at instants that were settled before, so one standstill makes late every tick
    that was due in it. They are 2.5 to 7.5 ms apart: even steps would keep step with a server that
    sends evenly, and see always the same moment of its beat.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.late: list[float] = []
        self._behind_s: Callable[[float], float] = lambda now: 0.0
        self._agenda = Agenda(loop)
        self._due = 0.0
        self._phase = 0.0

    def begin(self, at: float, behind_s: Callable[[float], float]) -> None:
        """Tick from ``at`` on. ``behind_s(now)``: for how long what was read waits to be thought about."""
        self._behind_s = behind_s
        self._due = at
        self._agenda.at(at, self._tick)

    def close(self) -> None:
        """Tick no more; what is due by now counts."""
        self._count()
        self._agenda.close()

    def _tick(self) -> None:
        self._count()
        self._agenda.at(self._due, self._tick)

    def _count(self) -> None:
        now = monotonic()
        behind_s = self._behind_s(now)
        while self._due <= now:
            self.late.append(max(now - self._due, behind_s))
            self._phase = (self._phase + _GOLDEN) % 1.0
            self._due += _EVERY_S * (0.5 + self._phase)
