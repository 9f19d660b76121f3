"""More requests than the gateway may run: they wait in order, or are told when to come back."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from gateway.served import MODEL, Served, until

LONG = {"max_tokens": 1900, "ignore_eos": True}
ENGINE = {"kv_tokens": 2048}


@pytest.fixture(scope="module")
def patient(box_model, tmp_path_factory):
    """One at a time, two may wait, as long as it takes."""
    served = Served(
        tmp_path_factory.mktemp("patient"),
        {
            "engine": ENGINE,
            "batching": {"max_batch_size": 1, "max_queue_size": 2, "timeout_ms": 600_000},
        },
    )
    try:
        served.wait_until_ready()
        yield served
    finally:
        served.stop()


@pytest.fixture(scope="module")
def impatient(box_model, tmp_path_factory):
    """One at a time, one may wait, hardly at all."""
    served = Served(
        tmp_path_factory.mktemp("impatient"),
        {
            "engine": ENGINE,
            "batching": {"max_batch_size": 1, "max_queue_size": 1, "timeout_ms": 50},
        },
    )
    try:
        served.wait_until_ready()
        yield served
    finally:
        served.stop()


def ask_six(served):
    """Six requests at once while one runs: what the refused four got, and what the others will get."""
    pool = ThreadPoolExecutor(6)
    asked = [pool.submit(served.chat, max_tokens=1) for _ in range(6)]
    pool.shutdown(wait=False)
    until(lambda: sum(each.done() for each in asked) == 4)
    refused = [each.result() for each in asked if each.done()]
    return refused, [each for each in asked if not each.done()]


def test_as_many_as_may_wait_are_served_and_the_others_sent_away(patient):
    until(patient.quiet)
    with patient.streaming(**LONG):
        refused, waiting = ask_six(patient)
        assert patient.metric("vllm:num_requests_running") == 1
        assert patient.metric("vllm:num_requests_waiting") == 2
    for reply in refused:
        assert reply.status == 429
        assert reply.error["type"] == "rate_limit_error"
        assert reply.error["code"] == "queue_full"
        assert int(reply.headers["retry-after"]) >= 1
        assert int(reply.headers["retry-after-ms"]) >= 1000
    assert [each.result().status for each in waiting] == [200, 200]


def test_those_who_leave_the_queue_make_room_in_it(patient):
    until(patient.quiet)
    body = b'{"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}'
    with patient.streaming(**LONG):
        with contextlib.ExitStack() as leaving:
            for _ in range(2):
                connection = leaving.enter_context(contextlib.closing(patient.connect()))
                connection.request("POST", "/v1/chat/completions", body)
            until(lambda: patient.metric("vllm:num_requests_waiting") == 2)
        until(lambda: patient.metric("vllm:num_requests_waiting") == 0)
        refused, waiting = ask_six(patient)
    assert [reply.status for reply in refused] == [429] * 4
    assert [each.result().status for each in waiting] == [200, 200]


def test_who_waits_too_long_is_told_when_to_come_back(impatient):
    with impatient.streaming(**LONG):
        refused = impatient.chat()
        streamed = impatient.chat(stream=True)
    for reply in (refused, streamed):
        assert reply.status == 429
        assert reply.error["code"] == "queue_timeout"
        assert int(reply.headers["retry-after"]) >= 1


def test_the_sdk_says_rate_limit(impatient):
    until(impatient.quiet)
    hello = [{"role": "user", "content": "hello"}]
    with (
        openai.OpenAI(base_url=f"{impatient.url}/v1", api_key="x", max_retries=0) as client,
        impatient.streaming(**LONG),
        pytest.raises(openai.RateLimitError) as caught,
    ):
        client.chat.completions.create(model=MODEL, messages=hello, max_tokens=1)
    assert caught.value.code == "queue_timeout"


def test_a_request_for_more_answers_than_fit_is_still_answered(patient):
    until(patient.quiet)
    reply = patient.chat(n=3, max_tokens=2)
    assert reply.status == 200, reply.body
    assert len(reply.json["choices"]) == 3
    until(patient.quiet)


def test_after_all_that_everyone_is_answered(impatient):
    until(impatient.quiet)
    assert impatient.chat().status == 200
