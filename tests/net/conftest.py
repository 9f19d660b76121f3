"""Every test here runs on both event loops, and each looks afterwards for what was left behind."""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path

import pytest
import uvloop

_FDS = Path("/proc/self/fd")


def open_files() -> set[tuple[str, str]]:
    """Number and target of every open file descriptor, where the system tells (Linux)."""
    if not _FDS.is_dir():
        return set()
    found = set()
    for name in os.listdir(_FDS):  # noqa: PTH208 - the listing itself holds a descriptor
        try:
            found.add((name, os.readlink(_FDS / name)))  # noqa: PTH115
        except OSError:
            continue
    return found


@pytest.fixture(scope="session", autouse=True)
def _what_is_here_already_is_no_litter():
    """Other rooms' tests leave modules and models of a hundred megabytes, which each look for what
    was left behind would go through: two seconds a test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _uvloop_has_run_once():
    """Its first loop opens a pipe for signals that stays as long as the process."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.sleep(0))


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request):
    """Runs a coroutine function; fails on tasks, descriptors and unheard exceptions left over."""

    def run(main):
        complaints = []

        async def guarded():
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: complaints.append(context))
            async with asyncio.timeout(30):
                await main()
            for _ in range(20):  # cancelled tasks end in the next turns of the loop
                if asyncio.all_tasks() == {asyncio.current_task()}:
                    break
                await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task()}

        gc.collect()
        before = open_files()
        factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(guarded())
        gc.collect()
        assert not complaints
        assert open_files() - before == set()

    return run
