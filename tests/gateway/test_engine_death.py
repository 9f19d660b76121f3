"""The engine dies: its request fails clearly, the next ones are answered; and it dies with us."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.served import Served, is_alive, until

LONG = {"max_tokens": 1500, "ignore_eos": True}

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="the engine's process is found through /proc"
)


@pytest.fixture(scope="module")
def served(box_model, tmp_path_factory):
    served = Served(
        tmp_path_factory.mktemp("mortal"),
        {"engine": {"kv_tokens": 2048}, "batching": {"max_batch_size": 2}},
    )
    try:
        served.wait_until_ready()
        yield served
    finally:
        served.stop()


def kill_engine(served):
    pid = served.engine_pid()
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_alive(pid))


def answered_again(served):
    """Whether a request is answered; until the engine is back it must be refused as 503."""
    reply = served.chat()
    assert reply.status in (200, 503), reply.body
    if reply.status == 503:
        assert reply.error["code"] == "backend_unavailable"
        assert int(reply.headers["retry-after"]) >= 1
    return reply.status == 200


def restarts(served):
    return sum("is back (restart" in line["message"] for line in served.log_lines)


def test_a_plain_request_fails_with_503_and_the_engine_comes_back(served):
    before = restarts(served)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(served.chat, "Tell a long story.", **LONG)
        until(lambda: served.metric("vllm:num_requests_running") == 1)
        kill_engine(served)
        reply = asked.result()
    assert reply.status == 503
    assert reply.error["code"] == "backend_unavailable"
    assert "being started again" in reply.error["message"]
    until(lambda: answered_again(served))
    assert restarts(served) == before + 1
    assert f"(restart {before + 1})" in served.log
    until(served.quiet)


def test_a_stream_ends_with_an_error_and_without_done(served):
    before = restarts(served)
    with served.streaming(**LONG) as response:
        kill_engine(served)
        events = [line for line in response.read().split(b"\n\n") if line]
    assert b"data: [DONE]" not in events
    last = json.loads(events[-1].removeprefix(b"data: "))
    assert last["error"]["code"] == "backend_unavailable"
    assert last["error"]["message"]
    until(lambda: answered_again(served))
    assert restarts(served) == before + 1
    until(served.quiet)


def test_a_failed_request_is_counted_by_its_error(served):
    failed = served.metric(
        "headrace_requests_total", status="503", error_type="LLMUnavailableError"
    )
    assert failed >= 2


def test_the_engine_dies_with_the_gateway(box_model, tmp_path):
    served = Served(tmp_path, {"engine": {"kv_tokens": 2048}})
    try:
        engine = served.engine_pid()
        served.process.kill()
        served.process.wait()
        until(lambda: not is_alive(engine))
    finally:
        served.stop()


def test_the_engine_dies_with_the_gateway_even_while_it_works(box_model, tmp_path):
    served = Served(tmp_path, {"engine": {"kv_tokens": 2048}})
    try:
        engine = served.engine_pid()
        with served.streaming(**LONG):
            served.process.kill()
            served.process.wait()
            until(lambda: not is_alive(engine))
    finally:
        served.stop()
