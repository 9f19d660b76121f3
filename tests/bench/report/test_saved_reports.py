"""Saved reports: the JSON and back, the other files, and what happens when they cannot be written."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from attrs import evolve

from bench.report.runs import HOSTILE, all_failed, empty, run
from headrace.bench.report.files import FORMS, ReportNotWritten, read, write_all
from headrace.bench.report.hdr import distributions, hgrm
from headrace.bench.report.requests_csv import NAMES, requests_csv
from headrace.bench.report.saved import read_report, without_secrets, write_report
from headrace.contracts.errors import LLMInvalidRequestError

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    "report",
    [run(300), run(20, closed=True), empty(), all_failed(), run(30, text=HOSTILE)],
    ids=["open", "closed", "empty", "failed", "hostile"],
)
def test_a_report_is_read_as_it_was_written(report):
    assert read_report(write_report(report)) == without_secrets(report)


def test_what_was_read_is_written_the_same_again():
    once = write_report(run(50))
    assert json.loads(write_report(read_report(once))) == json.loads(once)


@pytest.mark.parametrize(
    "report",
    [run(300), run(20, closed=True), empty(), all_failed(), run(30, text=HOSTILE, rows_too=False)],
    ids=["open", "closed", "empty", "failed", "hostile"],
)
def test_a_saved_report_is_what_the_published_schema_says(report):
    schema = json.loads((HERE.parents[2] / "docs" / "load-report.schema.json").read_text())
    judge = jsonschema.Draft202012Validator(schema)
    saved = json.loads(write_report(report))
    judge.validate(saved)
    assert not judge.is_valid(saved | {"surprise": 1})
    assert not judge.is_valid(saved | {"format": "headrace.load/2"})
    assert not judge.is_valid(saved | {"plan": {"url": 1}})


def test_no_secret_of_the_plan_is_saved():
    saved = write_report(run(5))
    assert b"secret" not in saved
    assert b"X-Corp-Key" in saved


def test_the_format_is_named_first_to_those_who_look():
    assert json.loads(write_report(run(3)))["format"] == "headrace.load/1"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": "headrace.load/2"}, "newer format 'headrace.load/2' (headrace 0.1.0 wrote it)"),
        ({"format": "headrace.load/0"}, "older format 'headrace.load/0'"),
        ({"format": "headrace.find/1"}, "the report of a load test has 'headrace.load/1'"),
        ({"format": None}, "is not the report of a load test"),
        ({"surprise": 1}, "surprise"),
        ({"closed_loop": "no"}, "$.closed_loop"),
        ({"requests": {"index": [1, 2], "chunks": [1]}}, "columns of equal length"),
        ({"requests": {"index": ["1"]}}, "$.requests.index"),
        ({"requests": {"indices": [1]}}, "unknown field 'indices'"),
    ],
)
def test_what_is_not_such_a_report_is_refused_by_name(change, told):
    plain = json.loads(write_report(run(3))) | change
    with pytest.raises(LLMInvalidRequestError) as refused:
        read_report(json.dumps(plain), "r.json")
    assert told in str(refused.value)
    assert "r.json" in str(refused.value)


def test_what_is_no_json_is_refused():
    with pytest.raises(LLMInvalidRequestError, match="not JSON"):
        read_report(b"{")


def test_a_number_that_json_does_not_have_is_refused_with_its_place():
    columns = evolve(run(3).requests, latency_ms=(1.0, math.nan, 2.0))
    with pytest.raises(LLMInvalidRequestError, match=r"requests\.latency_ms\[1\]"):
        write_report(evolve(run(3), requests=columns))


def test_all_forms_are_written_and_the_folder_is_made(tmp_path):
    written = write_all(run(400), tmp_path / "a" / "b")
    assert [p.name for p in written] == [
        "report.json",
        "requests.csv",
        "report.html",
        "report.md",
        "latency.hgrm",
        "service.hgrm",
        "ttft.hgrm",
        "tpot.hgrm",
        "itl.hgrm",
    ]
    assert sorted(p.name for p in (tmp_path / "a" / "b").iterdir()) == sorted(
        p.name for p in written
    )
    assert read(tmp_path / "a" / "b") == read(written[0]) == without_secrets(run(400))


def test_a_file_that_was_there_is_replaced_whole(tmp_path):
    write_all(run(400), tmp_path, ["json"])
    write_all(run(3), tmp_path, ["json"])
    assert read(tmp_path) == without_secrets(run(3))


def test_an_unknown_form_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'pdf'; known: json"):
        write_all(run(3), tmp_path, ["pdf"])


def test_a_file_that_cannot_be_written_is_named_and_the_others_are_there(tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(ReportNotWritten) as refused:
        write_all(run(3), tmp_path)
    assert f"{tmp_path / 'report.html'} cannot be written: " in str(refused.value)
    assert {p.name for p in refused.value.written} >= {"report.json", "requests.csv", "report.md"}


def test_a_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "out").write_text("here")
    with pytest.raises(ReportNotWritten) as refused:
        write_all(run(3), tmp_path / "out")
    assert len(refused.value.missing) >= len(FORMS)
    assert refused.value.written == ()


FULL = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from bench.report.runs import run
from headrace.cli.report import hand_over
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
print(hand_over(run(300), Path({out!r}), ["json", "html"]), file=sys.stderr)
"""


