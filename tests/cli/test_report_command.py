"""``headrace report``: a saved report, shown again."""

from __future__ import annotations

import json

import pytest

from bench.report.runs import run
from gateway.served import run_headrace
from headrace.bench.report.files import write_all


@pytest.fixture
def saved(tmp_path):
    write_all(run(60), tmp_path / "run", ["json"])
    return tmp_path / "run"


def test_it_is_shown_on_the_terminal(saved):
    done = run_headrace("report", str(saved))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("VALID")


def test_it_is_printed_as_it_was_saved(saved):
    done = run_headrace("report", str(saved / "report.json"), "--json")
    assert json.loads(done.stdout) == json.loads((saved / "report.json").read_text())


def test_other_forms_are_made_of_it(saved):
    done = run_headrace(
        *("report", str(saved), "--html", str(saved / "x.html"), "--csv", str(saved / "x.csv")),
        *("--hdr", str(saved / "hdr")),
    )
    assert done.returncode == 0, done.stderr
    assert {str(saved / "x.html"), str(saved / "x.csv")} < set(done.stdout.splitlines())
    assert (saved / "x.html").read_text().startswith("<!doctype html>")
    assert len((saved / "x.csv").read_text().splitlines()) == 61
    assert (saved / "hdr" / "ttft.hgrm").exists()


def test_markdown_stands_beside_a_baseline(saved):
    done = run_headrace("report", str(saved), "--markdown", "--baseline", str(saved))
    assert "**Beside the baseline**" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere.json"], "nowhere.json cannot be read: No such file"),
        (["{saved}", "--html", "{saved}"], "cannot be written: a folder is there"),
        (["{saved}", "--json", "--markdown"], "--markdown and --json exclude one another"),
        (["{saved}", "--baseline", "{saved}"], "--baseline is for --markdown"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(saved, arguments, told):
    done = run_headrace("report", *(a.format(saved=saved) for a in arguments))
    assert done.returncode == 1
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
