"""A caller that leaves gives back what it held: the place at the door and the engine's time."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.served import Served, until

SLOTS = 2
# So long an answer that no machine finishes it while a test waits for its end.
ENDLESS = {"max_tokens": 8000, "ignore_eos": True, "temperature": 1}


@pytest.fixture(scope="module")
def served(box_model, tmp_path_factory):
    """A gateway with as many places as its engine has slots, and no queue: a place is free or not."""
    served = Served(
        tmp_path_factory.mktemp("leaving"),
        {
            "engine": {"kv_tokens": 16384 + 1024},
            "batching": {"max_batch_size": SLOTS, "max_queue_size": 0},
        },
    )
    try:
        served.wait_until_ready()
        yield served
    finally:
        served.stop()


def cancelled(served):
    return served.metric("headrace_requests_total", error_type="LLMCancelledError")


def leave_a_stream(served):
    with served.streaming(**ENDLESS) as response:
        assert response.readline() == b"\n"
        assert served.metric("vllm:num_requests_running") == 1


def leave_a_stream_of_two(served):
    with served.streaming(n=2, **{**ENDLESS, "max_tokens": 4000}):
        assert served.metric("vllm:num_requests_running") >= 1


def leave_before_the_answer(served):
    connection = served.connect()
    body = {"messages": [{"role": "user", "content": "Tell a long story."}], **ENDLESS}
    connection.request("POST", "/v1/chat/completions", json.dumps(body))
    until(lambda: served.metric("vllm:num_requests_running") == 1)
    connection.close()


def leave_a_completion(served):
    with served.streaming("/v1/completions", prompt="Once upon a time", **ENDLESS):
        assert served.metric("vllm:num_requests_running") == 1


def engine_rests(pid):
    """Whether the engine's process used next to no processor time just now."""

    def ticks():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    time.sleep(0.3)
    return ticks() - before <= 3  # of the 30 or more that one busy thread takes


@pytest.mark.parametrize(
    "leave", [leave_a_stream, leave_a_stream_of_two, leave_before_the_answer, leave_a_completion]
)
def test_a_caller_that_leaves_frees_the_engine(served, leave):
    until(served.quiet)
    before = cancelled(served)
    leave(served)
    until(served.quiet)
    assert cancelled(served) > before
    until(lambda: engine_rests(served.engine_pid()), patience_s=20)
    # Every place is free again, and there is no queue in which to wait for one.
    with ThreadPoolExecutor(SLOTS) as pool:
        replies = list(pool.map(lambda _: served.chat(max_tokens=2), range(SLOTS)))
    assert [reply.status for reply in replies] == [200] * SLOTS


def test_a_request_that_was_left_is_logged_as_such(served):
    connection = served.connect()
    body = {"messages": [{"role": "user", "content": "Tell a long story."}], **ENDLESS}
    headers = {"x-request-id": "the-one-who-left"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    until(lambda: served.metric("vllm:num_requests_running") == 1)
    connection.close()
    assert served.line_of("the-one-who-left")["status"] == 499


def test_a_caller_that_leaves_while_sending_harms_nobody(served):
    connection = served.connect()
    connection.putrequest("POST", "/v1/chat/completions")
    connection.putheader("content-length", "1000")
    connection.putheader("x-request-id", "half-a-body")
    connection.endheaders(b'{"messages": [')
    connection.close()
    assert served.line_of("half-a-body")["status"] == 499
    assert served.chat().status == 200
