"""The engines that our processes on this machine have started, and their logs, for people to see."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

from headrace.backends.managed import processes
from headrace.backends.managed.ending import stop_started
from headrace.backends.managed.probe import answers
from headrace.backends.managed.server import HOST
from headrace.backends.managed.state import Started, engines_folder, folders
from headrace.contracts.engines import ServerSnapshot
from headrace.contracts.errors import LLMBadResponseError
from headrace.net.transport import Transport

_FOLDER = re.compile(r"(.+)-[0-9a-f]{10}")


async def standing(transport: Transport, state: Path | None = None) -> list[ServerSnapshot]:
    """Every engine whose process runs, whoever of us started it."""
    found = [started for _, started in folders(state) if started.runs]
    return await asyncio.gather(*(_snapshot(started, transport) for started in found))


def running(state: Path | None = None) -> list[str]:
    """The names of the engines whose process runs; none is asked anything."""
    return sorted({started.name for _, started in folders(state) if started.runs})


async def stop(name: str, state: Path | None = None) -> int:
    """End every engine of that name, whoever uses it; how many ran."""
    mine = [folder for folder, started in folders(state) if started.name == name]
    return sum([await stop_started(folder) for folder in mine])


def log_files(state: Path | None = None) -> dict[str, Path]:
    """The newest log of each engine by its name, of those that have ended too."""
    found: dict[str, Path] = {}
    for log in sorted(engines_folder(state).glob("*/log")):
        name = _FOLDER.fullmatch(log.parent.name)
        if name is None or not log.is_file():
            continue
        known = found.get(name[1])
        if known is None or known.stat().st_mtime < log.stat().st_mtime:
            found[name[1]] = log
    return found


async def _snapshot(started: Started, transport: Transport) -> ServerSnapshot:
    try:
        status = await answers(f"http://{HOST}:{started.port}{started.ready_path}", transport)
    except LLMBadResponseError:
        status = None
    # One that asks for a key does answer.
    is_ready = status in (200, 401, 403)
    held = processes.members(started.pid, started.born)
    return ServerSnapshot(
        name=started.name,
        model=started.model,
        backend=started.backend,
        state="ready" if is_ready else "starting",
        url=started.base_url,
        port=started.port,
        pid=started.pid,
        command=started.command,
        started=started.started,
        uptime_s=max(0.0, time.time() - started.started),
        memory_bytes=sum(each.rss_bytes for each in held) or None,
        log=started.log,
        left_behind=not started.is_wanted,
    )
