"""``headrace mock`` as a command: what it prints, how it ends, and how it refuses."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from urllib.request import Request, urlopen

import pytest

from gateway.served import run_headrace

BODY = json.dumps({"model": "m", "messages": [], "stream": True}).encode()


def begin(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "headrace", "mock", "--port", "0", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_and_at_the_end_how_late_it_was(number):
    with begin("--ttft", "1ms", "--tokens", "5") as mock:
        assert mock.stdout is not None
        first, settings = mock.stdout.readline(), mock.stdout.readline()
        assert first.startswith("headrace mock at http://127.0.0.1:")
        assert "ttft: 1ms" in settings
        url = first.split()[-1]
        with urlopen(Request(f"{url}/v1/chat/completions", BODY), timeout=20) as reply:
            assert reply.read().count(b"data: ") == 8
        mock.send_signal(number)
        rest, wrong = mock.communicate(timeout=20)
    assert mock.returncode == 0
    assert wrong == ""
    assert "p99" in rest.splitlines()[-1]
    assert "(5 writes)" in rest


def test_programs_get_lines_of_json():
    with begin("--json", "--tokens", "uniform:2..4", "--key", "secret") as mock:
        assert mock.stdout is not None
        said = json.loads(mock.stdout.readline())
        with urlopen(f"{said['url']}/health", timeout=20) as reply:
            assert reply.status == 200
        mock.send_signal(signal.SIGINT)
        rest, _ = mock.communicate(timeout=20)
    assert said["settings"]["tokens"] == "uniform:2..4"
    assert said["settings"]["key"] == "set"
    assert json.loads(rest)["lateness"]["count"] == 0


def test_flags_go_before_the_file(tmp_path):
    path = tmp_path / "mock.yaml"
    path.write_text("ttft: 20ms\ntokens: 3\nfaults: [{kind: error, share: 0.5}]\n")
    with begin("--json", "--config", str(path), "--tokens", "9", "--freeze", "1s/5s") as mock:
        assert mock.stdout is not None
        settings = json.loads(mock.stdout.readline())["settings"]
        mock.send_signal(signal.SIGTERM)
        mock.communicate(timeout=20)
    assert (settings["ttft"], settings["tokens"]) == ("20ms", "9")
    assert settings["faults"][0]["kind"] == "error"
    assert settings["freeze"] == {"lasts": "1s", "every": "5s"}


def test_it_ends_while_it_still_refuses_connections():
    with begin("--refuse-for", "60s") as mock:
        assert mock.stdout is not None
        assert mock.stdout.readline().startswith("headrace mock at ")
        mock.send_signal(signal.SIGINT)
        rest, _ = mock.communicate(timeout=20)
    assert mock.returncode == 0
    assert "nobody asked" in rest


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--ttft", "soon"], "ttft"),
        (["--tokens", "0"], "tokens"),
        (["--fault", "boom:1%"], "known: error"),
        (["--freeze", "1s"], "LASTS/EVERY"),
        (["--slow-start", "x/1s"], "FACTOR/LASTS"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_a_wrong_flag_is_one_line_that_names_it(words, named, tmp_path):
    done = run_headrace("mock", *words)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert named in line


def test_a_taken_port_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run_headrace("mock", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "--port" in done.stderr
