"""``headrace engines`` and ``headrace warmup``: engines that outlive a command, and those that do not."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from backends.managed import engines
from backends.managed.engines import PATIENCE_S, command, listed, no_process_left, until
from gateway import served
from gateway.served import run_headrace


@pytest.fixture
def state(tmp_path):
    yield tmp_path / "state"
    until(lambda: no_process_left(tmp_path / "state"))


@pytest.fixture
def file(tmp_path):
    """A file with an engine that is started early, one that is not, and one of which nothing is here."""
    path = tmp_path / "engines.yaml"
    engine = {"backend": "command", "command": list(command())}
    engines = {
        "early": {"model": "stand-in-1", "persistent": True, "port": _free_port(), **engine},
        "late": {"model": "stand-in-1", **engine},
        "absent": {"model": "m", "backend": "sglang", "persistent": True},
        "far": {"model": "gpt-5-mini", "backend": "openai", "api_key": "sk-1"},
    }
    path.write_text(json.dumps({"engines": engines}))
    return path


@pytest.fixture
def run(state, tmp_path):
    def run(*arguments):
        return run_headrace(*arguments, HEADRACE_STATE=str(state))

    return run


def _free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def said(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_engine_is_started_listed_read_and_ended(run, file, state):
    started = said(run("engines", "start", "late", "--config", str(file), "--json"))
    assert started["state"] == "ready"
    (found,) = said(run("engines", "list", "--json"))
    assert (found["name"], found["pid"]) == ("late", started["pid"])
    assert found["memory_bytes"] > 0
    assert "loading stand-in-1" in run("engines", "logs", "late").stdout
    assert said(run("engines", "logs", "late", "-n", "1", "--json"))["lines"]
    assert said(run("engines", "stop", "late", "--json")) == {"stopped": ["late"]}
    assert said(run("engines", "list", "--json")) == []
    assert "loading stand-in-1" in run("engines", "logs", "late").stdout
    assert not listed(state)


def test_the_log_of_an_engine_is_found_by_the_longest_name_that_it_may_have(run, tmp_path):
    name, path = "e" * 64, tmp_path / "long.yaml"
    path.write_text(
        json.dumps(
            {name: {"model": "m", "backend": "command", "command": list(command("--bogus"))}}
        )
    )
    assert run("engines", "start", name, "-c", str(path)).returncode == 1
    assert "--bogus" in run("engines", "logs", name).stdout


def test_an_engine_whose_users_were_killed_is_listed_as_left_behind(run, state):
    line = [sys.executable, str(Path(engines.__file__).with_name("user.py")), str(state), "ask"]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
        assert user.stdout.readline()
        (used,) = said(run("engines", "list", "--json"))
        user.kill()
    (left,) = said(run("engines", "list", "--json"))
    assert (used["left_behind"], left["left_behind"]) == (False, True)
    assert used["pid"] == left["pid"]
    assert "left behind" in run("engines", "list").stdout
    assert said(run("engines", "stop", "--all", "--json")) == {"stopped": [left["name"]]}


def test_engines_of_a_file_are_listed_though_they_do_not_run(run, file):
    found = {each["name"]: each for each in said(run("engines", "list", "-c", str(file), "--json"))}
    assert found.keys() == {"early", "late", "absent", "far"}
    assert found["late"]["state"] == "stopped"
    assert found["far"]["reused"]
    assert "not ours" in run("engines", "list", "-c", str(file)).stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("start", "lat", "-c", "FILE"), "there is no engine 'lat'; did you mean 'late'?"),
        (("start", "late"), "no file says what the engine is"),
        (("start", "far", "-c", "FILE"), "is run by somebody else"),
        (("start", "absent", "-c", "FILE"), "pip install"),
        (("stop", "late"), "there is no engine 'late'; none"),
        (("stop",), "name one engine, or say --all"),
        (("logs", "late"), "there is no engine 'late'"),
    ],
)
def test_what_cannot_be_done_is_one_line_that_says_what_would_be_right(run, file, arguments, words):
    done = run("engines", *(str(file) if each == "FILE" else each for each in arguments))
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_warmup_may_leave_its_engines_running(run, file, state):
    done = run("warmup", str(file), "--detach", "--json")
    rows = {each["name"]: each for each in said(done)}
    assert rows.keys() == {"early", "absent"}
    assert rows["early"]["url"].startswith("http://127.0.0.1:")
    assert "pip install" in rows["absent"]["error"]
    assert "warning: engine 'absent'" in done.stderr
    assert len(listed(state)) == 1
    assert said(run("engines", "stop", "--all", "--json")) == {"stopped": ["early"]}


def test_a_log_is_followed_from_where_it_was_read_whatever_its_bytes(state):
    log = state / "engines" / "raw-0123456789" / "log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"\xff" * 50 + b" until now\n")
    with _process(state, "engines", "logs", "raw", "--follow") as following:
        end = threading.Timer(PATIENCE_S, following.kill)  # it would say nothing for ever
        end.start()
        try:
            assert following.stdout.readline().endswith(" until now\n")
            with log.open("ab") as out:
                out.write(b"from now on\n")
            assert following.stdout.readline() == "from now on\n"
        finally:
            end.cancel()
            following.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_warmup_ends_what_it_started_when_it_is_ended(file, state, number):
    process = _warmup(file, state)
    line = process.stdout.readline()
    assert line.startswith("early  http://127.0.0.1:")
    assert len(listed(state)) == 1
    process.send_signal(number)
    assert process.wait(30) == 0
    process.communicate()
    assert not listed(state)


def test_warmup_that_is_ended_while_it_waits_leaves_nothing_behind(tmp_path, state):
    path = tmp_path / "slow.yaml"
    words = list(command("--never-ready"))
    slow = {"model": "m", "backend": "command", "command": words, "persistent": True}
    path.write_text(json.dumps({"slow": slow}))
    process = _warmup(path, state)
    until(lambda: listed(state))
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 1
    process.communicate()
    assert not listed(state)


def test_warmup_of_an_engine_that_does_not_start_fails_with_what_it_said(run, tmp_path):
    path = tmp_path / "wrong.yaml"
    words = list(command())
    wrong = {"model": "missing", "backend": "command", "command": words, "persistent": True}
    path.write_text(json.dumps({"wrong": wrong}))
    done = run("warmup", str(path))
    assert done.returncode == 1
    assert "error: engine 'wrong' did not start" in done.stderr
    assert "there is no model 'missing'" in done.stderr


def test_warmup_of_lazy_engines_alone_starts_nothing(run, tmp_path, state):
    path = tmp_path / "lazy.yaml"
    path.write_text("a: {model: m}\n")
    done = run("warmup", str(path))
    assert done.returncode == 0
    assert "all of its 1 engines are lazy" in done.stderr


def _warmup(file, state):
    return _process(state, "warmup", str(file))


def _process(state, *arguments):
    return subprocess.Popen(
        served.command(*arguments),
        env=served.environment(HEADRACE_STATE=str(state)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
