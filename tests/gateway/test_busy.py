"""More requests than the gateway may run: they wait in order, or are told when to come back."""

from __future__ import annotations

import threading

import openai
import pytest

from gateway.served import MODEL, Served, until

LONG = {"max_tokens": 1500, "ignore_eos": True}
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


def in_background(served, request_id):
    thread = threading.Thread(
        target=served.chat, kwargs={"max_tokens": 1, "headers": {"x-request-id": request_id}}
    )
    thread.start()
    return thread


def test_a_full_queue_refuses_the_next_and_serves_the_others_in_order(patient):
    waiting = []
    with patient.streaming(**LONG):
        for place, name in enumerate(("first", "second"), 1):
            waiting.append(in_background(patient, name))
            until(lambda place=place: patient.metric("vllm:num_requests_waiting") == place)
        refused = patient.chat()
        assert patient.metric("vllm:num_requests_waiting") == 2
    assert refused.status == 429
    assert refused.error["type"] == "rate_limit_error"
    assert refused.error["code"] == "queue_full"
    assert int(refused.headers["retry-after"]) >= 1
    assert int(refused.headers["retry-after-ms"]) >= 1000
    for thread in waiting:
        thread.join()
    assert patient.line_of("first")["status"] == 200
    assert patient.line_of("second")["status"] == 200
    served = [line["request_id"] for line in patient.log_lines if line.get("status") == 200]
    assert [name for name in served if name in ("first", "second")] == ["first", "second"]


def test_one_who_leaves_the_queue_makes_room_in_it(patient):
    until(patient.quiet)
    body = b'{"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}'
    with patient.streaming(**LONG):
        connections = [patient.connect() for _ in range(2)]
        for place, connection in enumerate(connections, 1):
            connection.request("POST", "/v1/chat/completions", body)
            until(lambda place=place: patient.metric("vllm:num_requests_waiting") == place)
        assert patient.chat().status == 429
        for connection in connections:
            connection.close()
        until(lambda: patient.metric("vllm:num_requests_waiting") == 0)
        assert patient.metric("vllm:num_requests_running") == 1
    until(patient.quiet)
    assert patient.chat().status == 200


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
