"""One of two backends is killed while 200 streams are open: nobody hangs, and the next are served."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.faults import upstream as program
from gateway.faults.caller import Caller, Cut, ask, ending, request
from gateway.faults.conftest import FULL
from gateway.faults.upstream import Upstream
from gateway.served import Served, environment

STREAMS = 200
PLAYS: dict[str, object] = {}


@pytest.fixture
def doomed() -> Iterator[subprocess.Popen[str]]:
    """A backend in a process of its own, which streams without end."""
    tests, source = (Path(__file__).parents[2], Path(__file__).parents[3] / "src")
    process = subprocess.Popen(
        [sys.executable, "-m", program.__name__],
        env=environment(PYTHONPATH=f"{tests}:{source}"),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def front(
    way: str, upstream: Upstream, doomed: subprocess.Popen[str], tmp_path: Path
) -> Iterator[Served]:
    assert doomed.stdout is not None
    port = int(doomed.stdout.readline())
    served = Served(
        tmp_path,
        {
            "engine": {"enabled": False},
            "embeddings": {"enabled": False},
            "server": {"pass_through": way == "fast"},
            "logging": {"requests": False},
            "backends": [
                {"name": "doomed", "base_url": f"http://127.0.0.1:{port}/v1"},
                {"name": "good", "base_url": upstream.base_url("good")},
            ],
            "routes": [{"name": "m", "backends": [{"backend": "doomed"}, {"backend": "good"}]}],
        },
    )
    try:
        yield served
    finally:
        assert served.stop() == 0
        assert "Traceback" not in served.log, served.log


async def ends(caller: Caller) -> tuple[str, float]:
    """How the stream of ``caller`` ends, and when."""
    try:
        body, how = await caller.body({}), ""
    except Cut as cut:
        body, how = cut.got, "cut"
    return how or ending("chat", body), time.monotonic()


def test_a_killed_backend_hangs_nobody_and_the_other_answers_at_once(
    front: Served, doomed: subprocess.Popen[str]
) -> None:
    async def main() -> None:
        callers = [await Caller.of(front) for _ in range(STREAMS)]
        for caller in callers:
            caller.send(request("chat", "m"))
        for caller in callers:
            status, _ = await caller.head()
            assert status == 200
            await caller.until(b"once")
        doomed.kill()
        killed = time.monotonic()
        waiting = [asyncio.ensure_future(ends(caller)) for caller in callers]
        took = []
        for _ in range(50):
            begin = time.monotonic()
            status, _, body = await ask(front, request("chat", "m"))
            took.append(time.monotonic() - begin)
            assert (status, ending("chat", body)) == (200, "whole")
        ended = await asyncio.gather(*waiting)
        for caller in callers:
            caller.leave()
        assert {how for how, _ in ended} <= {"error", "cut"}
        assert max(at for _, at in ended) - killed < 1
        assert statistics.median(took) < 0.1
        assert max(took) < (0.1 if FULL else 1)

    asyncio.run(main())
