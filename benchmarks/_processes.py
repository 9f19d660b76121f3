"""Processes that are measured: started on a core, asked what they use, ended."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen


@frozen(kw_only=True)
class Tree:
    """A process, and all that it has started."""

    root: int

    def pids(self) -> list[int]:
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we looked
        found = [self.root]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def cpu_s(self) -> float:
        """User and system time of all of them; clock_getcpuclockid(3) says how it is named."""
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in self.pids())

    def rss_mb(self) -> float:
        kib = 0
        for pid in self.pids():
            status = Path(f"/proc/{pid}/status").read_text()
            # What has ended and is not yet waited for has none.
            kib += int((status.partition("VmRSS:")[2].split() or ["0"])[0])
        return kib / 1024

    def descriptors(self) -> int:
        """How many files and sockets they hold open."""
        return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in self.pids())


@contextmanager
def started(
    command: list[str],
    *,
    cores: Collection[int] | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command until the block ends, on these cores alone; what it says goes to ``log``.

    Without one it can be read from ``stdout``.
    """
    here = os.sched_getaffinity(0)
    with (log or Path(os.devnull)).open("wb") as said:
        os.sched_setaffinity(0, cores or here)  # a child begins where its parent is
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said if log else subprocess.PIPE,
                stderr=said if log else None,
                env=env,
            )
        finally:
            os.sched_setaffinity(0, here)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def environment(**more: str) -> dict[str, str]:
    """Ours, without what would set our gateway otherwise or keep bytecode from being written."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HEADRACE_")}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**kept, **more}


def free_port() -> int:
    """A port on which nothing listens, nor on the next one."""
    while True:
        with socket.socket() as one, socket.socket() as next_one:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            try:
                next_one.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port
