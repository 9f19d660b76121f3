"""``headrace load --find`` against a mock that serves so many at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.testing import mock_server


def headrace(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headrace", "load", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_rate_that_is_found_lies_below_what_the_server_can_do(tmp_path: Path) -> None:
    # Two at once, each for 50 ms: 40 requests/s, and no more.
    with mock_server(ttft="50ms", itl="0ms", tokens="1", slots=2) as mock:
        done = headrace(
            *[
                mock.url,
                "--find",
                "--slo",
                "ttft:p50<400ms",
                "--find-from",
                "16",
                "--find-longest",
                "2",
            ],
            *[
                "--find-precision",
                "0.5",
                "--warmup",
                "0.2",
                "--out",
                str(tmp_path / "run"),
                "--json",
            ],
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["format"] == "headrace.find/1"
    assert 8 <= found["rate"] <= 45
    assert found["confirmed"]
    assert "a look" in done.stderr
    assert "in earnest" in done.stderr
    saved = json.loads((tmp_path / "run" / "find.json").read_text())
    assert saved["rate"] == found["rate"]
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--find",), "--slo"),
        (("--find", "--slo", "ttft:p50<1s", "--rate", "5"), "--rate and --find"),
        (("--find", "--slo", "ttft:p50<1s", "--requests", "5"), "--requests and --find"),
        (("--find", "--slo", "ttft:p50<1s", "--scenario", "all"), "--scenario all"),
        (("--preset", "nothing"), "serving"),
        (("--slo", "ttft<5"), "ttft:p99<500ms"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_sent(
    flags: tuple[str, ...], said: str
) -> None:
    done = headrace("http://127.0.0.1:9", *flags)
    assert done.returncode == 1
    assert said in done.stderr


def test_no_rate_is_an_exit_status_of_its_own() -> None:
    with mock_server(ttft="80ms", itl="0ms", tokens="1") as mock:
        done = headrace(
            *[
                mock.url,
                "--find",
                "--slo",
                "ttft:p50<10ms",
                "--find-from",
                "40",
                "--find-longest",
                "1",
            ],
            *["--warmup", "0", "--no-progress"],
        )
    assert done.returncode == 3, done.stderr
    assert "No rate held the promises" in done.stdout
    assert done.stderr == ""
