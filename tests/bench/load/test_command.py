"""``headrace load`` as a command: what it prints and saves, how it ends, and Ctrl-C at every phase."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from bench.load.scripted import BEGIN, DONE, END, FINISH, USAGE, answering, chunk, event, serving
from headrace.bench.report.files import read
from net.test_tls_and_unix import certificates, server_tls

__all__ = ["certificates", "server_tls"]


def started(*arguments: str, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "headrace", "load", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **more},
    )


def ran(*arguments: str, **more: str) -> tuple[int, str, str]:
    process = started(*arguments, **more)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


FINE = (0, 4)
"""Of a run in good order: 4 where this machine was too busy to keep up, which the figures say."""


def until(said, what: str) -> None:
    for _ in range(3000):
        if said():
            return
        time.sleep(0.01)
    raise AssertionError(f"{what} did not come to pass")


def test_it_prints_a_report_and_saves_one(tmp_path):
    with serving(answering) as server:
        status, out, err = ran(server.url, "--requests", "8", "--out", str(tmp_path))
    assert status in FINE, err
    assert len(server.requests) == 8
    assert "8 measured: 8 ok, 0 failed" in out
    assert read(tmp_path).figures.counts.ok == 8


def test_all_scenarios_run_one_after_the_other(tmp_path):
    with serving(answering) as server:
        status, _, err = ran(
            server.url, "--requests", "3", "--scenario", "all", "--out", str(tmp_path)
        )
    assert status in FINE, err
    assert len(server.requests) == 12
    assert sorted(each.name for each in tmp_path.iterdir()) == ["long", "medium", "mixed", "short"]


def test_a_plan_of_a_file_is_carried_out_and_flags_go_before_it(tmp_path):
    plan = tmp_path / "plan.yaml"
    with serving(answering) as server:
        plan.write_text(
            f"url: {server.url}\nrequests: 5\narrivals: {{type: constant, rate: 100.0}}\n"
        )
        status, out, err = ran("--config", str(plan), "--requests", "4", "--json")
    assert status in FINE, err
    assert len(server.requests) == 4
    report = json.loads(out)
    assert report["plan"]["arrivals"] == {"type": "constant", "rate": 100.0}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "no target: give its URL"),
        (("http://127.0.0.1:1", "--kind", "chatt"), "--kind is 'chatt'; known: chat"),
        (("http://127.0.0.1:1", "--rate", "1", "--burst", "3/1s"), "--rate and --burst are diff"),
        (("http://127.0.0.1:1", "--rate", "-1"), "--rate is -1, must be above 0"),
        (("http://127.0.0.1:1", "--arrivals", "gamma"), "--arrivals says how a rate comes"),
        (("http://127.0.0.1:1", "--ramp", "soon"), "--ramp 'soon': expected BEGIN..END/SECONDS"),
        (("http://127.0.0.1:1", "--scenario", "huge"), "--scenario is 'huge'; known: short"),
        (("http://127.0.0.1:1",), "127.0.0.1:1 cannot be reached: Connection refused"),
    ],
)
def test_what_is_wrong_is_one_line_and_status_1(arguments, said):
    status, out, err = ran(*arguments)
    assert (status, out) == (1, "")
    assert said in err
    assert err.count("\n") == 1


def test_a_broken_promise_is_status_3_and_nothing_measured_is_status_4():
    def failing(caller):
        while caller.request() is not None:
            caller.send(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n")

    with serving(answering) as server:
        promise = ("--slo", "latency:p50<1us")
        status, out, err = ran(server.url, "--requests", "300", "--concurrency", "2", *promise)
    assert status in (3, 4), out + err  # 4 where this machine was too busy to keep up
    with serving(failing) as server:
        status, out, err = ran(server.url, "--requests", "3")
    assert status == 4, out + err


def test_tls_with_a_certificate_of_ones_own(certificates, server_tls):
    with serving(answering, tls=server_tls) as server:
        few = ("--requests", "6", "--concurrency", "2")
        status, _, err = ran(server.url, *few)
        assert status == 1
        assert "certificate" in err
        assert "--ca-file" in err
        for trust in (("--ca-file", str(certificates / "ca.pem")), ("--insecure",)):
            status, out, err = ran(server.url, *few, *trust)
            assert status in FINE, out + err
            assert "6 measured: 6 ok" in out


def test_tls_with_a_workers_share(certificates, server_tls):
    with serving(answering, tls=server_tls) as server:
        ca = ("--ca-file", str(certificates / "ca.pem"))
        status, out, err = ran(server.url, "--requests", "6", "--workers", "2", *ca)
    assert status in FINE, out + err
    assert "6 measured: 6 ok" in out


# Ctrl-C. Each test knows the phase from what the server has seen.


def held(caller):
    """Begins every answer, and ends it when the test is over."""
    while caller.request() is not None:
        caller.send(BEGIN + chunk(event("one")))
        caller.server.stopped.wait(30)


def interrupted(process) -> dict:
    out, err = process.communicate(timeout=30)
    assert process.returncode in (0, 4), err
    assert "Traceback" not in err
    report = json.loads(out)
    assert report["ended"] == "interrupted"
    return report


def test_an_interrupt_while_the_target_is_looked_at_reports_that_nothing_was_sent():
    def silent(caller):
        caller.server.seen = True
        caller.server.stopped.wait(30)

    with serving(silent) as server:
        server.seen = False
        process = started(server.url, "--json")
        until(lambda: server.seen, "a look at the target")
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        report = interrupted(process)
    assert report["figures"]["counts"]["sent"] == 0


@pytest.mark.parametrize("phase", ["warmup", "measured"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_interrupt_while_requests_are_sent_reports_what_came(phase, workers):
    def steady(caller):
        while caller.request() is not None:
            time.sleep(0.01)
            caller.send(
                BEGIN
                + b"".join(map(chunk, (event("one"), event(" two"), FINISH, USAGE, DONE)))
                + END
            )

    with serving(steady) as server:
        warm = ("--warmup", "1000") if phase == "warmup" else ()
        process = started(
            server.url,
            "--duration",
            "2000",
            "--workers",
            workers,
            "--concurrency",
            "2",
            "--json",
            *warm,
        )
        until(lambda: len(server.requests) > 20, "some requests")
        process.send_signal(signal.SIGINT)
        report = interrupted(process)
    counts = report["figures"]["counts"]
    assert counts["warmup" if phase == "warmup" else "ok"] >= 18
    assert counts["failed"] == 0


def test_an_interrupt_while_the_last_ones_are_awaited_and_a_second_one_end_it_at_once():
    with serving(held) as server:
        process = started(server.url, "--requests", "2", "--concurrency", "2", "--json")
        until(lambda: len(server.requests) == 2, "both requests")
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        report = interrupted(process)
    assert report["figures"]["counts"]["cut"] == 2


def test_an_interrupt_alone_gives_those_in_flight_a_moment_and_no_more():
    with serving(held) as server:
        process = started(server.url, "--concurrency", "2", "--json")
        until(lambda: len(server.requests) == 2, "both requests")
        process.send_signal(signal.SIGINT)
        report = interrupted(process)
    assert report["figures"]["counts"]["cut"] == 2


def test_a_worker_that_is_killed_is_told_and_the_others_are_reported():
    with serving(answering) as server:
        process = started(server.url, "--rate", "40", "--duration", "4", "--workers", "2", "--json")
        until(lambda: len(server.requests) > 10, "some requests")
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(process.pid)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        assert len(children) == 2
        os.kill(int(children[0]), signal.SIGKILL)
        out, err = process.communicate(timeout=30)
    report = json.loads(out)
    assert process.returncode == 4, err
    assert report["trust"]["verdict"] == "INVALID"
    assert any("died" in note for note in report["notes"])
    assert report["figures"]["counts"]["ok"] > 10
