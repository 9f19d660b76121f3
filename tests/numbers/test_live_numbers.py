"""Records in, snapshot out; and the same numbers as Prometheus reads them."""

import math
import sys
from decimal import Decimal

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headrace.contracts.convert import from_json, to_json
from headrace.contracts.record import CallRecord, Timeline
from headrace.contracts.responses import Usage
from headrace.contracts.snapshot import Snapshot
from headrace.numbers.live import MAX_NAMES, MAX_SERIES, OTHER, Tally
from headrace.numbers.prometheus import write_metrics

ODD_NAME = 'mo"d\\el\nx'


def record(done=10.0, **given):
    """A call that waited 0.5 s, had its first token 0.25 s after sending, and 0.1 s a token."""
    t = Timeline(
        anchor=0.0,
        wall_anchor=0.0,
        queued=done - 2.0,
        admitted=done - 1.5,
        sent=done - 1.5,
        first_byte=done - 1.25,
        first_token=done - 1.25,
        last_token=done - 0.25,
        done=done,
    )
    return CallRecord(
        **{
            "call_id": "c",
            "operation": "chat",
            "timeline": t,
            "requested_model": "box",
            "model": "smol",
            "backend": "local",
            "provider": "llamacpp",
            "usage": Usage(prompt_tokens=7, completion_tokens=11),
            "finish_reason": "stop",
            "status": 200,
            **given,
        }
    )


def failed(kind, status, **given):
    return record(error_kind=kind, status=status, usage=None, finish_reason=None, **given)


def tally_of(*records, models=("box",)):
    tally = Tally(0.0, models)
    for r in records:
        tally.add(r)
    return tally


