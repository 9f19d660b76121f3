"""Where records go: lines of JSON, log lines, spans and metrics."""

from __future__ import annotations

import json
import logging
import stat
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings

from contracts.values import values_of
from headrace.contracts.convert import from_json
from headrace.contracts.messages import LLMMessage
from headrace.contracts.record import Attempt, CallRecord, Timeline
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMResponse, Usage
from headrace.stores.secret import Secret
from headrace.traffic.sinks import JsonlFile, log_records, write_line
from traffic.telemetry import Telemetry

KEY = "a-key-of-nobody"
RECORD = CallRecord(
    call_id="c1",
    operation="chat",
    request_id="r1",
    backend="there",
    provider="mistral",
    requested_model="big",
    model="big-2026",
    stream=True,
    chunks=3,
    attempts=(Attempt(backend="there", begin=100.5, end=102.0, status=200),),
    usage=Usage(prompt_tokens=12, completion_tokens=34, input_cache_read_tokens=2),
    price_usd=Decimal("0.0012300"),
    finish_reason="stop",
    status=200,
    dropped=("user",),
    timeline=Timeline(
        anchor=102.0,
        wall_anchor=1_700_000_002.0,
        queued=100.0,
        admitted=100.5,
        sent=100.6,
        first_byte=101.0,
        first_token=101.1,
        last_token=101.9,
        done=102.0,
    ),
    request=LLMRequest(
        messages=(LLMMessage(role="user", content="tell nobody"),),
        metadata={"api_key": KEY, "trace": Path("/x"), "other": Secret(KEY)},
        provider_options={"Authorization": KEY},
    ),
    response=LLMResponse(text="not a word"),
)
FAILED = evolve(
    RECORD,
    error_kind="LLMRateLimitError",
    status=429,
    finish_reason=None,
    usage=None,
    price_usd=None,
    attempts=(
        Attempt(backend="there", begin=100.5, end=101.0, status=500, error_kind="LLMProviderError"),
        Attempt(backend="here", begin=101.2, end=102.0, status=429, error_kind="LLMRateLimitError"),
    ),
)


def test_a_line_is_a_record_again_without_what_was_said(tmp_path):
    with JsonlFile(tmp_path / "calls.jsonl") as sink:
        sink(RECORD)
        sink(FAILED)
    lines = (tmp_path / "calls.jsonl").read_bytes().splitlines()
    read = [from_json(line, CallRecord) for line in lines]
    assert read == [evolve(each, request=None, response=None) for each in (RECORD, FAILED)]


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=30, deadline=None)
@given(record=values_of(CallRecord))
def test_any_record_is_one_line_that_reads_back(record):
    line = write_line(record)
    assert line.count(b"\n") == 1
    assert from_json(line, CallRecord) == evolve(record, request=None, response=None)


def test_what_was_said_is_written_where_asked_for_and_a_key_never(tmp_path):
    with JsonlFile(tmp_path / "calls.jsonl", content=True) as sink:
        sink(RECORD)
    text = (tmp_path / "calls.jsonl").read_text()
    written = json.loads(text)
    assert written["request"]["messages"][0]["content"] == "tell nobody"
    assert written["response"]["text"] == "not a word"
    assert written["request"]["metadata"]["trace"] == "/x"
    assert KEY not in text


def test_the_file_is_its_owners_and_is_appended_to(tmp_path):
    path = tmp_path / "calls.jsonl"
    for _ in range(2):
        with JsonlFile(path) as sink:
            sink(RECORD)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_bytes().splitlines()) == 2


def test_a_closed_file_takes_no_more(tmp_path):
    sink = JsonlFile(tmp_path / "calls.jsonl")
    sink.close()
    sink.close()
    sink(RECORD)
    assert (tmp_path / "calls.jsonl").read_bytes() == b""


WRITER = """
import sys
from headrace.contracts.record import CallRecord, Timeline
from headrace.traffic.sinks import JsonlFile
record = CallRecord(
    call_id=sys.argv[2] * 5000, operation="chat", timeline=Timeline(anchor=0.0, wall_anchor=0.0)
)
with JsonlFile(sys.argv[1]) as sink:
    for _ in range(200):
        sink(record)
"""


