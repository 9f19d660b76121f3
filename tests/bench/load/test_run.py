"""Whole runs over real sockets: against a server that is told what to do, and against the mock."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time

import pytest
from attrs import evolve

from bench.load.scripted import (
    BEGIN,
    DONE,
    END,
    FINISH,
    USAGE,
    answer,
    answering,
    chunk,
    event,
    plan,
    serving,
    whole,
)
from headrace.bench.load.run import Stop, load
from headrace.contracts.convert import from_json
from headrace.contracts.errors import (
    LLMAuthError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    LLMUnavailableError,
)
from headrace.contracts.load import Bursts, Closed, Constant, LoadPlan, Poisson, Steps, Synthetic
from headrace.contracts.load import Length as Tokens
from headrace.contracts.record import CallRecord
from headrace.testing import mock_server


def only_error(report):
    assert len(report.errors) == 1, report.errors
    return report.errors[0]


def test_a_closed_loop_asks_so_many_times_and_counts_what_came():
    with serving(answering) as server:
        report = load(plan(server))
    assert report.ended == "complete"
    assert report.closed_loop
    counts = report.figures.counts
    assert (counts.sent, counts.ok, counts.failed) == (6, 6, 0)
    assert len(server.requests) == 6
    assert report.figures.output_tokens.mean == 2.0
    assert report.plan.model == "m"
    assert report.requests.chunks == (2,) * 6


def test_a_request_is_a_streamed_chat_with_usage_and_is_never_compressed():
    with serving(answering) as server:
        load(plan(server, requests=1, extra_body='{"top_k":5}', output_exact=True))
    head, body = server.requests[0]
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert b"accept-encoding: identity" in head
    said = json.loads(body)
    assert (said["model"], said["stream"], said["top_k"], said["ignore_eos"]) == (
        "m",
        True,
        5,
        True,
    )
    assert said["stream_options"] == {"include_usage": True}


def test_a_base_with_its_v1_is_the_same_target():
    with serving(answering) as server:
        load(evolve(plan(server, requests=1), url=server.url + "/v1/"))
    assert server.requests[0][0].startswith(b"POST /v1/chat/completions ")


def test_an_open_loop_sends_all_of_its_schedule_and_counts_from_the_intended_time():
    with serving(answering) as server:
        report = load(plan(server, arrivals=Constant(rate=200.0), requests=20))
    assert report.figures.counts.ok == 20
    assert not report.closed_loop
    intended = report.requests.intended_s
    assert [round(at * 200) for at in sorted(intended)] == list(range(20))
    assert all(
        latency >= service
        for latency, service in zip(
            report.requests.latency_ms, report.requests.service_ms, strict=True
        )
    )


def test_steps_end_the_run_when_the_last_one_is_over():
    with serving(answering) as server:
        steps = Steps(rates=(50.0, 100.0), each_s=0.2, poisson=False)
        report = load(plan(server, arrivals=steps, requests=None))
    assert report.figures.counts.ok == 30
    assert report.ended == "complete"


def test_a_duration_ends_a_closed_loop():
    with serving(answering) as server:
        report = load(plan(server, requests=None, duration_s=0.3))
    assert report.ended == "complete"
    assert report.figures.counts.ok > 2


def test_warm_up_and_cool_down_are_in_no_figure():
    with serving(answering) as server:
        report = load(
            plan(
                server,
                arrivals=Constant(rate=100.0),
                requests=None,
                duration_s=0.6,
                warmup_s=0.2,
                cooldown_s=0.2,
            )
        )
    counts = report.figures.counts
    assert (counts.warmup, counts.ok, counts.cooldown) == (20, 20, 20)


def test_a_capped_open_loop_shows_its_queue_from_the_intended_time():
    def slow(caller):
        while caller.request() is not None:
            time.sleep(0.1)
            caller.send(answer("one", " two"))

    with serving(slow) as server:
        burst = Bursts(size=6, every_s=60.0)
        report = load(plan(server, arrivals=burst, requests=6, at_most=1))
    # Six at once, one at a time, 0.1 s each: the last one has waited for five others.
    assert report.figures.latency.maximum > 550
    assert report.figures.service.maximum < report.figures.latency.maximum - 400
    assert report.figures.counts.ok == 6


def test_requests_that_were_due_and_never_sent_are_counted_with_how_long_they_waited():
    def stuck(caller):
        while caller.request() is not None:
            caller.server.stopped.wait(20)

    with serving(stuck) as server:
        burst = Bursts(size=5, every_s=60.0)
        report = load(
            plan(server, arrivals=burst, requests=5, at_most=2, drain_s=0.2, timeout_s=60.0)
        )
    assert report.figures.counts.never_sent == 3
    assert report.figures.counts.cut == 2
    assert any(doubt.name == "missing requests" for doubt in report.trust.doubts)


def test_a_conversation_brings_along_what_was_answered():
    def echo(caller):
        while (body := caller.request()) is not None:
            turns = len(json.loads(body)["messages"])
            caller.send(answer(f"answer to {turns}", '"\\', "."))

    workload = Synthetic(input=Tokens(mean=4.0), output=Tokens(mean=4.0), turns=3)
    with serving(echo) as server:
        report = load(plan(server, arrivals=Closed(concurrency=1), requests=6, workload=workload))
    assert report.figures.counts.ok == 6
    bodies = [json.loads(body)["messages"] for _, body in server.requests]
    assert [len(messages) for messages in bodies] == [1, 3, 5, 1, 3, 5]
    assert bodies[2][1] == {"role": "assistant", "content": 'answer to 1"\\.'}
    assert bodies[2][:3] == bodies[1]


def test_conversations_of_an_open_loop_go_on_by_themselves():
    workload = Synthetic(input=Tokens(mean=4.0), output=Tokens(mean=4.0), turns=2)
    with serving(answering) as server:
        steps = Steps(rates=(50.0,), each_s=0.1, poisson=False)
        report = load(plan(server, arrivals=steps, requests=None, workload=workload))
    assert report.figures.counts.ok == 10
    assert sorted(len(json.loads(body)["messages"]) for _, body in server.requests) == [
        *[1] * 5,
        *[3] * 5,
    ]


def test_records_are_written_as_the_gateway_writes_them(tmp_path):
    path = tmp_path / "calls.jsonl"
    with serving(answering) as server:
        report = load(plan(server, arrivals=Poisson(rate=100.0), records=path))
    records = [from_json(line, CallRecord) for line in path.read_text().splitlines()]
    assert len(records) == 6
    assert {record.run_id for record in records} == {report.run_id}
    for record in records:
        t = record.timeline
        instants = [t.intended, t.sent, t.first_byte, t.first_token, t.last_token, t.done]
        assert None not in instants
        assert instants[2:] == sorted(instants[2:])
        assert record.usage.completion_tokens == record.chunks == 2
        assert record.finish_reason == "stop"


# What goes wrong.


def test_a_target_that_is_down_is_told_with_what_to_do():
    with serving(answering) as server:
        pass
    with pytest.raises(
        LLMUnavailableError, match=r"Connection refused; nothing answers at .*start"
    ):
        load(plan(server))


def test_a_host_that_nobody_knows_is_named():
    with pytest.raises(LLMUnavailableError, match=r"'no-such-host\.invalid' is not known here"):
        load(LoadPlan(url="http://no-such-host.invalid:1", requests=1))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://x", "needs a host"),
        ("http://", "needs a host"),
        ("http://a:b", "url is 'http://a:b'"),
    ],
)
def test_a_url_that_is_none_says_what_would_be_right(url, said):
    with pytest.raises(LLMInvalidRequestError, match=said) as raised:
        load(LoadPlan(url=url, requests=1))
    assert "http://127.0.0.1:8000" in str(raised.value)


def test_a_wrong_key_names_the_variable_and_shows_no_key(monkeypatch):
    monkeypatch.setenv("HEADRACE_API_KEY", "sk-secret-secret")
    with serving(answering) as server:
        server.models = whole(b'{"error":{"message":"bad key"}}', "401 Unauthorized")
        with pytest.raises(LLMAuthError, match=r"HEADRACE_API_KEY is refused.*--key-env") as raised:
            load(plan(server))
    assert "secret" not in str(raised.value)


def test_a_key_that_only_the_model_wants_ends_the_run_at_the_first_answer(monkeypatch):
    monkeypatch.delenv("HEADRACE_API_KEY", raising=False)

    def strict(caller):
        while caller.request() is not None:
            caller.send(whole(b'{"error":{"message":"who are you"}}', "401 Unauthorized"))

    with serving(strict) as server:
        with pytest.raises(LLMAuthError, match="HEADRACE_API_KEY is not set"):
            load(plan(server, requests=1000))
        assert len(server.requests) < 10


def test_a_key_of_another_provider_is_not_sent(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
    monkeypatch.delenv("HEADRACE_API_KEY", raising=False)
    monkeypatch.setenv("MINE", "sk-mine")
    with serving(answering) as server:
        load(plan(server, requests=1))
        load(plan(server, requests=1, key_env="MINE"))
        load(plan(server, requests=1, key_env="MINE", kind="chat", headers=(("X-Team", "a"),)))
    heads = [head for head, _ in server.requests]
    assert b"authorization" not in heads[0]
    assert b"authorization: Bearer sk-mine" in heads[1]
    assert b"x-team: a" in heads[2]


def test_a_variable_without_a_key_is_named():
    with pytest.raises(LLMAuthError, match="'NO_SUCH_KEY'"):
        load(LoadPlan(url="http://127.0.0.1:1", requests=1, key_env="NO_SUCH_KEY"))


def test_a_wrong_model_is_told_with_those_that_there_are():
    def strict(caller):
        while caller.request() is not None:
            said = b'{"error":{"message":"no such model","code":"model_not_found"}}'
            caller.send(whole(said, "404 Not Found"))

    right = "model is 'x', and the target lists: m"
    with serving(strict) as server, pytest.raises(LLMModelNotFoundError, match=right):
        load(plan(server, model="x", requests=100))


def test_a_target_that_names_no_model_asks_for_one():
    with serving(answering) as server:
        server.models = whole(b"nothing here", "404 Not Found")
        with pytest.raises(LLMInvalidRequestError, match=r"answered 404.*--model"):
            load(plan(server))
        assert load(plan(server, model="m")).figures.counts.ok == 6


def test_failures_are_counted_by_kind_with_the_first_message():
    def busy(caller):
        number = 0
        while caller.request() is not None:
            number += 1
            if number % 2:
                caller.send(answer("one", " two"))
            else:
                said = b'{"error":{"message":"slow down %d"}}' % number
                caller.send(whole(said, "429 Too Many Requests"))

    with serving(busy) as server:
        report = load(plan(server, arrivals=Closed(concurrency=1)))
    error = only_error(report)
    assert (error.kind, error.status, error.count) == ("LLMRateLimitError", 429, 3)
    assert error.example == "slow down 2"
    assert report.figures.error_share == 0.5


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        (whole(b"<html>hello</html>"), "LLMBadResponseError", "<html>"),
        (answer("one", " two")[: -len(END) - 20], "LLMBadResponseError", "inside the answer"),
        (BEGIN + chunk(event("one")) + END, "LLMBadResponseError", "cut short"),
        (BEGIN + chunk(b"data: {nonsense\n\n") + END, "LLMBadResponseError", "nonsense"),
        (b"", "LLMUnavailableError", "without an answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-le", "LLMUnavailableError", "inside the answer's headers"),
        (whole(b'{"error":{"message":"boom"}}', "500 Oops"), "LLMProviderError", "boom"),
    ],
)
def test_what_is_wrong_with_an_answer_is_told(reply, kind, said):
    def wrong(caller):
        caller.request()
        caller.send(reply)

    with serving(wrong) as server:
        report = load(plan(server, requests=2))
    error = only_error(report)
    assert (error.kind, error.count) == (kind, 2)
    assert said in error.example
    assert report.trust.verdict == "INVALID"


def test_a_reset_in_the_middle_fails_that_request_and_is_not_tried_again():
    def resetting(caller):
        caller.request()
        caller.send(BEGIN + chunk(event("one")))
        time.sleep(0.05)
        caller.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with serving(resetting) as server:
        report = load(plan(server, requests=2))
    assert only_error(report).count == 2
    assert "Connection reset" in only_error(report).example
    assert len(server.requests) == 2


def test_a_stream_that_never_ends_is_ended_by_the_time_limit():
    def endless(caller):
        caller.request()
        caller.send(BEGIN)
        while not caller.server.stopped.wait(0.02):
            caller.send(chunk(event("and")))

    with serving(endless) as server:
        report = load(plan(server, requests=2, timeout_s=0.4))
    error = only_error(report)
    assert (error.kind, error.count) == ("LLMTimeoutError", 2)
    assert error.example.startswith("timeout_s of 0.4 s ran out; ")


def test_without_usage_the_pieces_are_counted_and_it_is_said():
    def silent(caller):
        while caller.request() is not None:
            caller.send(answer("one", " two", " three", usage=False))

    with serving(silent) as server:
        report = load(plan(server))
    assert report.figures.output_tokens.mean == 3.0
    assert any("counted by pieces" in note for note in report.notes)


def test_a_whole_answer_where_a_stream_was_asked_has_no_first_token():
    said = {
        "model": "m",
        "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 9, "total_tokens": 10},
    }

    def wholly(caller):
        while caller.request() is not None:
            caller.send(whole(json.dumps(said).encode()))

    with serving(wholly) as server:
        report = load(plan(server))
    assert report.figures.counts.ok == 6
    assert report.figures.ttft is None
    assert report.figures.output_tokens.mean == 9.0


def test_a_server_that_keeps_no_connection_is_served_by_new_ones_and_that_is_counted():
    def once(caller):
        if caller.request() is not None:
            caller.send(
                answer("one", " two").replace(b"\r\ntransfer", b"\r\nconnection: close\r\ntransfer")
            )

    with serving(once) as server:
        report = load(plan(server))
    assert report.figures.counts.ok == 6
    assert report.trust.lost_connections >= 4
    assert report.connect.count == 6


def test_a_kept_connection_that_died_unanswered_is_made_up_for_once(tmp_path):
    path = tmp_path / "calls.jsonl"

    def forgetful(caller):
        caller.request()
        caller.send(answer("one", " two"))
        if caller.request() is not None:
            caller.server.dropped = True  # taken, and closed without a word

    with serving(forgetful) as server:
        report = load(plan(server, arrivals=Closed(concurrency=1), requests=4, records=path))
    assert report.figures.counts.ok == 4
    records = [from_json(line, CallRecord) for line in path.read_text().splitlines()]
    assert [record.attempts[0].sends for record in records] == [1, 2, 2, 2]
    assert report.trust.lost_connections == 3


def test_too_many_errors_end_the_run():
    def failing(caller):
        while caller.request() is not None:
            caller.send(whole(b'{"error":{"message":"boom"}}', "500 Oops"))

    with serving(failing) as server:
        report = load(plan(server, requests=1000, most_errors=5))
        assert report.ended == "too many errors"
        assert report.figures.counts.failed <= 7
        report = load(plan(server, requests=1000, most_error_share=0.5))
    assert report.ended == "too many errors"
    assert 100 <= report.figures.counts.failed <= 102


def test_a_target_that_goes_away_for_good_ends_the_run_with_what_was_measured():
    answered = []

    def dying(caller):
        while caller.request() is not None:
            caller.send(answer("one", " two"))
            answered.append(1)
            if len(answered) == 10:
                caller.server.stop()

    with serving(dying) as server:
        report = load(plan(server, requests=100_000))
    assert report.ended == "target lost"
    assert report.figures.counts.ok >= 9
    assert any(error.kind == "LLMUnavailableError" for error in report.errors)


def test_asking_to_stop_waits_for_what_is_in_flight_and_asking_again_does_not():
    release = threading.Event()

    def held(caller):
        while caller.request() is not None:
            caller.send(BEGIN + chunk(event("one")))
            release.wait(10)
            caller.send(b"".join(map(chunk, (FINISH, USAGE, DONE))) + END)

    for asks, ok, cut in ((1, 2, 0), (2, 0, 2)):
        stop = Stop()
        with serving(held) as server:

            def ask(server=server, stop=stop, asks=asks):
                while len(server.requests) < 2:
                    time.sleep(0.01)
                stop.ask()
                time.sleep(0.2)
                if asks == 1:
                    release.set()
                else:
                    stop.ask()

            release.clear()
            threading.Thread(target=ask, daemon=True).start()
            report = load(plan(server, requests=1000), stop=stop)
            release.set()
        assert report.ended == "interrupted"
        assert (report.figures.counts.ok, report.figures.counts.cut) == (ok, cut)


# The mock, and the rest of the faces.


@pytest.mark.parametrize("kind", ["chat", "completions", "responses", "messages"])
@pytest.mark.parametrize("stream", [True, False])
def test_every_face_that_generates_is_asked_in_its_own_words(kind, stream):
    with mock_server(ttft="2ms", itl="1ms", tokens="5") as mock:
        report = load(
            LoadPlan(
                url=mock.url,
                kind=kind,
                stream=stream,
                arrivals=Closed(concurrency=2),
                requests=4,
                workload=Synthetic(input=Tokens(mean=8.0), output=Tokens(mean=50.0)),
            )
        )
    assert report.figures.counts.ok == 4, report.errors
    assert report.figures.output_tokens.mean == 5.0
    assert (report.figures.ttft is not None) == stream
    if stream:
        assert set(report.requests.chunks) == {5}


@pytest.mark.parametrize("kind", ["embeddings", "rerank"])
def test_vectors_and_ranks_are_counted_as_whole_answers(kind):
    with mock_server(ttft="2ms") as mock:
        report = load(LoadPlan(url=mock.url, kind=kind, arrivals=Closed(concurrency=2), requests=4))
    assert report.figures.counts.ok == 4, report.errors
    assert report.figures.input_tokens.mean > 0


def test_workers_divide_the_load_and_their_figures_are_one(tmp_path):
    with mock_server(ttft="2ms", itl="1ms", tokens="5") as mock:
        moments = []
        report = load(
            LoadPlan(
                url=mock.url,
                arrivals=Constant(rate=40.0),
                duration_s=2.0,
                workers=2,
                records=tmp_path / "calls.jsonl",
            ),
            on_moment=moments.append,
        )
    assert report.figures.counts.ok == 80
    assert sorted(report.requests.index) == list(range(80))
    assert [round(at * 40) for at in sorted(report.requests.intended_s)] == list(range(80))
    assert report.figures.itl.count == 80 * 4
    assert sum(moment.sent for moment in report.series) == 80
    assert moments
    assert len((tmp_path / "calls.jsonl").read_text().splitlines()) == 80


def test_more_workers_than_callers_are_refused_with_what_would_be_right():
    with pytest.raises(LLMInvalidRequestError, match=r"concurrency is 2.*lower --workers to 2"):
        load(
            LoadPlan(
                url="http://127.0.0.1:1", arrivals=Closed(concurrency=2), requests=9, workers=3
            )
        )
