"""A sender that others keep from its core: whatever its clock, its figures are not called valid."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headrace.testing import mock_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's words are Linux's")
CLOCKS = pytest.mark.parametrize(
    "clock", [[], ["--no-kernel-times"]], ids=["kernel times", "read times"]
)


@contextmanager
def sending(folder: Path, *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    """A sender of 40 streams for 4 seconds, in a process of its own."""
    with mock_server(ttft="50ms", itl="10ms", tokens="20") as mock:
        command = [sys.executable, "-m", "headrace", "load", mock.url, "--concurrency", "40"]
        command += ["--input-tokens", "8", "--duration", "4", "--no-progress", *flags]
        process = subprocess.Popen([*command, "--out", str(folder)], stdout=subprocess.DEVNULL)
        try:
            yield process
            process.wait(60)
        finally:
            process.kill()
            process.wait()


def trust(folder: Path) -> dict[str, object]:
    told: dict[str, object] = json.loads((folder / "report.json").read_text())["trust"]
    return told


@CLOCKS
def test_a_sender_that_stood_still_for_a_tenth_of_the_time_is_not_valid(
    tmp_path: Path, clock: list[str]
) -> None:
    with sending(tmp_path, *clock) as process:
        while process.poll() is None:
            time.sleep(0.9)
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.1)
            process.send_signal(signal.SIGCONT)
    told = trust(tmp_path)
    assert told["verdict"] in ("SUSPECT", "INVALID")
    assert float(str(told["loop_lag_ms"])) > 50.0


@CLOCKS
def test_a_sender_that_shares_its_core_with_busy_ones_is_not_valid(
    tmp_path: Path, clock: list[str]
) -> None:
    core = {max(os.sched_getaffinity(0))}
    busy = []
    try:
        with sending(tmp_path, *clock) as process:
            os.sched_setaffinity(process.pid, core)
            for _ in range(3):
                busy.append(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
                os.sched_setaffinity(busy[-1].pid, core)
    finally:
        for each in busy:
            each.kill()
            each.wait()
    assert trust(tmp_path)["verdict"] in ("SUSPECT", "INVALID")