def test_lines_of_several_processes_do_not_mingle(tmp_path):
    path = tmp_path / "calls.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name]) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    ids = [json.loads(line)["call_id"] for line in path.read_bytes().splitlines()]
    assert sorted(ids) == sorted(name * 5000 for name in "abc" for _ in range(200))


def test_a_bounded_file_begins_another_and_keeps_as_many_as_it_was_told(tmp_path):
    path = tmp_path / "calls.jsonl"
    size = len(write_line(RECORD))
    with JsonlFile(path, max_bytes=2 * size, keep=2) as sink:
        for number in range(9):
            sink(evolve(RECORD, call_id=f"{number:0{len(RECORD.call_id)}}"))
    ids = {
        each.name: [int(json.loads(line)["call_id"]) for line in each.read_bytes().splitlines()]
        for each in tmp_path.iterdir()
    }
    assert ids == {"calls.jsonl": [8], "calls.jsonl.1": [6, 7], "calls.jsonl.2": [4, 5]}
    assert {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()} == {0o600}


def test_a_bounded_file_may_keep_none_of_the_full_ones(tmp_path):
    with JsonlFile(tmp_path / "calls.jsonl", max_bytes=1, keep=0) as sink:
        for _ in range(3):
            sink(RECORD)
    (path,) = tmp_path.iterdir()
    assert path.read_bytes() == write_line(RECORD)


def test_a_bounded_file_that_somebody_took_away_is_made_again(tmp_path):
    path = tmp_path / "calls.jsonl"
    with JsonlFile(path, max_bytes=1) as sink:
        sink(RECORD)
        path.unlink()
        sink(RECORD)
    assert [each.name for each in tmp_path.iterdir()] == ["calls.jsonl"]


@pytest.mark.parametrize("wrong", [{"max_bytes": 0}, {"keep": -1}])
def test_a_bound_that_is_none_is_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        JsonlFile(tmp_path / "calls.jsonl", **wrong)


BOUNDED_WRITER = WRITER.replace(
    "JsonlFile(sys.argv[1])", "JsonlFile(sys.argv[1], max_bytes=50_000, keep=500)"
)


def test_processes_that_share_a_bounded_file_lose_no_line(tmp_path):
    path = tmp_path / "calls.jsonl"
    command = [sys.executable, "-c", BOUNDED_WRITER, str(path)]
    writers = [subprocess.Popen([*command, name]) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    lines = [line for each in tmp_path.iterdir() for line in each.read_bytes().splitlines()]
    ids = [json.loads(line)["call_id"] for line in lines]
    assert sorted(ids) == sorted(name * 5000 for name in "abc" for _ in range(200))


def test_a_log_line_has_the_numbers_as_text_and_as_fields(caplog):
    caplog.set_level(logging.INFO, "headrace.calls")
    log_records()(RECORD)
    (line,) = caplog.records
    assert line.getMessage() == (
        "chat big-2026 at there: stop after 2000 ms, 12 tokens in and 34 out, $0.00123, dropped user"
    )
    fields: Any = line
    assert (fields.call_id, fields.status, fields.attempts) == ("c1", 200, 1)
    assert (fields.duration_ms, fields.queue_ms, fields.ttft_ms) == (2000.0, 500.0, 500.0)
    assert fields.price_usd == "0.0012300"
    assert not hasattr(fields, "error_kind")
    assert "tell nobody" not in repr(vars(line))
    assert KEY not in repr(vars(line))


def test_a_failed_call_is_a_warning(caplog):
    caplog.set_level(logging.INFO, "headrace.calls")
    log_records()(FAILED)
    (line,) = caplog.records
    assert line.levelno == logging.WARNING
    assert "LLMRateLimitError after 2000 ms, 2 attempts" in line.getMessage()


def test_a_level_that_nobody_wants_costs_no_line(caplog):
    caplog.set_level(logging.ERROR, "headrace.calls")
    log_records()(FAILED)
    assert caplog.records == []


def test_a_call_is_a_span_in_the_words_of_the_conventions():
    telemetry = Telemetry()
    telemetry.sink(RECORD)
    (span,) = telemetry.spans
    assert (span.name, span.kind.name, span.status.status_code.name) == (
        "chat big",
        "CLIENT",
        "UNSET",
    )
    assert (span.start_time, span.end_time) == (1_700_000_000 * 10**9, 1_700_000_002 * 10**9)
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "mistral_ai",
        "gen_ai.request.model": "big",
        "gen_ai.response.model": "big-2026",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 34,
        "gen_ai.usage.cache_read.input_tokens": 2,
        "gen_ai.request.stream": True,
        "headrace.price_usd": "0.0012300",
        "headrace.dropped": ("user",),
        "headrace.queue_s": 0.5,
    }
    assert {key: span.attributes[key] for key in expected} == expected
    assert "error.type" not in span.attributes
    assert "tell nobody" not in span.to_json()
    assert KEY not in span.to_json()


