"""A short run of ``python -m benchmarks soak``, which the long one's numbers come from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.served import PATIENCE_S

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("way", [(), ("--translate",)], ids=["passed through", "translated"])
def test_after_many_requests_and_callers_that_left_nothing_is_held(way):
    """It fails where a call, a descriptor or too much memory is left, or a call was not counted."""
    options = ["--requests", "3000", "--disconnects", "400", "--growth-mib", "24", *way]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 calls run, 0 wait" in done.stdout
    assert "0 failed" in done.stdout
