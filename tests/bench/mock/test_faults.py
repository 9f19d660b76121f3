"""What goes wrong when it is told to, as callers see it."""

from __future__ import annotations

import json
import time

import anthropic
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from headrace.bench.mock.settings import Fault
from headrace.numbers.histogram import LogHistogram

from .asking import ASK, CHAT, ask, connect, get, read_until, request, rest, texts
from .by_hand import Hand, play
from .by_hand import ask as ask_by_hand

STREAM = {**ASK, "stream": True, "stream_options": {"include_usage": True}}


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def header(answer: bytes, name: str) -> str | None:
    for line in answer.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
        said, _, value = line.decode().partition(": ")
        if said == name:
            return value
    return None


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, openai.AuthenticationError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
def test_an_error_has_the_status_that_was_set(headrace_mock, status, error):
    url = headrace_mock(faults=f"error,status={status},retry_after_s=1.5").url
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client,
        pytest.raises(error) as caught,
    ):
        client.chat.completions.create(model="m", messages=ASK["messages"])
    assert caught.value.status_code == status
    assert caught.value.response.headers["retry-after"] == "2"
    assert caught.value.response.headers["retry-after-ms"] == "1500"


def test_an_error_is_said_in_the_form_of_its_face(headrace_mock):
    url = headrace_mock(faults="error,status=429").url
    with (
        anthropic.Anthropic(base_url=url, api_key="any", max_retries=0) as client,
        pytest.raises(anthropic.RateLimitError) as caught,
    ):
        client.messages.create(model="m", messages=ASK["messages"], max_tokens=3)
    assert caught.value.body["error"]["type"] == "rate_limit_error"


def test_a_share_of_the_requests_fails_and_the_seed_says_which(headrace_mock):
    def fates(seed: int) -> list[int]:
        url = headrace_mock(faults=["error:20%,status=503"], seed=seed, tokens=1).url
        found = []
        with connect(url) as sock:
            for _ in range(200):
                sock.sendall(request())
                answer = read_until(sock, b"}}")
                found.append(status_of(answer))
        return found

    once = fates(1)
    assert set(once) == {200, 503}
    # 40 of 200 are expected, and 5 standard deviations are 28.
    assert 12 <= once.count(503) <= 68
    assert fates(1) == once
    assert fates(2) != once


def test_a_reset_breaks_off_in_the_middle(headrace_mock):
    url = headrace_mock(tokens=10, itl="5ms", faults="reset,after=4").url
    with connect(url) as sock:
        sock.sendall(request(body=STREAM))
        got = read_until(sock, b"runs")
        more, end = rest(sock)
    assert end == "reset"
    assert len(texts(got + more)) <= 4
    assert b"[DONE]" not in got + more


def test_a_cut_ends_in_good_order_but_without_an_end(headrace_mock):
    url = headrace_mock(tokens=10, faults="cut").url
    got, end = ask(url, STREAM)
    assert end == "end"
    assert len(texts(got)) == 5
    assert not got.endswith(b"0\r\n\r\n")


def test_a_whole_answer_is_cut_too(headrace_mock):
    url = headrace_mock(tokens=10, faults="cut").url
    got, end = ask(url)
    assert end == "end"
    assert len(got.partition(b"\r\n\r\n")[2]) < int(header(got, "content-length"))


def test_a_stall_puts_the_rest_off():
    async def act(mock, hand: Hand, port):
        answer = await ask_by_hand(port)
        await hand.until_set()
        for _ in range(5):
            hand.wake()
        assert hand.set_for == pytest.approx([1000.0, 1000.01, 1000.02, 1002.02, 1002.03], abs=1e-9)
        assert len(texts(await answer.read())) == 4

    play(act, tokens=4, itl="10ms", faults=(Fault(kind="stall", lasts="2s", after=2),))


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_no_json_is_none(headrace_mock, stream):
    got, end = ask(headrace_mock(faults="not_json").url, {**ASK, "stream": stream})
    assert status_of(got) == 200
    assert end == "end"
    assert b"<html>" in got
    assert b"choices" not in got


