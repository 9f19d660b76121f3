"""``headrace compare`` on saved runs, and on two mocks driven in turn."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.contracts.convert import to_json
from headrace.contracts.load import LoadPlan, Poisson
from headrace.contracts.load_report import Columns, Counts, Figures, LoadReport, Trust
from headrace.testing import mock_server


def headrace(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headrace", "compare", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def saved(folder: Path, *, scale: float = 1.0, n: int = 400, verdict: str = "VALID") -> Path:
    """A run of ``n`` requests whose latencies are ``scale`` times as long as usual, as a file."""
    chance = random.Random(1)
    sent, took, at = [], [], 0.0
    for _ in range(n):
        at += chance.expovariate(20)
        sent.append(at)
        took.append(scale * chance.lognormvariate(4, 0.3))
    report = LoadReport(
        run_id="r",
        started="2026-01-01T00:00:00+00:00",
        plan=LoadPlan(url="http://127.0.0.1:1", arrivals=Poisson(rate=20.0)),
        ended="complete",
        closed_loop=False,
        figures=Figures(counts=Counts(sent=n, measured=n, ok=n), seconds=at, error_share=0.0),
        trust=Trust(verdict=verdict),
        requests=Columns(
            index=tuple(range(n)),
            intended_s=tuple(sent),
            sent_s=tuple(sent),
            latency_ms=tuple(took),
            service_ms=tuple(took),
            ttft_ms=(None,) * n,
            tpot_ms=(None,) * n,
            worst_gap_ms=(None,) * n,
            connect_ms=(None,) * n,
            input_tokens=(None,) * n,
            output_tokens=(10,) * n,
            chunks=(1,) * n,
            status=(200,) * n,
            error=(None,) * n,
            scenario=(None,) * n,
        ),
    )
    folder.mkdir()
    path = folder / "report.json"
    path.write_bytes(to_json(report))
    return path


def test_a_slower_run_fails_the_build_unless_that_is_not_wanted(tmp_path: Path) -> None:
    a, b = saved(tmp_path / "a"), saved(tmp_path / "b", scale=1.5)
    done = headrace(a, b)
    assert done.returncode == 3, done.stderr
    assert "B is slower" in done.stdout
    assert headrace(a, b, "--no-fail-if-slower").returncode == 0
    assert headrace(b, a).returncode == 0


def test_a_folder_stands_for_the_report_in_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "a")
    done = headrace(path, path.parent)
    assert done.returncode == 0, done.stderr
    assert "no difference seen" in done.stdout


def test_json_has_the_ratio_with_its_interval(tmp_path: Path) -> None:
    done = headrace(saved(tmp_path / "a"), saved(tmp_path / "b", scale=1.5), "--json")
    found = json.loads(done.stdout)
    assert found["format"] == "headrace.compare/1"
    p50 = next(d for d in found["differences"] if d["name"] == "latency p50")
    assert p50["low"] <= p50["ratio"] <= p50["high"]
    assert p50["ratio"] == pytest.approx(1.5)


def test_markdown_is_a_table(tmp_path: Path) -> None:
    path = saved(tmp_path / "a")
    assert "| latency p50 (ms) |" in headrace(path, path, "--markdown").stdout


def test_too_little_data_is_an_exit_status_where_it_is_asked_for(tmp_path: Path) -> None:
    path = saved(tmp_path / "a", n=10)
    assert headrace(path, path).returncode == 0
    done = headrace(path, path, "--strict")
    assert done.returncode == 2
    assert "too little data" in done.stdout


def test_a_run_that_is_not_to_be_trusted_is_told(tmp_path: Path) -> None:
    done = headrace(saved(tmp_path / "a"), saved(tmp_path / "b", verdict="INVALID"))
    assert "is INVALID" in " ".join(done.stdout.split())


def test_what_is_no_pair_of_runs_is_refused_in_one_line(tmp_path: Path) -> None:
    path = saved(tmp_path / "a")
    mixed = headrace(path, "http://127.0.0.1:9")
    assert mixed.returncode == 1
    assert "two saved runs, or two URLs" in mixed.stderr
    missing = headrace(path, tmp_path / "nothing")
    assert missing.returncode == 1
    assert "nothing" in missing.stderr
    assert "Traceback" not in missing.stderr


def test_two_targets_are_driven_in_turn_and_the_slower_one_is_found() -> None:
    with (
        mock_server(ttft="5ms", itl="0ms", tokens="2") as quick,
        mock_server(ttft="100ms", itl="0ms", tokens="2") as slow,
    ):
        done = headrace(
            *(quick.url, slow.url, "--blocks", "2", "--requests", "120", "--concurrency", "4"),
            "--json",
        )
    assert done.returncode == 3, done.stderr
    turns = [line.split(": ")[1][0] for line in done.stderr.splitlines() if "turn " in line]
    assert turns == ["A", "B", "B", "A"]
    found = json.loads(done.stdout)
    ttft = next(d for d in found["differences"] if d["name"] == "TTFT p50")
    assert ttft["judgement"] == "slower"
    assert ttft["ratio"] > 2
