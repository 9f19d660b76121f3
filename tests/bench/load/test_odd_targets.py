"""Targets that are not as they should be, seen by who types ``headrace load`` for the first time."""

from __future__ import annotations

import gzip
import json
import resource
import signal
import subprocess
import sys
import time

import pytest

from bench.load.scripted import DONE, FINISH, USAGE, answer, answering, event, plan, serving, whole
from bench.load.test_command import ran, started, until
from headrace.bench.load.run import load
from headrace.bench.load.target import target_of
from headrace.bench.report.files import read
from headrace.contracts.errors import LLMBadResponseError, LLMInvalidRequestError
from headrace.contracts.load import LoadPlan
from headrace.testing import mock_server

BODY = b"".join((event("one"), event(" two"), FINISH, USAGE, DONE))


def test_a_redirect_ends_the_run_and_names_where_it_leads():
    def elsewhere(caller):
        while caller.request() is not None:
            there = b"location: https://there/v1/chat/completions"
            caller.send(whole(b"", "307 Temporary Redirect", there))

    with serving(elsewhere) as server:
        with pytest.raises(LLMInvalidRequestError, match=r"redirects \(307\).*https://there/v1"):
            load(plan(server, requests=1000))
        assert len(server.requests) < 10
        server.models = whole(b"", "301 Moved", b"location: https://there/v1/models")
        with pytest.raises(LLMInvalidRequestError, match=r"redirects \(301\).*https://there"):
            load(plan(server))


def test_an_answer_that_nobody_asked_to_compress_is_refused_by_its_name():
    packed = gzip.compress(BODY)

    def packing(caller):
        while caller.request() is not None:
            more = b"content-encoding: gzip"
            caller.send(
                whole(packed, "200 OK", more).replace(b"application/json", b"text/event-stream")
            )

    with serving(packing) as server:
        report = load(plan(server))
        (error,) = report.errors
        assert "content-encoding is 'gzip', and none was asked for" in error.example
        server.models = whole(gzip.compress(b"{}"), "200 OK", b"content-encoding: gzip")
        with pytest.raises(LLMBadResponseError, match="content-encoding is 'gzip'"):
            load(plan(server))


def test_a_server_of_http_1_0_is_measured_on_a_connection_for_each_request():
    def old(caller):
        if caller.request() is not None:
            caller.send(b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + BODY)

    with serving(old) as server:
        report = load(plan(server))
    assert (report.figures.counts.ok, report.connect.count) == (6, 6)
    assert report.figures.output_tokens.mean == 2.0


@pytest.mark.parametrize("stays", [True, False])
def test_a_server_that_speaks_before_it_is_asked_does_not_make_us_connect_without_end(stays):
    connections = []

    def hasty(caller):
        connections.append(1)
        caller.send(answer("one", " two"))
        while stays and caller.request() is not None:
            caller.send(answer("one", " two"))

    with serving(hasty) as server:
        server.models = whole(b"{}", "404 Not Found")
        started = time.monotonic()
        report = load(plan(server, model="m", requests=20, timeout_s=2.0))
        seconds = time.monotonic() - started
    assert report.figures.counts.measured == 20
    # Without a pause it is thousands a second.
    assert len(connections) < 60 + 100 * seconds


def test_the_status_of_a_failure_is_the_one_that_came():
    def page(caller):
        while caller.request() is not None:
            caller.send(whole(b"<html>hello</html>"))

    with serving(page) as server:
        report = load(plan(server))
    assert [error.status for error in report.errors] == [200]


def test_a_storm_of_429_is_counted_and_no_request_is_sent_twice():
    def storm(caller):
        while caller.request() is not None:
            said = b'{"error":{"message":"slow down"}}'
            caller.send(whole(said, "429 Too Many Requests", b"retry-after: 30"))

    with serving(storm) as server:
        report = load(plan(server, requests=200))
        assert len(server.requests) == 200
    (error,) = report.errors
    assert (error.kind, error.status, error.count) == ("LLMRateLimitError", 429, 200)
    assert report.trust.verdict == "INVALID"


@pytest.mark.parametrize(
    ("path", "base"),
    [
        ("", "/v1"),
        ("/", "/v1"),
        ("/v1/", "/v1"),
        ("/v1/chat/completions", "/v1"),
        ("/proxy", "/proxy/v1"),
        ("/v1beta/openai", "/v1beta/openai"),
        ("/api/paas/v4", "/api/paas/v4"),
    ],
)
def test_a_url_may_have_a_path_and_a_version_of_its_own(path, base):
    assert target_of(LoadPlan(url=f"http://host:1{path}")).base == base


@pytest.mark.parametrize("url", ["unix:///run/x.sock", "http+unix://%2Frun%2Fx", "/run/x.sock"])
def test_a_unix_socket_is_refused_with_what_would_be_right(url):
    with pytest.raises(LLMInvalidRequestError, match=r"unix socket cannot.*http://127\.0\.0\.1"):
        load(LoadPlan(url=url, requests=1))


# Files.


def test_no_file_holds_a_secret_of_a_header_a_key_or_a_body(tmp_path):
    secret = "sk-very-secret"
    with serving(answering) as server:
        status, out, err = ran(
            *(server.url, "--requests", "4", "--out", str(tmp_path / "out")),
            *("--records", str(tmp_path / "calls.jsonl"), "--header", f"X-Token: {secret}"),
            *("--extra-body", json.dumps({"api_key": secret, "top_k": 3})),
            HEADRACE_API_KEY=secret,
        )
        assert secret.encode() in b"".join(server.requests[0])
    assert status in (0, 4), err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 3
    for path in files:
        assert secret not in path.read_text(), path
    assert secret not in out + err
    assert json.loads(read(tmp_path / "out").plan.extra_body)["top_k"] == 3