def test_an_endless_stream_goes_on_past_its_limit(headrace_mock):
    url = headrace_mock(faults="endless").url
    with connect(url) as sock:
        sock.sendall(request(body={**STREAM, "max_tokens": 3}))
        got = b""
        while got.count(b"data: ") < 50:
            got += sock.recv(65536)
    assert b"[DONE]" not in got
    assert b'"finish_reason":"' not in got


def test_an_endless_whole_answer_never_says_anything(headrace_mock):
    url = headrace_mock(faults="endless").url
    with connect(url) as sock:
        sock.sendall(request())
        got = b""
        while got.count(b"1\r\n \r\n") < 5:
            got += sock.recv(65536)
    assert b"{" not in got


def test_an_answer_may_lack_its_usage(headrace_mock):
    url = headrace_mock(faults="no_usage").url
    got, _ = ask(url, STREAM)
    assert b"[DONE]" in got
    assert b"completion_tokens" not in got
    assert b'"usage"' not in ask(url)[0]


def test_above_the_rate_limit_429_is_said_with_when_to_come_again(headrace_mock):
    url = headrace_mock(rate_limit=2).url
    answers = [ask(url)[0] for _ in range(3)]
    # However slow the machine is, three do not come within a limit of one in a thousand seconds.
    assert header(answers[0], "x-ratelimit-limit-requests") == "2"
    assert header(answers[0], "x-ratelimit-remaining-requests") == "1"

    url = headrace_mock(rate_limit=0.001).url
    assert status_of(ask(url)[0]) == 200
    refused = ask(url)[0]
    assert status_of(refused) == 429
    assert 900 < int(header(refused, "retry-after")) <= 1000
    assert header(refused, "x-ratelimit-remaining-requests") == "0"
    message = {**ASK, "max_tokens": 3}
    theirs = ask(url, message, "/v1/messages")[0]
    assert header(theirs, "anthropic-ratelimit-requests-remaining") == "0"


def test_an_unknown_model_is_not_found(headrace_mock):
    url = headrace_mock(model="known").url
    got = ask(url, {**ASK, "model": "other"})[0]
    assert status_of(got) == 404
    assert json.loads(got.partition(b"\r\n\r\n")[2])["error"]["code"] == "model_not_found"
    assert status_of(ask(url, {**ASK, "model": "known"})[0]) == 200


def test_a_wrong_key_is_refused_in_each_way_of_showing_it(headrace_mock):
    url = headrace_mock(key="right").url
    assert status_of(ask(url)[0]) == 401
    assert status_of(ask(url, authorization="Bearer wrong")[0]) == 401
    assert status_of(ask(url, authorization="Bearer right")[0]) == 200
    assert status_of(ask(url, x_api_key="right")[0]) == 200
    assert get(url, "/health")


def test_connections_are_refused_at_first(headrace_mock):
    server = headrace_mock(refuse_for="300ms")
    with pytest.raises(ConnectionRefusedError):
        connect(server.url)
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        try:
            assert status_of(ask(server.url)[0]) == 200
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            break
    else:
        pytest.fail("it refuses for ever")


def test_a_frozen_server_answers_nobody(headrace_mock):
    url = headrace_mock(freeze={"lasts": "300ms", "every": "400ms"}, tokens=1).url
    longest = 0.0
    with connect(url) as sock:
        for _ in range(12):
            began = time.monotonic()
            sock.sendall(request(body={**ASK, "stream": True}))
            read_until(sock, b"0\r\n\r\n")
            longest = max(longest, time.monotonic() - began)
            time.sleep(0.05)
    # A slow machine can only make it longer.
    assert longest > 0.15