def test_where_the_disk_is_full_the_report_goes_to_the_terminal(tmp_path):
    code = FULL.format(tests=str(HERE.parents[1]), out=str(tmp_path))
    # Standard output is a pipe here, which no limit on files concerns.
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert f"{tmp_path} cannot be written: File too large (report.json, " in done.stderr
    assert done.stderr.rstrip().endswith("False")
    assert done.stdout.startswith("VALID")
    assert list(tmp_path.iterdir()) == []
    assert read_report(done.stdout[done.stdout.index("\n{") :]) == without_secrets(run(300))


def test_the_requests_are_listed_under_the_names_of_the_json():
    report = run(40, failing=0.3, text=HOSTILE)
    lines = list(csv.DictReader(requests_csv(report).splitlines(keepends=True)))
    assert len(lines) == 40
    for name in NAMES:
        column = getattr(report.requests, name)
        read_back = [
            None if line[name] == "" else type(value)(line[name])
            for line, value in zip(lines, column, strict=True)
        ]
        assert tuple(read_back) == column, name


def test_without_requests_there_is_no_list(tmp_path):
    report = run(40, rows_too=False)
    assert "requests.csv" not in {p.name for p in write_all(report, tmp_path)}
    with pytest.raises(LLMInvalidRequestError, match="without its single requests"):
        requests_csv(report)


def test_a_distribution_reads_as_hdr_histogram_itself_prints_it():
    """Recorded from hdr-histogram-js 3.0.1: outputPercentileDistribution(5, 1000) of these values."""
    microseconds = [i * i * 37 % 90_000 + 1 for i in range(1, 800)] + [2047, 2048, 1_048_575]
    told = hgrm((value / 1000, 1) for value in microseconds)
    assert told == (HERE / "hdr_histogram_js.hgrm").read_text()


def test_a_distribution_without_single_requests_is_within_a_hundredth():
    with_them, without = distributions(run(500)), distributions(run(500, rows_too=False))
    assert with_them.keys() == without.keys()

    def median(text):
        return next(
            float(v) for v, p, *_ in map(str.split, text.splitlines()[2:]) if float(p) >= 0.5
        )

    for name in ("latency.hgrm", "ttft.hgrm"):
        assert median(without[name]) == pytest.approx(median(with_them[name]), rel=0.012)


def test_a_run_without_answers_has_no_distributions():
    assert distributions(all_failed()) == {}
    assert hgrm([]).startswith("       Value")
