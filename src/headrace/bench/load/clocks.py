"""Clocks of the sender: an alarm finer than the event loop's, and the kernel's receive times.

uvloop's timers have a resolution of 1 ms, a schedule of a thousand requests a second wants better.
On Linux the alarm is a timerfd; elsewhere the loop wakes early and goes round until it is time.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from heapq import heappop, heappush
from itertools import count
from time import monotonic

# asm-generic/socket.h; Python does not name it. Other numbers hold on MIPS, PA-RISC and SPARC.
_SO_TIMESTAMPNS = 35
_ODD = ("mips", "parisc", "sparc", "alpha")
_TIMESPEC = struct.Struct("qq")
ANCILLARY_BYTES = socket.CMSG_SPACE(_TIMESPEC.size) if hasattr(socket, "CMSG_SPACE") else 0
_REFRESHED_EVERY_S = 0.25
_EARLY_S = 0.0015


class KernelClock:
    """When the kernel received bytes, on the monotonic clock.

    It stamps them with the time of day, whose distance from the monotonic clock is measured again
    every quarter of a second: it moves where the time of day is being corrected.
    """

    __slots__ = ("_offset_ns", "_until")

    def __init__(self) -> None:
        self._until = 0.0
        self._offset_ns = 0

    def refresh(self, now: float) -> None:
        """Measure the distance, unless that was done just now."""
        if now < self._until:
            return
        self._until = now + _REFRESHED_EVERY_S
        # The nearest two readings of three: whoever is interrupted between them reads wide.
        _, self._offset_ns = min(self._measured() for _ in range(3))

    def _measured(self) -> tuple[int, int]:
        before = time.monotonic_ns()
        wall = time.time_ns()
        after = time.monotonic_ns()
        return after - before, wall - (before + after) // 2

    def received(self, ancillary: bytes) -> float:
        """The instant in a SCM_TIMESTAMPNS message."""
        seconds, nanoseconds = _TIMESPEC.unpack(ancillary)
        return (seconds * 1_000_000_000 + nanoseconds - self._offset_ns) * 1e-9  # type: ignore[no-any-return]


def ask_for_receive_times(sock: socket.socket) -> bool:
    """Whether the kernel will say when it received what is read from ``sock``."""
    import platform

    if sys.platform != "linux" or sys.maxsize < 2**32 or platform.machine().startswith(_ODD):
        return False
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    except OSError:
        return False
    return True


class Agenda:
    """What is to be done at which instant of the monotonic clock, on the running loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._entries: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._set_for = float("inf")
        self._handle: asyncio.Handle | None = None
        self._timer = None
        if sys.platform == "linux":
            from headrace.bench.mock.timerfd import Timer

            self._timer = Timer()
            loop.add_reader(self._timer.fd, self._rang)

    def at(self, instant: float, do: Callable[[], None]) -> None:
        """Do it then; things of the same instant in the order in which they were said."""
        heappush(self._entries, (instant, next(self._numbers), do))
        if instant < self._set_for:
            self._set(instant)

    def clear(self) -> None:
        """Forget all of it."""
        self._entries.clear()

    def close(self) -> None:
        """Forget all of it, for good."""
        self.clear()
        if self._timer is not None:
            self._loop.remove_reader(self._timer.fd)
            self._timer.close()
        if self._handle is not None:
            self._handle.cancel()

    def _set(self, instant: float) -> None:
        self._set_for = instant
        if self._timer is not None:
            self._timer.set(max(1, int(instant * 1e9)))
            return
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._loop.call_later(
            max(0.0, instant - monotonic() - _EARLY_S), self._go_round
        )

    def _go_round(self) -> None:
        if monotonic() < self._set_for:
            self._handle = self._loop.call_soon(self._go_round)
        else:
            self._rang()

    def _rang(self) -> None:
        if self._timer is not None:
            with suppress(BlockingIOError):  # it was set again since
                os.read(self._timer.fd, 8)
        self._set_for = float("inf")
        entries = self._entries
        now = monotonic()
        # What comes due while this runs waits for the next round: answers are to be read, too.
        while entries and entries[0][0] <= now:
            heappop(entries)[2]()
        if entries and entries[0][0] < self._set_for:
            self._set(entries[0][0])
