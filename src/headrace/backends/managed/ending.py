"""How what was started is ended: by whoever leaves last, by command, or because all have died."""

from __future__ import annotations

import logging
from pathlib import Path

from headrace.backends.managed import processes
from headrace.backends.managed.state import Folder, Started, folders

log = logging.getLogger(__name__)

# Nobody waits for what those whose leader or whose users are gone have yet to do.
_LEFT_BEHIND_S = 3.0


async def end_orphans(state: Path | None = None) -> None:
    """End every engine whose users were all killed before they could."""
    for folder, seen in tuple(folders(state)):
        if seen.runs_for_somebody:
            continue  # whoever wants to be alone there should not have to wait for us
        async with folder.alone(at_once=True) as is_ours:
            now = folder.read() if is_ours else None
            if now is not None and not now.runs_for_somebody:
                if now.runs:
                    log.warning(
                        "engine %s (process %d) was left behind and is ended", now.name, now.pid
                    )
                await end_started(folder, now, is_orphan=True)


async def stop_started(folder: Folder) -> bool:
    """End what runs in ``folder``, whoever uses it; whether anything did."""
    async with folder.alone():
        now = folder.read()
        if now is None:
            return False
        runs = now.runs
        await end_started(folder, now)
        return runs


async def end_started(
    folder: Folder, started: Started, *, is_known: bool = False, is_orphan: bool = False
) -> None:
    """End ``started``, all of its group, and wait for that; to be called alone in ``folder``.

    ``is_known``: the caller has held it until now. ``is_orphan``: nobody else has.
    """
    # Where its leader has been gone for a while, others may have its id: then only those with its
    # mark are its own.
    mark = None if is_known or started.runs else started.mark
    patience_s = started.stop_timeout_s
    if is_orphan or not started.runs:
        patience_s = min(patience_s, _LEFT_BEHIND_S)
    if await processes.end(started.pid, started.born, patience_s, mark):
        log.warning("engine %s did not end by itself and was killed", started.name)
    folder.clear()