def test_a_request_may_say_what_is_to_become_of_it(headrace_mock):
    url = headrace_mock(tokens=2).url
    assert len(texts(ask(url, STREAM, x_mock_tokens="9")[0])) == 9
    assert status_of(ask(url, STREAM, x_mock_fault="error,status=503")[0]) == 503
    assert ask(url, STREAM, x_mock_fault="cut,after=1")[0].endswith(b"\n\r\n")
    began = time.monotonic()
    ask(url, STREAM, x_mock_ttft_ms="120", x_mock_itl_ms="30")
    assert time.monotonic() - began >= 0.15
    wrong = ask(url, STREAM, x_mock_itl_ms="soon")[0]
    assert status_of(wrong) == 400
    assert b"x-mock-itl-ms" in wrong


def test_a_request_may_be_spared(headrace_mock):
    url = headrace_mock(faults="error").url
    assert status_of(ask(url)[0]) == 500
    assert status_of(ask(url, x_mock_fault="none")[0]) == 200


def test_who_finds_no_slot_waits_for_one(headrace_mock):
    url = headrace_mock(slots=1, tokens=1).url
    with connect(url) as first, connect(url) as second:
        first.sendall(request(body=STREAM, x_mock_fault="endless"))
        read_until(first, b"data: ")
        second.sendall(request())
        while b'num_requests_waiting{model_name="mock"} 1\n' not in get(url, "/metrics"):
            time.sleep(0.01)
        first.close()
        assert b'"content":"the"' in read_until(second, b"}}")
    assert b'num_requests_waiting{model_name="mock"} 0\n' in get(url, "/metrics")
    assert b"headrace_mock_callers_gone_total 1\n" in get(url, "/metrics")


def test_a_caller_that_leaves_while_it_waits_takes_no_slot(headrace_mock):
    url = headrace_mock(slots=1, tokens=1).url
    with connect(url) as first:
        first.sendall(request(body=STREAM, x_mock_fault="endless"))
        read_until(first, b"data: ")
        with connect(url) as second:
            second.sendall(request())
            while b'num_requests_waiting{model_name="mock"} 1\n' not in get(url, "/metrics"):
                time.sleep(0.01)
    assert status_of(ask(url)[0]) == 200
    assert b'num_requests_running{model_name="mock"} 0\n' in get(url, "/metrics")


def test_a_reader_who_does_not_read_holds_up_its_own_stream_alone(headrace_mock):
    url = headrace_mock(tokens=30_000).url
    with connect(url) as slow:
        slow.sendall(request(body=STREAM))
        read_until(slow, b"data: ")
        assert status_of(ask(url, {**ASK, "max_tokens": 2})[0]) == 200
        got = read_until(slow, b"[DONE]")
    assert b'"completion_tokens":30000' in got


def test_lateness_is_told_as_a_histogram(headrace_mock):
    url = headrace_mock(tokens=5).url
    ask(url, STREAM)
    told = json.loads(get(url, "/lateness"))
    assert told["count"] == 5
    assert 0 <= told["p50_ms"] <= told["p99_ms"] <= told["max_ms"]
    assert LogHistogram.from_plain(told["histogram_s"]).count == 5
    metrics = get(url, "/metrics").decode()
    assert "headrace_mock_lateness_seconds_count 5\n" in metrics
    assert f'headrace_mock_requests_total{{path="{CHAT}",status="200"}} 1\n' in metrics


def test_metrics_are_what_prometheus_reads(headrace_mock):
    url = headrace_mock().url
    ask(url)
    families = {f.name: f for f in text_string_to_metric_families(get(url, "/metrics").decode())}
    assert families["headrace_mock_lateness_seconds"].type == "summary"
    assert families["vllm:generation_tokens"].samples[0].value == 16


@pytest.mark.parametrize(
    "bad", [b"nonsense\r\n\r\n", b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n"]
)
def test_what_is_no_http_is_refused(headrace_mock, bad):
    with connect(headrace_mock().url) as sock:
        sock.sendall(bad)
        got, _ = rest(sock)
    assert status_of(got) == 400