def test_a_failed_call_is_a_failed_span_with_its_attempts():
    telemetry = Telemetry()
    telemetry.sink(FAILED)
    (span,) = telemetry.spans
    assert span.status.status_code.name == "ERROR"
    assert span.attributes["error.type"] == "LLMRateLimitError"
    assert [
        (event.attributes["headrace.backend"], event.attributes["error.type"], event.timestamp)
        for event in span.events
    ] == [
        ("there", "LLMProviderError", 1_700_000_000_500_000_000),
        ("here", "LLMRateLimitError", 1_700_000_001_200_000_000),
    ]


def test_a_span_is_the_child_of_the_one_that_is_current():
    telemetry = Telemetry()
    with telemetry.tracers.get_tracer("theirs").start_as_current_span("theirs") as parent:
        telemetry.sink(RECORD)
    assert telemetry.spans[0].parent.span_id == parent.get_span_context().span_id


def test_the_names_are_those_of_the_conventions_package():
    from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
    from opentelemetry.semconv._incubating.metrics import gen_ai_metrics

    telemetry = Telemetry()
    telemetry.sink(RECORD)
    used = {key for key in telemetry.spans[0].attributes if key.startswith("gen_ai.")}
    assert used <= {value for value in vars(gen_ai_attributes).values() if isinstance(value, str)}
    named = {value for value in vars(gen_ai_metrics).values() if isinstance(value, str)}
    assert telemetry.points.keys() <= named


def test_a_calls_numbers_are_measured():
    telemetry = Telemetry()
    telemetry.sink(RECORD)
    telemetry.sink(FAILED)
    points = telemetry.points
    tokens = {p.attributes["gen_ai.token.type"]: p.sum for p in points["gen_ai.client.token.usage"]}
    assert tokens == {"input": 12, "output": 34}
    durations = {
        p.attributes.get("error.type"): p for p in points["gen_ai.client.operation.duration"]
    }
    assert durations.keys() == {None, "LLMRateLimitError"}
    assert durations[None].sum == pytest.approx(2.0)
    assert durations[None].explicit_bounds[:3] == (0.01, 0.02, 0.04)
    first = points["gen_ai.client.operation.time_to_first_chunk"][0]
    assert first.sum == pytest.approx(0.5)


def test_a_call_that_never_began_is_measured_as_far_as_it_came():
    telemetry = Telemetry()
    bare = CallRecord(
        call_id="c2",
        operation="embeddings",
        timeline=Timeline(anchor=1.0, wall_anchor=5.0),
        error_kind="LLMCancelledError",
    )
    telemetry.sink(bare)
    assert telemetry.spans[0].name == "embeddings"


def test_without_opentelemetry_one_line_says_what_to_install():
    program = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from headrace.traffic.otel import OpenTelemetrySink\n"
        "try: OpenTelemetrySink()\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip().endswith("run: pip install 'headrace[otel]'")