def metrics(tally, now=10.0):
    families = text_string_to_metric_families(write_metrics(tally, now).decode())
    return {
        (s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples
    }


def value(found, name, **labels):
    matching = [
        v for (n, *ls), v in found.items() if n == name and labels.items() <= dict(ls).items()
    ]
    assert len(matching) == 1, (name, labels, matching)
    return matching[0]


def test_an_empty_snapshot_knows_nothing_and_claims_nothing():
    snap = Tally(5.0).snapshot(5.0)
    assert (snap.running, snap.queued, snap.requests, snap.errors) == (0, 0, {}, {})
    assert (snap.ttft.count, snap.ttft.p50_s, snap.completion_tokens_per_s) == (0, None, None)


def test_calls_are_counted_by_outcome_and_error():
    snap = tally_of(
        record(),
        record(),
        failed("LLMTimeoutError", 504),
        failed("LLMTimeoutError", 504),
        failed("LLMCancelledError", 499),
    ).snapshot(10.0)
    assert snap.requests == {"ok": 2, "error": 2, "cancelled": 1}
    assert snap.errors == {"LLMTimeoutError": 2, "LLMCancelledError": 1}
    assert (snap.prompt_tokens, snap.completion_tokens) == (14, 22)


def test_latencies_follow_the_records():
    snap = tally_of(*[record()] * 5).snapshot(10.0)
    for summary, seconds in ((snap.queue, 0.5), (snap.ttft, 0.25), (snap.tpot, 0.1), (snap.e2e, 2)):
        assert (summary.count, summary.mean_s) == (5, pytest.approx(seconds))
        assert summary.p50_s == pytest.approx(seconds, rel=0.01)


def test_a_percentile_is_told_only_when_enough_calls_support_it():
    few = tally_of(*[record()] * 298).snapshot(10.0).e2e
    enough = tally_of(*[record()] * 299).snapshot(10.0).e2e
    assert few.p99_s is None
    assert few.p95_s is not None
    assert enough.p99_s is not None


def test_a_failed_call_does_not_improve_the_latencies():
    snap = tally_of(record(), failed("LLMOverloadedError", 503)).snapshot(10.0)
    assert (snap.e2e.count, snap.ttft.count, snap.queue.count) == (1, 1, 2)


def test_the_rate_is_that_of_the_last_ten_seconds():
    tally = tally_of(record(done=21.0), record(done=29.0), record(done=30.0))
    assert tally.snapshot(30.0).completion_tokens_per_s == 3.3
    assert tally.snapshot(30.0).prompt_tokens_per_s == 2.1
    assert tally.snapshot(35.0).completion_tokens_per_s == 2.2
    assert tally.snapshot(60.0).completion_tokens_per_s == 0.0
    assert tally.snapshot(60.0).completion_tokens == 33


def test_the_rate_of_a_young_server_is_over_its_age():
    snap = tally_of(record(done=4.0)).snapshot(4.0)
    assert (snap.window_s, snap.completion_tokens_per_s) == (4.0, 11 / 4)


def test_a_call_waits_then_runs_then_is_over():
    tally = Tally(0.0, ["box"])
    first, second = tally.began("box"), tally.began("box")
    first.admitted("local")
    snap = tally.snapshot(1.0)
    assert (snap.running, snap.queued) == (1, 1)
    assert [(m.name, m.running, m.queued) for m in snap.models] == [("box", 1, 1)]
    assert [(b.name, b.running) for b in snap.backends] == [("local", 1)]
    for call in (first, second, first):
        call.ended()
    snap = tally.snapshot(1.0)
    assert (snap.running, snap.queued) == (0, 0)
    assert [(b.name, b.running) for b in snap.backends] == [("local", 0)]


def test_models_and_backends_are_told_apart():
    snap = tally_of(
        record(), record(requested_model="big", backend="cloud"), failed("LLMError", 500)
    ).snapshot(10.0)
    assert {m.name: m.requests for m in snap.models} == {
        "box": {"ok": 1, "error": 1},
        "big": {"ok": 1},
    }
    assert {b.name: b.completion_tokens for b in snap.backends} == {"local": 11, "cloud": 11}


def test_names_that_callers_invent_take_no_place():
    invented = [
        failed("LLMModelNotFoundError", 404, requested_model=f"x{i}", model=None, backend=None)
        for i in range(500)
    ]
    snap = tally_of(*invented, record(requested_model="real")).snapshot(10.0)
    assert {m.name: sum(m.requests.values()) for m in snap.models} == {
        "box": 0,
        OTHER: 500,
        "real": 1,
    }


def test_further_models_are_folded_and_none_is_lost():
    tally = tally_of(*(record(requested_model=f"m{i}", backend=f"b{i}") for i in range(3000)))
    assert len(tally.model_names()) <= MAX_NAMES + 1
    assert len(tally.series) <= MAX_SERIES + 1
    assert sum(m.requests["ok"] for m in tally.snapshot(10.0).models if m.requests) == 3000


def test_memory_does_not_grow_with_the_calls():
    def size(tally):
        return sum(
            sys.getsizeof(d)
            for s in tally.series.values()
            for d in (s.ended, s.finished, s.durations, s.ttft.buckets, s.e2e.buckets)
        )

    tally = tally_of(*(record(done=float(i)) for i in range(100)))
    before = size(tally)
    for i in range(100, 3000):
        tally.add(record(done=float(i)))
    assert size(tally) == before


def test_an_answer_that_began_before_the_request_was_sent_waited_no_time():
    t = Timeline(anchor=0, wall_anchor=0, queued=1.0, sent=3.0, first_token=2.0, done=4.0)
    snap = tally_of(record(timeline=t)).snapshot(10.0)
    assert (snap.ttft.count, snap.ttft.max_s) == (1, 0.0)


def test_a_record_with_nothing_in_it_is_counted():
    bare = CallRecord(
        call_id="c", operation="embeddings", timeline=Timeline(anchor=0, wall_anchor=0)
    )
    tally = tally_of(bare)
    assert tally.snapshot(1.0).requests == {"ok": 1}
    assert value(metrics(tally), "headrace_requests_total", operation="embeddings") == 1


def test_a_snapshot_travels_as_json():
    snap = tally_of(record(), failed("LLMError", 500)).snapshot(10.0)
    assert from_json(to_json(snap), Snapshot) == snap


def test_prometheus_reads_the_numbers_under_the_names_that_vllm_users_know():
    tally = tally_of(
        *[record()] * 3,
        record(finish_reason="length"),
        record(finish_reason="tool_calls"),
        failed("LLMCancelledError", 499),
        failed("LLMTimeoutError", 504),
    )
    tally.began("box").admitted("local")
    tally.began("box")
    found = metrics(tally)
    box = {"model_name": "box"}
    assert value(found, "vllm:num_requests_running", **box) == 1
    assert value(found, "vllm:num_requests_waiting", **box) == 1
    assert value(found, "vllm:prompt_tokens_total", **box) == 35
    assert value(found, "vllm:generation_tokens_total", **box) == 55
    for reason, n in (("stop", 4), ("length", 1), ("abort", 1)):
        assert value(found, "vllm:request_success_total", finished_reason=reason, **box) == n
    for name, count, mean in (
        ("vllm:time_to_first_token_seconds", 5, 0.75),
        ("vllm:request_time_per_output_token_seconds", 5, 0.1),
        ("vllm:e2e_request_latency_seconds", 5, 2.0),
        ("vllm:request_queue_time_seconds", 7, 0.5),
    ):
        assert value(found, f"{name}_count", **box) == count
        assert value(found, f"{name}_sum", **box) == pytest.approx(count * mean)
        assert value(found, f"{name}_bucket", le="+Inf", **box) == count
    assert value(found, "vllm:time_to_first_token_seconds_bucket", le="0.5", **box) == 0
    assert value(found, "vllm:time_to_first_token_seconds_bucket", le="0.75", **box) == 5
    assert value(found, "vllm:e2e_request_latency_seconds_bucket", le="1.5", **box) == 0
    assert value(found, "vllm:e2e_request_latency_seconds_bucket", le="2.0", **box) == 5


def test_prometheus_reads_the_numbers_under_the_names_of_opentelemetry():
    found = metrics(
        tally_of(
            record(),
            record(operation="completion", provider="gemini"),
            failed("LLMTimeoutError", 504),
        )
    )
    chat = {
        "gen_ai_operation_name": "chat",
        "gen_ai_provider_name": "llamacpp",
        "gen_ai_request_model": "box",
        "gen_ai_response_model": "smol",
    }
    text = {"gen_ai_operation_name": "text_completion", "gen_ai_provider_name": "gcp.gemini"}
    first, each, whole, tokens = (
        "gen_ai_server_time_to_first_token_seconds",
        "gen_ai_server_time_per_output_token_seconds",
        "gen_ai_server_request_duration_seconds",
        "gen_ai_client_token_usage",
    )
    assert value(found, f"{first}_count", **chat) == value(found, f"{first}_count", **text) == 1
    assert value(found, f"{each}_sum", **chat) == pytest.approx(0.1)
    assert value(found, f"{whole}_count", error_type="", **chat) == 1
    assert value(found, f"{whole}_count", error_type="LLMTimeoutError", **chat) == 1
    assert value(found, f"{tokens}_sum", gen_ai_token_type="input", **chat) == 7
    assert value(found, f"{tokens}_sum", gen_ai_token_type="output", **chat) == 11


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        (
            "gen_ai_server_time_to_first_token_seconds",
            "0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.25 0.5 0.75 1 2.5 5 7.5 10",
        ),
        (
            "gen_ai_server_time_per_output_token_seconds",
            "0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.4 0.5 0.75 1 2.5",
        ),
        (
            "gen_ai_server_request_duration_seconds",
            "0.01 0.02 0.04 0.08 0.16 0.32 0.64 1.28 2.56 5.12 10.24 20.48 40.96 81.92",
        ),
        (
            "gen_ai_client_token_usage",
            "1 4 16 64 256 1024 4096 16384 65536 262144 1048576 4194304 16777216 67108864",
        ),
    ],
)
def test_the_buckets_are_those_of_the_convention(name, bounds):
    found = metrics(tally_of(record()))
    les = {float(dict(ls)["le"]) for (n, *ls), _ in found.items() if n == f"{name}_bucket"}
    assert sorted(les) == [*map(float, bounds.split()), math.inf]


