"""The program of one worker, by what it says to a supervisor and when it ends."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from gateway.served import PATIENCE_S, environment
from headrace.gateway.workers.messages import Begin, Failed, FromWorker, Ready
from headrace.net.frames import FrameReader, write_frame

CONFIG = """
engine: {enabled: false}
embeddings: {enabled: false}
backends: [{name: x, base_url: "http://127.0.0.1:9/v1"}]
"""


def begin(tmp_path, port, text=CONFIG):
    return Begin(
        path="gateway.yaml",
        text=text,
        overrides=[("server", "workers", 2)],
        place=0,
        processes=3,
        chat=None,
        embeddings=None,
        audio=None,
        socket_path=str(tmp_path / "nobody"),
        host="127.0.0.1",
        port=port,
        listener=None,
    )


@pytest.fixture
def worker():
    """A worker's process, and our end of its line."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(PATIENCE_S)
        process = subprocess.Popen(
            [sys.executable, "-m", "headrace.gateway.workers.worker", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=environment(),
            stderr=subprocess.PIPE,
        )
        theirs.close()
        try:
            yield process, ours
        finally:
            process.kill()
            process.communicate()


def heard(line):
    """The first message that comes."""
    reader = FrameReader(FromWorker)
    while True:
        data = line.recv(65536)
        assert data, "it hung up without a word"
        for message in reader.feed(data):
            return message


def test_it_says_that_it_listens_and_ends_when_its_line_does(worker, tmp_path):
    process, line = worker
    with socket.socket() as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
        line.sendall(write_frame(begin(tmp_path, port)))
        assert isinstance(heard(line), Ready)
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S).close()
        line.close()
        assert process.wait(PATIENCE_S) == 0


def test_a_line_that_ends_before_a_word_ends_it(worker):
    process, line = worker
    line.close()
    assert process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("what", ["port", "configuration"])
def test_it_says_why_it_cannot_begin(worker, tmp_path, what):
    process, line = worker
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = "prot: 1" if what == "configuration" else CONFIG
        line.sendall(write_frame(begin(tmp_path, port, text)))
        told = heard(line)
    assert isinstance(told, Failed)
    assert ("prot" if what == "configuration" else f"127.0.0.1:{port}") in told.why
    assert process.wait(PATIENCE_S) == 0
    assert b"Traceback" not in process.stderr.read()