def test_a_full_disk_leaves_the_report_on_the_terminal_and_ends_with_1(tmp_path):
    program = [sys.executable, "-m", "headrace", "load"]

    def little_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))

    with serving(answering) as server:
        done = subprocess.run(
            [*program, server.url, "--requests", "40", "--out", str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=little_room,
        )
    assert done.returncode == 1
    assert "40 measured: 40 ok" in done.stdout
    assert '"format": "headrace.load/' in done.stdout
    assert f"{tmp_path} cannot be written: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "report.json").exists()


def test_who_reads_only_the_first_lines_still_gets_all_files(tmp_path):
    with (
        serving(answering) as server,
        started(server.url, "--requests", "4", "--out", str(tmp_path)) as process,
    ):
        process.stdout.close()
        err = process.stderr.read()
    assert "Traceback" not in err
    assert read(tmp_path).figures.counts.ok == 4


def test_an_interrupt_while_the_report_is_saved_saves_it_and_starts_no_further_scenario(tmp_path):
    pipe = tmp_path / "short"
    pipe.mkdir()
    with serving(answering) as server:
        process = started(
            server.url, "--requests", "2000", "--scenario", "all", "--out", str(tmp_path)
        )
        # The run is over when its last request is answered; saving takes longer than an answer.
        until(lambda: any(pipe.iterdir()), "a file")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert read(pipe).figures.counts.ok == 2000
    assert {"report.html", "requests.csv"} <= {path.name for path in pipe.iterdir()}


def test_ten_thousand_requests_of_one_token_take_little_memory():
    few, many = peak_mib(500), peak_mib(10_000)
    assert many < few + 20


def peak_mib(requests):
    code = (
        "import sys, json\n"
        "from headrace.bench.load.run import load\n"
        "from headrace.contracts.load import *\n"
        "one = Synthetic(input=Length(mean=8.0), output=Length(mean=1.0))\n"
        "plan = LoadPlan(url=sys.argv[1], arrivals=Closed(concurrency=16), workload=one,"
        " requests=int(sys.argv[2]))\n"
        "report = load(plan)\n"
        "assert report.figures.counts.ok == plan.requests, report.errors\n"
        "print(report.trust.peak_rss_bytes)\n"
    )
    with mock_server(tokens="1") as mock:
        done = subprocess.run(
            [sys.executable, "-c", code, mock.url, str(requests)],
            capture_output=True,
            text=True,
            check=True,
        )
    return int(done.stdout) / 2**20


# What it looks like.


@pytest.mark.parametrize("columns", ["50", "60", "72", "100"])
def test_a_narrow_terminal_gets_narrow_lines_and_whole_names(columns):
    with serving(answering) as server:
        status, out, err = ran(
            server.url, "--requests", "12", "--no-progress", COLUMNS=columns, NO_COLOR="1"
        )
    assert status in (0, 4), err  # 4 where this machine was too busy to keep up
    assert max(map(len, out.splitlines())) <= int(columns)
    assert "\x1b" not in out
    assert "short " in out
    assert "…" not in out


def test_a_pipe_gets_json_and_nothing_else():
    with serving(answering) as server:
        process = started(server.url, "--requests", "4", "--json")
        out, _ = process.communicate(timeout=60)
    assert json.loads(out)["figures"]["counts"]["ok"] == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("requestss: 5", "unknown field 'requestss' @ $ (nearest: 'requests')"),
        ("requests: many", "expected a whole number or null, got 'many' @ $.requests"),
        ("arrivals: {type: bursty}", "got 'bursty' @ $.arrivals.type"),
        ("[", "not YAML"),
    ],
)
def test_a_plan_with_a_wrong_field_names_it_and_its_file(tmp_path, text, said):
    path = tmp_path / "plan.yaml"
    path.write_text(f"url: http://127.0.0.1:1\n{text}\n")
    status, out, err = ran("--config", str(path))
    assert (status, out) == (1, "")
    assert said in err
    assert str(path) in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--duration", "-1"), "duration_s is -1, must be above 0"),
        (("--timeout", "0"), "timeout_s is 0, must be above 0"),
        (("--drain", "nan"), "drain_s is nan, must be 0 or more"),
        (("--most-error-share", "10"), "most_error_share is 10, must be above 0 and at most 1"),
        (("--warmup", "10", "--duration", "5"), "so nothing would be measured"),
        (("--warmup-requests", "9", "--requests", "9"), "so nothing would be measured"),
        (("--out", "/dev/null"), "--out is '/dev/null', which cannot be a folder"),
    ],
)
def test_a_run_that_could_not_be_is_refused_before_it_begins(arguments, said):
    status, out, err = ran("http://127.0.0.1:1", *arguments)
    assert (status, out, err.count("\n")) == (1, "", 1), err
    assert said in err


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_wrong_line_in_a_file_of_prompts_is_one_line_here_too(tmp_path, workers):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": 3}\n')
    with serving(answering) as server:
        status, out, err = ran(server.url, "--prompts", str(path), "--workers", workers)
    assert (status, out) == (1, "")
    assert "line 1, prompt: expected text, found 3" in err
    assert "Traceback" not in err


def test_a_target_that_dies_midway_is_reported_and_ends_with_1_or_4():
    answered = []

    def dying(caller):
        while caller.request() is not None:
            caller.send(answer("one", " two"))
            answered.append(1)
            if len(answered) == 40:
                caller.server.stop()

    with serving(dying) as server:
        status, out, err = ran(server.url, "--requests", "100000", "--concurrency", "2")
    assert status in (1, 4), err  # 4 where this machine was too busy to keep up
    assert "could not be reached any more" in out
    assert "Traceback" not in err