def test_our_own_count_tells_status_and_error():
    found = metrics(tally_of(record(), record(), failed("LLMRateLimitError", 429)))
    name = "headrace_requests_total"
    assert value(found, name, status="200", error_type="", backend="local", model="smol") == 2
    assert value(found, name, status="429", error_type="LLMRateLimitError") == 1
    assert value(found, "headrace_uptime_seconds") == 10.0
    assert value(found, "headrace_time_to_first_token_seconds_sum") == 0.5


def test_series_that_differ_only_in_what_is_no_label_are_one():
    found = metrics(tally_of(record(backend="a"), record(backend="b")))
    assert value(found, "gen_ai_server_request_duration_seconds_count") == 2


def test_a_label_may_hold_any_character():
    found = metrics(tally_of(record(requested_model=ODD_NAME), models=()))
    assert value(found, "vllm:prompt_tokens_total", model_name=ODD_NAME) == 7


def test_a_label_that_no_encoding_can_hold_does_not_break_the_page():
    assert write_metrics(tally_of(record(requested_model="\ud800"), models=()), 1.0)


def test_a_declared_model_is_shown_before_its_first_call():
    found = metrics(Tally(0.0, ["box"]))
    assert value(found, "vllm:num_requests_running", model_name="box") == 0
    assert value(found, "vllm:generation_tokens_total", model_name="box") == 0


def test_what_calls_cost_adds_up_and_an_unknown_price_is_no_zero():
    assert tally_of(record()).snapshot(10.0).price_usd is None
    told = tally_of(record(price_usd=Decimal("0.1")), record(price_usd=Decimal("0.2")), record())
    snapshot = told.snapshot(10.0)
    assert (snapshot.price_usd, snapshot.priced) == (Decimal("0.3"), 2)
    assert value(metrics(told), "headrace_cost_usd_total") == 0.3


def test_the_rate_of_requests_is_of_the_last_ten_seconds():
    tally = tally_of(
        record(done=50.0), record(done=55.0), failed("LLMTimeoutError", 504, done=59.0)
    )
    assert tally.snapshot(59.0).requests_per_s == 0.3
    assert tally.snapshot(64.0).requests_per_s == 0.2
    assert tally.snapshot(100.0).requests_per_s == 0.0


def test_batches_are_as_full_as_those_of_the_last_ten_seconds_were():
    tally = tally_of(record(batch_occupancy=0.25), record(batch_occupancy=0.75), record())
    assert tally.snapshot(10.0).batch_occupancy == 0.5
    assert tally.snapshot(40.0).batch_occupancy is None
