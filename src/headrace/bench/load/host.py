"""What runs on each host of a load test: an actor that starts a sender and passes on what it says.

The sender is a process of its own, so that neither Ray's threads nor its calls are in what it times.
It ends when this actor does.
"""

from __future__ import annotations

import os
import queue
import subprocess
import tempfile
import threading
from contextlib import suppress
from importlib.metadata import version
from time import monotonic
from typing import IO, Any

from msgspec import msgpack

from headrace.bench.load.workers import COMMAND, framed

_NEWS_WITHIN_S = 1.0
_WORDS_BYTES = 2000


class Host:
    """One sender, and the way to it."""

    def start(self, job: bytes) -> dict[str, Any]:
        """Start the sender; says what kind of place this is."""
        # Not a pipe: nobody reads it before the end.
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the actor
        self._process = subprocess.Popen(
            COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._words
        )
        self._news: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._over = False
        threading.Thread(target=self._listen, daemon=True).start()
        self._tell(job)
        return {
            "version": version("headrace"),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        }

    def clock(self) -> float:
        """What this machine's monotonic clock shows; the sender has the same."""
        return monotonic()

    def begin(self, at: float) -> None:
        """Have the sender begin at that instant of this machine's clock."""
        self._tell(msgpack.encode({"begin": at}))

    def stop(self) -> None:
        """Have it send no more; said again, end at once."""
        self._tell(msgpack.encode({"stop": True}))

    def news(self) -> tuple[list[bytes], bool]:
        """What the sender has said since, waiting a moment for it; and whether that was all."""
        frames: list[bytes] = []
        with suppress(queue.Empty):
            frame = self._news.get(timeout=_NEWS_WITHIN_S)
            while frame is not None:
                frames.append(frame)
                frame = self._news.get_nowait()
            self._over = True
        return frames, self._over

    def last_words(self) -> str:
        """How the sender ended, and the last line that it printed."""
        status = self._process.wait()
        size = self._words.seek(0, os.SEEK_END)
        self._words.seek(max(0, size - _WORDS_BYTES))
        lines = self._words.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        how = f"killed by signal {-status}" if status < 0 else f"it ended with status {status}"
        return f"{how}, saying: {last}" if last else how

    def _tell(self, data: bytes) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        with suppress(BrokenPipeError):  # it is dead, which ``news`` tells
            pipe.write(framed(data))
            pipe.flush()

    def _listen(self) -> None:
        out = self._process.stdout
        assert out is not None
        while (frame := _frame(out)) is not None:
            self._news.put(frame)
        self._news.put(None)


def _frame(out: IO[bytes]) -> bytes | None:
    size = out.read(4)
    data = out.read(int.from_bytes(size, "big")) if len(size) == 4 else b""
    return data if data else None
