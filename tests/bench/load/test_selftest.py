"""The self-test: what it concludes from runs, and that the command really drives a mock."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from headrace.bench.load.selftest import (
    ITL_MS,
    RATES,
    STREAMS,
    TTFT_MS,
    Lateness,
    Trusted,
    conclusion,
    selftest,
)
from headrace.contracts.convert import from_plain, to_plain
from headrace.contracts.load import Closed, Constant, LoadPlan
from headrace.contracts.load_report import Counts, Distribution, Figures, LoadReport, Trust


def told(plan: LoadPlan, off: float, verdict: str = "VALID") -> LoadReport:
    def of(true: float) -> Distribution:
        return Distribution(
            unit="ms", count=300, maximum=true, percentiles={"p50": true, "p99": true * (1 + off)}
        )

    return LoadReport(
        run_id="r",
        started="",
        plan=plan,
        ended="complete",
        closed_loop=isinstance(plan.arrivals, Closed),
        figures=Figures(
            counts=Counts(), seconds=1, output_tokens_per_s=100.0, ttft=of(TTFT_MS), itl=of(ITL_MS)
        ),
        trust=Trust(verdict=verdict, times_from="kernel"),  # type: ignore[arg-type]
    )


def size(plan: LoadPlan) -> float:
    if isinstance(plan.arrivals, Closed):
        return plan.arrivals.concurrency
    assert isinstance(plan.arrivals, Constant)
    return plan.arrivals.rate


def on_time() -> Lateness:
    return Lateness(p50_ms=0.01, p99_ms=0.1)


def test_it_climbs_until_two_steps_are_wrong_and_names_the_last_good_one() -> None:
    def run(plan: LoadPlan) -> LoadReport:
        closed = isinstance(plan.arrivals, Closed)
        return told(plan, 0.2 if size(plan) > (64 if closed else 200) else 0.01)

    found = selftest("http://x", run, on_time)
    assert (found.streams, found.rate, found.times_from) == (64, 200, "kernel")
    assert [s.streams for s in found.steps if s.streams] == [1, 8, 32, 64, 128, 256]
    assert [s.rate for s in found.steps if s.rate] == [50, 100, 200, 400, 800]
    said = " ".join(conclusion(found))
    assert "up to 64 streams" in said
    assert "200 a second" in said
    assert "--workers" in said
    assert from_plain(to_plain(found), Trusted) == found


def test_a_mock_that_was_late_itself_is_named() -> None:
    found = selftest(
        "http://x", lambda plan: told(plan, 0.3), lambda: Lateness(p50_ms=0.1, p99_ms=3.0)
    )
    assert found.streams is None
    assert len(found.steps) == 4
    assert all(s.server_late for s in found.steps)
    assert "mock itself was late" in " ".join(conclusion(found))


def test_a_run_that_calls_itself_invalid_is_not_good_however_near_the_truth() -> None:
    found = selftest("http://x", lambda plan: told(plan, 0.0, "INVALID"), on_time)
    assert not any(s.good for s in found.steps)


def test_where_all_was_good_the_limit_lies_beyond() -> None:
    found = selftest("http://x", lambda plan: told(plan, 0.0), on_time)
    assert (found.streams, found.rate) == (STREAMS[-1], RATES[-1])
    assert "beyond what was tried" in " ".join(conclusion(found))


def test_the_command_drives_a_mock_of_its_own() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "headrace",
            "selftest",
            "--streams",
            "1,4",
            "--rates",
            "400",
            "--json",
        ],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["format"] == "headrace.selftest/1"
    assert [s["what"] for s in found["steps"]] == ["1 streams", "4 streams", "400 requests/s"]
    # Whatever else this machine does: first tokens do not come before they are sent.
    assert all(s["ttft_p50"] >= TTFT_MS * 0.99 for s in found["steps"])


@pytest.mark.parametrize("wrong", ["a", "0", "8,1", ""])
def test_wrong_loads_are_refused(wrong: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "headrace", "selftest", "--streams", wrong],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "--streams" in done.stderr
