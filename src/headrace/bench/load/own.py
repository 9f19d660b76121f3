"""What a sending process knows of itself: its processor, its memory, and who else wanted the core."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from headrace.bench.load.sender import Sender
from headrace.numbers.trust_facts import SenderFacts

_SHARE_FROM_S = 0.2
_STEAL = 8
"""The column of /proc/stat with what the hypervisor gave to others (proc_stat(5))."""


class Account:
    """Counts from its making on, in the thread that made it: the one that sends."""

    def __init__(self) -> None:
        self._cpu_s = time.process_time()
        self._waited_s = _waited_s()
        self._machine = _machine()

    def facts(self, sender: Sender, seconds: float, *, kernel_times: bool) -> SenderFacts:
        """All that is known now, ``seconds`` after the load began."""
        import resource

        cpu_s = time.process_time() - self._cpu_s
        waited_s = _waited_s()
        # Of less than that the clock of the processor says nothing.
        long_enough = seconds >= _SHARE_FROM_S
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return SenderFacts(
            times_from="kernel"
            if kernel_times and sender.reads and not sender.unstamped
            else "read",
            cpu_share=cpu_s / seconds if long_enough else None,
            cpu_s=cpu_s,
            wait_share=(
                (waited_s - self._waited_s) / seconds
                if long_enough and waited_s is not None and self._waited_s is not None
                else None
            ),
            steal_share=_stolen(self._machine, _machine()) if long_enough else None,
            lost_connections=sender.lost_connections,
            peak_rss_bytes=peak if sys.platform == "darwin" else peak * 1024,
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        )


def _waited_s() -> float | None:
    """How long this thread was ready to run and had no core; None where the kernel does not say."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) * 1e-9
    except (OSError, IndexError):
        return None


def _machine() -> tuple[int, int] | None:
    """The ticks of all cores, and those that were stolen; None where there is no such count."""
    try:
        with Path("/proc/stat").open() as file:
            ticks = [int(word) for word in file.readline().split()[1:]]
    except OSError:
        return None
    # The guests' ticks behind the eighth column are in the first two already.
    return (sum(ticks[:_STEAL]), ticks[_STEAL - 1]) if len(ticks) >= _STEAL else None


def _stolen(before: tuple[int, int] | None, after: tuple[int, int] | None) -> float | None:
    if before is None or after is None or after[0] <= before[0]:
        return None
    return (after[1] - before[1]) / (after[0] - before[0])
