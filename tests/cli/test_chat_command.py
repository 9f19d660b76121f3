"""``headrace chat``: a question and its answer in the terminal."""

from __future__ import annotations

import subprocess

import pytest

from gateway.served import PATIENCE_S, Served, command, environment, free_port, run_headrace

FRANCE = "What is the capital of France?"


def chat(served, *arguments, **variables):
    return run_headrace("chat", "--url", served.url, *arguments, **variables)


def test_a_question_is_answered_on_standard_output(gateway):
    done = chat(gateway, FRANCE, "--temperature", "0")
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
    assert done.stdout.endswith("\n")
    assert done.stderr == ""


def test_the_server_may_be_named_by_the_environment(gateway):
    asked = ("chat", FRANCE, "--max-tokens", "2")
    assert run_headrace(*asked, HEADRACE_URL=gateway.url).returncode == 0
    assert run_headrace(*asked, HEADRACE_PORT=str(gateway.port)).returncode == 0


def test_a_conversation_goes_on_until_it_ends(gateway):
    done = subprocess.run(
        command("chat", "--url", gateway.url, "--temperature", "0", "--max-tokens", "24"),
        env=environment(),
        input=f"{FRANCE}\n/reset\n/help\n\n/quit\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
    assert "forgotten" in done.stderr


def test_a_question_may_come_on_standard_input(gateway):
    done = subprocess.run(
        command("chat", "--url", gateway.url, "--temperature", "0", "-"),
        env=environment(),
        input=FRANCE,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "nonsense", "ftp://x", "http://", ""])
def test_a_wrong_url_is_said_in_one_line(url):
    done = run_headrace("chat", "hello", "--url", url.format(port=free_port()), HEADRACE_PORT="1")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_model_is_said_in_one_line(gateway):
    done = chat(gateway, "hello", "--model", "nobody")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "nobody" in done.stderr


def test_a_key_is_shown_where_one_is_needed(box_model, tmp_path):
    served = Served(
        tmp_path, {"engine": {"kv_tokens": 512}, "server": {"api_keys": ["hr-the-right-one"]}}
    )
    asked = ("hello", "--max-tokens", "1")
    try:
        assert chat(served, *asked, HEADRACE_API_KEY="hr-the-right-one").returncode == 0
        refused = chat(served, *asked, HEADRACE_API_KEY="hr-a-wrong-one")
    finally:
        served.stop()
    assert refused.returncode == 1
    assert len(refused.stderr.strip().splitlines()) == 1
    assert "hr-a-wrong-one" not in refused.stderr
