"""Time as it is handed to those who need it, so that tests can hand in another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from random import Random
from typing import Protocol

from attrs import field, frozen

from headrace.net.transport import Transport


class Timer(Protocol):
    """Something that will be done at an instant."""

    def cancel(self) -> None:
        """It shall not be done; no harm where it already was."""


class Clock(Protocol):
    """Where instants come from, and how to wait."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary point; never goes back."""

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC."""

    async def sleep(self, seconds: float) -> None:
        """Wait; zero or less gives the others one turn."""

    def call_later(self, seconds: float, do: Callable[[], None]) -> Timer:
        """Have ``do`` called from the running event loop after so long."""


class SystemClock:
    """The machine's own clock. ``monotonic`` is CLOCK_MONOTONIC, the same in all its processes."""

    # The bare functions: called for every request, and a method around them would double their cost.
    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))

    def call_later(self, seconds: float, do: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, do)


@frozen(kw_only=True)
class World:
    """All that a call may touch beyond its arguments: the network, time and chance."""

    transport: Transport
    clock: Clock = field(factory=SystemClock)
    random: Random = field(factory=Random)
