"""How much memory an engine's processes hold."""

from __future__ import annotations

import asyncio

from headrace.backends.managed import processes
from headrace.net.clock import Clock

_EVERY_S = 2.0


class Scales:
    """Weighs the processes of one engine, as it was found within the last seconds.

    Who asks first waits for that, and so does who asks outside of an event loop; else it is looked
    at aside, for there may be thousands of processes.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._found: tuple[int | None, int | None, float] = None, None, 0.0
        self._weighing: asyncio.Task[None] | None = None

    def bytes_of(self, pid: int, born: str) -> int | None:
        """What the group of that very process holds."""
        now = self._clock.monotonic()
        seen, _, at = self._found
        is_old = seen == pid and now - at > _EVERY_S
        if seen != pid or (is_old and not _in_a_loop()):
            self._found = pid, _held_bytes(pid, born), now
        elif is_old and self._weighing is None:
            self._weighing = asyncio.create_task(self._weigh(pid, born))
        return self._found[1]

    async def _weigh(self, pid: int, born: str) -> None:
        try:
            held = await asyncio.to_thread(_held_bytes, pid, born)
            self._found = pid, held, self._clock.monotonic()
        finally:
            self._weighing = None


def _held_bytes(pid: int, born: str) -> int | None:
    return sum(each.rss_bytes for each in processes.members(pid, born)) or None


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
