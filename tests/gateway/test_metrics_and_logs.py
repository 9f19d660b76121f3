"""What the gateway tells of itself: metrics that add up, log lines that machines read, no prompts."""

from __future__ import annotations

import pytest

from gateway.served import MODEL, Served, until

SECRET_PROMPT = "the-prompt-that-nobody-logs"
SECRET_ANSWER = "Paris"


@pytest.fixture(scope="module")
def counted(box_model, tmp_path_factory):
    """A gateway that nobody else asks, so that every number is known; its log is at its wordiest."""
    served = Served(
        tmp_path_factory.mktemp("counted"),
        {"engine": {"kv_tokens": 2048}, "logging": {"level": "debug"}},
    )
    try:
        served.wait_until_ready()
        yield served
    finally:
        served.stop()


@pytest.fixture(scope="module")
def usages(counted):
    """The usages of four requests made through both faces, plain and streamed, and of no other."""
    told = []
    for text in (SECRET_PROMPT, "What is the capital of France?"):
        reply = counted.chat(text, max_tokens=16, temperature=0)
        assert reply.status == 200
        told.append(reply.json["usage"])
    reply = counted.post("/v1/completions", {"prompt": SECRET_PROMPT, "max_tokens": 3})
    told.append(reply.json["usage"])
    with counted.streaming(max_tokens=5, ignore_eos=True) as response:
        assert response.read().endswith(b"data: [DONE]\n\n")
    told.append({"prompt_tokens": None, "completion_tokens": 5})
    assert counted.chat(max_tokens=-1).status == 400
    assert counted.post("/v1/chat/completions", b"not JSON").status == 400
    assert counted.chat(model="nobody").status == 404
    return told


def test_the_requests_made_are_the_requests_counted(counted, usages):
    succeeded = counted.metric("headrace_requests_total", error_type="", status="200")
    assert succeeded == len(usages)
    assert counted.metric("vllm:request_success_total", model_name=MODEL) == len(usages)
    assert counted.metric("vllm:e2e_request_latency_seconds_count") == len(usages)
    assert counted.metric("vllm:time_to_first_token_seconds_count") == len(usages)
    assert counted.metric("gen_ai_server_request_duration_seconds_count") == len(usages)
    assert counted.metric("headrace_requests_total", operation="completion") == 1


def test_the_tokens_told_are_the_tokens_counted(counted, usages):
    generated = sum(usage["completion_tokens"] for usage in usages)
    assert counted.metric("vllm:generation_tokens_total", model_name=MODEL) == generated
    assert counted.metric("gen_ai_client_token_usage_sum", gen_ai_token_type="output") == generated
    known = sum(usage["prompt_tokens"] or 0 for usage in usages)
    assert counted.metric("vllm:prompt_tokens_total", model_name=MODEL) > known
    assert counted.metric("gen_ai_client_token_usage_sum", gen_ai_token_type="input") > known


def test_the_reasons_are_counted_as_vllm_counts_them(counted, usages):
    lengths = counted.metric("vllm:request_success_total", finished_reason="length")
    stops = counted.metric("vllm:request_success_total", finished_reason="stop")
    assert lengths >= 2
    assert lengths + stops == len(usages)


def test_nothing_runs_or_waits_afterwards(counted, usages):
    assert counted.quiet()


def test_the_metrics_are_prometheus_text(counted, usages):
    reply = counted.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    names = {sample.name for sample in counted.samples()}
    assert "headrace_uptime_seconds" in names
    assert "vllm:num_requests_running" in names
    for histogram in ("vllm:time_to_first_token_seconds", "gen_ai_server_request_duration_seconds"):
        series = {}
        for sample in counted.samples():
            if sample.name == f"{histogram}_bucket":
                labels = tuple((k, v) for k, v in sample.labels.items() if k != "le")
                series.setdefault(labels, []).append((float(sample.labels["le"]), sample.value))
        assert series
        for buckets in series.values():
            assert buckets == sorted(buckets)
            assert [height for _, height in buckets] == sorted(height for _, height in buckets)
            assert buckets[-1][0] == float("inf")


def test_every_request_leaves_one_line_with_its_id(counted, usages):
    reply = counted.chat(headers={"x-request-id": "look-me-up"})
    assert reply.headers["x-request-id"] == "look-me-up"
    line = counted.line_of("look-me-up")
    assert line["status"] == 200
    assert line["method"] == "POST"
    assert line["path"] == "/v1/chat/completions"
    assert line["model"] == MODEL
    assert line["duration_ms"] > 0
    assert line["time"].endswith("+00:00")
    assert line["level"] == "info"
    again = [each for each in counted.log_lines if each.get("request_id") == "look-me-up"]
    assert again == [line]


def test_every_line_is_json_once_it_serves(counted, usages):
    last = counted.get("/health").headers["x-request-id"]
    until(lambda: last in counted.log)
    after = counted.log.partition("stop: Ctrl-C")[2].strip().splitlines()
    assert after
    assert all(line.startswith("{") for line in after)


def test_no_prompt_and_no_answer_is_ever_logged(counted, usages):
    last = counted.get("/health").headers["x-request-id"]
    until(lambda: last in counted.log)
    assert SECRET_PROMPT not in counted.log
    assert SECRET_ANSWER not in counted.log
    assert SECRET_PROMPT not in counted.get("/metrics").body.decode()


def test_nothing_a_caller_sends_breaks_a_log_line(counted):
    reply = counted.get('/x%22%0a{"level":"fake"}', **{"x-request-id": 'a"b'})
    assert reply.status == 404
    line = counted.line_of(reply.headers["x-request-id"])
    assert line["status"] == 404
    assert not [each for each in counted.log_lines if each.get("level") == "fake"]


def test_a_model_name_of_a_callers_own_making_is_no_label(counted):
    assert counted.chat(model="made-up-by-somebody").status == 404
    assert "made-up-by-somebody" not in counted.get("/metrics").body.decode()
