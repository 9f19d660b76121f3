"""Memory over time: what CUDA's allocator holds, or what of this process lies in memory."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from headrace.bench.profile import needs
from headrace.bench.profile.passes import Runner
from headrace.contracts.profile_report import MemoryMoment, StageName

_STATM = Path("/proc/self/statm")
_EVERY_S = 0.02
MOMENTS = 500
"""At most so many moments are kept; between them the highest counts."""


class Sampler:
    """Looks from a thread of its own while a runner runs; it costs about 0.1% of a core."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._torch: Any = needs.torch() if runner.loaded.on_cuda else None
        self._seen: list[tuple[float, int, StageName | None]] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, name="memory", daemon=True)
        self._began = time.perf_counter()

    def start(self) -> None:
        if self._torch is not None:
            self._torch.cuda.reset_peak_memory_stats(self._runner.loaded.device)
        self._began = time.perf_counter()
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join()

    def peak(self) -> int | None:
        """The most bytes in use: CUDA's own figure, else the highest that was seen."""
        if self._torch is not None:
            return int(self._torch.cuda.max_memory_allocated(self._runner.loaded.device))
        return max((held for _, held, _ in self._seen), default=None)

    def moments(self) -> tuple[MemoryMoment, ...]:
        """What was seen, thinned to ``MOMENTS``."""
        seen = self._seen
        width = -(-len(seen) // MOMENTS) or 1
        kept = [
            max(seen[i : i + width], key=lambda each: each[1]) for i in range(0, len(seen), width)
        ]
        return tuple(
            MemoryMoment(at_ms=(at - self._began) * 1e3, allocated=held, stage=stage)
            for at, held, stage in kept
        )

    def _look(self) -> None:
        while True:
            held = self._held()
            if held is not None:
                self._seen.append((time.perf_counter(), held, self._runner.stage))
            if self._end.wait(_EVERY_S):
                return

    def _held(self) -> int | None:
        if self._torch is not None:
            return int(self._torch.cuda.memory_allocated(self._runner.loaded.device))
        if not _STATM.is_file():
            return None
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
