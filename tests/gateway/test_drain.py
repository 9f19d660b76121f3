"""SIGTERM: what is in flight is finished, newcomers are told, then the process ends cleanly."""

from __future__ import annotations

import json
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.served import PATIENCE_S, Served, is_alive, until


@pytest.fixture
def served(box_model, tmp_path):
    served = Served(
        tmp_path,
        {"engine": {"kv_tokens": 4096}, "server": {"drain_timeout_ms": 600_000}},
    )
    try:
        served.wait_until_ready()
        yield served
    finally:
        served.process.kill()
        served.process.wait()


def port_is_closed(served):
    try:
        socket.create_connection((served.host, served.port), timeout=PATIENCE_S).close()
    except OSError:
        return True
    return False


def test_a_stream_is_finished_and_newcomers_are_told(served):
    engine = served.engine_pid()
    with served.streaming(max_tokens=250, ignore_eos=True) as response:
        served.process.send_signal(signal.SIGTERM)
        ready = until(lambda: (r := served.get("/ready")).status == 503 and r)
        assert ready.json["status"] == "draining"
        assert served.get("/health").status == 200
        late = served.chat()
        assert late.status == 503
        assert late.error["code"] == "draining"
        events = [line for line in rest(response).split(b"\n\n") if line.strip()]
    assert events[-1] == b"data: [DONE]"
    said = [json.loads(event.strip().removeprefix(b"data: ")) for event in events[:-1]]
    assert [c["finish_reason"] for e in said for c in e["choices"] if c["finish_reason"]] == [
        "length"
    ]
    assert served.process.wait(PATIENCE_S) == 0
    assert port_is_closed(served)
    until(lambda: not is_alive(engine))


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_with_nothing_in_flight_it_ends_at_once(served, sig):
    engine = served.engine_pid()
    served.process.send_signal(sig)
    assert served.process.wait(PATIENCE_S) == 0
    assert not is_alive(engine)
    assert port_is_closed(served)
    assert "Traceback" not in served.log


@pytest.fixture
def hasty(box_model, tmp_path):
    """A gateway that leaves hardly any time to what is in flight."""
    served = Served(tmp_path, {"engine": {"kv_tokens": 16384}, "server": {"drain_timeout_ms": 200}})
    try:
        served.wait_until_ready()
        yield served
    finally:
        served.process.kill()
        served.process.wait()


def test_a_stream_that_does_not_end_in_time_is_cut(hasty):
    with hasty.streaming(max_tokens=8000, ignore_eos=True) as response:
        hasty.process.send_signal(signal.SIGTERM)
        assert hasty.process.wait(PATIENCE_S) == 0
        assert b"[DONE]" not in rest(response)
    assert "Traceback" not in hasty.log


def test_a_request_that_is_not_answered_in_time_is_told_so(hasty):
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(hasty.chat, max_tokens=8000, ignore_eos=True)
        until(lambda: hasty.metric("vllm:num_requests_running") == 1)
        hasty.process.send_signal(signal.SIGTERM)
        reply = asked.result()
    assert reply.status == 503
    assert reply.error["code"] == "draining"
    assert hasty.process.wait(PATIENCE_S) == 0
    assert "Traceback" not in hasty.log


def rest(response):
    """What still comes of an answer that may be cut at any point."""
    got = b""
    try:
        while line := response.readline():
            got += line
    except (OSError, ValueError):
        pass
    return got
